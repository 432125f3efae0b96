// Package redistest runs private Redis servers for tests and benchmarks, from the binary
// of the system's package: never a server that is already running. They listen on a
// socket in a folder of ours, and on no network.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/proctest"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 30 * time.Second

// Socket is where the server of a folder listens.
func Socket(dir string) string { return filepath.Join(dir, "redis.sock") }

// Command is a server that keeps its files in the folder. It does not outlive us.
func Command(ctx context.Context, dir string, settings ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "redis-server", append([]string{
		"--port", "0", "--unixsocket", Socket(dir), "--dir", dir, "--save", "", "--loglevel", "warning",
	}, settings...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}

// Server is one that ends with its test.
type Server struct {
	dir string
	cmd *exec.Cmd
}

// Start starts a server that keeps nothing on disk.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{dir: t.TempDir()}
	t.Cleanup(func() { s.Kill(t) })
	s.Restart(t)
	return s
}

// URL is the server's address.
func (s *Server) URL() string { return "unix://" + Socket(s.dir) }

// Restart starts the server again, empty, and waits until it takes connections.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill(t)
	s.cmd = Command(context.Background(), s.dir)
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("redis-server (Debian: apt-get install redis-server): %v", err)
	}
	for deadline := clockd.Mono() + int64(startTimeout); ; {
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", Socket(s.dir))
		if err == nil {
			_ = conn.Close()
			return
		}
		if clockd.Mono() > deadline {
			t.Fatalf("redis-server does not answer: %v", err)
		}
		if err := clockd.SleepUntil(t.Context(), clockd.Mono()+int64(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
}

// Kill ends the server as a power cut does.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	s.signal(t, syscall.SIGKILL)
	_ = s.cmd.Wait() // it was killed
	_ = os.Remove(Socket(s.dir))
	s.cmd = nil
}

// Freeze stops the server where it is; connections stay open, and nothing answers.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	proctest.Stop(t, s.cmd.Process.Pid)
}

// Thaw lets it go on.
func (s *Server) Thaw(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGCONT)
}

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Error(fmt.Errorf("redis-server: %w", err))
	}
}
