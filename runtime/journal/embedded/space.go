package embedded

import (
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// reserveName is a file that only takes up room, given up when the disk runs full.
const reserveName = "RESERVE"

// spaceLevel says who may write.
type spaceLevel uint8

const (
	spaceEnough    spaceLevel = iota
	spaceLow                  // only what is urgent
	spaceExhausted            // nobody: the next write could fail in the middle
)

func (l spaceLevel) admits(urgent bool) bool {
	return l == spaceEnough || (urgent && l == spaceLow)
}

// space watches the room on the disk. The alarm is latched: it goes up below low
// and comes down only when there is a quarter of low more, beside the reserve, so that
// it does not flutter around the threshold. The reserve is given up when next to
// nothing is left: with the alarm already, whatever fills the disk would take it too.
type space struct {
	fs      vfs.FS
	log     *slog.Logger
	dir     string
	path    string // of the reserve
	low     uint64
	reserve uint64

	mu    sync.Mutex // guards the fields below
	level spaceLevel
	free  uint64
	held  bool // the reserve is there
}

func newSpace(fs vfs.FS, log *slog.Logger, dir string, low, reserve uint64) *space {
	s := &space{fs: fs, log: log, dir: dir, path: fs.PathJoin(dir, reserveName), low: low, reserve: reserve}
	// What is there may be of another size, or cut short by a crash.
	_ = fs.Remove(s.path)
	if s.measure() != nil || s.free >= s.reserve+s.exhausted() {
		s.held = s.fill() == nil
	}
	if !s.held || s.measure() == nil && s.free < s.low {
		s.level = spaceLow
	}
	s.tell(spaceEnough, s.level, s.free)
	return s
}

// exhausted is below how many free bytes a write could fail in the middle.
func (s *space) exhausted() uint64 { return s.low / 8 }

// look measures and moves the level. It is one statfs: cheap beside a sync.
func (s *space) look() spaceLevel {
	s.mu.Lock()
	before := s.level
	s.settle()
	level, free := s.level, s.free
	s.mu.Unlock()
	s.tell(before, level, free)
	return level
}

// tell says that the alarm went up or came down. It is called without mu: who writes the
// line may take its time.
func (s *space) tell(before, level spaceLevel, free uint64) {
	switch {
	case before == spaceEnough && level != spaceEnough:
		s.log.Error("journal: the disk is nearly full: no new orders until there is room again", "dir", s.dir, "free", free, "low", s.low)
	case before != spaceEnough && level == spaceEnough:
		s.log.Info("journal: there is room on the disk again: new orders are taken", "dir", s.dir, "free", free)
	}
}

func (s *space) settle() {
	if s.measure() != nil {
		return // nothing new is known
	}
	if s.level == spaceEnough && s.free >= s.low || s.level != spaceEnough && s.clears() {
		s.level = spaceEnough
		return
	}
	if s.held && s.free < s.exhausted() {
		// Not an error: without the file there is that much less to live on.
		_ = s.fs.Remove(s.path)
		s.held = false
		_ = s.measure()
	}
	s.level = spaceLow
	if s.free < s.exhausted() {
		s.level = spaceExhausted
	}
}

// clears says whether there is room enough to end the alarm, reserve and all.
func (s *space) clears() bool {
	least := s.low + s.low/4
	if s.held {
		return s.free >= least
	}
	s.held = s.free >= least+s.reserve && s.fill() == nil
	return s.held
}

func (s *space) measure() error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return err
	}
	s.free = usage.AvailBytes
	return nil
}

// now returns the level and the free bytes as of the last look.
func (s *space) now() (spaceLevel, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.level, s.free
}

// fill creates the reserve.
func (s *space) fill() (err error) {
	if s.reserve == 0 {
		return nil
	}
	f, err := s.fs.Create(s.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = s.fs.Remove(s.path)
			err = fmt.Errorf("embedded: reserve of %d bytes: %w", s.reserve, err)
		}
	}()
	err = f.Preallocate(0, int64(s.reserve))
	if err != nil && !vfs.IsNoSpaceError(err) {
		// Not every file system can allocate without writing.
		_, err = io.CopyN(f, zeros{}, int64(s.reserve))
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
