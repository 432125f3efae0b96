package deal_test

import (
	"reflect"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// listener is a rule that gives 5 and keeps what it was asked.
type listener struct{ asked []abi.Input }

func (l *listener) Evaluate(merchant, rule string, in *abi.Input, out *abi.Verdict) {
	if merchant != "acme" || rule != "tiered" && rule != "again" {
		panic(merchant + "/" + rule)
	}
	l.asked = append(l.asked, *in)
	out.Reset()
	out.SetOutput(abi.Output{Outcome: abi.OutcomeDiscount, Discount: 5})
}

// TestRuleInput: every field of what a rule is asked, and nothing left in it
// from the order before.
func TestRuleInput(t *testing.T) {
	spec := goodSpec()
	spec.Stock, spec.StartsAt, spec.EndsAt, spec.ReserveTTL = 100, 1, 9_000, 9_000
	spec.Group = deal.GroupSpec{Size: 3, Window: 1_000, UnitPrice: 7_900}
	spec.Rules = []string{"tiered", "again"}
	rule := &listener{}
	s, r := deal.NewState(), &deal.Reply{}
	codes, attributes := [][]byte{[]byte("VIP")}, []abi.KV{{Key: []byte("channel"), Value: []byte("app")}}
	for i, c := range []*deal.Command{
		{Kind: deal.Create, Spec: &spec},
		{Kind: deal.Place, Quantity: 2, Codes: codes, Attributes: attributes},
		{Kind: deal.Place, Quantity: 1, GroupMode: deal.OpenGroup},
		{Kind: deal.Place, Quantity: 4, GroupMode: deal.JoinGroup, Group: 3},
		{Kind: deal.Quote, Quantity: 1},
		{Kind: deal.Quote, Quantity: 1, GroupMode: deal.OpenGroup},
	} {
		c.At, c.User, c.Key = int64(10+i), []byte("ann"), []byte{'k', byte('0' + i)}
		r.Reset()
		if s.Decide(c, rule, r); r.Code != deal.OK {
			t.Fatalf("command %d: code %d", i, r.Code)
		}
		if r.Event.Kind == 0 {
			continue
		}
		r.Event.Seq = s.Seq + 1
		if err := s.Apply(&r.Event); err != nil {
			t.Fatal(err)
		}
	}
	base := abi.Input{
		Stock: 100, StartsAt: 1, EndsAt: 9_000, Currency: spec.Currency,
		DealID: []byte("d-1001"), UserID: []byte("ann"), DealAttributes: spec.Attributes,
	}
	want := func(change func(*abi.Input)) abi.Input {
		in := base
		change(&in)
		in.Subtotal = in.UnitPrice * int64(in.Quantity)
		return in
	}
	wants := []abi.Input{
		want(func(in *abi.Input) {
			in.Flags, in.Now, in.UnitPrice, in.Quantity, in.Available = abi.FlagFirstOrder, 11, 9_900, 2, 100
			in.Codes, in.Attributes = codes, attributes
		}),
		want(func(in *abi.Input) {
			in.Flags, in.Now, in.UnitPrice, in.Quantity, in.Available = abi.FlagOpensGroup, 12, 7_900, 1, 98
			in.UserQuantity, in.GroupSize = 2, 3
		}),
		want(func(in *abi.Input) {
			in.Flags, in.Now, in.UnitPrice, in.Quantity, in.Available = abi.FlagJoinsGroup, 13, 7_900, 4, 97
			in.UserQuantity, in.GroupSize, in.GroupMembers = 3, 3, 1
		}),
		want(func(in *abi.Input) {
			in.Flags, in.Now, in.UnitPrice, in.Quantity, in.Available = abi.FlagQuote, 14, 9_900, 1, 93
			in.UserQuantity = 7
		}),
		want(func(in *abi.Input) {
			in.Flags, in.Now, in.UnitPrice, in.Quantity, in.Available = abi.FlagQuote|abi.FlagOpensGroup, 15, 7_900, 1, 93
			in.UserQuantity, in.GroupSize = 7, 3
		}),
	}
	if len(rule.asked) != 2*len(wants) {
		t.Fatalf("asked %d times", len(rule.asked))
	}
	for i, in := range rule.asked {
		w := wants[i/2]
		w.DiscountSoFar = int64(5 * (i % 2))
		if len(in.Codes)+len(in.Attributes) == 0 {
			in.Codes, in.Attributes = nil, nil
		}
		if !reflect.DeepEqual(in, w) {
			t.Errorf("question %d:\n%+v, not\n%+v", i, in, w)
		}
	}
}
