package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// holderName is a file beside the lock that says who has it. It is only for the
// message: the lock itself is the kernel's and ends with its process.
const holderName = "HOLDER"

// LockedError says that another process has the folder open.
type LockedError struct {
	Dir   string
	PID   int    // 0 if unknown
	Host  string // "" if unknown
	Since time.Time
	Err   error
}

// Error names the holder.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("embedded: data folder %s is in use by another process: %v", e.Dir, e.Err)
	}
	return fmt.Sprintf("embedded: data folder %s is in use by process %d on %s since %s; stop it, or choose another folder",
		e.Dir, e.PID, e.Host, e.Since.UTC().Format(time.RFC3339))
}

// Unwrap returns the cause.
func (e *LockedError) Unwrap() error { return e.Err }

// lockFolder takes the folder for this process.
func lockFolder(fs vfs.FS, dir string, wall int64) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		return nil, lockError(fs, dir, err)
	}
	if err := writeHolder(fs, dir, wall); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// lockError tells a folder that somebody has from one that this user may not write to.
func lockError(fs vfs.FS, dir string, err error) error {
	if errors.As(err, new(*os.PathError)) {
		return fmt.Errorf("embedded: data folder: %w", err)
	}
	locked := &LockedError{Dir: dir, Err: err}
	locked.readHolder(fs)
	return locked
}

// lockName is the file that pebble locks.
const lockName = "LOCK"

// InUse returns a *LockedError if a process has the folder open, and makes nothing
// of what is not there.
func InUse(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, lockName)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := pebble.LockDirectory(dir, vfs.Default)
	if err != nil {
		return lockError(vfs.Default, dir, err)
	}
	return lock.Close()
}

// holderLine is one line: process, Unix milliseconds and host.
const holderLine = "%d %d %s\n"

func writeHolder(fs vfs.FS, dir string, wall int64) (err error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	f, err := fs.Create(fs.PathJoin(dir, holderName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, holderLine, os.Getpid(), wall, host)
	return errors.Join(err, f.Close())
}

// readHolder fills in what the holder has written; a missing file changes nothing.
func (e *LockedError) readHolder(fs vfs.FS) {
	f, err := fs.Open(fs.PathJoin(e.Dir, holderName))
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	var pid int
	var wall int64
	var host string
	if _, err := fmt.Fscanf(io.LimitReader(f, 512), holderLine, &pid, &wall, &host); err != nil {
		return
	}
	e.PID, e.Host, e.Since = pid, host, time.UnixMilli(wall)
}
