// Package clockd is the only reader of time in the process.
//
// One goroutine reads the operating system's clocks once a tick and publishes
// an immutable Snapshot; everybody else reads that snapshot, so that all
// decisions about one order can use one stamp, and a test can own time.
//
// Two kinds of time are kept apart:
//
//   - Mono only moves forward, at the pace of CLOCK_MONOTONIC. Deadlines and
//     durations are measured by it. It means nothing to another process.
//   - Wall is what people are told. It is anchored once, at
//     max(operating system, Config.Floor), then carried forward by Mono and
//     slewed towards the operating system's wall clock by at most SlewPPM
//     parts per million. It is never stepped and never decreases: a jump of
//     the system's clock shows as Stats.Offset and expires nothing. At the
//     permitted rate an hour of offset takes 83 days to work off, so a large
//     one is an alarm for the operator: a restart adopts a forward jump at
//     once, and a backward one is never adopted, only waited out.
//
// Wall does not go back across restarts either, if the caller journals the
// highest Wall that it has shown and hands it to the next process as
// Config.Floor.
//
// A tick that comes late is not hidden: Lag says how old the snapshot is.
package clockd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// SlewPPM bounds how much faster or slower than Mono the wall clock may
	// run to approach the system's; it is the bound of adjtime(2) as well.
	SlewPPM = 500

	// TickDefault is the tick of a zero Config.
	TickDefault = time.Millisecond
	// TickMax bounds Config.Tick: an order's stamp is at most this old.
	TickMax = time.Second

	// FloorMax bounds Config.Floor (the year 2200, Unix ms), so that Wall in
	// nanoseconds keeps decades of room in an int64.
	FloorMax = 7_258_118_400_000
)

// ErrClosed says that the clock was closed while somebody waited on it.
var ErrClosed = errors.New("clockd: closed")

// Snapshot is one reading of time. It never changes once published.
type Snapshot struct {
	Mono int64  // ns, monotonic, > 0; comparable with Mono() unless the clock is Manual
	Wall int64  // Unix ms, never decreases
	Tick uint64 // rises by one with each reading
}

// Config tunes a Clock. The zero value is ready to use.
type Config struct {
	// Tick is the time between two readings: TickDefault if zero, at most TickMax.
	Tick time.Duration
	// Floor is the highest Wall (Unix ms) that an earlier process may have
	// shown; Wall starts no lower. At most FloorMax.
	Floor int64
}

func (c *Config) validate() error {
	if c.Tick == 0 {
		c.Tick = TickDefault
	}
	if c.Tick < 0 || c.Tick > TickMax {
		return fmt.Errorf("clockd: tick %v is not in (0, %v]", c.Tick, TickMax)
	}
	if c.Floor < 0 || c.Floor > FloorMax {
		return fmt.Errorf("clockd: floor %d is not in [0, %d]", c.Floor, int64(FloorMax))
	}
	return nil
}

// Stats is how well the clock keeps time.
type Stats struct {
	Ticks  uint64        // readings since New
	Lag    time.Duration // age of the current snapshot beyond one tick
	LagMax time.Duration // the largest lag that any reading found
	Offset time.Duration // system wall clock minus Wall, at the last reading
}

// Clock publishes snapshots. All methods may be called concurrently.
type Clock struct {
	now    atomic.Pointer[Snapshot]
	lagMax atomic.Int64 // ns
	offset atomic.Int64 // ns

	tick   time.Duration
	source source
	wall   int64 // ns since the Unix epoch; Now's Wall in full. Written by step alone.

	timers timers

	startOnce, closeOnce sync.Once
	stop, stopped        chan struct{}
}

// source is the system's pair of clocks: ns since some start, > 0, and ns since
// the Unix epoch.
type source struct {
	mono func() int64
	wall func() int64
}

var processStart = time.Now()

// Mono returns the precise monotonic time in ns, > 0, for measuring latencies.
// It costs a read of the system's clock; decisions use a Snapshot instead.
func Mono() int64 { return int64(time.Since(processStart)) + 1 }

// Left returns how long ctx lasts, if it ends by itself.
func Left(ctx context.Context) (left time.Duration, ends bool) {
	at, ends := ctx.Deadline()
	return time.Until(at), ends
}

// New returns a clock that shows the present but does not tick until Start.
func New(cfg Config) (*Clock, error) {
	return newClock(cfg, source{
		mono: Mono,
		wall: func() int64 { return time.Now().UnixNano() },
	})
}

func newClock(cfg Config, src source) (*Clock, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Clock{
		tick:    cfg.Tick,
		source:  src,
		wall:    max(src.wall(), cfg.Floor*int64(time.Millisecond)),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	c.timers.init()
	c.publish(src.mono(), 0)
	return c, nil
}

// Start begins to tick, on a goroutine that runs until Close.
func (c *Clock) Start() { c.startOnce.Do(func() { go c.run() }) }

// Close stops the ticks and waits for the clock's goroutine. Sleepers return
// ErrClosed; timers that have not fired never will. Now keeps its last value.
// It must not be called from a timer's function.
func (c *Clock) Close() {
	c.startOnce.Do(func() { close(c.stopped) }) // never started: nothing to wait for
	c.closeOnce.Do(func() { close(c.stop) })
	<-c.stopped
	c.timers.close()
}

// Now returns the current snapshot. It neither allocates nor calls the system.
func (c *Clock) Now() Snapshot { return *c.now.Load() }

// Lag is how old the snapshot is beyond the one tick that it may be. A healthy
// clock shows a few ms at most; one that keeps growing has stalled.
func (c *Clock) Lag() time.Duration {
	return c.lateness(c.source.mono() - c.now.Load().Mono)
}

// Stats returns the clock's health, for metrics and readiness.
func (c *Clock) Stats() Stats {
	return Stats{
		Ticks:  c.now.Load().Tick,
		Lag:    c.Lag(),
		LagMax: time.Duration(c.lagMax.Load()),
		Offset: time.Duration(c.offset.Load()),
	}
}

func (c *Clock) run() {
	defer close(c.stopped)
	ticker := time.NewTicker(c.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.step()
		case <-c.stop:
			return
		}
	}
}

// step reads the system's clocks, publishes a snapshot, then fires the timers
// that are due by it. Only one goroutine steps a clock.
func (c *Clock) step() {
	last := c.now.Load()
	mono := c.source.mono()
	elapsed := mono - last.Mono
	if late := int64(c.lateness(elapsed)); late > c.lagMax.Load() {
		c.lagMax.Store(late)
	}

	c.wall += elapsed
	offset := c.source.wall() - c.wall
	c.wall += slew(offset, elapsed)
	if plantTrustWall {
		c.wall = c.source.wall()
	}
	c.offset.Store(offset)

	c.publish(mono, last.Tick+1)
	c.timers.fire(mono)
}

func (c *Clock) publish(mono int64, tick uint64) {
	c.now.Store(&Snapshot{Mono: mono, Wall: c.wall / int64(time.Millisecond), Tick: tick})
}

func (c *Clock) lateness(elapsed int64) time.Duration {
	return max(0, time.Duration(elapsed)-c.tick)
}

// slew is the part of offset that may be corrected in elapsed ns. Its size is
// below elapsed, so a correction never turns the wall clock back. It divides
// first: elapsed may be years in a test, and no tick is short enough to care.
func slew(offset, elapsed int64) int64 {
	limit := elapsed / (1_000_000 / SlewPPM)
	return min(max(offset, -limit), limit)
}
