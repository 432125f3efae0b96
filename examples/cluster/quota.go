package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
)

// quotaPeriod is short, so that a process that has used up its share does not stand
// still for long.
const quotaPeriod = 10 * time.Millisecond

// quota is a control group whose processes share a part of one core.
type quota struct{ dir string }

// newQuota makes a control group, of whichever version the machine has.
func newQuota(name string, share float64) (*quota, error) {
	const one, two = "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"
	period, part := quotaPeriod.Microseconds(), int64(share*float64(quotaPeriod.Microseconds()))
	if _, err := os.Stat(filepath.Join(one, "cpu.cfs_quota_us")); err == nil {
		q := &quota{filepath.Join(one, name)}
		return q, errors.Join(os.Mkdir(q.dir, 0o755), q.set("cpu.cfs_period_us", period), q.set("cpu.cfs_quota_us", part))
	}
	q := &quota{filepath.Join(two, name)}
	return q, errors.Join(
		os.WriteFile(filepath.Join(two, "cgroup.subtree_control"), []byte("+cpu"), 0o644),
		os.Mkdir(q.dir, 0o755),
		os.WriteFile(filepath.Join(q.dir, "cpu.max"), fmt.Appendf(nil, "%d %d", part, period), 0o644))
}

func (q *quota) set(file string, value int64) error {
	return os.WriteFile(filepath.Join(q.dir, file), strconv.AppendInt(nil, value, 10), 0o644)
}

// add puts a process and what it starts under the quota.
func (q *quota) add(pid int) error { return q.set("cgroup.procs", int64(pid)) }

// close removes the group; its processes must have ended.
func (q *quota) close() error { return os.Remove(q.dir) }

// pin keeps the calling thread, and what it starts, on one processor: of those that it may
// use the one with this number, counted around.
func pin(number int) error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("which processors there are: %w", err)
	}
	cpu := 0
	for before := number % all.Count(); before > 0 || !all.IsSet(cpu); cpu++ {
		if all.IsSet(cpu) {
			before--
		}
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("processor %d: %w", cpu, err)
	}
	return nil
}

// cpuOf returns the time that a process has used, with the children that it has seen
// end.
func cpuOf(pid int) (time.Duration, error) {
	own, children, err := lab.CPU(pid)
	return own + children, err
}

// cpuOfAll returns the time that all processes of a name have used. In a process
// namespace of our own they are ours.
func cpuOfAll(name string) (total time.Duration, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, file := range names {
		text, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(text)) != name {
			continue // it has just ended, and its parent has its time
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return 0, err
		}
		used, err := cpuOf(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}
