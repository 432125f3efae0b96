package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// contents returns the events of a stream, each with its epoch, and holds Get to Read.
func contents(t *testing.T, s *Store, stream string) (all []string) {
	t.Helper()
	err := s.Read(t.Context(), stream, 0, func(e journal.Event) error {
		all = append(all, fmt.Sprintf("%d/%d %s", e.Seq, e.Epoch, e.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range all {
		data, err := s.Get(t.Context(), stream, uint64(i+1), nil)
		if err != nil || !strings.HasSuffix(want, " "+string(data)) {
			t.Fatalf("event %d: %q %v, Read says %s", i+1, data, err, want)
		}
	}
	if _, err := s.Get(t.Context(), stream, uint64(len(all)+1), nil); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("an event behind the last: %v", err)
	}
	return all
}

// both appends one event to each of two streams, in one group.
func both(t *testing.T, s *Store, seq uint64, text string, streams ...string) {
	t.Helper()
	var group []*journal.Write
	for _, stream := range streams {
		h, _ := s.heads.Load(stream)
		group = append(group, journaltest.Append(stream, h.epoch.Load(), seq, text))
	}
	if err := s.Commit(group); err != nil {
		t.Fatal(err)
	}
	for _, w := range group {
		if w.Err != nil {
			t.Fatal(w.Err)
		}
	}
}

func openAll(t *testing.T, s *Store, streams ...string) {
	t.Helper()
	for _, stream := range streams {
		if _, err := s.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
}

// keysOf counts what pebble holds of a kind.
func keysOf(t *testing.T, s *Store, kind byte) (n int) {
	t.Helper()
	iter, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		t.Fatal(err)
	}
	for ok := iter.First(); ok; ok = iter.Next() {
		n++
	}
	if err := iter.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEventsAreReadAlikeWhereverTheyAre goes through each place that an event can be in.
func TestEventsAreReadAlikeWhereverTheyAre(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewCrashableMem()
	cfg := testConfig(t, mem, "data")
	cfg.Recent = 1 << 20 // nothing is too old
	s := mustOpen(t, cfg)
	openAll(t, s, "a", "b")
	state := func(s *Store, events, groups, records int) {
		t.Helper()
		for _, stream := range []string{"a", "b"} {
			if all := contents(t, s, stream); len(all) != events {
				t.Errorf("%s has %d events, want %d", stream, len(all), events)
			}
			if h, err := s.Head(t.Context(), stream); err != nil || h.Seq != uint64(events) {
				t.Errorf("%s: %+v %v", stream, h, err)
			}
		}
		if g, r := keysOf(t, s, keyGroup), keysOf(t, s, keyEvents); g != groups || r != records {
			t.Errorf("%d groups and %d records, want %d and %d", g, r, groups, records)
		}
	}
	big := strings.Repeat("x", smallBytes-2) // and two for its length
	both(t, s, 1, "one", "a", "b")
	state(s, 1, 1, 0)
	both(t, s, 2, big, "a", "b")
	state(s, 2, 2, 0)
	both(t, s, 3, big, "a", "b")
	state(s, 3, 2, 2) // enough for a record of all three
	both(t, s, 4, "four", "a", "b")
	state(s, 4, 3, 2)
	before := mem.CrashClone(vfs.CrashCloneCfg{})

	s.Release("a", 1)
	state(s, 4, 3, 3)
	openAll(t, s, "a", "b") // of b another owner
	state(s, 4, 3, 4)
	both(t, s, 5, "five", "a", "b")
	state(s, 5, 4, 4)
	if all := contents(t, s, "b"); all[3] != "4/1 four" || all[4] != "5/2 five" {
		t.Errorf("epochs: %v", all[3:])
	}
	after := mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s)

	// Groups with events that have their record, and others that have none.
	cfg.FS = before
	s = mustOpen(t, cfg)
	state(s, 4, 0, 4)
	mustClose(t, s)
	cfg.FS = after
	s = mustOpen(t, cfg)
	state(s, 5, 0, 6)
	mustClose(t, s)
	cfg.FS = mem
	s = mustOpen(t, cfg)
	state(s, 5, 0, 6)
	mustClose(t, s)
}

// TestWhatIsRecentIsBounded: each stream gets too little for a record, so that age alone
// brings them theirs.
func TestWhatIsRecentIsBounded(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t, vfs.NewMem(), "data")
	cfg.Recent = 8 << 10
	s := mustOpen(t, cfg)
	for i := range 400 {
		streams := []string{fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)}
		openAll(t, s, streams...)
		both(t, s, 1, strings.Repeat("x", 100), streams...)
		recent := 0
		s.heads.Range(func(_ string, h *head) bool {
			recent += cap(h.recent)
			return true
		})
		if recent > 2*int(cfg.Recent) {
			t.Fatalf("%d bytes are recent", recent)
		}
		if groups := s.nextGroup - s.deleted; groups > 2*uint64(cfg.Recent)+1<<10 {
			t.Fatalf("%d bytes of groups", groups)
		}
	}
	if keysOf(t, s, keyEvents) == 0 || s.deleted == 0 {
		t.Fatal("nothing got its record")
	}
	mustClose(t, s)
}

// TestAnUnreadableStreamKeepsItsGroups: what is in groups of it stays there, start after
// start, and nobody else is held up.
func TestAnUnreadableStreamKeepsItsGroups(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewCrashableMem()
	cfg := testConfig(t, mem, "data")
	s := mustOpen(t, cfg)
	openAll(t, s, "bad", "good", "other")
	both(t, s, 1, "1", "bad")
	both(t, s, 1, "1", "good", "other")
	both(t, s, 2, "2", "bad", "good")
	both(t, s, 2, "2b", "other")
	key := appendEventKey(nil, "bad", 1)
	if err := s.set(key, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	fs := mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s)
	cfg.FS = fs
	for start := range 3 {
		s = mustOpen(t, cfg)
		if n := keysOf(t, s, keyGroup); n != 1 {
			t.Fatalf("start %d: %d groups, want the one with events of the bad stream", start, n)
		}
		_, openErr := s.Open(t.Context(), "bad")
		_, getErr := s.Get(t.Context(), "bad", 2, nil)
		readErr := s.Read(t.Context(), "bad", 0, func(journal.Event) error { return nil })
		for _, err := range []error{openErr, getErr, readErr} {
			var corrupt *journal.CorruptError
			if !errors.As(err, &corrupt) || corrupt.Stream != "bad" || corrupt.Remedy == "" {
				t.Errorf("start %d: the bad stream: %v", start, err)
			}
		}
		if n := len(contents(t, s, "good")); n != 2+start {
			t.Errorf("start %d: %d events of the good stream", start, n)
		}
		openAll(t, s, "good")
		both(t, s, uint64(3+start), "more", "good")
		mustClose(t, s)
	}
	// Once it can be read again, nothing of it is missing.
	s = mustOpen(t, cfg)
	good := record{first: 1, epoch: 1, count: 1, frames: journal.AppendEvent(nil, []byte("1"))}
	if err := errors.Join(s.set(key, sealedRecord(key, &good)), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	if all := contents(t, s, "bad"); len(all) != 2 || all[1] != "2/1 2" {
		t.Errorf("the mended stream: %v", all)
	}
	mustClose(t, s)
}

// TestEveryFailedOperationOfAStartLosesNothing fails each file operation of a start that
// finds groups, and takes the power away after it.
func TestEveryFailedOperationOfAStartLosesNothing(t *testing.T) {
	crashed := vfs.NewCrashableMem()
	h := newHistory(9)
	cfg := testConfig(t, crashed, "data")
	cfg.Recent = 1 << 20
	s := mustOpen(t, cfg)
	if err := h.rounds(s, 12); err != nil {
		t.Fatal(err)
	}
	left := func() *vfs.MemFS { return crashed.CrashClone(vfs.CrashCloneCfg{}) }
	if keysOf(t, s, keyGroup) == 0 {
		t.Fatal("no groups: the test does not cover what it is for")
	}
	var operations atomic.Int32
	count := errorfs.InjectorFunc(func(errorfs.Op) error { operations.Add(1); return nil })
	mustClose(t, mustOpen(t, testConfig(t, inject(left(), count), "data")))
	failed := 0
	for i := int32(0); i < operations.Load(); i += raceStride {
		mem := left()
		cfg := testConfig(t, inject(mem, errorfs.OnIndex(i)), "data")
		fatal := make(chan error, 1)
		cfg.Fatal = func(err error) { fatal <- err; select {} }
		ended := make(chan error, 1)
		go func() {
			s, err := Open(cfg)
			if err == nil {
				err = s.Close()
			}
			ended <- err
		}()
		var err error
		select {
		case err = <-ended:
		case err = <-fatal:
		}
		if err != nil {
			failed++
		}
		for _, percent := range []int{0, 100} {
			fs := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(i), 0))})
			if _, checkErr := h.promise().check(testConfig(t, fs, "data")); checkErr != nil {
				t.Errorf("operation %d of %d failed (%v): %v", i, operations.Load(), err, checkErr)
			}
		}
	}
	t.Logf("%d operations, %d ended the start", operations.Load(), failed)
	if failed == 0 {
		t.Error("no failure ended a start")
	}
	mustClose(t, s)
}

// TestAnUnreadableGroupIsRefused: whose events it has cannot be told.
func TestAnUnreadableGroupIsRefused(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, testConfig(t, mem, "data"))
	openAll(t, s, "a", "b")
	both(t, s, 1, "1", "a", "b")
	if err := errors.Join(s.set(groupKey(0), []byte("nonsense")), s.db.Flush()); err != nil {
		t.Fatal(err)
	}
	fs := mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s)
	_, err := Open(testConfig(t, fs, "data"))
	if !errors.Is(err, journal.ErrCorrupt) || !strings.Contains(err.Error(), "backup") {
		t.Fatal(err)
	}
}

// TestFormats: a folder without groups goes on without, and a program that does not know
// of groups says so.
func TestFormats(t *testing.T) {
	noLeaks(t)
	fs := vfs.NewMem()
	db, err := pebble.Open("data", &pebble.Options{FS: fs, Comparer: comparer(withoutGroups), FormatMajorVersion: pebble.FormatWALSyncChunks})
	if err != nil {
		t.Fatal(err)
	}
	key := appendEventKey(nil, "a", 1)
	r := record{epoch: 1, count: 1, frames: journal.AppendEvent(nil, []byte("old"))}
	if err := errors.Join(db.Set(key, sealedRecord(key, &r), nil), db.Close()); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, testConfig(t, fs, "data"))
	openAll(t, s, "a", "b")
	both(t, s, 2, "new", "a")
	both(t, s, 1, "new", "b")
	w := []*journal.Write{journaltest.Append("a", 2, 3, "x"), journaltest.Append("b", 1, 2, "x")}
	if err := errors.Join(s.Commit(w), w[0].Err, w[1].Err); err != nil {
		t.Fatal(err)
	}
	if all := contents(t, s, "a"); len(all) != 3 || all[0] != "1/1 old" || keysOf(t, s, keyGroup) != 0 {
		t.Errorf("%v, and %d groups", all, keysOf(t, s, keyGroup))
	}
	mustClose(t, s)

	fs = vfs.NewMem()
	mustClose(t, mustOpen(t, testConfig(t, fs, "data")))
	_, err = pebble.Open("data", &pebble.Options{FS: fs, Comparer: comparer(withoutGroups), Logger: discard{}})
	if err == nil || !strings.Contains(err.Error(), "written by a newer doorbuster") {
		t.Errorf("an older program: %v", err)
	}
}

type discard struct{}

func (discard) Infof(string, ...any)  {}
func (discard) Errorf(string, ...any) {}
func (discard) Fatalf(string, ...any) {}

// TestStreamsShowsWhatWasRecentAtItsStart releases a stream during the scan.
func TestStreamsShowsWhatWasRecentAtItsStart(t *testing.T) {
	noLeaks(t)
	s := mustOpen(t, testConfig(t, vfs.NewMem(), "data"))
	openAll(t, s, "a", "b")
	both(t, s, 1, "1", "a", "b")
	err := s.Streams(t.Context(), "", func(stream string, h journal.Head) error {
		if h.Seq != 1 {
			t.Errorf("%s: %+v", stream, h)
		}
		s.Release("b", 1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

// TestEachStopsAtWhatIsDurable: of a record that is being written the recent part is.
func TestEachStopsAtWhatIsDurable(t *testing.T) {
	r := record{first: 5, epoch: 1, count: 3, frames: bytes.Repeat([]byte{1, 'x'}, 3)}
	n := 0
	if err := each(r, 4, 6, func(journal.Event) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d events, %v", n, err)
	}
}

// TestGroupsHaveABound: what a start would refuse to read is not written.
func TestGroupsHaveABound(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem(), "data")
	cfg.Recent = 32 << 20
	s := mustOpen(t, cfg)
	var group []*journal.Write
	for i := range groupMax/smallBytes + 1000 {
		stream := fmt.Sprintf("stream-%d", i)
		openAll(t, s, stream)
		h, _ := s.heads.Load(stream)
		group = append(group, journaltest.Append(stream, h.epoch.Load(), 1, strings.Repeat("x", smallBytes-10)))
	}
	if err := s.Commit(group); err != nil {
		t.Fatal(err)
	}
	if len(s.entries) == 0 || len(s.entries) > groupMax {
		t.Errorf("a group of %d bytes, at most %d can be read", len(s.entries), groupMax)
	}
	if n := keysOf(t, s, keyEvents); n == 0 || n == len(group) {
		t.Errorf("%d of %d streams have a record", n, len(group))
	}
	for _, w := range group {
		if w.Err != nil || len(contents(t, s, w.Stream)) != 1 {
			t.Fatalf("%s: %v", w.Stream, w.Err)
		}
	}
	mustClose(t, s)
}

func FuzzGroup(f *testing.F) {
	valid := append(appendEntry(nil, "a", 1, 1, 1, 2), 1, 'x')
	valid = append(appendEntry(valid, "b", 2, 7, 2, 3), 0, 1, 'y')
	f.Add(uint64(7), valid)
	f.Add(uint64(7), sealGroup(nil, groupKey(7), valid))
	f.Add(uint64(0), []byte{})
	f.Add(uint64(0), make([]byte, sealLen))
	f.Add(uint64(0), []byte{0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0}) // says that it holds 4 GiB
	f.Fuzz(func(t *testing.T, number uint64, data []byte) {
		key := groupKey(number)
		_, _, _ = decodeGroup(key, data)
		if len(data) >= sealLen {
			value := bytes.Clone(data)
			seal(key, value) // the checksum keeps most inputs out
			_, _, _ = decodeGroup(key, value)
		}
		entries, size, err := decodeGroup(key, sealGroup(nil, key, data))
		if err != nil {
			return
		}
		var again []byte
		for i := range entries {
			e := &entries[i]
			again = append(appendEntry(again, e.stream, e.epoch, e.first, e.count, len(e.frames)), e.frames...)
		}
		if !bytes.Equal(again, data) || size != len(data) {
			t.Fatalf("%x of %d bytes is written again as %x", data, size, again)
		}
	})
}
