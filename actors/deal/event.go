package deal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// Kind names an event. The numbers are on disk: they are never reused.
type Kind uint8

// The events of a deal.
const (
	DealCreated    Kind = 1
	DealChanged    Kind = 2
	DealPausedAt   Kind = 3
	DealResumed    Kind = 4
	DealClosed     Kind = 5
	OrderConfirmed Kind = 7 // paid, and confirmed unless its group still forms; the last payment completes the group
	OrderCancelled Kind = 8
	OrderExpired   Kind = 9
	OrderRefunded  Kind = 10
	GroupFailed    Kind = 11 // its paid orders are due a refund, its reserved ones expire
	OrderPlaced    Kind = 12
	// RuleSwitchedOff: the deal goes on without a rule that kept failing, until its
	// rules are set again.
	RuleSwitchedOff Kind = 13
)

// refundOfPayment is on disk the Kind of an OrderRefunded that knows its Payment.
const refundOfPayment = 14

// retired was the Kind of OrderPlaced before an order recorded all that its rules
// were told.
const retired = 6

// Event is one thing that happened to a deal. Which fields count depends on
// Kind. After Decode its slices lie in the decoded record.
type Event struct {
	Kind Kind
	Seq  uint64 // position in the deal's history, from 1; not part of the encoding
	At   int64

	Spec   *Spec  // DealCreated
	Patch  *Patch // DealChanged
	Placed Placed // OrderPlaced
	Order  uint64 // other order events: the order's seq
	Group  uint64 // GroupFailed: the seq of the order that opened the group
	Ref    []byte // OrderConfirmed, OrderCancelled, OrderRefunded
	// Payment is the seq of the OrderConfirmed whose money an OrderRefunded gave
	// back; 0 = not known.
	Payment uint64
	Rule    []byte // RuleSwitchedOff
}

// Placed is everything about an order that must outlive the moment: what the
// shopper asked, what each rule was told and answered, and what was promised.
// The reply to the shopper, its replay, a later explanation and a later
// evaluation of the same or of another rule are all made from it.
type Placed struct {
	User, Key   []byte
	Fingerprint uint64
	Quantity    uint32
	UnitPrice   int64
	Discount    int64 // of all rules together; total = UnitPrice × Quantity − Discount
	ExpiresAt   int64
	Codes       [][]byte
	Attributes  []abi.KV

	GroupMode    GroupMode
	Group        uint64 // JoinGroup: the seq of the opening order
	GroupMembers uint32 // after this order; 0 = alone
	GroupSize    uint32 // members that it needs
	GroupEnds    int64

	Available    int64  // stock left right after this order
	Stock        int64  // of the deal at this order; a merchant may add to it later
	StartsAt     int64  // of the deal
	EndsAt       int64  // of the deal at this order, 0 = open end; a merchant may move it later
	UserQuantity uint32 // units the user held before
	FirstOrder   bool   // the user's first in this deal
	Evaluations  []Evaluation
}

// Subtotal is the price before discounts.
func (p *Placed) Subtotal() int64 { return p.UnitPrice * int64(p.Quantity) }

// Total is what the shopper pays.
func (p *Placed) Total() int64 { return p.Subtotal() - p.Discount }

// Evaluation is one rule's part in an order's price.
type Evaluation struct {
	Rule    []byte   // its name
	House   bool     // the rule is the engine's own, and not the merchant's rule of that name
	Version uint32   // 0: there was no such rule
	SHA256  [32]byte // of the version's module, zero if there was none
	Outcome abi.Outcome
	Final   bool
	Fault   abi.Fault
	// Discount in minor units, 0 unless Outcome is OutcomeDiscount.
	Discount int64
	Fuel     uint64
	Digest   uint64 // xxhash64 of the encoded input
	Label    []byte // for the shopper
	Reason   []byte // for machines
	// Trial says that the version was a candidate. It is not in the record, and false
	// in an event that was read.
	Trial bool
}

// Input fills in what the rules of an order were told, but for the deal's part
// (Spec.Input) and what the rules before had taken off. It keeps the event's
// slices.
func (e *Event) Input(in *abi.Input) {
	p := &e.Placed
	in.Flags = 0
	if p.FirstOrder {
		in.Flags |= abi.FlagFirstOrder
	}
	in.GroupSize, in.GroupMembers = 0, 0
	switch p.GroupMode {
	case OpenGroup:
		in.Flags |= abi.FlagOpensGroup
		in.GroupSize, in.GroupMembers = p.GroupSize, p.GroupMembers-1
	case JoinGroup:
		in.Flags |= abi.FlagJoinsGroup
		in.GroupSize, in.GroupMembers = p.GroupSize, p.GroupMembers-1
	case Alone:
	}
	in.Now, in.UnitPrice, in.Subtotal, in.DiscountSoFar = e.At, p.UnitPrice, p.Subtotal(), 0
	in.Quantity, in.UserQuantity = p.Quantity, p.UserQuantity
	in.Available, in.Stock = p.Available+int64(p.Quantity), p.Stock
	in.StartsAt, in.EndsAt = p.StartsAt, p.EndsAt
	in.UserID, in.Codes, in.Attributes = p.User, p.Codes, p.Attributes
}

// Reset empties the event and keeps its buffers.
func (e *Event) Reset() {
	*e = Event{Placed: Placed{
		Codes: e.Placed.Codes[:0], Attributes: e.Placed.Attributes[:0], Evaluations: e.Placed.Evaluations[:0],
	}}
}

// Append encodes the event behind dst. The format is in FORMAT.md.
func (e *Event) Append(dst []byte) []byte {
	kind := byte(e.Kind)
	if e.Payment != 0 {
		kind = refundOfPayment
	}
	dst = append(dst, kind)
	dst = binary.AppendUvarint(dst, uint64(e.At))
	switch e.Kind {
	case DealCreated:
		dst = e.Spec.append(dst)
	case DealChanged:
		dst = e.Patch.append(dst)
	case OrderPlaced:
		dst = e.Placed.append(dst, e.At)
	case OrderConfirmed, OrderCancelled, OrderRefunded:
		dst = binary.AppendUvarint(dst, e.Order)
		dst = appendText(dst, e.Ref)
		if e.Payment != 0 {
			dst = binary.AppendUvarint(dst, e.Payment)
		}
	case OrderExpired:
		dst = binary.AppendUvarint(dst, e.Order)
	case GroupFailed:
		dst = binary.AppendUvarint(dst, e.Group)
	case RuleSwitchedOff:
		dst = appendText(dst, e.Rule)
	case DealPausedAt, DealResumed, DealClosed:
	}
	return dst
}

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("deal: malformed record")

// Decode reads one event that Append wrote. It reuses e's buffers, keeps
// slices of b, and never panics: anything that Append cannot have written is
// ErrMalformed. Seq is left to the caller.
func (e *Event) Decode(b []byte) error {
	e.Reset()
	r := reader{b: b}
	e.Kind = Kind(r.byte())
	e.At = r.int()
	switch e.Kind {
	case DealCreated:
		e.Spec = new(Spec)
		e.Spec.read(&r)
	case DealChanged:
		e.Patch = new(Patch)
		e.Patch.read(&r)
	case OrderPlaced:
		e.Placed.read(&r, e.At)
	case OrderConfirmed, OrderCancelled, OrderRefunded:
		e.Order = r.uint()
		e.Ref = r.text(MaxReferenceLen)
	case refundOfPayment:
		e.Kind = OrderRefunded
		e.Order = r.uint()
		e.Ref = r.text(MaxReferenceLen)
		if e.Payment = r.uint(); e.Payment == 0 {
			r.fail()
		}
	case OrderExpired:
		e.Order = r.uint()
	case GroupFailed:
		e.Group = r.uint()
	case RuleSwitchedOff:
		e.Rule = r.text(MaxIDLen)
	case DealPausedAt, DealResumed, DealClosed:
	case retired:
		return fmt.Errorf("%w: an order of an earlier format, which did not record what its rules were told", ErrMalformed)
	default:
		return fmt.Errorf("%w: unknown event kind %d", ErrMalformed, e.Kind)
	}
	return r.end("event")
}

// Flags of an encoded order.
const (
	flagFirstOrder = 1 << iota
	flagOpens
	flagJoins
)

func (p *Placed) append(dst []byte, at int64) []byte {
	var flags byte
	if p.FirstOrder {
		flags |= flagFirstOrder
	}
	switch p.GroupMode {
	case OpenGroup:
		flags |= flagOpens
	case JoinGroup:
		flags |= flagJoins
	case Alone:
	}
	dst = append(dst, flags)
	dst = appendText(dst, p.User)
	dst = appendText(dst, p.Key)
	dst = binary.LittleEndian.AppendUint64(dst, p.Fingerprint)
	dst = binary.AppendUvarint(dst, uint64(p.Quantity))
	dst = binary.AppendUvarint(dst, uint64(p.UnitPrice))
	dst = binary.AppendUvarint(dst, uint64(p.Discount))
	dst = binary.AppendUvarint(dst, uint64(p.ExpiresAt-at))
	dst = appendTexts(dst, p.Codes)
	dst = appendKVs(dst, p.Attributes)
	if p.GroupMode != Alone {
		dst = binary.AppendUvarint(dst, p.Group)
		dst = binary.AppendUvarint(dst, uint64(p.GroupMembers))
		dst = binary.AppendUvarint(dst, uint64(p.GroupEnds))
		dst = binary.AppendUvarint(dst, uint64(p.GroupSize))
	}
	dst = binary.AppendUvarint(dst, uint64(p.Available))
	dst = binary.AppendUvarint(dst, uint64(p.Stock))
	dst = binary.AppendUvarint(dst, uint64(at-p.StartsAt))
	left := int64(0)
	if p.EndsAt != 0 {
		left = p.EndsAt - at
	}
	dst = binary.AppendUvarint(dst, uint64(left))
	dst = binary.AppendUvarint(dst, uint64(p.UserQuantity))
	dst = append(dst, byte(len(p.Evaluations)))
	for i := range p.Evaluations {
		dst = p.Evaluations[i].append(dst)
	}
	return dst
}

func (p *Placed) read(r *reader, at int64) {
	flags := r.byte()
	p.FirstOrder = flags&flagFirstOrder != 0
	switch flags &^ flagFirstOrder {
	case 0:
		p.GroupMode = Alone
	case flagOpens:
		p.GroupMode = OpenGroup
	case flagJoins:
		p.GroupMode = JoinGroup
	default:
		r.fail()
	}
	p.User = r.text(MaxIDLen)
	p.Key = r.text(MaxIDLen)
	p.Fingerprint = r.uint64()
	p.Quantity = r.uint32()
	p.UnitPrice = r.int()
	p.Discount = r.int()
	p.ExpiresAt = at + r.int()
	p.Codes = r.texts(p.Codes, MaxCodes)
	p.Attributes = r.kvs(p.Attributes)
	if p.GroupMode != Alone {
		p.Group = r.uint()
		p.GroupMembers = r.uint32()
		p.GroupEnds = r.int()
		p.GroupSize = r.uint32()
	}
	p.Available = r.int()
	p.Stock = r.int()
	if p.StartsAt = at - r.int(); p.StartsAt < 0 {
		r.fail()
	}
	if left := r.int(); left != 0 {
		p.EndsAt = at + left
	}
	p.UserQuantity = r.uint32()
	for range r.count(MaxRules) {
		p.Evaluations = append(p.Evaluations, Evaluation{})
		p.Evaluations[len(p.Evaluations)-1].read(r)
	}
}

// Flags in an encoded outcome.
const (
	evaluationFinal = 0x80
	evaluationHouse = 0x40
)

func (v *Evaluation) append(dst []byte) []byte {
	outcome := byte(v.Outcome)
	if v.Final {
		outcome |= evaluationFinal
	}
	if v.House {
		outcome |= evaluationHouse
	}
	dst = appendText(dst, v.Rule)
	dst = binary.AppendUvarint(dst, uint64(v.Version))
	if v.Version != 0 {
		dst = append(dst, v.SHA256[:]...)
	}
	dst = append(dst, outcome, byte(v.Fault))
	dst = binary.AppendUvarint(dst, uint64(v.Discount))
	dst = binary.AppendUvarint(dst, v.Fuel)
	dst = binary.LittleEndian.AppendUint64(dst, v.Digest)
	dst = appendText(dst, v.Label)
	return appendText(dst, v.Reason)
}

func (v *Evaluation) read(r *reader) {
	v.Rule = r.text(MaxIDLen)
	if v.Version = r.uint32(); v.Version != 0 {
		copy(v.SHA256[:], r.bytes(len(v.SHA256)))
	}
	outcome := r.byte()
	v.Outcome = abi.Outcome(outcome &^ (evaluationFinal | evaluationHouse))
	v.Final, v.House = outcome&evaluationFinal != 0, outcome&evaluationHouse != 0
	v.Fault = abi.Fault(r.byte())
	v.Discount = r.int()
	v.Fuel = r.uint()
	v.Digest = r.uint64()
	v.Label = r.text(MaxTextLen)
	v.Reason = r.text(MaxTextLen)
	if v.Outcome > abi.OutcomeReject || v.Fault > abi.FaultRuleInit || v.House && v.Version == 0 {
		r.fail()
	}
}

func (s *Spec) append(dst []byte) []byte {
	dst = appendText(dst, s.ID)
	dst = appendText(dst, s.Merchant)
	dst = appendText(dst, s.Title)
	dst = appendText(dst, s.Category)
	dst = append(dst, s.Currency[:]...)
	dst = binary.AppendUvarint(dst, uint64(s.UnitPrice))
	dst = binary.AppendUvarint(dst, uint64(s.Stock))
	dst = binary.AppendUvarint(dst, uint64(s.PerUserLimit))
	dst = binary.AppendUvarint(dst, uint64(s.StartsAt))
	dst = binary.AppendUvarint(dst, uint64(s.EndsAt))
	dst = binary.AppendUvarint(dst, uint64(s.ReserveTTL))
	dst = binary.AppendUvarint(dst, uint64(s.Group.Size))
	dst = binary.AppendUvarint(dst, uint64(s.Group.Window))
	dst = binary.AppendUvarint(dst, uint64(s.Group.UnitPrice))
	dst = appendNames(dst, s.Rules)
	dst = append(dst, byte(s.OnRuleError))
	return appendKVs(dst, s.Attributes)
}

func (s *Spec) read(r *reader) {
	s.ID = string(r.text(MaxIDLen))
	s.Merchant = string(r.text(MaxIDLen))
	s.Title = string(r.text(MaxTitleLen))
	s.Category = string(r.text(MaxCategoryLen))
	copy(s.Currency[:], r.bytes(3))
	s.UnitPrice = r.int()
	s.Stock = r.int()
	s.PerUserLimit = r.uint32()
	s.StartsAt = r.int()
	s.EndsAt = r.int()
	s.ReserveTTL = r.int()
	s.Group.Size = r.uint32()
	s.Group.Window = r.int()
	s.Group.UnitPrice = r.int()
	s.Rules = r.names()
	s.OnRuleError = RulePolicy(r.byte())
	for _, kv := range r.kvs(nil) {
		s.Attributes = append(s.Attributes, abi.KV{Key: clone(kv.Key), Value: clone(kv.Value)})
	}
	if s.OnRuleError > SkipOnRuleError {
		r.fail()
	}
}

// Fields of an encoded patch.
const (
	patchTitle = 1 << iota
	patchEndsAt
	patchLimit
	patchRules
)

func (p *Patch) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, 0)
	dst = binary.AppendUvarint(dst, uint64(p.StockAdd))
	if p.Title != nil {
		dst[at] |= patchTitle
		dst = appendText(dst, *p.Title)
	}
	if p.EndsAt != nil {
		dst[at] |= patchEndsAt
		dst = binary.AppendUvarint(dst, uint64(*p.EndsAt))
	}
	if p.PerUserLimit != nil {
		dst[at] |= patchLimit
		dst = binary.AppendUvarint(dst, uint64(*p.PerUserLimit))
	}
	if p.Rules != nil {
		dst[at] |= patchRules
		dst = appendNames(dst, *p.Rules)
	}
	return dst
}

func (p *Patch) read(r *reader) {
	has := r.byte()
	p.StockAdd = r.int()
	if has&patchTitle != 0 {
		title := string(r.text(MaxTitleLen))
		p.Title = &title
	}
	if has&patchEndsAt != 0 {
		ends := r.int()
		p.EndsAt = &ends
	}
	if has&patchLimit != 0 {
		limit := r.uint32()
		p.PerUserLimit = &limit
	}
	if has&patchRules != 0 {
		rules := r.names()
		p.Rules = &rules
	}
	if has >= patchRules<<1 {
		r.fail()
	}
}
