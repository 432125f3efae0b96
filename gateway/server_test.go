package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// Nothing may be in the table without words for it, in the contract too.
func TestProblemsAreComplete(t *testing.T) {
	codes := map[string]bool{}
	for p := noProblem + 1; p < problemCount; p++ {
		row := problems[p]
		if row.status < 400 || row.code == "" || row.title == "" || codes[row.code] {
			t.Errorf("row %d: %+v", p, row)
		}
		codes[row.code] = true
	}
	for c := deal.OK + 1; int(c) < len(problemOfCode); c++ {
		if problemOfCode[c] == noProblem {
			t.Errorf("code %d of a deal has no problem", c)
		}
	}
	if problemOfError(errors.New("x")) != internalError || problemOfError(fmt.Errorf("x: %w", actors.ErrOverloaded)) != overloaded ||
		problemOfError(fmt.Errorf("x: %w", journal.ErrUnreachable)) != unavailable || problemOfError(fmt.Errorf("x: %w", plugins.ErrNotCompiled)) != unavailable {
		t.Error("errors are not mapped")
	}
	data, err := os.ReadFile("openapi.yaml")
	must(t, err)
	for code := range codes {
		if !bytes.Contains(data, []byte(code)) {
			t.Errorf("openapi.yaml does not know %s", code)
		}
	}
}

// openapi.yaml has every route, and no other.
func TestContractHasEveryRoute(t *testing.T) {
	h := newGuarded(t)
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	must(t, err)
	documented := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented[method+" "+path] = true
		}
	}
	served := map[string]bool{}
	for _, r := range append(publicRoutes(), h.server.adminRoutes()...) {
		if !strings.HasPrefix(r.pattern, "/debug/") { // Go's own
			served[r.method+" "+r.pattern] = true
		}
	}
	if !maps.Equal(documented, served) {
		t.Errorf("openapi.yaml has\n%v, the server has\n%v", documented, served)
	}
}

func TestPathsAndMethods(t *testing.T) {
	h := newHouse(t, nil)
	for _, path := range []string{"/", "/api", "/api/v1", "/api/v1/deals/", "/api/v1//deals", "/api/v1/deals/d/x", "/API/v1/deals", "/api/v1/deal%73", "/metrics", "/debug/pprof/", "/api/v1/admin/journal", "/api/v1/admin/cluster"} {
		if detail := h.get(path).refused(notFound).text("detail"); !strings.Contains(detail, "/openapi.yaml") {
			t.Errorf("%s: %q does not say where the paths are", path, detail)
		}
	}
	for path, allow := range map[string]string{
		"/api/v1/deals": "POST, GET, HEAD", "/api/v1/deals/d": "GET, HEAD, PATCH", "/api/v1/order": "POST", "/livez": "GET, HEAD",
	} {
		a := h.send(request{method: "DELETE", path: path}).refused(methodNotAllowed)
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s allows %q, want %q", path, got, allow)
		}
	}
	if a := h.send(request{method: "HEAD", path: "/api/v1/deals"}).want(200); len(a.body) != 0 || a.header.Get("Content-Length") == "0" {
		t.Errorf("HEAD gives %q, %v", a.body, a.header)
	}
	if a := h.get("/openapi.yaml").want(200); !bytes.HasPrefix(a.body, []byte("openapi: 3.1")) {
		t.Errorf("%.40s", a.body)
	}
}

func TestRequestIDsAreUnique(t *testing.T) {
	ids, other := newRequestIDs(), newRequestIDs()
	seen := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				mu.Lock()
				seen[string(ids.append(nil))] = true
				seen[string(other.append(nil))] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 8000 {
		t.Errorf("%d ids, want 8000", len(seen))
	}
	ids.next.Store(1<<64 - 2)
	if n := len(ids.append(nil)); n > requestIDLen {
		t.Errorf("an id has %d bytes", n)
	}
}

func TestOperators(t *testing.T) {
	drained := 0
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Drain = func() { drained++ } })
	h.deal("d", "")
	for range 3 { // one order, and two repeats of it
		h.send(request{method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""), header: map[string]string{"Idempotency-Key": "once"}}).want(201)
	}
	admin := func(method, path string) answer { return h.send(request{method: method, path: path, admin: true}) }
	admin("GET", "/livez").want(200)
	admin("GET", "/readyz").want(200)
	if a := admin("GET", "/metrics").want(200); !bytes.Contains(a.body, []byte("http_request_duration_seconds")) ||
		!bytes.Contains(a.body, []byte(`doorbuster_orders_total{outcome="reserved"} 1`)) ||
		!bytes.Contains(a.body, []byte(`doorbuster_orders_total{outcome="replayed"} 2`)) {
		t.Errorf("%s", a.body)
	}
	admin("GET", "/api/v1/admin/journal").want(200).has(map[string]any{"read_only": false, "streams": 1})
	admin("GET", "/api/v1/admin/cluster").want(200).has(map[string]any{
		"members.0.member": "local", "members.0.self": true, "members.0.status": "ready", "members.0.deals": 1,
		"members.0.deals_active": 1, "members.0.epochs.lowest": 1, "members.0.epochs.highest": 1, "members.0.time": "2026-11-20T00:00:00.000Z",
	})
	admin("POST", "/api/v1/admin/snapshot").want(200)
	admin("POST", "/api/v1/admin/drain").want(202)
	admin("POST", "/api/v1/admin/drain").want(202)
	if drained != 1 {
		t.Errorf("drained %d times", drained)
	}
	if a := admin("GET", "/debug/pprof/").want(200); !bytes.Contains(a.body, []byte("goroutine")) {
		t.Errorf("%s", a.body)
	}
	admin("GET", "/debug/pprof/goroutine?debug=1").want(200)
	admin("GET", "/debug/pprof/nope").refused(notFound)
	admin("GET", "/debug/pprof/goroutine?seconds=x").refused(invalidRequest)
	admin("GET", "/api/v1/deals").refused(notFound)
	admin("GET", "/openapi.yaml").want(200)
	for _, a := range []answer{
		admin("GET", "/api/v1/admin/keys"), admin("DELETE", "/api/v1/admin/keys/k"),
		h.send(request{method: "POST", path: "/api/v1/admin/keys", body: `{"role":"operator"}`, admin: true}),
	} {
		if detail := a.refused(notFound).text("detail"); !strings.Contains(detail, "auth open") {
			t.Errorf("in open mode the answer about keys is %q", detail)
		}
	}
}

// What is in flight when the shutdown begins is answered as if it had not.
func TestShutdownWaitsForRequests(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	id := h.order("d", "u", 1).want(201).text("order_id")
	h.store.gate.Lock()
	answers := make(chan answer, 2)
	go func() { answers <- h.order("d", "u", 1) }()
	until(t, "the order to be under way", func() bool { return h.node.Stats().Waiting == 1 })
	go func() { answers <- h.get("/api/v1/orders/" + id) }()
	until(t, "the read to be under way", func() bool { return h.node.Stats().Waiting == 2 })
	ended := make(chan error)
	go func() { ended <- h.server.Shutdown(context.Background()) }()
	until(t, "the listener to close", func() bool {
		conn, err := net.Dial("tcp4", h.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	h.store.gate.Unlock()
	for range 2 {
		if a := <-answers; a.status != 201 && a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	must(t, <-ended)
}

func TestReadiness(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *actors.Config) {
		c.Ready = func() error { return errors.New("the cluster is not joined") }
	})
	h.get("/readyz").refused(unavailable)
	h.get("/livez").want(200)
	h.clock.Stall(clockLagMax * 2)
	h.get("/livez").refused(unavailable)
}

// A bug in a handler costs one answer.
func TestPanicInAHandler(t *testing.T) {
	var log bytes.Buffer
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	var ctx fasthttp.RequestCtx
	h.server.guard(&ctx, func(*fasthttp.RequestCtx) { panic("a bug") })
	answer{t, ctx.Response.StatusCode(), map[string][]string{"X-Request-Id": {string(requestID(&ctx))}}, ctx.Response.Body()}.refused(internalError)
	if !ctx.Response.ConnectionClose() || !strings.Contains(log.String(), "a bug") {
		t.Errorf("logged %q", log.String())
	}
}

// A bug behind an order is logged with the order's deal, which its body names.
func TestPanicInAnOrder(t *testing.T) {
	var log safeBuffer
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	h.deal("d-7", "")
	h.server.orders.sales = nil           // stands in for a bug
	h.server.front.server.Store(h.server) // so that the loops see it
	h.order("d-7", "u", 1).refused(internalError)
	if !strings.Contains(log.String(), "a handler panicked") || !strings.Contains(log.String(), " deal_id=d-7 ") {
		t.Errorf("logged %q", log.String())
	}
	if n := h.server.node.Stats().Pool.InUse; n != 0 {
		t.Errorf("%d seats are lost", n)
	}
}

// A bug before a deal answers costs no seat, whoever holds it.
func TestPanicsGiveSeatsBack(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	h.deal("d", "")
	for name, bug := range map[string]func(c *call) error{
		"quote": func(c *call) error {
			c.who = nil
			return h.server.quote(c)
		},
		"ask": func(c *call) error {
			return h.server.ask(c, own.ClassNew, "d", func(*deal.Command) { panic("a bug") }, nil)
		},
		"ask, answered": func(c *call) error {
			return h.server.ask(c, own.ClassNew, "d", func(cmd *deal.Command) { cmd.Kind = deal.Pause }, nil)
		},
	} {
		var ctx fasthttp.RequestCtx
		body := orderBody("d", "u", 1, "")
		ctx.Request.SetBodyStream(strings.NewReader(body), len(body))
		ctx.Request.Header.SetContentType("application/json")
		h.server.guard(&ctx, func(ctx *fasthttp.RequestCtx) {
			t.Errorf("%s: no panic, but %v", name, bug(&call{ctx: ctx, who: trusted}))
		})
		if n := h.server.node.Stats().Pool.InUse; n != 0 {
			t.Errorf("%s: %d seats are lost", name, n)
		}
	}
}

// A bug in what writes a stream costs the stream, and is logged with what the stream was about.
func TestPanicInAStream(t *testing.T) {
	var log safeBuffer
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	server := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		h.server.front.identify(ctx)
		must(t, h.server.openStream(&call{ctx: ctx, who: trusted}, h.server.streams, ndjson, "", func(*eventWriter) error { panic("a bug") }))
	}}
	client, conn := net.Pipe()
	go func() {
		_, _ = io.WriteString(client, "GET /api/v1/deals/d/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}()
	must(t, server.ServeConn(conn))
	until(t, "the end of the stream", func() bool {
		return strings.Contains(log.String(), "a bug") && len(h.server.streams.all) == 0
	})
	must(t, client.Close())
	if !strings.Contains(log.String(), "request_id="+h.server.front.ids.prefix) || !strings.Contains(log.String(), "deal_id=d ") {
		t.Errorf("logged %q", log.String())
	}
}

// Malformed input leaves no stack in the log, and debug lines name the request.
func TestLog(t *testing.T) {
	var log safeBuffer
	h := newHouse(t, func(c *Config, _ *actors.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	broken, _ := h.raw(t, "\x00\x01\x02\r\n\r\n", 1)
	h.raw(t, "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 1)
	a := h.get("/api/v1/deals/nope").refused(dealNotFound)
	h.order("by-body", "u", 1).refused(dealNotFound)
	h.order("by-refused-body", "u", 0).refused(quantityInvalid)
	h.order("no id", "u", 1).refused(invalidRequest)
	h.deal("by-creation", "")
	h.get("/api/v1/orders?deal_id=by-query")
	h.send(request{method: "POST", path: "/api/v1/quotes", body: `{"deal_id":"by-quote","user_id":"u","quantity":1}`}).refused(dealNotFound)
	h.get("/api/v1/orders/by-order-7").refused(orderNotFound)
	h.get("/api/v1/groups/by-group-g7").refused(groupNotFound)
	got := log.String()
	for _, want := range []string{
		"deal_id=nope", "deal_id=by-body", "deal_id=by-refused-body", "deal_id=by-creation", "deal_id=by-query", "deal_id=by-quote", "deal_id=by-order", "deal_id=by-group",
		a.header.Get("X-Request-Id"), broken[0].header.Get("X-Request-Id"), "target=/api/v1/deals/nope", "target=/api/v1/orders", "status=404",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in the log", want)
		}
	}
	for _, never := range []string{"goroutine", "panic", ".go:", "level=ERROR", "no id"} {
		if strings.Contains(got, never) {
			t.Errorf("%s in the log:\n%s", never, got)
		}
	}
}

// safeBuffer may be written to by many.
type safeBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestConfigIsValidated(t *testing.T) {
	h := newHouse(t, nil)
	good := h.server.cfg
	for name, spoil := range map[string]func(*Config){
		"Node":        func(c *Config) { c.Node = nil },
		"Rules":       func(c *Config) { c.Rules = nil },
		"Store":       func(c *Config) { c.Store = nil },
		"Clock":       func(c *Config) { c.Clock = nil },
		"Metrics":     func(c *Config) { c.Metrics = nil },
		"Logger":      func(c *Config) { c.Logger = nil },
		"Connections": func(c *Config) { c.Connections = -1 },
		"Streams":     func(c *Config) { c.Streams = -1 },
		"Front":       func(c *Config) { c.Front = &Front{} }, // which would show open mode to all the world
	} {
		bad := good
		spoil(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("a bad %s was accepted", name)
		}
	}
}

func TestServeConstant(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- ServeConstant(ln) }()
	conn, err := net.Dial("tcp4", ln.Addr().String())
	must(t, err)
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	must(t, err)
	got, err := io.ReadAll(conn)
	must(t, err)
	conn.Close()
	if !bytes.HasSuffix(got, []byte("\r\n\r\n"+constantReply)) || len(constantReply) != 120 {
		t.Errorf("%d bytes: %s", len(constantReply), got)
	}
	must(t, ln.Close())
	must(t, <-done)
}
