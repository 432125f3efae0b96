// Package own keeps pooled objects that have exactly one owner at a time.
//
// A Pool is a fixed slab of seats, allocated once. A seat is at once the pooled
// object and the admission ticket: when no seat is free, the node is full. The
// pooled type T embeds a Cell by value, and ownership moves with the object:
//
//	handler                     actor, committer
//	Get            free → held
//	Send           held → sent  receives it, works on it
//	Wait: blocks                Complete() == true   sent → done
//	Wait == Done   done → held
//	Put            held → free
//
// At its deadline the handler gives up instead, and the object stays behind:
//
//	Wait == Abandoned           Complete() == false  abandoned → held
//	  sent → abandoned          Put                  held → free
//
// What the callers must do: the handler touches nothing between Send and
// Wait == Done, and nothing ever after Wait == Abandoned. Whoever received the
// object calls Complete exactly once as its last act, and Put if that returned
// false. Nobody keeps a pointer into T past the Put.
//
// Why no interleaving breaks this: only the handler ends a wait, only the
// committer completes, and both leave the state sent by compare-and-swap, so
// exactly one of them wins and the loser learns it from the same word. The
// loser of Wait finds done and has its reply; the loser of Complete finds
// abandoned and is the only owner left. A wake-up cannot be lost: the state
// (or the time, in Sweep) is stored before the token is offered, and a token
// that finds the channel full stands behind one that is not yet received,
// whose receiver reads the state afterwards. A token that is left over from an
// earlier owner costs one more look at the state. The same holds for a waker that is told.
//
// A call that does not fit the state panics: it is our bug. With the build tag
// owncheck, a freed object is poisoned as well, a write after the Put is found
// by the next Get, and the panic shows the stack of the last Put.
package own

import (
	"fmt"
	"sync/atomic"
)

// SeatsMax bounds Config.Seats: a seat's index has 16 bits, one value of which
// means none.
const SeatsMax = 1<<16 - 1

// Class says which seats a request may take.
type Class uint8

const (
	// ClassNew is new work. It is refused once only the reserve is free.
	ClassNew Class = iota
	// ClassPriority finishes work that was accepted before (confirm, cancel)
	// and may take the last seat.
	ClassPriority
)

// Config bounds a Pool.
type Config struct {
	Seats   int // 1 … SeatsMax: objects in all
	Reserve int // 0 … Seats-1: those that ClassNew must leave free
}

func (c Config) validate() error {
	if c.Seats < 1 || c.Seats > SeatsMax {
		return fmt.Errorf("own: %d seats, want 1 to %d", c.Seats, SeatsMax)
	}
	if c.Reserve < 0 || c.Reserve >= c.Seats {
		return fmt.Errorf("own: a reserve of %d seats, want 0 to %d", c.Reserve, c.Seats-1)
	}
	return nil
}

// Stats are the pool's size and its counters since New.
type Stats struct {
	Seats     int
	InUse     int    // seats that are not free
	Got       uint64 // Gets that found a seat
	Refused   uint64 // Gets that found none
	Abandoned uint64 // waits that ended at their deadline
}

// Pool owns the seats. All methods may be called concurrently.
type Pool[T any] struct {
	shared  shared
	free    freeList
	reserve int
	refused atomic.Uint64
	items   []T
	cells   []*Cell // cells[i] is inside items[i]
	reset   func(*T)
	cell    func(*T) *Cell
}

// New allocates the slab. cell returns the Cell inside an object. reset makes
// an object fit for its next owner; it runs in New and in each Put. It must set
// every field but the Cell, and may keep only buffers that are the object's
// own: with owncheck, whatever a byte slice still points to is overwritten.
func New[T any](cfg Config, cell func(*T) *Cell, reset func(*T)) (*Pool[T], error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Pool[T]{
		reserve: cfg.Reserve,
		items:   make([]T, cfg.Seats),
		cells:   make([]*Cell, cfg.Seats),
		reset:   reset,
		cell:    cell,
	}
	for i := range p.items {
		x := &p.items[i]
		p.cells[i] = cell(x)
		*p.cells[i] = Cell{seat: uint16(i), shared: &p.shared, wake: make(chan struct{}, 1)}
		reset(x)
		poison(x)
	}
	p.free.init(p.cells)
	return p, nil
}

// Get returns an object that the caller owns, or false if the class may take
// no more seats now.
func (p *Pool[T]) Get(class Class) (*T, bool) {
	leave := 0
	if class == ClassNew {
		leave = p.reserve
	}
	i, ok := p.free.pop(p.cells, leave)
	if !ok {
		p.refused.Add(1)
		return nil, false
	}
	x, c := &p.items[i], p.cells[i]
	c.mustMove("Get", free, held)
	unpoison(x, c, p.reset)
	return x, true
}

// Put frees x, which the caller owns: after Get, Wait == Done, or
// Complete == false.
func (p *Pool[T]) Put(x *T) {
	c := p.cell(x)
	if s := c.word.Load().state(); s != held {
		c.misuse("Put", s)
	}
	if c.waker.Load() != nil {
		c.waker.Store(nil)
	}
	p.reset(x)
	poison(x)
	c.freed.record()
	c.mustMove("Put", held, free)
	p.free.push(p.cells, c.seat)
}

// Sweep tells the pool the time (Mono ns) and wakes the handlers whose
// deadline has passed. Deadlines are as precise as the calls are frequent.
func (p *Pool[T]) Sweep(now int64) {
	p.shared.now.Store(now)
	for _, c := range p.cells {
		if c.word.Load().state() == sent && c.deadline.Load() <= now {
			c.signal()
		}
	}
}

// Stats sums up the counters, at the cost of a look at every seat.
func (p *Pool[T]) Stats() Stats {
	st := Stats{
		Seats:     len(p.items),
		InUse:     len(p.items) - p.free.len(),
		Refused:   p.refused.Load(),
		Abandoned: p.shared.abandoned.Load(),
	}
	for _, c := range p.cells {
		st.Got += c.Generation()
	}
	return st
}
