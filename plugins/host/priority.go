package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// priority is how a compiler's process stands beside the threads that take orders.
type priority string

const (
	// idle gives it what nobody else wants: a thread that wakes up takes the processor
	// from it at once. That no longer holds for nice, whatever its degree: threads that
	// take orders then wait behind it for up to a tick of the kernel.
	idle priority = "idle"
	// nice gives it a small share (CompileNice) even if the machine has nothing to do
	// but orders. There is no way back to it from idle without privileges, so it is for
	// another process.
	nice priority = "nice"
)

// take gives this process the priority, or nice where the system knows or allows no idle.
func (p priority) take() error {
	switch p {
	case idle:
		if idleThreads() == nil {
			return nil
		}
	case nice:
	default:
		return fmt.Errorf("priority %q", string(p))
	}
	return syscall.Setpriority(syscall.PRIO_PGRP, 0, CompileNice)
}

// idleThreads makes all threads of this process idle. A new thread has the priority of
// the one that began it: it looks until there is none that it has not seen.
func idleThreads() error {
	for seen := map[string]bool{}; ; {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		before := len(seen)
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err == nil {
				err = makeIdle(id)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // that one has ended
				return fmt.Errorf("thread %s: %w", thread.Name(), err)
			}
			seen[thread.Name()] = true
		}
		if len(seen) == before {
			return nil
		}
	}
}

// makeIdle has a thread, or a process that has one, run when no other wants to.
func makeIdle(thread int) error {
	return unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}

// processorTime returns what a process has used since it began.
func processorTime(pid int) (time.Duration, error) {
	const ofProcess = 2 // CPUCLOCK_SCHED in linux/posix-timers_types.h
	var used unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|ofProcess), &used)
	return time.Duration(used.Nano()), err
}
