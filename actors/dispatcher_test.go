package actors

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// TestGather: between Gather and Run nobody is woken for a turn, unless it is one for the workers
// or has waited for a tick.
func TestGather(t *testing.T) {
	w := newWorkers(2)
	defer w.close()
	ran := make(chan int, 4)
	turn := func(n int) func() { return func() { ran <- n } }
	want := func(n int) {
		t.Helper()
		select {
		case got := <-ran:
			if got != n {
				t.Errorf("turn %d ran, want %d", got, n)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("turn %d does not run", n)
		}
	}
	idle := func() { awaitSleep(w, 2) }
	idle()
	w.Schedule(turn(1))
	want(1)
	idle()
	w.Gather()
	w.Schedule(turn(2))
	w.Schedule(turn(3))
	w.Aside(turn(4))
	sum := 0
	for n := 0; n != 4; sum += n { // a worker that is woken may take the others as well
		n = <-ran
	}
	for w.Run(); sum < 2+3+4; {
		sum += <-ran
	}
	idle()
	w.Gather()
	w.Schedule(turn(5))
	time.Sleep(5 * time.Millisecond) // for whoever was woken wrongly
	w.mu.Lock()
	if w.asleep != 2 || w.turns.empty() {
		t.Error("somebody was woken")
	}
	w.mu.Unlock()
	w.nudge()
	w.nudge()
	want(5)
	w.Run()
	w.Schedule(turn(6))
	want(6)
}

// awaitSleep waits until so many workers sleep.
func awaitSleep(w *workers, count int) {
	for asleep := -1; asleep != count; {
		w.mu.Lock()
		asleep = w.asleep
		w.mu.Unlock()
		runtime.Gosched()
	}
}

// TestTurnQueue: it is as long as what waits in it at most, however much has passed through.
func TestTurnQueue(t *testing.T) {
	var q turnQueue
	ran := 0
	for range 3 {
		q.push(func() { ran++ })
	}
	for range 10_000 {
		q.push(func() { ran++ })
		q.pop()()
	}
	if ran != 10_000 || cap(q.queue) > 64 {
		t.Errorf("%d turns ran, room for %d of 3", ran, cap(q.queue))
	}
}

// TestSlowTurnsAreAside: a deal that computes for long does so on a worker, from its next turn
// on, and until a turn was quick.
func TestSlowTurnsAreAside(t *testing.T) {
	w := newWorkers(1)
	defer w.close()
	m, h := newMailbox(nil, clockd.NewManual(0).Clock()), &heard{}
	m.RegisterHandlers(h, w)
	m.open()
	m.slow = true // as a turn leaves it
	w.Gather()
	m.PostUserMessage("a")
	for m.UserMessageCount() > 0 {
		runtime.Gosched()
	}
	w.Run()
	for quick := false; !quick; { // the host may take the processor away within any turn
		w.Gather()
		m.PostUserMessage("b")
		w.Run()
		m.mu.Lock()
		quick = !m.scheduled && !m.slow
		m.mu.Unlock()
	}
	awaitSleep(w, 1)
	began := clockd.Mono()
	h.then = func() {
		for clockd.Mono()-began < 10*slowMessage {
		}
	}
	w.Gather()
	m.PostUserMessage("c")
	w.Run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.slow {
		t.Error("a slow turn was not noted")
	}
}

// TestErrands: whoever waits for them to end may do so while others begin, and sees all end
// that were begun before.
func TestErrands(t *testing.T) {
	for range 200 {
		var e errands
		e.none.L = &e.mu
		var ended atomic.Int64
		var others sync.WaitGroup
		const beginners, each = 4, 20
		for range beginners {
			others.Go(func() {
				for range each {
					e.begin(func() { e.begin(func() { ended.Add(1) }) })
				}
			})
			others.Go(e.wait)
		}
		others.Wait()
		if e.wait(); ended.Load() != beginners*each {
			t.Fatalf("%d of %d had ended", ended.Load(), beginners*each)
		}
	}
}

// TestAfterClose: who wants a deal of a node that has closed is not held up.
func TestAfterClose(t *testing.T) {
	for range 12 { // what is ready when decides
		h := newHouse(t, nil)
		h.create("d", nil)
		gone := h.node
		e := gone.directory.find([]byte("d"))
		if a := e.active.Load(); a != nil {
			a.fail(errAgain)
		}
		h.crash()
		if a, err := gone.activate(e); err == nil {
			h.eventually("it fails", func() bool { return a.failed.Load() })
		}
	}
}
