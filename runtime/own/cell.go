package own

import (
	"fmt"
	"sync/atomic"
)

// Outcome is how a wait ended.
type Outcome uint8

const (
	// Done means that the work is complete and the object is the handler's again.
	Done Outcome = iota
	// Abandoned means that the deadline passed. The object belongs to somebody else.
	Abandoned
)

// Cell is the part of a pooled object that says who owns it. Embed it by value.
type Cell struct {
	word     atomicWord
	deadline atomic.Int64 // Mono ns; when the handler gives up
	wake     chan struct{}
	waker    atomic.Pointer[Waker]
	shared   *shared
	next     atomic.Uint32 // the free seat below this one; only freeList uses it
	seat     uint16
	freed    trace // of the last Put
}

// Waker is told that a wait may have ended, for a handler that does not block in Wait:
// TryWait says whether it has. Wake must not block. It may be called when there is no
// wait, and by several at once.
type Waker interface{ Wake() }

// WakeBy has w told of the end of the waits for this object, until Put.
func (c *Cell) WakeBy(w *Waker) { c.waker.Store(w) }

// shared is what the cells of one pool have in common.
type shared struct {
	now       atomic.Int64 // Mono ns, of the last Sweep
	abandoned atomic.Uint64
}

// Generation counts the owners that this seat has had. Whoever keeps a
// reference beside the owner's keeps the generation with it, and finds it
// changed once the seat is somebody else's.
func (c *Cell) Generation() uint64 { return c.word.Load().generation() }

// Deadline returns the deadline of the last Send (Mono ns), for work that
// should be dropped rather than begun once it has passed.
func (c *Cell) Deadline() int64 { return c.deadline.Load() }

// Held says whether the object is the caller's outright, for a handler that panicked
// and may have given it away before.
func (c *Cell) Held() bool { return c.word.Load().state() == held }

// Send gives the object away until deadline (Mono ns; math.MaxInt64 for none).
// It comes before the message that carries the object to its new owner; then
// the handler must Wait.
func (c *Cell) Send(deadline int64) {
	c.deadline.Store(deadline)
	c.mustMove("Send", held, sent)
}

// Wait blocks the handler until the object is complete or its deadline passed
// by the time of the pool's last Sweep.
func (c *Cell) Wait() Outcome {
	for {
		if outcome, ended := c.TryWait(); ended {
			return outcome
		}
		<-c.wake
	}
}

// TryWait is Wait for a handler that must not block: false means that the wait
// has not ended, and the object is still somebody else's.
func (c *Cell) TryWait() (outcome Outcome, ended bool) {
	for {
		w := c.word.Load()
		switch w.state() {
		case done:
			c.mustMove("Wait", done, held)
			return Done, true
		case sent:
			if c.shared.now.Load() < c.deadline.Load() {
				return Done, false
			}
			if c.word.CompareAndSwap(w, w.with(abandoned)) {
				c.shared.abandoned.Add(1)
				return Abandoned, true
			}
		default:
			c.misuse("Wait", w.state())
		}
	}
}

// Complete ends the work on a sent object. If it returns true, the object is
// the handler's and must not be touched again. If it returns false, the
// handler has gone and the caller owns the object: it must Put it.
func (c *Cell) Complete() bool {
	w := c.word.Load()
	if w.state() == sent && c.word.CompareAndSwap(w, w.with(done)) {
		c.signal()
		return true
	}
	c.mustMove("Complete", abandoned, held)
	return false
}

// signal tells the waker, or offers a token; if one is there already, it does as well.
func (c *Cell) signal() {
	if w := c.waker.Load(); w != nil {
		(*w).Wake()
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// mustMove changes the state of a cell that nobody else may change now.
func (c *Cell) mustMove(op string, from, to state) {
	w := c.word.Load()
	next := w.with(to)
	if from == free {
		next = next.nextGeneration()
	}
	if w.state() != from || !c.word.CompareAndSwap(w, next) {
		c.misuse(op, c.word.Load().state())
	}
}

func (c *Cell) misuse(op string, s state) {
	if op == "Put" && s == free {
		op = "double Put"
	}
	panic(fmt.Sprintf("own: %s of seat %d, which is %v (generation %d)%s",
		op, c.seat, s, c.Generation(), c.freed.report()))
}

type state uint8

const (
	free      state = iota // in the free list; nobody's
	held                   // one goroutine owns it outright
	sent                   // the actor or the committer works on it, the handler waits
	done                   // complete; the handler has not noticed yet
	abandoned              // the handler has gone; the committer has not noticed yet
)

func (s state) String() string {
	return [...]string{"free", "held", "sent", "done", "abandoned"}[s]
}

// word is a cell's state in the low stateBits bits, its generation above.
type word uint64

const (
	stateBits = 3
	stateMask = 1<<stateBits - 1
)

func (w word) state() state         { return state(w & stateMask) }
func (w word) generation() uint64   { return uint64(w >> stateBits) }
func (w word) with(s state) word    { return w&^stateMask | word(s) }
func (w word) nextGeneration() word { return w + 1<<stateBits }

type atomicWord struct{ v atomic.Uint64 }

func (a *atomicWord) Load() word { return word(a.v.Load()) }

func (a *atomicWord) CompareAndSwap(old, new word) bool {
	return a.v.CompareAndSwap(uint64(old), uint64(new))
}
