package embedded

import (
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// reserveName is a file that only takes up room, given up when the disk runs full.
const reserveName = "RESERVE"

// spaceLevel says who may write.
type spaceLevel uint8

const (
	spaceEnough    spaceLevel = iota
	spaceLow                  // only what is urgent; the reserve has been given up
	spaceExhausted            // nobody: the next write could fail in the middle
)

func (l spaceLevel) admits(urgent bool) bool {
	return l == spaceEnough || (urgent && l == spaceLow)
}

// space watches the room on the disk. The alarm is latched: it goes up below low
// and comes down only when the reserve fits again with a quarter of low to spare, so
// that it does not flutter around the threshold.
type space struct {
	fs      vfs.FS
	dir     string
	path    string // of the reserve
	low     uint64
	reserve uint64

	mu    sync.Mutex // guards the fields below
	level spaceLevel
	free  uint64
}

func newSpace(fs vfs.FS, dir string, low, reserve uint64) *space {
	s := &space{fs: fs, dir: dir, path: fs.PathJoin(dir, reserveName), low: low, reserve: reserve}
	// What is there may be of another size, or cut short by a crash.
	_ = fs.Remove(s.path)
	known := s.measure() == nil
	if (known && s.free < s.low+s.reserve) || s.fill() != nil {
		s.level = spaceLow
	}
	return s
}

// look measures and moves the level. It is one statfs: cheap beside a sync.
func (s *space) look() spaceLevel {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.measure() != nil {
		return s.level // nothing new is known
	}
	switch {
	case s.level == spaceEnough && s.free < s.low:
		s.level = spaceLow
		// Not an error: without the file there is that much less to live on.
		_ = s.fs.Remove(s.path)
		_ = s.measure()
	case s.level != spaceEnough && s.free >= s.low+s.low/4+s.reserve && s.fill() == nil:
		s.level = spaceEnough
	}
	if s.level != spaceEnough {
		s.level = spaceLow
		if s.free < s.low/8 {
			s.level = spaceExhausted
		}
	}
	return s.level
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
