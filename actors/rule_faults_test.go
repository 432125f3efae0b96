package actors

import (
	"fmt"
	"slices"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// brittle faults as "bad", and works as any other rule.
func brittle(rule string, in *abi.Input, out *abi.Verdict) {
	if rule != "bad" {
		tenPercent(rule, in, out)
		return
	}
	out.Reset()
	out.Version, out.Fault = 1, abi.FaultTrap
}

// The defaults of Config.
const (
	ruleFaultsMax    = 20
	ruleFaultsWindow = 10_000 // ms
)

// TestFailingRuleIsSwitchedOff: after 20 faults, for this deal alone, and
// still after a restart; setting the rules switches it on.
func TestFailingRuleIsSwitchedOff(t *testing.T) {
	for _, policy := range []deal.RulePolicy{deal.SkipOnRuleError, deal.RejectOnRuleError} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			runs := 0
			h := newHouse(t, func(c *Config) {
				c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
					if rule == "bad" {
						runs++
					}
					brittle(rule, in, out)
				})
			})
			for _, id := range []string{"d", "other"} {
				h.create(id, func(s *deal.Spec) { s.Stock, s.Rules, s.OnRuleError = 1000, []string{"bad", "ten"}, policy })
			}
			buy := func(n int) {
				t.Helper()
				a := h.place("d", fmt.Sprint("u", n), "k", 1)
				want := deal.OK
				if policy == deal.RejectOnRuleError {
					want = deal.RuleRejected
				}
				if a.err != nil || a.code != want || want == deal.OK && a.total*10 != 9900*9 {
					t.Fatalf("order %d: %+v", n, a)
				}
			}
			for n := range ruleFaultsMax + 5 {
				buy(n)
			}
			if runs != ruleFaultsMax || h.node.Stats().RulesOff != 1 {
				t.Fatalf("the rule ran %d times, and was switched off %d times", runs, h.node.Stats().RulesOff)
			}
			h.crash()
			buy(100)
			if runs != ruleFaultsMax {
				t.Fatal("a restart switched the rule on")
			}
			h.place("other", "u", "k", 1)
			if runs != ruleFaultsMax+1 {
				t.Fatal("the rule is off for another deal")
			}
			a := h.do("d", own.ClassPriority, func(c *deal.Command) {
				c.Kind, c.Patch = deal.Change, &deal.Patch{Rules: &[]string{"bad", "ten"}}
			})
			if a.err != nil || a.code != deal.OK {
				t.Fatalf("%+v", a)
			}
			buy(200)
			if runs != ruleFaultsMax+2 {
				t.Fatal("the rule is not on again")
			}
		})
	}
}

// TestRareFaultsSwitchNothingOff: it takes 20 of them within the window.
func TestRareFaultsSwitchNothingOff(t *testing.T) {
	var f ruleFaults
	for n := range int64(3 * ruleFaultsMax) {
		if f.add([]byte("r"), fmt.Append(nil, n), n*(ruleFaultsWindow/(ruleFaultsMax-1)+1), ruleFaultsMax, ruleFaultsWindow) {
			t.Fatal("fault", n)
		}
	}
	var tripped []int
	f = ruleFaults{}
	for n := range 5 * deal.MaxRules { // names come and go with a deal's rules
		f.add(fmt.Append(nil, n), nil, 0, ruleFaultsMax, ruleFaultsWindow)
	}
	for n := range 2 * ruleFaultsMax {
		if f.add([]byte("r"), fmt.Append(nil, n), int64(n)*ruleFaultsWindow/(ruleFaultsMax-1), ruleFaultsMax, ruleFaultsWindow) {
			tripped = append(tripped, n+1)
		}
	}
	if !slices.Equal(tripped, []int{ruleFaultsMax, 2 * ruleFaultsMax}) {
		t.Fatal(tripped)
	}
}

// TestOneShopperSwitchesNothingOff: whoever repeats an order that the rule fails at
// spoils nobody else's price, and hides nobody else's faults.
func TestOneShopperSwitchesNothingOff(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Rules = rulesFunc(brittle) })
	h.create("d", func(s *deal.Spec) { s.Stock, s.Rules, s.OnRuleError = 1000, []string{"bad"}, deal.RejectOnRuleError })
	for n := range 3 * ruleFaultsMax {
		h.place("d", "eve", fmt.Sprint("k", n), 1)
	}
	for n := range ruleFaultsMax - 2 {
		h.place("d", fmt.Sprint("u", n), "k", 1)
	}
	if n := h.node.Stats().RulesOff; n != 0 {
		t.Fatal("switched off by", ruleFaultsMax-1, "users")
	}
	h.place("d", "last", "k", 1)
	if n := h.node.Stats().RulesOff; n != 1 {
		t.Fatal(n)
	}
}

// TestRuleThatIsNotLoadedStaysOn: once it runs again, orders get its discount.
func TestRuleThatIsNotLoadedStaysOn(t *testing.T) {
	loaded := false
	h := newHouse(t, func(c *Config) {
		c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
			if loaded {
				tenPercent(rule, in, out)
				return
			}
			out.Reset()
			out.Version, out.Fault = 1, abi.FaultRuleInit
		})
	})
	h.create("d", func(s *deal.Spec) { s.Stock, s.Rules, s.OnRuleError = 1000, []string{"ten"}, deal.SkipOnRuleError })
	for n := range 2 * ruleFaultsMax {
		h.place("d", fmt.Sprint("u", n), "k", 1)
	}
	loaded = true
	if a := h.place("d", "late", "k", 1); a.code != deal.OK || a.total*10 != 9900*9 || h.node.Stats().RulesOff != 0 {
		t.Errorf("%+v, and %d rules are off", a, h.node.Stats().RulesOff)
	}
}

// TestCandidateSwitchesNothingOff: its rollout gives it up, and the stable version goes on.
func TestCandidateSwitchesNothingOff(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
			if string(in.UserID) == "late" {
				tenPercent(rule, in, out)
				return
			}
			out.Reset()
			out.Version, out.Fault, out.Trial = 2, abi.FaultTrap, true
		})
	})
	h.create("d", func(s *deal.Spec) { s.Stock, s.Rules, s.OnRuleError = 1000, []string{"ten"}, deal.SkipOnRuleError })
	for n := range 2 * ruleFaultsMax {
		h.place("d", fmt.Sprint("u", n), "k", 1)
	}
	if a := h.place("d", "late", "k", 1); a.code != deal.OK || a.total*10 != 9900*9 || h.node.Stats().RulesOff != 0 {
		t.Errorf("%+v, and %d rules are off", a, h.node.Stats().RulesOff)
	}
}
