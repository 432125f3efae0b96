package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTurnsFlags(t *testing.T) {
	turns := NewTurns(5, 10)
	cmd := Command("measure", "Measure", func(context.Context, io.Writer) error { return turns.Validate() })
	turns.AddFlags(cmd)
	cmd.SilenceErrors = true
	for args, good := range map[string]bool{
		"": true, "--rounds 1 --seconds 3600 --warmup 1": true,
		"--rounds 0": false, "--seconds 0": false, "--seconds 3601": false, "--warmup 0": false, "--warmup 3601": false,
	} {
		turns = NewTurns(5, 10)
		cmd.SetArgs(strings.Fields(args))
		if err := cmd.ExecuteContext(t.Context()); (err == nil) != good {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestLate: answers that wrk's quantiles leave out are not passed over.
func TestLate(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	const script = "#!/bin/sh\nlate=0; [ \"$3\" = -d7s ] && late=2\necho result 50 1000000 0 $late 100 200 300\n"
	if err := os.WriteFile(filepath.Join(dir, "wrk"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	turns := NewTurns(1, 7)
	var err error
	if turns.Wrk, err = NewWrk(dir, turns.Threads, turns.Connections, "/"); err != nil {
		t.Fatal(err)
	}
	if err := turns.WarmUp(t.Context(), "127.0.0.1:9", 1); err != nil {
		t.Error(err)
	}
	if _, err := turns.Load(t.Context(), "127.0.0.1:9", 1); err == nil || !strings.Contains(err.Error(), "2 answers took longer than 15s") {
		t.Error(err)
	}
}

// TestAnswer: a stand-in is a server to StartCommand, and ends without an error only
// when it is told to.
func TestAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	accept := func(l net.Listener) error {
		if got := listenText.FindStringSubmatch(out.String()); got == nil || got[1] != l.Addr().String() {
			t.Errorf("said %q on %v", out.String(), l.Addr())
		}
		cancel()
		_, err := l.Accept()
		return err
	}
	if err := Answer(ctx, &out, "as a test", accept); err != nil {
		t.Error(err)
	}
	failed := errors.New("failed")
	if err := Answer(t.Context(), &out, "as a test", func(net.Listener) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
}
