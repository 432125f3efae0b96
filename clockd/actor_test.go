package clockd

import (
	"log/slog"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// startActors returns the root context, the clock actor of m, and a subscriber
// that passes its ticks on.
func startActors(t *testing.T, m *Manual) (root *actor.RootContext, clock, subscriber *actor.PID, ticks chan Tick) {
	system := actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }),
		// A dead letter starts a goroutine that lives for this long (1 s by default).
		actor.WithDeadLetterThrottleInterval(time.Millisecond),
	)
	t.Cleanup(system.Shutdown)
	root = system.Root
	clock = root.Spawn(Props(m.Clock()))
	ticks = make(chan Tick, 16)
	subscriber = root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
		if tick, ok := ctx.Message().(Tick); ok {
			ticks <- tick
		}
	}))
	return root, clock, subscriber, ticks
}

// awaitNoTimers waits until the clock actor has let go of all its timers.
func awaitNoTimers(t *testing.T, m *Manual) {
	t.Helper()
	timers := &m.Clock().timers
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		timers.mu.Lock()
		n := len(timers.heap)
		timers.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d timers are still pending", n)
		}
	}
}

func TestActorBroadcasts(t *testing.T) {
	m := NewManual(noon)
	root, clock, subscriber, ticks := startActors(t, m)
	root.Send(clock, Subscribe{PID: subscriber, Every: 10 * time.Millisecond})
	m.AwaitTimers(1)
	for range 3 {
		m.Advance(10 * time.Millisecond)
		if got := <-ticks; got.Snapshot != m.Clock().Now() {
			t.Fatalf("tick = %+v, want %+v", got, m.Clock().Now())
		}
	}
	m.Advance(9 * time.Millisecond)
	root.Send(clock, Unsubscribe{PID: subscriber})
	awaitNoTimers(t, m)
	m.Advance(time.Hour)
	if err := root.StopFuture(subscriber).Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(ticks); n != 0 {
		t.Fatalf("%d ticks too many", n)
	}
	_ = root.StopFuture(clock).Wait()
}

func TestActorSubscribesAPIDOnce(t *testing.T) {
	m := NewManual(noon)
	root, clock, subscriber, ticks := startActors(t, m)
	root.Send(clock, Subscribe{PID: subscriber, Every: time.Second})
	root.Send(clock, Subscribe{PID: subscriber, Every: time.Minute})
	_ = root.PoisonFuture(clock).Wait() // both are handled; then its ticks end
	awaitNoTimers(t, m)

	clock = root.Spawn(Props(m.Clock()))
	root.Send(clock, Subscribe{PID: subscriber, Every: time.Second})
	root.Send(clock, Subscribe{PID: subscriber, Every: time.Second})
	m.AwaitTimers(1)
	_, _ = root.RequestFuture(clock, "both handled", 50*time.Millisecond).Result()
	m.Advance(time.Second)
	_ = root.PoisonFuture(subscriber).Wait()
	if n := len(ticks); n != 1 {
		t.Fatalf("%d ticks in a second, want 1", n)
	}
	awaitNoTimers(t, m) // a subscriber that ended is forgotten
	_ = root.StopFuture(clock).Wait()
}
