package embedded

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// asker asks for merges as pebble does: once it was refused, it waits to be granted one.
type asker struct {
	merges    *merges
	due       bool // there is something to merge
	waiting   bool
	begun     int
	meanwhile func() // runs right after it declined a grant
}

func (a *asker) ask() {
	if a.waiting || !a.due {
		return
	}
	if may, _ := a.merges.TrySchedule(); may {
		a.begun++
	} else {
		a.waiting = true
	}
}

// Schedule implements pebble.DBForCompaction.
func (a *asker) Schedule(pebble.CompactionGrantHandle) bool {
	switch {
	case !a.waiting:
		return false
	case a.due:
		a.begun++
		return true
	}
	a.waiting = false
	if a.meanwhile != nil {
		a.meanwhile()
	}
	return false
}

// GetAllowedWithoutPermission implements pebble.DBForCompaction.
func (a *asker) GetAllowedWithoutPermission() int { return 1 }

// GetWaitingCompaction implements pebble.DBForCompaction.
func (a *asker) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	return a.waiting, pebble.WaitingCompaction{}
}

// TestRefusedWhileAnotherIsDeclined: a flush that ends while a grant is being declined has
// its merge refused, and that one is not forgotten.
func TestRefusedWhileAnotherIsDeclined(t *testing.T) {
	m := &merges{now: func() int64 { return 1 }}
	a := &asker{merges: m, due: true}
	m.Register(1, a)
	a.ask() // begins
	a.ask() // waits
	a.due = false
	a.meanwhile = func() {
		a.due, a.meanwhile = true, nil
		a.ask()
	}
	m.Done()
	if a.begun != 2 {
		t.Fatalf("%d merges began", a.begun)
	}
	a.due = false
	m.Done()
	a.due = true
	a.ask()
	if a.begun != 3 {
		t.Errorf("%d merges began", a.begun)
	}
}

// TestRush: no tables are merged amid a rush until they pile up, and all that waited are
// merged behind it.
func TestRush(t *testing.T) {
	noLeaks(t)
	var now atomic.Int64
	cfg := testConfig(t, vfs.NewMem(), "data")
	cfg.Now, cfg.MemTable = now.Load, 32<<20
	s := mustOpen(t, cfg)
	defer mustClose(t, s)
	streams := []string{"a", "z"} // each table has both, so that it overlaps the others
	heads := make([]journal.Head, len(streams))
	for i, stream := range streams {
		var err error
		if heads[i], err = s.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	second := func(events int) { // leaves a table
		t.Helper()
		now.Add(int64(time.Second))
		for i, stream := range streams {
			w := journaltest.Append(stream, heads[i].Epoch, heads[i].Seq+1, slices.Repeat([]string{"x"}, events/len(streams))...)
			if err := errors.Join(s.Commit([]*journal.Write{w}), w.Err); err != nil {
				t.Fatal(err)
			}
			heads[i].Seq += uint64(w.Count)
		}
		s.Stats()
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	begun := func() int64 {
		m := s.db.Metrics()
		return m.Compact.Count + m.Compact.NumInProgress
	}
	merged := func() bool { return begun() > 0 }

	for range mergePile - 1 {
		second(mergeRush)
	}
	s.Stats() // within the second: says nothing of a rush
	if n := s.db.Metrics().Levels[0].Sublevels; n != mergePile-1 || merged() {
		t.Fatalf("%d merges amid a rush, %d tables to look into", begun(), n)
	}
	second(mergeRush)
	s.Stats()
	await(t, "a merge of tables that have piled up", merged)
	await(t, "its end", func() bool { return s.db.Metrics().Levels[0].Sublevels < mergePile/2 })

	await(t, "no merge under way", func() bool { return s.db.Metrics().Compact.NumInProgress == 0 })
	before := begun()
	for range mergePile / 2 {
		second(mergeRush)
	}
	now.Add(int64(mergeCalm - time.Second)) // a lull
	s.Stats()
	if n := begun() - before; n != 0 {
		t.Errorf("%d merges amid the rush that goes on", n)
	}
	now.Add(int64(time.Second))
	s.Stats()
	await(t, "a merge behind the rush", func() bool { return begun() > before })
}

// TestPileIsMergedOnce: what is due when a pile has been merged waits for the end of the rush.
func TestPileIsMergedOnce(t *testing.T) {
	now := int64(time.Second)
	m := &merges{now: func() int64 { return now }}
	a := &asker{merges: m, due: true}
	m.Register(1, a)
	m.look(mergeRush, mergePile-1)
	if a.ask(); a.begun != 0 {
		t.Fatal("a merge amid a rush")
	}
	if m.look(mergeRush, mergePile); a.begun != 1 {
		t.Fatalf("%d merges of a pile", a.begun)
	}
	if m.Done(); a.begun != 1 {
		t.Error("another one behind it")
	}
	now += int64(mergeCalm)
	if m.look(mergeRush, mergePile/2); a.begun != 2 {
		t.Errorf("%d merges behind the rush", a.begun)
	}
}
