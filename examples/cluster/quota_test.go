package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCPU: what this process uses is seen, alone and among all of its name.
func TestCPU(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	must(t, err)
	after := before
	for begin := time.Now(); after <= before && time.Since(begin) < 20*time.Second; {
		after, err = cpuOf(os.Getpid())
		must(t, err)
	}
	if after <= before {
		t.Errorf("%v, and %v after some work", before, after)
	}
	name, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	all, err := cpuOfAll(string(name[:len(name)-1]))
	must(t, err)
	if all < after {
		t.Errorf("%v, of all %v", after, all)
	}
	if none, err := cpuOfAll("no such name"); err != nil || none != 0 {
		t.Errorf("%v %v", none, err)
	}
}

// TestQuota: a group gets its share of each period, in the files of the kernel.
func TestQuota(t *testing.T) {
	q := &quota{t.TempDir()}
	must(t, q.set("cpu.cfs_quota_us", 2000))
	must(t, q.add(42))
	for file, want := range map[string]string{"cpu.cfs_quota_us": "2000", "cgroup.procs": "42"} {
		if got, err := os.ReadFile(filepath.Join(q.dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", file, got, err)
		}
	}
}

// TestPin: what a pinned thread starts has one processor, each of them in turn.
func TestPin(t *testing.T) {
	var all unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &all))
	seen := make(map[string]int)
	for number := range 2 * all.Count() {
		pinned := make(chan error)
		var status []byte
		go func() {
			runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
			err := pin(number)
			if err == nil {
				status, err = exec.CommandContext(t.Context(), "cat", "/proc/self/status").Output()
			}
			pinned <- err
		}()
		must(t, <-pinned)
		_, cpus, _ := strings.Cut(string(status), "Cpus_allowed_list:")
		cpus, _, _ = strings.Cut(strings.TrimSpace(cpus), "\n")
		seen[cpus]++
	}
	for cpu, times := range seen {
		if _, err := strconv.Atoi(cpu); err != nil || times != 2 || len(seen) != all.Count() {
			t.Fatalf("of %d processors, two processes each got %v", all.Count(), seen)
		}
	}
}
