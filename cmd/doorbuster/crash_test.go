package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	// crashRounds is how often the server is killed, unless CRASH_ROUNDS says
	// otherwise.
	crashRounds = 30
	// folderRounds is how many rounds one data folder sees: enough for its journal
	// to grow, flush and be recovered as it grew, few enough for a start to stay fast.
	folderRounds = 50
	// loadMost is how long a server sells at most before it is killed.
	loadMost = 60 * time.Millisecond
	// startKillEvery is how many starts there are to one that is killed as well.
	startKillEvery = 8
)

// TestCrash kills the server under load, again and again, and after each start asks
// for every order that was acknowledged since the one before. Kill -9 leaves the page
// cache alone: that the journal syncs is proved by TestPowerCut and by the crash clones
// of runtime/journal/embedded, not here.
func TestCrash(t *testing.T) {
	rounds := crashRounds
	if text := os.Getenv("CRASH_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	begin, orders := time.Now(), 0
	for done := 0; done < rounds; {
		n := min(folderRounds, rounds-done)
		orders += crashFolder(t, n)
		done += n
		t.Logf("%d rounds, %.2f a second, %d orders acknowledged, 0 lost", done, float64(done)/time.Since(begin).Seconds(), orders)
	}
}

// crashFolder runs some rounds on a new data folder and returns how many orders
// were acknowledged. It deletes the folder unless something was lost.
func crashFolder(t *testing.T, rounds int) int {
	t.Helper()
	data, err := os.MkdirTemp("", "doorbuster-crash-") //nolint:usetesting // kept when something was lost
	must(t, err)
	var s shop
	server := start(t, data)
	must(t, s.create(t.Context(), server.addr))
	for round := range rounds {
		if err := s.crowd(t.Context(), server.addr, rand.N(loadMost), server.kill); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if rand.N(startKillEvery) == 0 {
			killWhileStarting(t, data)
		}
		server = start(t, data)
		if err := s.check(t.Context(), server.addr); err != nil {
			t.Fatalf("round %d in %s: %v", round, data, err)
		}
	}
	if err := s.checkAll(t.Context(), server.addr); err != nil {
		t.Fatalf("in %s: %v", data, err)
	}
	must(t, server.kill())
	must(t, os.RemoveAll(data))
	return len(s.orders)
}

// killWhileStarting ends a server before it serves, or soon after.
func killWhileStarting(t *testing.T, data string) {
	t.Helper()
	cmd, err := command(t.Context(), serveArgs(data)...)
	must(t, err)
	must(t, cmd.Start())
	time.Sleep(rand.N(150 * time.Millisecond))
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // says that it was killed
}

// TestDrain ends the server in good order under the same load: it says so, exits with 0,
// refuses with 503 and nothing else, and has all that it acknowledged.
func TestDrain(t *testing.T) {
	data := t.TempDir()
	var s shop
	// As long as it may be: who is told to wait for a processor must still see it.
	server := startWith(t, "doorbuster", append(serveArgs(data), "--drain-notice", "10s"))
	must(t, s.create(t.Context(), server.addr))
	must(t, s.crowd(t.Context(), server.addr, rand.N(2*loadMost), func() error {
		return errors.Join(server.signal(), sayDraining(t.Context(), server.addr), server.cmd.Wait())
	}))
	server = start(t, data)
	must(t, s.check(t.Context(), server.addr))
	must(t, s.checkAll(t.Context(), server.addr))
	must(t, server.kill())
}

// TestSecondSignal ends a server at once that still waits for a request.
func TestSecondSignal(t *testing.T) {
	server := start(t, t.TempDir())
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.addr)
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprint(conn, "POST /api/v1/deals HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	must(t, err)
	must(t, server.signal())
	for { // the first signal is handled once the server takes no new connections
		probe, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.addr)
		if err != nil {
			break
		}
		probe.Close()
		time.Sleep(time.Millisecond)
	}
	must(t, server.signal())
	var ended *exec.ExitError
	if err := server.cmd.Wait(); !errors.As(err, &ended) || ended.Exited() {
		t.Errorf("the server was not ended by the signal: %v", err)
	}
}

// live is a running server.
type live struct {
	cmd         *exec.Cmd
	addr, admin string
}

var listening = regexp.MustCompile(`^listening on ([^,]+), admin on ([^,]+),`)

func serveArgs(data string) []string {
	return []string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "warn", "--data", data}
}

func start(t *testing.T, data string) *live {
	t.Helper()
	return startAs(t, "doorbuster", data)
}

// startAs starts one of the programs that TestMain names.
func startAs(t *testing.T, program, data string) *live {
	t.Helper()
	return startWith(t, program, serveArgs(data))
}

func startWith(t *testing.T, program string, args []string) *live {
	t.Helper()
	return startTo(t, os.Stderr, program, args)
}

// startTo is startWith for a program whose log somebody wants to read.
func startTo(t *testing.T, logs io.Writer, program string, args []string) *live {
	t.Helper()
	cmd, err := command(context.Background(), args...)
	must(t, err)
	cmd.Args[0] = program
	cmd.Stderr = logs
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	server := &live{cmd: cmd}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	match := listening.FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("the server began with %q: %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	server.addr, server.admin = match[1], match[2]
	return server
}

func (l *live) kill() error {
	err := l.cmd.Process.Kill()
	_ = l.cmd.Wait() // says that it was killed
	return err
}

func (l *live) signal() error { return l.cmd.Process.Signal(syscall.SIGTERM) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
