package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// rawOrder is a request as it reaches the handler, with the buffers that
// fasthttp would reuse.
type rawOrder struct {
	ctx  fasthttp.RequestCtx
	body bytes.Reader
	key  []byte
	n    int
}

func newRawOrder() *rawOrder {
	r := &rawOrder{}
	r.ctx.Request.Header.SetMethod("POST")
	r.ctx.Request.Header.SetRequestURI("/api/v1/orders")
	r.ctx.Request.Header.SetContentType("application/json")
	return r
}

// next makes it another order, with a key of its own.
func (r *rawOrder) next(body []byte) *fasthttp.RequestCtx {
	r.n++
	r.key = strconv.AppendInt(append(r.key[:0], "key-"...), int64(r.n), 10)
	r.ctx.Request.Header.SetBytesKV(headerIdempotencyKey, r.key)
	r.body.Reset(body)
	r.ctx.Request.SetBodyStream(&r.body, len(body))
	r.ctx.Response.Reset()
	return &r.ctx
}

// What an order costs in the gateway is nothing: placing it over HTTP
// allocates as much as placing it with the node does.
func TestOrderPathDoesNotAllocate(t *testing.T) {
	h := newHouse(t, nil)
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

func BenchmarkOrder(b *testing.B) {
	h := newHouse(b, nil)
	h.deal("d", `,"stock":1000000000,"rules":["tiered"]`)
	h.deal("none", `,"stock":1`)
	h.order("none", "u", 1).want(201)
	b.Run("sold_out/handler", func(b *testing.B) {
		raw, body := newRawOrder(), []byte(orderBody("none", "u-1", 1, ""))
		b.ReportAllocs()
		for b.Loop() {
			h.server.guard(raw.next(body), h.server.placeOrder)
		}
	})
	b.Run("reserved/connection", func(b *testing.B) {
		conn, err := net.Dial("tcp4", h.addr)
		must(b, err)
		defer conn.Close()
		body := orderBody("d", "u-1", 1, "")
		r := bufio.NewReader(conn)
		var out []byte
		n := 0
		b.ReportAllocs()
		for b.Loop() {
			n++
			out = fmt.Appendf(out[:0], "POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k%d\r\nContent-Length: %d\r\n\r\n%s", n, len(body), body)
			if _, err := conn.Write(out); err != nil {
				b.Fatal(err)
			}
			readResponse(b, r)
		}
	})
}

// readResponse reads one response with Content-Length, without allocating.
func readResponse(t testing.TB, r *bufio.Reader) {
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			t.Fatal(err)
		}
		if rest, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, c := range rest[:len(rest)-2] {
				length = length*10 + int(c-'0')
			}
		}
		if len(line) == 2 {
			break
		}
	}
	if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
		t.Fatal(err)
	}
}
