package gateway

import (
	"fmt"
	"testing"
	"time"
)

func TestDealLife(t *testing.T) {
	h := newHouse(t, nil)
	h.post("/api/v1/deals", `{"deal_id":"d-1001","merchant_id":"acme","title":"Lychee 2.5 kg","category":"fruit","currency":"CNY",
		"unit_price":9900,"stock":10000,"per_user_limit":2,
		"starts_at":"2026-11-22T00:00:00.000Z","ends_at":"2026-11-23T00:00:00.000Z","reserve_ttl_s":900,
		"group":{"size":3,"window_s":86400,"unit_price":7900},
		"rules":["tiered"],"attributes":{"sku":"LY-25"}}`).want(201).has(map[string]any{
		"deal_id": "d-1001", "status": "scheduled", "available": 10000, "reserved": 0, "sold": 0, "stock": 10000, "version": 1,
		"starts_at": "2026-11-22T00:00:00.000Z", "ends_at": "2026-11-23T00:00:00.000Z", "server_time": "2026-11-20T00:00:00.000Z",
		"group.size": 3, "group.window_s": 86400, "group.unit_price": 7900, "rules.0": "tiered", "attributes.sku": "LY-25",
		"reserve_ttl_s": 900, "per_user_limit": 2, "on_rule_error": "reject",
	})
	h.order("d-1001", "u-7", 1).refused(dealNotStarted)
	h.clock.Advance(48 * time.Hour)
	h.get("/api/v1/deals/d-1001").want(200).has(map[string]any{"status": "live"})
	h.order("d-1001", "u-7", 2).want(201)
	h.order("d-1001", "u-7", 1).refused(userLimitExceeded)
	h.post("/api/v1/deals/d-1001/pause", "").want(200).has(map[string]any{"status": "paused", "available": 9998, "reserved": 2})
	h.post("/api/v1/deals/d-1001/pause", "").want(200).has(map[string]any{"status": "paused"})
	h.order("d-1001", "u-8", 1).refused(dealPaused)
	h.post("/api/v1/deals/d-1001/resume", "").want(200).has(map[string]any{"status": "live"})
	h.send(request{method: "PATCH", path: "/api/v1/deals/d-1001", body: `{"title":"Lychee","ends_at":null,"per_user_limit":0,"rules":[],"stock_add":5}`}).
		want(200).has(map[string]any{"title": "Lychee", "ends_at": nil, "per_user_limit": nil, "stock": 10005, "available": 10003})
	h.order("d-1001", "u-7", 3).want(201)
	h.post("/api/v1/deals/d-1001/close", "").want(200).has(map[string]any{"status": "ended"})
	h.order("d-1001", "u-9", 1).refused(dealEnded)
	h.post("/api/v1/deals/d-1001/resume", "").refused(dealEnded)
	h.send(request{method: "PATCH", path: "/api/v1/deals/d-1001", body: `{"stock_add":1}`}).refused(dealEnded)
}

func TestDealDefaults(t *testing.T) {
	h := newHouse(t, nil)
	a := h.post("/api/v1/deals", `{"merchant_id":"acme","title":"x","currency":"USD","unit_price":0,"stock":1,"on_rule_error":"skip"}`).want(201)
	a.has(map[string]any{
		"status": "live", "starts_at": "2026-11-20T00:00:00.000Z", "ends_at": nil, "reserve_ttl_s": 900, "group": nil,
		"per_user_limit": nil, "category": "", "on_rule_error": "skip",
	})
	h.get("/api/v1/deals/" + a.text("deal_id")).want(200)
}

func TestDealIsSoldOutAndComesBack(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":1,"reserve_ttl_s":60`)
	first := h.order("d", "u-1", 1).want(201)
	h.order("d", "u-2", 1).refused(soldOut)
	h.get("/api/v1/deals/d").has(map[string]any{"status": "sold_out", "available": 0, "reserved": 1})
	h.clock.Advance(61 * time.Second)
	h.get("/api/v1/orders/" + first.text("order_id")).want(200).has(map[string]any{"status": "expired"})
	h.order("d", "u-2", 1).want(201).has(map[string]any{"available": 0})
}

func TestDealsThatAreNotValid(t *testing.T) {
	h := newHouse(t, nil)
	const rest = `"deal_id":"d","merchant_id":"acme","currency":"CNY","unit_price":1,"stock":1`
	for _, tc := range []struct {
		body  string
		want  problem
		field any
	}{
		{`{`, invalidJSON, nil},
		{`{"title":"x",` + rest + `}x`, invalidJSON, nil},
		{`{"title":"` + "\xff" + `",` + rest + `}`, invalidJSON, nil},
		{`[]`, invalidRequest, nil},
		{` null `, invalidRequest, nil},
		{`{"titel":"x"}`, unknownField, "titel"},
		{`{"group":{"sizes":3}}`, unknownField, "sizes"},
		{`{"stock":"1"}`, invalidRequest, "stock"},
		{`{"stock":1.5}`, invalidRequest, "stock"},
		{`{"stock":99999999999999999999}`, invalidRequest, "stock"},
		{`{"attributes":{"a":1}}`, invalidRequest, "attributes.a"},
		{`{"starts_at":"yesterday"}`, invalidRequest, nil},
		{`{"starts_at":5}`, invalidRequest, nil},
		{`{` + rest + `}`, dealInvalid, "title"},
		{`{"title":"x",` + rest + `,"rules":["no-such-rule"]}`, dealInvalid, "rules[0]"},
		{`{"title":"x",` + rest + `,"group":{"unit_price":1}}`, dealInvalid, "group.size"},
		{`{"title":"x",` + rest + `,"group":{"size":2,"window_s":60}}`, dealInvalid, "group.unit_price"}, // never for nothing
		{`{"title":"x",` + rest + `,"group":{"size":1,"window_s":1,"unit_price":1}}`, dealInvalid, "group.size"},
		{`{"title":"x",` + rest + `,"per_user_limit":-1}`, dealInvalid, "per_user_limit"},
		{`{"title":"x",` + rest + `,"reserve_ttl_s":99999999999}`, dealInvalid, "reserve_ttl_s"},
		{`{"title":"x",` + rest + `,"on_rule_error":"ignore"}`, dealInvalid, "on_rule_error"},
		{`{"title":"x",` + rest + `,"ends_at":"2020-01-01T00:00:00Z"}`, dealInvalid, "ends_at"},
		{`{"deal_id":"d","merchant_id":"acme","title":"x","currency":"yuan","stock":1,"unit_price":1}`, dealInvalid, "currency"},
		{`{"deal_id":"d","merchant_id":"acme","title":"x","currency":"CNY","stock":1}`, dealInvalid, "unit_price"},
		{`{"deal_id":"a b","merchant_id":"acme","title":"x","currency":"CNY","unit_price":1,"stock":1}`, dealInvalid, "deal_id"},
		{`{"deal_id":"","merchant_id":"acme","title":"x","currency":"CNY","unit_price":1,"stock":1}`, dealInvalid, "deal_id"},
		{`{"title":"x","currency":"CNY","unit_price":1,"stock":1}`, dealInvalid, "merchant_id"},
	} {
		a := h.post("/api/v1/deals", tc.body).refused(tc.want)
		if tc.field != nil {
			a.has(map[string]any{"errors.0.field": tc.field})
		}
	}
	h.post("/api/v1/deals", "").refused(invalidJSON)
	h.deal("d", "")
	h.post("/api/v1/deals", `{"title":"x",`+rest+`}`).refused(dealExists)
	patch := func(body string) answer { return h.send(request{method: "PATCH", path: "/api/v1/deals/d", body: body}) }
	patch(`{"title":""}`).refused(dealInvalid)
	patch(`{"stock_add":-1}`).refused(dealInvalid)
	patch(`{"per_user_limit":-1}`).refused(dealInvalid)
	patch(`{"rules":["no-such-rule"]}`).refused(dealInvalid)
	patch(`{"ends_at":"2020-01-01T00:00:00Z"}`).refused(dealInvalid).has(map[string]any{"errors.0.field": "ends_at"})
	patch(`null`).refused(invalidRequest)
	patch(`{"stock":5}`).refused(unknownField)
	patch(`{"stock_add":1000000000}`).refused(dealInvalid).has(map[string]any{"errors.0.field": "stock_add"})
	h.send(request{method: "PATCH", path: "/api/v1/deals/nope", body: `{}`}).refused(dealNotFound)
	h.get("/api/v1/deals/nope").refused(dealNotFound)
	h.get("/api/v1/deals/a%20b").refused(dealNotFound)
	h.get("/api/v1/deals/nope/events").refused(dealNotFound)
	h.post("/api/v1/deals/nope/pause", "").refused(dealNotFound)
	h.deal("d-2", "")
	h.post("/api/v1/deals/d-2/pause", `{"until":"tomorrow"}`).refused(unknownField)
	h.get("/api/v1/deals/d-2").has(map[string]any{"status": "live"})
	for _, path := range []string{"snapshot", "drain"} {
		h.send(request{method: "POST", path: "/api/v1/admin/" + path, admin: true, body: `{"after":"noon"}`}).refused(unknownField)
	}
	h.post("/api/v1/deals/d-2/pause", `{}`).want(200).has(map[string]any{"status": "paused"})
}

func TestDealLists(t *testing.T) {
	h := newHouse(t, nil)
	for i := range 5 {
		h.deal(fmt.Sprintf("d-%d", i), "")
	}
	h.post("/api/v1/deals", `{"deal_id":"x","merchant_id":"other","title":"x","category":"toys","currency":"USD","unit_price":1,"stock":1,"starts_at":"2027-01-01T00:00:00Z"}`).want(201)
	var got []string
	for path := "/api/v1/deals?limit=2"; path != ""; {
		a := h.get(path).want(200)
		for i := range 2 {
			got = append(got, a.text(fmt.Sprintf("data.%d.deal_id", i)))
		}
		path = ""
		if a.field("has_more") == true {
			path = "/api/v1/deals?limit=2&cursor=" + a.text("next_cursor")
		}
	}
	if fmt.Sprint(got) != "[d-0 d-1 d-2 d-3 d-4 x]" {
		t.Errorf("pages show %v", got)
	}
	h.get("/api/v1/deals?merchant_id=other").has(map[string]any{"data.0.deal_id": "x", "has_more": false})
	h.get("/api/v1/deals?category=toys").has(map[string]any{"data.0.deal_id": "x"})
	h.get("/api/v1/deals?status=scheduled").has(map[string]any{"data.0.deal_id": "x"})
	if a := h.get("/api/v1/deals?status=ended"); string(a.body) != `{"data":[],"has_more":false}` {
		t.Errorf("an empty page is %s", a.body)
	}
	for _, bad := range []string{"limit=0", "limit=201", "limit=x", "cursor=%21", "cursor=ACE", "status=open", "merchant_id=a%20b"} {
		h.get("/api/v1/deals?" + bad).refused(invalidRequest)
	}
}

// Whoever gets a field wrong is told which one, and what it takes.
func TestMessagesNameTheField(t *testing.T) {
	h := newHouse(t, nil)
	const deal = `{"deal_id":"m","merchant_id":"acme","title":"t","category":"c","currency":"CNY","stock":5,`
	for body, want := range map[string][2]string{
		`"unit_price":1.5}`:                                  {"unit_price", "must be an integer in minor units: 9900 for 99.00"},
		`"unit_price":"99"}`:                                 {"unit_price", "must be an integer in minor units: 9900 for 99.00"},
		`"unit_price":1,"per_user_limit":1.5}`:               {"per_user_limit", "must be an integer"},
		`"unit_price":1,"rules":"tiered"}`:                   {"rules", "must be a list"},
		`"unit_price":1,"starts_at":"tomorrow"}`:             {"starts_at", wantTime},
		`"unit_price":1,"ends_at":1795132800}`:               {"ends_at", wantTime},
		`"unit_price":1,"ends_at":{}}`:                       {"ends_at", wantTime},
		`"unit_price":1,"starts_at":"1960-01-01T00:00:00Z"}`: {"starts_at", wantTime},
	} {
		a := h.post("/api/v1/deals", deal+body).refused(invalidRequest)
		if a.field("errors.0.field") != want[0] || a.field("errors.0.message") != want[1] {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	a := h.post("/api/v1/deals", `{"title":"t","category":"c","currency":"CNY","stock":5,"unit_price":1}`).refused(dealInvalid)
	if a.field("detail") != "merchant_id must be given" {
		t.Errorf("%s", a.body)
	}
}

// A change that changes nothing is no event.
func TestEmptyPatch(t *testing.T) {
	h := newHouse(t, nil)
	h.post("/api/v1/deals", `{"deal_id":"p","merchant_id":"acme","title":"t","category":"c","currency":"CNY","stock":5,"unit_price":1}`).want(201)
	h.send(request{method: "PATCH", path: "/api/v1/deals/p", body: `{}`}).want(200).has(map[string]any{"version": int64(1), "title": "t"})
	h.send(request{method: "PATCH", path: "/api/v1/deals/p", body: `{"title":"u"}`}).want(200).has(map[string]any{"version": int64(2)})
}
