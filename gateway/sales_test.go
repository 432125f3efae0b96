package gateway

import (
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/actors"
)

// Orders are counted by category and channel: once each, whoever refuses them, and
// not at all when a key is repeated or no deal is named.
func TestSales(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Channels = []string{"app"} })
	h.deal("d", `,"stock":3`)
	place := func(user, key, body string) answer {
		return h.send(request{
			method: "POST", path: "/api/v1/orders", body: orderBody("d", user, 1, body),
			header: map[string]string{"Idempotency-Key": key},
		})
	}
	place("u", "k1", `,"attributes":{"channel":"app"}`).want(201)
	place("u", "k1", `,"attributes":{"channel":"app"}`).want(201) // again
	place("v", "k1", `,"attributes":{"channel":"fax","a":"b"}`).want(201)
	h.order("d", "w", 5).refused(soldOut)
	h.order("nowhere", "w", 1).refused(dealNotFound)
	h.order("d", "w", 1).want(201)
	h.order("d", "x", 1).refused(soldOut) // by the flag
	got := string(h.send(request{method: "GET", path: "/metrics", admin: true}).want(200).body)
	for _, line := range []string{
		`doorbuster_sales_orders_total{category="fruit",channel="app",outcome="accepted"} 1`,
		`doorbuster_sales_orders_total{category="fruit",channel="other",outcome="accepted"} 1`,
		`doorbuster_sales_orders_total{category="fruit",channel="none",outcome="accepted"} 1`,
		`doorbuster_sales_orders_total{category="fruit",channel="none",outcome="refused"} 2`,
		`doorbuster_sales_value_total{category="fruit",channel="app",currency="CNY"} 9900`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	if n := strings.Count(got, "doorbuster_sales_orders_total{"); n != 4 {
		t.Errorf("%d series of orders", n)
	}
}
