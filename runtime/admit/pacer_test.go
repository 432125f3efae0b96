package admit

import (
	"sync"
	"testing"
	"time"
)

func TestPacer(t *testing.T) {
	const ms = int64(time.Millisecond)
	p := NewPacer(100, 25*time.Millisecond)
	for i, step := range []struct{ now, want int64 }{
		{1000, 0}, {1000, 10}, {1000, 20}, // held back
		{1010, 20}, {1100, 0}, {1105, 5}, {2000, 0}, // what was not used is not saved up
		{2000, 10},
	} {
		if got := p.Delay(step.now * ms); got != time.Duration(step.want*ms) {
			t.Errorf("step %d: %v, want %d ms", i, got, step.want)
		}
	}
}

// TestPacerSpreads: nobody is held back for ever, and those beyond the pace do not all come
// back at once.
func TestPacerSpreads(t *testing.T) {
	const most = time.Second
	p := NewPacer(10, most)
	for range 11 { // at 0, 0.1 … 1 s
		p.Delay(0)
	}
	var parts [10]int
	for range 10_000 {
		d := p.Delay(0)
		if d < most*4/5 || d > most*6/5 {
			t.Fatalf("held back for %v", d)
		}
		parts[min(int((d-most*4/5)/(most/25)), 9)]++
	}
	for i, n := range parts {
		if n < 500 { // a thousand each, and by chance 880
			t.Errorf("%d of 10,000 in part %d", n, i)
		}
	}
	if d := p.Delay(int64(most)); d != most/10 {
		t.Errorf("a second later the next waits %v: those beyond the pace moved it", d)
	}
}

func TestPacerTakesNoTwoForOneMoment(t *testing.T) {
	const callers, each = 4, 100
	p := NewPacer(1000, time.Hour)
	var wait sync.WaitGroup
	var mu sync.Mutex // guards seen
	seen := make(map[time.Duration]bool)
	for range callers {
		wait.Go(func() {
			for range each {
				d := p.Delay(1)
				mu.Lock()
				seen[d] = true
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if len(seen) != callers*each {
		t.Errorf("%d refusals at %d moments", callers*each, len(seen))
	}
	if n := testing.AllocsPerRun(100, func() { p.Delay(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
