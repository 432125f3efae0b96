package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

const clockWord = "tell the time"

// TestMain is also the process whose clock TestStepClock moves: it answers each line
// with the time in seconds, by the wall and since it began.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != clockWord {
		os.Exit(m.Run())
	}
	begin := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(time.Now().Unix(), int64(time.Since(begin).Seconds()))
	}
}

func TestStepClock(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, clockWord)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	answers := bufio.NewReader(out)
	for _, by := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		must(t, stepClock(t.Context(), cmd.Process.Pid, by))
		_, err := fmt.Fprintln(in)
		must(t, err)
		var wall, since int64
		_, err = fmt.Fscan(answers, &wall, &since)
		must(t, err)
		if off := wall - time.Now().Add(by).Unix(); off < -2 || off > 2 || since > 60 {
			t.Errorf("moved by %v: the process is off by %d s, and %d s old", by, off, since)
		}
	}
	must(t, in.Close())
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
