package plugins

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// counters are one rule's, on the order path. They only rise.
type counters struct {
	calls, fuel atomic.Uint64
	faults      [abi.FaultRuleInit + 1]atomic.Uint64 // by fault, FaultNone is unused
	faultAt     atomic.Int64                         // the stamp of the last order that met one
	log         logbook
}

func (c *counters) add(in *abi.Input, v *abi.Verdict) {
	c.calls.Add(1)
	c.fuel.Add(v.Fuel)
	if v.Fault != abi.FaultNone {
		c.faultAt.Store(in.Now) // before the fault is counted
		c.faults[v.Fault].Add(1)
	}
}

// Evaluate prices one order with the version that the rule's rollout chooses for
// its user. It never fails: what went wrong is out.Fault, and a rule that does not
// exist is FaultRuleInit of version 0. It keeps nothing of in and does not allocate.
func (r *Registry) Evaluate(merchant, id string, in *abi.Input, out *abi.Verdict) {
	found := r.lookup(merchant, id)
	for found != nil {
		v, byCandidate := found.choose(in)
		if !v.run(in, out) {
			if now := r.lookup(merchant, id); now != found {
				found = now // replaced in this moment, and the old version closed
				continue
			}
			out.Reset()
			out.Fault = abi.FaultRuleInit // it does not run in this release
			v.sign(out)
		}
		out.Trial = byCandidate
		found.counters.add(in, out)
		if found.comparison != nil && out.Fault != abi.FaultRuleInit { // which says nothing of the candidate
			r.steward.watch(found, byCandidate, in, out)
		}
		if found.counters.log.wants(in, out) {
			r.logs.offer(found, out.Version, in)
		}
		return
	}
	out.Reset()
	out.Fault = abi.FaultRuleInit
}

// choose returns the version for an order, and whether that is the candidate.
func (u *rule) choose(in *abi.Input) (*version, bool) {
	if c := u.comparison; c != nil && c.mode == ModeCanary && c.takes(in.UserID) {
		return u.candidate, true
	}
	return u.stable, false
}

// run evaluates. It returns false, and has done nothing, when the version is not
// loaded.
func (v *version) run(in *abi.Input, out *abi.Verdict) bool {
	program := v.program.Load()
	if program == nil || !program.Evaluate(in, v.FuelLimit, out, nil) {
		return false
	}
	v.sign(out)
	return true
}

// Evaluation is one evaluation that somebody looks at.
type Evaluation struct {
	abi.Verdict
	Logs        []byte // what the module logged, any bytes; each log call ends with a newline
	LogsDropped int    // bytes beyond abi.LogBytesMax
	FaultDetail string // one line, "" without a fault
	Nanoseconds int64
}

// sign says in the verdict which version gave it.
func (v *version) sign(out *abi.Verdict) {
	out.Version, out.SHA256, out.House = v.Version.Version, v.sum, v.house
}

// EvaluateVersion runs any version of a rule on a sample or recorded input. It
// is not counted.
func (r *Registry) EvaluateVersion(ctx context.Context, merchant, id string, n uint32, in *abi.Input) (*Evaluation, error) {
	v, err := r.version(ctx, merchant, id, n)
	if err != nil {
		return nil, err
	}
	for {
		program, err := r.program(ctx, v)
		if err != nil {
			return nil, err
		}
		if e := observe(program, in, v.FuelLimit); e != nil {
			v.sign(&e.Verdict)
			return e, nil
		}
	}
}

// EvaluateAgain is EvaluateVersion for very many recorded inputs: it gives the
// verdict alone, and does not allocate once the version is loaded.
func (r *Registry) EvaluateAgain(ctx context.Context, merchant, id string, n uint32, in *abi.Input, out *abi.Verdict) error {
	v, err := r.version(ctx, merchant, id, n)
	if err != nil {
		return err
	}
	for !v.run(in, out) {
		if _, err := r.program(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// observe runs a program once for somebody who looks at it. It returns nil when
// the program is closed.
func observe(program *program, in *abi.Input, fuel uint64) *Evaluation {
	e := &Evaluation{}
	var trace host.Trace
	start := clockd.Mono()
	if !program.Evaluate(in, fuel, &e.Verdict, &trace) {
		return nil
	}
	e.Nanoseconds = clockd.Mono() - start
	e.Logs, e.LogsDropped = trace.Logs, trace.Dropped
	if trace.Err != nil {
		// Behind the first line are the names that the module gave its functions.
		e.FaultDetail, _, _ = strings.Cut(trace.Err.Error(), "\n")
	}
	return e
}

// RuleStats is what one rule did on the order path since the start.
type RuleStats struct {
	Merchant, RuleID string
	Stable           uint32
	Calls, Fuel      uint64
	Faults           map[abi.Fault]uint64 // only faults that happened
	FaultAt          int64                // the last one's order's stamp, Unix ms; 0: none
}

// Stats calls fn for every rule that was called.
func (r *Registry) Stats(fn func(RuleStats)) {
	for key, rule := range *r.rules.Load() {
		calls := rule.counters.calls.Load()
		if calls == 0 {
			continue
		}
		s := RuleStats{
			Merchant: key.merchant, RuleID: key.id, Stable: rule.rollout.Stable,
			Calls: calls, Fuel: rule.counters.fuel.Load(), Faults: map[abi.Fault]uint64{},
		}
		for f := range rule.counters.faults {
			if n := rule.counters.faults[f].Load(); n > 0 {
				s.Faults[abi.Fault(f)] = n
			}
		}
		s.FaultAt = rule.counters.faultAt.Load()
		fn(s)
	}
}
