package gateway

import (
	stdjson "encoding/json"
	"errors"
	"reflect"
	"testing"
)

// Names are what the contract calls them, once each, at every depth.
func TestNamesInBodies(t *testing.T) {
	for _, tc := range []struct {
		into  any
		body  string
		want  problem
		field string
	}{
		{&dealBody{}, `{"deal_id":"d","group":{"size":2},"rules":["a"],"attributes":{"Size":"","any":""}}`, noProblem, ""},
		{&dealBody{}, `{"\u0064eal_id":"d","group":null,"starts_at":null,"attributes":null}`, noProblem, ""},
		{&dealBody{}, `{"DEAL_ID":"d"}`, unknownField, "DEAL_ID"},
		{&dealBody{}, `{"deal_\u0131d":"d"}`, unknownField, "deal_\u0131d"},
		{&dealBody{}, `{"\u017ftock":1}`, unknownField, "\u017ftock"}, // a long s, which folds to s
		{&dealBody{}, `{"DealID":"d"}`, unknownField, "DealID"},
		{&dealBody{}, `{"":1}`, unknownField, ""},
		{&dealBody{}, `{"deal_id":"d","deal_id":"d"}`, invalidRequest, "deal_id"},
		{&dealBody{}, `{"deal_id":"d","deal\u005fid":"e"}`, invalidRequest, "deal_id"},
		{&dealBody{}, `{"deal_id":null,"deal_id":"d"}`, invalidRequest, "deal_id"},
		{&dealBody{}, `{"group":{"Size":2}}`, unknownField, "Size"},
		{&dealBody{}, `{"group":{"size":2,"size":3}}`, invalidRequest, "size"},
		{&dealBody{}, `{"attributes":{"a":"1","a":"2"}}`, invalidRequest, "a"},
		{&dealBody{}, `{"attributes":{"a":null}}`, invalidRequest, "attributes.a"},
		{&evaluateBody{}, `{"order":{"attributes":{"b":null}}}`, invalidRequest, "order.attributes.b"},
		{&dealBody{}, `{"title":"\\ud83d\u005c\ud83d\ude00","attributes":{"\ud83d\ude00":"\uFFFD"}}`, noProblem, ""},
		{&dealBody{}, `{"title":"\ud83d"}`, invalidJSON, ""},
		{&dealBody{}, `{"title":"\ude00\ud83d"}`, invalidJSON, ""},
		{&dealBody{}, `{"title":"\ud83d\u0041"}`, invalidJSON, ""},
		{&dealBody{}, `{"title":"\ud83dude00"}`, invalidJSON, ""},
		{&dealBody{}, `{"attributes":{"\ud800":"x"}}`, invalidJSON, ""},
		{&patchBody{}, `{"ends_at":null,"rules":null}`, noProblem, ""},
		{&patchBody{}, `{"Stock_Add":1}`, unknownField, "Stock_Add"},
		{&rolloutBody{}, `{"Stable":1}`, unknownField, "Stable"},
		{&merchantBody{}, `{"merchant_ID":"m"}`, unknownField, "merchant_ID"},
		{&keyBody{}, `{"role":"operator","role":"merchant"}`, invalidRequest, "role"},
		{&evaluateBody{}, `{"deal":{"attributes":{"A":"x"}},"order":{"codes":["x"]}}`, noProblem, ""},
		{&evaluateBody{}, `{"order":{"Quantity":1}}`, unknownField, "Quantity"},
		{&evaluateBody{}, `{"order":{"attributes":{"b":"1","b":"1"}}}`, invalidRequest, "b"},
		{&evaluateBody{}, `{"now":"yesterday"}`, invalidRequest, "now"},
		{&evaluateBody{}, `{"deal":{"ends_at":1}}`, invalidRequest, "deal.ends_at"},
		{&evaluateBody{}, `{"merchant_id":"m","now":null,"quote":true}`, noProblem, ""},
		{&map[string]stdjson.RawMessage{}, `{"reason":"x"}`, noProblem, ""},
		{&map[string]stdjson.RawMessage{}, `{"reason":"x","reason":"y"}`, invalidRequest, "reason"},
	} {
		err := decodeBody([]byte(tc.body), tc.into)
		no := &refusal{}
		if err != nil && !errors.As(err, &no) {
			t.Errorf("%s: %v", tc.body, err)
			continue
		}
		field := ""
		if len(no.faults) > 0 {
			field = no.faults[0].field
		}
		if no.problem != tc.want || field != tc.field {
			t.Errorf("%s: got %s %q, want %s %q", tc.body, problems[no.problem].code, field, problems[tc.want].code, tc.field)
		}
	}
}

// FuzzBody: what is accepted means to the standard library what it means here,
// and has no name that the standard library, asked for any name, finds beside
// the contract's.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"deal_id":"d","group":{"size":2,"window_s":60,"unit_price":1},"rules":["a"],"attributes":{"b":"c"}}`,
		`{"starts_at":"2026-11-22T00:00:00.000Z","ends_at":null,"unit_price":1,"stock":1e0}`,
		`{"DEAL_ID":"d"}`, `{"deal_id":"d","deal_id":"e"}`, `{"\u0064eal_id":"\ud83d\ude00"}`, `{"group":{"SIZE":1}}`,
		`[]`, `null`, `"x"`, `{"title":{"a":[{"b":1}]}}`, `{"stock":1e999}`, `{"rules":[null]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got, want dealBody
		if decodeBody(body, &got) != nil {
			return
		}
		if err := stdjson.Unmarshal(body, &want); err != nil {
			t.Fatalf("%q was accepted, encoding/json says %v", body, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q:\ngot  %+v\nwant %+v", body, got, want)
		}
		var all, spec map[string]any
		written, err := stdjson.Marshal(dealBody{Group: &groupBody{}})
		must(t, errors.Join(err, stdjson.Unmarshal(body, &all), stdjson.Unmarshal(written, &spec)))
		knows := func(all, spec map[string]any) {
			for name := range all {
				if _, known := spec[name]; !known {
					t.Fatalf("%q was accepted with the name %q", body, name)
				}
			}
		}
		knows(all, spec)
		if group, ok := all["group"].(map[string]any); ok {
			knows(group, spec["group"].(map[string]any))
		}
	})
}
