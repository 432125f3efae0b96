package clockd

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"
)

func TestEveryFiresOncePerPeriodAndSkipsMissedOnes(t *testing.T) {
	m := NewManual(noon)
	var calls int
	stop := m.Clock().Every(10*time.Millisecond, func() { calls++ })
	steps := []struct {
		advance time.Duration
		want    int
	}{{9, 0}, {1, 1}, {9, 1}, {1, 2}, {1000, 3}, {9, 3}, {1, 4}}
	for i, s := range steps {
		m.Advance(s.advance * time.Millisecond)
		if calls != s.want {
			t.Fatalf("step %d: %d calls, want %d", i, calls, s.want)
		}
	}
	stop()
	stop()
	m.Advance(time.Hour)
	if calls != 4 {
		t.Fatalf("called after stop: %d", calls)
	}
}

func TestEveryBelowTheTickMeansEachTick(t *testing.T) {
	m := NewManual(noon)
	var calls int
	m.Clock().Every(0, func() { calls++ })
	for range 5 {
		m.Advance(time.Millisecond)
	}
	if calls != 5 {
		t.Fatalf("%d calls in 5 ticks", calls)
	}
}

func TestTimersFireInOrder(t *testing.T) {
	m := NewManual(noon)
	c := m.Clock()
	var got []string
	note := func(s string) func() { return func() { got = append(got, s) } }
	c.AfterFunc(3*time.Second, note("3"))
	c.AfterFunc(time.Second, note("1a"))
	c.AfterFunc(time.Second, note("1b"))
	stop := c.AfterFunc(2*time.Second, note("stopped"))
	c.AfterFunc(math.MaxInt64, note("never"))
	c.AfterFunc(time.Second, func() { c.AfterFunc(-1, note("next tick")) })
	stop()
	m.Advance(time.Hour)
	m.Advance(time.Nanosecond)
	if want := []string{"1a", "1b", "3", "next tick"}; !slices.Equal(got, want) {
		t.Fatalf("fired %q, want %q", got, want)
	}
}

func TestTimerMayStopItself(t *testing.T) {
	m := NewManual(noon)
	var calls int
	var stop func()
	stop = m.Clock().Every(time.Second, func() { calls++; stop() })
	m.Advance(time.Second)
	m.Advance(time.Second)
	if calls != 1 {
		t.Fatalf("%d calls, want 1", calls)
	}
}

func TestWallJumpFiresNothing(t *testing.T) {
	m := NewManual(noon)
	fired := false
	m.Clock().AfterFunc(time.Hour, func() { fired = true })
	m.JumpWall(10 * year)
	m.Advance(time.Minute)
	if fired {
		t.Fatal("a wall jump fired a timer")
	}
}

func TestSleep(t *testing.T) {
	m := NewManual(noon)
	c := m.Clock()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Sleep(canceled, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("Sleep(canceled) = %v", err)
	}
	if err := c.Sleep(t.Context(), 0); err != nil {
		t.Errorf("Sleep(0) = %v", err)
	}
	if n := len(c.timers.heap); n != 0 {
		t.Errorf("%d timers left behind", n)
	}

	done := make(chan error)
	go func() { done <- c.Sleep(t.Context(), time.Second) }()
	m.AwaitTimers(1)
	m.Advance(time.Second)
	if err := <-done; err != nil {
		t.Errorf("Sleep = %v", err)
	}
	go func() { done <- c.Sleep(t.Context(), time.Second) }()
	m.AwaitTimers(1)
	c.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("Sleep across Close = %v", err)
	}
}

func TestSleepUntil(t *testing.T) {
	at := Mono() + int64(2*time.Millisecond)
	if err := SleepUntil(t.Context(), at); err != nil || Mono() < at {
		t.Errorf("woke %v early: %v", time.Duration(at-Mono()), err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for _, at := range []int64{0, Mono() + int64(time.Hour)} {
		if err := SleepUntil(ended, at); !errors.Is(err, context.Canceled) {
			t.Errorf("after its context: %v", err)
		}
	}
}

func TestWaitUntil(t *testing.T) {
	ready := make(chan struct{})
	if WaitUntil(Deadline(time.Millisecond), ready) || WaitUntil(Deadline(-time.Hour), ready) {
		t.Error("nothing was ready")
	}
	if !Passed(Deadline(0)) || Passed(Deadline(time.Hour)) || Passed(time.Time{}) {
		t.Error("what has passed is not told from what has not")
	}
	close(ready)
	if !WaitUntil(time.Time{}, ready) || !WaitUntil(Deadline(time.Hour), ready) {
		t.Error("it was ready")
	}
}
