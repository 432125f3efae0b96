// Package sample reads what people write to try a rule: an order, its deal and
// its group as JSON, in the field names of the HTTP API's evaluate call.
//
// The same document makes the same abi.Input wherever it is read: by the server,
// by the commands of rule authors, and for the vectors of the SDKs.
package sample

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// Bounds of a sample. They are those of real deals and orders, so that the
// subtotal fits an int64.
const (
	QuantityMax  = 1_000_000
	UnitPriceMax = 1_000_000_000_000 // minor units
)

// Order is a sample. Every field may be left out: a quantity is 1 then, and all
// else is 0 or empty.
type Order struct {
	Now           Instant `json:"now"` // the order's stamp
	Deal          Deal    `json:"deal"`
	Order         Body    `json:"order"`
	Group         Group   `json:"group"`
	UserQuantity  uint32  `json:"user_quantity"`
	FirstOrder    bool    `json:"first_order"`
	Quote         bool    `json:"quote"`
	DiscountSoFar int64   `json:"discount_so_far"` // minor units
}

// Deal is what a sample says of the deal. UnitPrice is in minor units, and the
// group's price where the order is in a group.
type Deal struct {
	DealID     string            `json:"deal_id"`
	Currency   string            `json:"currency"` // ISO 4217
	UnitPrice  int64             `json:"unit_price"`
	Stock      int64             `json:"stock"`
	Available  int64             `json:"available"` // before this order
	StartsAt   Instant           `json:"starts_at"`
	EndsAt     Instant           `json:"ends_at"`
	Attributes map[string]string `json:"attributes"`
}

// Body is what a sample says of the order.
type Body struct {
	UserID     string            `json:"user_id"`
	Quantity   *int64            `json:"quantity"` // 1 … QuantityMax
	Codes      []string          `json:"codes"`
	Attributes map[string]string `json:"attributes"`
}

// Group is what a sample says of the group. Size 0: there is none.
type Group struct {
	Size    uint32 `json:"size"`
	Members uint32 `json:"members"` // before this order
	Opens   bool   `json:"opens"`
	Joins   bool   `json:"joins"`
}

// Instant is Unix ms, 0 for none. In JSON it is an RFC 3339 text later than
// 1970, or null.
type Instant int64

var errInstant = errors.New("a time must be RFC 3339 and later than 1970, like 2026-11-22T00:00:00.000Z")

// UnmarshalJSON implements json.Unmarshaler.
func (t *Instant) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*t = 0
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errInstant
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.UnixMilli() <= 0 {
		return errInstant
	}
	*t = Instant(at.UnixMilli())
	return nil
}

// FieldError says which field of a sample is out of bounds.
type FieldError struct{ Field, Message string }

func (e *FieldError) Error() string { return e.Field + " " + e.Message }

// Decode reads one JSON document. Fields that a sample does not have are an
// error, so that a misspelt one is not silently nothing.
func Decode(document []byte) (*Order, error) {
	o := &Order{}
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(o); err != nil {
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
			err = fmt.Errorf("%s has the wrong type: %s", wrong.Field, wrong.Value)
		}
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the sample")
	}
	return o, nil
}

// Input turns the sample into what a rule is told. Attributes stand in the order
// of their names. The error is a *FieldError, or wraps abi.ErrInputTooLarge.
func (o *Order) Input() (*abi.Input, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	in := &abi.Input{
		Flags: o.flags(), Now: int64(o.Now), UnitPrice: o.Deal.UnitPrice, DiscountSoFar: o.DiscountSoFar,
		Quantity: uint32(o.quantity()), UserQuantity: o.UserQuantity,
		Available: o.Deal.Available, Stock: o.Deal.Stock, StartsAt: int64(o.Deal.StartsAt), EndsAt: int64(o.Deal.EndsAt),
		GroupSize: o.Group.Size, GroupMembers: o.Group.Members,
		DealID: []byte(o.Deal.DealID), UserID: []byte(o.Order.UserID),
		Attributes: attributes(o.Order.Attributes), DealAttributes: attributes(o.Deal.Attributes),
	}
	copy(in.Currency[:], o.Deal.Currency)
	in.Subtotal = o.subtotal()
	for _, code := range o.Order.Codes {
		in.Codes = append(in.Codes, []byte(code))
	}
	if _, err := in.Append(nil); err != nil {
		return nil, err
	}
	return in, nil
}

func (o *Order) quantity() int64 {
	if o.Order.Quantity == nil {
		return 1
	}
	return *o.Order.Quantity
}

// subtotal cannot overflow within the bounds.
func (o *Order) subtotal() int64 { return o.Deal.UnitPrice * o.quantity() }

func (o *Order) validate() error {
	if q := o.quantity(); q < 1 || q > QuantityMax {
		return &FieldError{"order.quantity", fmt.Sprintf("must be 1 to %d", QuantityMax)}
	}
	if p := o.Deal.UnitPrice; p < 0 || p > UnitPriceMax {
		return &FieldError{"deal.unit_price", fmt.Sprintf("must be 0 to %d", int64(UnitPriceMax))}
	}
	if n := len(o.Deal.Currency); n != 0 && n != len(abi.Input{}.Currency) {
		return &FieldError{"deal.currency", "must be an ISO 4217 code"}
	}
	if d := o.DiscountSoFar; d < 0 || d > o.subtotal() {
		return &FieldError{"discount_so_far", "must be 0 to the subtotal"}
	}
	return nil
}

func (o *Order) flags() (flags uint16) {
	for _, f := range []struct {
		set  bool
		flag uint16
	}{
		{o.FirstOrder, abi.FlagFirstOrder},
		{o.Group.Opens, abi.FlagOpensGroup},
		{o.Group.Joins, abi.FlagJoinsGroup},
		{o.Quote, abi.FlagQuote},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	return flags
}

func attributes(m map[string]string) []abi.KV {
	list := make([]abi.KV, 0, len(m))
	for k, v := range m {
		list = append(list, abi.KV{Key: []byte(k), Value: []byte(v)})
	}
	slices.SortFunc(list, func(a, b abi.KV) int { return bytes.Compare(a.Key, b.Key) })
	return list
}
