// Package abi is the contract between the engine and a promotion rule: what a
// rule is told about an order, what it may answer, and the bytes in between.
//
// ABI.md is the contract in words; this package is the host's half of it in
// code. It is pure: no I/O, no clock, no goroutine. An Input is encoded into
// the guest's memory with Append; a guest's answer is decoded, and refused when
// it could turn into a wrong price, with DecodeOutput. Everything here is
// little-endian.
//
// Nothing that a guest wrote is trusted: DecodeOutput accepts any memory and
// any result, and answers with an error that wraps ErrBadOutput.
package abi

import "errors"

// Version is the ABI version that this package speaks.
const Version = 1

// Bounds of the contract. They are stated in ABI.md and enforced here.
const (
	// InputBytesMax bounds an encoded Input, all texts and arrays included.
	InputBytesMax = 8 << 10
	// LabelBytesMax bounds the text that a rule shows to the shopper.
	LabelBytesMax = 128
	// ReasonBytesMax bounds the machine-readable reason of a rule.
	ReasonBytesMax = 64
	// LogBytesMax bounds what a rule may log during one evaluation.
	LogBytesMax = 1 << 10
	// ModuleBytesMax bounds an uploaded module.
	ModuleBytesMax = 4 << 20
	// MemoryPagesMax bounds a module's memory, in pages of 64 KiB.
	MemoryPagesMax = 256
)

// Fuel is counted in source instructions.
const (
	// FuelDefault is an evaluation's budget when the merchant asked for none.
	FuelDefault = 100_000
	// FuelMax is the largest budget that a merchant may ask for.
	FuelMax = 1_000_000
)

// Bits of Input.Flags.
const (
	FlagFirstOrder = 1 // the user's first order in this deal
	FlagOpensGroup = 2 // the order opens a group
	FlagJoinsGroup = 4 // the order joins a group
	FlagQuote      = 8 // a quote: nothing is reserved
)

// Errors of this package. They are returned wrapped, with the detail.
var (
	// ErrInputTooLarge says that an Input does not fit InputBytesMax.
	ErrInputTooLarge = errors.New("rule input is too large")
	// ErrBadInput says that bytes are not an encoded Input.
	ErrBadInput = errors.New("bad rule input")
	// ErrBadOutput says that a rule's answer breaks the contract.
	ErrBadOutput = errors.New("bad rule output")
)

// KV is one attribute. Both sides are UTF-8.
type KV struct{ Key, Value []byte }

// Input is what a rule is told. Amounts are minor units of Currency, instants
// are Unix milliseconds. It holds no ownership: the byte slices belong to the
// caller and are only read.
type Input struct {
	Flags          uint16
	Now            int64 // the order's stamp
	UnitPrice      int64 // the group price when the order is in a group
	Subtotal       int64 // UnitPrice × Quantity
	DiscountSoFar  int64 // by the rules before this one
	Quantity       uint32
	UserQuantity   uint32 // units of this deal the user already holds
	Available      int64  // before this order
	Stock          int64
	StartsAt       int64
	EndsAt         int64 // 0: open
	GroupSize      uint32
	GroupMembers   uint32 // before this order
	Currency       [3]byte
	DealID         []byte
	UserID         []byte
	Codes          [][]byte
	Attributes     []KV // of the order
	DealAttributes []KV
}

// Outcome is what a rule decided.
type Outcome uint16

// Outcomes, as they stand in the encoded output.
const (
	OutcomeNone     Outcome = 0
	OutcomeDiscount Outcome = 1
	OutcomeReject   Outcome = 2
)

// String returns the outcome as the HTTP API spells it.
func (o Outcome) String() string {
	switch o {
	case OutcomeNone:
		return "none"
	case OutcomeDiscount:
		return "discount"
	case OutcomeReject:
		return "reject"
	}
	return "unknown"
}

// Output is a rule's answer, checked.
type Output struct {
	Outcome  Outcome
	Final    bool  // no later rule runs
	Discount int64 // minor units, 0 … Subtotal − DiscountSoFar; 0 unless OutcomeDiscount
	Label    []byte
	Reason   []byte
}

// Fault says why an evaluation gave no answer.
type Fault uint8

// Faults. Their numbers are journalled: they never change.
const (
	FaultNone      Fault = 0
	FaultOutOfFuel Fault = 1 // the budget ran out
	FaultTrap      Fault = 2 // the module trapped: unreachable, out of bounds, stack, …
	FaultBadOutput Fault = 3 // the answer breaks the contract
	FaultRuleInit  Fault = 4 // the module could not be brought to its initial state
)

// String returns the fault as metrics and the HTTP API spell it.
func (f Fault) String() string {
	switch f {
	case FaultNone:
		return "none"
	case FaultOutOfFuel:
		return "out_of_fuel"
	case FaultTrap:
		return "trap"
	case FaultBadOutput:
		return "bad_output"
	case FaultRuleInit:
		return "rule_init"
	}
	return "unknown"
}

// Verdict is one evaluation as the caller sees it. When Fault is not FaultNone
// the Output is empty.
//
// Label and Reason point into a buffer that the Verdict owns and reuses: they
// are valid until the same Verdict is evaluated into again.
type Verdict struct {
	Output
	Version uint32   // of the rule, 0: there is no such rule
	SHA256  [32]byte // of the version's module
	House   bool     // the rule is the engine's own, no merchant's
	Fault   Fault
	Fuel    uint64 // source instructions executed; the whole budget after FaultOutOfFuel
	Digest  uint64 // xxhash64 of the encoded input
	// Trial says that a version answered which is judged beside the one that it may replace.
	Trial bool

	text [LabelBytesMax + ReasonBytesMax]byte
}

// Reset empties the verdict for its next evaluation.
func (v *Verdict) Reset() {
	v.Output = Output{}
	v.Version, v.SHA256, v.House = 0, [32]byte{}, false
	v.Fault, v.Fuel, v.Digest, v.Trial = FaultNone, 0, 0, false
}

// SetOutput copies out into the verdict, with the texts into its own buffer.
// The texts are within their bounds, as DecodeOutput leaves them.
func (v *Verdict) SetOutput(out Output) {
	v.Output = out
	v.setTexts(out.Label, out.Reason)
}

// setTexts copies the texts into the verdict's own buffer.
func (v *Verdict) setTexts(label, reason []byte) {
	n := copy(v.text[:LabelBytesMax], label)
	v.Label = v.text[:n:n]
	n = LabelBytesMax + copy(v.text[LabelBytesMax:], reason)
	v.Reason = v.text[LabelBytesMax:n:n]
}
