package journal_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gauge is a Store that records its groups and can hold one up.
type gauge struct {
	*journaltest.Memory
	groups  [][]*journal.Write
	entered chan struct{} // if not nil, receives at each Commit
	release chan struct{} // if not nil, holds each Commit up
}

func (g *gauge) Commit(group []*journal.Write) error {
	g.groups = append(g.groups, slices.Clone(group))
	if g.entered != nil {
		g.entered <- struct{}{}
		<-g.release
	}
	return g.Memory.Commit(group)
}

func newGauge(t *testing.T) *gauge {
	t.Helper()
	g := &gauge{Memory: journaltest.NewMemory()}
	if _, err := g.Open(context.Background(), "deal"); err != nil {
		t.Fatal(err)
	}
	return g
}

func newCommitter(t *testing.T, store journal.Store, cfg journal.Config) *journal.Committer {
	t.Helper()
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
	}
	c, err := journal.NewCommitter(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ledger records completions.
type ledger struct {
	mu    sync.Mutex
	lines []string
}

func (l *ledger) Committed(w *journal.Write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%d %v", w.Seq, w.Err))
}

func (l *ledger) write(seq uint64) *journal.Write {
	w := journaltest.Append("deal", 1, seq, fmt.Sprint(seq))
	w.Done = l
	return w
}

func TestStepCompletesInOrderAndWithinBounds(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  journal.Config
		want []int // writes of each group
	}{
		{"one group", journal.Config{}, []int{5}},
		{"by writes", journal.Config{GroupWritesMax: 2}, []int{2, 2, 1}},
		{"by bytes", journal.Config{GroupBytesMax: 7}, []int{3, 2}},
		{"a write beyond the bytes goes alone", journal.Config{GroupBytesMax: 1}, []int{1, 1, 1, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store, done := newGauge(t), &ledger{}
			committer := newCommitter(t, store, c.cfg)
			for seq := uint64(1); seq <= 5; seq++ {
				committer.Submit(done.write(seq))
			}
			if len(done.lines) != 0 {
				t.Fatalf("completed before Step: %q", done.lines)
			}
			completed := 0
			for _, want := range c.want {
				if got := committer.Step(); got != want {
					t.Fatalf("Step committed %d writes, want %d", got, want)
				}
				if completed += want; len(done.lines) != completed {
					t.Fatalf("%d completed after groups of %v", len(done.lines), c.want)
				}
			}
			if got := committer.Step(); got != 0 {
				t.Fatalf("Step on an empty queue: %d", got)
			}
			if want := []string{"1 <nil>", "2 <nil>", "3 <nil>", "4 <nil>", "5 <nil>"}; !slices.Equal(done.lines, want) {
				t.Fatalf("completions: %q", done.lines)
			}
			committer.Close()
		})
	}
}

func TestWritesGatherDuringACommit(t *testing.T) {
	store, done := newGauge(t), &ledger{}
	store.entered, store.release = make(chan struct{}), make(chan struct{})
	var observed []journal.Group
	clock := int64(0)
	committer := newCommitter(t, store, journal.Config{
		Now:     func() int64 { clock += 5; return clock },
		Observe: func(g journal.Group) { observed = append(observed, g) },
	})
	committer.Start()
	committer.Submit(done.write(1))
	<-store.entered
	for seq := uint64(2); seq <= 10; seq++ {
		committer.Submit(done.write(seq))
	}
	store.release <- struct{}{}
	<-store.entered
	store.release <- struct{}{}
	committer.Close()
	if len(store.groups) != 2 || len(store.groups[0]) != 1 || len(store.groups[1]) != 9 {
		t.Fatalf("%d groups: %v", len(store.groups), store.groups)
	}
	want := []journal.Group{{Writes: 1, Events: 1, Bytes: 2, Nanos: 5}, {Writes: 9, Events: 9, Bytes: 19, Nanos: 5}}
	if !slices.Equal(observed, want) {
		t.Fatalf("observed %+v, want %+v", observed, want)
	}
	if len(done.lines) != 10 {
		t.Fatalf("completions: %q", done.lines)
	}
}

// crowd submits as many writes as follow a full group, and has others about to.
type crowd struct {
	committer    *journal.Committer
	queued, next int
	all          sync.WaitGroup
}

func (c *crowd) Committed(*journal.Write) {
	for range c.next {
		c.all.Go(func() { c.committer.Submit(refusedWrite()) })
	}
	for range c.queued {
		c.committer.Submit(refusedWrite())
	}
	c.all.Done()
}

// refusedWrite belongs to nobody, and is refused, which is all the same here.
func refusedWrite() *journal.Write {
	w := journaltest.Append("other", 1, 1, "")
	w.Done = nobody{}
	return w
}

// TestReadyWritersJoinTheGroup: where nobody holds, behind a large group, writers that are ready to run are let
// run before the next is cut. On one processor the committer would otherwise be woken by
// each of them. Now and then the scheduler lets it go first all the same.
func TestReadyWritersJoinTheGroup(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const queued, next = 30, 40
	fewest := next
	for range 20 {
		store := newGauge(t)
		committer := newCommitter(t, store, journal.Config{})
		committer.Start()
		c := &crowd{committer: committer, queued: queued, next: next}
		c.all.Add(1)
		first := refusedWrite()
		first.Done = c
		committer.Submit(first)
		c.all.Wait()
		committer.Close()
		sum := 0
		for _, g := range store.groups {
			sum += len(g)
		}
		if sum != 1+queued+next {
			t.Fatalf("%d writes were committed", sum)
		}
		fewest = min(fewest, len(store.groups))
	}
	if fewest > next/4 {
		t.Errorf("behind a group of %d, %d writers made %d groups", queued, next, fewest)
	}
}

// Writes that are submitted between Hold and Release are committed together, and what is released
// waits for nobody else who holds.
func TestHold(t *testing.T) {
	store, done := newGauge(t), &ledger{}
	store.entered, store.release = make(chan struct{}), make(chan struct{})
	committer := newCommitter(t, store, journal.Config{})
	committer.Start()
	seq := uint64(0)
	submit := func(n int) {
		for range n {
			seq++
			committer.Submit(done.write(seq))
		}
	}
	committer.Hold()
	submit(3)
	time.Sleep(time.Millisecond) // a committer that does not wait begins
	submit(2)
	committer.Hold()
	committer.Release()
	<-store.entered // though somebody holds
	submit(4)
	store.release <- struct{}{}
	time.Sleep(time.Millisecond)
	submit(1)
	committer.Release()
	<-store.entered
	store.release <- struct{}{}
	committer.Hold()
	committer.Release() // of nothing
	submit(1)
	<-store.entered
	store.release <- struct{}{}
	committer.Hold()
	submit(2)
	go func() {
		<-store.entered
		store.release <- struct{}{}
	}()
	committer.Close()
	var writes []int
	for _, g := range store.groups {
		writes = append(writes, len(g))
	}
	if want := []int{5, 5, 1, 2}; !slices.Equal(writes, want) {
		t.Errorf("groups of %v writes, want %v", writes, want)
	}
}

// TestHoldersAndOthers: whoever holds, all writes are committed, on each shard.
func TestHoldersAndOthers(t *testing.T) {
	for _, store := range []journal.Store{&several{newGauge(t), newGauge(t)}, newGauge(t)} {
		committer := newCommitter(t, store, journal.Config{})
		committer.Start()
		var submitters, committed sync.WaitGroup
		for holder := range 4 {
			submitters.Go(func() {
				for range 500 {
					if holder > 0 {
						committer.Hold()
					}
					for n := range 3 {
						committed.Add(1)
						w := refusedWrite()
						w.Stream = fmt.Sprint(n)
						w.Done = counted{&committed}
						committer.Submit(w)
					}
					if holder > 0 {
						committer.Release()
					}
				}
			})
		}
		submitters.Wait()
		committed.Wait()
		committer.Close()
	}
}

type counted struct{ left *sync.WaitGroup }

func (c counted) Committed(*journal.Write) { c.left.Done() }

// several is a store of shards.
type several struct {
	*gauge
	second *gauge
}

func (s *several) Shards() []journal.Store { return []journal.Store{s.gauge, s.second} }

func (*several) Shard(stream string) int { return int(stream[0]) % 2 }

// Who holds and does not come back is waited for until the second nudge.
func TestNudge(t *testing.T) {
	store, done := newGauge(t), &ledger{}
	store.entered, store.release = make(chan struct{}), make(chan struct{})
	committer := newCommitter(t, store, journal.Config{})
	committer.Start()
	committer.Hold()
	committer.Nudge()
	committer.Submit(done.write(1))
	committer.Nudge()
	time.Sleep(time.Millisecond)
	committer.Submit(done.write(2))
	committer.Nudge()
	<-store.entered
	if n := len(store.groups[0]); n != 2 {
		t.Errorf("a group of %d began at the first nudge", n)
	}
	store.release <- struct{}{}
	committer.Release()
	committer.Close()
	defer func() {
		if recover() == nil {
			t.Error("a Release without Hold is taken")
		}
	}()
	committer.Release()
}

// resubmitter submits from within its completion, as an actor's next event may.
type resubmitter struct {
	committer *journal.Committer
	write     journal.Write
	last      uint64
	done      chan error
}

func (r *resubmitter) Committed(w *journal.Write) {
	if w.Err != nil || w.Seq == r.last {
		r.done <- w.Err
		return
	}
	w.Seq++
	r.committer.Submit(w)
}

func TestSubmitFromACompletion(t *testing.T) {
	store := newGauge(t)
	committer := newCommitter(t, store, journal.Config{})
	committer.Start()
	r := &resubmitter{committer: committer, last: 100, done: make(chan error, 1)}
	r.write = *journaltest.Append("deal", 1, 1, "x")
	r.write.Done = r
	committer.Submit(&r.write)
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	committer.Close()
}

func TestFencedWriteIsToldAndOthersCommit(t *testing.T) {
	store, done := newGauge(t), &ledger{}
	committer := newCommitter(t, store, journal.Config{})
	for _, seq := range []uint64{1, 3, 2} {
		committer.Submit(done.write(seq))
	}
	committer.Step()
	want := []string{"1 <nil>", "3 " + journal.ErrFenced.Error(), "2 <nil>"}
	if !slices.Equal(done.lines, want) {
		t.Fatalf("completions: %q", done.lines)
	}
	committer.Close()
}

func TestFailedCommitIsFatalAndNeverTriedAgain(t *testing.T) {
	store, done := newGauge(t), &ledger{}
	var fatal []error
	committer := newCommitter(t, store, journal.Config{Fatal: func(err error) {
		if len(done.lines) != 0 {
			t.Errorf("waiters were told before Fatal: %q", done.lines)
		}
		fatal = append(fatal, err)
	}})
	eio := errors.New("input/output error")
	store.FailWith(eio)
	first := done.write(1)
	committer.Submit(first)
	committer.Step()
	store.FailWith(nil) // a second sync would seem to work
	second := done.write(1)
	committer.Submit(second)
	committer.Step()
	if len(fatal) != 1 || !errors.Is(fatal[0], eio) {
		t.Fatalf("fatal: %v", fatal)
	}
	for i, w := range []*journal.Write{first, second} {
		if !errors.Is(w.Err, journal.ErrFailed) {
			t.Errorf("write %d: %v", i, w.Err)
		}
	}
	if len(store.groups) != 1 {
		t.Errorf("the store was asked %d times", len(store.groups))
	}
	committer.Close()
}

func TestCloseDrainsAndRefuses(t *testing.T) {
	for _, start := range []bool{false, true} {
		store, done := newGauge(t), &ledger{}
		committer := newCommitter(t, store, journal.Config{GroupWritesMax: 3})
		for seq := uint64(1); seq <= 10; seq++ {
			committer.Submit(done.write(seq))
		}
		if start {
			committer.Start()
		}
		committer.Close()
		committer.Close()
		if len(done.lines) != 10 {
			t.Fatalf("started=%v: completions after Close: %q", start, done.lines)
		}
		late := done.write(11)
		committer.Submit(late)
		if !errors.Is(late.Err, journal.ErrClosed) || len(done.lines) != 11 {
			t.Fatalf("Submit after Close: %v", late.Err)
		}
		if !panics(committer.Start) {
			t.Error("Start after Close did not panic")
		}
	}
}

func TestQueueBoundIsAsserted(t *testing.T) {
	store, done := newGauge(t), &ledger{}
	committer := newCommitter(t, store, journal.Config{QueuedMax: 2})
	committer.Submit(done.write(1))
	committer.Submit(done.write(2))
	if !panics(func() { committer.Submit(done.write(3)) }) {
		t.Fatal("a third write was queued")
	}
	if committer.Step() != 2 {
		t.Fatal("the two queued writes were not committed")
	}
	committer.Close()
}

func panics(fn func()) (did bool) {
	defer func() { did = recover() != nil }()
	fn()
	return false
}

func TestConfigIsChecked(t *testing.T) {
	fatal := func(error) {}
	for name, cfg := range map[string]journal.Config{
		"no Fatal":              {},
		"Observe without Now":   {Fatal: fatal, Observe: func(journal.Group) {}},
		"negative group writes": {Fatal: fatal, GroupWritesMax: -1},
		"negative group bytes":  {Fatal: fatal, GroupBytesMax: -1},
		"negative queue":        {Fatal: fatal, QueuedMax: -1},
	} {
		if _, err := journal.NewCommitter(journaltest.NewMemory(), cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// idle is a Store that does nothing, so that only the Committer is measured.
type idle struct{ journal.Store }

func (idle) Commit([]*journal.Write) error { return nil }

type nobody struct{}

func (nobody) Committed(*journal.Write) {}

func TestSubmitAndStepDoNotAllocate(t *testing.T) {
	committer := newCommitter(t, idle{}, journal.Config{})
	writes := make([]journal.Write, 100)
	for i := range writes {
		writes[i].Done = nobody{}
	}
	round := func() {
		for i := range writes {
			committer.Submit(&writes[i])
		}
		if committer.Step() != len(writes) {
			t.Fatal("a write was left behind")
		}
	}
	round()
	round()
	if allocs := testing.AllocsPerRun(100, round); allocs != 0 {
		t.Fatalf("%v allocations for %d writes", allocs, len(writes))
	}
	committer.Close()
}

func BenchmarkSubmit(b *testing.B) {
	committer, err := journal.NewCommitter(idle{}, journal.Config{Fatal: func(error) {}})
	if err != nil {
		b.Fatal(err)
	}
	writes := make([]journal.Write, 256)
	for i := range writes {
		writes[i].Done = nobody{}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		committer.Submit(&writes[i%256])
		if i%256 == 255 {
			committer.Step()
		}
	}
}
