package gateway

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/obs"
	"github.com/doorbuster/doorbuster/runtime/own"
	"github.com/doorbuster/doorbuster/runtime/yield"
)

// The order path.
//
//	placeOrder    POST /api/v1/orders
//	  admit       who calls: a hash and a look-up
//	  lateBody    wait for a body that is still on its way
//	  Admit       a seat; none is free: 503, and the body is not looked at
//	  readOrder   copy out of fasthttp's buffers → decode → whose order is it
//	  SoldOut     an atomic flag: 409 without waking the deal
//	  Call        decide → journal → sync
//	  encode      into the reply's own buffer
//
// Nothing here allocates once its buffers have grown. The seat holds all that
// the deal sees of the request, because at the deadline this handler goes and
// fasthttp reuses its memory, while the deal may still be reading.

// isPlaceOrder says whether the request goes to the path. A target with a
// query is found by the router, which ends at the same handler.
func isPlaceOrder(ctx *fasthttp.RequestCtx) bool {
	target := ctx.Request.Header.RequestURI()
	return (string(target) == "/api/v1/orders" || string(target) == "/api/v1/order") && ctx.IsPost()
}

func (s *Server) placeOrder(ctx *fasthttp.RequestCtx) {
	begin := clockd.Mono()
	s.countOrder(ctx, begin)
	s.done(ctx, s.orders.route, begin)
}

// countOrder answers the request, counts it and traces it if it is one to watch.
func (s *Server) countOrder(ctx *fasthttp.RequestCtx, begin int64) {
	watched := s.watch(ctx, begin)
	r, p := s.takeOrder(ctx, watched)
	if r != nil {
		p = s.giveOrder(ctx, r, s.callOrder(r, s.node.Call), watched)
	}
	s.ordered(ctx, watched, p)
	if wait := s.standsBack(p); wait > 0 {
		_ = s.cfg.Clock.Sleep(s.front.stopping, wait) // a shutdown ends it
	}
}

// ordered counts and traces an order that is answered with p.
func (s *Server) ordered(ctx *fasthttp.RequestCtx, watched *watchedOrder, p problem) {
	s.orders.count(p)
	if watched != nil {
		s.trace(ctx, watched, p)
	}
}

// callOrder calls for a seat that a bug must not cost.
func (s *Server) callOrder(r *actors.Request, call func(*actors.Request) error) error {
	called := false
	defer func() {
		if !called {
			s.vacate(r)
		}
	}()
	err := call(r)
	called = true
	return err
}

// takeOrder reads the request into a seat. It is nil if the request is answered already,
// with p.
func (s *Server) takeOrder(ctx *fasthttp.RequestCtx, watched *watchedOrder) (r *actors.Request, p problem) {
	key, who, p := s.orderHeaders(ctx)
	if p != noProblem {
		return nil, p
	}
	if s.node.Draining() {
		return nil, s.failOrder(ctx, actors.ErrDraining)
	}
	late, p := lateBody(ctx)
	if p != noProblem {
		return nil, s.refuseOrder(ctx, orderFault{problem: p})
	}
	r, err := s.node.Admit(own.ClassNew)
	if err != nil {
		return nil, s.failOrder(ctx, err)
	}
	whole := false
	defer func() {
		if !whole { // a bug: what is logged of it names the deal, and it costs no seat
			noteDeal(ctx, r.Deal)
			s.vacate(r)
		}
	}()
	r.Cmd.Kind = deal.Place
	f := readOrder(ctx, r, key, late, who)
	if s.cfg.Logger.Enabled(s.ctx, slog.LevelDebug) {
		noteDeal(ctx, r.Deal)
	}
	if f.problem != noProblem {
		p = s.refuseOrder(ctx, f)
	} else if spec := s.node.SoldOut(r.Deal, r.Cmd.User, r.Cmd.Key); spec != nil {
		s.orders.sale(r, spec, soldOut)
		p = s.refuseOrder(ctx, orderFault{problem: soldOut})
	}
	whole = true
	if p != noProblem {
		s.node.Release(r)
		return nil, p
	}
	if watched != nil {
		watched.call(r)
	}
	return r, noProblem
}

// giveOrder answers the request with what its deal said, and gives the seat back, unless it
// is somebody else's since the deadline.
func (s *Server) giveOrder(ctx *fasthttp.RequestCtx, r *actors.Request, err error, watched *watchedOrder) (p problem) {
	if watched != nil {
		watched.called(err)
	}
	if err != nil {
		if !errors.Is(err, actors.ErrDeadline) {
			s.node.Release(r)
		}
		return s.failOrder(ctx, err)
	}
	whole := false
	defer func() {
		if !whole {
			noteDeal(ctx, r.Deal)
		}
		s.node.Release(r)
	}()
	p = s.answerOrder(ctx, r)
	s.orders.sale(r, r.View.Spec, p)
	whole = true
	return p
}

// vacate releases the seat of a handler that ends or panicked, unless it is somebody
// else's now: nil says so, and so may the seat itself.
func (s *Server) vacate(r *actors.Request) {
	if r != nil && r.Held() {
		s.node.Release(r)
	}
}

// orderHeaders looks at what comes before the body.
func (s *Server) orderHeaders(ctx *fasthttp.RequestCtx) (key []byte, who *principal, p problem) {
	who, f := s.admit(ctx, shopper|operator)
	if f.problem != noProblem {
		return nil, nil, s.refuseOrder(ctx, f)
	}
	h := &ctx.Request.Header
	if !isJSON(h.ContentType()) {
		return nil, nil, s.refuseOrder(ctx, orderFault{problem: unsupportedMediaType, message: wantJSON})
	}
	if key, p = parseIdempotencyKey(h.PeekCanonical(headerIdempotencyKey)); p == keyInvalid {
		return nil, nil, s.refuseOrder(ctx, orderFault{problem: p, message: wantKey})
	} else if p != noProblem {
		return nil, nil, s.refuseOrder(ctx, orderFault{problem: p})
	}
	return key, who, noProblem
}

var headerIdempotencyKey = []byte("Idempotency-Key")

const (
	wantKey     = "Idempotency-Key must be 1 to 64 of A-Z a-z 0-9 _ -, in double quotes or not"
	wantJSON    = "the body must be application/json"
	wantPrivate = "must be the shopper's own, or absent"
)

// lateBody returns a body that has not all arrived when the handler begins,
// nil if it has: nobody holds a seat while a slow client is still sending.
func lateBody(ctx *fasthttp.RequestCtx) ([]byte, problem) {
	if ctx.Request.Header.ContentLength() <= bodyPrefetched {
		return nil, noProblem
	}
	return appendBody(nil, ctx, orderBodyMax)
}

// readOrder copies the request into the seat, key first, and decodes it there.
func readOrder(ctx *fasthttp.RequestCtx, r *actors.Request, key, late []byte, who *principal) orderFault {
	r.Body = append(append(r.Body[:0], key...), late...)
	if late == nil {
		var p problem
		if r.Body, p = appendBody(r.Body, ctx, orderBodyMax); p != noProblem {
			return orderFault{problem: p}
		}
	}
	r.Cmd.Key = r.Body[:len(key):len(key)]
	o := order{cmd: &r.Cmd}
	f := decodeOrder(r.Body[len(key):], &o)
	r.Deal = o.deal // of an order that is refused, too: what is logged of it names the deal
	if f.problem != noProblem {
		return f
	}
	r.Cmd.User = o.user
	if f := who.ordersFor(&r.Cmd); f.problem != noProblem {
		return f
	}
	if r.Cmd.GroupMode == deal.JoinGroup {
		var scratch [deal.MaxIDLen]byte
		name, seq, ok := deal.ParseGroupID(o.join)
		if !ok || !bytes.Equal(name, deal.AppendName(scratch[:0], o.deal)) {
			return orderFault{problem: groupNotFound, field: fieldJoin, message: "is no group of this deal"}
		}
		r.Cmd.Group = seq
	}
	return orderFault{}
}

// ordersFor settles for whom an order is: a shopper's own, or whom an operator
// names.
func (p *principal) ordersFor(c *deal.Command) orderFault {
	if p.role == shopper {
		if c.User != nil && !bytes.Equal(c.User, p.name) {
			return orderFault{problem: forbidden, field: fieldUser, message: wantPrivate}
		}
		c.User = p.name
	}
	if c.User == nil {
		return orderFault{problem: invalidRequest, field: fieldUser, message: "is required"}
	}
	return orderFault{}
}

// appendBody reads the request's body, of at most limit bytes, behind b. A
// larger one is refused before it is read.
func appendBody(b []byte, ctx *fasthttp.RequestCtx, limit int) ([]byte, problem) {
	n := ctx.Request.Header.ContentLength()
	if n > limit {
		return b, bodyTooLarge
	}
	stream := ctx.RequestBodyStream()
	if n <= 0 || stream == nil {
		return b, noProblem
	}
	at := len(b)
	if cap(b)-at < n {
		b = append(make([]byte, 0, at+n), b...)
	}
	b = b[:at+n]
	if n > yield.PieceBytes {
		stream = yield.Reader{From: stream}
	}
	if _, err := io.ReadFull(stream, b[at:]); err != nil {
		return b[:at], requestTimeout
	}
	return b, noProblem
}

// isJSON says whether a Content-Type is JSON, with or without parameters.
func isJSON(contentType []byte) bool {
	const want = "application/json"
	if len(contentType) < len(want) || !bytes.EqualFold(contentType[:len(want)], s2b(want)) {
		return false
	}
	return len(contentType) == len(want) || contentType[len(want)] == ';' || contentType[len(want)] == ' '
}

// refuseOrder answers with a problem. It copies what it needs of f.
func (s *Server) refuseOrder(ctx *fasthttp.RequestCtx, f orderFault) problem {
	if f.field == nil {
		s.refuse(ctx, f.problem, f.message, nil)
		return f.problem
	}
	faults := [...]fault{{field: b2s(f.field), message: f.message}}
	s.refuse(ctx, f.problem, "", faults[:])
	return f.problem
}

// standsBack is how long the answer to an order that came to p has to wait, which is
// turned away because the node is full.
func (s *Server) standsBack(p problem) time.Duration {
	if p != overloaded {
		return 0
	}
	return s.turnedAway.Delay(s.cfg.Clock.Now().Mono)
}

// failOrder answers with an error of the node.
func (s *Server) failOrder(ctx *fasthttp.RequestCtx, err error) problem {
	p := problemOfError(err)
	if p == internalError {
		s.cfg.Logger.Error("an order failed", about(ctx, "error", err)...)
	}
	return s.refuseOrder(ctx, orderFault{problem: p})
}

// answerOrder encodes the decision in r.
func (s *Server) answerOrder(ctx *fasthttp.RequestCtx, r *actors.Request) problem {
	if r.Reply.Code != deal.OK {
		return s.refuseOrder(ctx, faultOfReply(&r.Reply))
	}
	if r.Reply.Replayed {
		return s.answerReplay(ctx, r)
	}
	s.writeOrder(ctx, &orderView{
		deal: r.Deal, currency: r.View.Spec.Currency, seq: r.Reply.Order, at: r.Reply.Event.At,
		placed: &r.Reply.Event.Placed, status: deal.Reserved, group: r.Reply.Group,
	})
	return noProblem
}

// answerReplay gives a repeated key its first answer again, from the journal.
func (s *Server) answerReplay(ctx *fasthttp.RequestCtx, r *actors.Request) problem {
	var o actors.Order
	if err := s.node.LoadPlaced(s.ctx, r, &o); err != nil {
		return s.failOrder(ctx, err)
	}
	p := &o.Event.Placed
	view := orderView{
		deal: r.Deal, currency: o.Currency, seq: o.Seq, at: o.Event.At, placed: p, status: deal.Reserved,
	}
	if p.GroupMode != deal.Alone { // as it was then
		view.group = deal.GroupView{
			Seq: p.Group, Size: r.Reply.Group.Size, Members: p.GroupMembers, Status: deal.Forming, ExpiresAt: p.GroupEnds,
		}
		if p.GroupMode == deal.OpenGroup {
			view.group.Seq = o.Seq
		}
	}
	ctx.Response.Header.SetCanonical(headerReplayed, s2b("true"))
	s.writeOrder(ctx, &view)
	return replayed
}

var headerReplayed = []byte("Idempotent-Replayed")

func (s *Server) writeOrder(ctx *fasthttp.RequestCtx, o *orderView) {
	resp := &ctx.Response
	resp.SetStatusCode(fasthttp.StatusCreated)
	resp.Header.SetContentTypeBytes(jsonMediaType)
	resp.SwapBody(appendOrder(resp.SwapBody(nil)[:0], o))
}

var jsonMediaType = []byte("application/json; charset=utf-8")

// faultOfReply says how a decision against a command is answered. Its message may
// lie in r.
func faultOfReply(r *deal.Reply) orderFault {
	f := orderFault{problem: problemOfCode[r.Code], message: r.Detail}
	switch r.Code {
	case deal.GroupNotOffered:
		f.field, f.message = fieldGroup, "cannot be chosen: this deal has no groups"
	case deal.QuantityInvalid:
		f.field, f.message = fieldQuantity, wantQuantity
	case deal.OrderTooLarge:
		f.field, f.message = fieldAttributes, "and codes are, with those of the deal, more than the deal's rules can be told"
	case deal.DealInvalid:
		field, message, _ := strings.Cut(r.Detail, ": ")
		f.field, f.message = []byte(field), message
	case deal.OrderStateConflict:
		f.message = orderIs[r.Status]
	case deal.RuleRejected:
		if label := refusalLabel(r); len(label) > 0 {
			f.message = b2s(label)
		}
	default: // the code says it all
	}
	return f
}

// orderIs says where an order stands that cannot take the step it was asked for.
var orderIs = [...]string{
	deal.Reserved: "the order is reserved", deal.Paid: "the order is paid", deal.Confirmed: "the order is confirmed",
	deal.Cancelled: "the order is cancelled", deal.Expired: "the order has expired",
	deal.RefundDue: "the order is due a refund", deal.Refunded: "the order is refunded",
}

// refusalLabel is what the rule that refused an order tells the shopper. It is empty
// if the rule has no words for it, or failed.
func refusalLabel(r *deal.Reply) []byte {
	if all := r.Event.Placed.Evaluations; len(all) > 0 && all[len(all)-1].Outcome == abi.OutcomeReject {
		return all[len(all)-1].Label
	}
	return nil
}

// replayed stands beside the problems: the order was placed before, and is not
// to be counted again.
const replayed = problemCount

// orderSeries counts orders by how they were answered, and by what was sold where.
type orderSeries struct {
	route    *obs.Route
	outcomes [problemCount + 1]obs.Count
	sales    *obs.Sales
}

func newOrderSeries(m *obs.Metrics, sales *obs.Sales) orderSeries {
	o := orderSeries{route: m.Route(fasthttp.MethodPost, "/api/v1/orders"), sales: sales}
	o.outcomes[noProblem], o.outcomes[replayed] = m.Outcome("reserved"), m.Outcome("replayed")
	for p := noProblem + 1; p < problemCount; p++ {
		o.outcomes[p] = m.Outcome(problems[p].code)
	}
	return o
}

func (o *orderSeries) count(p problem) { o.outcomes[p].Inc() }

// sale counts an order that its deal has decided. What was placed before is no sale.
func (o *orderSeries) sale(r *actors.Request, spec *deal.Spec, p problem) {
	if spec == nil || p == replayed {
		return
	}
	decided, value := obs.SaleRefused, int64(0)
	if p == noProblem {
		decided, value = obs.SaleAccepted, r.Reply.Event.Placed.Total()
	}
	var channel []byte
	for _, kv := range r.Cmd.Attributes {
		if string(kv.Key) == "channel" {
			channel = kv.Value
		}
	}
	o.sales.Count(spec.Category, spec.Currency, channel, decided, value)
}
