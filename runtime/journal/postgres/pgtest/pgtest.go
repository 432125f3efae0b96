// Package pgtest runs private PostgreSQL servers for tests, from the binaries of the
// system's package: never a server that is already running. The server refuses root,
// so root runs it as the postgres user.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/runtime/porttest"
	"github.com/doorbuster/doorbuster/runtime/proctest"
)

// Server is a PostgreSQL server on loopback, in a folder of its own.
type Server struct {
	Dir  string // its data
	Port int
	bin  string // folder of the programs
	as   *syscall.Credential
}

// Start makes and starts a server that ends with the test. Each setting is a line of
// postgresql.conf.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := New(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// New is Start for a server that outlives a test: the caller must Close it.
func New(settings ...string) (*Server, error) {
	s, err := newServer()
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	err = s.run("initdb", "--pgdata", s.Dir, "--auth", "trust", "--username", "postgres", "--encoding", "UTF8", "--locale", "C", "--data-checksums", "--no-sync")
	if err == nil {
		err = s.configure(settings...)
	}
	if err == nil {
		err = s.up()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	return s, nil
}

// Close ends the server and removes its data.
func (s *Server) Close() {
	_ = s.kill() // it may have been killed before
	_ = os.RemoveAll(filepath.Dir(s.Dir))
}

// Standby starts a server that follows s, as pg_basebackup makes it, under the given
// application name, and that ends with the test.
func (s *Server) Standby(t testing.TB, name string) *Server {
	t.Helper()
	standby, err := s.NewStandby(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	return standby
}

// NewStandby is Standby for a server that outlives a test: the caller must Close it.
func (s *Server) NewStandby(name string, settings ...string) (*Server, error) {
	standby, err := newServer()
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	err = standby.run("pg_basebackup", "--pgdata", standby.Dir, "--write-recovery-conf", "--checkpoint", "fast", "--no-sync",
		"--dbname", fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=%s", s.Port, name))
	if err == nil {
		err = standby.configure(settings...)
	}
	if err == nil {
		err = standby.up()
	}
	if err != nil {
		standby.Close()
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	return standby, nil
}

func newServer() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest-") // not t.TempDir: another user must reach it
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, Dir: filepath.Join(dir, "data")}
	if os.Geteuid() == 0 {
		if s.as, err = credential("postgres"); err != nil {
			return nil, err
		}
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, int(s.as.Uid), int(s.as.Gid))); err != nil { //nolint:gosec // the server's user must enter
			return nil, err
		}
	}
	s.Port, err = freePort()
	return s, err
}

// programs finds the newest installed server.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		path, err := exec.LookPath("initdb")
		if err != nil {
			return "", errors.New("PostgreSQL is missing (Debian: apt-get install postgresql)")
		}
		return filepath.Dir(path), nil
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func freePort() (int, error) {
	address, err := porttest.Address()
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

func (s *Server) configure(settings ...string) error {
	settings = append([]string{
		"listen_addresses = '127.0.0.1'", fmt.Sprintf("port = %d", s.Port), "unix_socket_directories = ''",
		"max_connections = 200", "shared_buffers = '32MB'", "dynamic_shared_memory_type = mmap",
	}, settings...)
	f, err := os.OpenFile(filepath.Join(s.Dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + strings.Join(settings, "\n") + "\n")
	return errors.Join(err, f.Close())
}

// Control runs pg_ctl on the server: what to do, and how.
func (s *Server) Control(action string, how ...string) error {
	args := append([]string{action, "--pgdata", s.Dir, "--silent"}, how...)
	if action == "start" {
		args = append(args, "--wait", "--log", filepath.Join(s.Dir, "log"))
	}
	return s.run("pg_ctl", args...)
}

func (s *Server) up() error   { return s.Control("start") }
func (s *Server) kill() error { return s.Control("stop", "--mode", "immediate") }

// Up starts a server that was killed and waits until it answers.
func (s *Server) Up(t testing.TB) {
	t.Helper()
	must(t, s.up())
}

// Kill ends the server as a crash of its machine would, but for the file cache.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	must(t, s.kill())
}

// Freeze stops the server's processes where they are, until the test ends.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(s.Dir, "postmaster.pid"))
	must(t, err)
	first, _, _ := strings.Cut(string(file), "\n")
	parent, err := strconv.Atoi(first)
	must(t, err)
	t.Cleanup(func() { _ = syscall.Kill(parent, syscall.SIGCONT) })
	proctest.Stop(t, parent) // first: it makes no more of them
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	must(t, err)
	for _, child := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(child)
		must(t, err)
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		proctest.Stop(t, pid)
	}
}

// Promote makes a standby the primary.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	must(t, s.Control("promote", "--wait"))
}

// Exec runs SQL on a database of the server and returns what it prints.
func (s *Server) Exec(t testing.TB, database, sql string) string {
	t.Helper()
	out, err := s.command("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--quiet",
		"--host", "127.0.0.1", "--port", strconv.Itoa(s.Port), "--username", "postgres", "--dbname", database, "--command", sql).CombinedOutput()
	if err != nil {
		t.Fatalf("pgtest: %s: %v\n%s", sql, err, out)
	}
	return strings.TrimSpace(string(out))
}

// URL returns how to connect to a database of the server and, after a fail-over, of
// the others.
func (s *Server) URL(database string, others ...*Server) string {
	hosts := make([]string, 0, 1+len(others))
	for _, server := range append([]*Server{s}, others...) {
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", server.Port))
	}
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: strings.Join(hosts, ","), Path: "/" + database,
		RawQuery: "sslmode=disable&connect_timeout=5",
	}
	return u.String()
}

const commandTimeout = time.Minute

func (s *Server) command(program string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Cancel = func() error { cancel(); return cmd.Process.Kill() }
	cmd.Dir = filepath.Dir(s.Dir)
	if s.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	}
	return cmd
}

// run ignores what the program prints into a file: the server inherits it, and a
// pipe would stay open as long as that lives.
func (s *Server) run(program string, args ...string) error {
	out, err := os.CreateTemp("", "pgtest-out-")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(out.Close(), os.Remove(out.Name())) }()
	cmd := s.command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w\n%s", program, err, said)
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}
