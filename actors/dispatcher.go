package actors

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// dispatcher runs actors on a few long-lived goroutines. Proto.Actor's own
// starts a goroutine for each wake-up, which costs about a microsecond, and
// another one when a rule has to grow the fresh stack.
type dispatcher struct {
	turns   chan func()
	workers sync.WaitGroup
}

var _ actor.Dispatcher = (*dispatcher)(nil)

// newDispatcher starts the workers. turnsMax bounds the actors that may be
// due for a turn at once; a mailbox is due at most once, so the number of
// actors is a bound, and Schedule never blocks.
func newDispatcher(workers, turnsMax int) *dispatcher {
	d := &dispatcher{turns: make(chan func(), turnsMax)}
	for range workers {
		d.workers.Go(func() {
			for turn := <-d.turns; turn != nil; turn = <-d.turns {
				turn()
			}
		})
	}
	return d
}

// Schedule implements actor.Dispatcher.
func (d *dispatcher) Schedule(turn func()) { d.turns <- turn }

// Throughput implements actor.Dispatcher. The mailbox decides how much a turn
// delivers, so nobody asks.
func (d *dispatcher) Throughput() int { return 1 }

// close ends the workers after the turns that are queued. The channel stays
// open: a turn that is scheduled later is never run, and harms nobody.
func (d *dispatcher) close(workers int) {
	for range workers {
		d.turns <- nil
	}
	d.workers.Wait()
}
