package embedded

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Log files are written over, not extended: a sync of a file that grows has to make
// its metadata durable as well, which doubles what an order waits for. Pebble uses its
// own log files again, but only those it has made since its start, so the first ones
// would be slow. They are made from spares filled with zeros beforehand.
//
// A spare never holds an older log: of a folder that was put together from several
// backups, old chunks could pass for new ones.

// sparesMax is how many logs pebble begins before the first becomes free for reuse.
const sparesMax = 2

// spareWrite is how much of a spare is written at once, bytes: a page. What is written in
// larger pieces Linux keeps in larger ones, and each sync of a group would then count as
// a write of such a piece as a whole, in what the system tells operators and where it
// slows down who writes too much.
const spareWrite = 4 << 10

func spareName(i int) string { return fmt.Sprintf("SPARE-%d", i) }

// spareFS makes new logs from spares while there are any.
type spareFS struct {
	vfs.FS
	dir string
}

// fill makes the spares of the given size that are missing. It is no failure if it
// cannot: the logs are then extended.
func (s *spareFS) fill(size int64) error {
	for i := range sparesMax {
		path := s.PathJoin(s.dir, spareName(i))
		if info, err := s.Stat(path); err == nil && info.Size() == size {
			continue
		}
		if err := s.make(path, size); err != nil {
			return errors.Join(err, s.Remove(path))
		}
	}
	return nil
}

func (s *spareFS) make(path string, size int64) error {
	f, err := s.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(writerOnly{f}, io.LimitReader(zeros{}, size), make([]byte, spareWrite))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writerOnly hides what else a file can do, so that io.CopyBuffer uses its buffer.
type writerOnly struct{ io.Writer }

// Create implements vfs.FS.
func (s *spareFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".log") {
		for i := range sparesMax {
			f, err := s.ReuseForWrite(s.PathJoin(s.dir, spareName(i)), name, category)
			if err == nil {
				return f, nil
			}
		}
	}
	return s.FS.Create(name, category)
}

// Unwrap implements vfs.FS.
func (s *spareFS) Unwrap() vfs.FS { return s.FS }
