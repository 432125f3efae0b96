package gateway

import (
	"context"
	"errors"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/trace"
)

var headerTraceparent = []byte("Traceparent")

// watchedOrder is an order whose course is traced.
type watchedOrder struct {
	parent context.Context // of its spans
	begin  int64           // Mono ns, as all that follows
	sent   int64           // to its deal; 0 = it never was
	back   int64           // with the answer
	deal   string
	course *actors.Course // nil = unknown: the deal may still be writing it
}

// watch returns nil for most orders, and for all if there is no tracer.
func (s *Server) watch(ctx *fasthttp.RequestCtx, begin int64) *watchedOrder {
	if s.cfg.Tracer == nil {
		return nil
	}
	parent, watch := s.cfg.Tracer.Begin(ctx.Request.Header.PeekCanonical(headerTraceparent))
	if !watch {
		return nil
	}
	return &watchedOrder{parent: parent, begin: begin}
}

// call is told that the order goes to its deal.
func (w *watchedOrder) call(r *actors.Request) {
	w.deal, w.course = string(r.Deal), new(actors.Course)
	r.Course, w.sent = w.course, clockd.Mono()
}

// called is told how that ended.
func (w *watchedOrder) called(err error) {
	w.back = clockd.Mono()
	if errors.Is(err, actors.ErrDeadline) {
		w.course = nil
	}
}

// trace turns what was taken down into spans.
func (s *Server) trace(ctx *fasthttp.RequestCtx, w *watchedOrder, p problem) {
	outcome := "reserved"
	switch {
	case p == replayed:
		outcome = "replayed"
	case p != noProblem:
		outcome = problems[p].code
	}
	var status [3]byte
	order := trace.Span{
		Name: "POST /api/v1/orders", Begin: w.begin, End: clockd.Mono(),
		Attributes: []trace.Attribute{
			{Key: "http.request.method", Value: fasthttp.MethodPost},
			{Key: "http.route", Value: "/api/v1/orders"},
			{Key: "http.response.status_code", Value: string(fasthttp.AppendUint(status[:0], ctx.Response.StatusCode()))},
			{Key: "doorbuster.request_id", Value: string(requestID(ctx))},
			{Key: "doorbuster.deal_id", Value: w.deal},
			{Key: "doorbuster.outcome", Value: outcome},
		},
	}
	if ctx.Response.StatusCode() >= fasthttp.StatusInternalServerError {
		order.Failed = outcome
	}
	if w.sent != 0 {
		order.Steps = append(order.Steps, trace.Span{Name: "deal", Begin: w.sent, End: w.back, Steps: stepsOf(w)})
	}
	s.cfg.Tracer.Record(w.parent, &order)
}

// stepsOf are the steps within the deal.
func stepsOf(w *watchedOrder) []trace.Span {
	c := w.course
	if c == nil || c.Begun == 0 {
		return nil
	}
	steps := []trace.Span{
		{Name: "mailbox", Begin: w.sent, End: c.Begun},
		{Name: "decide", Begin: c.Begun, End: c.Decided, Steps: []trace.Span{{Name: "rules", Begin: c.RuleBegun, End: c.RuleEnded}}},
	}
	if c.Decided != 0 {
		steps = append(steps, trace.Span{Name: "journal commit", Begin: c.Decided, End: c.Answered})
	}
	return steps
}
