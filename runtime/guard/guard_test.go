package guard

import (
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/guard/redistest"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// long is the patience of tests that do not try it: their machine may be busy.
const long = 30 * time.Second

// rig is a guard, and what it passed on.
type rig struct {
	*Guard
	passed chan *journal.Write
}

func start(t *testing.T, cfg Config) *rig {
	t.Helper()
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Start()
	t.Cleanup(clock.Close)
	cfg.Clock, cfg.Logger = clock, slog.New(slog.DiscardHandler)
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{g, make(chan *journal.Write, 4096)}
	g.Start(func(w *journal.Write) { r.passed <- w })
	t.Cleanup(g.Close)
	return r
}

// claimed submits one write and says whether it came through.
func (r *rig) claimed(stream string, epoch, seq uint64, count int, taken, left int64, landed uint64) bool {
	r.Submit(&journal.Write{Stream: stream, Epoch: epoch, Seq: seq, Count: count}, taken, left, landed)
	w := <-r.passed
	return w.Epoch == epoch
}

func (r *rig) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for begin := time.Now(); !done(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > long {
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestWitness(t *testing.T) {
	redis := redistest.Start(t)
	g := start(t, Config{URL: redis.URL(), Patience: long})
	type step struct {
		epoch, seq  uint64
		count       int
		taken, left int64
		landed      uint64
		passes      bool
	}
	for name, steps := range map[string][]step{
		"an owner that goes on":      {{1, 1, 1, -10, 10, 0, true}, {1, 2, 3, 3, 7, 1, true}, {1, 5, 1, 7, 0, 4, true}, {1, 6, 1, -1, 1, 5, true}},
		"the owner before the last":  {{4, 9, 1, 1, 5, 8, true}, {5, 10, 1, 1, 4, 9, true}, {4, 10, 1, 1, 4, 9, false}, {5, 11, 1, 1, 3, 9, true}},
		"two owners of one epoch":    {{4, 9, 1, 1, 5, 8, true}, {4, 9, 1, 1, 5, 8, false}},
		"a journal that went back":   {{4, 9, 2, 2, 5, 8, true}, {4, 11, 1, 1, 4, 10, true}, {5, 9, 1, 1, 6, 8, false}, {9, 10, 1, 1, 6, 8, false}},
		"what never reached it":      {{4, 9, 2, 2, 5, 8, true}, {5, 9, 1, 1, 6, 8, true}, {5, 10, 1, 1, 5, 9, true}},
		"more than there is":         {{4, 9, 1, 1, 2, 8, true}, {4, 10, 1, 3, 2, 9, false}},
		"what it was not told":       {{4, 9, 1, 1, 2, 8, true}, {4, 20, 1, 5, 40, 19, true}, {4, 21, 1, 40, 0, 20, true}, {4, 22, 1, 1, 9, 21, false}},
		"giving back is never short": {{4, 9, 1, 1, 0, 8, true}, {4, 10, 1, 0, 0, 9, true}, {4, 11, 1, -5, 5, 10, true}},
	} {
		for i, s := range steps {
			if got := g.claimed(name, s.epoch, s.seq, s.count, s.taken, s.left, s.landed); got != s.passes {
				t.Errorf("%s: step %d: passes: %t", name, i+1, got)
				break
			}
		}
	}
	if s := g.Stats(); s.Aside+s.Held != 0 || s.Refused == 0 || !s.Up {
		t.Errorf("%+v", s)
	}
}

// What follows a refused write in the same round trip stands on nothing.
func TestOneTripJudgesInOrder(t *testing.T) {
	redis := redistest.Start(t)
	g := start(t, Config{URL: redis.URL(), Patience: long})
	g.claimed("d", 7, 1, 1, -10, 10, 0)
	var writes []*journal.Write
	g.mu.Lock() // so that all of it gathers
	for i, epoch := range []uint64{6, 6, 7, 6} {
		w := &journal.Write{Stream: "d", Epoch: epoch, Seq: uint64(2 + i), Count: 1}
		if epoch == 7 {
			w.Seq = 2
		}
		writes = append(writes, w)
		g.queue = append(g.queue, claim{w, 1, 9, 0})
	}
	barrier := &journal.Write{Stream: "d", Epoch: 6}
	writes = append(writes, barrier)
	g.queue = append(g.queue, claim{write: barrier})
	g.mu.Unlock()
	g.signal()
	for i, want := range writes {
		got := <-g.passed
		if got != want {
			t.Fatalf("write %d is not in its place", i)
		}
	}
	got := []uint64{writes[0].Epoch, writes[1].Epoch, writes[2].Epoch, writes[3].Epoch, barrier.Epoch}
	if !slices.Equal(got, []uint64{nobody, nobody, 7, nobody, 6}) {
		t.Errorf("the epochs are %v", got)
	}
}

func TestOrderIsKept(t *testing.T) {
	redis := redistest.Start(t)
	g := start(t, Config{URL: redis.URL(), Patience: long})
	const deals, each = 8, 300 // more than one trip takes
	var work sync.WaitGroup
	for d := range deals {
		work.Go(func() {
			for i := range each {
				g.Submit(&journal.Write{Stream: strconv.Itoa(d), Epoch: 1, Seq: uint64(i + 1), Count: i % 2}, 0, 1, 0)
			}
		})
	}
	work.Wait()
	last := map[string]uint64{}
	for range deals * each {
		w := <-g.passed
		if w.Seq != last[w.Stream]+1 {
			t.Fatalf("deal %s: %d after %d", w.Stream, w.Seq, last[w.Stream])
		}
		last[w.Stream] = w.Seq
	}
}

func TestStepsAside(t *testing.T) {
	for name, trouble := range map[string]struct {
		begin, end func(*redistest.Server, testing.TB)
	}{
		"frozen": {(*redistest.Server).Freeze, (*redistest.Server).Thaw},
		"killed": {(*redistest.Server).Kill, (*redistest.Server).Restart},
	} {
		t.Run(name, func(t *testing.T) {
			redis := redistest.Start(t)
			g := start(t, Config{URL: redis.URL(), Patience: 100 * time.Millisecond})
			g.await(t, "Redis is up", func() bool { return g.Stats().Up }) // on a busy machine it may be late at first
			trouble.begin(redis, t)
			begin := time.Now()
			for seq := range uint64(100) {
				if !g.claimed("d", 1, seq+1, 1, 1, 100, seq) {
					t.Fatal("a write is refused")
				}
			}
			// One wait, not a hundred, which take ten seconds; the rest is the machine's.
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("100 writes took %v", took)
			}
			if s := g.Stats(); s.Aside == 0 || s.Up || s.Refused+s.Held != 0 || g.Refusing() {
				t.Errorf("%+v", s)
			}
			trouble.end(redis, t)
			g.await(t, "Redis is asked again", func() bool {
				asked := g.Stats().Asked
				if !g.claimed("d", 2, 1000+asked, 1, 1, 100, 999) {
					t.Fatal("a write is refused")
				}
				return g.Stats().Asked > asked
			})
		})
	}
}

func TestStrictHoldsWhatTakesStock(t *testing.T) {
	redis := redistest.Start(t)
	g := start(t, Config{URL: redis.URL(), Strict: true})
	g.await(t, "Redis is up", func() bool { return !g.Refusing() })
	redis.Freeze(t)
	if g.claimed("d", 1, 2, 1, 1, 9, 1) {
		t.Error("a write that takes stock is passed on unasked")
	}
	if !g.Refusing() {
		t.Error("new orders are still decided")
	}
	if !g.claimed("d", 1, 3, 1, -1, 10, 1) || !g.claimed("d", 1, 4, 0, 0, 10, 1) {
		t.Error("a write that takes no stock is refused")
	}
	if s := g.Stats(); s.Held != 1 || s.Aside != 1 {
		t.Errorf("%+v", s)
	}
	redis.Thaw(t)
	g.await(t, "Redis is back", func() bool { return !g.Refusing() })
}

func TestBeginsWithoutRedis(t *testing.T) {
	redis := redistest.Start(t)
	redis.Kill(t)
	g := start(t, Config{URL: redis.URL()})
	if !g.claimed("d", 1, 1, 1, 1, 9, 0) || g.Stats().Aside != 1 {
		t.Errorf("%+v", g.Stats())
	}
	redis.Restart(t)
	g.await(t, "Redis is up", func() bool { return g.Stats().Up })
}

func TestReconcile(t *testing.T) {
	redis := redistest.Start(t)
	g := start(t, Config{URL: redis.URL(), Patience: long})
	// A journal was restored: it ends at event 5 of epoch 3, Redis knows of more.
	g.claimed("d", 7, 9, 1, 1, 2, 8)
	g.claimed("same", 2, 4, 1, 1, 6, 3)
	g.claimed("gone", 1, 1, 1, -9, 9, 0)
	if g.claimed("d", 4, 6, 1, 1, 4, 5) {
		t.Fatal("nothing to repair")
	}
	journal := []State{{"d", 3, 5, 5}, {"new", 1, 1, 8}, {"same", 2, 4, 6}}
	states := func(yield func(State, error) bool) {
		for _, s := range journal {
			if !yield(s, nil) {
				return
			}
		}
	}
	report, err := Reconcile(t.Context(), redis.URL(), states)
	if want := (Report{Deals: 3, New: 1, Changed: 1, Dropped: 1}); err != nil || report != want {
		t.Errorf("%+v, %v", report, err)
	}
	if !g.claimed("d", 4, 6, 1, 1, 4, 5) {
		t.Error("the restored deal still cannot sell")
	}
	if g.claimed("new", 2, 1, 1, 1, 7, 0) {
		t.Error("what the journal has is not known to be on disk")
	}
	broken := errors.New("broken")
	if _, err := Reconcile(t.Context(), redis.URL(), func(yield func(State, error) bool) { yield(State{}, broken) }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestCloseLosesNothing(t *testing.T) {
	redis := redistest.Start(t)
	g := start(t, Config{URL: redis.URL(), Patience: long})
	const writes = 1000
	for i := range writes {
		g.Submit(&journal.Write{Stream: "d", Epoch: 1, Seq: uint64(i + 1), Count: 1}, 0, 1, 0)
	}
	g.Close()
	g.Submit(&journal.Write{Stream: "d", Epoch: 1, Seq: writes + 1, Count: 1}, 0, 1, 0)
	if len(g.passed) != writes+1 {
		t.Errorf("%d of %d writes were passed on", len(g.passed), writes+1)
	}
}

func TestConfig(t *testing.T) {
	for _, url := range []string{"", "localhost:6379", "http://localhost", "redis://[::1"} {
		if CheckURL(url) == nil {
			t.Errorf("%q is taken", url)
		}
	}
	for _, url := range []string{"redis://127.0.0.1:6379/2", "rediss://user:pass@redis.example:6380", "unix:///run/redis.sock"} {
		if err := CheckURL(url); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := New(Config{URL: "redis://127.0.0.1:6379"}); err == nil {
		t.Error("no clock is needed")
	}
}

// A server that speaks Redis's protocol and answers nonsense is not believed.
func TestNonsense(t *testing.T) {
	for _, answer := range []string{"$0\r\n\r\n", "$2\r\n++\r\n", ":1\r\n", "*0\r\n", "-ERR no\r\n", "$-1\r\n"} {
		url := redistest.Liar(t, func(int) string { return answer })
		g := start(t, Config{URL: url, Patience: long})
		if !g.claimed("d", 1, 1, 1, 1, 9, 0) || g.Stats().Aside != 1 {
			t.Errorf("%q: %+v", answer, g.Stats())
		}
	}
}
