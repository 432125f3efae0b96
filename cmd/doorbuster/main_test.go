package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == compileRule { // the server's own child
		main()
	}
	testscript.Main(m, map[string]func(){"doorbuster": main, "doorbuster-profiled": profiled})
}

// profiled is the server with the profiles of locks and of blocking on.
func profiled() {
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	main()
}

// TestScripts runs the whole binary as its users do. The scripts may use the
// addresses $LISTEN and $ADMIN, and four commands beside testscript's own:
//
//	terminate             sends SIGTERM to what runs in the background
//	setenv NAME file      sets a variable to what a file holds
//	serving               waits until the server on $LISTEN is ready
//	http METHOD url [body [header...]]
//	                      prints the status and the body of an answer
func TestScripts(t *testing.T) { runScripts(t, "script", nil) }

// TestPostgres runs scripts with empty databases at $POSTGRES, and at $SHARD0 and $SHARD1
// for a journal on two servers.
func TestPostgres(t *testing.T) {
	server := pgtest.Start(t)
	for _, name := range []string{"shard0", "shard1"} {
		server.Exec(t, "postgres", "CREATE DATABASE "+name)
	}
	runScripts(t, "postgres", func(env *testscript.Env) {
		env.Setenv("POSTGRES", server.URL("postgres"))
		env.Setenv("SHARD0", server.URL("shard0"))
		env.Setenv("SHARD1", server.URL("shard1"))
	})
}

func runScripts(t *testing.T, folder string, setup func(*testscript.Env)) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", folder),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			if setup != nil {
				setup(env)
			}
			env.Setenv("DOORBUSTER_DRAIN_NOTICE", "0s")
			for _, name := range []string{"LISTEN", "ADMIN"} {
				addr, err := porttest.Address()
				if err != nil {
					return err
				}
				env.Setenv(name, addr)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"terminate": func(ts *testscript.TestScript, _ bool, _ []string) {
				for _, cmd := range ts.BackgroundCmds() {
					ts.Check(cmd.Process.Signal(syscall.SIGTERM))
				}
			},
			"setenv": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
			},
			"serving": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(waitReady(t.Context(), ts.Getenv("LISTEN")))
			},
			"http": func(ts *testscript.TestScript, neg bool, args []string) {
				status, body, err := request(t.Context(), args)
				ts.Check(err)
				if neg == (status/100 == 2) {
					ts.Fatalf("%d: %s", status, body)
				}
				_, err = fmt.Fprintf(ts.Stdout(), "%d %s\n", status, body)
				ts.Check(err)
			},
		},
	})
}

func waitReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		status, body, err := request(ctx, []string{"GET", "http://" + addr + "/readyz"})
		if err == nil && status == http.StatusOK {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not ready: %d %s %w", status, body, errors.Join(err, ctx.Err()))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// request sends METHOD url [body [header...]].
func request(ctx context.Context, args []string) (status int, body string, err error) {
	if len(args) < 2 {
		return 0, "", errors.New("usage: http METHOD url [body [header...]]")
	}
	var content io.Reader = http.NoBody
	if len(args) > 2 {
		content = strings.NewReader(args[2])
	}
	req, err := http.NewRequestWithContext(ctx, args[0], args[1], content)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	for _, header := range args[min(3, len(args)):] {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), errors.Join(err, resp.Body.Close())
}

// command is this test's binary as doorbuster.
func command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = append([]string{"doorbuster"}, args...)
	return cmd, nil
}
