package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

// inbox is a merchant's server.
type inbox struct {
	*httptest.Server
	mu     sync.Mutex // guards events
	events []webhook.Event
}

func newInbox(t *testing.T, secret string) *inbox {
	in := &inbox{}
	in.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		must(t, err)
		var at int64
		_, err = fmt.Sscanf(r.Header.Get(webhook.HeaderSignature), "t=%d,", &at)
		if err != nil || webhook.Sign(secret, at, body) != r.Header.Get(webhook.HeaderSignature) {
			t.Errorf("signature %q: %v", r.Header.Get(webhook.HeaderSignature), err)
		}
		var got struct{ Events []webhook.Event }
		must(t, json.Unmarshal(body, &got))
		in.mu.Lock()
		defer in.mu.Unlock()
		in.events = append(in.events, got.Events...)
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) types() (types []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, e := range in.events {
		types = append(types, e.Type)
	}
	return types
}

func (h *house) put(path, body string) answer {
	h.t.Helper()
	return h.send(request{method: "PUT", path: path, body: body})
}

func allEvents() string {
	text, err := json.Marshal(webhook.Types)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// A sale as a merchant's server hears of it.
func TestWebhookHearsOfASale(t *testing.T) {
	const secret = "0123456789abcdef"
	h := newHouse(t, nil)
	in := newInbox(t, secret)
	const deal = `{"deal_id":%q,"merchant_id":"acme","title":"t","category":"c","currency":"CNY","unit_price":100,"stock":%d,"reserve_ttl_s":60%s}`
	h.post("/api/v1/deals", fmt.Sprintf(deal, "old", 9, "")).want(201)
	h.post("/api/v1/orders/"+h.order("old", "u", 1).want(201).text("order_id")+"/confirm", "").want(200)
	h.put("/api/v1/webhooks/w?merchant_id=acme", fmt.Sprintf(`{"url":%q,"events":%s,"secret":%q}`, in.URL, allEvents(), secret)).want(201)

	h.post("/api/v1/deals", fmt.Sprintf(deal, "d", 3, "")).want(201)
	h.post("/api/v1/deals", fmt.Sprintf(deal, "short", 3, `,"ends_at":"2026-11-20T00:30:00Z"`)).want(201)
	h.post("/api/v1/deals", strings.Replace(fmt.Sprintf(deal, "theirs", 3, ""), "acme", "zenith", 1)).want(201)
	h.order("theirs", "u", 1).want(201)
	first, second := h.order("d", "u", 1).want(201).text("order_id"), h.order("d", "v", 1).want(201).text("order_id")
	h.order("d", "w", 1).want(201)
	h.post("/api/v1/orders/"+first+"/confirm", `{"payment_ref":"p-1"}`).want(200)
	h.post("/api/v1/orders/"+second+"/cancel", `{"reason":"changed"}`).want(200)
	h.tick()
	want := []string{"order.placed", "order.placed", "order.placed", "deal.sold_out", "order.confirmed", "order.cancelled"}
	until(t, "the sale", func() bool { return len(in.types()) >= len(want) })
	h.clock.Advance(time.Minute)
	want = append(want, "order.expired")
	until(t, "the expiry", func() bool { return len(in.types()) >= len(want) })
	h.post("/api/v1/deals/d/close", "").want(200)
	want = append(want, "deal.ended")
	until(t, "the end", func() bool { return len(in.types()) >= len(want) })
	h.clock.Advance(29 * time.Minute)
	want = append(want, "deal.ended")
	until(t, "the end by the clock", func() bool { return len(in.types()) >= len(want) })
	if got := in.types(); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for i, has := range map[int]string{
		0: `{"order_id":"d-2","deal_id":"d","user_id":"u","quantity":1,"currency":"CNY","total":100,"seq":2}`,
		4: `{"order_id":"d-2","deal_id":"d","user_id":"u","quantity":1,"currency":"CNY","total":100,"seq":5,"payment_ref":"p-1"}`,
		5: `{"order_id":"d-3","deal_id":"d","user_id":"v","quantity":1,"currency":"CNY","total":100,"seq":6,"reason":"changed"}`,
		8: `{"deal_id":"short"}`,
	} {
		if got := string(in.events[i].Data); got != has {
			t.Errorf("event %d: %s, want %s", i, got, has)
		}
	}
	ids := map[string]bool{}
	for _, e := range in.events {
		ids[e.ID] = true
	}
	if len(ids) != len(want) {
		t.Errorf("ids are used twice: %v", in.events)
	}
}

// What nobody asked for costs no look-ups, and neither does what the event has itself.
func TestWebhookReadsWhatItTells(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	for i := range 10 {
		id := h.order("d", fmt.Sprint("u-", i), 1).want(201).text("order_id")
		h.post("/api/v1/orders/"+id+"/confirm", "").want(200)
	}
	for types, want := range map[string]struct{ told, gets int64 }{
		"deal.ended":                   {0, 0},
		"order.placed":                 {10, 0},
		"order.placed order.confirmed": {20, 10},
	} {
		told, before := int64(0), h.store.gets.Load()
		end, err := NewOutbox(h.node, h.rules).Read(t.Context(), "d", webhook.Place{}, strings.Fields(types), func(webhook.Event, webhook.Place) error {
			told++
			return nil
		})
		if gets := h.store.gets.Load() - before; err != nil || told != want.told || gets != want.gets || end.Seq != 21 {
			t.Errorf("%s: %d events, %d look-ups, up to %d; %v", types, told, gets, end.Seq, err)
		}
	}
}

func TestWebhookRoutes(t *testing.T) {
	h := newHouse(t, nil)
	const path = "/api/v1/webhooks/w?merchant_id=acme"
	h.get(path).refused(notFound)
	h.send(request{method: "DELETE", path: path}).refused(notFound)
	for body, field := range map[string]string{
		`{"url":"ftp://x","events":["order.placed"]}`:                          "url",
		`{"url":"https://shop.example/","events":["order.paid"]}`:              "events[0]",
		`{"url":"https://shop.example/","events":["deal.ended"],"secret":"x"}`: "secret",
	} {
		h.loose = true
		if a := h.put(path, body).refused(invalidRequest); a.field("errors.0.field") != field {
			t.Errorf("%s: %s", body, a.body)
		}
		h.loose = false
	}
	made := h.put(path, `{"url":"https://shop.example/","events":["deal.ended"]}`).want(201).has(map[string]any{"webhook_id": "w", "merchant_id": "acme", "status": "active"})
	if len(made.text("secret")) < 16 {
		t.Errorf("%s", made.body)
	}
	h.get(path).want(200).has(map[string]any{"secret": nil, "url": "https://shop.example/", "events.0": "deal.ended"})
	h.put(path, `{"url":"https://shop.example/2","events":["order.placed"],"secret":"0123456789abcdef"}`).want(200).has(map[string]any{"secret": nil, "url": "https://shop.example/2"})
	h.put("/api/v1/webhooks/w", `{"url":"https://shop.example/","events":["deal.ended"]}`).refused(invalidRequest)
	h.send(request{method: "DELETE", path: path}).want(204)
	h.get(path).refused(notFound)
	h.put("/api/v1/webhooks/w", `{"merchant_id":"acme","url":"https://shop.example/","events":["deal.ended"]}`).want(201)
	h.send(request{method: "GET", path: path, admin: true}).want(200)

	g := newGuarded(t)
	g.send(request{method: "GET", path: "/api/v1/webhooks/w", admin: true}).refused(unauthenticated)
	g.as(g.acme).put("/api/v1/webhooks/w", `{"url":"https://shop.example/","events":["deal.ended"]}`).want(201)
	g.as(g.intruder).get("/api/v1/webhooks/w").refused(notFound)
	g.as(g.intruder).get(path).refused(forbidden)
	g.as(g.issuer.shopper("u")).get("/api/v1/webhooks/w").refused(forbidden)
}

// A rule that keeps failing, as a merchant's server hears of it.
func TestWebhookHearsOfARuleThatIsOff(t *testing.T) {
	const secret = "0123456789abcdef"
	h := newHouse(t, nil)
	in := newInbox(t, secret)
	h.upload("/api/v1/rules/broken/versions?merchant_id=acme", string(gastest.Rule("unreachable").Encode())).want(201)
	h.deal("d", `,"rules":["broken"],"on_rule_error":"skip"`)
	h.deal("other", `,"rules":["broken"],"on_rule_error":"skip"`)
	h.put("/api/v1/webhooks/w?merchant_id=acme", fmt.Sprintf(`{"url":%q,"events":["rule.switched_off"],"secret":%q}`, in.URL, secret)).want(201)
	for n := range 25 {
		h.order("d", fmt.Sprint("u-", n), 1).want(201)
	}
	off := map[string]any{"rules.0": "broken", "rules_off.0": "broken"}
	patch := func(body string) answer {
		return h.send(request{method: "PATCH", path: "/api/v1/deals/d", body: body})
	}
	h.get("/api/v1/deals/d").want(200).has(off)
	h.get("/api/v1/deals?rule_off=broken&limit=1").want(200).has(map[string]any{"data.0.deal_id": "d", "data.0.rules_off.0": "broken", "has_more": false})
	if a := h.get("/api/v1/deals?rule_off=tiered").want(200); string(a.body) != `{"data":[],"has_more":false}` {
		t.Errorf("%s", a.body)
	}
	patch(`{"title":"New"}`).want(200).has(off)
	patch(`{"rules":["broken"]}`).want(200).has(map[string]any{"rules.0": "broken", "rules_off": nil})
	h.tick()
	until(t, "the news", func() bool { return len(in.types()) > 0 })
	if got := in.types(); !slices.Equal(got, []string{"rule.switched_off"}) || string(in.events[0].Data) != `{"deal_id":"d","rule_id":"broken"}` {
		t.Errorf("%v %s", got, in.events[0].Data)
	}
}

// A rollback is told though the process ended right after it: what is told is read from
// the record of the change. What was before the webhook is not told.
func TestWebhookHearsOfARollbackAfterACrash(t *testing.T) {
	const secret = "0123456789abcdef"
	h := newHouse(t, nil)
	in := newInbox(t, secret)
	for amount := range 2 {
		h.upload("/api/v1/rules/sale/versions?merchant_id=acme", string(gastest.Rule(fmt.Sprintf("i32.const %d drop unreachable", amount)).Encode())).want(201)
	}
	back := func(reason string) {
		t.Helper()
		h.post("/api/v1/rules/sale/rollback", fmt.Sprintf(`{"merchant_id":"acme","reason":%q}`, reason)).want(200)
	}
	back("before")
	h.put("/api/v1/webhooks/w?merchant_id=acme", fmt.Sprintf(`{"url":%q,"events":["rule.rolled_back"],"secret":%q}`, in.URL, secret)).want(201)
	h.server.cfg.Webhooks.Close() // before it can hear of the next one
	back("too much")
	h.upload("/api/v1/rules/other/versions?merchant_id=bolt", tiered(t)).want(201)

	hooks, err := webhook.New(t.Context(), webhook.Config{Tables: h.store.Tables(), Clock: h.clock.Clock(), Logger: slog.New(slog.DiscardHandler), Loopback: true})
	must(t, err)
	defer hooks.Close()
	hooks.Start(NewOutbox(h.node, h.rules)) // as the next process does
	until(t, "the news", func() bool { return len(in.types()) > 0 })
	e := in.events[0]
	if e.ID != "acme/sale/4" || e.Type != "rule.rolled_back" || string(e.Data) != `{"rule_id":"sale","from":1,"to":2,"by":"operator:open","reason":"too much"}` {
		t.Errorf("%s %s %s", e.ID, e.Type, e.Data)
	}
	back("again")
	hooks.Touch("acme", RuleTopic("acme", "sale"), 0)
	until(t, "more news", func() bool { return len(in.types()) > 1 })
	if got := in.types(); len(got) != 2 || in.events[1].ID != "acme/sale/5" {
		t.Errorf("%v", got)
	}
}

// TestWebhookSamples: docs/webhooks.md has a sample of each event, with the fields that it
// has, in their order.
func TestWebhookSamples(t *testing.T) {
	page, err := os.ReadFile("../docs/webhooks.md")
	must(t, err)
	shapes := map[string]any{
		"order": &orderNews{}, "group": &dealNews{}, "deal": &dealNews{}, "rule.switched_off": &dealNews{},
		"rule.rolled_back": &ruleNews{}, "webhook": &map[string]string{},
	}
	var types []string
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, `{"event_id":`) {
			continue
		}
		var e webhook.Event
		must(t, json.Unmarshal([]byte(line), &e))
		kind, _, _ := strings.Cut(e.Type, ".")
		data := shapes[kind]
		if data == nil {
			data = shapes[e.Type]
		}
		fields := reflect.New(reflect.TypeOf(data).Elem()).Interface() // a fresh one for each
		must(t, json.Unmarshal(e.Data, fields))
		e.Data, err = json.Marshal(fields)
		must(t, err)
		again, err := json.Marshal(e)
		must(t, err)
		if string(again) != strings.TrimSpace(line) {
			t.Errorf("the sample\n%s has fields of\n%s", line, again)
		}
		types = append(types, e.Type)
	}
	if want := slices.Sorted(slices.Values(webhook.Types)); !slices.Equal(slices.Sorted(slices.Values(types)), want) {
		t.Errorf("samples of %v, not of %v", types, want)
	}
}
