package deal_test

import (
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

func goodSpec() deal.Spec {
	return deal.Spec{
		ID: "d-1001", Merchant: "acme", Title: "Lychee 2.5 kg", Category: "fruit", Currency: [3]byte{'C', 'N', 'Y'},
		UnitPrice: 9900, Stock: 10, StartsAt: 1, EndsAt: 2, ReserveTTL: 1, Rules: []string{"tiered"},
		Group: deal.GroupSpec{Size: 2, Window: 1}, Attributes: []abi.KV{{Key: []byte("sku"), Value: []byte("LY-25")}},
	}
}

// TestSpecBounds: the last value that is allowed, and the first that is not.
func TestSpecBounds(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		field string // "" = good
		set   func(*deal.Spec)
	}{
		{"", func(*deal.Spec) {}},
		{"", func(s *deal.Spec) { s.ID = text(64) }},
		{"deal_id", func(s *deal.Spec) { s.ID = text(65) }},
		{"deal_id", func(s *deal.Spec) { s.ID = "" }},
		{"deal_id", func(s *deal.Spec) { s.ID = "a b" }},
		{"deal_id", func(s *deal.Spec) { s.ID = "ü" }},
		{"deal_id", func(s *deal.Spec) { s.ID = "a/b" }},
		{"merchant_id", func(s *deal.Spec) { s.Merchant = "" }},
		{"", func(s *deal.Spec) { s.Title = text(200) }},
		{"title", func(s *deal.Spec) { s.Title = text(201) }},
		{"title", func(s *deal.Spec) { s.Title = "" }},
		{"title", func(s *deal.Spec) { s.Title = "\xff" }},
		{"", func(s *deal.Spec) { s.Category = "" }},
		{"category", func(s *deal.Spec) { s.Category = text(65) }},
		{"currency", func(s *deal.Spec) { s.Currency = [3]byte{'e', 'u', 'r'} }},
		{"currency", func(s *deal.Spec) { s.Currency = [3]byte{} }},
		{"", func(s *deal.Spec) { s.UnitPrice = 0 }},
		{"", func(s *deal.Spec) { s.UnitPrice = deal.MaxUnitPrice }},
		{"unit_price", func(s *deal.Spec) { s.UnitPrice = -1 }},
		{"unit_price", func(s *deal.Spec) { s.UnitPrice = deal.MaxUnitPrice + 1 }},
		{"", func(s *deal.Spec) { s.Stock = deal.MaxStock }},
		{"stock", func(s *deal.Spec) { s.Stock = 0 }},
		{"stock", func(s *deal.Spec) { s.Stock = deal.MaxStock + 1 }},
		{"starts_at", func(s *deal.Spec) { s.StartsAt = -1 }},
		{"starts_at", func(s *deal.Spec) { s.StartsAt, s.EndsAt = 253402300800000, 0 }},
		{"", func(s *deal.Spec) { s.EndsAt = 0 }},
		{"ends_at", func(s *deal.Spec) { s.EndsAt = s.StartsAt }},
		{"ends_at", func(s *deal.Spec) { s.EndsAt = 253402300800000 }},
		{"", func(s *deal.Spec) { s.ReserveTTL = deal.MaxDuration }},
		{"reserve_ttl_s", func(s *deal.Spec) { s.ReserveTTL = deal.MaxDuration + 1 }},
		{"reserve_ttl_s", func(s *deal.Spec) { s.ReserveTTL = 0 }},
		{"", func(s *deal.Spec) { s.Group = deal.GroupSpec{} }},
		{"", func(s *deal.Spec) { s.Group.Size = deal.MaxGroupSize }},
		{"group.size", func(s *deal.Spec) { s.Group.Size = 1 }},
		{"group.size", func(s *deal.Spec) { s.Group.Size = deal.MaxGroupSize + 1 }},
		{"group.window_s", func(s *deal.Spec) { s.Group.Window = 0 }},
		{"group.window_s", func(s *deal.Spec) { s.Group.Window = deal.MaxDuration + 1 }},
		{"group.unit_price", func(s *deal.Spec) { s.Group.UnitPrice = -1 }},
		{"", func(s *deal.Spec) { s.Rules = strings.Split("a b c d e f g h", " ") }},
		{"rules", func(s *deal.Spec) { s.Rules = strings.Split("a b c d e f g h i", " ") }},
		{"rules[0]", func(s *deal.Spec) { s.Rules = []string{""} }},
		{"rules[2]", func(s *deal.Spec) { s.Rules = []string{"a", "b", "a"} }},
		{"", func(s *deal.Spec) { s.Attributes = []abi.KV{{Key: []byte("k")}} }},
		{"attributes", func(s *deal.Spec) { s.Attributes = []abi.KV{{Value: []byte("v")}} }},
		{"attributes", func(s *deal.Spec) { s.Attributes = []abi.KV{{Key: []byte(text(257))}} }},
		{"attributes", func(s *deal.Spec) { s.Attributes = []abi.KV{{Key: []byte("k"), Value: []byte("\xff")}} }},
		{"attributes", func(s *deal.Spec) {
			s.Attributes = nil
			for range deal.MaxAttributes + 1 {
				s.Attributes = append(s.Attributes, abi.KV{Key: []byte("k")})
			}
		}},
	} {
		s := goodSpec()
		c.set(&s)
		faults := s.Validate()
		if c.field == "" && faults != nil {
			t.Errorf("refused: %v", faults)
		}
		if c.field != "" && (len(faults) != 1 || faults[0].Field != c.field || !strings.Contains(faults[0].Error(), " must ")) {
			t.Errorf("%s: %v", c.field, faults)
		}
	}
	if faults := new(deal.Spec).Validate(); len(faults) != 6 {
		t.Errorf("an empty spec has the faults %v", faults)
	}
}

func TestPatchBounds(t *testing.T) {
	long, empty, before, after := strings.Repeat("x", 201), "", int64(-1), int64(253402300800000)
	rules := []string{"not a rule"}
	for field, p := range map[string]*deal.Patch{
		"title":     {Title: &long},
		"title ":    {Title: &empty},
		"ends_at":   {EndsAt: &before},
		"ends_at ":  {EndsAt: &after},
		"stock_add": {StockAdd: -1},
		"rules[0]":  {Rules: &rules},
	} {
		if faults := p.Validate(); len(faults) != 1 || faults[0].Field != strings.TrimSpace(field) {
			t.Errorf("%s: %v", field, faults)
		}
	}
	if faults := new(deal.Patch).Validate(); faults != nil {
		t.Errorf("an empty patch has the faults %v", faults)
	}
}

// TestPatchLeavesViewsAlone: whoever holds a spec may read it while the deal
// goes on.
func TestPatchLeavesViewsAlone(t *testing.T) {
	p := newPlay()
	p.now = dayOne
	spec := goodSpec()
	spec.EndsAt = 0
	p.decide(t, &deal.Command{Kind: deal.Create, Spec: &spec})
	before := p.state.View()
	title, limit, rules := "Mango", uint32(7), []string{}
	p.decide(t, &deal.Command{Kind: deal.Change, Patch: &deal.Patch{Title: &title, PerUserLimit: &limit, Rules: &rules, StockAdd: 5}})
	after := p.state.View()
	if before.Spec.Title != "Lychee 2.5 kg" || before.Spec.PerUserLimit != 0 || len(before.Spec.Rules) != 1 || before.Stock != 10 {
		t.Errorf("an old view changed: %+v", before.Spec)
	}
	if after.Spec.Title != "Mango" || after.Spec.PerUserLimit != 7 || len(after.Spec.Rules) != 0 || after.Stock != 15 || after.Spec.Merchant != "acme" {
		t.Errorf("%+v", after.Spec)
	}
}
