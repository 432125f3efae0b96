package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/obs"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

// TestMain looks for goroutines that were left behind. Those it ignores are
// fasthttp's own: cleaners that sleep, see within 10 s that there is nothing
// left to clean and end, and the one that keeps the Date header.
//
// A run of all tests must also have seen every row of the table of errors.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(allProblems{m},
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// seenProblems are the rows of the table that a test has got as an answer.
var seenProblems [problemCount]atomic.Bool

// allProblems fails a run of all tests that has not seen every problem. A
// single node has no use for idempotencyInFlight: a twin waits for the first
// one's answer, and gets it.
type allProblems struct{ *testing.M }

// Run implements goleak.TestingM.
func (a allProblems) Run() int {
	code := a.M.Run()
	if code != 0 || flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.fuzz").Value.String() != "" {
		return code
	}
	for p := noProblem + 1; p < problemCount; p++ {
		if !seenProblems[p].Load() && p != idempotencyInFlight {
			fmt.Fprintf(os.Stderr, "no test was answered with %s\n", problems[p].code)
			code = 1
		}
	}
	return code
}

// start is when every test begins: 2026-11-20T00:00:00Z.
const start = int64(1_795_132_800_000)

// house is a server on two loopback listeners over a store in memory and a
// clock that the test owns. Every exchange with it is checked against
// openapi.yaml.
type house struct {
	t        testing.TB
	store    *gatedStore
	clock    *clockd.Manual
	rules    *plugins.Registry
	node     *actors.Node
	server   *Server
	addr     string // of the public listener
	adminURL string
	client   *http.Client
	token    string // sent with each call unless empty
	keys     atomic.Int64
	loose    bool // the next calls may break the contract on purpose
}

// heldRead is a read that waits.
type heldRead struct{ begun, goOn chan struct{} }

// gatedStore commits nothing while gate is locked, and counts the events that are
// looked up.
type gatedStore struct {
	*journaltest.Memory
	gate sync.RWMutex
	held atomic.Pointer[heldRead] // the next Get
	gets atomic.Int64
	away atomic.Int64 // from this Get on nothing is found, 0 = it is there

	first atomic.Int64 // events of the first group since it was 0
}

// Get implements journal.Store.
func (s *gatedStore) Get(ctx context.Context, stream string, seq uint64, dst []byte) ([]byte, error) {
	if read := s.held.Swap(nil); read != nil {
		close(read.begun)
		<-read.goOn
	}
	if number, away := s.gets.Add(1), s.away.Load(); away > 0 && number >= away {
		return nil, journal.ErrUnreachable
	}
	return s.Memory.Get(ctx, stream, seq, dst)
}

// Commit implements journal.Store.
func (s *gatedStore) Commit(group []*journal.Write) error {
	events := 0
	for _, w := range group {
		events += w.Count
	}
	s.first.CompareAndSwap(0, int64(events))
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.Memory.Commit(group)
}

// tick lets the clock run about as fast as the world's, until the test ends.
func (h *house) tick() {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				h.clock.Advance(10 * time.Millisecond)
			}
		}
	}()
	h.t.Cleanup(func() { close(done); <-stopped })
}

// until waits for something that happens on another goroutine.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 20_000 {
		if is() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func newHouse(t testing.TB, tune func(*Config, *actors.Config)) *house {
	t.Helper()
	h := &house{t: t, store: &gatedStore{Memory: journaltest.NewMemory()}, clock: clockd.NewManual(start)}
	var err error
	h.rules, err = plugins.New(context.Background(), plugins.Config{Tables: h.store.Tables(), Now: func() int64 { return h.clock.Clock().Now().Wall }})
	must(t, err)
	t.Cleanup(func() { must(t, h.rules.Close()) })
	logger := slog.New(slog.DiscardHandler)
	nodeCfg := actors.Config{Rules: h.rules, Logger: logger, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	cfg := Config{Rules: h.rules, Store: h.store, Clock: h.clock.Clock(), Metrics: obs.NewMetrics(), Logger: logger}
	cfg.BacktestCPU = 100 // no rests: on a clock that stands still they would not end
	cfg.Webhooks, err = webhook.New(context.Background(), webhook.Config{Tables: h.store.Tables(), Clock: h.clock.Clock(), Logger: logger, Loopback: true})
	must(t, err)
	hooks := cfg.Webhooks
	nodeCfg.Listed = func(v deal.View) { hooks.Touch(v.Spec.Merchant, v.Spec.ID, v.Spec.EndsAt) }
	if tune != nil {
		tune(&cfg, &nodeCfg)
	}
	h.node, err = actors.NewNode(context.Background(), h.store, h.clock.Clock(), nodeCfg)
	must(t, err)
	t.Cleanup(h.node.Close)
	hooks.Start(NewOutbox(h.node, h.rules))
	t.Cleanup(hooks.Close)
	cfg.Node = h.node
	h.server, err = New(cfg)
	must(t, err)
	h.addr = h.listen(h.server.Serve)
	h.adminURL = "http://" + h.listen(h.server.ServeAdmin)
	h.client = &http.Client{Transport: &checked{t: t, house: h, next: &http.Transport{DisableCompression: true}}, Timeout: 20 * time.Second}
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		must(t, h.server.Shutdown(ctx))
	})
	return h
}

func (h *house) listen(serve func(net.Listener) error) string {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(h.t, err)
	done := make(chan error, 1)
	go func() { done <- serve(ln) }()
	h.t.Cleanup(func() { must(h.t, <-done) })
	return ln.Addr().String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what came back.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

// request is one to send. Zero fields take what a good client would send.
type request struct {
	method, path string
	body         string
	header       map[string]string // "" removes a header
	admin        bool
}

func (h *house) send(r request) answer {
	h.t.Helper()
	base := "http://" + h.addr
	if r.admin {
		base = h.adminURL
	}
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(context.Background(), r.method, base+r.path, body)
	must(h.t, err)
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if h.token != "" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	if r.method == "POST" && (strings.HasPrefix(r.path, "/api/v1/orders") || r.path == "/api/v1/order") && strings.Count(r.path, "/") <= 3 {
		req.Header.Set("Idempotency-Key", fmt.Sprintf("key-%d", h.keys.Add(1)))
	}
	for k, v := range r.header {
		if req.Header.Set(k, v); v == "" {
			req.Header.Del(k)
		}
	}
	resp, err := h.client.Do(req)
	must(h.t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	must(h.t, err)
	return answer{h.t, resp.StatusCode, resp.Header, got}
}

func (h *house) get(path string) answer {
	h.t.Helper()
	return h.send(request{method: "GET", path: path})
}

func (h *house) post(path, body string) answer {
	h.t.Helper()
	return h.send(request{method: "POST", path: path, body: body})
}

// want checks the status.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// refused checks that the answer is this problem.
func (a answer) refused(p problem) answer {
	a.t.Helper()
	var got struct {
		Code      string
		Status    int
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		a.t.Fatalf("%v in %q", err, a.body)
	}
	seenProblems[p].Store(true)
	row := problems[p]
	if a.status != row.status || got.Code != row.code || got.Status != row.status {
		a.t.Fatalf("%d %s, want %d %s", a.status, a.body, row.status, row.code)
	}
	if got.RequestID == "" || got.RequestID != a.header.Get("X-Request-Id") {
		a.t.Fatalf("request id %q in the body, %q in the header", got.RequestID, a.header.Get("X-Request-Id"))
	}
	return a
}

// field returns a field of a JSON answer by its path: "group.status", "data.0.deal_id".
func (a answer) field(path string) any {
	a.t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("%v in %q", err, a.body)
	}
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[part]
		case []any:
			var i int
			if _, err := fmt.Sscan(part, &i); err != nil || i >= len(at) {
				a.t.Fatalf("no %s in %s", path, a.body)
			}
			v = at[i]
		default:
			return nil
		}
	}
	if n, ok := v.(json.Number); ok {
		i, err := n.Int64()
		must(a.t, err)
		return i
	}
	return v
}

func (a answer) text(path string) string {
	a.t.Helper()
	s, ok := a.field(path).(string)
	if !ok {
		a.t.Fatalf("%s is no text in %s", path, a.body)
	}
	return s
}

// has checks fields against values.
func (a answer) has(fields map[string]any) answer {
	a.t.Helper()
	for path, want := range fields {
		if n, ok := want.(int); ok {
			want = int64(n)
		}
		if got := a.field(path); got != want {
			a.t.Errorf("%s is %v, want %v in %s", path, got, want, a.body)
		}
	}
	return a
}

// deal creates a deal; extra is more fields, such as `,"stock":1`.
func (h *house) deal(id, extra string) answer {
	h.t.Helper()
	if !strings.Contains(extra, `"stock"`) {
		extra += `,"stock":100`
	}
	return h.post("/api/v1/deals", fmt.Sprintf(
		`{"deal_id":%q,"merchant_id":"acme","title":"Lychee","category":"fruit","currency":"CNY","unit_price":9900%s}`, id, extra)).want(201)
}

func orderBody(dealID, user string, quantity int, extra string) string {
	return fmt.Sprintf(`{"deal_id":%q,"user_id":%q,"quantity":%d%s}`, dealID, user, quantity, extra)
}

func (h *house) order(dealID, user string, quantity int) answer {
	h.t.Helper()
	return h.post("/api/v1/orders", orderBody(dealID, user, quantity, ""))
}

// checked validates every exchange against openapi.yaml.
type checked struct {
	t     testing.TB
	house *house
	next  *http.Transport
}

// CloseIdleConnections is what the client's own looks for.
func (c *checked) CloseIdleConnections() { c.next.CloseIdleConnections() }

var contract = func() routers.Router {
	data, err := os.ReadFile("openapi.yaml")
	if err != nil {
		panic(err)
	}
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(data)
	if err != nil {
		panic(err)
	}
	if err := doc.Validate(loader.Context); err != nil {
		panic(err)
	}
	doc.Servers = nil // any address
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		panic(err)
	}
	return router
}()

func (c *checked) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent []byte
	if req.Body != nil {
		sent, _ = io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Date") == "" || resp.Header.Get("Server") != "" {
		c.t.Errorf("%s %s: headers %v", req.Method, req.URL.Path, resp.Header)
	}
	if resp.ContentLength < 0 || req.Method == "HEAD" { // a stream has no length
		return resp, nil
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	c.check(req, sent, resp, got)
	return resp, nil
}

// check validates a request that was accepted, and every response to a route
// that the contract has.
func (c *checked) check(req *http.Request, sent []byte, resp *http.Response, got []byte) {
	route, params, err := contract.FindRoute(req)
	if err != nil {
		if resp.StatusCode != 404 && resp.StatusCode != 405 && !strings.HasPrefix(req.URL.Path, "/debug/") {
			c.t.Errorf("%s %s is answered with %d and is not in openapi.yaml", req.Method, req.URL.Path, resp.StatusCode)
		}
		return
	}
	in := &openapi3filter.RequestValidationInput{
		Request: req.Clone(context.Background()), PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	in.Request.Body = io.NopCloser(bytes.NewReader(sent))
	if resp.StatusCode < 300 && !c.house.loose {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			c.t.Errorf("%s %s %s was accepted, openapi.yaml says %v", req.Method, req.URL, sent, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	out.SetBodyBytes(got)
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		c.t.Errorf("%s %s was answered with %d %s, openapi.yaml says %v", req.Method, req.URL, resp.StatusCode, got, err)
	}
}

func init() {
	text := func(r io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		b, err := io.ReadAll(r)
		return string(b), err
	}
	openapi3filter.RegisterBodyDecoder("application/wasm", text)
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", text)
	openapi3filter.RegisterBodyDecoder("application/problem+json", openapi3filter.JSONBodyDecoder)
}
