package deal

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// CommandKind names what is asked of a deal.
type CommandKind uint8

// The commands. Those up to Close change the deal when they succeed; Quote,
// LookupOrder and LookupGroup never do.
const (
	Place CommandKind = iota + 1
	Confirm
	Cancel
	Refund
	Create
	Change // apply a Patch
	Pause
	Resume
	Close
	Quote
	LookupOrder
	LookupGroup
)

// GroupMode says how an order relates to groups.
type GroupMode uint8

// The three ways to buy.
const (
	Alone GroupMode = iota
	OpenGroup
	JoinGroup
)

// Command is one request to a deal. Its slices belong to the caller and must
// stay unchanged until the reply is read.
type Command struct {
	Kind CommandKind
	At   int64 // the one time stamp that every decision about this command uses

	// Place and Quote.
	User       []byte // at most MaxIDLen bytes
	Key        []byte // idempotency key, at most MaxIDLen bytes; empty in a quote
	Quantity   int64
	Codes      [][]byte // at most MaxCodes, each of at most MaxTextLen bytes
	Attributes []abi.KV // at most MaxAttributes, keys and values of at most MaxTextLen bytes
	GroupMode  GroupMode
	Group      uint64 // JoinGroup, LookupGroup: the seq of the order that opened it

	// Confirm, Cancel, Refund, LookupOrder.
	Order uint64 // the order's seq
	Ref   []byte // payment reference, reason of a cancel, refund reference; at most MaxReferenceLen bytes

	Spec  *Spec  // Create
	Patch *Patch // Change

	scratch []byte
}

// Reset empties the command and keeps its buffers.
func (c *Command) Reset() {
	*c = Command{Codes: c.Codes[:0], Attributes: c.Attributes[:0], scratch: c.scratch[:0]}
}

// bounded says whether an event can hold what the command brings.
func (c *Command) bounded() bool {
	ok := len(c.User) <= MaxIDLen && len(c.Key) <= MaxIDLen && len(c.Ref) <= MaxReferenceLen &&
		len(c.Codes) <= MaxCodes && len(c.Attributes) <= MaxAttributes
	for _, code := range c.Codes {
		ok = ok && len(code) <= MaxTextLen
	}
	for _, kv := range c.Attributes {
		ok = ok && len(kv.Key) <= MaxTextLen && len(kv.Value) <= MaxTextLen
	}
	return ok
}

// fingerprint is a 64-bit digest of what the shopper asked for: two orders
// with one idempotency key are the same request when it is equal. The deal
// and the user are part of the key's scope and so need not be in it.
func (c *Command) fingerprint() uint64 {
	b := append(c.scratch[:0], byte(c.GroupMode))
	b = binary.AppendUvarint(b, c.Group)
	b = binary.AppendUvarint(b, uint64(c.Quantity))
	b = appendTexts(b, c.Codes)
	b = appendKVs(b, c.Attributes)
	c.scratch = b
	return xxhash.Sum64(b)
}

// Code says how a command ended. The gateway has the one table that maps it
// to HTTP.
type Code uint8

// The outcomes of a command.
const (
	OK Code = iota
	DealExists
	DealNotFound
	DealNotStarted
	DealEnded
	DealPaused
	DealInvalid // a spec that cannot be a deal, a patch that does not fit it; Reply.Detail is a FieldError
	SoldOut
	UserLimitExceeded
	QuantityInvalid
	RuleRejected
	GroupNotOffered // the deal has no groups
	GroupNotFound
	GroupFull
	GroupClosed
	OrderNotFound
	OrderStateConflict
	IdempotencyMismatch
	OrderTooLarge // codes and attributes are more than a rule can be told
)

// OrderStatus is where an order stands.
type OrderStatus uint8

// Without a group: Reserved → Confirmed | Cancelled | Expired. With a group:
// Reserved → Paid → Confirmed | RefundDue → Refunded, and Reserved →
// Cancelled | Expired as before. Nothing else.
const (
	Reserved OrderStatus = iota + 1
	Paid
	Confirmed
	Cancelled
	Expired
	RefundDue
	Refunded
)

// String returns the status as the HTTP contract spells it.
func (s OrderStatus) String() string {
	return [...]string{"", "reserved", "paid", "confirmed", "cancelled", "expired", "refund_due", "refunded"}[s]
}

// GroupStatus is where a group stands.
type GroupStatus uint8

// A group is forming until it has enough paid members or its window ends.
const (
	Forming GroupStatus = iota + 1
	Complete
	Failed
)

// String returns the status as the HTTP contract spells it.
func (s GroupStatus) String() string {
	return [...]string{"", "forming", "complete", "failed"}[s]
}

// GroupView is a group as it stands.
type GroupView struct {
	Seq       uint64 // of the order that opened it; 0 = no group
	Size      uint32
	Members   uint32 // orders that hold a seat: reserved, paid or confirmed
	Status    GroupStatus
	ExpiresAt int64
}

// Reply is the answer to one command. Its buffers are reused: read it before
// the next Reset.
type Reply struct {
	Code     Code
	Detail   string // words for Code, when they add something
	Replayed bool   // the idempotency key was known: Order names its first order

	// Event is what happened, Kind 0 when nothing did. After Place it holds
	// the whole order; after Quote it holds the price with Kind 0.
	Event Event

	Order  uint64      // seq of the order in question
	Status OrderStatus // its status now
	Moved  uint64      // seq of the last event that carries a reference of it, 0 = none
	Group  GroupView   // its group now, or the group that was looked up

	verdict abi.Verdict
	input   abi.Input
	text    []byte // owns the labels and reasons of Event.Placed.Evaluations
}

// Reset empties the reply and keeps its buffers.
func (r *Reply) Reset() {
	r.Event.Reset()
	r.Code, r.Detail, r.Replayed = OK, "", false
	r.Order, r.Status, r.Moved, r.Group = 0, 0, 0, GroupView{}
	r.input = abi.Input{}
	r.verdict.Reset()
	r.text = r.text[:0]
}

// refuse ends a decision with nothing changed.
func (r *Reply) refuse(c Code) {
	r.Event.Kind = 0
	r.Code = c
}
