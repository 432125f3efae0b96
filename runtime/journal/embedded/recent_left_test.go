package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// TestDamageToDeletedGroupsHoldsNobodyUp flips a byte here and there in the tables of a
// clean stop: one stream may be unreadable, but the store opens.
func TestDamageToDeletedGroupsHoldsNobodyUp(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	cfg := testConfig(t, mem, "data")
	cfg.Recent = 64 << 10
	s := mustOpen(t, cfg)
	var streams []string
	for i := range 50 {
		streams = append(streams, fmt.Sprintf("s%02d", i))
	}
	openAll(t, s, streams...)
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 80)
	for seq := range uint64(100) {
		for i := range text {
			text[i] = byte(random.Uint32())
		}
		both(t, s, seq+1, string(text), streams...)
	}
	mustClose(t, s)
	files := readFolder(t, mem)
	flips := 0
	for name, content := range files {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		// The newest table has the word that nothing was left; behind the data blocks
		// is the index, without which pebble opens no table.
		for at := 400; at < len(content)-2000; at += 700 * raceStride {
			flipped := bytes.Clone(content)
			flipped[at] ^= 1
			s, err := Open(testConfig(t, files.with(t, name, flipped), "data"))
			if err != nil {
				t.Errorf("%s, byte %d of %d: %v", name, at, len(content), err)
				continue
			}
			flips++
			mustClose(t, s)
		}
	}
	if flips == 0 {
		t.Fatal("nothing was damaged")
	}
}

// TestGroupsAreFoundAfterACleanStopAndACrash: that a stop was clean is forgotten with the
// next start, even by one that could not read it.
func TestGroupsAreFoundAfterACleanStopAndACrash(t *testing.T) {
	noLeaks(t)
	for _, unread := range []bool{false, true} {
		mem := vfs.NewCrashableMem()
		cfg := testConfig(t, mem, "data")
		s := mustOpen(t, cfg)
		openAll(t, s, "a", "b")
		both(t, s, 1, "1", "a", "b")
		if unread {
			mustClose(t, s)
			s = mustOpen(t, cfg)
			if err := s.settleAll(); err != nil {
				t.Fatal(err)
			}
			if err := s.set([]byte(settledKey), []byte("nonsense")); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.db.Flush(), s.batch.Close(), s.db.Close(), s.lock.Close()); err != nil {
				t.Fatal(err)
			}
			s.cache.Unref()
		} else {
			mustClose(t, s)
		}
		s = mustOpen(t, cfg)
		if n := keysOf(t, s, settledKey[0]); n != 0 {
			t.Errorf("%d keys still say that the stop was clean", n)
		}
		openAll(t, s, "a", "b")
		both(t, s, 2, "2", "a", "b")
		for _, percent := range []int{0, 100} {
			fs := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 1))})
			again := mustOpen(t, testConfig(t, fs, "data"))
			if all := contents(t, again, "b"); len(all) != 2 {
				t.Errorf("unread %v, %d %% of what was not synced: %v", unread, percent, all)
			}
			mustClose(t, again)
		}
		mustClose(t, s)
	}
}

// TestTheFirstGroupStays: the one with number 0 is kept like any other.
func TestTheFirstGroupStays(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewCrashableMem()
	cfg := testConfig(t, mem, "data")
	s := mustOpen(t, cfg)
	openAll(t, s, "bad", "good")
	both(t, s, 1, "1", "bad", "good")
	key := appendEventKey(nil, "bad", 1)
	if err := errors.Join(s.set(key, []byte("nonsense")), s.db.Flush()); err != nil {
		t.Fatal(err)
	}
	cfg.FS = mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s)
	for range 3 {
		s = mustOpen(t, cfg)
		if n := keysOf(t, s, keyGroup); n != 1 || s.keep != 1 {
			t.Errorf("%d groups, those below %d stay", n, s.keep)
		}
		if _, err := s.Open(t.Context(), "bad"); !errors.Is(err, journal.ErrCorrupt) {
			t.Errorf("the bad stream: %v", err)
		}
		if all := contents(t, s, "good"); len(all) != 1 {
			t.Errorf("the good stream: %v", all)
		}
		mustClose(t, s)
	}
}
