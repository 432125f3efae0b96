package embedded

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

var started = time.Now()

// testConfig is a small store that fails the test on a failure in the background.
func testConfig(t testing.TB, fs vfs.FS, dir string) Config {
	return Config{
		Dir: dir, FS: fs,
		Now:      func() int64 { return int64(time.Since(started)) },
		Wall:     func() int64 { return time.Now().UnixMilli() },
		Fatal:    func(err error) { t.Errorf("fatal: %v", err) },
		MemTable: 256 << 10,
		Recent:   2 << 10,
		LowSpace: 1 << 20,
		Reserve:  1 << 20,
	}
}

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func TestConformanceInMemory(t *testing.T) {
	noLeaks(t)
	journaltest.Run(t, func(*testing.T) journaltest.Place {
		fs := vfs.NewMem()
		return func(t *testing.T) journal.Store { return mustOpen(t, testConfig(t, fs, "data")) }
	})
}

func TestConformanceOnDisk(t *testing.T) {
	noLeaks(t)
	journaltest.Run(t, func(t *testing.T) journaltest.Place {
		dir := t.TempDir()
		return func(t *testing.T) journal.Store { return mustOpen(t, testConfig(t, nil, dir)) }
	})
}

// Whoever reads the end of a stream while another owner comes, writes and goes must not
// take what it read for the end: the next write would overwrite that owner's.
func TestHeadsAreNotTakenOverStale(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem(), "data"))
	defer mustClose(t, s)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { // a rival who wants nothing but to own it
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if h, err := s.Open(t.Context(), "d"); err == nil {
				s.Release("d", h.Epoch)
			}
		}
	}()
	defer func() {
		close(stop)
		<-ended
	}()
	last := journal.Head{}
	for begin := time.Now(); time.Since(begin) < 500*time.Millisecond; {
		h, err := s.Open(t.Context(), "d")
		if err != nil {
			t.Fatal(err)
		}
		if h.Epoch <= last.Epoch || h.Seq != last.Seq {
			t.Fatalf("opened at %+v after %+v", h, last)
		}
		w := journaltest.Append("d", h.Epoch, h.Seq+1, "x")
		if err := s.Commit([]*journal.Write{w}); err != nil {
			t.Fatal(err)
		}
		if last.Epoch = h.Epoch; w.Err == nil {
			last.Seq = h.Seq + 1
		}
		s.Release("d", h.Epoch)
	}
	t.Logf("%d writes, %d epochs", last.Seq, last.Epoch)
}

// TestReleaseDisturbsFew: a stream that leaves does not make the loads of others begin again.
func TestReleaseDisturbsFew(t *testing.T) {
	s := mustOpen(t, testConfig(t, vfs.NewMem(), "data"))
	defer mustClose(t, s)
	h, err := s.Open(t.Context(), "leaving")
	if err != nil {
		t.Fatal(err)
	}
	s.Release("leaving", h.Epoch)
	if s.releasesOf("leaving").Load() == 0 {
		t.Error("a load of the stream itself would not begin again")
	}
	disturbed := 0
	for i := range 1000 {
		disturbed += int(s.releasesOf(fmt.Sprintf("deal-%d", i)).Load())
	}
	if disturbed > 50 {
		t.Errorf("loads of %d streams in 1000 would begin again", disturbed)
	}
}
