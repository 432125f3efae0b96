package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// TestMain looks for goroutines that were left behind. Those it ignores are
// fasthttp's own cleaners: they sleep, see within 10 s that there is nothing
// left to clean and end, or live as long as the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*TCPDialer).tcpAddrsClean"),
	)
}

func serve(t *testing.T, h fasthttp.RequestHandler) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fasthttp.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dial(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestDo(t *testing.T) {
	addr := serve(t, func(ctx *fasthttp.RequestCtx) {
		ctx.Response.Header.Set("X-Request-Id", "r1")
		ctx.SetStatusCode(201)
		fmt.Fprintf(ctx, "%s %s %s %s %s %s", ctx.Method(), ctx.RequestURI(), ctx.Request.Header.ContentType(),
			ctx.Request.Header.Peek("Authorization"), ctx.Request.Header.Peek("Idempotency-Key"), ctx.PostBody())
	})
	c := dial(t, Config{Addr: addr, Token: "secret"})
	for _, tc := range []struct {
		call Call
		want string
	}{
		{Call{Method: "GET", Path: "/a?b=c"}, "GET /a?b=c  Bearer secret  "},
		{Call{Method: "POST", Path: "/o", Body: []byte("{}"), IdempotencyKey: "k"}, "POST /o application/json Bearer secret k {}"},
		{Call{Method: "POST", Path: "/r", Body: []byte("x"), ContentType: "application/wasm"}, "POST /r application/wasm Bearer secret  x"},
	} {
		got, err := c.Do(t.Context(), tc.call)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != 201 || got.RequestID != "r1" || string(got.Body) != tc.want {
			t.Errorf("%+v: got %d %q %q, want %q", tc.call, got.Status, got.RequestID, got.Body, tc.want)
		}
	}
}

func TestRunSendsEachOrderOnce(t *testing.T) {
	const orders, conns = 1000, 7
	var mu sync.Mutex
	seen := map[string]int{}
	addr := serve(t, func(ctx *fasthttp.RequestCtx) {
		mu.Lock()
		seen[string(ctx.Request.Header.Peek("Idempotency-Key"))+string(ctx.PostBody())]++
		mu.Unlock()
		ctx.SetStatusCode(201)
	})
	c := dial(t, Config{Addr: addr, Connections: conns})
	var perConn [conns]int
	sum, err := c.Run(t.Context(), Load{
		Orders: orders,
		Next: func(i int, body, key []byte) (b, k []byte) {
			return fmt.Appendf(body, "b%d", i), fmt.Appendf(key, "k%d", i)
		},
		Observe: func(conn, status int, latency time.Duration, _ []byte) {
			if status != 201 || latency <= 0 {
				t.Errorf("status %d after %v", status, latency)
			}
			perConn[conn]++
		},
	})
	if err != nil || sum.Answered != orders || sum.Failed != 0 || sum.Elapsed <= 0 {
		t.Fatalf("%+v, %v", sum, err)
	}
	observed := 0
	for _, n := range perConn {
		observed += n
	}
	if observed != orders || len(seen) != orders {
		t.Errorf("observed %d, sent %d distinct orders, want %d", observed, len(seen), orders)
	}
	for i := range orders {
		if seen[fmt.Sprintf("k%db%d", i, i)] != 1 {
			t.Fatalf("order %d was sent %d times", i, seen[fmt.Sprintf("k%db%d", i, i)])
		}
	}
}

// TestOpenLoopCountsWhatAStallHoldsUp: while the first answer takes its time, the
// next orders become due, and what they wait is theirs to tell.
func TestOpenLoopCountsWhatAStallHoldsUp(t *testing.T) {
	const stall, every, orders = 200 * time.Millisecond, 20 * time.Millisecond, 20
	for _, patience := range []time.Duration{0, stall / 2} {
		var requests atomic.Int64
		addr := serve(t, func(*fasthttp.RequestCtx) {
			if requests.Add(1) == 1 {
				time.Sleep(stall)
			}
		})
		c := dial(t, Config{Addr: addr})
		var latencies []time.Duration
		sum, err := c.Run(t.Context(), Load{
			Length: orders * every, Rate: float64(time.Second / every), Patience: patience, Next: constant,
			Observe: func(_, _ int, latency time.Duration, _ []byte) { latencies = append(latencies, latency) },
		})
		if err != nil || sum.Answered+sum.Unsent != orders || sum.Answered != len(latencies) || (sum.Unsent > 0) != (patience > 0) {
			t.Fatalf("patience %v: %+v, %v", patience, sum, err)
		}
		if patience > 0 {
			continue
		}
		for i, latency := range latencies[:5] {
			if want := stall - time.Duration(i)*every; latency < want {
				t.Errorf("order %d waited %v, and was held up for %v", i, latency, want)
			}
		}
	}
}

func TestRunRefusesNonsense(t *testing.T) {
	c := dial(t, Config{Addr: "127.0.0.1:1"})
	for _, l := range []Load{{}, {Orders: 1}, {Next: constant}, {Orders: 1, Rate: -1, Next: constant}} {
		if _, err := c.Run(t.Context(), l); err == nil {
			t.Errorf("%+v was accepted", l)
		}
	}
}

func constant(int, []byte, []byte) (body, key []byte) { return []byte("{}"), []byte("k") }

func TestRunGivesUpWhenTheServerIsGone(t *testing.T) {
	nowhere, err := porttest.Address()
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, Config{Addr: nowhere, Connections: 2})
	var failures atomic.Int64
	sum, err := c.Run(t.Context(), Load{Orders: 1 << 20, Next: constant, Observe: func(_, status int, _ time.Duration, _ []byte) {
		if status == 0 {
			failures.Add(1)
		}
	}})
	if err == nil || sum.Answered != 0 || sum.Failed > 2*failuresMax || int64(sum.Failed) != failures.Load() {
		t.Fatalf("%+v, %v", sum, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr := serve(t, func(*fasthttp.RequestCtx) { cancel() })
	c := dial(t, Config{Addr: addr})
	if _, err := c.Run(ctx, Load{Orders: 1 << 30, Next: constant}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := c.Do(ctx, Call{Method: "GET", Path: "/"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Addr: "a", Connections: -1}, {Addr: "a", Connections: ConnectionsMax + 1}, {Addr: "a", Timeout: -1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
