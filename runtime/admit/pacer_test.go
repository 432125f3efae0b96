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
		{1000, 0}, {1000, 10}, {1000, 20}, {1000, 25}, {1000, 25}, // held back, but not for ever
		{1010, 25}, {1100, 0}, {1105, 5}, {2000, 0}, // what was not used is not saved up
		{2000, 10},
	} {
		if got := p.Delay(step.now * ms); got != time.Duration(step.want*ms) {
			t.Errorf("step %d: %v, want %d ms", i, got, step.want)
		}
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
