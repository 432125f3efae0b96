package embedded

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// contents returns the events of a stream, each with its epoch.
func contents(t *testing.T, s *Store, stream string) (all []string) {
	t.Helper()
	err := s.Read(context.Background(), stream, 0, func(e journal.Event) error {
		all = append(all, fmt.Sprintf("%d/%d %s", e.Seq, e.Epoch, e.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		data, err := s.Get(context.Background(), stream, uint64(i+1), nil)
		if err != nil || len(data) == 0 {
			t.Fatalf("event %d: %q %v", i+1, data, err)
		}
	}
	return all
}

// commit appends one event to each of some streams, in one group.
func commit(t *testing.T, s *Store, seq uint64, epochs map[string]uint64) {
	t.Helper()
	var group []*journal.Write
	for stream, epoch := range epochs {
		group = append(group, journaltest.Append(stream, epoch, seq, fmt.Sprint(stream, "-", seq)))
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

// TestSettlingChangesNothingThatIsRead goes through each place that an event can be in:
// recent, settled, half and half, and found again after a crash before and after the
// groups were deleted.
func TestSettlingChangesNothingThatIsRead(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewCrashableMem()
	cfg := testConfig(t, mem, "data")
	cfg.Recent = 1 << 20 // nothing is settled but here
	s := mustOpen(t, cfg)
	epochs := map[string]uint64{"a": 1, "b": 1}
	for stream := range epochs {
		if _, err := s.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	want := func(s *Store, stream string, n int) {
		t.Helper()
		got := contents(t, s, stream)
		if len(got) != n {
			t.Fatalf("%s has %d events, want %d: %v", stream, len(got), n, got)
		}
		if head, err := s.Head(t.Context(), stream); err != nil || head.Seq != uint64(n) {
			t.Fatalf("%s: head %+v, %v", stream, head, err)
		}
	}
	commit(t, s, 1, epochs)
	commit(t, s, 2, epochs)
	want(s, "a", 2)

	w, streams := s.gather()
	commit(t, s, 3, epochs) // arrives while the table is written
	path := mem.PathJoin("data", settlingName)
	if err := s.writeTable(path, w.table, streams); err != nil {
		t.Fatal(err)
	}
	if err := s.takeIn(path); err != nil {
		t.Fatal(err)
	}
	want(s, "a", 3) // events 1 and 2 are in both places
	twice := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
	if err := s.forget(w); err != nil {
		t.Fatal(err)
	}
	want(s, "b", 3)
	if len(s.recent("a")) != 1 {
		t.Errorf("%d records are recent, want one", len(s.recent("a")))
	}

	s.Release("a", 1)
	if s.Stats().Streams != 1 {
		t.Errorf("%d streams have an owner, want one", s.Stats().Streams)
	}
	late := journaltest.Append("a", 1, 4, "too late")
	if err := s.Commit([]*journal.Write{late}); err != nil || !errors.Is(late.Err, journal.ErrFenced) {
		t.Errorf("an append after the release: %v %v", err, late.Err)
	}
	want(s, "a", 3)
	if head, err := s.Open(t.Context(), "a"); err != nil || head != (journal.Head{Epoch: 2, Seq: 3}) {
		t.Fatalf("open again: %+v %v", head, err)
	}
	commit(t, s, 4, map[string]uint64{"a": 2, "b": 1})
	mustClose(t, s)

	s = mustOpen(t, cfg)
	want(s, "a", 4)
	want(s, "b", 4)
	if got := contents(t, s, "a")[3]; got != "4/2 a-4" {
		t.Errorf("the event of the second owner: %s", got)
	}
	mustClose(t, s)

	cfg.FS = twice
	s = mustOpen(t, cfg)
	want(s, "a", 3)
	want(s, "b", 3)
	if len(s.recent("a")) != 1 {
		t.Errorf("%d records were found again, want the one that no table has", len(s.recent("a")))
	}
	mustClose(t, s)
}

// TestUnsettledEventsAreBounded refuses what cannot be settled.
func TestUnsettledEventsAreBounded(t *testing.T) {
	noLeaks(t)
	s := mustOpen(t, testConfig(t, vfs.NewMem(), "data"))
	if _, err := s.Open(t.Context(), "deal"); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.recentBytes = recentMax + 1
	s.mu.Unlock()
	w := journaltest.Append("deal", 1, 1, "x")
	if err := s.Commit([]*journal.Write{w}); err != nil || !errors.Is(w.Err, journal.ErrReadOnly) {
		t.Fatalf("%v %v", err, w.Err)
	}
	s.mu.Lock()
	s.recentBytes = 0
	s.mu.Unlock()
	commit(t, s, 1, map[string]uint64{"deal": 1})
	mustClose(t, s)
}
