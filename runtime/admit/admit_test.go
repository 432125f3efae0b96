package admit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGateHoldsItsLimit(t *testing.T) {
	const limit, priority = 4, 5
	var g Gate
	var wg sync.WaitGroup
	var most, entered atomic.Int64
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				if g.Enter(limit) {
					entered.Add(1)
					if n := int64(g.InFlight()); n > most.Load() {
						most.Store(n)
					}
					g.Leave()
				}
			}
		})
	}
	wg.Wait()
	if g.InFlight() != 0 || most.Load() > limit || entered.Load() == 0 {
		t.Fatalf("in flight %d at the end, %d at most, %d entered", g.InFlight(), most.Load(), entered.Load())
	}

	for range limit {
		g.Enter(limit)
	}
	if g.Enter(limit) {
		t.Fatal("new work entered a full gate")
	}
	if !g.Enter(priority) || g.Enter(priority) {
		t.Fatal("priority work has exactly one place more")
	}
}

func TestLeaveWithoutEnterPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	new(Gate).Leave()
}

func TestRetryAfterIsSpread(t *testing.T) {
	seen := map[int]int{}
	for range 10_000 {
		seen[RetryAfter(1500*time.Millisecond, 3*time.Second)]++
	}
	// 1.5 … 4.5 s, rounded up: 2 (a sixth), 3, 4 (a third each), 5 (a sixth).
	for s, want := range map[int]int{2: 1667, 3: 3333, 4: 3333, 5: 1667} {
		if n := seen[s]; n < want*8/10 || n > want*12/10 {
			t.Errorf("%d s came %d times of 10,000, want about %d", s, n, want)
		}
		delete(seen, s)
	}
	if len(seen) != 0 {
		t.Errorf("out of range: %v", seen)
	}
	if got := RetryAfter(0, 0); got != 1 {
		t.Errorf("RetryAfter(0, 0) = %d, want 1", got)
	}
}
