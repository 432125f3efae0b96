package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// TestRollout: a candidate is tried, looked at, given up by itself, and every step
// can be read afterwards.
func TestRollout(t *testing.T) {
	h := newHouse(t, nil)
	const rule = "/api/v1/rules/mine"
	h.upload(rule+"/versions?merchant_id=acme", tiered(t)).want(201)
	h.upload(rule+"/versions?merchant_id=acme", string(gastest.Rule("unreachable").Encode())).want(201)
	put := func(body string) answer {
		return h.send(request{method: "PUT", path: rule + "/rollout", body: body})
	}
	put(`{"merchant_id":"acme","stable":1,"candidate":2,"mode":"canary","percent":5,"bounds":{"fault_percent_max":101}}`).refused(invalidRequest)
	put(`{"merchant_id":"acme"}`).refused(invalidRequest).has(map[string]any{"errors.0.field": "stable"})
	put(`{"merchant_id":"acme","stable":1,"candidate":2,"mode":"blue"}`).refused(invalidRequest)
	put(`{"merchant_id":"acme","stable":1,"candidate":9,"mode":"shadow"}`).refused(versionNotFound)
	put(`{"merchant_id":"acme","stable":1,"candidate":2,"mode":"canary","percent":100,"bounds":{"fault_percent_max":3},"reason":"try it"}`).want(200).has(map[string]any{
		"stable": 1, "candidate": 2, "mode": "canary", "percent": 100, "pinned": true,
		"bounds.fault_percent_max": 3, "bounds.reject_percent_max": 20, "bounds.discount_percent_max": 50,
	})
	h.get(rule + "/rollout?merchant_id=acme").want(200).has(map[string]any{"candidate": 2, "comparison.candidate.orders": 0})

	h.deal("d", `,"rules":["mine"],"on_rule_error":"skip"`)
	for n := range 10 {
		h.order("d", fmt.Sprintf("u-%d", n), 1).want(201)
	}
	var now answer
	for deadline := time.Now().Add(10 * time.Second); ; {
		now = h.get(rule + "/rollout?merchant_id=acme").want(200)
		if now.field("candidate") == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s", now.body)
		}
	}
	now.has(map[string]any{"stable": 1, "mode": "stable", "pinned": true})
	h.order("d", "u-again", 1).want(201).has(map[string]any{"discount_total": 990})

	events := rule + "/events?merchant_id=acme"
	h.get(events).want(200).has(map[string]any{
		"data.0.action": "upload", "data.0.to": 1, "data.0.version": 1, "data.1.version": 2,
		"data.2.action": "canary", "data.2.from": 2, "data.2.to": 1, "data.2.version": 2, "data.2.percent": 100, "data.2.why": "try it",
		"data.3.action": "auto_rollback", "data.3.by": "doorbuster", "data.3.from": 2, "data.3.to": 1, "data.3.why": "5 of 5 orders faulted; at most 3 % may",
		"has_more": false,
	})
	page := h.get(events + "&limit=3").want(200).has(map[string]any{"has_more": true, "data.2.seq": 3})
	h.get(events + "&limit=3&cursor=" + page.text("next_cursor")).want(200).has(map[string]any{"has_more": false, "data.0.seq": 4})
	h.get(events + "&cursor=eHg").refused(invalidRequest)
	h.get("/api/v1/rules/nope/events?merchant_id=acme").refused(ruleNotFound)
	h.get("/api/v1/rules/nope/rollout?merchant_id=acme").refused(ruleNotFound)
}

// TestShadowIsShown: what a shadow would have answered can be read, order by order.
func TestShadowIsShown(t *testing.T) {
	h := newHouse(t, nil)
	const rule = "/api/v1/rules/mine"
	h.upload(rule+"/versions?merchant_id=acme", tiered(t)).want(201)
	h.upload(rule+"/versions?merchant_id=acme", string(gastest.Rule("i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 i64.const 7 i64.store 3 8"+gastest.Result).Encode())).want(201)
	h.send(request{method: "PUT", path: rule + "/rollout", body: `{"merchant_id":"acme","stable":1,"candidate":2,"mode":"shadow"}`}).want(200).has(map[string]any{"mode": "shadow", "percent": 100})
	h.deal("d", `,"rules":["mine"]`)
	h.order("d", "u-1", 1).want(201).has(map[string]any{"discount_total": 990, "discounts.0.version": 1})
	for deadline := time.Now().Add(10 * time.Second); ; {
		a := h.get(rule + "/rollout?merchant_id=acme").want(200)
		if a.field("comparison.different") == int64(1) {
			a.has(map[string]any{
				"comparison.compared": 1, "comparison.stable.orders": 1, "comparison.candidate.orders": 1, "comparison.differences.0.user_id": "u-1",
				"comparison.differences.0.stable.discount": 990, "comparison.differences.0.candidate.discount": 7, "comparison.differences.0.deal_id": "d",
			})
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s", a.body)
		}
	}
}
