package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	gojson "github.com/goccy/go-json"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

const fullOrder = `{"deal_id":"d-1001","user_id":"u-7","quantity":1,"codes":["VIP","x\n\u00e9"],"group":{"join":"d-1001-g4"},"attributes":{"\ud83d\ude00":"","channel":"app","a":"b"}}`

func decode(body string) (order, orderFault) {
	o := order{cmd: new(deal.Command)}
	f := decodeOrder([]byte(body), &o)
	return o, f
}

func TestDecodeOrder(t *testing.T) {
	o, f := decode(fullOrder)
	if f.problem != noProblem {
		t.Fatalf("%s: %s %s", problems[f.problem].code, f.field, f.message)
	}
	got := fmt.Sprintf("%s|%s|%d|%q|%s|%d|%q", o.deal, o.user, o.cmd.Quantity, o.cmd.Codes, o.join, o.cmd.GroupMode, o.cmd.Attributes)
	want := `d-1001|u-7|1|["VIP" "x\né"]|d-1001-g4|2|[{"a" "b"} {"channel" "app"} {"😀" ""}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecodeOrderAccepts(t *testing.T) {
	for _, body := range []string{
		`{"deal_id":"d","quantity":1}`,
		" {\t\"deal_id\" : \"d\" ,\r\n\"quantity\" : 1000000 } ",
		`{"deal_id":"d","quantity":1,"user_id":null,"codes":null,"group":null,"attributes":null}`,
		`{"deal_id":"d","quantity":1,"codes":[],"attributes":{}}`,
		`{"deal_id":"d","quantity":1,"group":{"open":true}}`,
		`{"\u0064eal_id":"\u0064","quantity":1}`,
	} {
		if o, f := decode(body); f.problem != noProblem || string(o.deal) != "d" {
			t.Errorf("%s: %s %s %s", body, problems[f.problem].code, f.field, f.message)
		}
	}
}

func TestDecodeOrderRefuses(t *testing.T) {
	rest := `,"deal_id":"d","quantity":1}`
	for _, tc := range []struct {
		body  string
		want  problem
		field string
	}{
		{"", invalidJSON, ""},
		{"[]", invalidRequest, ""},
		{" null", invalidRequest, ""},
		{`"{}"`, invalidRequest, ""},
		{"1", invalidRequest, ""},
		{"nil", invalidJSON, ""},
		{"\xef\xbb\xbf{}", invalidJSON, ""},
		{"{", invalidJSON, ""},
		{`{"deal_id":"d","quantity":1`, invalidJSON, ""},
		{`{"deal_id":"d","quantity":1}}`, invalidJSON, ""},
		{`{"deal_id":"d","quantity":1,}`, invalidJSON, ""},
		{`{"deal_id" "d"}`, invalidJSON, ""},
		{`{"deal_id":"d" "quantity":1}`, invalidJSON, ""},
		{`{deal_id:"d"}`, invalidJSON, ""},
		{`{"deal_id":"d`, invalidJSON, ""},
		{`{"deal_id":x}`, invalidJSON, ""},
		{`{"deal_id":`, invalidJSON, ""},
		{`{"deal_id":"d","quantity":01}`, invalidJSON, ""},
		{`{"deal_id":"d","quantity":1.}`, invalidJSON, ""},
		{`{"deal_id":"d","quantity":1e}`, invalidJSON, ""},
		{`{"deal_id":"d","quantity":-}`, invalidJSON, ""},
		{`{"deal_id":"d","quantity":nul}`, invalidJSON, ""},
		{"{\"codes\":[\"a\tb\"]" + rest, invalidJSON, ""},
		{"{\"codes\":[\"\xff\"]" + rest, invalidJSON, ""},
		{`{"codes":["\ud800"]` + rest, invalidJSON, ""},
		{`{"codes":["\ud800\u0041"]` + rest, invalidJSON, ""},
		{`{"codes":["\udc00\ud800"]` + rest, invalidJSON, ""},
		{`{"codes":["\x"]` + rest, invalidJSON, ""},
		{`{"codes":["\u12g4"]` + rest, invalidJSON, ""},
		{`{"codes":["\u12`, invalidJSON, ""},
		{`{"codes":["\`, invalidJSON, ""},
		{`{"codes":["a" "b"]` + rest, invalidJSON, ""},

		{`{"price":1` + rest, unknownField, "price"},
		{`{"Deal_ID":1` + rest, unknownField, "Deal_ID"},
		{`{"group":{"size":3}` + rest, unknownField, "size"},
		{`{"x":` + strings.Repeat("[", 10000), unknownField, "x"},

		{`{"quantity":1}`, invalidRequest, "deal_id"},
		{`{"deal_id":"d"}`, invalidRequest, "quantity"},
		{`{"deal_id":null,"quantity":1}`, invalidRequest, "deal_id"},
		{`{"deal_id":7,"quantity":1}`, invalidRequest, "deal_id"},
		{`{"deal_id":"","quantity":1}`, invalidRequest, "deal_id"},
		{`{"deal_id":"a b","quantity":1}`, invalidRequest, "deal_id"},
		{`{"deal_id":"` + strings.Repeat("d", 65) + `","quantity":1}`, invalidRequest, "deal_id"},
		{`{"deal_id":"d","deal_id":"d","quantity":1}`, invalidRequest, "deal_id"},
		{`{"user_id":true` + rest, invalidRequest, "user_id"},
		{`{"deal_id":"d","quantity":"1"}`, invalidRequest, "quantity"},
		{`{"deal_id":"d","quantity":null}`, invalidRequest, "quantity"},
		{`{"codes":"VIP"` + rest, invalidRequest, "codes"},
		{`{"codes":[1]` + rest, invalidRequest, "codes"},
		{`{"codes":[""]` + rest, invalidRequest, "codes"},
		{`{"codes":["` + strings.Repeat("c", 257) + `"]` + rest, invalidRequest, "codes"},
		{`{"codes":["a"` + strings.Repeat(`,"a"`, 16) + `]` + rest, invalidRequest, "codes"},
		{`{"attributes":[]` + rest, invalidRequest, "attributes"},
		{`{"attributes":{"":"x"}` + rest, invalidRequest, "attributes"},
		{`{"attributes":{"a":1}` + rest, invalidRequest, "attributes"},
		{`{"attributes":{"a":"1","b":"2","a":"1"}` + rest, invalidRequest, "attributes"},
		{`{"group":{}` + rest, invalidRequest, "group"},
		{`{"group":3` + rest, invalidRequest, "group"},
		{`{"group":{"open":false}` + rest, invalidRequest, "group"},
		{`{"group":{"join":3}` + rest, invalidRequest, "group.join"},
		{`{"group":{"open":true,"join":"d-g1"}` + rest, invalidRequest, "group"},
		{`{"group":{"open":true,"open":true}` + rest, invalidRequest, "open"},

		{`{"deal_id":"d","quantity":0}`, quantityInvalid, "quantity"},
		{`{"deal_id":"d","quantity":-1}`, quantityInvalid, "quantity"},
		{`{"deal_id":"d","quantity":1.5}`, quantityInvalid, "quantity"},
		{`{"deal_id":"d","quantity":1e2}`, quantityInvalid, "quantity"},
		{`{"deal_id":"d","quantity":1000001}`, quantityInvalid, "quantity"},
		{`{"deal_id":"d","quantity":99999999999999999999999}`, quantityInvalid, "quantity"},
	} {
		if _, f := decode(tc.body); f.problem != tc.want || string(f.field) != tc.field {
			t.Errorf("%.80s: got %s %q (%s), want %s %q", tc.body,
				problems[f.problem].code, f.field, f.message, problems[tc.want].code, tc.field)
		}
	}
}

// Who put a number in quotes is told so, and who asked for nothing is told how much there may be.
func TestQuantityFaultsAreToldApart(t *testing.T) {
	for body, want := range map[string]string{
		`{"deal_id":"d","quantity":"1"}`: wantNumber, `{"deal_id":"d","quantity":true}`: wantNumber,
		`{"deal_id":"d","quantity":0}`: wantQuantity, `{"deal_id":"d","quantity":1.5}`: wantQuantity,
	} {
		if _, f := decode(body); f.message != want {
			t.Errorf("%s: %q, want %q", body, f.message, want)
		}
	}
}

// modelOrder is an order body as a general decoder sees it.
type modelOrder struct {
	DealID     string            `json:"deal_id"`
	UserID     *string           `json:"user_id"`
	Quantity   int64             `json:"quantity"`
	Codes      []string          `json:"codes"`
	Group      *modelGroup       `json:"group"`
	Attributes map[string]string `json:"attributes"`
}

type modelGroup struct {
	Open bool    `json:"open"`
	Join *string `json:"join"`
}

func (o *order) model() modelOrder {
	m := modelOrder{DealID: string(o.deal), Quantity: o.cmd.Quantity}
	if o.user != nil {
		user := string(o.user)
		m.UserID = &user
	}
	for _, c := range o.cmd.Codes {
		m.Codes = append(m.Codes, string(c))
	}
	switch o.cmd.GroupMode {
	case deal.OpenGroup:
		m.Group = &modelGroup{Open: true}
	case deal.JoinGroup:
		join := string(o.join)
		m.Group = &modelGroup{Join: &join}
	case deal.Alone:
	}
	for _, kv := range o.cmd.Attributes {
		if m.Attributes == nil {
			m.Attributes = map[string]string{}
		}
		m.Attributes[string(kv.Key)] = string(kv.Value)
	}
	return m
}

func modelDecode(body []byte) (m modelOrder, err error) {
	d := gojson.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, err
	}
	if _, err := d.Token(); err != io.EOF {
		return m, fmt.Errorf("trailing data: %w", err)
	}
	return m, nil
}

// FuzzDecodeOrder compares with a general decoder: what is accepted here must
// be accepted there and mean the same; what is refused here as JSON must be
// refused by the strictest check of the standard library, unless the reason
// is one that it does not look at (UTF-8, half surrogates).
func FuzzDecodeOrder(f *testing.F) {
	for _, seed := range []string{
		fullOrder,
		`{"deal_id":"d","quantity":1}`,
		`{"deal_id":"d","quantity":1,"group":{"open":true},"codes":[]}`,
		`{"deal_id":"d","quantity":1e3,"user_id":null}`,
		`{"deal_id":"d","quantity":-0.5E-3,"x":[[[]]]}`,
		`{"attributes":{"a":"\u00e9\/\b\f\n\r\t\"\\"},"deal_id":"d","quantity":2} `,
		"{\"codes\":[\"\xc3\x28\"]}",
		`{"codes":["\ud83d\ude00","\ud83d"]}`,
		`{"deal_id":"d","deal_id":"e","quantity":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, fault := decode(string(body))
		switch fault.problem {
		case noProblem:
			want, err := modelDecode(body)
			if err != nil {
				t.Fatalf("%q was accepted, go-json says %v", body, err)
			}
			got, _ := json.Marshal(o.model())
			if len(want.Codes) == 0 {
				want.Codes = nil
			}
			if len(want.Attributes) == 0 {
				want.Attributes = nil
			}
			if want, _ := json.Marshal(want); !bytes.Equal(got, want) {
				t.Fatalf("%q:\ngot  %s\nwant %s", body, got, want)
			}
		case invalidJSON:
			if json.Valid(body) && utf8.Valid(body) && !bytes.Contains(bytes.ToLower(body), []byte(`\ud`)) {
				t.Fatalf("%q was refused as JSON: %s", body, fault.message)
			}
		case unknownField, invalidRequest, quantityInvalid:
			if fault.field == nil && fault.message != wantObject {
				t.Fatalf("%q: %s names no field", body, problems[fault.problem].code)
			}
		default:
			t.Fatalf("%q: %s", body, problems[fault.problem].code)
		}
	})
}

func sampleOrder() *orderView {
	return &orderView{
		deal: []byte("d-1001"), currency: [3]byte{'C', 'N', 'Y'}, seq: 42, at: 1763769600123, status: deal.Reserved,
		group: deal.GroupView{Seq: 42, Size: 3, Members: 1, Status: deal.Forming, ExpiresAt: 1763856000123},
		placed: &deal.Placed{
			User: []byte("u-7"), Quantity: 1, UnitPrice: 9900, Discount: 990, ExpiresAt: 1763770500123, Available: 9999,
			Evaluations: []deal.Evaluation{
				{Rule: []byte("none"), Version: 1},
				{Rule: []byte("tiered"), Version: 3, Outcome: abi.OutcomeDiscount, Discount: 990, Label: []byte("10% \"off\"\x01 from 1")},
			},
		},
	}
}

func TestAppendOrder(t *testing.T) {
	want := `{"order_id":"d-1001-42","deal_id":"d-1001","user_id":"u-7","quantity":1,"status":"reserved","currency":"CNY",` +
		`"unit_price":9900,"subtotal":9900,"discount_total":990,"total":8910,` +
		`"discounts":[{"rule":"tiered","version":3,"label":"10% \"off\"\u0001 from 1","amount":990}],` +
		`"group":{"group_id":"d-1001-g42","size":3,"members":1,"status":"forming","expires_at":"2025-11-23T00:00:00.123Z"},` +
		`"seq":42,"available":9999,"created_at":"2025-11-22T00:00:00.123Z","expires_at":"2025-11-22T00:15:00.123Z"}`
	if got := string(appendOrder(nil, sampleOrder())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	alone := sampleOrder()
	alone.group = deal.GroupView{}
	if got := appendOrder(nil, alone); bytes.Contains(got, []byte("group")) || !json.Valid(got) {
		t.Errorf("an order bought alone shows as %s", got)
	}
}

func TestAppendTime(t *testing.T) {
	for range 1000 {
		ms := rand.Int64N(253402300800000)
		got := string(appendTime(nil, ms))
		if want := time.UnixMilli(ms).UTC().Format(`"2006-01-02T15:04:05.000Z"`); got != want {
			t.Fatalf("%d: got %s, want %s", ms, got, want)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	for _, seed := range []string{"", "plain", "\"\\\n\r\t\x00\x1f\x7f", "é😀\u2028", "\xff\xc3\x28\xed\xa0\x80", "a\xf0\x9f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted := appendString(nil, s)
		var got string
		if err := json.Unmarshal(quoted, &got); err != nil || !utf8.Valid(quoted) {
			t.Fatalf("%q became %s: %v", s, quoted, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got != want {
			t.Fatalf("%q became %q", s, got)
		}
		if !bytes.Equal(quoted, appendString(nil, []byte(s))) {
			t.Fatalf("%q differs as bytes", s)
		}
	})
}

func TestOrderCodecDoesNotAllocate(t *testing.T) {
	body, o := []byte(fullOrder), order{cmd: new(deal.Command)}
	scratch := make([]byte, len(body))
	n := testing.AllocsPerRun(1000, func() {
		o.cmd.Reset()
		if f := decodeOrder(scratch[:copy(scratch, body)], &o); f.problem != noProblem {
			t.Fatal(f.message)
		}
	})
	if n != 0 {
		t.Errorf("decoding allocates %v times", n)
	}
	view, out := sampleOrder(), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(1000, func() { out = appendOrder(out[:0], view) }); n != 0 {
		t.Errorf("encoding allocates %v times", n)
	}
	id, faults := []byte("id"), []fault{{field: "f", message: "m\x01é"}}
	if n := testing.AllocsPerRun(1000, func() { out = appendProblem(out[:0], soldOut, "", id, faults) }); n != 0 {
		t.Errorf("a problem allocates %v times", n)
	}
}

func TestParseIdempotencyKey(t *testing.T) {
	long := strings.Repeat("k", 64)
	for _, tc := range []struct {
		value, key string
		want       problem
	}{
		{"", "", keyMissing},
		{"k", "k", noProblem},
		{`"k-_9Z"`, "k-_9Z", noProblem},
		{long, long, noProblem},
		{`"` + long + `"`, long, noProblem},
		{long + "k", "", keyInvalid},
		{`""`, "", keyInvalid},
		{`"`, "", keyInvalid},
		{`"k`, "", keyInvalid},
		{`k"`, "", keyInvalid},
		{"a b", "", keyInvalid},
		{"é", "", keyInvalid},
	} {
		if key, p := parseIdempotencyKey([]byte(tc.value)); p != tc.want || string(key) != tc.key {
			t.Errorf("%q: got %q, %s", tc.value, key, problems[p].code)
		}
	}
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"", "k", `"k"`, `"`, `""`, `"k`, "a b", strings.Repeat("x", 65)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		key, p := parseIdempotencyKey(value)
		if p != noProblem {
			if key != nil {
				t.Fatalf("%q was refused and gave %q", value, key)
			}
			return
		}
		if !deal.ValidID(key) || string(value) != string(key) && string(value) != `"`+string(key)+`"` {
			t.Fatalf("%q gave %q", value, key)
		}
	})
}

func BenchmarkDecodeOrder(b *testing.B) {
	body := []byte(`{"deal_id":"d-1001","user_id":"u-7","quantity":1,"codes":["VIP"],"attributes":{"channel":"app"}}`)
	b.Run("ours", func(b *testing.B) {
		scratch, o := make([]byte, len(body)), order{cmd: new(deal.Command)}
		b.ReportAllocs()
		for b.Loop() {
			o.cmd.Reset()
			decodeOrder(scratch[:copy(scratch, body)], &o)
		}
	})
	b.Run("go-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m modelOrder
			if err := gojson.Unmarshal(body, &m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAppendOrder(b *testing.B) {
	view, out := sampleOrder(), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		out = appendOrder(out[:0], view)
	}
}
