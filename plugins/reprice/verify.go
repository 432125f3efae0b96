// Package reprice prices orders of the journal again.
//
// An order's event holds what its rules were told and what they answered, and a
// rule is pure. So the same versions on the same input give the same price for
// ever, which Verify proves of one order, and another version tells what it would
// have done, which a Backtest collects over the orders of a deal.
//
// Nothing here writes, and nothing is counted among the rules' evaluations.
package reprice

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Verification is an order that was priced again.
type Verification struct {
	Rules       []Again      // one for each evaluation in the order's event
	Differences []Difference // of the order as a whole
}

// Again is one evaluation that was done again.
type Again struct {
	plugins.Evaluation
	Input       []byte // what the rule was told, as the ABI encodes it
	Differences []Difference
}

// Difference is a field that is not what was recorded.
type Difference struct{ Field, Recorded, Now string }

// String names the field and both values.
func (d Difference) String() string {
	return fmt.Sprintf("%s was %s and is now %s", d.Field, d.Recorded, d.Now)
}

// Same says whether everything was as it was recorded.
func (v *Verification) Same() bool {
	for i := range v.Rules {
		if len(v.Rules[i].Differences) > 0 {
			return false
		}
	}
	return len(v.Differences) == 0
}

// Verify evaluates the rules of an order again: each recorded version, on the
// input that its event records. The spec is the order's deal, with whatever
// patches. What cannot be evaluated any more is a difference. An error is the
// context's end, or says that a version cannot be had just now:
// plugins.ErrNotCompiled, journal.ErrUnreachable.
func Verify(ctx context.Context, rules *plugins.Registry, spec *deal.Spec, e *deal.Event) (*Verification, error) {
	p := &e.Placed
	v := &Verification{Rules: make([]Again, len(p.Evaluations))}
	in := spec.Input()
	e.Input(&in)
	for i := range p.Evaluations {
		recorded, again := &p.Evaluations[i], &v.Rules[i]
		if err := again.evaluate(ctx, rules, spec.Merchant, recorded, &in); err != nil {
			return nil, err
		}
		in.DiscountSoFar += recorded.Discount
	}
	v.Differences = compare(nil, "discount_total", p.Discount, in.DiscountSoFar)
	return v, nil
}

func (a *Again) evaluate(ctx context.Context, rules *plugins.Registry, merchant string, recorded *deal.Evaluation, in *abi.Input) error {
	a.Input, _ = in.Append(nil) // an input that does not fit was evaluated to a fault, and will be again
	if recorded.Version == 0 {
		a.Fault = abi.FaultRuleInit // there was no such rule
		a.Differences = a.compare(recorded)
		return nil
	}
	if recorded.Fault == abi.FaultRuleInit && recorded.Digest == 0 && recorded.Fuel == 0 {
		// It was not evaluated, since the version did not run there at that time.
		a.Fault, a.Version, a.SHA256, a.House = recorded.Fault, recorded.Version, recorded.SHA256, recorded.House
		a.Differences = a.compare(recorded)
		return nil
	}
	now, err := rules.EvaluateVersion(ctx, ownerOf(recorded, merchant), string(recorded.Rule), recorded.Version, in)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, plugins.ErrNotCompiled) || errors.Is(err, journal.ErrUnreachable):
		return err
	case err != nil:
		a.Differences = []Difference{{"version", strconv.FormatUint(uint64(recorded.Version), 10), "not there: " + err.Error()}}
		return nil
	default:
		a.Evaluation = *now
	}
	a.Differences = a.compare(recorded)
	return nil
}

// ownerOf returns the merchant by whose name the registry knows a rule.
func ownerOf(recorded *deal.Evaluation, merchant string) string {
	if recorded.House {
		return ""
	}
	return merchant
}

func (a *Again) compare(recorded *deal.Evaluation) []Difference {
	var d []Difference
	d = compare(d, "house", recorded.House, a.House)
	d = compare(d, "version", recorded.Version, a.Version)
	d = compare(d, "sha256", sha256Text(recorded.SHA256), sha256Text(a.SHA256))
	d = compare(d, "input_digest", digestText(recorded.Digest), digestText(a.Digest))
	d = compare(d, "outcome", recorded.Outcome.String(), a.Outcome.String())
	d = compare(d, "discount", recorded.Discount, a.Discount)
	d = compare(d, "final", recorded.Final, a.Final)
	d = compare(d, "fault", recorded.Fault.String(), a.Fault.String())
	d = compare(d, "fuel", recorded.Fuel, a.Fuel)
	d = compare(d, "label", string(recorded.Label), string(a.Label))
	return compare(d, "reason", string(recorded.Reason), string(a.Reason))
}

func compare[T comparable](d []Difference, field string, recorded, now T) []Difference {
	if recorded == now {
		return d
	}
	return append(d, Difference{field, fmt.Sprint(recorded), fmt.Sprint(now)})
}

type (
	sha256Text [32]byte
	digestText uint64
)

func (t sha256Text) String() string { return hex.EncodeToString(t[:]) }
func (t digestText) String() string { return fmt.Sprintf("%016x", uint64(t)) }
