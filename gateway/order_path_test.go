//go:build !race && !owncheck

package gateway

import (
	"strconv"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/own"
	"github.com/doorbuster/doorbuster/runtime/trace"
)

// The race detector and the ownership checks allocate on their own account, so
// these tests are built without them.

// What an order costs in the gateway is nothing: placing it over HTTP
// allocates as much as placing it with the node does.
func TestOrderPathDoesNotAllocate(t *testing.T) {
	t.Run("no tracer", func(t *testing.T) { orderPathDoesNotAllocate(t, newHouse(t, nil)) })
	t.Run("a tracer that watches others", func(t *testing.T) {
		h, _ := tracedHouse(t, trace.Config{Sample: 1e-9, Trust: true})
		orderPathDoesNotAllocate(t, h)
	})
}

func orderPathDoesNotAllocate(t *testing.T, h *house) {
	t.Helper()
	h.deal("d", `,"stock":1000000`)
	h.deal("none", `,"stock":1`)
	h.order("none", "u", 1).want(201)
	raw := newRawOrder()
	run := func(status int, body string) func() {
		b := []byte(body)
		return func() {
			ctx := raw.next(b)
			h.server.guard(ctx, h.server.placeOrder)
			if ctx.Response.StatusCode() != status {
				t.Fatalf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
			}
		}
	}
	for name, refused := range map[string]func(){
		"sold out":      run(409, orderBody("none", "u-1", 1, "")),
		"not an order":  run(400, `{"deal_id":"d","user_id":"u-1","quantity":1,"x":1}`),
		"of no quality": run(422, orderBody("d", "u-1", 0, "")),
	} {
		if n := testing.AllocsPerRun(1000, refused); n != 0 {
			t.Errorf("an order that is refused (%s) costs %v allocations", name, n)
		}
	}
	accepted := run(201, orderBody("d", "u-1", 1, `,"codes":["VIP"],"attributes":{"channel":"app"}`))
	n, user, key := 0, []byte("u-1"), make([]byte, 0, 20) // of this test's own
	direct := func() {
		r, err := h.node.Acquire(own.ClassNew)
		if err != nil {
			t.Fatal(err)
		}
		n++
		r.Deal, r.Cmd.Kind, r.Cmd.User, r.Cmd.Quantity = append(r.Body, 'd'), deal.Place, user, 1
		r.Cmd.Key = strconv.AppendInt(key, int64(n), 10)
		if err := h.node.Call(r); err != nil || r.Reply.Code != deal.OK {
			t.Fatal(err, r.Reply.Code)
		}
		h.node.Release(r)
	}
	accepted()
	node, http := testing.AllocsPerRun(2000, direct), testing.AllocsPerRun(2000, accepted)
	if http > node {
		t.Errorf("an order costs %v allocations over HTTP, %v without", http, node)
	}
}
