package actors

import (
	"hash/maphash"
	"slices"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// A rule that faults for Config.RuleFaultsMax users within Config.RuleFaultsWindow of a
// deal's orders is switched off for that deal. A shopper who has found an order that the
// rule fails at counts once, however often it is repeated: nobody else's price depends
// on it. Faults are counted in memory, by the stamps of the orders, whether these were
// refused or not; that the rule is off is an event of the deal, so a replay needs no
// count. FaultRuleInit is not counted: nothing was evaluated, which tells of this machine
// in this moment and not of the rule, and the deal would stay without it for good. Nor are
// a candidate's: its rollout has bounds of its own, beyond which it alone is given up, and
// the version that most users get has done nothing.

// ruleFaults are the last faults of a deal's rules. It allocates at a rule's first
// fault.
type ruleFaults struct{ rings []faultRing }

type faultRing struct {
	rule string
	last []userFault // of different users; the next one replaces last[n%len(last)]
	n    int
}

type userFault struct {
	at   int64 // Unix ms
	user uint64
}

// faultSeed makes users' hashes, which nobody can choose names to meet in.
var faultSeed = maphash.MakeSeed()

// add notes a fault, and says whether it is the last of most users' within window ms.
func (f *ruleFaults) add(rule, user []byte, at int64, most int, window int64) bool {
	i := slices.IndexFunc(f.rings, func(r faultRing) bool { return r.rule == string(rule) })
	if i < 0 {
		i = len(f.rings)
		if i == deal.MaxRules {
			f.rings, i = f.rings[:0], 0 // of rules that the deal no longer has
		}
		f.rings = append(f.rings, faultRing{rule: string(rule), last: make([]userFault, most)})
	}
	r := &f.rings[i]
	fault := userFault{at, maphash.Bytes(faultSeed, user)}
	for _, before := range r.last[:min(r.n, most)] {
		if before.user == fault.user && at-before.at <= window {
			return false
		}
	}
	r.last[r.n%most] = fault
	r.n++
	if r.n < most || at-r.last[r.n%most].at > window {
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
	placed, cfg := &r.Reply.Event.Placed, &a.node.cfg
	for i := range placed.Evaluations {
		v := &placed.Evaluations[i]
		if v.Fault == abi.FaultNone || v.Fault == abi.FaultRuleInit || v.Trial || !a.faults.add(v.Rule, r.Cmd.User, r.Reply.Event.At, cfg.RuleFaultsMax, cfg.RuleFaultsWindow.Milliseconds()) {
			continue
		}
		a.state.SwitchOff(v.Rule, r.Reply.Event.At, &a.owed)
		if err := a.apply(p, &a.owed); err != nil {
			return err
		}
		a.node.rulesOff.Add(1)
		cfg.Logger.Warn("a promotion rule is switched off", "deal_id", a.entry.id, "merchant", a.state.Spec.Merchant,
			"rule", string(v.Rule), "fault", v.Fault.String())
	}
	return nil
}
