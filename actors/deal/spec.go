package deal

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// Bounds of what a deal may hold. They are part of the contract: a value
// beyond one of them is refused with an error that names the field.
const (
	MaxIDLen        = 64
	MaxTitleLen     = 200       // bytes of UTF-8
	MaxCategoryLen  = 64        // bytes of UTF-8
	MaxRules        = 8         // rules a deal
	MaxCodes        = 16        // promotion codes an order
	MaxAttributes   = 32        // entries of an order's or a deal's attributes
	MaxTextLen      = 256       // bytes of one code, attribute key or attribute value
	MaxUnitPrice    = 1e12      // minor units
	MaxStock        = 1e9       // units
	MaxQuantity     = 1e6       // units an order; MaxQuantity × MaxUnitPrice fits an int64
	MaxGroupSize    = 1000      // members
	MaxDuration     = 366 * day // ms: reservations and group windows
	MaxReferenceLen = 256       // bytes of a payment reference or a reason
	MaxOrders       = 1 << 24   // orders a deal ever takes, cancelled ones included
	MaxKeys         = 1 << 20   // idempotency keys remembered a deal; the oldest goes first
	KeyWindow       = 1 * day   // ms an idempotency key is remembered
	DefaultTTL      = 900_000   // ms a reservation holds
	day             = 24 * 60 * 60 * 1000
	maxTime         = 253402300799999 // 9999-12-31T23:59:59.999Z in Unix ms
)

// RulePolicy says what happens to an order when a promotion rule faults.
type RulePolicy uint8

// The two policies. A rule that faults is recorded in the order's event
// whichever is chosen.
const (
	RejectOnRuleError RulePolicy = iota // the order is refused with RuleRejected
	SkipOnRuleError                     // the order goes on without that rule
)

// GroupSpec makes a deal a group buy: an order may open a group or join one,
// and is confirmed once the group has Size paid members.
type GroupSpec struct {
	Size      uint32 // members a group needs, 2 … MaxGroupSize; 0 = no groups
	Window    int64  // ms from opening until the group fails
	UnitPrice int64  // minor units, the price of a unit for a group's members
}

// Spec is what a merchant says of a deal. Once in a State it is never
// changed in place: a patch makes a new one, so a pointer to it may be read
// by anyone.
type Spec struct {
	ID, Merchant, Title, Category string

	Currency     [3]byte // ISO 4217
	UnitPrice    int64
	Stock        int64  // units offered at creation; stock added later is in State.Stock
	PerUserLimit uint32 // units a user may hold, 0 = no limit
	StartsAt     int64
	EndsAt       int64 // 0 = open end
	ReserveTTL   int64 // ms a reservation holds
	Group        GroupSpec
	Rules        []string // names, in the order in which they run
	OnRuleError  RulePolicy
	Attributes   []abi.KV
}

// FieldError says which field of a request is at fault, and why, in words a
// client's developer can act on.
type FieldError struct{ Field, Message string }

func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// Validate returns every fault of the spec, none when it may become a deal.
// The field names are those of the HTTP contract.
func (s *Spec) Validate() []FieldError {
	var f faults
	f.check(ValidID(s.ID), "deal_id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	f.check(s.Merchant != "", "merchant_id", "must be given")
	f.check(s.Merchant == "" || ValidID(s.Merchant), "merchant_id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	f.check(s.Title != "" && len(s.Title) <= MaxTitleLen && utf8.ValidString(s.Title), "title", "must be 1 to %d bytes of UTF-8", MaxTitleLen)
	f.check(len(s.Category) <= MaxCategoryLen && utf8.ValidString(s.Category), "category", "must be at most %d bytes of UTF-8", MaxCategoryLen)
	f.check(upper(s.Currency), "currency", "must be an ISO 4217 code of three capital letters")
	f.check(s.UnitPrice >= 0 && s.UnitPrice <= MaxUnitPrice, "unit_price", "must be 0 to %d minor units", int64(MaxUnitPrice))
	f.check(s.Stock > 0 && s.Stock <= MaxStock, "stock", "must be 1 to %d", int64(MaxStock))
	f.check(s.StartsAt >= 0 && s.StartsAt <= maxTime, "starts_at", "must lie before the year 10000")
	f.check(s.EndsAt == 0 || s.EndsAt > s.StartsAt && s.EndsAt <= maxTime, "ends_at", "must be later than starts_at")
	f.check(s.ReserveTTL > 0 && s.ReserveTTL <= MaxDuration, "reserve_ttl_s", "must be 1 to %d seconds", int64(MaxDuration/1000))
	if g := s.Group; g != (GroupSpec{}) {
		f.check(g.Size >= 2 && g.Size <= MaxGroupSize, "group.size", "must be 2 to %d", MaxGroupSize)
		f.check(g.Window > 0 && g.Window <= MaxDuration, "group.window_s", "must be 1 to %d seconds", int64(MaxDuration/1000))
		f.check(g.UnitPrice >= 0 && g.UnitPrice <= MaxUnitPrice, "group.unit_price", "must be 0 to %d minor units", int64(MaxUnitPrice))
	}
	f.rules(s.Rules)
	f.attributes(s.Attributes)
	return f
}

// Patch changes a running deal. A nil field stays as it is.
type Patch struct {
	Title        *string
	EndsAt       *int64  // 0 = open end
	PerUserLimit *uint32 // 0 = no limit
	Rules        *[]string
	StockAdd     int64 // units, 0 or more
}

// Validate returns every fault that can be seen without the deal.
func (p *Patch) Validate() []FieldError {
	var f faults
	if p.Title != nil {
		f.check(*p.Title != "" && len(*p.Title) <= MaxTitleLen && utf8.ValidString(*p.Title), "title", "must be 1 to %d bytes of UTF-8", MaxTitleLen)
	}
	if p.EndsAt != nil {
		f.check(*p.EndsAt >= 0 && *p.EndsAt <= maxTime, "ends_at", "must lie before the year 10000")
	}
	f.check(p.StockAdd >= 0 && p.StockAdd <= MaxStock, "stock_add", "must be 0 to %d", int64(MaxStock))
	if p.Rules != nil {
		f.rules(*p.Rules)
	}
	return f
}

// Input returns the part of a rule's input that is the same for all orders of
// the deal: no patch changes it. The rest is Event.Input.
func (s *Spec) Input() abi.Input {
	return abi.Input{DealID: []byte(s.ID), Currency: s.Currency, DealAttributes: s.Attributes}
}

// With returns the spec with the patch applied.
func (s *Spec) With(p *Patch) *Spec {
	n := *s
	if p.Title != nil {
		n.Title = *p.Title
	}
	if p.EndsAt != nil {
		n.EndsAt = *p.EndsAt
	}
	if p.PerUserLimit != nil {
		n.PerUserLimit = *p.PerUserLimit
	}
	if p.Rules != nil {
		n.Rules = *p.Rules
	}
	return &n
}

// ValidID says whether id is 1 to 64 of [A-Za-z0-9_-], as every identifier
// of the contract is.
func ValidID[T string | []byte](id T) bool {
	if len(id) == 0 || len(id) > MaxIDLen {
		return false
	}
	for i := range len(id) {
		if !idByte[id[i]] {
			return false
		}
	}
	return true
}

var idByte = func() (t [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-" {
		t[c] = true
	}
	return t
}()

type faults []FieldError

func (f *faults) check(ok bool, field, format string, args ...any) {
	if !ok {
		*f = append(*f, FieldError{field, fmt.Sprintf(format, args...)})
	}
}

func (f *faults) rules(rules []string) {
	f.check(len(rules) <= MaxRules, "rules", "must be at most %d", MaxRules)
	for i, r := range rules {
		f.check(ValidID(r), fmt.Sprintf("rules[%d]", i), "must be 1 to 64 of A-Z a-z 0-9 _ -")
		f.check(!slices.Contains(rules[:i], r), fmt.Sprintf("rules[%d]", i), "must not be there twice")
	}
}

func (f *faults) attributes(kvs []abi.KV) {
	f.check(len(kvs) <= MaxAttributes, "attributes", "must be at most %d entries", MaxAttributes)
	for _, kv := range kvs {
		f.check(len(kv.Key) > 0 && len(kv.Key) <= MaxTextLen && len(kv.Value) <= MaxTextLen && utf8.Valid(kv.Key) && utf8.Valid(kv.Value),
			"attributes", "keys must be 1 to %d bytes of UTF-8, values at most %d", MaxTextLen, MaxTextLen)
	}
}

func upper(c [3]byte) bool {
	for _, b := range c {
		if b < 'A' || b > 'Z' {
			return false
		}
	}
	return true
}
