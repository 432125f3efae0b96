// Package doorbuster is what a promotion rule in Go is written with.
//
// A rule is a function from an Input to an Output, registered from an init
// function of a main package whose main is empty:
//
//	func init() { doorbuster.Register(evaluate) }
//
//	func evaluate(in *doorbuster.Input) doorbuster.Output {
//		return in.Discount(in.Payable().ShareDown(1_000), "10% off", "tenth")
//	}
//
// Compiled with GOOS=wasip1 GOARCH=wasm and -buildmode=c-shared it is a module of
// the rule ABI; compiled for any other system it is plain Go, and tested as such
// (package rulestest).
//
// A rule is pure. Every evaluation starts from the same memory: nothing that one
// leaves behind is seen by another, and the same input gives the same output for
// ever. The clock stands at the order's stamp, random numbers are always the same
// ones, and what a rule prints is its log (1 KiB an evaluation). A panic is a
// fault: the deal decides what the shopper sees then.
//
// The package has no dependencies. A project holds a copy of it, so that it
// builds offline, and the same in ten years.
package doorbuster

// Input is what a rule is told about an order. Amounts are minor units of
// Currency, instants are Unix ms.
//
// Its texts are valid during the evaluation, which is all the life there is.
type Input struct {
	FirstOrder bool // the user's first order in this deal
	OpensGroup bool // the order opens a group
	JoinsGroup bool // the order joins a group
	Quote      bool // nothing is reserved: the shopper asks for the price

	Now            int64 // the order's stamp
	UnitPrice      Money // the group's price when the order is in a group
	Subtotal       Money // UnitPrice × Quantity
	DiscountSoFar  Money // by the rules before this one, at most Subtotal
	Quantity       uint32
	UserQuantity   uint32 // units of this deal that the user already holds
	Available      int64  // units, before this order
	Stock          int64  // units
	StartsAt       int64
	EndsAt         int64  // 0: open
	GroupSize      uint32 // 0: no group
	GroupMembers   uint32 // before this order
	Currency       string // ISO 4217
	DealID         string
	UserID         string
	Codes          []string
	Attributes     Attributes // of the order
	DealAttributes Attributes
}

// Payable is what is left to pay after the rules before this one.
func (in *Input) Payable() Money { return in.Subtotal - in.DiscountSoFar }

// Attribute is one attribute of an order or a deal.
type Attribute struct{ Key, Value string }

// Attributes is a list of attributes with different keys.
type Attributes []Attribute

// Get returns the value with the key, and whether there is one.
func (list Attributes) Get(key string) (value string, ok bool) {
	for i := range list {
		if list[i].Key == key {
			return list[i].Value, true
		}
	}
	return "", false
}

// Outcome is what a rule decided.
type Outcome uint16

// Outcomes, with their numbers in the ABI.
const (
	OutcomeNone     Outcome = 0
	OutcomeDiscount Outcome = 1
	OutcomeReject   Outcome = 2
)

// Output is a rule's answer. The zero Output is "nothing".
type Output struct {
	Outcome  Outcome
	Final    bool   // no later rule runs
	Discount Money  // 0 … Payable
	Label    string // shown to the shopper: UTF-8, at most 128 bytes
	Reason   string // for machines: a-z 0-9 _, at most 64 bytes
}

// Discount answers with a discount: amount, but no less than 0 and no more than
// what is left to pay.
func (in *Input) Discount(amount Money, label, reason string) Output {
	return Output{Outcome: OutcomeDiscount, Discount: max(0, min(amount, in.Payable())), Label: label, Reason: reason}
}

// Nothing answers that the rule does not apply.
func Nothing() Output { return Output{} }

// Reject answers that the order must not be.
func Reject(label, reason string) Output {
	return Output{Outcome: OutcomeReject, Label: label, Reason: reason}
}

// Rule is a promotion rule.
type Rule func(*Input) Output

// registered is the module's rule.
var registered Rule

// Register makes rule the module's rule. It is called once, from an init function.
func Register(rule Rule) {
	if registered != nil || rule == nil {
		panic("doorbuster: Register is called once, with a rule")
	}
	registered = rule
}
