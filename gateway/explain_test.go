package gateway

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/reprice"
)

func TestExplain(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"rules":["tiered"]`)
	id := h.order("d", "u", 3).want(201).text("order_id")
	a := h.get("/api/v1/orders/" + id + "/explain").want(200)
	a.has(map[string]any{
		"order_id": id, "subtotal": 29700, "rules.0.rule": "tiered", "rules.0.owner": "house", "rules.0.version": 1, "rules.0.reproduced": true,
		"rules.0.input.deal.stock": 100, "rules.0.input.deal.available": 100, "rules.0.input.order.quantity": 3, "rules.0.input.first_order": true,
		"rules.0.why": "tiered v1: 15% off from 3 → −44.55 CNY (reason: tier_3)", "verification": nil,
		"why": "3 × 99.00 CNY (the deal's price) = 297.00 CNY; −44.55 CNY by the deal's rules = 252.45 CNY",
	})
	if !strings.Contains(string(a.body), `"logs":[]`) || len(a.text("rules.0.sha256")) != 64 || a.field("rules.0.fuel").(int64) == 0 {
		t.Errorf("%s", a.body)
	}
	// Nothing that is changed later touches the price, or its proof: not the
	// deal, and not a rule that takes the name of the house's.
	h.send(request{method: "PATCH", path: "/api/v1/deals/d", body: `{"stock_add":1,"ends_at":"2027-01-01T00:00:00Z","rules":[]}`}).want(200)
	h.upload("/api/v1/rules/tiered/versions?merchant_id=acme&fuel_limit=1", tiered(t)).want(201)
	b := h.get("/api/v1/orders/" + id + "/explain?verify=true").want(200).has(map[string]any{
		"verification.same":    true,
		"verification.verdict": "The same: priced again from its recorded input, the order costs what it did; result, input digest and fuel of tiered v1 are equal.",
	})
	for _, field := range []string{"why", "rules.0.why", "rules.0.input_digest", "rules.0.input_abi", "rules.0.fuel"} {
		if a.field(field) != b.field(field) {
			t.Errorf("%s was %v and is %v", field, a.field(field), b.field(field))
		}
	}
	// The recorded input is a sample: evaluating it gives what the order got.
	var account struct {
		Rules []struct{ Input json.RawMessage }
	}
	must(t, json.Unmarshal(b.body, &account))
	e := h.post("/api/v1/rules/tiered/versions/1/evaluate", string(account.Rules[0].Input)).want(200)
	if e.field("input_digest") != a.field("rules.0.input_digest") || e.field("discount") != a.field("rules.0.discount") {
		t.Errorf("%s, not as in %s", e.body, a.body)
	}
	h.get("/api/v1/orders/" + id + "/explain?verify=maybe").refused(invalidRequest)

	h.deal("plain", `,"group":{"size":2,"window_s":600,"unit_price":5}`)
	id = h.post("/api/v1/orders", orderBody("plain", "u", 1, `,"group":{"open":true}`)).want(201).text("order_id")
	h.get("/api/v1/orders/" + id + "/explain?verify=true").want(200).has(map[string]any{
		"why": "1 × 0.05 CNY (the price for members of a group) = 0.05 CNY; no rule ran", "verification.same": true,
	})
}

// TestExplainDifference: what cannot be made again is said, and never hidden.
func TestExplainDifference(t *testing.T) {
	o := &actors.Order{Deal: "d", Seq: 2, Currency: [3]byte{'C', 'N', 'Y'}}
	o.Event.Placed.Evaluations = []deal.Evaluation{{Rule: []byte("tiered"), Version: 3}}
	again := &reprice.Verification{Rules: []reprice.Again{{Differences: []reprice.Difference{{Field: "fuel", Recorded: "1", Now: "2"}}}}}
	r := newVerificationReply(o, again)
	if r.Same || len(r.Differences) != 1 || r.Differences[0] != (differenceReply{"tiered", "fuel", "1", "2"}) || !strings.HasPrefix(r.Verdict, "Not the same: ") {
		t.Errorf("%+v", r)
	}
	if a := newRuleAccount(&o.Event.Placed.Evaluations[0], &again.Rules[0]); a.Reproduced || len(a.Logs) > 0 {
		t.Errorf("%+v", a)
	}
}

// TestWhyRuleInWords: what a support agent reads.
func TestWhyRuleInWords(t *testing.T) {
	for _, row := range []struct {
		e    deal.Evaluation
		want string
	}{
		{deal.Evaluation{Version: 3, Outcome: abi.OutcomeDiscount, Discount: 990, Label: []byte("10% off from 1")}, "r v3: 10% off from 1 → −9.90 CNY"},
		{deal.Evaluation{Version: 3, Outcome: abi.OutcomeDiscount, Discount: 5}, "r v3: a discount → −0.05 CNY"},
		{deal.Evaluation{Version: 3, Outcome: abi.OutcomeDiscount, Label: []byte("all")}, "r v3: all → 0.00 CNY, as nothing was left to take off"},
		{deal.Evaluation{Version: 3, Reason: []byte("no_code")}, "r v3: nothing to take off from this order (reason: no_code)"},
		{deal.Evaluation{Version: 3, Final: true}, "r v3: nothing to take off from this order; it ended the pricing, so no later rule ran"},
		{deal.Evaluation{Version: 1, Fault: abi.FaultOutOfFuel, Fuel: 7}, "r v1: skipped, as the deal says for rules that fail: it used up its 7 units of fuel before it had an answer"},
		{deal.Evaluation{Version: 1, Fault: abi.FaultTrap}, "r v1: skipped, as the deal says for rules that fail: it crashed: wasm error: unreachable"},
		{deal.Evaluation{Fault: abi.FaultRuleInit}, "r: skipped, as the deal says for rules that fail: there was no rule of this name"},
	} {
		row.e.Rule = []byte("r")
		again := &reprice.Again{}
		if row.e.Fault == abi.FaultTrap {
			again.FaultDetail = "wasm error: unreachable"
		}
		if got := whyRule(&row.e, again, "CNY"); got != row.want {
			t.Errorf("%q, not %q", got, row.want)
		}
	}
	for _, row := range []struct {
		amount   int64
		currency string
		want     string
	}{{0, "EUR", "0.00 EUR"}, {-5, "EUR", "−0.05 EUR"}, {123456, "EUR", "1234.56 EUR"}, {1200, "JPY", "1200 JPY"}, {-1, "KWD", "−0.001 KWD"}, {10000, "CLF", "1.0000 CLF"}} {
		if got := moneyText(row.amount, row.currency); got != row.want {
			t.Errorf("%d: %q, not %q", row.amount, got, row.want)
		}
	}
}
