package actors

import (
	"slices"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// A rule that faults RuleFaultsMax times within RuleFaultsWindow ms of a deal's
// orders is switched off for that deal. Faults are counted in memory, by the stamps
// of the orders, whether these were refused or not; that the rule is off is an event
// of the deal, so a replay needs no count.
const (
	RuleFaultsMax    = 20
	RuleFaultsWindow = 10_000
)

// ruleFaults are the last faults of a deal's rules. It allocates at a rule's first
// fault.
type ruleFaults struct{ rings []faultRing }

type faultRing struct {
	rule string
	at   [RuleFaultsMax]int64
	n    int
}

// add notes a fault, and says whether it is one too many.
func (f *ruleFaults) add(rule []byte, at int64) bool {
	i := slices.IndexFunc(f.rings, func(r faultRing) bool { return r.rule == string(rule) })
	if i < 0 {
		i = len(f.rings)
		if i == deal.MaxRules {
			f.rings, i = f.rings[:0], 0 // of rules that the deal no longer has
		}
		f.rings = append(f.rings, faultRing{rule: string(rule)})
	}
	r := &f.rings[i]
	r.at[r.n%RuleFaultsMax] = at
	r.n++
	if r.n < RuleFaultsMax || at-r.at[r.n%RuleFaultsMax] > RuleFaultsWindow {
		return false
	}
	f.rings = slices.Delete(f.rings, i, i+1)
	return true
}

// watchRules switches off a rule that failed once too often with this request.
func (a *activation) watchRules(p *pending, r *Request) error {
	if r.Cmd.Kind != deal.Place {
		return nil
	}
	placed := &r.Reply.Event.Placed
	for i := range placed.Evaluations {
		v := &placed.Evaluations[i]
		if v.Fault == abi.FaultNone || !a.faults.add(v.Rule, r.Reply.Event.At) {
			continue
		}
		a.state.SwitchOff(v.Rule, r.Reply.Event.At, &a.owed)
		if err := a.apply(p, &a.owed); err != nil {
			return err
		}
		a.node.rulesOff.Add(1)
		a.node.cfg.Logger.Warn("a promotion rule is switched off", "deal_id", a.entry.id, "merchant", a.state.Spec.Merchant,
			"rule", string(v.Rule), "fault", v.Fault.String())
	}
	return nil
}
