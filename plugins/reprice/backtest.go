package reprice

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// A slice of a backtest ends after so many events, or so much fuel: about a
// millisecond. Nothing larger than what comes of one slice is ever in memory.
const (
	sliceEvents = 512
	sliceFuel   = 1_000_000
)

// Candidate is a version of a rule that is tried on recorded orders.
type Candidate struct {
	Merchant string // whose deal it is, and by whose name the rule is looked up
	Rule     string
	Version  uint32
	// From and To bound the orders: placed at From or later, and before To. Unix
	// ms; a To of 0 is no bound.
	From, To int64
}

// Backtest prices the recorded orders of one deal as if a candidate had been
// there. The candidate stands where the deal named its rule, even if that was
// switched off, or behind all rules of a deal that did not. All else is as it was: the rules behind it run in the
// versions that the order records; one that the order did not come to, because a
// rule before it ended the pricing, runs in its stable version of now.
//
// An order is priced by itself: what the order before it would have cost, or that
// it would have been refused, changes nothing for the next. Orders that the rules
// refused left no event, so they are not among those that a backtest sees.
type Backtest struct {
	rules     *plugins.Registry
	candidate Candidate
	summary   *Summary

	spec  *deal.Spec // as of the last event, nil before the first
	off   []string   // rules that were switched off by then
	tried *deal.Spec // spec without them, and with the candidate
	event deal.Event
	reply deal.Reply
	found Change // of event
	fuel  uint64 // used by all rules together
	ended bool   // every later order is beyond the candidate's bounds

	ctx context.Context // of the Run that is under way, for its rules
	err error           // of a rule that should have run
}

// NewBacktest prepares a candidate. The errors are those of
// plugins.Registry.EvaluateVersion.
func NewBacktest(ctx context.Context, rules *plugins.Registry, c Candidate) (*Backtest, error) {
	b := &Backtest{rules: rules, candidate: c, summary: newSummary()}
	// The first evaluation compiles the module.
	return b, rules.EvaluateAgain(ctx, c.Merchant, c.Rule, c.Version, &abi.Input{}, &abi.Verdict{})
}

// Change is an order that the candidate would have priced otherwise, or refused.
// It is valid until the Sink has taken it.
type Change struct {
	Seq      uint64
	Order    *deal.Event // as it was recorded
	Discount int64       // of all rules, under the candidate
	Refused  bool        // by the candidate, or by a rule behind it
	// Candidate is what the candidate answered; nil if an earlier rule ended the
	// pricing before it.
	Candidate *deal.Evaluation
}

// Difference is what the shopper would have paid more, in minor units; all of
// it less, when the order would have been refused.
func (c *Change) Difference() int64 {
	if c.Refused {
		return -c.Order.Placed.Total()
	}
	return c.Order.Placed.Discount - c.Discount
}

// Sink takes what a backtest finds.
type Sink interface {
	// Change keeps nothing of c.
	Change(c *Change)
	// Flush is called after each slice, outside of it: it may wait for a reader.
	Flush() error
}

// Run goes through the events of the deal's stream up to the last one, a slice
// at a time as pace allows, and gives every change to the sink. A nil pace does
// not wait. An error is the store's, the sink's, the context's, or says that a
// rule could not be run. It is called once.
func (b *Backtest) Run(ctx context.Context, store journal.Store, stream string, last uint64, pace *Pace, sink Sink) error {
	b.ctx = ctx
	for after := uint64(0); after < last && !b.ended; {
		err := pace.Slice(ctx, func() (err error) {
			after, err = b.slice(ctx, store, stream, after, last, sink)
			return err
		})
		if err = errors.Join(err, sink.Flush()); err != nil {
			return err
		}
	}
	return nil
}

// Summary is what Run has found so far.
func (b *Backtest) Summary() *Summary { return b.summary }

// slice takes some events and returns the seq of the last of them.
func (b *Backtest) slice(ctx context.Context, store journal.Store, stream string, after, last uint64, sink Sink) (uint64, error) {
	events, fuel := 0, b.fuel
	err := store.Read(ctx, stream, after, func(e journal.Event) error {
		change, err := b.take(e.Seq, e.Data)
		if err != nil {
			return fmt.Errorf("event %d of %s: %w", e.Seq, stream, err)
		}
		if change != nil {
			sink.Change(change)
		}
		after = e.Seq
		events++
		if after == last || b.ended || events == sliceEvents || b.fuel-fuel >= sliceFuel {
			return journal.ErrStop
		}
		return nil
	})
	if err == nil && events == 0 {
		err = fmt.Errorf("%w: events %d to %d of %s", journal.ErrNotFound, after+1, last, stream)
	}
	return after, err
}

// take looks at one event of the deal, in their order, and returns the change
// that it is, or nil.
func (b *Backtest) take(seq uint64, record []byte) (*Change, error) {
	switch deal.Kind(record[0]) {
	case deal.DealCreated, deal.DealChanged, deal.RuleSwitchedOff, deal.OrderPlaced:
	default: // no other event says anything of a price
		return nil, nil
	}
	e := &b.event
	if err := e.Decode(record); err != nil {
		return nil, err
	}
	e.Seq = seq
	switch {
	case e.Kind == deal.DealCreated:
		b.see(e.Spec)
	case b.spec == nil:
		return nil, fmt.Errorf("%w: an event before its deal", deal.ErrMalformed)
	case e.Kind == deal.DealChanged:
		if e.Patch.Rules != nil {
			b.off = nil // as the deal does
		}
		b.see(b.spec.With(e.Patch))
	case e.Kind == deal.RuleSwitchedOff:
		b.off = append(b.off, string(e.Rule))
		b.see(b.spec)
	case b.candidate.To != 0 && e.At >= b.candidate.To:
		b.ended = true
	case e.At >= b.candidate.From:
		return b.order(e)
	}
	return nil, nil
}

// see takes the deal as it is from now on.
func (b *Backtest) see(spec *deal.Spec) {
	tried, candidate := *spec, b.candidate.Rule
	tried.Rules = slices.DeleteFunc(slices.Clone(spec.Rules), func(rule string) bool {
		return rule != candidate && slices.Contains(b.off, rule)
	})
	if !slices.Contains(tried.Rules, candidate) {
		tried.Rules = append(tried.Rules, candidate)
	}
	b.spec, b.tried = spec, &tried
}

func (b *Backtest) order(e *deal.Event) (*Change, error) {
	b.reply.Reset()
	b.tried.Reprice(e, trial{b}, &b.reply)
	if b.err != nil {
		return nil, b.err
	}
	c := &b.found
	*c = Change{Seq: e.Seq, Order: e, Discount: b.reply.Event.Placed.Discount, Refused: b.reply.Code != deal.OK}
	evaluations := b.reply.Event.Placed.Evaluations
	if i := slices.IndexFunc(evaluations, func(v deal.Evaluation) bool { return string(v.Rule) == b.candidate.Rule }); i >= 0 {
		c.Candidate = &evaluations[i]
	}
	b.summary.add(c)
	if c.Difference() == 0 && !c.Refused {
		return nil, nil
	}
	return c, nil
}

// trial is the rules of the order in event, the candidate among them.
type trial struct{ *Backtest }

// Evaluate implements deal.Rules.
func (b trial) Evaluate(merchant, rule string, in *abi.Input, out *abi.Verdict) {
	owner, version := merchant, b.candidate.Version
	if rule != b.candidate.Rule {
		recorded, soFar := b.recorded(rule)
		if recorded != nil && (soFar == in.DiscountSoFar || recorded.Version == 0) {
			answer(recorded, out) // a rule is pure: it would say the same again
			return
		}
		if recorded != nil {
			owner, version = ownerOf(recorded, merchant), recorded.Version
		} else if now, err := b.rules.Rule(b.ctx, merchant, rule); err == nil {
			owner, version = now.Merchant, now.Rollout.Stable
		} else {
			version = 0
		}
	}
	b.run(owner, rule, version, in, out)
	b.fuel += out.Fuel
}

// recorded finds what a rule answered, and what the rules before it had taken
// off.
func (b *Backtest) recorded(rule string) (v *deal.Evaluation, soFar int64) {
	evaluations := b.event.Placed.Evaluations
	for i := range evaluations {
		if v = &evaluations[i]; string(v.Rule) == rule {
			return v, soFar
		}
		soFar += v.Discount
	}
	return nil, 0
}

func (b *Backtest) run(owner, rule string, version uint32, in *abi.Input, out *abi.Verdict) {
	if version != 0 {
		err := b.rules.EvaluateAgain(b.ctx, owner, rule, version, in, out)
		if err == nil {
			return
		}
		if !isInvalid(err) && b.err == nil {
			b.err = err
		}
	}
	out.Reset()
	out.Fault = abi.FaultRuleInit
}

// isInvalid says that a stored module does not pass this release's validation:
// as on the order path, it fails every order.
func isInvalid(err error) bool {
	var invalid *plugins.InvalidError
	return errors.As(err, &invalid)
}

// answer fills in a verdict as it was recorded.
func answer(v *deal.Evaluation, out *abi.Verdict) {
	out.Reset()
	out.SetOutput(abi.Output{Outcome: v.Outcome, Final: v.Final, Discount: v.Discount, Label: v.Label, Reason: v.Reason})
	out.Version, out.SHA256, out.House = v.Version, v.SHA256, v.House
	out.Fault, out.Fuel, out.Digest = v.Fault, v.Fuel, v.Digest
}
