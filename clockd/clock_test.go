package clockd

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is 2026-11-22T12:00:00Z in Unix ms.
const noon = 1_795_348_800_000

const (
	hour = time.Hour
	year = 365 * 24 * time.Hour
)

// run advances m by d in n steps and returns the snapshots, after checking
// that neither clock went back and that the wall kept to the slew's bound.
func run(t *testing.T, m *Manual, d time.Duration, n int) Snapshot {
	t.Helper()
	last := m.Clock().Now()
	for range n {
		m.Advance(d / time.Duration(n))
		now := m.Clock().Now()
		mono, wall := now.Mono-last.Mono, now.Wall-last.Wall
		if mono <= 0 || wall < 0 || now.Tick != last.Tick+1 {
			t.Fatalf("time went from %+v to %+v", last, now)
		}
		ms := mono / int64(time.Millisecond)
		if bound := ms*SlewPPM/1_000_000 + 1; wall < ms-bound || wall > ms+bound {
			t.Fatalf("wall moved %d ms in %d ms", wall, ms)
		}
		last = now
	}
	return last
}

func TestWallFollowsMono(t *testing.T) {
	m := NewManual(noon)
	if got := run(t, m, hour, 3600); got.Wall != noon+hour.Milliseconds() {
		t.Fatalf("wall = %d, want an hour after %d", got.Wall, int64(noon))
	}
	if off := m.Clock().Stats().Offset; off != 0 {
		t.Fatalf("offset = %v without a jump", off)
	}
}

func TestWallJumpsAreSlewedNeverStepped(t *testing.T) {
	for _, jump := range []time.Duration{-hour, 10 * year, -10 * year, time.Second} {
		t.Run(jump.String(), func(t *testing.T) {
			m := NewManual(noon)
			run(t, m, time.Second, 1000)
			m.JumpWall(jump)
			run(t, m, 10*time.Second, 10_000)

			corrected := jump - m.Clock().Stats().Offset
			most := 10 * time.Second * SlewPPM / 1_000_000
			if jump < 0 {
				corrected = -corrected
			}
			// Offset is taken before the step's own correction.
			if corrected < most-most/1000 || corrected > most {
				t.Fatalf("corrected %v in 10 s, want just under %v", corrected, most)
			}
		})
	}
}

func TestSmallOffsetIsWorkedOff(t *testing.T) {
	m := NewManual(noon)
	m.JumpWall(-40 * time.Millisecond)
	got := run(t, m, 100*time.Second, 100_000)
	if want := noon + 100_000 - 40; got.Wall != int64(want) {
		t.Fatalf("wall = %d, want %d", got.Wall, want)
	}
	if off := m.Clock().Stats().Offset; off != 0 {
		t.Fatalf("offset = %v after 100 s", off)
	}
}

func TestFloorHoldsAcrossRestarts(t *testing.T) {
	last := run(t, NewManual(noon), time.Minute, 60)

	back := NewManualConfig(noon-hour.Milliseconds(), Config{Floor: last.Wall})
	if got := back.Clock().Now().Wall; got != last.Wall {
		t.Fatalf("restarted an hour early at %d, want the floor %d", got, last.Wall)
	}
	if got := run(t, back, time.Minute, 60); got.Wall <= last.Wall {
		t.Fatalf("wall %d stands still after the restart", got.Wall)
	}

	forward := NewManualConfig(noon+hour.Milliseconds(), Config{Floor: last.Wall})
	if got := forward.Clock().Now().Wall; got != noon+hour.Milliseconds() {
		t.Fatalf("restarted an hour late at %d: a restart adopts a forward jump", got)
	}
}

func TestStallShowsAsLag(t *testing.T) {
	m := NewManual(noon)
	c := m.Clock()
	m.Advance(time.Millisecond)
	if lag := c.Lag(); lag != 0 {
		t.Fatalf("lag = %v on time", lag)
	}
	before := c.Now()
	m.Stall(5 * time.Second)
	if c.Now() != before {
		t.Fatal("a stalled clock moved")
	}
	want := 5*time.Second - TickDefault
	if st := c.Stats(); st.Lag != want || st.LagMax != 0 {
		t.Fatalf("during the stall: %+v, want a lag of %v", st, want)
	}
	m.Advance(0)
	if st := c.Stats(); st.Lag != 0 || st.LagMax != want {
		t.Fatalf("after the stall: %+v, want no lag and a maximum of %v", st, want)
	}
	if got := c.Now(); got.Wall != before.Wall+5000 {
		t.Fatalf("wall = %d after the stall, want 5 s after %d", got.Wall, before.Wall)
	}
}

func TestConfigIsValidated(t *testing.T) {
	for _, cfg := range []Config{{Tick: -1}, {Tick: TickMax + 1}, {Floor: -1}, {Floor: FloorMax + 1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v) succeeded", cfg)
		}
	}
}

func TestSystemClock(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	from, wall := c.Now().Mono, c.Now().Wall
	c.Start()
	if err := c.Sleep(t.Context(), 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	now := c.Now()
	if slept := time.Duration(now.Mono - from); slept < 20*time.Millisecond || slept > time.Minute {
		t.Errorf("slept %v, want 20 ms", slept)
	}
	if now.Wall < wall || now.Wall > time.Now().UnixMilli()+50 {
		t.Errorf("wall = %d, the system's was %d", now.Wall, wall)
	}
	if st := c.Stats(); st.Ticks == 0 || st.Lag > time.Minute {
		t.Errorf("stats = %+v", st)
	}
	c.Close()
	c.Close()
	if err := c.Sleep(t.Context(), time.Hour); !errors.Is(err, ErrClosed) {
		t.Errorf("Sleep after Close = %v", err)
	}
}

func TestCloseWithoutStart(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := c.Sleep(context.Background(), time.Hour); !errors.Is(err, ErrClosed) {
		t.Errorf("Sleep after Close = %v", err)
	}
}

func TestNowDoesNotAllocate(t *testing.T) {
	c := NewManual(noon).Clock()
	if n := testing.AllocsPerRun(1000, func() { sink = c.Now().Wall }); n != 0 {
		t.Fatalf("Now allocates %v times", n)
	}
}

var sink int64
