package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// noLeaks fails the test if it leaves a goroutine behind. The tests that make the log
// fail cannot use it: a store that failed is abandoned, as its process would be.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

var faultStreams = []string{"alpha", "beta", "gamma"}

// history drives a store and remembers what it was told, so that what is found after
// a crash can be held against it.
type history struct {
	mu     sync.Mutex // guards all fields: crashes are taken on pebble's goroutines
	groups []faultGroup
	acked  int               // groups that were acknowledged
	rows   map[string]string // durable rows that were acknowledged
	next   map[string]uint64 // seq of the next event of each stream
	epochs map[string]uint64
	random *rand.Rand
	round  int
}

// faultGroup is what one group appended: the range of seqs of each stream.
type faultGroup map[string][2]uint64

func newHistory(seed uint64) *history {
	return &history{
		rows:   map[string]string{},
		next:   map[string]uint64{},
		epochs: map[string]uint64{},
		random: rand.New(rand.NewPCG(seed, 0)),
	}
}

func faultEvent(stream string, seq uint64) string {
	return fmt.Sprintf("%s-%d-%s", stream, seq, strings.Repeat("x", int(seq*37%300)))
}

// open takes over all streams.
func (h *history) open(s *Store) error {
	for _, stream := range faultStreams {
		head, err := s.Open(context.Background(), stream)
		if err != nil {
			return err
		}
		h.mu.Lock()
		if head.Epoch <= h.epochs[stream] {
			return fmt.Errorf("%s: epoch %d after %d", stream, head.Epoch, h.epochs[stream])
		}
		h.epochs[stream] = head.Epoch
		h.next[stream] = head.Seq + 1
		h.mu.Unlock()
	}
	return nil
}

// append commits one group of a few writes.
func (h *history) append(s *Store) error {
	h.mu.Lock()
	group := faultGroup{}
	var writes []*journal.Write
	for range 1 + h.random.IntN(4) {
		stream := faultStreams[h.random.IntN(len(faultStreams))]
		var events []string
		first := h.next[stream]
		for range 1 + h.random.IntN(3) {
			events = append(events, faultEvent(stream, h.next[stream]))
			h.next[stream]++
		}
		writes = append(writes, journaltest.Append(stream, h.epochs[stream], first, events...))
		span, ok := group[stream]
		if !ok {
			span[0] = first
		}
		span[1] = h.next[stream] - 1
		group[stream] = span
	}
	h.groups = append(h.groups, group)
	h.mu.Unlock()

	if err := s.Commit(writes); err != nil {
		return err
	}
	for _, w := range writes {
		if w.Err != nil {
			return w.Err
		}
	}
	h.mu.Lock()
	h.acked = len(h.groups)
	h.mu.Unlock()
	return nil
}

// side does what happens beside the appends: rows and snapshots.
func (h *history) side(s *Store) error {
	h.round++
	key, value := fmt.Sprintf("k%d", h.round%3), fmt.Sprintf("%06d", h.round)
	err := s.Tables().Apply(context.Background(), []journal.Mutation{
		{Table: "t", Key: key, Value: []byte(value)},
		{Table: "t", Key: key + "'", Value: []byte(value)},
	}, true)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.rows[key] = value
	epoch, seq := h.epochs["alpha"], h.next["alpha"]-1
	h.mu.Unlock()
	return s.PutSnapshot(context.Background(), "alpha", epoch, seq, []byte(faultEvent("alpha", seq)))
}

// scenario opens, writes, flushes, closes and opens again.
func (h *history) scenario(cfg Config, rounds int) (err error) {
	for range 2 {
		s, err := Open(cfg)
		if err != nil {
			return err
		}
		if err := h.rounds(s, rounds); err != nil {
			return errors.Join(err, s.Close())
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) rounds(s *Store, rounds int) error {
	if err := h.open(s); err != nil {
		return err
	}
	for i := range rounds {
		if err := h.append(s); err != nil {
			return err
		}
		if i%5 == 4 {
			if err := h.side(s); err != nil {
				return err
			}
		}
		if i%9 == 8 {
			if _, err := s.db.AsyncFlush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// promise is what a crash must keep.
type promise struct {
	groups []faultGroup
	acked  int
	rows   map[string]string
}

func (h *history) promise() promise {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := promise{groups: append([]faultGroup(nil), h.groups...), acked: h.acked, rows: map[string]string{}}
	for k, v := range h.rows {
		p.rows[k] = v
	}
	return p
}

// check opens a store over what a crash left and holds it to the promise.
func (p promise) check(cfg Config) (journal.Recovery, error) {
	s, err := Open(cfg)
	if err != nil {
		return journal.Recovery{}, fmt.Errorf("open after the crash: %w", err)
	}
	err = p.checkStore(s)
	recovery := s.Stats().Recovery
	return recovery, errors.Join(err, s.Close())
}

func (p promise) checkStore(s *Store) error {
	found := map[string]uint64{}
	for _, stream := range faultStreams {
		next := uint64(1)
		err := s.Read(context.Background(), stream, 0, func(e journal.Event) error {
			if e.Seq != next || string(e.Data) != faultEvent(stream, next) {
				return fmt.Errorf("%s: event %d reads %.20q", stream, e.Seq, e.Data)
			}
			next++
			return nil
		})
		if err != nil {
			return err
		}
		found[stream] = next - 1
	}
	if err := p.checkGroups(found); err != nil {
		return err
	}
	for key, value := range p.rows {
		got, err := s.Tables().Get(context.Background(), "t", key)
		twin, twinErr := s.Tables().Get(context.Background(), "t", key+"'")
		if err != nil || twinErr != nil || string(got) != string(twin) || string(got) < value {
			return fmt.Errorf("row %s: %q and %q, want %q or newer; %v %v", key, got, twin, value, err, twinErr)
		}
	}
	seq, state, err := s.Snapshot(context.Background(), "alpha")
	if err == nil && (seq > found["alpha"] || string(state) != faultEvent("alpha", seq)) {
		return fmt.Errorf("snapshot of event %d of %d: %.20q", seq, found["alpha"], state)
	}
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	for _, stream := range faultStreams {
		head, err := s.Open(context.Background(), stream)
		if err != nil {
			return err
		}
		if head.Seq != found[stream] {
			return fmt.Errorf("%s: head %+v, but %d events", stream, head, found[stream])
		}
		w := journaltest.Append(stream, head.Epoch, head.Seq+1, "after the crash")
		if err := errors.Join(s.Commit([]*journal.Write{w}), w.Err); err != nil {
			return fmt.Errorf("append after the crash: %w", err)
		}
	}
	return nil
}

// checkGroups finds every acknowledged group, each group whole or absent, and none
// behind an absent one.
func (p promise) checkGroups(found map[string]uint64) error {
	absent := -1
	for i, group := range p.groups {
		for stream, span := range group {
			switch last := found[stream]; {
			case last >= span[1]:
				if absent >= 0 {
					return fmt.Errorf("group %d is there, but group %d is not, or only in part (%d acknowledged): %v", i, absent, p.acked, found)
				}
			case last >= span[0]:
				return fmt.Errorf("group %d is torn: %s ends at %d within %v", i, stream, last, span)
			default:
				absent = i
			}
		}
	}
	if absent >= 0 && absent < p.acked {
		return fmt.Errorf("group %d of %d acknowledged ones is lost: %v", absent, p.acked, found)
	}
	return nil
}

// injected sees also what is done to a log that was made from another file, which
// errorfs lets pass.
type injected struct{ *errorfs.FS }

func inject(fs vfs.FS, injector errorfs.Injector) vfs.FS {
	return injected{errorfs.Wrap(fs, injector)}
}

func (fs injected) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return fs.OpenReadWrite(newname, category)
}

func isSync(kind errorfs.OpKind) bool {
	return kind == errorfs.OpFileSync || kind == errorfs.OpFileSyncData || kind == errorfs.OpFileSyncTo
}

// TestEveryAcknowledgedGroupSurvivesACrash takes the power away before every sync,
// with none, half and all of what was not synced on disk.
func TestEveryAcknowledgedGroupSurvivesACrash(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewCrashableMem()
	h := newHistory(1)
	percents := []int{0, 50, 100}
	var mu sync.Mutex // guards what follows; syncs come from several goroutines
	clones, torn := 0, 0
	crash := func(percent int) {
		mu.Lock()
		defer mu.Unlock()
		p := h.promise()
		fs := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(clones), 0))})
		recovery, err := p.check(testConfig(t, fs, "data"))
		if err != nil {
			t.Errorf("clone %d with %d %% of unsynced data, %d groups acknowledged: %v", clones, percent, p.acked, err)
		}
		clones++
		if recovery.TornBytes > 0 {
			torn++
		}
	}
	fs := inject(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isSync(op.Kind) {
			for _, percent := range percents {
				crash(percent)
			}
		}
		return nil
	}))
	if err := h.scenario(testConfig(t, fs, "data"), 40/raceStride); err != nil {
		t.Fatal(err)
	}
	crash(0)
	t.Logf("%d clones, %d with a torn tail", clones, torn)
	if clones < 300/raceStride {
		t.Errorf("%d clones: the test does not cover what it is for", clones)
	}
}

// TestEveryFailedOperationLosesNothing fails each file operation of a scenario once, and
// takes the power away before the next sync if the store goes on acknowledging, and when
// it has stopped. Later syncs would make good for some that were passed over.
func TestEveryFailedOperationLosesNothing(t *testing.T) {
	const rounds = 12
	var operations atomic.Int32
	count := errorfs.InjectorFunc(func(errorfs.Op) error { operations.Add(1); return nil })
	if err := newHistory(2).scenario(testConfig(t, inject(vfs.NewCrashableMem(), count), "data"), rounds); err != nil {
		t.Fatal(err)
	}
	stopped, fatals := 0, 0
	for i := int32(0); i < operations.Load(); i += raceStride {
		mem := vfs.NewCrashableMem()
		h := newHistory(2)
		fatal := make(chan error, 1)
		fails, enough := h.failing(t, mem, i)
		cfg := testConfig(t, inject(mem, fails), "data")
		cfg.Fatal = func(err error) {
			fatal <- err
			select {} // as in a process that is about to end
		}
		ended := make(chan error, 1)
		go func() { ended <- h.scenario(cfg, rounds) }()
		var err error
		select {
		case err = <-ended:
		case err = <-fatal: // the process would end here
			fatals++
		}
		enough()
		if err != nil {
			stopped++
		}
		p := h.promise()
		for _, percent := range []int{0, 100} {
			fs := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(i), 0))})
			if _, checkErr := p.check(testConfig(t, fs, "data")); checkErr != nil {
				t.Errorf("operation %d of %d failed (%v), %d groups acknowledged: %v", i, operations.Load(), err, p.acked, checkErr)
			}
		}
	}
	t.Logf("%d operations, %d stopped the scenario, %d of them in the background", operations.Load(), stopped, fatals)
	if operations.Load() < 200 || stopped == 0 || (fatals == 0 && raceStride == 1) {
		t.Errorf("%d operations, %d stopped, %d fatal: the test does not cover what it is for", operations.Load(), stopped, fatals)
	}
}

// failing fails the operation of an index. The power is taken away before each of the
// first syncs that follow it with another group acknowledged, until enough is called:
// a store whose process would have ended goes on in the background.
func (h *history) failing(t *testing.T, mem *vfs.MemFS, index int32) (fails errorfs.Injector, enough func()) {
	t.Helper()
	const clonesMax = 3 / raceStride // none under the race detector
	var mu sync.Mutex                // guards what follows
	operation, acked, clones := int32(0), 0, 0
	fails = errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		operation++
		if operation == index+1 {
			acked = h.promise().acked
			return errorfs.ErrInjected
		}
		if operation <= index || clones == clonesMax || !isSync(op.Kind) {
			return nil
		}
		p := h.promise()
		if p.acked == acked {
			return nil
		}
		acked = p.acked
		clones++
		fs := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(uint64(index), 0))})
		if _, err := p.check(testConfig(t, fs, "data")); err != nil {
			t.Errorf("operation %d failed, %d groups acknowledged when the power went: %v", index, p.acked, err)
		}
		return nil
	})
	return fails, func() {
		mu.Lock()
		defer mu.Unlock()
		clones = clonesMax
	}
}

// TestFailedLogEndsTheStore lets the log run into a full disk and a failed sync.
func TestFailedLogEndsTheStore(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause error
		fails func(errorfs.Op) bool
	}{
		{"write with ENOSPC", syscall.ENOSPC, func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite }},
		{"write with EIO", syscall.EIO, func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite }},
		{"sync with EIO", syscall.EIO, func(op errorfs.Op) bool { return isSync(op.Kind) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			var failing, syncs int
			var mu sync.Mutex
			fs := inject(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if !strings.HasSuffix(op.Path, ".log") || failing == 0 || !c.fails(op) {
					return nil
				}
				syncs++
				return c.cause
			}))
			var fatal []error
			cfg := testConfig(t, fs, "data")
			cfg.Fatal = func(err error) { fatal = append(fatal, err) }
			s := mustOpen(t, cfg)
			h := newHistory(3)
			if err := h.open(s); err != nil {
				t.Fatal(err)
			}
			if err := h.append(s); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			failing = 1
			mu.Unlock()
			err := h.append(s)
			if !errors.Is(err, c.cause) || !strings.Contains(err.Error(), ".log") {
				t.Fatalf("Commit on a failed log: %v", err)
			}
			if len(fatal) != 1 || !errors.Is(fatal[0], c.cause) {
				t.Fatalf("fatal: %v", fatal)
			}
			mu.Lock()
			failing = 0 // the disk seems well again; nobody may try
			tried := syncs
			mu.Unlock()
			_, openErr := s.Open(context.Background(), "alpha")
			for name, err := range map[string]error{
				"Commit": h.append(s), "Open": openErr, "Apply": h.side(s),
				"PutSnapshot": s.PutSnapshot(context.Background(), "alpha", 1, 1, nil),
			} {
				if !errors.Is(err, c.cause) {
					t.Errorf("%s after the failure: %v", name, err)
				}
			}
			if mu.Lock(); syncs != tried {
				t.Errorf("the log was tried again")
			}
			mu.Unlock()
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			clone := mem.CrashClone(vfs.CrashCloneCfg{})
			if _, err := h.promise().check(testConfig(t, clone, "data")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFailedManifestIsFatal fails what pebble reports only from the background.
func TestFailedManifestIsFatal(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var failing errorfs.Toggle
	failing.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.Contains(op.Path, "MANIFEST") && isSync(op.Kind) {
			return syscall.EIO
		}
		return nil
	})
	fatal := make(chan error, 1)
	cfg := testConfig(t, inject(mem, &failing), "data")
	cfg.Fatal = func(err error) { fatal <- err }
	s := mustOpen(t, cfg)
	h := newHistory(4)
	if err := errors.Join(h.open(s), h.append(s)); err != nil {
		t.Fatal(err)
	}
	failing.On()
	if _, err := s.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	if err := <-fatal; !strings.Contains(err.Error(), "MANIFEST") {
		t.Fatalf("fatal: %v", err)
	}
	if err := h.append(s); err == nil {
		t.Error("Commit went on after a fatal failure")
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := h.promise().check(testConfig(t, mem.CrashClone(vfs.CrashCloneCfg{}), "data")); err != nil {
		t.Error(err)
	}
}

// TestReadersNeverSeeWhatIsNotSynced holds a sync up and reads meanwhile.
func TestReadersNeverSeeWhatIsNotSynced(t *testing.T) {
	noLeaks(t)
	held, release := make(chan struct{}), make(chan struct{})
	var hold errorfs.Toggle
	hold.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && isSync(op.Kind) {
			held <- struct{}{}
			<-release
		}
		return nil
	})
	s := mustOpen(t, testConfig(t, inject(vfs.NewMem(), &hold), "data"))
	ctx := context.Background()
	head, err := s.Open(ctx, "deal")
	if err != nil {
		t.Fatal(err)
	}
	hold.On()
	done := make(chan error, 2)
	go func() {
		w := journaltest.Append("deal", head.Epoch, 1, "x")
		done <- errors.Join(s.Commit([]*journal.Write{w}), w.Err)
	}()
	<-held
	// Pebble shows the batch already; the store must not.
	for {
		_, closer, err := s.db.Get(appendEventKey(nil, "deal", 1))
		if err == nil {
			_ = closer.Close()
			break
		}
		if !errors.Is(err, pebble.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(ctx, "deal", 1, nil); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("Get before the sync: %v", err)
	}
	if err := s.Read(ctx, "deal", 0, func(e journal.Event) error { return fmt.Errorf("event %d is told", e.Seq) }); err != nil {
		t.Errorf("Read before the sync: %v", err)
	}
	err = s.Streams(ctx, "", func(_ string, head journal.Head) error {
		if head.Seq != 0 {
			return fmt.Errorf("head %+v", head)
		}
		return nil
	})
	if err != nil {
		t.Errorf("Streams before the sync: %v", err)
	}
	hold.Off()
	release <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if data, err := s.Get(ctx, "deal", 1, nil); err != nil || string(data) != "x" {
		t.Errorf("Get after the sync: %q %v", data, err)
	}
	mustClose(t, s)
}
