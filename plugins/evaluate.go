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
	log         logbook
}

func (c *counters) add(v *abi.Verdict) {
	c.calls.Add(1)
	c.fuel.Add(v.Fuel)
	if v.Fault != abi.FaultNone {
		c.faults[v.Fault].Add(1)
	}
}

// Evaluate prices one order with the rule's stable version. It never fails: what
// went wrong is out.Fault, and a rule that does not exist is FaultRuleInit of
// version 0. It keeps nothing of in and does not allocate.
func (r *Registry) Evaluate(merchant, id string, in *abi.Input, out *abi.Verdict) {
	found := r.lookup(merchant, id)
	if found == nil {
		out.Reset()
		out.Fault = abi.FaultRuleInit
		return
	}
	if program := found.stable.program.Load(); program != nil {
		program.Evaluate(in, found.stable.FuelLimit, out, nil)
	} else {
		out.Reset()
		out.Fault = abi.FaultRuleInit
	}
	found.stable.sign(out)
	found.counters.add(out)
	if found.counters.log.wants(in, out) {
		r.logs.offer(found, out.Version, in)
	}
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
	v, program, err := r.runnable(ctx, merchant, id, n)
	if err != nil {
		return nil, err
	}
	e := observe(program, in, v.FuelLimit)
	v.sign(&e.Verdict)
	return e, nil
}

// EvaluateAgain is EvaluateVersion for very many recorded inputs: it gives the
// verdict alone, and does not allocate once the version is compiled.
func (r *Registry) EvaluateAgain(ctx context.Context, merchant, id string, n uint32, in *abi.Input, out *abi.Verdict) error {
	v, program, err := r.runnable(ctx, merchant, id, n)
	if err != nil {
		return err
	}
	program.Evaluate(in, v.FuelLimit, out, nil)
	v.sign(out)
	return nil
}

// runnable returns a version with its program.
func (r *Registry) runnable(ctx context.Context, merchant, id string, n uint32) (*version, *host.Program, error) {
	v, err := r.version(merchant, id, n)
	if err != nil {
		return nil, nil, err
	}
	program, err := r.program(ctx, v)
	return v, program, err
}

// observe runs a program once for somebody who looks at it.
func observe(program *host.Program, in *abi.Input, fuel uint64) *Evaluation {
	e := &Evaluation{}
	var trace host.Trace
	start := clockd.Mono()
	program.Evaluate(in, fuel, &e.Verdict, &trace)
	e.Nanoseconds = clockd.Mono() - start
	e.Logs, e.LogsDropped = trace.Logs, trace.Dropped
	if trace.Err != nil {
		// Behind the first line are the names that the module gave its functions.
		e.FaultDetail, _, _ = strings.Cut(trace.Err.Error(), "\n")
	}
	return e
}

// program returns a version's program, compiling it when nobody needed it since
// the start.
func (r *Registry) program(ctx context.Context, v *version) (*host.Program, error) {
	if p := v.program.Load(); p != nil {
		return p, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.compile(ctx, v)
}

// compile is program for a caller that holds mu, or has the registry for itself.
func (r *Registry) compile(ctx context.Context, v *version) (*host.Program, error) {
	if p := v.program.Load(); p != nil {
		return p, nil
	}
	wasm, err := r.wasm(ctx, v)
	if err != nil {
		return nil, err
	}
	p, err := r.engine.Compile(ctx, wasm, nil)
	if err != nil {
		return nil, err
	}
	v.program.Store(p)
	return p, nil
}

// RuleStats is what one rule did on the order path since the start.
type RuleStats struct {
	Merchant, RuleID string
	Stable           uint32
	Calls, Fuel      uint64
	Faults           map[abi.Fault]uint64 // only faults that happened
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
		fn(s)
	}
}
