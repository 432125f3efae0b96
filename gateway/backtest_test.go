package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// fixedOff is a rule that takes a fixed amount off.
func fixedOff(amount int) string {
	return string(gastest.Rule(fmt.Sprintf("i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 i64.const %d i64.store 3 8", amount) + gastest.Result).Encode())
}

// lines checks each line of a backtest against the contract, and returns them as
// answers.
func (a answer) lines() (lines []answer) {
	a.t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	must(a.t, err)
	if a.header.Get("Content-Type") != ndjson || !bytes.HasSuffix(a.body, []byte("\n")) {
		a.t.Fatalf("%v %q", a.header, a.body)
	}
	for text := range bytes.Lines(a.body) {
		var line any
		must(a.t, json.Unmarshal(text, &line))
		if err := doc.Components.Schemas["BacktestLine"].Value.VisitJSON(line); err != nil {
			a.t.Errorf("%s: %v", text, err)
		}
		lines = append(lines, answer{t: a.t, status: a.status, header: a.header, body: text})
	}
	return lines
}

func TestBacktest(t *testing.T) {
	h := newHouse(t, nil)
	const sale = "/api/v1/rules/sale/versions"
	h.upload(sale+"?merchant_id=acme", fixedOff(990)).want(201)
	h.deal("d", `,"rules":["sale"]`)
	for i := range 3 {
		h.order("d", fmt.Sprint("u-", i), i+1).want(201)
	}
	h.upload(sale+"?merchant_id=acme", fixedOff(1980)).want(201)
	h.upload(sale+"?merchant_id=acme", string(gastest.Rule("unreachable").Encode())).want(201)
	run := func(version int, body string) []answer {
		t.Helper()
		return h.post(fmt.Sprintf("%s/%d/backtest", sale, version), body).want(200).lines()
	}

	same := run(1, `{"deal_id":"d"}`)
	if len(same) != 1 {
		t.Fatalf("the same version: %d lines", len(same))
	}
	same[0].has(map[string]any{"type": "summary", "orders": 3, "changed": 0, "revenue_difference": 0, "outcomes.discount": 3, "distribution.change.20.orders": 3})

	more := run(2, `{"deal_id":"d"}`)
	if len(more) != 4 {
		t.Fatalf("%d lines", len(more))
	}
	more[0].has(map[string]any{
		"type": "difference", "order_id": "d-2", "created_at": "2026-11-20T00:00:00.000Z", "quantity": 1, "subtotal": 9900, "recorded.discount_total": 990,
		"recorded.total": 8910, "candidate.discount_total": 1980, "candidate.total": 7920, "difference": -990, "answer.outcome": "discount", "answer.discount": 1980,
	})
	more[3].has(map[string]any{
		"type": "summary", "deal_id": "d", "rule_id": "sale", "version": 2, "currency": "CNY", "orders": 3, "changed": 3, "cheaper": 3, "dearer": 0, "refused": 0,
		"recorded.revenue": 6*9900 - 3*990, "recorded.discount": 3 * 990, "candidate.revenue": 6*9900 - 3*1980, "candidate.discount": 3 * 1980,
		"revenue_difference": -3 * 990, "discount_difference": 3 * 990, "fuel.p50": more[3].field("fuel.max"),
		// 990 of 9900, 19800 and 29700: 10, 5 and 3.3 per cent.
		"distribution.change.18.from": -10, "distribution.change.18.to": -5, "distribution.change.18.orders": 1, "distribution.change.19.orders": 2,
		"distribution.change.20.from": 0, "distribution.change.20.to": 0, "distribution.change.20.orders": 0, "distribution.change.21.to": 5,
		"distribution.discount.0.to": 0, "distribution.discount.1.recorded": 2, "distribution.discount.2.from": 5, "distribution.discount.2.recorded": 1, "distribution.discount.4.candidate": 1,
	})

	refused := run(3, `{"deal_id":"d"}`)
	refused[0].has(map[string]any{"candidate": nil, "difference": -8910, "answer.outcome": "fault", "answer.fault": "trap"})
	refused[3].has(map[string]any{"refused": 3, "faults.trap": 3, "faults.out_of_fuel": 0, "outcomes.fault": 3, "candidate.revenue": 0})

	if none := run(2, `{"deal_id":"d","from":"2026-11-20T00:00:00.001Z"}`); len(none) != 1 {
		t.Errorf("later orders: %d lines", len(none))
	}
	if all := run(2, `{"deal_id":"d","from":"2026-11-20T00:00:00Z","to":"2026-11-20T00:00:00.001Z"}`); len(all) != 4 {
		t.Errorf("orders of that millisecond: %d lines", len(all))
	}
	added := h.post("/api/v1/rules/tiered/versions/1/backtest", `{"deal_id":"d"}`).want(200).lines()
	added[2].has(map[string]any{"answer.outcome": "discount"})
	added[3].has(map[string]any{"type": "summary", "added": true})

	h.post(sale+"/1/backtest", `{"deal_id":"e"}`).refused(dealNotFound)
	h.post(sale+"/1/backtest", `{}`).refused(invalidRequest)
	h.post(sale+"/9/backtest", `{"deal_id":"d"}`).refused(versionNotFound)
	h.post("/api/v1/rules/none/versions/1/backtest", `{"deal_id":"d"}`).refused(ruleNotFound)
	h.post(sale+"/1/backtest", `{"deal_id":"d","from":"2026-11-20T00:00:00Z","to":"2026-11-20T00:00:00Z"}`).refused(invalidRequest)
	h.post(sale+"/1/backtest", `{"deal_id":"d","merchant_id":"other"}`).refused(invalidRequest)
}

// TestBacktestEndsWithItsClient: a client that leaves takes its backtest along,
// which would wait for ever for its turn on this clock otherwise; and so does a
// server that stops.
func TestBacktestEndsWithItsClient(t *testing.T) {
	h := newHouse(t, func(cfg *Config, _ *actors.Config) { cfg.BacktestCPU = 1 })
	h.deal("d", "")
	h.order("d", "u", 1).want(201)
	must(t, h.server.pace.Slice(t.Context(), func() error { return nil })) // and now all rest
	begin := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", h.addr)
		must(t, err)
		body := `{"deal_id":"d"}`
		_, err = fmt.Fprintf(conn, "POST /api/v1/rules/tiered/versions/1/backtest HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", h.addr, len(body), body)
		must(t, err)
		until(t, "the backtest", func() bool { return len(h.server.trials.all) == 1 })
		return conn
	}
	must(t, begin().Close())
	until(t, "its end", func() bool { return len(h.server.trials.all) == 0 })

	conn := begin()
	h.server.front.stop()
	until(t, "its end", func() bool { return len(h.server.trials.all) == 0 })
	r := bufio.NewReader(conn)
	var last string
	for line, err := r.ReadString('\n'); err == nil; line, err = r.ReadString('\n') {
		last = line
	}
	if !strings.HasPrefix(last, `{"type":"error","code":"draining"`) {
		t.Errorf("the last line is %q", last)
	}
	must(t, conn.Close())
}
