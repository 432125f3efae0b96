// Package etcdtest runs private etcd servers for tests, from the binary of the
// system's package: never a server that is already running.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/porttest"
	"github.com/doorbuster/doorbuster/runtime/proctest"
)

// Server is an etcd of one, on loopback, in a folder of its own. Its shortest lease is
// one second.
type Server struct {
	Endpoint string // URL for clients
	peers    string
	dir      string
	flags    []string
	health   string
	process  *exec.Cmd
	exited   chan struct{}
}

const readyTimeout = 2 * time.Minute

// Start makes and starts a server that ends with the test. flags are etcd's own; with
// --cert-file its clients need TLS.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	s, err := New(flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// New is Start for a server that outlives a test: the caller must Close it.
func New(flags ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "etcdtest-")
	if err != nil {
		return nil, fmt.Errorf("etcdtest: %w", err)
	}
	s := &Server{dir: dir, flags: flags}
	for _, url := range []*string{&s.Endpoint, &s.peers} {
		if *url, err = freeURL(); err != nil {
			return nil, fmt.Errorf("etcdtest: %w", err)
		}
	}
	if slices.Contains(flags, "--cert-file") {
		s.Endpoint = strings.Replace(s.Endpoint, "http:", "https:", 1)
	}
	if err := s.up(); err != nil {
		s.Close()
		return nil, fmt.Errorf("etcdtest: %w", err)
	}
	return s, nil
}

func freeURL() (string, error) {
	address, err := porttest.Address()
	return "http://" + address, err
}

func (s *Server) up() error {
	path, err := exec.LookPath("etcd")
	if err != nil {
		return errors.New("etcd is missing (Debian: apt-get install etcd-server)")
	}
	metrics, err := freeURL() // answers /health without TLS
	if err != nil {
		return err
	}
	s.health = metrics + "/health"
	args := append([]string{
		"--data-dir", filepath.Join(s.dir, "data"), "--name", "test",
		"--listen-client-urls", s.Endpoint, "--advertise-client-urls", s.Endpoint,
		"--listen-peer-urls", s.peers, "--initial-advertise-peer-urls", s.peers, "--initial-cluster", "test=" + s.peers,
		// The shortest lease is one and a half elections.
		"--heartbeat-interval", "50", "--election-timeout", "500",
		"--logger", "zap", "--log-level", "error", "--listen-metrics-urls", metrics,
	}, s.flags...)
	s.process = exec.Command(path, args...)
	said, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = said.Close() }() // the server has its own
	s.process.Stdout, s.process.Stderr = said, said
	if err := s.process.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func() { defer close(s.exited); _ = s.process.Wait() }()
	return s.ready()
}

// ready waits until the server answers.
func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	for {
		if s.healthy(ctx) {
			return nil
		}
		select {
		case <-ctx.Done():
			return s.failed("it does not answer")
		case <-s.exited:
			return s.failed("it ended")
		default:
		}
		_ = clockd.SleepUntil(ctx, clockd.Mono()+int64(10*time.Millisecond)) // its end is seen above
	}
}

func (s *Server) healthy(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.health, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	http.DefaultClient.CloseIdleConnections()
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func (s *Server) failed(how string) error {
	said, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return fmt.Errorf("etcd: %s\n%s", how, said)
}

// Freeze stops the server's clock, as far as it can tell, until Thaw.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	proctest.Stop(t, s.process.Process.Pid)
}

// Thaw ends Freeze.
func (s *Server) Thaw(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		t.Fatalf("etcdtest: %v", err)
	}
}

// Kill ends the server as a crash would, and returns when it is gone.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.kill()
}

func (s *Server) kill() {
	if s.exited == nil {
		return // it never ran
	}
	_ = s.process.Process.Kill() // it may have ended before
	<-s.exited
}

// Up starts a server that was killed and waits until it answers.
func (s *Server) Up(t testing.TB) {
	t.Helper()
	if err := s.up(); err != nil {
		t.Fatalf("etcdtest: %v", err)
	}
}

// Close ends the server and removes its data.
func (s *Server) Close() {
	s.kill()
	_ = os.RemoveAll(s.dir)
}
