package actors

import (
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// Course is when (Mono ns) a request came to each step, 0 where it never did. To
// take it down costs a few readings of the clock and an allocation; a request
// without one pays for neither.
type Course struct {
	Begun     int64 // its deal's actor took it up
	RuleBegun int64 // the first of the deal's rules did
	RuleEnded int64 // and the last
	Decided   int64 // and what was decided is applied
	Answered  int64 // on disk, or failed
}

// rules returns rules that are taken down. It is not inlined, so that what it
// allocates is its own and not the hot path's.
//
//go:noinline
func (c *Course) rules(rules deal.Rules) deal.Rules {
	return &timedRules{rules, c}
}

type timedRules struct {
	deal.Rules
	course *Course
}

// Evaluate implements deal.Rules.
func (t *timedRules) Evaluate(merchant, rule string, in *abi.Input, out *abi.Verdict) {
	if t.course.RuleBegun == 0 {
		t.course.RuleBegun = clockd.Mono()
	}
	t.Rules.Evaluate(merchant, rule, in, out)
	t.course.RuleEnded = clockd.Mono()
}
