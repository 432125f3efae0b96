package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestProbes asks a server how it is from the moment that its port is bound:
// it lives, and is not ready until it has recovered.
func TestProbes(t *testing.T) {
	addr, err := freeAddress(t.Context())
	must(t, err)
	cmd, err := command(t.Context(), "serve", "--listen", addr, "--admin", "127.0.0.1:0", "--data", t.TempDir(), "--drain-notice", "0s")
	must(t, err)
	must(t, cmd.Start())
	waited := false
	for {
		live, _, err := request(t.Context(), []string{"GET", "http://" + addr + "/livez"})
		if err != nil && !waited {
			continue // not bound yet
		}
		ready, body, err2 := request(t.Context(), []string{"GET", "http://" + addr + "/readyz"})
		if err := errors.Join(err, err2); err != nil || live != http.StatusOK {
			t.Fatalf("/livez: %d, %v", live, err)
		}
		if ready == http.StatusOK {
			break
		}
		waited = true
		if ready != http.StatusServiceUnavailable || !strings.Contains(body, `"code":"unavailable"`) || !notReady.MatchString(body) {
			t.Fatalf("/readyz: %d %s", ready, body)
		}
	}
	if !waited {
		t.Error("the server answered nothing before it was ready")
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	must(t, cmd.Wait())
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
