// Package client talks to a Doorbuster server: single calls for commands and
// demonstrations, and a closed-loop load of orders for benchmarks.
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

// Load is a number of orders to send.
type Load struct {
	Orders int
	// Next appends the body and the idempotency key of order i, 0 ≤ i < Orders,
	// to the two buffers, which are empty, and returns them. It is called by
	// all connections at once, for each i exactly once.
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
	Elapsed  time.Duration // from the first order to the last answer
}

// Run sends the orders as fast as the answers come, one at a time on each of
// the client's connections, and returns when all are answered, when ctx ends
// (with its error), or when a connection keeps failing.
func (c *Client) Run(ctx context.Context, load Load) (Summary, error) {
	var next, answered, failed atomic.Int64
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := clockd.Mono()
	var conns sync.WaitGroup
	for conn := range min(c.cfg.Connections, load.Orders) {
		conns.Go(func() {
			w := c.newWorker(conn, &load)
			defer w.release()
			for failures := 0; failures < failuresMax; {
				i := int(next.Add(1)) - 1
				if i >= load.Orders || ctx.Err() != nil {
					return
				}
				if w.send(i) == nil {
					answered.Add(1)
					failures = 0
					continue
				}
				failed.Add(1)
				failures++
			}
			cancel(fmt.Errorf("client: %d calls in a row failed, the last with: %w", failuresMax, w.err))
		})
	}
	conns.Wait()
	return Summary{
		Answered: int(answered.Load()),
		Failed:   int(failed.Load()),
		Elapsed:  time.Duration(clockd.Mono() - start),
	}, context.Cause(ctx)
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

func (w *worker) send(i int) error {
	w.body, w.key = w.load.Next(i, w.body[:0], w.key[:0])
	w.req.SetBodyRaw(w.body)
	w.req.Header.SetBytesV("Idempotency-Key", w.key)
	start := clockd.Mono()
	w.err = w.client.host.Do(w.req, w.resp)
	latency := time.Duration(clockd.Mono() - start)
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
