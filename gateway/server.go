package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/reprice"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/obs"
	"github.com/doorbuster/doorbuster/runtime/own"
	"github.com/doorbuster/doorbuster/runtime/trace"
	"github.com/doorbuster/doorbuster/runtime/webhook"
	"github.com/doorbuster/doorbuster/runtime/yield"
)

// Bounds of what a request may be.
const (
	orderBodyMax = 16 << 10 // bytes of an order's or a quote's body
	otherBodyMax = 64 << 10 // bytes of any other JSON body
	headersMax   = 8 << 10  // bytes of a request's line and headers together
	uploadsMax   = 4        // modules that are received or compiled at once

	// Of the event streams, one caller may have 1 in so many.
	streamsPart = 16
	// Evaluations that no order waits for (backtests, explanations, samples): under way
	// or waiting for their turn, in all and of one caller.
	trialsMax   = 64
	trialsShare = 4

	// Orders that are turned away because the node is full, a second and processor,
	// so that refusing takes little from those who are let in, and how long one waits for
	// its refusal when more are to be told, see admit.NewPacer. Until then its caller cannot ask again.
	turnedAwayMax  = 200
	turnedAwayWait = 2 * time.Second

	readTimeout  = 10 * time.Second // for a whole request
	writeTimeout = 10 * time.Second // for a whole reply
	idleTimeout  = 75 * time.Second // between two requests of a connection

	// bodyPrefetched is how much of a body fasthttp has read before the handler
	// runs, and 1 byte of an order's that is too large. What is beyond is still on the
	// connection.
	bodyPrefetched = 8 << 10
	// A body that no handler read is read and dropped up to here, so that a
	// client that is still sending sees its answer and not a reset.
	lingerMax  = 8 << 20 // bytes: twice the largest module
	lingerTime = 250 * time.Millisecond
)

// Config wires a Server. Fields that are not marked optional are required.
type Config struct {
	Node    *actors.Node
	Rules   *plugins.Registry
	Store   journal.Store
	Clock   *clockd.Clock
	Metrics *obs.Metrics
	Logger  *slog.Logger

	// Tracer watches some of the orders; optional.
	Tracer *trace.Tracer

	// Channels are the values of an order's attribute "channel" that metrics tell
	// apart, at most obs.ChannelsMax; optional.
	Channels []string

	Webhooks *webhook.Hub // nil = there are none
	Member   string       // what a node on its own is called; "" = local
	Cluster  Cluster      // nil = the node is on its own

	Auth *Auth // nil = open mode: every caller is trusted
	// Limiter is what one client may do; optional. A shopper's token that was
	// not seen before is checked only while the address that it comes from, that
	// of a proxy if there is one, has not sent too many that were none.
	Limiter *admit.Limiter

	// Ready says why the process should get no traffic, nil if it should.
	// Optional.
	Ready func() error
	// Drain is called once, when an operator asks the process to stop. It must
	// not block. Optional.
	Drain func()

	// Front is on the sockets already, and is taken over; nil makes one.
	// Optional.
	Front *Front

	Connections int // open at once on the public listener of a Front that is made; 0 = 16,384
	Streams     int // event streams open at once, a sixteenth of them by one caller; 0 = 1,024
	BacktestCPU int // per cent of one core for all evaluations together that no order waits for; 0 = 25
}

func (c *Config) validate() error {
	if c.Node == nil || c.Rules == nil || c.Store == nil || c.Clock == nil || c.Metrics == nil || c.Logger == nil {
		return errors.New("gateway: Node, Rules, Store, Clock, Metrics and Logger are required")
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.Drain == nil {
		c.Drain = func() {}
	}
	if c.Member == "" {
		c.Member = "local"
	}
	if c.Streams == 0 {
		c.Streams = 1024
	}
	if c.BacktestCPU == 0 {
		c.BacktestCPU = 25
	}
	if c.Streams < 1 {
		return errors.New("gateway: a bound is negative")
	}
	if c.Front != nil && c.Auth == nil && !c.Front.cfg.Open {
		return errors.New("gateway: open mode needs a Front that keeps it on loopback")
	}
	return nil
}

// Server answers on two listeners: the public one and the operators'.
type Server struct {
	cfg        Config
	node       *actors.Node
	front      *Front
	orders     orderSeries
	uploads    *uploads
	streams    *places
	trials     *places
	partings   *places
	pace       *reprice.Pace // of the trials
	turnedAway *admit.Pacer  // orders that the node has no room for
	public     *router
	admin      *router
	drainOne   sync.Once

	ctx    context.Context // of the requests; ends when Shutdown has waited for them
	cancel context.CancelFunc
}

// New makes a server. From then on its Front's sockets, if there are any, serve
// the contract.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	pace, err := reprice.NewPace(cfg.Clock, cfg.BacktestCPU)
	if err != nil {
		return nil, err
	}
	front := cfg.Front
	if front == nil {
		front, err = NewFront(FrontConfig{Metrics: cfg.Metrics, Logger: cfg.Logger, Open: cfg.Auth == nil, Connections: cfg.Connections})
		if err != nil {
			return nil, err
		}
	}
	sales, err := cfg.Metrics.Sales(cfg.Channels)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, node: cfg.Node, front: front,
		orders:     newOrderSeries(cfg.Metrics, sales),
		uploads:    newUploads(),
		streams:    newPlaces(cfg.Streams, cfg.Streams/streamsPart),
		trials:     newPlaces(trialsMax, trialsShare),
		partings:   newPlaces(partingsMax, partingsMax),
		pace:       pace,
		turnedAway: admit.NewPacer(turnedAwayMax*runtime.GOMAXPROCS(0), turnedAwayWait),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.public = newRouter(publicRoutes(), cfg.Metrics.Route)
	s.admin = newRouter(s.adminRoutes(), func(method, pattern string) *obs.Route {
		return cfg.Metrics.Route(method, "admin:"+pattern)
	})
	s.front.server.Store(s)
	return s, nil
}

// Serve is Front.Serve.
func (s *Server) Serve(ln net.Listener) error { return s.front.Serve(ln) }

// ServeAdmin is Front.ServeAdmin.
func (s *Server) ServeAdmin(ln net.Listener) error { return s.front.ServeAdmin(ln) }

// Shutdown closes the listeners and the event streams, and waits until every
// other request is answered or ctx ends. A second call does nothing. ErrConnectionsLeft,
// if nothing else is.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return nil
	}
	defer s.cancel()
	front := s.front.Shutdown(ctx)
	if err := errors.Join(s.streams.wait(ctx), s.trials.wait(ctx), s.partings.wait(ctx)); err != nil {
		return err
	}
	return front
}

// answer answers a request on the public listener.
func (s *Server) answer(ctx *fasthttp.RequestCtx) {
	if isPlaceOrder(ctx) {
		s.guard(ctx, s.placeOrder)
		return
	}
	s.dispatch(ctx, s.public)
}

// guard runs a handler so that a bug in it costs one answer and not the
// process. A handler that takes a seat gives it back as it panics.
func (s *Server) guard(ctx *fasthttp.RequestCtx, h func(*fasthttp.RequestCtx)) {
	defer func() {
		if fault := recover(); fault != nil {
			s.cfg.Logger.Error("a handler panicked", about(ctx, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))...)
			ctx.SetConnectionClose()
			s.refuse(ctx, internalError, "", nil)
		}
	}()
	s.front.identify(ctx)
	h(ctx)
	if ctx.Request.Header.ContentLength() > bodyPrefetched {
		s.linger(ctx)
	}
}

// linger drops what is left of the body. If that takes too long, or is too
// much, the connection is closed: the rest must not be read as a request.
func (s *Server) linger(ctx *fasthttp.RequestCtx) {
	conn := ctx.Conn() // the context may be another's by the time that this is called
	stop := s.cfg.Clock.AfterFunc(lingerTime, func() {
		_ = conn.SetReadDeadline(past) // ends the read that is under way
	})
	defer stop()
	if _, err := io.CopyN(io.Discard, yield.Reader{From: ctx.RequestBodyStream()}, lingerMax); !errors.Is(err, io.EOF) {
		ctx.SetConnectionClose()
	}
}

// past is a deadline that has passed on every clock.
var past = time.Unix(1, 0)

func requestID(ctx *fasthttp.RequestCtx) []byte {
	return ctx.Response.Header.PeekCanonical(headerRequestID)
}

// refuse answers with a problem.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, p problem, detail string, faults []fault) {
	writeProblem(&ctx.Response, p, detail, faults)
}

// call is one request to a route off the order path.
type call struct {
	ctx    *fasthttp.RequestCtx
	who    *principal
	params [paramsMax][]byte
	late   bool // it came after the node began to drain

	reading context.Context // nil until patience was asked for
	end     context.CancelFunc
}

// patience ends when the caller has waited long enough for what is read for it.
func (s *Server) patience(c *call) context.Context {
	if c.reading == nil {
		c.reading, c.end = s.node.Patience(s.ctx)
	}
	return c.reading
}

// acquire takes a seat. What came in time gets one, however long it had to wait.
func (s *Server) acquire(c *call, class own.Class) (*actors.Request, error) {
	if c.late {
		return nil, actors.ErrDraining
	}
	return s.node.Admit(class)
}

// dispatch answers any request but the placing of an order.
func (s *Server) dispatch(ctx *fasthttp.RequestCtx, routes *router) {
	begin := clockd.Mono()
	seen := s.front.broken
	s.guard(ctx, func(ctx *fasthttp.RequestCtx) {
		r, err := s.route(ctx, routes)
		if r != nil {
			seen = r.seen
		}
		if err != nil {
			no := asRefusal(err)
			if no.problem == internalError || errors.Is(err, plugins.ErrNotCompiled) {
				s.cfg.Logger.Error("a request failed", about(ctx, "error", err)...)
			}
			s.refuse(ctx, no.problem, no.detail, no.faults)
		}
		if ctx.Request.Header.RequestURI()[0] != '/' {
			s.part(ctx)
		}
	})
	s.done(ctx, seen, begin)
}

// route finds the request's route, checks the caller and runs it.
func (s *Server) route(ctx *fasthttp.RequestCtx, routes *router) (*route, error) {
	target := ctx.Request.Header.RequestURI()
	if no := framing(ctx); no != nil {
		return nil, no
	}
	path := target
	for i, c := range target {
		if c == '?' || c == '#' {
			path = target[:i]
			break
		}
	}
	node, params := routes.find(path)
	if node == nil || len(node.routes) == 0 {
		return nil, refuse(notFound, whereTo)
	}
	r := node.method(ctx.Method())
	if r == nil {
		ctx.Response.Header.Set("Allow", node.allow)
		return nil, &refusal{problem: methodNotAllowed}
	}
	c := &call{ctx: ctx, params: params, late: s.node.Draining()}
	defer func() {
		if c.end != nil {
			c.end()
		}
	}()
	if r.allow != 0 {
		check := s.admit
		if routes == s.admin && r.allow == operator && ctx.IsGet() {
			check = s.known // who looks after the node in bad times is never told to come back later
		}
		who, no := check(ctx, r.allow)
		if no.problem != noProblem {
			return r, refuse(no.problem, no.message)
		}
		c.who = who
	}
	return r, r.handle(s, c)
}

// whereTo tells who is at a path without a route where the paths are: it answers on
// both listeners.
const whereTo = "there is nothing at this path: GET /openapi.yaml describes those that there are, and on which listener each is"

// framing refuses a request that refuseFraming has marked, and ends its
// connection.
func framing(ctx *fasthttp.RequestCtx) *refusal {
	if ctx.Request.Header.RequestURI()[0] == '/' {
		return nil
	}
	ctx.SetConnectionClose()
	if string(ctx.Request.Header.RequestURI()) == string(largeTarget) {
		return &refusal{problem: bodyTooLarge}
	}
	switch p, _ := framingFault(ctx.Request.Header.RawHeaders()); p {
	case noProblem:
		return refuse(invalidRequest, "the request's target must be a path")
	case transferEncodingRefused:
		return refuse(p, "send the body with Content-Length")
	case unsupportedMediaType:
		ctx.Response.Header.Set(fasthttp.HeaderAcceptEncoding, "identity")
		return refuse(p, "send the body as it is, without a Content-Encoding")
	case keyInvalid:
		return refuse(p, "Idempotency-Key must be given once")
	default:
		return refuse(p, "a header is not one that every parser reads alike")
	}
}

// admit says who calls, unless the caller is not known, may not do this, or
// does too much.
func (s *Server) admit(ctx *fasthttp.RequestCtx, allow role) (*principal, orderFault) {
	who, no := s.known(ctx, allow)
	if no.problem != noProblem || s.cfg.Limiter == nil {
		return who, no
	}
	name := who.name
	if who == trusted {
		name = ctx.RemoteIP()
	}
	if !s.allow(ctx, who.role, name, takeToken) {
		return nil, orderFault{problem: rateLimited}
	}
	return who, orderFault{}
}

// known is admit for whoever may do as much as they like.
func (s *Server) known(ctx *fasthttp.RequestCtx, allow role) (*principal, orderFault) {
	if s.cfg.Auth == nil && !isLocal(&ctx.Request.Header) {
		return nil, orderFault{problem: forbidden, message: wantLocal}
	}
	tried := false
	who, p := s.cfg.Auth.caller(ctx.Request.Header.PeekCanonical(headerAuthorization), func() bool {
		tried = s.allow(ctx, unknown, ctx.RemoteIP(), lookOnly)
		return tried
	})
	if tried && p != noProblem { // many shoppers may share an address: it pays for what was no token alone
		s.allow(ctx, unknown, ctx.RemoteIP(), takeToken)
	}
	if p != noProblem {
		return nil, orderFault{problem: p}
	}
	if who.role&allow == 0 {
		return nil, orderFault{problem: forbidden}
	}
	return who, orderFault{}
}

var headerAuthorization = []byte("Authorization")

// What allow does to a bucket.
const (
	lookOnly  = false
	takeToken = true
)

// allow takes a token from a client's bucket, or looks whether there is one: a
// shopper and a merchant of one name have two buckets. Callers in open mode, and
// those who are not known yet, are told apart by their address.
func (s *Server) allow(ctx *fasthttp.RequestCtx, as role, name []byte, take bool) bool {
	if s.cfg.Limiter == nil {
		return true
	}
	var b [128]byte
	d := s.cfg.Limiter.Ask(append(append(b[:0], byte(as)), name...), s.cfg.Clock.Now().Mono, take)
	s.limitHeaders(ctx, d.AppendRateLimit(b[:0]))
	if !d.OK {
		ctx.Response.Header.SetBytesV("Retry-After", fasthttp.AppendUint(b[:0], admit.RetryAfter(d.Retry, time.Second)))
	}
	return d.OK
}

// limitHeaders says how much more a client may ask for, if there are limits.
func (s *Server) limitHeaders(ctx *fasthttp.RequestCtx, left []byte) {
	if s.cfg.Limiter != nil && len(left) > 0 {
		ctx.Response.Header.Set("RateLimit-Policy", s.cfg.Limiter.Policy())
		ctx.Response.Header.SetBytesKV(headerRateLimit, left)
	}
}

// headerRateLimit is as fasthttp normalizes it.
var headerRateLimit = []byte("Ratelimit")

// done records a request that was answered.
func (s *Server) done(ctx *fasthttp.RequestCtx, seen *obs.Route, begin int64) {
	took := time.Duration(clockd.Mono() - begin)
	status := ctx.Response.StatusCode()
	seen.Observe(status, took)
	if s.cfg.Logger.Enabled(s.ctx, slog.LevelDebug) {
		s.cfg.Logger.Debug("request", "request_id", string(requestID(ctx)), "deal_id", dealOf(ctx), "method", string(ctx.Method()),
			"target", string(ctx.Request.Header.RequestURI()), "status", status, "took", took)
	}
}

// dealNoted is where noteDeal leaves the id, under a key of its own type.
type dealNoted struct{}

// noteDeal keeps the deal's id for the log lines of a request that names it in
// its body or query, if it is one. It allocates.
func noteDeal(ctx *fasthttp.RequestCtx, id []byte) {
	if deal.ValidID(id) {
		ctx.SetUserValue(dealNoted{}, string(id))
	}
}

// dealOf returns the id of the deal that the request is about, "" if it names
// none.
func dealOf(ctx *fasthttp.RequestCtx) string {
	if id, ok := ctx.UserValue(dealNoted{}).(string); ok {
		return id
	}
	rest, ok := bytes.CutPrefix(ctx.Path(), []byte("/api/v1/"))
	if !ok {
		return ""
	}
	kind, rest, _ := bytes.Cut(rest, []byte("/"))
	id, _, _ := bytes.Cut(rest, []byte("/"))
	switch string(kind) {
	case "orders":
		id, _, _ = deal.ParseOrderID(id)
	case "groups":
		id, _, _ = deal.ParseGroupID(id)
	case "deals":
	default:
		id = nil
	}
	return string(id)
}
