// Package rulestest tests a rule as plain Go, with `go test`: on samples as the
// server's evaluate call takes them, and on files of vectors.
package rulestest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"
)

// Vectors runs the rule on every case of a vectors file, each as a subtest.
func Vectors(t *testing.T, path string, rule doorbuster.Rule) {
	t.Helper()
	var file struct {
		Cases []struct {
			Name   string
			Input  json.RawMessage
			Expect expect
		}
	}
	if err := json.Unmarshal(read(t, path), &file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(file.Cases) == 0 {
		t.Fatalf("%s has no cases", path)
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			in, err := Decode(c.Input)
			if err != nil {
				t.Fatal(err)
			}
			if got := answer(rule(in)); got != c.Expect {
				t.Errorf("got  %+v\nwant %+v", got, c.Expect)
			}
		})
	}
}

// Sample reads a sample input, as `doorbuster rule run --input` takes it.
func Sample(t testing.TB, path string) *doorbuster.Input {
	t.Helper()
	in, err := Decode(read(t, path))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return in
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type expect struct {
	Outcome  string
	Discount int64
	Label    string
	Reason   string
	Final    bool
}

func answer(out doorbuster.Output) expect {
	e := expect{Discount: int64(out.Discount), Label: out.Label, Reason: out.Reason, Final: out.Final}
	switch out.Outcome {
	case doorbuster.OutcomeNone:
		e.Outcome = "none"
	case doorbuster.OutcomeDiscount:
		e.Outcome = "discount"
	case doorbuster.OutcomeReject:
		e.Outcome = "reject"
	default:
		e.Outcome = fmt.Sprintf("unknown (%d)", out.Outcome)
	}
	return e
}

// sample has the fields of the server's evaluate call.
type sample struct {
	Now  instant `json:"now"`
	Deal struct {
		DealID     string            `json:"deal_id"`
		Currency   string            `json:"currency"`
		UnitPrice  doorbuster.Money  `json:"unit_price"`
		Stock      int64             `json:"stock"`
		Available  int64             `json:"available"`
		StartsAt   instant           `json:"starts_at"`
		EndsAt     instant           `json:"ends_at"`
		Attributes map[string]string `json:"attributes"`
	} `json:"deal"`
	Order struct {
		UserID     string            `json:"user_id"`
		Quantity   *uint32           `json:"quantity"`
		Codes      []string          `json:"codes"`
		Attributes map[string]string `json:"attributes"`
	} `json:"order"`
	Group struct {
		Size    uint32 `json:"size"`
		Members uint32 `json:"members"`
		Opens   bool   `json:"opens"`
		Joins   bool   `json:"joins"`
	} `json:"group"`
	UserQuantity  uint32           `json:"user_quantity"`
	FirstOrder    bool             `json:"first_order"`
	Quote         bool             `json:"quote"`
	DiscountSoFar doorbuster.Money `json:"discount_so_far"`
}

// instant is Unix ms; in JSON an RFC 3339 text or null.
type instant int64

func (i *instant) UnmarshalJSON(b []byte) error {
	var at *time.Time
	if err := json.Unmarshal(b, &at); err != nil {
		return err
	}
	if at != nil {
		*i = instant(at.UnixMilli())
	}
	return nil
}

// Decode reads a sample: a JSON document with the fields of the server's evaluate
// call, each of which may be left out. A field that there is not is an error.
func Decode(document []byte) (*doorbuster.Input, error) {
	var s sample
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	quantity := uint32(1)
	if s.Order.Quantity != nil {
		quantity = *s.Order.Quantity
	}
	return &doorbuster.Input{
		FirstOrder: s.FirstOrder, OpensGroup: s.Group.Opens, JoinsGroup: s.Group.Joins, Quote: s.Quote,
		Now: int64(s.Now), UnitPrice: s.Deal.UnitPrice, Subtotal: s.Deal.UnitPrice.Times(quantity), DiscountSoFar: s.DiscountSoFar,
		Quantity: quantity, UserQuantity: s.UserQuantity, Available: s.Deal.Available, Stock: s.Deal.Stock,
		StartsAt: int64(s.Deal.StartsAt), EndsAt: int64(s.Deal.EndsAt), GroupSize: s.Group.Size, GroupMembers: s.Group.Members,
		Currency: s.Deal.Currency, DealID: s.Deal.DealID, UserID: s.Order.UserID, Codes: s.Order.Codes,
		Attributes: attributes(s.Order.Attributes), DealAttributes: attributes(s.Deal.Attributes),
	}, nil
}

// attributes stand in the order of their keys.
func attributes(m map[string]string) doorbuster.Attributes {
	var list doorbuster.Attributes
	for k, v := range m {
		list = append(list, doorbuster.Attribute{Key: k, Value: v})
	}
	slices.SortFunc(list, func(a, b doorbuster.Attribute) int { return strings.Compare(a.Key, b.Key) })
	return list
}
