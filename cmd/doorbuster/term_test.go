package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd/etcdtest"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// TestSignalBeforeReady: a server that is told to end while it starts has not failed.
func TestSignalBeforeReady(t *testing.T) {
	ctx, signal := context.WithCancel(t.Context())
	signal()
	var said bytes.Buffer
	root := newServeWithin(time.Hour)
	root.SetArgs([]string{"--data", t.TempDir(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"})
	root.SetOut(&said)
	root.SetErr(&said)
	if err := root.ExecuteContext(ctx); err != nil {
		t.Error(err)
	}
	if text := said.String(); !strings.Contains(text, "before it was ready") || strings.Contains(text, "level=ERROR") {
		t.Errorf("%q", text)
	}
}

// TestSignalInADeafStart: a start that waits for what looks at no signal, here a pipe that
// nobody writes to, ends with the first one, and the journal is free for the next.
func TestSignalInADeafStart(t *testing.T) {
	data, pipe := t.TempDir(), filepath.Join(t.TempDir(), "jwks")
	must(t, syscall.Mkfifo(pipe, 0o600))
	cmd, err := command(t.Context(), "serve", "--data", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--auth", "keys", "--jwks", pipe)
	must(t, err)
	var said bytes.Buffer
	cmd.Stderr = &said
	must(t, cmd.Start())
	var writer *os.File
	for { // until the server is the reader
		writer, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if !errors.Is(err, syscall.ENXIO) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	must(t, err)
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	err = cmd.Wait()
	if must(t, writer.Close()); err != nil || !strings.Contains(said.String(), "stopped by a signal before it was ready") || !strings.Contains(said.String(), "left undone") {
		t.Errorf("%v: %s", err, said.String())
	}
	must(t, verifyFolder(t, data))
}

// TestSignalInADeafVerify: a command that reads all of a journal, and is at what looks at no
// signal, ends with the first one.
func TestSignalInADeafVerify(t *testing.T) {
	cfg := config.Default()
	cfg.Data = t.TempDir()
	store, err := openOffline(t.Context(), cfg)
	must(t, err)
	must(t, store.Close())
	ctx, signal := context.WithCancel(t.Context())
	on, off := make(chan struct{}), make(chan struct{})
	cmd := offline("verify", "", func(context.Context, journal.Store, io.Writer) error {
		defer close(off)
		signal()
		<-on
		return nil
	})
	cmd.SetArgs([]string{"--data", cfg.Data})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "left undone") {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it did not hear the signal")
	}
	close(on)
	<-off
	for begin := time.Now(); ; time.Sleep(time.Millisecond) { // until the folder is free
		store, err := openOffline(t.Context(), cfg)
		if err == nil {
			must(t, store.Close())
			return
		}
		if time.Since(begin) > patience {
			t.Fatal(err)
		}
	}
}

// verifyFolder runs journal verify.
func verifyFolder(t *testing.T, data string) error {
	t.Helper()
	cmd, err := command(t.Context(), "journal", "verify", "--data", data)
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// TestEndsWithoutItsServers: a node that is told to end while PostgreSQL or etcd is away
// does so soon after its drain's time, and says what became of what was in flight.
func TestEndsWithoutItsServers(t *testing.T) {
	const drain, more = time.Second, 20 * time.Second // on a busy machine; alone it takes 8 s at most
	for _, test := range []struct {
		name  string
		away  func(*testing.T, *pgtest.Server, *etcdtest.Server)
		code  int
		words string // on stderr
	}{
		{"PostgreSQL refuses", func(t *testing.T, p *pgtest.Server, _ *etcdtest.Server) { p.Kill(t) }, 1, "ended before all that was in flight was answered"},
		{"PostgreSQL is silent", func(t *testing.T, p *pgtest.Server, _ *etcdtest.Server) { p.Freeze(t) }, 1, "ended before all that was in flight was answered"},
		{"etcd is silent", func(t *testing.T, _ *pgtest.Server, e *etcdtest.Server) {
			e.Freeze(t)
			t.Cleanup(func() { e.Thaw(t) })
		}, 0, "the other nodes cannot be told"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			database, registry := pgtest.Start(t), etcdtest.Start(t)
			var nodes [2]*live
			var said [2]bytes.Buffer
			for i := range nodes {
				advertise, err := porttest.Address()
				must(t, err)
				nodes[i] = startTo(t, &said[i], "doorbuster", append(serveArgs(t.TempDir()), "--postgres", database.URL("postgres"), "--migrate",
					"--cluster", "--advertise", advertise, "--etcd", registry.Endpoint, "--drain-notice", "0s", "--drain-timeout", drain.String()))
			}
			for i := range clusterDeals {
				createClusterDeal(t, nodes[0].addr, dealOf(i))
			}
			waitMembers(t, nodes[0], 2)
			test.away(t, database, registry)
			var inFlight sync.WaitGroup
			for i := range clusterDeals { // some are the node's own
				inFlight.Go(func() {
					order := fmt.Sprintf(`{"deal_id":%q,"user_id":"u","quantity":1}`, dealOf(i))
					_, _, _ = request(t.Context(), []string{"POST", "http://" + nodes[0].addr + "/api/v1/orders", order, "Idempotency-Key: k"})
				})
			}
			if test.code != 0 { // otherwise they are answered
				waitInFlight(t, nodes[0])
			}
			begin := time.Now()
			must(t, nodes[0].signal())
			_ = nodes[0].cmd.Wait()
			took := time.Since(begin)
			if code := nodes[0].cmd.ProcessState.ExitCode(); code != test.code || took > drain+more {
				t.Errorf("it ended after %v with code %d", took, code)
			}
			if !strings.Contains(said[0].String(), test.words) {
				t.Errorf("it says\n%s", &said[0])
			}
			t.Logf("it ended after %v", took.Round(10*time.Millisecond))
			must(t, nodes[1].kill())
			inFlight.Wait()
		})
	}
}

var seatsTaken = regexp.MustCompile(`(?m)^doorbuster_pool_in_use\{pool="requests"\} [1-9]`)

// waitInFlight waits until a node works on a request.
func waitInFlight(t *testing.T, node *live) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		_, metrics, err := request(t.Context(), []string{"GET", "http://" + node.admin + "/metrics"})
		must(t, err)
		if seatsTaken.MatchString(metrics) {
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("nothing is in flight")
		}
	}
}
