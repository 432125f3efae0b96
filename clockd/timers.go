package clockd

import (
	"container/heap"
	"context"
	"math"
	"sync"
	"time"
)

// timers are the functions that wait for the clock, earliest first, and in the
// order in which they were added where they share a deadline.
type timers struct {
	mu     sync.Mutex // guards everything below, and every timer's fields
	heap   timerHeap
	seq    uint64
	closed chan struct{} // closed by close
	added  *sync.Cond    // on mu; Manual waits on it
}

type timer struct {
	at     int64 // Mono ns
	seq    uint64
	period int64 // ns; 0 fires once
	fn     func()
	index  int // in the heap; -1 when not in it
}

func (t *timers) init() {
	t.closed = make(chan struct{})
	t.added = sync.NewCond(&t.mu)
}

// Every calls fn once in each period d, first after d, until stop is called or
// the clock is closed. Periods that a stalled clock missed are not made up for.
// A d below the tick means each tick.
//
// fn runs on the clock's goroutine, so it must not block: time stands still
// for all while it runs. Work that may block loops over Sleep instead. stop
// does not wait: a call that the current tick has begun may outlive it.
func (c *Clock) Every(d time.Duration, fn func()) (stop func()) {
	return c.timers.add(c.Now().Mono, d, max(int64(d), 1), fn)
}

// AfterFunc calls fn once when d has elapsed, unless stop is called or the
// clock is closed before. fn must not block, as in Every.
func (c *Clock) AfterFunc(d time.Duration, fn func()) (stop func()) {
	return c.timers.add(c.Now().Mono, d, 0, fn)
}

// Sleep returns nil when d has elapsed, the context's error if that ends
// first, or ErrClosed. It is as precise as the tick.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	woken := make(chan struct{})
	stop := c.AfterFunc(d, func() { close(woken) })
	defer stop()
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.timers.closed:
		return ErrClosed
	}
}

// WaitUntil returns true when ready is closed or sent on, or false at a time of time.Now, such
// as a deadline of net.Conn; the zero time is never.
func WaitUntil(at time.Time, ready <-chan struct{}) bool {
	var late <-chan time.Time
	if !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-ready:
		return true
	case <-late:
		return false
	}
}

// Passed says whether a time of time.Now is over; the zero time never is.
func Passed(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// Deadline is a time d from now for what wants one of time.Now, such as net.Conn.
func Deadline(d time.Duration) time.Time { return time.Now().Add(d) }

// SleepUntil returns nil at the time at (Mono ns), or the context's error if that
// ends first. It is as precise as the system's timers and costs one of them: for
// generators of load, which must keep to their schedule. All else waits for a Clock.
func SleepUntil(ctx context.Context, at int64) error {
	left := at - Mono()
	if left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(time.Duration(left))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *timers) add(now int64, d time.Duration, period int64, fn func()) (stop func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delay := min(max(int64(d), 0), math.MaxInt64-now) // saturates: never is never
	tm := &timer{at: now + delay, period: period, fn: fn}
	t.push(tm)
	t.added.Broadcast()
	return func() { t.remove(tm) }
}

func (t *timers) push(tm *timer) {
	t.seq++
	tm.seq = t.seq
	heap.Push(&t.heap, tm)
}

// remove takes a timer out for good: one whose function is running right now
// is not in the heap, and clearing its period keeps it from coming back.
func (t *timers) remove(tm *timer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tm.period = 0
	if tm.index >= 0 {
		heap.Remove(&t.heap, tm.index)
	}
}

// fire runs what is due at now. A timer that a fired function adds is due at
// the next tick at the earliest, so that fire ends.
func (t *timers) fire(now int64) {
	t.mu.Lock()
	last := t.seq
	for len(t.heap) > 0 && t.heap[0].at <= now && t.heap[0].seq <= last {
		tm := heap.Pop(&t.heap).(*timer)
		t.mu.Unlock()
		tm.fn()
		t.mu.Lock()
		if tm.period > 0 {
			tm.at += tm.period
			if tm.at <= now { // periods that were missed, or a period below the tick
				tm.at = now + min(tm.period, math.MaxInt64-now)
			}
			t.push(tm)
		}
	}
	t.mu.Unlock()
}

func (t *timers) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
	default:
		close(t.closed)
	}
}

// timerHeap implements heap.Interface.
type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].seq < h[j].seq
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	tm := x.(*timer)
	tm.index = len(*h)
	*h = append(*h, tm)
}

func (h *timerHeap) Pop() any {
	old := *h
	tm := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	tm.index = -1
	return tm
}
