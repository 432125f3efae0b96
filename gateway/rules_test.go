package gateway

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

func tiered(t *testing.T) string {
	t.Helper()
	wasm, err := os.ReadFile("../plugins/house/tiered.wasm")
	must(t, err)
	return string(wasm)
}

func (h *house) upload(path, wasm string) answer {
	h.t.Helper()
	return h.send(request{method: "POST", path: path, body: wasm, header: map[string]string{"Content-Type": "application/wasm"}})
}

// A merchant who hides a house rule learns that he does.
func TestRuleOfAHouseRulesName(t *testing.T) {
	h := newHouse(t, nil)
	a := h.upload("/api/v1/rules/tiered/versions?merchant_id=acme", tiered(t)).want(201)
	if !strings.Contains(a.text("warnings.0"), "a house rule is called tiered too") {
		t.Errorf("%s", a.body)
	}
}

func TestRules(t *testing.T) {
	h := newHouse(t, nil)
	wasm := tiered(t)
	const versions = "/api/v1/rules/mine/versions"
	h.upload(versions+"?merchant_id=acme", wasm).want(201).has(map[string]any{
		"rule_id": "mine", "version": 1, "size": len(wasm), "abi": 1, "fuel_limit": 100000,
	})
	h.upload(versions+"?merchant_id=acme", wasm).want(200).has(map[string]any{"version": 1})
	h.upload(versions+"?merchant_id=acme&fuel_limit=5000", wasm).want(201).has(map[string]any{"version": 2, "fuel_limit": 5000})
	h.get(versions + "/1?merchant_id=acme").want(200).has(map[string]any{"version": 1})
	if got := h.get(versions + "/1/wasm?merchant_id=acme").want(200); !bytes.Equal(got.body, []byte(wasm)) || got.header.Get("Content-Type") != "application/wasm" {
		t.Errorf("%d bytes of %s come back", len(got.body), got.header.Get("Content-Type"))
	}
	h.get("/api/v1/rules/mine?merchant_id=acme").want(200).has(map[string]any{"latest": 2, "rollout.stable": 2, "rollout.previous": 1, "merchant_id": "acme"})
	h.get("/api/v1/rules/tiered").want(200).has(map[string]any{"merchant_id": nil})

	rollout := func(body string) answer {
		return h.send(request{method: "PUT", path: "/api/v1/rules/mine/rollout", body: body})
	}
	rollout(`{"merchant_id":"acme","stable":1}`).want(200).has(map[string]any{"stable": 1, "pinned": true})
	rollout(`{"merchant_id":"acme","stable":9}`).refused(versionNotFound)
	rollout(`{"merchant_id":"acme","stable":1,"candidate":2,"mode":"canary"}`).refused(invalidRequest)
	rollout(`{"stable":1}`).refused(invalidRequest)
	rollout(`{"merchant_id":"acme","stabel":1}`).refused(unknownField)
	h.post("/api/v1/rules/mine/promote?merchant_id=acme", "").want(200).has(map[string]any{"stable": 2})
	h.post("/api/v1/rules/mine/promote", `{"merchant_id":"acme"}`).refused(ruleStateConflict)
	h.post("/api/v1/rules/mine/rollback", `{"merchant_id":"acme"}`).want(200).has(map[string]any{"stable": 1})
	h.post("/api/v1/rules/mine/rollout/promote?merchant_id=acme", "").want(200).has(map[string]any{"stable": 2})
	h.post("/api/v1/rules/mine/rollout/rollback?merchant_id=acme", "").want(200).has(map[string]any{"stable": 1})
	h.post("/api/v1/rules/nope/rollback?merchant_id=acme", "").refused(ruleNotFound)
	h.post("/api/v1/rules/nope/promote?merchant_id=acme", "").refused(ruleNotFound).has(map[string]any{"detail": `rule not found: "nope"`})
	for _, path := range []string{"/promote", "/rollback"} {
		h.post("/api/v1/rules/tiered"+path+"?merchant_id=acme", "").refused(ruleNotFound).has(map[string]any{
			"detail": `rule not found: "tiered" is a house rule, which no merchant changes`,
		})
	}
	h.get("/api/v1/rules/tiered/logs?merchant_id=acme").refused(ruleNotFound).has(map[string]any{
		"detail": `rule not found: "tiered" is a house rule, whose log no merchant sees`,
	})
	h.get("/api/v1/rules/mine/versions/9?merchant_id=acme").refused(versionNotFound).has(map[string]any{"detail": `version not found: 9 of "mine"`})
	h.post("/api/v1/rules/nope/promote", "").refused(invalidRequest)
	h.post("/api/v1/rules/nope/rollback", "").refused(invalidRequest)

	h.upload("/api/v1/rules/another/versions?merchant_id=acme", wasm).want(201)
	a := h.get("/api/v1/rules?merchant_id=acme&limit=2").want(200).has(map[string]any{"data.0.rule_id": "another", "data.1.rule_id": "mine", "has_more": true})
	h.get("/api/v1/rules?merchant_id=acme&limit=2&cursor=" + a.text("next_cursor")).want(200).has(map[string]any{"data.0.rule_id": "tiered", "has_more": false})
	h.get("/api/v1/rules?limit=0").refused(invalidRequest)
	h.get("/api/v1/rules?cursor=ACE").refused(invalidRequest)
	h.get("/api/v1/rules?cursor=eno").want(200).has(map[string]any{"has_more": false})
}

func TestRulesThatAreRefused(t *testing.T) {
	h := newHouse(t, nil)
	wasm := tiered(t)
	const path = "/api/v1/rules/mine/versions?merchant_id=acme"
	h.upload("/api/v1/rules/mine/versions", wasm).refused(invalidRequest)
	h.upload(path+"&fuel_limit=1000001", wasm).refused(invalidRequest)
	h.upload(path+"&fuel_limit=x", wasm).refused(invalidRequest)
	h.upload(path+"&fuel_limit=0", wasm).refused(invalidRequest).has(map[string]any{"errors.0.field": "fuel_limit"})
	h.upload("/api/v1/rules/a%20b/versions?merchant_id=acme", wasm).refused(invalidRequest).has(map[string]any{"errors.0.field": "id"})
	h.post(path, "{}").refused(unsupportedMediaType)
	h.send(request{method: "POST", path: path, body: wasm, header: map[string]string{"Content-Type": "Application/wasm ; a=b"}}).want(201)
	h.upload(path, "not wasm").refused(ruleInvalid).has(map[string]any{"detail": "header: not a core WebAssembly module of version 1"})
	if a := h.upload(path, "\x00asm\x01\x00\x00\x00").refused(ruleInvalid); a.text("errors.0.section") == "" || a.text("errors.0.reason") == "" {
		t.Errorf("%s", a.body)
	}
	h.upload(path, strings.Repeat("x", 4<<20+1)).refused(bodyTooLarge)
	for n := range uploadsMax {
		h.server.uploads.enter(t.Context(), fmt.Sprint(n))
	}
	h.upload(path, wasm).refused(overloaded)
	h.get("/api/v1/rules/nope").refused(ruleNotFound)
	h.get("/api/v1/rules/nope?merchant_id=a%20b").refused(invalidRequest)
	h.get("/api/v1/rules/nope/versions/1").refused(ruleNotFound)
	h.get("/api/v1/rules/nope/versions/1/wasm").refused(ruleNotFound)
	for _, n := range []string{"0", "2", "x", "-1", "99999999999"} {
		h.get("/api/v1/rules/tiered/versions/" + n).refused(versionNotFound)
		h.get("/api/v1/rules/tiered/versions/" + n + "/wasm").refused(versionNotFound)
	}
}

// TestQuotaIsToldToTheMerchant: by name, in the words of the registry.
func TestQuotaIsToldToTheMerchant(t *testing.T) {
	no := asRefusal(fmt.Errorf("%w rules: a merchant may have 1000", plugins.ErrTooMany))
	if no.problem != ruleInvalid || no.Error() != "too many rules: a merchant may have 1000" {
		t.Errorf("%v: %v", problems[no.problem].code, no)
	}
}

func TestEvaluate(t *testing.T) {
	h := newHouse(t, nil)
	run := func(body string) answer { return h.post("/api/v1/rules/tiered/versions/1/evaluate", body) }
	full := `{"now":"2026-11-22T00:00:00Z","deal":{"deal_id":"d","currency":"CNY","unit_price":9900,"stock":100,"available":100,
		"starts_at":"2026-11-21T00:00:00Z","ends_at":"2026-11-23T00:00:00Z","attributes":{"a":"b"}},
		"order":{"user_id":"u","quantity":5,"codes":["VIP"],"attributes":{"channel":"app"}},
		"group":{"size":3,"members":1,"opens":false,"joins":true},"user_quantity":0,"first_order":true,"quote":false,"discount_so_far":0}`
	a := run(full).want(200)
	if a.field("fuel").(int64) == 0 || a.field("ns").(int64) == 0 {
		t.Errorf("%s", a.body)
	}
	if b := run(full).want(200); b.text("input_digest") != a.text("input_digest") || b.field("fuel") != a.field("fuel") {
		t.Errorf("the same input gave\n%s\n%s", a.body, b.body)
	}
	run("").want(200)
	run("{}").want(200)
	run(`{"order":{"quantity":0}}`).refused(quantityInvalid)
	run(`{"deal":{"unit_price":-1}}`).refused(invalidRequest)
	run(`{"deal":{"currency":"yuan"}}`).refused(invalidRequest)
	run(`{"discount_so_far":1}`).refused(invalidRequest)
	run(`{"order":{"codes":["` + strings.Repeat("x", 9000) + `"]}}`).refused(invalidRequest)
	run(`{"deal":{"price":1}}`).refused(unknownField)
	h.post("/api/v1/rules/tiered/versions/9/evaluate", "{}").refused(versionNotFound)
	h.post("/api/v1/rules/nope/versions/1/evaluate", "{}").refused(ruleNotFound)
}

// A rule that runs out of fuel rejects the order, or is skipped, as the deal
// says; evaluate shows the fault.
// TestOrdersTooLargeForRules: shoppers cannot get past a rule by sending more than it
// can be told, nor have it switched off.
func TestOrdersTooLargeForRules(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"rules":["tiered"],"on_rule_error":"skip"`)
	h.deal("free", "")
	body := func(id, user string, entries int) string {
		attributes := make([]string, entries)
		for i := range attributes {
			attributes[i] = fmt.Sprintf(`"%02d":%q`, i, strings.Repeat("x", 256))
		}
		return fmt.Sprintf(`{"deal_id":%q,"user_id":%q,"quantity":1,"attributes":{%s}}`, id, user, strings.Join(attributes, ","))
	}
	for n := range 25 {
		h.post("/api/v1/orders", body("d", fmt.Sprint("u-", n), 32)).refused(invalidRequest).has(map[string]any{"errors.0.field": "attributes"})
	}
	h.post("/api/v1/quotes", body("d", "u", 32)).refused(invalidRequest)
	h.post("/api/v1/orders", body("d", "u", 28)).want(201).has(map[string]any{"discount_total": 990})
	h.post("/api/v1/orders", body("free", "u", 32)).want(201)
	h.get("/api/v1/deals/d").has(map[string]any{"rules_off": nil, "reserved": 1})
}

func TestRuleFaults(t *testing.T) {
	h := newHouse(t, nil)
	h.upload("/api/v1/rules/hungry/versions?merchant_id=acme&fuel_limit=1", tiered(t)).want(201)
	h.post("/api/v1/rules/hungry/versions/1/evaluate?merchant_id=acme", "{}").want(200).has(map[string]any{"outcome": "fault", "fault": "out_of_fuel"})
	h.deal("strict", `,"rules":["hungry"]`)
	h.deal("lenient", `,"rules":["hungry"],"on_rule_error":"skip"`)
	h.order("strict", "u", 1).refused(ruleRejected)
	h.get("/api/v1/deals/strict").has(map[string]any{"available": 100})
	id := h.order("lenient", "u", 1).want(201).has(map[string]any{"discount_total": 0}).text("order_id")
	h.get("/api/v1/orders/" + id + "/explain").want(200).has(map[string]any{"rules.0.outcome": "fault", "rules.0.fault": "out_of_fuel"})
}

// TestFaultingRules: an operator who knows of no merchant finds the rules that fault, the
// last one first, and no others.
func TestFaultingRules(t *testing.T) {
	h := newHouse(t, nil)
	for _, merchant := range []string{"acme", "rival"} {
		h.upload("/api/v1/rules/hungry/versions?fuel_limit=1&merchant_id="+merchant, tiered(t)).want(201)
		h.upload("/api/v1/rules/fine/versions?merchant_id="+merchant, tiered(t)).want(201)
	}
	quote := func(merchant string) {
		deal := "by-" + merchant
		h.post("/api/v1/deals", `{"deal_id":"`+deal+`","merchant_id":"`+merchant+`","title":"t","currency":"CNY","unit_price":100,"stock":9,"rules":["fine","hungry"],"on_rule_error":"skip"}`).want(201)
		h.post("/api/v1/quotes", orderBody(deal, "u", 1, "")).want(200)
		h.clock.Advance(time.Second)
	}
	page := func(query string) answer {
		return h.send(request{method: "GET", path: "/api/v1/admin/rules" + query, admin: true}).want(200)
	}
	if got := page(""); string(got.body) != `{"data":[],"has_more":false}` {
		t.Errorf("%s", got.body)
	}
	quote("rival")
	quote("acme")
	page("").has(map[string]any{
		"data.0.merchant_id": "acme", "data.0.rule_id": "hungry", "data.0.calls": 1, "data.0.faults.out_of_fuel": 1, "data.0.last_fault_at": "2026-11-20T00:00:01.000Z",
		"data.1.merchant_id": "rival", "data.1.rule_id": "hungry", "data.1.last_fault_at": "2026-11-20T00:00:00.000Z", "has_more": false,
	})
	first := page("?limit=1").has(map[string]any{"data.0.merchant_id": "acme", "has_more": true})
	page("?limit=1&cursor=" + first.text("next_cursor")).has(map[string]any{"data.0.merchant_id": "rival", "has_more": false})
	h.send(request{method: "GET", path: "/api/v1/admin/rules?cursor=!", admin: true}).refused(invalidRequest)
}

func TestWhyRule(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"rules":["tiered"],"stock":1000`)
	for quantity := range 12 {
		a := h.order("d", fmt.Sprintf("u-%d", quantity), quantity+1).want(201)
		e := h.get("/api/v1/orders/" + a.text("order_id") + "/explain").want(200)
		if e.field("discount_total") != a.field("discount_total") || e.field("rules.0.discount") != a.field("discount_total") {
			t.Errorf("%s\n%s", a.body, e.body)
		}
	}
}

// aShopifyFunction answers that there is no discount.
func aShopifyFunction() string {
	const module = "shopify_function_v2"
	return string((&gastest.Module{
		Types: []gastest.Type{{}, {Params: []byte{gastest.I32}, Results: []byte{gastest.I32}}, {Params: []byte{gastest.I32, gastest.I32}, Results: []byte{gastest.I32}}, {Results: []byte{gastest.I32}}},
		Imports: []gastest.Import{
			{Module: module, Name: "shopify_function_output_new_object", Type: 1},
			{Module: module, Name: "shopify_function_output_new_utf8_str", Type: 2},
			{Module: module, Name: "shopify_function_output_new_array", Type: 1},
			{Module: module, Name: "shopify_function_output_finish_array", Type: 3},
			{Module: module, Name: "shopify_function_output_finish_object", Type: 3},
		},
		MemoryMin: 1,
		Data:      []gastest.Data{{At: 8, Bytes: "operations"}},
		Funcs:     []gastest.Func{{Code: "i32.const 1 call 0 drop i32.const 8 i32.const 10 call 1 drop i32.const 0 call 2 drop call 3 drop call 4 drop"}},
		Exports:   []gastest.Export{{Name: "memory", Kind: 2}, {Name: "run", Index: 5}},
	}).Encode())
}

func (h *house) uploadForm(path string, parts ...string) answer {
	h.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for i := 0; i < len(parts); i += 2 {
		must(h.t, form.WriteField(parts[i], parts[i+1]))
	}
	must(h.t, form.Close())
	return h.send(request{method: "POST", path: path, body: body.String(), header: map[string]string{"Content-Type": form.FormDataContentType()}})
}

// TestRuleConfiguration: rule_init is told what comes with the module, which is another
// version with another configuration.
func TestRuleConfiguration(t *testing.T) {
	h := newHouse(t, nil)
	const path = "/api/v1/rules/off/versions"
	const merchant = "?merchant_id=acme"
	// The first byte of the configuration, which must have two, is the discount.
	m := gastest.Rule(gastest.Result)
	m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: fmt.Sprintf(
		"i32.const %[1]d i32.const 1 i32.store16 0 0 i32.const %[1]d i32.const %[2]d i32.load8_u 0 0 i32.store 0 8 local.get 0 i32.const 2 i32.ne", gastest.OutputAt, gastest.BufferAt)})
	m.Exports = append(m.Exports, gastest.Export{Name: "rule_init", Index: gastest.RuleFuncs})
	rule := string(m.Encode())
	h.upload(path+merchant, rule).refused(ruleInvalid)
	h.uploadForm(path+merchant, "module", rule).refused(ruleInvalid)
	h.uploadForm(path+merchant, "module", rule, "configuration", "A\x00").want(201).has(map[string]any{"version": 1, "abi": 1, "fuel_limit": 100000})
	h.uploadForm(path+merchant, "module", rule, "configuration", "A\x00").want(200).has(map[string]any{"version": 1})
	h.uploadForm(path+merchant, "module", rule, "configuration", "B\x00").want(201).has(map[string]any{"version": 2})
	h.uploadForm(path+merchant, "module", rule, "configuration", strings.Repeat("x", 8<<10+1)).refused(ruleInvalid)
	h.uploadForm(path+merchant, "module", rule, "configuration", "A\x00", "export", "run").refused(ruleInvalid)
	for version, discount := range map[string]int{"1": 'A', "2": 'B'} {
		h.post(path+"/"+version+"/evaluate"+merchant, `{"deal":{"unit_price":100}}`).want(200).has(map[string]any{"outcome": "discount", "discount": discount})
	}
}

func TestShopifyFunction(t *testing.T) {
	h := newHouse(t, nil)
	const path = "/api/v1/rules/off/versions?merchant_id=acme"
	function := aShopifyFunction()
	h.upload(path, function).want(201).has(map[string]any{"version": 1, "size": len(function), "fuel_limit": 11000000})
	h.upload(path+"&fuel_limit=11000001", function).refused(invalidRequest)
	h.uploadForm(path, "module", function, "configuration", `{"a":1}`, "input_query", "{cart{lines{id}}}", "export", "run", "discount_classes", "ORDER, PRODUCT").want(201).has(map[string]any{"version": 2})
	h.uploadForm(path, "module", function, "configuration", `{"a":1}`, "input_query", "{cart{lines{id}}}", "export", "run", "discount_classes", "ORDER, PRODUCT").want(200).has(map[string]any{"version": 2})
	h.uploadForm(path, "module", function, "export", "walk").refused(ruleInvalid)
	h.uploadForm(path, "module", function, "provider", "not a module").want(201) // nobody asks for it
	h.uploadForm(path, "configuration", "{}").refused(invalidRequest)
	h.uploadForm(path, "module", function, "colour", "red").refused(invalidRequest)
	h.uploadForm(path, "module", function, "module", function).refused(invalidRequest)
	h.send(request{method: "POST", path: path, body: "no form", header: map[string]string{"Content-Type": "multipart/form-data"}}).refused(invalidRequest)
	h.send(request{method: "POST", path: path, body: function, header: map[string]string{"Content-Type": "text/plain"}}).refused(unsupportedMediaType)

	h.post("/api/v1/deals", `{"deal_id":"d","merchant_id":"acme","title":"t","currency":"JPY","unit_price":100,"stock":5,"per_user_limit":5,"rules":["off"]}`).want(201)
	h.send(request{method: "POST", path: "/api/v1/orders", body: `{"deal_id":"d","user_id":"ann","quantity":1}`, header: map[string]string{"Idempotency-Key": "k"}}).want(201).has(map[string]any{"total": 100, "discount_total": 0})
}
