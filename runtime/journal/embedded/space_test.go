package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// disk is a file system with room that the test sets.
type disk struct {
	t   *testing.T
	mem *vfs.MemFS
	log bytes.Buffer
	s   *Store
	seq uint64
}

func newDisk(t *testing.T, free uint64) *disk {
	t.Helper()
	noLeaks(t)
	d := &disk{t: t, mem: vfs.NewMem()}
	d.free(free)
	cfg := testConfig(t, d.mem, "data") // low 1 MiB, reserve 1 MiB
	cfg.Log = slog.New(slog.NewTextHandler(&d.log, nil))
	d.s = mustOpen(t, cfg)
	t.Cleanup(func() { mustClose(t, d.s) })
	if _, err := d.s.Open(context.Background(), "deal"); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) free(bytes uint64) {
	d.mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40, UsedBytes: 1})
}

func (d *disk) reserved() bool {
	_, err := d.mem.Stat("data/" + reserveName)
	return err == nil
}

// write appends one event and returns its outcome.
func (d *disk) write(urgent bool) error {
	d.t.Helper()
	w := journaltest.Append("deal", 1, d.seq+1, "x")
	w.Urgent = urgent
	if err := d.s.Commit([]*journal.Write{w}); err != nil {
		d.t.Fatal(err)
	}
	if w.Err == nil {
		d.seq++
	}
	return w.Err
}

// expect writes once of each kind and looks at what else depends on the room.
func (d *disk) expect(step string, plain, urgent error, readOnly, reserved bool) {
	d.t.Helper()
	if err := d.write(false); !errors.Is(err, plain) {
		d.t.Errorf("%s: a write: got %v, want %v", step, err, plain)
	}
	if err := d.write(true); !errors.Is(err, urgent) {
		d.t.Errorf("%s: an urgent write: got %v, want %v", step, err, urgent)
	}
	row := []journal.Mutation{{Table: "t", Key: "k", Value: []byte("v")}}
	if err := d.s.Tables().Apply(context.Background(), row, true); !errors.Is(err, plain) {
		d.t.Errorf("%s: a row: got %v, want %v", step, err, plain)
	}
	if err := d.s.PutSnapshot(context.Background(), "deal", 1, d.seq, nil); !errors.Is(err, plain) {
		d.t.Errorf("%s: a snapshot: got %v, want %v", step, err, plain)
	}
	if d.s.Stats().ReadOnly != readOnly || d.reserved() != reserved {
		d.t.Errorf("%s: read-only %v, want %v; reserve %v, want %v", step, d.s.Stats().ReadOnly, readOnly, d.reserved(), reserved)
	}
}

func TestDiskFull(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	d := newDisk(t, 100*mib)
	d.expect("plenty", nil, nil, false, true)
	d.free(mib)
	d.expect("at the threshold", nil, nil, false, true)
	d.free(mib - 1)
	d.expect("below the threshold, for others to fill the rest", journal.ErrReadOnly, nil, true, true)
	d.free(mib + 255*kib)
	d.expect("the alarm does not flutter", journal.ErrReadOnly, nil, true, true)
	d.free(mib + 256*kib)
	d.expect("room again, before the reserve was needed", nil, nil, false, true)
	d.free(120 * kib)
	d.expect("nothing left, not even with the reserve", journal.ErrReadOnly, journal.ErrReadOnly, true, false)
	d.free(2 * mib)
	d.expect("the reserve's own room must not clear the alarm", journal.ErrReadOnly, nil, true, false)
	d.free(200 * kib)
	d.expect("a little left", journal.ErrReadOnly, nil, true, false)
	d.free(2*mib + 256*kib)
	d.expect("room again", nil, nil, false, true)
	if got := d.s.Stats().DiskFree; got != 2*mib+256*kib {
		t.Errorf("free: %d", got)
	}
	events := uint64(0)
	err := d.s.Read(context.Background(), "deal", 0, func(journal.Event) error { events++; return nil })
	if err != nil || events != d.seq {
		t.Errorf("%d events, %d were acknowledged, %v", events, d.seq, err)
	}
	d.told(2)
}

// told checks that the alarm has told of each time it went up and came down, once.
func (d *disk) told(times int) {
	d.t.Helper()
	log := d.log.String()
	if up, down := strings.Count(log, "journal: the disk is nearly full"), strings.Count(log, "journal: there is room"); up != times || down != times {
		d.t.Errorf("told %d times that the disk is full and %d times that there is room, want %d:\n%s", up, down, times, log)
	}
}

func TestDiskFullAtTheStart(t *testing.T) {
	d := newDisk(t, 1<<20)
	d.expect("full from the start", journal.ErrReadOnly, nil, true, false)
	d.free(100 << 20)
	if d.s.Stats().ReadOnly {
		t.Error("looking at a store that does not write did not clear the alarm")
	}
	d.expect("room", nil, nil, false, true)
	d.told(1)
}

func TestReadOnlyAnswersInOneGroup(t *testing.T) {
	d := newDisk(t, 1<<20)
	plain := journaltest.Append("deal", 1, 1, "order")
	urgent := journaltest.Append("deal", 1, 1, "cancel")
	urgent.Urgent = true
	built := journaltest.Append("deal", 1, 3, "built on a refused write")
	built.Urgent = true
	if err := d.s.Commit([]*journal.Write{plain, urgent, {}, built}); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(plain.Err, journal.ErrReadOnly) || urgent.Err != nil || !errors.Is(built.Err, journal.ErrFenced) {
		t.Fatalf("got %v, %v, %v", plain.Err, urgent.Err, built.Err)
	}
}

// TestReserveThatCannotBeMade goes on with the alarm up, and fills the file by hand
// where the file system cannot allocate.
func TestReserveThatCannotBeMade(t *testing.T) {
	for name, c := range map[string]struct {
		kinds    []errorfs.OpKind
		level    spaceLevel
		reserved bool
	}{
		"cannot create":   {[]errorfs.OpKind{errorfs.OpCreate}, spaceLow, false},
		"cannot allocate": {[]errorfs.OpKind{errorfs.OpFilePreallocate}, spaceEnough, true},
		"cannot fill":     {[]errorfs.OpKind{errorfs.OpFilePreallocate, errorfs.OpFileWrite}, spaceLow, false},
		"cannot measure":  {[]errorfs.OpKind{errorfs.OpGetDiskUsage}, spaceEnough, true},
	} {
		mem := vfs.NewMem()
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 40, UsedBytes: 1})
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			for _, kind := range c.kinds {
				if op.Kind == kind {
					return errors.New(name)
				}
			}
			return nil
		}))
		s := newSpace(fs, slog.New(slog.DiscardHandler), "/", 1<<20, 3<<20)
		level, _ := s.now()
		_, err := mem.Stat("/" + reserveName)
		if level != c.level || (err == nil) != c.reserved {
			t.Errorf("%s: level %d, reserve: %v", name, level, err)
		}
		if s.look() != c.level {
			t.Errorf("%s: the level moved to %d", name, s.look())
		}
	}
}

func TestReserveTakesRoomOnARealDisk(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	cfg := testConfig(t, nil, dir)
	cfg.Reserve = 8 << 20
	s := mustOpen(t, cfg)
	if s.Stats().DiskFree == 0 {
		t.Error("the free space of a real disk is not known")
	}
	out, err := exec.Command("du", "-k", dir+"/"+reserveName).Output()
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	if _, err := fmt.Sscan(string(out), &kib); err != nil || kib < 8<<10 {
		t.Errorf("the reserve takes %d KiB, %v", kib, err)
	}
	mustClose(t, s)
}

// TestSecondProcessIsToldWhoHoldsTheFolder runs this test binary again as the second
// process, because a lock does not hold against the process that took it.
func TestSecondProcessIsToldWhoHoldsTheFolder(t *testing.T) {
	if dir := os.Getenv("EMBEDDED_TEST_LOCKED_DIR"); dir != "" {
		_, err := Open(testConfig(t, nil, dir))
		var locked *LockedError
		if !errors.As(err, &locked) {
			t.Fatalf("Open of a locked folder: %v", err)
		}
		fmt.Printf("locked by %d on %s since %d\n%v\n", locked.PID, locked.Host, locked.Since.UnixMilli(), locked)
		return
	}
	noLeaks(t)
	dir := t.TempDir()
	cfg := testConfig(t, nil, dir)
	since := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	cfg.Wall = since.UnixMilli
	s := mustOpen(t, cfg)
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "EMBEDDED_TEST_LOCKED_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("locked by %d on %s since %d\n", os.Getpid(), host, since.UnixMilli()),
		fmt.Sprintf("%s is in use by process %d on %s since 2026-03-04T05:06:07Z", dir, os.Getpid(), host),
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, cfg))
}

func TestLockedFolderWithoutAHolder(t *testing.T) {
	noLeaks(t)
	mem := vfs.NewMem()
	s := mustOpen(t, testConfig(t, mem, "data"))
	for _, holder := range []string{"", "nonsense"} {
		if holder == "" {
			if err := mem.Remove("data/" + holderName); err != nil {
				t.Fatal(err)
			}
		} else {
			f, err := mem.Create("data/"+holderName, vfs.WriteCategoryUnspecified)
			if err == nil {
				_, err = f.Write([]byte(holder))
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Open(testConfig(t, mem, "data"))
		var locked *LockedError
		if !errors.As(err, &locked) || locked.PID != 0 || !strings.Contains(err.Error(), "another process") || errors.Unwrap(locked) == nil {
			t.Errorf("holder %q: %v", holder, err)
		}
	}
	mustClose(t, s)
}

func TestConfigIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"no Dir":            func(c *Config) { c.Dir = "" },
		"no Now":            func(c *Config) { c.Now = nil },
		"no Wall":           func(c *Config) { c.Wall = nil },
		"no Fatal":          func(c *Config) { c.Fatal = nil },
		"negative LowSpace": func(c *Config) { c.LowSpace = -1 },
		"tiny MemTable":     func(c *Config) { c.MemTable = 1 },
		"tiny Cache":        func(c *Config) { c.Cache = 1 },
	} {
		cfg := testConfig(t, vfs.NewMem(), "data")
		spoil(&cfg)
		if _, err := Open(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestRecoveryIsReported(t *testing.T) {
	noLeaks(t)
	files, log, p := crashedFolder(t, 3)
	var lines bytes.Buffer
	cfg := testConfig(t, files.with(t, log, behind(files[log], logNumber(t, log), files[log][:60])), "data")
	cfg.Log = slog.New(slog.NewTextHandler(&lines, nil))
	recovery, err := p.check(cfg)
	if err != nil || recovery.TornBytes == 0 || !strings.HasSuffix(recovery.TornFile, log) || recovery.Took <= 0 {
		t.Errorf("recovery %+v, %v", recovery, err)
	}
	if !strings.Contains(lines.String(), "torn tail") || !strings.Contains(lines.String(), log) {
		t.Errorf("log: %s", lines.String())
	}
}

// behind writes more behind the last chunk of a log.
func behind(log []byte, num uint32, more []byte) []byte {
	log = bytes.Clone(log)
	copy(log[firstBadChunk(log, num):], more)
	return log
}

// TestCommitDoesNotAllocate allows a little for what pebble does in the background.
func TestCommitDoesNotAllocate(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem(), "data")
	cfg.MemTable = 16 << 20 // few flushes, which allocate
	s := mustOpen(t, cfg)
	head, err := s.Open(context.Background(), "deal")
	if err != nil {
		t.Fatal(err)
	}
	group := make([]*journal.Write, 400)
	for i := range group {
		group[i] = journaltest.Append("deal", head.Epoch, 0, strings.Repeat("x", 110))
	}
	seq := uint64(1)
	commit := func() {
		for _, w := range group {
			w.Seq = seq
			seq++
		}
		if err := errors.Join(s.Commit(group), group[399].Err); err != nil {
			t.Fatal(err)
		}
	}
	if allocs := testing.AllocsPerRun(100, commit); allocs > 40*raceStride {
		t.Errorf("%v allocations for a group of %d orders", allocs, len(group))
	} else {
		t.Logf("%v allocations for a group of %d orders", allocs, len(group))
	}
	mustClose(t, s)
}

// A lock that cannot be made is not one that somebody has.
func TestFolderThatCannotBeWrittenIsNotCalledInUse(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/"+lockName, 0o700); err != nil { // what root may not write to either
		t.Fatal(err)
	}
	_, err := Open(testConfig(t, nil, dir))
	for _, err := range []error{err, InUse(dir)} {
		if errors.As(err, new(*LockedError)) || !errors.Is(err, syscall.EISDIR) {
			t.Errorf("got %v, want the cause alone", err)
		}
	}
}
