package proctest

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

const childVar = "PROCTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		count()
	}
	os.Exit(m.Run())
}

// count says all the time on two threads that it is alive.
func count() {
	for range 2 {
		go func() {
			runtime.LockOSThread()
			for {
				if _, err := os.Stdout.WriteString(".\n"); err != nil {
					os.Exit(1)
				}
			}
		}()
	}
	select {}
}

// TestStop: a process that has been stopped says nothing any more, on any of its threads.
func TestStop(t *testing.T) {
	t.Parallel()
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env, cmd.Stdout = append(os.Environ(), childVar+"=1"), out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	said := func() int64 {
		info, err := out.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for range 20 {
		for before := said(); said() == before; {
			runtime.Gosched()
		}
		Stop(t, cmd.Process.Pid)
		before := said()
		for range 1000 {
			runtime.Gosched()
			if now := said(); now != before {
				t.Fatalf("it has said %d bytes since", now-before)
			}
		}
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}
