// Package client talks to a Doorbuster server: single calls for commands and
// demonstrations, and for benchmarks a load of orders, closed-loop (as fast as the
// answers come) or open-loop (on a schedule of its own).
//
// It keeps at most Config.Connections connections to one address open and
// never tries a request again by itself: only the caller knows whether the
// idempotency key makes that safe.
package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/clockd"
)

const (
	// ConnectionsMax bounds Config.Connections.
	ConnectionsMax = 16384
	// TimeoutDefault is how long a call may take when Config says nothing.
	TimeoutDefault = 15 * time.Second
	// responseMax bounds the body of an answer in bytes: the largest rule is 4 MiB.
	responseMax = 5 << 20
	// failuresMax is how many calls in a row one connection of a load may fail
	// before the load gives up: the server is gone.
	failuresMax = 8
)

// Config says whom to talk to. Only Addr is required.
type Config struct {
	Addr        string        // host:port
	Token       string        // sent as "Authorization: Bearer <Token>" unless empty
	Connections int           // 1 … ConnectionsMax; 0 = 1
	Timeout     time.Duration // of one call, connecting included; 0 = TimeoutDefault
}

func (c *Config) validate() error {
	if c.Addr == "" {
		return errors.New("client: no address")
	}
	if c.Connections == 0 {
		c.Connections = 1
	}
	if c.Connections < 1 || c.Connections > ConnectionsMax {
		return fmt.Errorf("client: %d connections are not in [1, %d]", c.Connections, ConnectionsMax)
	}
	if c.Timeout == 0 {
		c.Timeout = TimeoutDefault
	}
	if c.Timeout < 0 {
		return fmt.Errorf("client: negative timeout %v", c.Timeout)
	}
	return nil
}

// Client is safe for concurrent use.
type Client struct {
	cfg  Config
	host fasthttp.HostClient
}

// New returns a client; it connects when it is first used.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, host: fasthttp.HostClient{
		Addr:                cfg.Addr,
		MaxConns:            cfg.Connections,
		MaxConnWaitTimeout:  cfg.Timeout,
		ReadTimeout:         cfg.Timeout,
		WriteTimeout:        cfg.Timeout,
		MaxResponseBodySize: responseMax,
		RetryIfErr: func(*fasthttp.Request, int, error) (resetTimeout, retry bool) {
			return false, false
		},
	}}, nil
}

// Close closes the connections that are idle.
func (c *Client) Close() { c.host.CloseIdleConnections() }

// Call is one request.
type Call struct {
	Method, Path   string // Path with its query
	ContentType    string // of Body; empty = application/json
	Body           []byte
	IdempotencyKey string
}

// Answer is what came back. Any status is an answer, not an error.
type Answer struct {
	Status    int
	RequestID string
	Body      []byte // the caller's own
}

// Do sends one call and returns its answer.
func (c *Client) Do(ctx context.Context, call Call) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	c.prepare(req, call.Method, call.Path)
	if len(call.Body) > 0 {
		req.SetBody(call.Body)
		req.Header.SetContentType("application/json")
	}
	if call.ContentType != "" {
		req.Header.SetContentType(call.ContentType)
	}
	if call.IdempotencyKey != "" {
		req.Header.Set("Idempotency-Key", call.IdempotencyKey)
	}
	if err := c.host.Do(req, resp); err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", call.Method, call.Path, err)
	}
	return Answer{
		Status:    resp.StatusCode(),
		RequestID: string(resp.Header.Peek("X-Request-Id")),
		Body:      append([]byte(nil), resp.Body()...),
	}, nil
}

func (c *Client) prepare(req *fasthttp.Request, method, path string) {
	req.Header.SetMethod(method)
	req.SetRequestURI("http://" + c.cfg.Addr + path)
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
}

// Load is what to send.
type Load struct {
	// Orders is how many, and Length how long to go on sending them: whichever
	// ends first. 0 = no such bound, for one of the two.
	Orders int
	Length time.Duration
	// Rate is the orders a second. Order i is due i/Rate after the start, whether
	// or not the earlier ones are answered, and its latency counts from when it
	// was due, so that what a slow answer holds up counts too. 0 = as fast as the
	// answers come; then an order is due when it is sent.
	Rate float64
	// Patience is how late an order may be sent: the shopper of one that finds no
	// free connection for longer goes away, and it is not sent. 0 = any time.
	Patience time.Duration
	// Next appends the body and the idempotency key of order i to the two buffers,
	// which are empty, and returns them. It is called by all connections at once,
	// for each i at most once.
	Next func(i int, body, key []byte) (b, k []byte)
	// Observe is told of every answer, on the goroutine of the connection whose
	// number, 0 ≤ conn < Config.Connections, it is given: a recorder for each
	// number needs no lock. status is 0 when no answer came. The body is valid
	// during the call. Optional.
	Observe func(conn, status int, latency time.Duration, body []byte)
}

// Summary is how a load went.
type Summary struct {
	Answered int           // orders that were answered, with whatever status
	Failed   int           // orders without an answer
	Unsent   int           // orders whose shopper lost patience
	Elapsed  time.Duration // from the first order to the last answer
}

// Run sends the orders, one at a time on each of the client's connections, and
// returns when all are answered, when ctx ends (with its error), or when a
// connection keeps failing.
func (c *Client) Run(ctx context.Context, load Load) (Summary, error) {
	if load.Orders <= 0 && load.Length <= 0 || load.Rate < 0 || load.Next == nil {
		return Summary{}, errors.New("client: a load needs Next, and Orders or Length; Rate must not be negative")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &run{load: &load, start: clockd.Mono()}
	var conns sync.WaitGroup
	for conn := range c.cfg.Connections {
		conns.Go(func() {
			w := c.newWorker(conn, &load)
			defer w.release()
			if err := r.work(ctx, w); err != nil {
				cancel(err)
			}
		})
	}
	conns.Wait()
	return Summary{
		Answered: int(r.answered.Load()), Failed: int(r.failed.Load()), Unsent: int(r.unsent.Load()),
		Elapsed: time.Duration(clockd.Mono() - r.start),
	}, context.Cause(ctx)
}

// run is a load under way.
type run struct {
	load                           *Load
	start                          int64 // Mono ns
	next, answered, failed, unsent atomic.Int64
}

// work sends orders on one connection until there are no more.
func (r *run) work(ctx context.Context, w *worker) error {
	for failures := 0; failures < failuresMax; {
		i := int(r.next.Add(1)) - 1
		due, ok := r.due(i)
		if !ok || ctx.Err() != nil {
			return nil
		}
		if r.load.Rate > 0 {
			if clockd.SleepUntil(ctx, due) != nil {
				return nil
			}
			if late := clockd.Mono() - due; r.load.Patience > 0 && late > int64(r.load.Patience) {
				r.skip(i, late)
				continue
			}
		}
		if w.send(i, due) == nil {
			r.answered.Add(1)
			failures = 0
			continue
		}
		r.failed.Add(1)
		failures++
	}
	return fmt.Errorf("client: %d calls in a row failed, the last with: %w", failuresMax, w.err)
}

// skip leaves out order i, which is late by so many ns, and at once all others that are
// too late as well: what looks at each of them is taken from the server beside it.
func (r *run) skip(i int, late int64) {
	last := i + int(float64(late-int64(r.load.Patience))*r.load.Rate/float64(time.Second))
	if r.load.Orders > 0 {
		last = min(last, r.load.Orders-1)
	}
	if r.load.Length > 0 {
		last = min(last, int(r.load.Length.Seconds()*r.load.Rate)) // at most one too many
	}
	for _, ok := r.due(last); last > i && !ok; _, ok = r.due(last) {
		last--
	}
	r.unsent.Add(1)
	for {
		next := r.next.Load()
		if next > int64(last) {
			return
		}
		if r.next.CompareAndSwap(next, int64(last)+1) {
			r.unsent.Add(int64(last) + 1 - next)
			return
		}
	}
}

// due says when order i is to be sent, and whether it is at all.
func (r *run) due(i int) (at int64, ok bool) {
	if r.load.Rate > 0 {
		at = r.start + int64(float64(i)/r.load.Rate*float64(time.Second))
	} else {
		at = clockd.Mono()
	}
	ok = (r.load.Orders <= 0 || i < r.load.Orders) && (r.load.Length <= 0 || at < r.start+int64(r.load.Length))
	return at, ok
}

// worker is one connection's share of a load, with the buffers it reuses.
type worker struct {
	client    *Client
	load      *Load
	conn      int
	req       *fasthttp.Request
	resp      *fasthttp.Response
	body, key []byte
	err       error // of the last send
}

func (c *Client) newWorker(conn int, load *Load) *worker {
	w := &worker{client: c, load: load, conn: conn, req: fasthttp.AcquireRequest(), resp: fasthttp.AcquireResponse()}
	c.prepare(w.req, fasthttp.MethodPost, "/api/v1/orders")
	w.req.Header.SetContentType("application/json")
	return w
}

func (w *worker) send(i int, due int64) error {
	w.body, w.key = w.load.Next(i, w.body[:0], w.key[:0])
	w.req.SetBodyRaw(w.body)
	w.req.Header.SetBytesV("Idempotency-Key", w.key)
	w.err = w.client.host.Do(w.req, w.resp)
	latency := time.Duration(clockd.Mono() - due)
	status, body := 0, []byte(nil)
	if w.err == nil {
		status, body = w.resp.StatusCode(), w.resp.Body()
	}
	if w.load.Observe != nil {
		w.load.Observe(w.conn, status, latency, body)
	}
	return w.err
}

func (w *worker) release() {
	fasthttp.ReleaseRequest(w.req)
	fasthttp.ReleaseResponse(w.resp)
}
