package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

func TestOrderLife(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"rules":["tiered"],"stock":100,"attributes":{"tiers":"1:10"}`)
	a := h.post("/api/v1/order", `{"deal_id":"d","user_id":"u-7","quantity":2,"codes":["VIP"],"attributes":{"channel":"app"}}`).want(201)
	a.has(map[string]any{
		"deal_id": "d", "user_id": "u-7", "quantity": 2, "status": "reserved", "currency": "CNY", "unit_price": 9900, "subtotal": 19800,
		"group": nil, "seq": 2, "available": 98, "created_at": "2026-11-20T00:00:00.000Z", "expires_at": "2026-11-20T00:15:00.000Z",
	})
	if total, off := a.field("total").(int64), a.field("discount_total").(int64); total+off != 19800 {
		t.Errorf("total %d + discount %d is not the subtotal", total, off)
	}
	id := a.text("order_id")
	h.get("/api/v1/orders/" + id).want(200).has(map[string]any{"status": "reserved", "seq": 2})
	h.post("/api/v1/orders/"+id+"/confirm", `{"payment_ref":"p-1"}`).want(200).has(map[string]any{"status": "confirmed"})
	h.post("/api/v1/orders/"+id+"/confirm", `{"payment_ref":"p-1"}`).want(200).has(map[string]any{"status": "confirmed"})
	h.post("/api/v1/orders/"+id+"/cancel", `{"reason":"changed my mind"}`).refused(orderStateConflict).has(map[string]any{"detail": "the order is confirmed"})
	h.get("/api/v1/deals/d").has(map[string]any{"available": 98, "reserved": 0, "sold": 2})

	other := h.order("d", "u-8", 1).want(201).text("order_id")
	h.post("/api/v1/orders/"+other+"/cancel", "").want(200).has(map[string]any{"status": "cancelled"})
	h.post("/api/v1/orders/"+other+"/confirm", "").refused(orderStateConflict)
	h.post("/api/v1/orders/"+other+"/refund", "").refused(orderStateConflict)
	h.get("/api/v1/deals/d").has(map[string]any{"available": 98, "reserved": 0, "sold": 2})
}

func TestOrdersThatDoNotExist(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	for _, id := range []string{"d-1", "d-9", "nope-2", "nope", "a%20b"} { // event 1 created the deal
		h.get("/api/v1/orders/" + id).refused(orderNotFound)
		h.get("/api/v1/orders/" + id + "/explain").refused(orderNotFound)
		h.post("/api/v1/orders/"+id+"/confirm", "").refused(orderNotFound)
		h.post("/api/v1/orders/"+id+"/cancel", "{}").refused(orderNotFound)
	}
	h.order("nope", "u", 1).refused(dealNotFound)
}

func TestOrderMoveBodies(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	id := h.order("d", "u", 1).want(201).text("order_id")
	confirm := func(body string) answer { return h.post("/api/v1/orders/"+id+"/confirm", body) }
	confirm(`{"reason":"x"}`).refused(unknownField).has(map[string]any{"errors.0.field": "reason"})
	confirm(`{"payment_ref":1}`).refused(invalidRequest).has(map[string]any{"errors.0.field": "payment_ref"})
	confirm(`{"payment_ref":"` + strings.Repeat("x", 257) + `"}`).refused(invalidRequest)
	confirm(`[]`).refused(invalidRequest)
	confirm(`{`).refused(invalidJSON)
	h.send(request{method: "POST", path: "/api/v1/orders/" + id + "/confirm", body: "{}", header: map[string]string{"Content-Type": "text/plain"}}).refused(unsupportedMediaType)
	h.get("/api/v1/orders/" + id).has(map[string]any{"status": "reserved"})
}

func TestOrdersThatAreRefused(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":5`)
	for _, tc := range []struct {
		body  string
		want  problem
		field any
	}{
		{`{"deal_id":"d"`, invalidJSON, nil},
		{`{"deal_id":"d","user_id":"u","quantity":1,"price":1}`, unknownField, "price"},
		{`{"deal_id":"d","user_id":"u"}`, invalidRequest, "quantity"},
		{`{"deal_id":"d","quantity":1}`, invalidRequest, "user_id"},
		{`{"deal_id":"d","user_id":"u","quantity":0}`, quantityInvalid, "quantity"},
		{`{"deal_id":"d","user_id":"u","quantity":1,"group":{"open":true}}`, invalidRequest, "group"},
		{`{"deal_id":"d","user_id":"u","quantity":1,"group":{"join":"e-g1"}}`, groupNotFound, "group.join"},
		{`{"deal_id":"d","user_id":"u","quantity":6}`, soldOut, nil},
		{`{"deal_id":"d","user_id":"u","quantity":1,"codes":["` + strings.Repeat("x", orderBodyMax) + `"]}`, bodyTooLarge, nil},
	} {
		a := h.post("/api/v1/orders", tc.body).refused(tc.want)
		if tc.field != nil {
			a.has(map[string]any{"errors.0.field": tc.field, "detail": tc.field.(string) + " " + a.text("errors.0.message")})
		}
	}
	post := func(header map[string]string) answer {
		return h.send(request{method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""), header: header})
	}
	post(map[string]string{"Idempotency-Key": ""}).refused(keyMissing)
	post(map[string]string{"Idempotency-Key": "a b"}).refused(keyInvalid)
	post(map[string]string{"Content-Type": ""}).refused(unsupportedMediaType)
	post(map[string]string{"Content-Type": "application/jsonp"}).refused(unsupportedMediaType)
	post(map[string]string{"Content-Type": "Application/JSON; charset=utf-8"}).want(201)
	h.send(request{method: "POST", path: "/api/v1/orders?x=1", body: orderBody("d", "u", 1, "")}).want(201)
}

// A shopper whom a rule refuses is told what the rule says to that, in an order and
// in a quote; of a rule without words, that there is one.
func TestRuleRefusesInItsWords(t *testing.T) {
	h := newHouse(t, nil)
	const reject = "i32.const 4096 i32.const 2 i32.store16 1 0 "
	words := gastest.Rule(reject + "i32.const 4096 i64.const " + strconv.Itoa(12<<32|64) + " i64.store 3 16" + gastest.Result)
	words.Data = []gastest.Data{{At: 64, Bytes: `Say "please"`}}
	h.upload("/api/v1/rules/words/versions?merchant_id=acme", string(words.Encode())).want(201)
	h.upload("/api/v1/rules/mute/versions?merchant_id=acme", string(gastest.Rule(reject+gastest.Result).Encode())).want(201)
	for rule, detail := range map[string]string{"words": `Say "please"`, "mute": "a promotion rule of this deal refused the order"} {
		h.deal(rule, `,"rules":["`+rule+`"]`)
		want := map[string]any{"detail": detail}
		h.order(rule, "u", 1).refused(ruleRejected).has(want)
		h.post("/api/v1/quotes", orderBody(rule, "u", 1, "")).refused(ruleRejected).has(want)
	}
}

func TestIdempotency(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":10,"group":{"size":2,"window_s":3600,"unit_price":7900},"rules":["tiered"]`)
	send := func(key, user, extra string) answer {
		return h.send(request{
			method: "POST", path: "/api/v1/orders", body: orderBody("d", user, 1, extra),
			header: map[string]string{"Idempotency-Key": key},
		})
	}
	for i, extra := range []string{"", `,"group":{"open":true}`, `,"group":{"join":"d-g3"}`} {
		key := fmt.Sprintf("k-%d", i)
		first := send(key, "u", extra).want(201)
		if first.header.Get("Idempotent-Replayed") != "" {
			t.Error("the first answer says that it is a replay")
		}
		h.clock.Advance(time.Minute)
		again := send(`"`+key+`"`, "u", extra).want(201)
		if again.header.Get("Idempotent-Replayed") != "true" || string(again.body) != string(first.body) {
			t.Errorf("the replay differs:\n%s\n%s", first.body, again.body)
		}
		send(key, "u", `,"codes":["other"]`).refused(idempotencyMismatch)
	}
	if id := send("k-0", "v", "").want(201).text("order_id"); id == "d-2" {
		t.Error("another user's key gave the first user's order")
	}
}

// A retry is recognised by what it means: attributes have no order, codes do.
func TestReplayOfAnotherSpelling(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	send := func(extra string) answer {
		return h.send(request{
			method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, extra), header: map[string]string{"Idempotency-Key": "k"},
		})
	}
	first := send(`,"codes":["x","y"],"attributes":{"a":"1","b":"2","c":"3"}`).want(201)
	for _, attributes := range []string{`{"c":"3","b":"2","a":"1"}`, `{"b":"2","c":"3","\u0061":"1"}`} {
		again := send(`,"attributes":` + attributes + `,"codes":["x","y"]`).want(201)
		if again.header.Get("Idempotent-Replayed") != "true" || string(again.body) != string(first.body) {
			t.Errorf("%s got\n%s\nthe first got\n%s", attributes, again.body, first.body)
		}
	}
	send(`,"codes":["x","y"],"attributes":{"a":"2","b":"1","c":"3"}`).refused(idempotencyMismatch)
	send(`,"codes":["y","x"],"attributes":{"a":"1","b":"2","c":"3"}`).refused(idempotencyMismatch)
}

func TestReplayOfASoldOutDeal(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":1`)
	r := request{method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""), header: map[string]string{"Idempotency-Key": "mine"}}
	first := h.send(r).want(201)
	h.order("d", "u", 1).refused(soldOut)
	if again := h.send(r).want(201); string(again.body) != string(first.body) {
		t.Errorf("the replay differs:\n%s\n%s", first.body, again.body)
	}
}

func TestTwinsGetOneOrder(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	r := request{method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""), header: map[string]string{"Idempotency-Key": "twin"}}
	var wg sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		wg.Go(func() { answers[i] = h.send(r) })
	}
	wg.Wait()
	for _, a := range answers {
		if a.status != http.StatusCreated || string(a.body) != string(answers[0].body) {
			t.Errorf("%d %s, the first got %s", a.status, a.body, answers[0].body)
		}
	}
	h.get("/api/v1/deals/d").has(map[string]any{"reserved": 1})
}

func TestGroups(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"group":{"size":2,"window_s":600,"unit_price":7900},"reserve_ttl_s":3600`)
	place := func(user, group string) answer {
		return h.post("/api/v1/orders", orderBody("d", user, 1, `,"group":`+group))
	}
	a := place("u-1", `{"open":true}`).want(201)
	a.has(map[string]any{"unit_price": 7900, "group.size": 2, "group.members": 1, "group.status": "forming", "group.expires_at": "2026-11-20T00:10:00.000Z", "expires_at": "2026-11-20T00:10:00.000Z"})
	group := a.text("group.group_id")
	join := `{"join":"` + group + `"}`
	b := place("u-2", join).want(201).has(map[string]any{"group.members": 2, "group.group_id": group})
	place("u-3", join).refused(groupFull)
	h.get("/api/v1/groups/" + group).want(200).has(map[string]any{"deal_id": "d", "status": "forming", "members": 2, "size": 2})
	h.post("/api/v1/orders/"+a.text("order_id")+"/confirm", "").want(200).has(map[string]any{"status": "paid"})
	h.post("/api/v1/orders/"+b.text("order_id")+"/confirm", "").want(200).has(map[string]any{"status": "confirmed", "group.status": "complete"})
	h.get("/api/v1/orders/" + a.text("order_id")).has(map[string]any{"status": "confirmed"})
	place("u-3", join).refused(groupClosed)

	c := place("u-4", `{"open":true}`).want(201)
	h.post("/api/v1/orders/"+c.text("order_id")+"/confirm", `{"payment_ref":"p-1"}`).want(200).has(map[string]any{"status": "paid"})
	h.clock.Advance(601 * time.Second)
	h.get("/api/v1/groups/" + c.text("group.group_id")).has(map[string]any{"status": "failed"})
	h.get("/api/v1/orders/" + c.text("order_id")).has(map[string]any{"status": "refund_due", "payment_ref": "p-1"})
	refunded := map[string]any{"status": "refunded", "payment_ref": "p-1", "refund_ref": "r-1"}
	for range 2 {
		h.post("/api/v1/orders/"+c.text("order_id")+"/refund", `{"refund_ref":"r-1"}`).want(200).has(refunded)
	}
	h.get("/api/v1/orders/" + c.text("order_id")).has(refunded)
	place("u-5", `{"join":"d-g999"}`).refused(groupNotFound)
	for _, id := range []string{"d-g999", "d-2", "nope-g1", "x"} {
		h.get("/api/v1/groups/" + id).refused(groupNotFound)
	}
}

func TestQuote(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":5,"rules":["tiered"]`)
	h.post("/api/v1/quotes", orderBody("d", "u", 2, "")).want(200).has(map[string]any{"subtotal": 19800, "available": 5, "quoted_at": "2026-11-20T00:00:00.000Z"})
	h.get("/api/v1/deals/d").has(map[string]any{"available": 5, "version": 1})
	h.post("/api/v1/quotes", orderBody("d", "u", 6, "")).refused(soldOut)
	h.post("/api/v1/quotes", orderBody("nope", "u", 1, "")).refused(dealNotFound)
	h.post("/api/v1/quotes", orderBody("d", "u", 0, "")).refused(quantityInvalid)
	h.post("/api/v1/quotes", "").refused(unsupportedMediaType)
}

func TestOrderLists(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	h.deal("e", "")
	for i := range 3 {
		h.order("d", "u", i+1).want(201)
		h.order("e", "u", 1).want(201)
		h.order("d", "v", 1).want(201)
	}
	list := func(query string) (ids []string) {
		for path := "/api/v1/orders?limit=2&" + query; path != ""; {
			a := h.get(path).want(200)
			for i := range len(a.field("data").([]any)) {
				ids = append(ids, a.text(fmt.Sprintf("data.%d.order_id", i)))
			}
			path = ""
			if a.field("has_more") == true {
				path = "/api/v1/orders?limit=2&" + query + "&cursor=" + a.text("next_cursor")
			}
		}
		return ids
	}
	for query, want := range map[string]string{
		"user_id=u":           "[d-2 d-4 d-6 e-2 e-3 e-4]",
		"deal_id=d":           "[d-2 d-3 d-4 d-5 d-6 d-7]",
		"user_id=v&deal_id=d": "[d-3 d-5 d-7]",
		"user_id=nobody":      "[]",
	} {
		if got := fmt.Sprint(list(query)); got != want {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	h.get("/api/v1/orders").refused(invalidRequest)
	h.get("/api/v1/orders?deal_id=nope").refused(dealNotFound)
	h.get("/api/v1/orders?user_id=u&cursor=eA").refused(invalidRequest)
	h.get("/api/v1/orders?user_id=u&limit=0").refused(invalidRequest)
}

// A deal that has as much in flight as it may is overloaded; what was begun
// can still be finished.
func TestOverload(t *testing.T) {
	h := newHouse(t, func(_ *Config, n *actors.Config) { n.InFlightMax = 16 })
	h.deal("d", "")
	id := h.order("d", "u", 1).want(201).text("order_id")
	var held []*actors.Request
	for {
		r, err := h.node.Acquire(0)
		if err != nil {
			break
		}
		held = append(held, r)
	}
	a := h.order("d", "u", 1).refused(overloaded)
	if after := a.header.Get("Retry-After"); after < "1" || after > "4" {
		t.Errorf("Retry-After is %q", after)
	}
	// The next refusal is one too many for this moment: its caller has to wait.
	next := make(chan answer, 1)
	go func() { next <- h.order("d", "u", 1) }()
	select {
	case <-next:
		t.Error("two refusals at one moment")
	case <-time.After(50 * time.Millisecond):
		until(t, "the refusal", func() bool {
			h.clock.Advance(time.Millisecond)
			return len(next) == 1
		})
		(<-next).refused(overloaded)
	}
	h.post("/api/v1/orders/"+id+"/confirm", "").want(200)
	h.post("/api/v1/quotes", orderBody("d", "u", 1, "")).refused(overloaded)
	for _, r := range held {
		h.node.Release(r)
	}
	h.order("d", "u", 1).want(201)
}

// A disk that is nearly full takes no orders, and the process asks for no
// traffic; what was begun can still be finished.
func TestReadOnly(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	id := h.order("d", "u", 1).want(201).text("order_id")
	h.get("/readyz").want(200)
	h.store.SetReadOnly(true)
	until(t, "the node to notice", func() bool {
		h.clock.Advance(10 * time.Millisecond)
		return h.node.Stats().ReadOnly
	})
	h.get("/readyz").refused(unavailable)
	h.order("d", "u", 1).refused(unavailable)
	h.post("/api/v1/orders/"+id+"/confirm", "").want(200)
}

// After a deadline the outcome is unknown; the same key finds it out.
func TestDeadline(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	r := request{method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""), header: map[string]string{"Idempotency-Key": "k"}}
	h.store.gate.Lock()
	answered := make(chan answer)
	go func() { answered <- h.send(r) }()
	until(t, "the order to be under way", func() bool { return h.node.Stats().Waiting == 1 })
	h.clock.Advance(6 * time.Second)
	late := <-answered
	h.store.gate.Unlock()
	late.refused(deadlineExceeded)
	h.send(r).want(201).has(map[string]any{"seq": 2})
	h.get("/api/v1/deals/d").has(map[string]any{"reserved": 1})
	until(t, "the abandoned seat to come back", func() bool { return h.node.Stats().Pool.InUse == 0 })
}

func TestDraining(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	id := h.order("d", "u", 1).want(201).text("order_id")
	must(t, h.node.Drain(t.Context()))
	h.order("d", "u", 1).refused(draining)
	h.get("/readyz").refused(draining)
	h.get("/livez").want(200)
	h.post("/api/v1/orders/"+id+"/confirm", "").refused(draining)
}

// What came before the drain is finished, however long it had to wait until it needed a
// seat.
func TestDrainingFinishesWhatCame(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	id := h.order("d", "u", 1).want(201).text("order_id")
	read := &heldRead{make(chan struct{}), make(chan struct{})}
	h.store.held.Store(read)
	confirmed := make(chan answer)
	go func() { confirmed <- h.post("/api/v1/orders/"+id+"/confirm", "") }()
	<-read.begun
	must(t, h.node.Drain(t.Context()))
	close(read.goOn)
	a := <-confirmed
	a.want(200).has(map[string]any{"status": "confirmed"})
	h.get("/api/v1/orders/" + id).refused(draining)
}

// A reference is there for whoever asks later, and a second one is not swallowed.
func TestReferences(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	paid, given := h.order("d", "u", 1).want(201).text("order_id"), h.order("d", "v", 1).want(201).text("order_id")
	h.get("/api/v1/orders/" + paid).want(200).has(map[string]any{"payment_ref": nil, "reason": nil})
	confirm, cancel := "/api/v1/orders/"+paid+"/confirm", "/api/v1/orders/"+given+"/cancel"
	h.post(confirm, `{"payment_ref":"p-1"}`).want(200).has(map[string]any{"payment_ref": "p-1", "status": "confirmed"})
	h.post(confirm, `{"payment_ref":"p-1"}`).want(200).has(map[string]any{"payment_ref": "p-1"})
	h.post(confirm, "").want(200).has(map[string]any{"payment_ref": "p-1"})
	h.post(confirm, `{"payment_ref":"p-2"}`).refused(orderStateConflict).has(map[string]any{"detail": "the order has another payment_ref: p-1"})
	h.deal("e", "")
	bare := "/api/v1/orders/" + h.order("e", "w", 1).want(201).text("order_id") + "/confirm"
	h.post(bare, "").want(200)
	h.post(bare, `{"payment_ref":"p-3"}`).refused(orderStateConflict).has(map[string]any{"detail": "the order was moved to this status without a payment_ref, and takes none later"})
	h.post(cancel, `{"reason":"changed \"it\""}`).want(200).has(map[string]any{"reason": `changed "it"`})
	h.post(cancel, `{"reason":"other"}`).want(200).has(map[string]any{"status": "cancelled", "reason": `changed "it"`})
	for range 2 {
		h.get("/api/v1/orders/" + paid).want(200).has(map[string]any{"payment_ref": "p-1"})
		h.get("/api/v1/orders?deal_id=d").want(200).has(map[string]any{"data.0.payment_ref": "p-1", "data.1.reason": `changed "it"`})
		h.send(request{method: "POST", path: "/api/v1/admin/snapshot", admin: true}).want(200)
	}
}

// A deal's id may be as long as any, and so may no id be longer that names it.
func TestOrdersOfALongDeal(t *testing.T) {
	h := newHouse(t, nil)
	id := strings.Repeat("d", 64)
	h.deal(id, `,"group":{"size":2,"window_s":60,"unit_price":1000}`)
	h.deal(strings.Repeat("d", 63)+"e", "")
	a := h.post("/api/v1/orders", `{"deal_id":"`+id+`","user_id":"u-1","quantity":1,"group":{"open":true}}`).want(201)
	order, group := a.text("order_id"), a.text("group.group_id")
	if len(order) > 64 || len(group) > 64 {
		t.Fatalf("ids %s (%d) and %s (%d)", order, len(order), group, len(group))
	}
	h.get("/api/v1/orders/" + order).want(200).has(map[string]any{"deal_id": id, "order_id": order})
	h.get("/api/v1/orders/" + order + "/explain?verify=true").want(200).has(map[string]any{"deal_id": id, "order_id": order})
	h.get("/api/v1/orders?user_id=u-1").want(200).has(map[string]any{"data.0.order_id": order})
	h.get("/api/v1/groups/" + group).want(200).has(map[string]any{"deal_id": id, "members": 1})
	h.post("/api/v1/orders", `{"deal_id":"`+id+`","user_id":"u-2","quantity":1,"group":{"join":"`+group+`"}}`).want(201)
	h.post("/api/v1/orders/"+order+"/confirm", `{"payment_ref":"p"}`).want(200).has(map[string]any{"deal_id": id})

	name := strings.TrimSuffix(order, "-2")
	h.order(name, "u-3", 1).refused(dealNotFound) // it is no deal's id
	h.post("/api/v1/deals", `{"deal_id":"`+name+`","merchant_id":"m","title":"x","category":"c","currency":"CNY","unit_price":1,"stock":1}`).refused(dealExists)
}

// Once an order was moved, 503 would say that it was not.
func TestMoveThatCannotBeShown(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":10`)
	id := h.order("d", "u", 1).want(201).text("order_id")
	h.store.away.Store(h.store.gets.Load() + 2) // the first shows whose the order is
	h.post("/api/v1/orders/"+id+"/confirm", `{"payment_ref":"p"}`).refused(deadlineExceeded)
	h.store.away.Store(0)
	h.get("/api/v1/deals/d").has(map[string]any{"sold": 1})
	h.post("/api/v1/orders/"+id+"/confirm", `{"payment_ref":"p"}`).want(200).has(map[string]any{"status": "confirmed"})
}
