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
	r.ctx.Request.Header.SetHost("127.0.0.1:8080")
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
			out = fmt.Appendf(out[:0], "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k%d\r\nContent-Length: %d\r\n\r\n%s", n, len(body), body)
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
