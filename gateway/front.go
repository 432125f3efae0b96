package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"github.com/doorbuster/doorbuster/runtime/obs"
)

// FrontConfig wires a Front. Fields that are not marked optional are required.
type FrontConfig struct {
	Metrics *obs.Metrics
	Logger  *slog.Logger
	// Open serves open mode, on loopback only.
	Open        bool
	Connections int // open at once on the public listener; 0 = 16,384
	// NoLoops has each connection served by a goroutine of its own, see orderLoops.
	NoLoops bool
}

func (c *FrontConfig) validate() error {
	if c.Metrics == nil || c.Logger == nil {
		return errors.New("gateway: Metrics and Logger are required")
	}
	if c.Connections == 0 {
		c.Connections = 16384
	}
	if c.Connections < 1 {
		return errors.New("gateway: a bound is negative")
	}
	return nil
}

// Step is a part of a start, one after the other.
type Step uint8

// The steps of a start.
const (
	StepProcess Step = iota // until something else is told
	StepJournal             // the journal is being opened
	StepRules               // rules are being loaded
	StepDeals               // deals are being replayed
	stepCount
)

var stepNames = [stepCount]string{"process", "journal", "rules", "deals"}

// waiting is how far a start is.
type waiting struct {
	step     Step
	done, of int
}

// String says it in words.
func (w waiting) String() string {
	switch {
	case w.step == StepJournal:
		return "recovering: the journal is being opened"
	case w.step == StepRules && w.of == 0:
		return "recovering: the rules are being loaded"
	case w.step == StepRules:
		return fmt.Sprintf("recovering: %d of %s of rules loaded", w.done, count(w.of, "version"))
	case w.step == StepDeals:
		return fmt.Sprintf("recovering: %d of %s replayed", w.done, count(w.of, "deal"))
	default:
		return "the process is starting"
	}
}

// count says how many there are of something.
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}

// Front answers on the sockets from the first moment of a process, when there
// is no Server yet because the journal is being recovered: /livez with 200, to
// operators /metrics, and /readyz and everything else with 503 and what the process
// waits for. A New Server takes it over, connections and all.
type Front struct {
	cfg     FrontConfig
	ids     *requestIDs
	broken  *obs.Route // requests that never reached a route
	metrics fasthttp.RequestHandler
	waits   atomic.Pointer[waiting]
	server  atomic.Pointer[Server]
	public  *fasthttp.Server
	admin   *fasthttp.Server
	open    atomic.Int64 // connections of loops

	mu    sync.Mutex    // guards loops
	loops []*orderLoops // one for each listener of public

	stopping context.Context // ends when Shutdown begins: listeners and streams close
	stop     context.CancelFunc
}

// NewFront makes a front that does not listen yet.
func NewFront(cfg FrontConfig) (*Front, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	f := &Front{
		cfg: cfg, ids: newRequestIDs(), broken: cfg.Metrics.Route("any", "none"),
		metrics: fasthttpadaptor.NewFastHTTPHandler(cfg.Metrics.Handler()),
	}
	f.Wait(StepProcess, 0, 0)
	f.observe()
	f.stopping, f.stop = context.WithCancel(context.Background())
	f.public = f.listener(cfg.Connections, func(ctx *fasthttp.RequestCtx) {
		if f.stopping.Err() != nil {
			ctx.SetConnectionClose()
		}
		if s := f.server.Load(); s != nil {
			s.answer(ctx)
			return
		}
		f.notYet(ctx)
	})
	f.public.ConnState = noteIdle
	f.admin = f.listener(adminConnections, func(ctx *fasthttp.RequestCtx) {
		if s := f.server.Load(); s != nil {
			s.dispatch(ctx, s.admin)
			return
		}
		path, _, _ := bytes.Cut(ctx.Request.Header.RequestURI(), []byte("?"))
		if string(path) == metricsPath && (ctx.IsGet() || ctx.IsHead()) && ctx.Request.Header.ContentLength() <= bodyPrefetched && framing(ctx) == nil {
			f.identify(ctx)
			f.metrics(ctx)
			return
		}
		f.notYet(ctx)
	})
	return f, nil
}

// metricsPath is where operators find the metrics.
const metricsPath = "/metrics"

// Wait sets what the answers and the metrics say until there is a Server: which step the
// start is at, and of how many parts of it (0 = that is not known) how many are done.
func (f *Front) Wait(step Step, done, of int) { f.waits.Store(&waiting{step, done, of}) }

// observe registers how far the start is.
func (f *Front) observe() {
	m := f.cfg.Metrics
	at := func(step Step, figure func(waiting) int) func() float64 {
		return func() float64 {
			if w := f.waits.Load(); f.server.Load() == nil && w.step == step {
				return float64(figure(*w))
			}
			return 0
		}
	}
	for step := range stepCount {
		name := obs.Labels{"step": stepNames[step]}
		m.Gauge("starting", "1 for the step that the start of the process is at; 0 for all once it serves.", name, at(step, func(waiting) int { return 1 }))
	}
	for _, step := range []Step{StepRules, StepDeals} {
		name := obs.Labels{"step": stepNames[step]}
		m.Gauge("starting_parts", "Versions of rules to be loaded, or deals to be replayed, while the start is at that step.", name, at(step, func(w waiting) int { return w.of }))
		m.Gauge("starting_parts_done", "Those of them that are done.", name, at(step, func(w waiting) int { return w.done }))
	}
}

// notYet answers while there is no Server. What is left of a large body is not
// read: it must not be taken for a request.
func (f *Front) notYet(ctx *fasthttp.RequestCtx) {
	f.identify(ctx)
	if ctx.Request.Header.ContentLength() > bodyPrefetched {
		ctx.SetConnectionClose()
	}
	if string(ctx.Request.Header.RequestURI()) == "/livez" && (ctx.IsGet() || ctx.IsHead()) {
		ctx.Response.Header.SetContentTypeBytes(jsonMediaType)
		ctx.SetBodyString(`{"status":"ok"}`)
		return
	}
	if no := framing(ctx); no != nil {
		writeProblem(&ctx.Response, no.problem, no.detail, nil)
		return
	}
	writeProblem(&ctx.Response, unavailable, f.waits.Load().String(), nil)
}

func (f *Front) listener(connections int, h fasthttp.RequestHandler) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:                      h,
		ErrorHandler:                 f.malformed,
		HeaderReceived:               refuseFraming,
		Logger:                       debugLogger{f.cfg.Logger},
		Concurrency:                  connections,
		ReadBufferSize:               headersMax,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxRequestBodySize:           bodyPrefetched,
		StreamRequestBody:            true, // a handler sees the headers before a large body is read
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
		CloseOnShutdown:              true,
	}
}

// Serve answers the public contract on ln until Shutdown, and closes ln.
// ErrOpenExposed.
func (f *Front) Serve(ln net.Listener) error { return f.serve(f.public, ln) }

// ServeAdmin answers the operators on ln until Shutdown, and closes ln.
// ErrOpenExposed.
func (f *Front) ServeAdmin(ln net.Listener) error { return f.serve(f.admin, ln) }

// serve ends even if Shutdown came first: fasthttp's own knows nothing of a
// listener that it has not begun to serve.
func (f *Front) serve(on *fasthttp.Server, ln net.Listener) error {
	socket := &socket{Listener: ln, front: f, server: on}
	if f.cfg.Open && !isLoopback(ln.Addr()) {
		return errors.Join(fmt.Errorf("%v: %w", ln.Addr(), ErrOpenExposed), socket.Close())
	}
	if _, tcp := ln.(*net.TCPListener); tcp && on == f.public && !f.cfg.NoLoops {
		loops, err := newOrderLoops(ln, f, on)
		if err != nil {
			return errors.Join(err, socket.Close())
		}
		f.mu.Lock()
		f.loops = append(f.loops, loops)
		f.mu.Unlock()
		defer context.AfterFunc(f.stopping, func() { _ = loops.Close() })()
		return on.Serve(loops)
	}
	defer context.AfterFunc(f.stopping, func() { _ = socket.Close() })()
	return on.Serve(socket)
}

// ErrConnectionsLeft means that a shutdown ended before all connections did. Some may have been
// opened and never asked anything.
var ErrConnectionsLeft = errors.New("gateway: connections are left")

// Shutdown closes the listeners and waits until every request is answered or
// ctx ends. ErrConnectionsLeft.
func (f *Front) Shutdown(ctx context.Context) error {
	f.stop()
	f.mu.Lock()
	loops := slices.Clone(f.loops)
	f.mu.Unlock()
	var left error
	for _, ls := range loops { // before fasthttp's own, which closes what seems idle to it
		left = errors.Join(left, ls.Close(), ls.wait(ctx))
	}
	if err := errors.Join(left, f.public.ShutdownWithContext(ctx), f.admin.ShutdownWithContext(ctx)); err != nil {
		return fmt.Errorf("%w: %w", ErrConnectionsLeft, err)
	}
	return nil
}

// identify gives the request its id.
func (f *Front) identify(ctx *fasthttp.RequestCtx) {
	var b [requestIDLen]byte
	ctx.Response.Header.SetCanonical(headerRequestID, f.ids.append(b[:0]))
}

// malformed answers what fasthttp could not read as a request; fasthttp
// closes the connection after it.
func (f *Front) malformed(ctx *fasthttp.RequestCtx, err error) {
	f.identify(ctx)
	p, detail := invalidRequest, "the request is not HTTP/1.1 as every parser reads it"
	var small *fasthttp.ErrSmallBuffer
	var slow net.Error
	switch {
	case errors.Is(err, fasthttp.ErrUnsupportedTransferEncoding):
		p, detail = transferEncodingRefused, "send the body with Content-Length"
	case errors.As(err, &small):
		p, detail = headersTooLarge, ""
	case errors.As(err, &slow) && slow.Timeout():
		p, detail = requestTimeout, ""
	case errors.Is(err, io.ErrUnexpectedEOF):
		detail = "the connection ended within the request"
	}
	writeProblem(&ctx.Response, p, detail, nil)
	f.broken.Observe(ctx.Response.StatusCode(), 0)
	f.cfg.Logger.Debug("request", about(ctx, "status", ctx.Response.StatusCode(), "error", err)...)
}

// debugLogger takes what fasthttp has to say of connections that broke. It is
// about clients, not about us.
type debugLogger struct{ log *slog.Logger }

func (l debugLogger) Printf(format string, args ...any) {
	l.log.Debug("connection", "detail", fmt.Sprintf(format, args...))
}

// socket is a listener that answers the connections beyond what its server may
// have open, where fasthttp would write a bare text, and that may be closed by
// more than one.
type socket struct {
	net.Listener
	front  *Front
	server *fasthttp.Server
	once   sync.Once
	err    error
}

// Accept implements net.Listener. Its one caller counts the connection as open
// before it calls again.
func (l *socket) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || int(l.server.GetOpenConnectionsCount()) < l.server.Concurrency {
			return conn, err
		}
		l.front.turnAway(conn)
	}
}

// turnAway answers a connection that there is no room for, whatever it asks.
// The answer is far smaller than what a fresh connection takes without waiting.
func (f *Front) turnAway(conn net.Conn) {
	resp := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(resp)
	var id [requestIDLen]byte
	resp.Header.SetCanonical(headerRequestID, f.ids.append(id[:0]))
	resp.SetConnectionClose()
	writeProblem(resp, overloaded, "too many connections are open", nil)
	_, _ = resp.WriteTo(conn) // the client has gone, then
	_ = conn.Close()
	f.broken.Observe(resp.StatusCode(), 0)
}

// Close implements net.Listener.
func (l *socket) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
