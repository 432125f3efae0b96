package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	json "github.com/goccy/go-json"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/reprice"
)

// A backtest is answered with lines of JSON: one for each order that the
// candidate would have priced otherwise, then the summary. A line of type error in
// the summary's place says why there is none. The lines are written as they are
// found; a client that leaves, or does not read, ends the backtest.

// backtestBody says on which orders a candidate is tried.
type backtestBody struct {
	MerchantID string       `json:"merchant_id"`
	DealID     string       `json:"deal_id"`
	From       optionalTime `json:"from"`
	To         optionalTime `json:"to"`
}

func (s *Server) backtestRule(c *call) error {
	var body backtestBody
	if err := c.readJSON(&body); err != nil {
		return err
	}
	if !deal.ValidID(body.DealID) {
		return refuseField(invalidRequest, "deal_id", "is required, 1 to 64 of A-Z a-z 0-9 _ -")
	}
	id, err1 := c.ruleID()
	n, err2 := c.version()
	owner, err3 := c.merchantOf(body.MerchantID)
	v, err4 := s.ownDeal(c, []byte(body.DealID))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	if owner != "" && owner != v.Spec.Merchant {
		return refuseField(invalidRequest, "merchant_id", "is not the merchant of the deal")
	}
	if body.To.ms != 0 && body.To.ms <= body.From.ms {
		return refuseField(invalidRequest, "to", "must be later than from")
	}
	candidate := reprice.Candidate{Merchant: v.Spec.Merchant, Rule: id, Version: n, From: body.From.ms, To: body.To.ms}
	test, err := reprice.NewBacktest(s.ctx, s.cfg.Rules, candidate)
	if err != nil {
		return err
	}
	return s.openStream(c, s.trials, ndjson, "", func(out *eventWriter) error {
		ctx, cancel := context.WithCancel(s.front.stopping)
		defer cancel()
		defer out.watch(cancel)()
		return s.backtest(ctx, test, &candidate, &v, out)
	})
}

// backtest runs a backtest and writes all of its lines.
func (s *Server) backtest(ctx context.Context, test *reprice.Backtest, candidate *reprice.Candidate, v *deal.View, out *eventWriter) error {
	lines := &backtestLines{out: out, spec: v.Spec}
	begin := clockd.Mono()
	err := test.Run(ctx, s.cfg.Store, v.Spec.ID, v.Seq, s.pace, lines)
	if err == nil {
		lines.add(newSummaryLine(test.Summary(), candidate, v.Spec, time.Duration(clockd.Mono()-begin)))
		return lines.Flush()
	}
	if lines.err == nil { // nobody reads any more otherwise
		no := asRefusal(err)
		if s.front.stopping.Err() != nil {
			no = &refusal{problem: draining}
		}
		lines.add(errorLine{Type: "error", Code: problems[no.problem].code, Detail: problems[no.problem].title})
		_ = lines.Flush()
	}
	return err
}

// watch calls gone when the client closes the connection, or its side of it. stop
// ends that, and waits until nothing reads from the connection.
func (w *eventWriter) watch(gone func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, w.conn)
		gone()
	}()
	return func() {
		_ = w.conn.SetReadDeadline(past)
		<-done
	}
}

// backtestLines implements reprice.Sink.
type backtestLines struct {
	out  *eventWriter
	spec *deal.Spec
	err  error // the first
}

// Change implements reprice.Sink.
func (l *backtestLines) Change(c *reprice.Change) { l.add(newDifferenceLine(c, l.spec)) }

// Flush implements reprice.Sink.
func (l *backtestLines) Flush() error {
	if l.err == nil && len(l.out.buf) > 0 {
		l.err = l.out.flush()
	}
	return l.err
}

func (l *backtestLines) add(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(fmt.Sprintf("gateway: %T is no JSON: %v", line, err)) // lines are plain structs
	}
	l.out.buf = append(append(l.out.buf, text...), '\n')
}

// differenceLine is an order that the candidate would have priced otherwise.
type differenceLine struct {
	Type       string         `json:"type"` // difference
	OrderID    string         `json:"order_id"`
	CreatedAt  instant        `json:"created_at"`
	Quantity   uint32         `json:"quantity"`
	Subtotal   int64          `json:"subtotal"`
	Recorded   pricedLine     `json:"recorded"`
	Candidate  *pricedLine    `json:"candidate,omitempty"` // absent: refused
	Difference int64          `json:"difference"`
	Answer     *candidateLine `json:"answer,omitempty"` // absent: an earlier rule ended the pricing
}

type pricedLine struct {
	DiscountTotal int64 `json:"discount_total"`
	Total         int64 `json:"total"`
}

// candidateLine is what the candidate itself answered.
type candidateLine struct {
	Outcome  string `json:"outcome"`
	Discount int64  `json:"discount"`
	Label    string `json:"label,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Fault    string `json:"fault,omitempty"`
	Fuel     uint64 `json:"fuel"`
}

func newDifferenceLine(c *reprice.Change, spec *deal.Spec) *differenceLine {
	p := &c.Order.Placed
	l := &differenceLine{
		Type: "difference", OrderID: string(deal.AppendOrderID(nil, spec.ID, c.Seq)), CreatedAt: instant(c.Order.At),
		Quantity: p.Quantity, Subtotal: p.Subtotal(), Recorded: pricedLine{p.Discount, p.Total()}, Difference: c.Difference(),
	}
	if !c.Refused {
		l.Candidate = &pricedLine{c.Discount, p.Subtotal() - c.Discount}
	}
	if e := c.Candidate; e != nil {
		l.Answer = &candidateLine{Outcome: e.Outcome.String(), Discount: e.Discount, Label: string(e.Label), Reason: string(e.Reason), Fuel: e.Fuel}
		if e.Fault != abi.FaultNone {
			l.Answer.Outcome, l.Answer.Fault = "fault", e.Fault.String()
		}
	}
	return l
}

// errorLine stands in the summary's place.
type errorLine struct {
	Type   string `json:"type"` // error
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// summaryLine is all orders of a backtest together.
type summaryLine struct {
	Type               string            `json:"type"` // summary
	DealID             string            `json:"deal_id"`
	RuleID             string            `json:"rule_id"`
	Version            uint32            `json:"version"`
	Currency           string            `json:"currency"`
	Orders             uint64            `json:"orders"`
	Changed            uint64            `json:"changed"`
	Cheaper            uint64            `json:"cheaper"`
	Dearer             uint64            `json:"dearer"`
	Refused            uint64            `json:"refused"`
	Recorded           sumsLine          `json:"recorded"`
	Candidate          sumsLine          `json:"candidate"`
	RevenueDifference  int64             `json:"revenue_difference"`
	DiscountDifference int64             `json:"discount_difference"`
	Outcomes           outcomesLine      `json:"outcomes"`
	Faults             map[string]uint64 `json:"faults"`
	Fuel               fuelLine          `json:"fuel"`
	Distribution       distributionLine  `json:"distribution"`
	Milliseconds       int64             `json:"duration_ms"`
	// Added says that the deal does not name the rule, which ran behind all that it names.
	Added bool `json:"added,omitempty"`
}

type sumsLine struct {
	Revenue  int64 `json:"revenue"`
	Discount int64 `json:"discount"`
}

type outcomesLine struct {
	None     uint64 `json:"none"`
	Discount uint64 `json:"discount"`
	Reject   uint64 `json:"reject"`
	Fault    uint64 `json:"fault"`
	NotRun   uint64 `json:"not_run"`
}

type fuelLine struct {
	P50 uint64 `json:"p50"`
	P99 uint64 `json:"p99"`
	Max uint64 `json:"max"`
}

// distributionLine has two histograms. Bounds are per cent of an order's
// subtotal: a bucket holds what is more than the bound nearer to 0 and at most the
// other one; that from 0 to 0 holds nothing but 0.
type distributionLine struct {
	Change   []changeBucket   `json:"change"`   // of what the shopper pays
	Discount []discountBucket `json:"discount"` // of all rules together
}

type changeBucket struct {
	From   int    `json:"from"`
	To     int    `json:"to"`
	Orders uint64 `json:"orders"`
}

type discountBucket struct {
	From      int    `json:"from"`
	To        int    `json:"to"`
	Recorded  uint64 `json:"recorded"`
	Candidate uint64 `json:"candidate"`
}

func newSummaryLine(s *reprice.Summary, candidate *reprice.Candidate, spec *deal.Spec, took time.Duration) *summaryLine {
	l := &summaryLine{
		Type: "summary", DealID: spec.ID, RuleID: candidate.Rule, Version: candidate.Version, Currency: string(spec.Currency[:]),
		Orders: s.Orders, Changed: s.Changed, Cheaper: s.Cheaper, Dearer: s.Dearer, Refused: s.Refused,
		Recorded: sumsLine(s.Recorded), Candidate: sumsLine(s.Candidate),
		RevenueDifference:  s.Candidate.Revenue - s.Recorded.Revenue,
		DiscountDifference: s.Candidate.Discount - s.Recorded.Discount,
		Outcomes:           outcomesLine{None: s.None, Discount: s.Gave, Reject: s.Rejects, NotRun: s.Orders - s.Ran},
		Faults:             map[string]uint64{},
		Fuel:               fuelLine{s.Fuel(50), s.Fuel(99), s.FuelMax()},
		Milliseconds:       took.Milliseconds(),
		Added:              !slices.Contains(spec.Rules, candidate.Rule),
	}
	for fault, n := range s.Faults {
		if fault := abi.Fault(fault); fault != abi.FaultNone {
			l.Faults[fault.String()] = n
			l.Outcomes.Fault += n
		}
	}
	const part = 100 / reprice.Buckets
	for i, n := range s.Change {
		b := changeBucket{Orders: n}
		switch at := i - reprice.Buckets; {
		case at < 0:
			b.From, b.To = at*part, (at+1)*part
		case at > 0:
			b.From, b.To = (at-1)*part, at*part
		}
		l.Distribution.Change = append(l.Distribution.Change, b)
	}
	for i, n := range s.RecordedDiscount {
		b := discountBucket{From: max(0, i-1) * part, To: i * part, Recorded: n, Candidate: s.CandidateDiscount[i]}
		l.Distribution.Discount = append(l.Distribution.Discount, b)
	}
	return l
}
