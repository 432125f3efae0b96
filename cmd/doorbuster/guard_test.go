package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/guard"
	"github.com/doorbuster/doorbuster/runtime/guard/redistest"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// TestStockGuard: a journal went back in time, and Redis remembers. Orders are refused
// until an operator has said that the journal is right.
func TestStockGuard(t *testing.T) {
	redis := redistest.Start(t)
	data := t.TempDir()
	shop := openGuarded(t, data)
	shop.ask("POST", "/api/v1/deals", `{"deal_id":"d","merchant_id":"m","title":"Lychee","category":"fruit","currency":"CNY","unit_price":100,"stock":1000}`)
	shop.end(t)

	// What later owners of the deal have claimed.
	remembered := guard.State{Deal: "d", Epoch: 100, Seq: 100, Available: 900}
	_, err := guard.Reconcile(t.Context(), redis.URL(), func(yield func(guard.State, error) bool) { yield(remembered, nil) })
	must(t, err)

	shop = openGuarded(t, data, "--stock-guard", redis.URL())
	// On a busy machine Redis may not answer in time: then an order is taken.
	for shop.place() != http.StatusServiceUnavailable {
	}
	if text := shop.ask("GET", "/metrics", ""); strings.Contains(text, "doorbuster_stock_guard_refused_total 0\n") {
		t.Error("the order was refused, and not by the guard")
	}
	shop.end(t)

	reconcile, err := command(t.Context(), "guard", "reconcile", "--data", data, "--stock-guard", redis.URL())
	must(t, err)
	out, err := reconcile.CombinedOutput()
	must(t, err)
	if string(out) != "1 deal, 0 new to Redis and 1 changed; 0 forgotten\n" {
		t.Errorf("reconcile says %s", out)
	}

	shop = openGuarded(t, data, "--stock-guard", redis.URL(), "--stock-guard-strict")
	for shop.place() != http.StatusCreated { // a strict guard refuses while Redis is late
	}
	text := shop.ask("GET", "/metrics", "")
	if strings.Contains(text, "doorbuster_stock_guard_asked_total 0\n") || !strings.Contains(text, "doorbuster_stock_guard_refused_total 0\n") {
		t.Errorf("the guard did not judge the order:\n%s", text)
	}
	shop.end(t)
}

// guarded is a server that a test asks.
type guarded struct {
	ctx        context.Context
	t          *testing.T
	cmd        *exec.Cmd
	api, admin string
	orders     int
}

func openGuarded(t *testing.T, data string, flags ...string) *guarded {
	t.Helper()
	api, err := porttest.Address()
	must(t, err)
	admin, err := porttest.Address()
	must(t, err)
	cmd, err := command(t.Context(), slices.Concat([]string{
		"serve", "--listen", api, "--admin", admin, "--data", data, "--drain-notice", "0s",
	}, flags)...)
	must(t, err)
	must(t, cmd.Start())
	must(t, waitReady(t.Context(), api))
	return &guarded{ctx: t.Context(), t: t, cmd: cmd, api: api, admin: admin}
}

func (g *guarded) end(t *testing.T) {
	t.Helper()
	must(t, g.cmd.Process.Signal(syscall.SIGTERM))
	must(t, g.cmd.Wait())
}

func (g *guarded) ask(method, path, body string) string {
	g.t.Helper()
	at := g.api
	if path == "/metrics" {
		at = g.admin
	}
	status, text, err := request(g.ctx, []string{method, "http://" + at + path, body})
	must(g.t, err)
	if status/100 != 2 {
		g.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return text
}

// place returns the status of an order.
func (g *guarded) place() int {
	g.t.Helper()
	g.orders++
	order := fmt.Sprintf(`{"deal_id":"d","user_id":"u%d","quantity":1}`, g.orders)
	status, text, err := request(g.ctx, []string{"POST", "http://" + g.api + "/api/v1/orders", order, fmt.Sprintf("Idempotency-Key: %d-%d", g.cmd.Process.Pid, g.orders)})
	must(g.t, err)
	if status != http.StatusCreated && status != http.StatusServiceUnavailable {
		g.t.Fatalf("an order: %d %s", status, text)
	}
	return status
}
