package actors

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// workers run actors on a few long-lived goroutines. Proto.Actor's own
// starts a goroutine for each wake-up, which costs about a microsecond, and
// another one when a rule has to grow the fresh stack.
//
// Whoever posts many messages at once may run the turns that they make due: nobody is woken
// for a turn between Gather and Run. A turn that waits nevertheless, because another one
// computes, is a worker's after one or two looks of the janitor: see nudge. So is one that is
// known to be long: see Aside.
type workers struct {
	running sync.WaitGroup

	mu        sync.Mutex // guards everything below
	turns     turnQueue
	aside     turnQueue // which workers alone run
	gathering int       // callers between Gather and Run
	seen      int       // turns.taken at the last nudge
	asleep    int
	closed    bool
	due       sync.Cond // of mu
}

var _ actor.Dispatcher = (*workers)(nil)

func newWorkers(count int) *workers {
	w := &workers{}
	w.due.L = &w.mu
	for range count {
		w.running.Go(w.work)
	}
	return w
}

// turnQueue holds turns, the oldest first. A mailbox is due at most once, so the number of actors
// is a bound.
type turnQueue struct {
	queue []func() // from next on
	next  int
	taken int // of all time
}

func (t *turnQueue) push(turn func()) {
	if len(t.queue) == cap(t.queue) && t.next > len(t.queue)/2 {
		n := copy(t.queue, t.queue[t.next:])
		clear(t.queue[n:])
		t.queue, t.next = t.queue[:n], 0
	}
	t.queue = append(t.queue, turn)
}

func (t *turnQueue) empty() bool { return t.next == len(t.queue) }

// pop returns nil if there is none.
func (t *turnQueue) pop() func() {
	if t.empty() {
		return nil
	}
	turn := t.queue[t.next]
	t.queue[t.next] = nil
	if t.next++; t.empty() {
		t.queue, t.next = t.queue[:0], 0
	}
	t.taken++
	return turn
}

// work runs turns of both kinds alternately.
func (w *workers) work() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for first, second := &w.turns, &w.aside; ; first, second = second, first {
		turn := first.pop()
		if turn == nil {
			turn = second.pop()
		}
		if turn == nil {
			if w.closed {
				return
			}
			w.asleep++
			w.due.Wait()
			w.asleep--
			continue
		}
		w.mu.Unlock()
		turn()
		w.mu.Lock()
	}
}

// Schedule implements actor.Dispatcher.
func (w *workers) Schedule(turn func()) {
	w.mu.Lock()
	w.turns.push(turn)
	wake := w.asleep > 0 && w.gathering == 0
	w.mu.Unlock()
	if wake {
		w.due.Signal()
	}
}

// Aside is Schedule for a turn that may take long.
func (w *workers) Aside(turn func()) {
	w.mu.Lock()
	w.aside.push(turn)
	w.mu.Unlock()
	w.due.Signal()
}

// Throughput implements actor.Dispatcher. The mailbox decides how much a turn
// delivers, so nobody asks.
func (w *workers) Throughput() int { return 1 }

// Gather says that the caller will Run.
func (w *workers) Gather() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gathering++
}

// Run runs the turns that are due, on the caller's goroutine. Those that become due meanwhile are
// the next caller's, or a worker's.
func (w *workers) Run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := len(w.turns.queue) - w.turns.next; n > 0 && !w.closed; n-- {
		turn := w.turns.pop()
		if turn == nil {
			break // others have taken the rest
		}
		w.mu.Unlock()
		turn()
		w.mu.Lock()
	}
	w.gathering--
	switch {
	case w.closed:
		w.due.Broadcast()
	case !w.turns.empty() && w.gathering == 0:
		w.due.Signal()
	}
}

// nudge is called each time that the janitor looks. It wakes the workers if turns are due and
// none was taken since the last one.
func (w *workers) nudge() {
	w.mu.Lock()
	stuck := !w.turns.empty() && w.turns.taken == w.seen
	w.seen = w.turns.taken
	w.mu.Unlock()
	if stuck {
		w.due.Broadcast()
	}
}

// close ends the workers after the turns that are queued, and waits for those that others run. A
// turn that is scheduled later is never run, and harms nobody.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.due.Broadcast()
	for w.gathering > 0 {
		w.due.Wait()
	}
	w.mu.Unlock()
	w.running.Wait()
}

// errands are what a node does in the background, each on a goroutine of its own. They are
// no sync.WaitGroup: they may begin while somebody waits until there are none.
type errands struct {
	mu    sync.Mutex // guards count
	count int
	none  sync.Cond // of mu
}

func (e *errands) begin(work func()) {
	e.mu.Lock()
	e.count++
	e.mu.Unlock()
	go func() {
		defer e.end()
		work()
	}()
}

func (e *errands) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count--; e.count == 0 {
		e.none.Broadcast()
	}
}

// wait returns when there are none.
func (e *errands) wait() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.count > 0 {
		e.none.Wait()
	}
}
