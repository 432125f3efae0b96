package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/runtime/obs"
)

// FrontConfig wires a Front. Fields that are not marked optional are required.
type FrontConfig struct {
	Metrics *obs.Metrics
	Logger  *slog.Logger
	// Open serves open mode, on loopback only.
	Open        bool
	Connections int // open at once on the public listener; 0 = 16,384
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

// Front answers on the sockets from the first moment of a process, when there
// is no Server yet because the journal is being recovered: /livez with 200,
// /readyz and everything else with 503 and what the process waits for. A New
// Server takes it over, connections and all.
type Front struct {
	cfg    FrontConfig
	ids    *requestIDs
	broken *obs.Route // requests that never reached a route
	waits  atomic.Pointer[string]
	server atomic.Pointer[Server]
	public *fasthttp.Server
	admin  *fasthttp.Server

	stopping context.Context // ends when Shutdown begins: listeners and streams close
	stop     context.CancelFunc
}

// NewFront makes a front that does not listen yet.
func NewFront(cfg FrontConfig) (*Front, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	f := &Front{cfg: cfg, ids: newRequestIDs(), broken: cfg.Metrics.Route("any", "none")}
	f.stopping, f.stop = context.WithCancel(context.Background())
	f.public = f.listener(cfg.Connections, func(ctx *fasthttp.RequestCtx) {
		if s := f.server.Load(); s != nil {
			s.answer(ctx)
			return
		}
		f.notYet(ctx)
	})
	f.admin = f.listener(adminConnections, func(ctx *fasthttp.RequestCtx) {
		if s := f.server.Load(); s != nil {
			s.dispatch(ctx, s.admin)
			return
		}
		f.notYet(ctx)
	})
	f.Wait("the process is starting")
	return f, nil
}

// Wait sets what the answers say until there is a Server.
func (f *Front) Wait(why string) { f.waits.Store(&why) }

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
	writeProblem(&ctx.Response, unavailable, *f.waits.Load(), nil)
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
	if err := errors.Join(f.public.ShutdownWithContext(ctx), f.admin.ShutdownWithContext(ctx)); err != nil {
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
