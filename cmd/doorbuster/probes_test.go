package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// TestProbes asks servers how they are from the moment that their port is bound: they
// live, have metrics for operators, and are not ready until they have recovered. That takes some milliseconds, in
// which a busy machine may not let us ask; of several servers one is seen.
func TestProbes(t *testing.T) {
	const most = 10
	for range most {
		if probe(t) {
			return
		}
	}
	t.Errorf("none of %d servers answered anything before it was ready", most)
}

// probe starts and ends a server. It says whether it was asked before it was ready.
func probe(t *testing.T) (waited bool) {
	t.Helper()
	addr, err := porttest.Address()
	must(t, err)
	admin, err := porttest.Address()
	must(t, err)
	cmd, err := command(t.Context(), "serve", "--listen", addr, "--admin", admin, "--data", t.TempDir(), "--drain-notice", "0s")
	must(t, err)
	must(t, cmd.Start())
	for {
		live, _, err := request(t.Context(), []string{"GET", "http://" + addr + "/livez"})
		if err != nil && !waited {
			continue // not bound yet
		}
		ready, body, err2 := request(t.Context(), []string{"GET", "http://" + addr + "/readyz"})
		if err := errors.Join(err, err2); err != nil || live != http.StatusOK {
			t.Fatalf("/livez: %d, %v", live, err)
		}
		status, metrics, err := request(t.Context(), []string{"GET", "http://" + admin + "/metrics"})
		if must(t, err); status != http.StatusOK || !strings.Contains(metrics, "\ndoorbuster_starting{") {
			t.Fatalf("/metrics: %d %s", status, metrics)
		}
		if ready == http.StatusOK {
			break
		}
		waited = true
		if ready != http.StatusServiceUnavailable || !strings.Contains(body, `"code":"unavailable"`) || !notReady.MatchString(body) {
			t.Fatalf("/readyz: %d %s", ready, body)
		}
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	must(t, cmd.Wait())
	return waited
}

var notReady = regexp.MustCompile(`"detail":"(the process is starting|recovering: .+)"`)

// sayDraining waits until a server that was told to end says that it drains. It
// must have been ready before, and takes no order after.
func sayDraining(ctx context.Context, addr string) error {
	const draining = `"code":"draining"`
	for {
		status, body, err := request(ctx, []string{"GET", "http://" + addr + "/readyz"})
		if err != nil {
			return fmt.Errorf("the server ended without saying that it drains: %w", err)
		}
		if status == http.StatusServiceUnavailable && strings.Contains(body, draining) {
			break
		}
		if status != http.StatusOK {
			return fmt.Errorf("/readyz: %d %s", status, body)
		}
	}
	order := `{"deal_id":"d","user_id":"late","quantity":1}`
	status, body, err := request(ctx, []string{"POST", "http://" + addr + "/api/v1/orders", order, "Idempotency-Key: late"})
	if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, draining) {
		return fmt.Errorf("an order while draining: %d %s %w", status, body, err)
	}
	return nil
}

// TestReadyWithHouseRules: a server whose journal was full when it started is not ready
// until the house rules, which deals may name, are stored.
func TestReadyWithHouseRules(t *testing.T) {
	cfg := config.Default()
	cfg.Listen, cfg.Admin, cfg.Data = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	must(t, cfg.Validate())
	s := &server{cfg: cfg, asked: make(chan struct{}), broken: make(chan error, 2)}
	defer s.close()
	must(t, errors.Join(s.bind(t.Context()), s.startLog(t.Output()), s.startFront()))
	must(t, s.startJournal(t.Context()))
	must(t, s.startHooks(t.Context()))
	must(t, s.startNode(t.Context()))

	stored, room := s.rules, make(chan struct{})
	defer func() { must(t, stored.Close()) }()
	full := journaltest.NewMemory()
	full.SetReadOnly(true)
	var err error
	s.rules, err = plugins.New(t.Context(), plugins.Config{
		Tables: full.Tables(), Now: func() int64 { return s.clock.Now().Wall },
		Sleep: func(ctx context.Context, _ time.Duration) error {
			select {
			case <-room:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	must(t, err)
	must(t, s.startEdge(t.Context()))
	addr := s.public.Addr().String()
	status, answer, err := request(t.Context(), []string{"GET", "http://" + addr + "/readyz"})
	if must(t, err); status != http.StatusServiceUnavailable || !strings.Contains(answer, "house rule") {
		t.Errorf("%d %s", status, answer)
	}
	full.SetReadOnly(false)
	room <- struct{}{}
	must(t, waitReady(t.Context(), addr))
}

// TestListensOnWhatItSays: all addresses of IPv4 are none of IPv6.
func TestListensOnWhatItSays(t *testing.T) {
	s := &server{cfg: config.Config{Listen: "0.0.0.0:0", Admin: "0.0.0.0:0"}}
	must(t, s.bind(t.Context()))
	defer s.close()
	for _, listener := range []net.Listener{s.public, s.admin} {
		if !strings.HasPrefix(listener.Addr().String(), "0.0.0.0:") {
			t.Error(listener.Addr())
		}
	}
}
