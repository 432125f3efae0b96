package actors

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// workers run actors on a few long-lived goroutines. Proto.Actor's own
// starts a goroutine for each wake-up, which costs about a microsecond, and
// another one when a rule has to grow the fresh stack.
type workers struct {
	turns   chan func()
	running sync.WaitGroup
}

var _ actor.Dispatcher = (*workers)(nil)

// newWorkers starts them. turnsMax bounds the actors that may be
// due for a turn at once; a mailbox is due at most once, so the number of
// actors is a bound, and Schedule never blocks.
func newWorkers(count, turnsMax int) *workers {
	w := &workers{turns: make(chan func(), turnsMax)}
	for range count {
		w.running.Go(func() {
			for turn := <-w.turns; turn != nil; turn = <-w.turns {
				turn()
			}
		})
	}
	return w
}

// Schedule implements actor.Dispatcher.
func (w *workers) Schedule(turn func()) { w.turns <- turn }

// Throughput implements actor.Dispatcher. The mailbox decides how much a turn
// delivers, so nobody asks.
func (w *workers) Throughput() int { return 1 }

// close ends the workers after the turns that are queued. The channel stays
// open: a turn that is scheduled later is never run, and harms nobody.
func (w *workers) close(count int) {
	for range count {
		w.turns <- nil
	}
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
