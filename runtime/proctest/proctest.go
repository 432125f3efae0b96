// Package proctest stops other processes, for tests of what happens when one falls silent.
package proctest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// Stop sends a process SIGSTOP and returns when all its threads stand still or have ended.
// That is some time after the signal: the thread that takes it may be writing to a disk,
// and until it has, the others go on.
func Stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("proctest: stopping process %d: %v", pid, err)
	}
	for {
		still, err := stopped(pid)
		if err != nil {
			t.Fatalf("proctest: %v", err)
		}
		if still {
			return
		}
		runtime.Gosched()
	}
}

// stopped reports whether no thread of a process runs or is about to.
func stopped(pid int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false, fmt.Errorf("process %d is gone: %w", pid, errors.Join(err, fs.ErrNotExist))
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return false, nil // it ended meanwhile: others may have begun
		}
		if err != nil {
			return false, err
		}
		// The name may have brackets of its own; the state follows the last.
		switch stat[bytes.LastIndexByte(stat, ')')+2] {
		case 'T', 'Z': // Z: it has ended, and its parent does not know yet
		default:
			return false, nil
		}
	}
	return true, nil
}
