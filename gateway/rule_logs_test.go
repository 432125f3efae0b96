package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/sample"
)

// shownLine is a logLine as a client reads it.
type shownLine struct {
	Seq         uint64
	At, Outcome string
	Version     uint32
	InputDigest string `json:"input_digest"`
	Discount    int64
	Fault       string
	FaultDetail string `json:"fault_detail"`
	Fuel        uint64
	Logs        []string
}

// followRule opens a rule's log and returns what reads its lines.
func (h *house) followRule(t *testing.T, path string) func() shownLine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+h.addr+path, http.NoBody)
	must(t, err)
	resp, err := h.client.Do(req)
	must(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != ndjson {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewReader(resp.Body)
	return func() (l shownLine) {
		t.Helper()
		line, err := lines.ReadBytes('\n')
		must(t, err)
		if len(line) > 1 { // not a heartbeat
			must(t, json.Unmarshal(line, &l))
		}
		return l
	}
}

// TestSampleBounds: a sample may be what an order may be.
func TestSampleBounds(t *testing.T) {
	if sample.QuantityMax != deal.MaxQuantity || sample.UnitPriceMax != deal.MaxUnitPrice {
		t.Errorf("%d units of %d, an order %d of %d", int64(sample.QuantityMax), int64(sample.UnitPriceMax), int64(deal.MaxQuantity), int64(deal.MaxUnitPrice))
	}
}

func TestRuleLogs(t *testing.T) {
	h := newHouse(t, nil)
	const broken = "/api/v1/rules/broken"
	h.upload(broken+"/versions?merchant_id=acme", string(gastest.Rule("unreachable").Encode())).want(201)
	h.deal("d", `,"rules":["tiered","broken"],"on_rule_error":"skip"`)
	h.get("/api/v1/rules/none/logs").refused(ruleNotFound)
	h.get("/api/v1/rules/none/logs?follow=true").refused(ruleNotFound)
	h.get("/api/v1/rules/tiered/logs?merchant_id=acme").refused(ruleNotFound) // it tells of others' orders
	h.get("/api/v1/rules/tiered/logs?merchant_id=acme&follow=true").refused(ruleNotFound)
	h.get("/api/v1/rules/tiered/logs?follow=maybe").refused(invalidRequest)
	if body := h.get("/api/v1/rules/tiered/logs").want(200).body; len(body) != 0 {
		t.Errorf("%q", body)
	}

	next := h.followRule(t, "/api/v1/rules/tiered/logs?follow=true")
	faults := h.followRule(t, broken+"/logs?merchant_id=acme&follow=true")
	h.order("d", "u-1", 1).want(201)
	if l := next(); l.Seq != 1 || l.Version != 1 || l.Outcome != "discount" || l.Discount == 0 || l.Fuel == 0 || len(l.InputDigest) != 16 || l.Logs == nil {
		t.Errorf("%+v", l)
	}
	if l := faults(); l.Outcome != "fault" || l.Fault != "trap" || l.FaultDetail == "" {
		t.Errorf("%+v", l)
	}
	var kept shownLine
	must(t, json.Unmarshal(h.get(broken+"/logs?merchant_id=acme").want(200).body, &kept))
	if kept.Seq != 1 || kept.Fault != "trap" {
		t.Errorf("%+v", kept)
	}

	beat := make(chan shownLine, 1)
	go func() { beat <- next() }()
	until(t, "a heartbeat", func() bool {
		h.clock.Advance(heartbeat / 100)
		return len(beat) == 1
	})
	if l := <-beat; l.Seq != 0 {
		t.Errorf("%+v", l)
	}
	h.send(request{method: "HEAD", path: "/api/v1/rules/tiered/logs?follow=true"}).want(200)
}
