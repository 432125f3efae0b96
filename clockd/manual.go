package clockd

import (
	"sync"
	"time"
)

// Manual is a clock that a test moves by hand. Its Clock is like any other,
// except that it does not tick by itself (do not Start it) and that its Mono
// has nothing to do with the package's. Only one goroutine may advance it.
type Manual struct {
	mu    sync.Mutex // guards mono and wall
	mono  int64      // ns
	wall  int64      // ns; what the "system's" wall clock shows
	clock *Clock
}

// NewManual returns a clock that shows wallMs (Unix ms) as the wall time.
func NewManual(wallMs int64) *Manual { return NewManualConfig(wallMs, Config{}) }

// NewManualConfig is NewManual for a test of Config. It panics on a bad one.
func NewManualConfig(wallMs int64, cfg Config) *Manual {
	m := &Manual{mono: 1, wall: wallMs * int64(time.Millisecond)}
	clock, err := newClock(cfg, source{
		mono: func() int64 { return m.read(&m.mono) },
		wall: func() int64 { return m.read(&m.wall) },
	})
	if err != nil {
		panic(err)
	}
	m.clock = clock
	return m
}

// Clock returns the clock that m moves.
func (m *Manual) Clock() *Clock { return m.clock }

// Advance lets d pass on both system clocks, then ticks once, and returns when
// all timers that are due have run.
func (m *Manual) Advance(d time.Duration) {
	m.Stall(d)
	m.clock.step()
}

// Stall lets d pass on both system clocks without a tick, as a process that is
// stopped or starved would see it. The next Advance ends the stall.
func (m *Manual) Stall(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mono += int64(d)
	m.wall += int64(d)
}

// JumpWall sets the system's wall clock forward or back by d; no time passes.
func (m *Manual) JumpWall(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall += int64(d)
}

// AwaitTimers waits until at least n timers are pending, so that a test can
// advance past a Sleep that another goroutine is about to begin.
func (m *Manual) AwaitTimers(n int) {
	t := &m.clock.timers
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.heap) < n {
		t.added.Wait()
	}
}

func (m *Manual) read(field *int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *field
}
