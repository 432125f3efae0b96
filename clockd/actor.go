package clockd

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Subscribe asks the clock actor to send PID a Tick in each period Every (each
// tick of the clock if Every is less). Another Subscribe of the same PID
// replaces the first; a PID that terminates is unsubscribed.
type Subscribe struct {
	PID   *actor.PID
	Every time.Duration
}

// Unsubscribe ends the ticks to PID. One that is under way may still arrive.
type Unsubscribe struct{ PID *actor.PID }

// Tick is what a subscriber receives: the snapshot that was current when it
// was sent. A subscriber that falls behind finds them queued; it should act on
// Clock.Now and choose a period that it can keep up with.
type Tick struct{ Snapshot }

// Props describes the clock actor of c, which broadcasts its ticks. Sends are
// made by the clock's own goroutine, so a tick passes through no other mailbox
// than the subscriber's, and that mailbox must never block its senders.
func Props(c *Clock) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		return &broadcaster{clock: c, stops: make(map[string]func())}
	})
}

type broadcaster struct {
	clock *Clock
	stops map[string]func() // by PID; ends its ticks
}

// Receive implements actor.Actor.
func (b *broadcaster) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case Subscribe:
		b.unsubscribe(m.PID)
		root := ctx.ActorSystem().Root
		b.stops[m.PID.String()] = b.clock.Every(m.Every, func() {
			root.Send(m.PID, Tick{b.clock.Now()})
		})
		ctx.Watch(m.PID)
	case Unsubscribe:
		b.unsubscribe(m.PID)
		ctx.Unwatch(m.PID)
	case *actor.Terminated:
		b.unsubscribe(m.Who)
	case *actor.Stopping, *actor.Restarting:
		for _, stop := range b.stops {
			stop()
		}
	}
}

func (b *broadcaster) unsubscribe(pid *actor.PID) {
	key := pid.String()
	if stop, ok := b.stops[key]; ok {
		stop()
		delete(b.stops, key)
	}
}
