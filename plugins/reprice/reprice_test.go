package reprice_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/reprice"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// now is when every test begins: 2026-11-20T00:00:00Z.
const now = int64(1_795_132_800_000)

func open(t testing.TB, tables *journaltest.Memory) *plugins.Registry {
	t.Helper()
	r, err := plugins.New(context.Background(), plugins.Config{Tables: tables.Tables(), Now: func() int64 { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func upload(t testing.TB, r *plugins.Registry, id, code string) {
	t.Helper()
	_, created, err := r.Upload(context.Background(), plugins.Upload{Merchant: "acme", RuleID: id, Wasm: gastest.Rule(code).Encode(), By: "test"})
	if err != nil || !created {
		t.Fatal(created, err)
	}
}

// Rules of the tests.
var (
	nothing = gastest.Result
	refuse  = "i32.const 4096 i32.const 2 i32.store16 1 0" + gastest.Result
)

const trap = "unreachable"

// off takes a fixed amount off.
func off(amount int) string {
	return fmt.Sprintf("i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 i64.const %d i64.store 3 8", amount) + gastest.Result
}

// shop is a deal that takes orders and keeps its records.
type shop struct {
	t       testing.TB
	rules   *plugins.Registry
	state   *deal.State
	records [][]byte
	at      int64
}

func newShop(t testing.TB, rules *plugins.Registry, policy deal.RulePolicy, names ...string) *shop {
	s := &shop{t: t, rules: rules, state: deal.NewState(), at: now}
	s.do(&deal.Command{Kind: deal.Create, Spec: &deal.Spec{
		ID: "d", Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 1000, Stock: deal.MaxStock, StartsAt: now,
		ReserveTTL: deal.DefaultTTL, Rules: names, OnRuleError: policy, Attributes: []abi.KV{{Key: []byte("sku"), Value: []byte("L")}},
	}})
	return s
}

// do has the deal do what it was asked, a millisecond after the last time.
func (s *shop) do(c *deal.Command) {
	s.t.Helper()
	var r deal.Reply
	r.Reset()
	s.at++
	c.At = s.at
	s.state.Decide(c, s.rules, &r)
	if r.Code != deal.OK {
		s.t.Fatalf("code %d: %s", r.Code, r.Detail)
	}
	r.Event.Seq = s.state.Seq + 1
	if err := s.state.Apply(&r.Event); err != nil {
		s.t.Fatal(err)
	}
	s.records = append(s.records, r.Event.Append(nil))
}

// order has a user order units, and returns the event.
func (s *shop) order(user string, units int64) *deal.Event {
	s.t.Helper()
	s.do(&deal.Command{
		Kind: deal.Place, User: []byte(user), Key: fmt.Append(nil, "k", len(s.records)), Quantity: units, Codes: [][]byte{[]byte("VIP")},
	})
	return s.event(len(s.records))
}

func (s *shop) event(seq int) *deal.Event {
	s.t.Helper()
	e := &deal.Event{}
	if err := e.Decode(bytes.Clone(s.records[seq-1])); err != nil {
		s.t.Fatal(err)
	}
	e.Seq = uint64(seq)
	return e
}

func (s *shop) verify(e *deal.Event) *reprice.Verification {
	s.t.Helper()
	v, err := reprice.Verify(context.Background(), s.rules, s.state.Spec, e)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// TestVerifyFindsTheSame: whatever the rules did, and whatever happened since.
func TestVerifyFindsTheSame(t *testing.T) {
	tables := journaltest.NewMemory()
	rules := open(t, tables)
	upload(t, rules, "ten", off(10))
	upload(t, rules, "none", nothing)
	upload(t, rules, "trap", trap)
	s := newShop(t, rules, deal.SkipOnRuleError, "ten", "gone", "trap", "none", "tiered")
	orders := []*deal.Event{s.order("ann", 1), s.order("bob", 5), s.order("ann", 2)}
	title := "Mango"
	ends := now + 1_000_000
	s.do(&deal.Command{Kind: deal.Change, Patch: &deal.Patch{Title: &title, StockAdd: 0, EndsAt: &ends, Rules: &[]string{}}})
	upload(t, rules, "ten", off(20))
	upload(t, rules, "gone", off(1))
	upload(t, rules, "tiered", off(1))
	for _, with := range []*plugins.Registry{rules, open(t, tables)} {
		s.rules = with
		for _, e := range orders {
			v := s.verify(e)
			if !v.Same() || len(v.Rules) != 5 {
				t.Fatalf("order %d: %+v", e.Seq, v)
			}
			for i, a := range v.Rules {
				if recorded := &e.Placed.Evaluations[i]; abi.Digest(a.Input) != recorded.Digest && recorded.Version != 0 {
					t.Errorf("order %d, rule %d: the input's digest is %x", e.Seq, i, abi.Digest(a.Input))
				}
			}
		}
	}
}

// TestVerifyOrderOfRuleThatDidNotRun: what was not evaluated proves the price that it
// left, now that the rule runs.
func TestVerifyOrderOfRuleThatDidNotRun(t *testing.T) {
	tables := journaltest.NewMemory()
	upload(t, open(t, tables), "ten", off(10))
	broken, err := plugins.New(t.Context(), plugins.Config{Tables: withoutModules{tables.Tables(), errors.New("no disk")}, Now: func() int64 { return now }})
	if err != nil {
		t.Fatal(err)
	}
	s := newShop(t, broken, deal.SkipOnRuleError, "ten")
	e := s.order("ann", 1)
	if err := broken.Close(); err != nil {
		t.Error(err)
	}
	if recorded := &e.Placed.Evaluations[0]; recorded.Fault != abi.FaultRuleInit || recorded.Version != 1 {
		t.Fatalf("%+v", recorded)
	}
	s.rules = open(t, tables)
	if v := s.verify(e); !v.Same() {
		t.Errorf("%+v", v)
	}
	e.Placed.Evaluations[0].Discount = 10
	if v := s.verify(e); len(v.Rules[0].Differences) != 1 {
		t.Errorf("a discount of a rule that did not run: %+v", v)
	}
}

// withoutModules are tables whose modules cannot be read.
type withoutModules struct {
	journal.Tables
	err error
}

func (w withoutModules) Get(ctx context.Context, table, key string) ([]byte, error) {
	if table == "rule_wasm" {
		return nil, w.err
	}
	return w.Tables.Get(ctx, table, key)
}

// TestVerifyWithoutVersion: what cannot be looked at just now is not told to be different.
func TestVerifyWithoutVersion(t *testing.T) {
	memory := journaltest.NewMemory()
	rules := open(t, memory)
	upload(t, rules, "ten", off(10))
	s := newShop(t, rules, deal.SkipOnRuleError, "ten")
	e := s.order("ann", 1)
	away, err := plugins.New(t.Context(), plugins.Config{Tables: withoutModules{memory.Tables(), journal.ErrUnreachable}, Now: func() int64 { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := reprice.Verify(t.Context(), away, s.state.Spec, e); !errors.Is(err, journal.ErrUnreachable) {
		t.Errorf("%+v %v", v, err)
	}
	if err := away.Close(); err != nil {
		t.Error(err)
	}
}

// TestVerifyFindsDifferences: each field of an event that is not what the rules
// say is found, and no other.
func TestVerifyFindsDifferences(t *testing.T) {
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "ten", off(10))
	upload(t, rules, "none", nothing)
	s := newShop(t, rules, deal.SkipOnRuleError, "ten", "none")
	s.order("ann", 2)
	for want, change := range map[string]func(e *deal.Event, v *deal.Evaluation){
		"rule 0: house was false and is now true":      func(_ *deal.Event, v *deal.Evaluation) { v.Rule = []byte("tiered") },
		"rule 0: version was 9 and is now not there":   func(_ *deal.Event, v *deal.Evaluation) { v.Version = 9 },
		"rule 0: sha256 was ":                          func(_ *deal.Event, v *deal.Evaluation) { v.SHA256[0]++ },
		"rule 0: input_digest was ":                    func(_ *deal.Event, v *deal.Evaluation) { v.Digest++ },
		"rule 0: outcome was none and is now discount": func(_ *deal.Event, v *deal.Evaluation) { v.Outcome = abi.OutcomeNone },
		"rule 0: final was true and is now false":      func(_ *deal.Event, v *deal.Evaluation) { v.Final = true },
		"rule 0: fault was trap and is now none":       func(_ *deal.Event, v *deal.Evaluation) { v.Fault = abi.FaultTrap },
		"rule 0: fuel was 0 and is now ":               func(_ *deal.Event, v *deal.Evaluation) { v.Fuel = 0 },
		"rule 0: label was free and is now ":           func(_ *deal.Event, v *deal.Evaluation) { v.Label = []byte("free") },
		"rule 0: reason was why and is now ":           func(_ *deal.Event, v *deal.Evaluation) { v.Reason = []byte("why") },
		"discount_total was 11 and is now 10":          func(e *deal.Event, _ *deal.Evaluation) { e.Placed.Discount = 11 },
		"rule 1: input_digest was ":                    func(e *deal.Event, _ *deal.Evaluation) { e.Placed.Evaluations[1].Digest-- },
	} {
		e := s.event(2)
		change(e, &e.Placed.Evaluations[0])
		v := s.verify(e)
		var found []string
		for i, a := range v.Rules {
			for _, d := range a.Differences {
				found = append(found, fmt.Sprintf("rule %d: %s", i, d))
			}
		}
		for _, d := range v.Differences {
			found = append(found, d.String())
		}
		one := len(found) == 1 || strings.HasPrefix(want, "rule 0: house")
		if v.Same() || !one || !slices.ContainsFunc(found, func(d string) bool { return strings.HasPrefix(d, want) }) {
			t.Errorf("%s: found %q", want, found)
		}
	}
	// A changed input shows in the digests of all that were told it.
	e := s.event(2)
	e.Placed.Stock++
	if v := s.verify(e); len(v.Rules[0].Differences) != 1 || v.Rules[0].Differences[0].Field != "input_digest" || len(v.Rules[1].Differences) != 1 {
		t.Errorf("%+v", v)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := reprice.Verify(ctx, rules, s.state.Spec, s.event(2)); err == nil {
		t.Error("an ended context is no error")
	}
}
