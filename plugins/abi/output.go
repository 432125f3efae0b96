package abi

import (
	"fmt"
	"unicode/utf8"
)

// Layout of the encoded output; see the table in ABI.md.
const (
	outputBytes = 32

	atOutcome     = 0
	atOutputFlags = 2
	atDiscount    = 8
	atLabel       = 16
	atReason      = 24

	flagFinal = 1
)

// DecodeOutput reads the answer that a guest's rule_evaluate returned as result
// (address << 32 | length) from the guest's memory. payable is what is left to
// pay, Subtotal − DiscountSoFar: the largest discount there is.
//
// The texts of the Output point into memory. Any breach of the contract is
// ErrBadOutput with the detail, and no Output: a wrong price is never returned.
func DecodeOutput(memory []byte, result uint64, payable int64) (Output, error) {
	var out Output
	err := out.decode(memory, result, payable)
	if err != nil {
		return Output{}, err
	}
	return out, nil
}

// DecodeOutput is the package's DecodeOutput and SetOutput in one. After an error
// the verdict's Output is empty.
func (v *Verdict) DecodeOutput(memory []byte, result uint64, payable int64) error {
	err := v.decode(memory, result, payable)
	if err != nil {
		v.Output = Output{}
		return err
	}
	v.keepTexts()
	return nil
}

// decode fills out, which is not to be used after an error.
func (out *Output) decode(memory []byte, result uint64, payable int64) error {
	b, ok := within(memory, uint32(result>>32), uint32(result))
	if !ok {
		return fmt.Errorf("%w: it lies out of bounds", ErrBadOutput)
	}
	if len(b) < outputBytes {
		return fmt.Errorf("%w: %d bytes, not %d", ErrBadOutput, len(b), outputBytes)
	}
	flags := le.Uint16(b[atOutputFlags:])
	if flags&^flagFinal != 0 || le.Uint32(b[4:]) != 0 {
		return fmt.Errorf("%w: a reserved bit is set", ErrBadOutput)
	}
	out.Outcome, out.Final = Outcome(le.Uint16(b[atOutcome:])), flags&flagFinal != 0
	out.Discount = int64(le.Uint64(b[atDiscount:]))
	if err := out.checkAmount(payable); err != nil {
		return err
	}
	if out.Label, ok = text(memory, b[atLabel:], LabelBytesMax); !ok || !utf8.Valid(out.Label) {
		return fmt.Errorf("%w: the label is not UTF-8 text of at most %d bytes in memory", ErrBadOutput, LabelBytesMax)
	}
	if out.Reason, ok = text(memory, b[atReason:], ReasonBytesMax); !ok || !isReason(out.Reason) {
		return fmt.Errorf("%w: the reason is not [a-z0-9_], at most %d bytes in memory", ErrBadOutput, ReasonBytesMax)
	}
	return nil
}

// checkAmount refuses a discount that is no discount. An outcome that gives none
// has none, whatever the guest left in the field.
func (out *Output) checkAmount(payable int64) error {
	if out.Outcome > OutcomeReject {
		return fmt.Errorf("%w: outcome %d", ErrBadOutput, out.Outcome)
	}
	if out.Discount < 0 || out.Discount > payable {
		return fmt.Errorf("%w: discount %d of %d", ErrBadOutput, out.Discount, payable)
	}
	if out.Outcome != OutcomeDiscount {
		out.Discount = 0
	}
	return nil
}

// within returns the n bytes of memory at address.
func within(memory []byte, address, n uint32) ([]byte, bool) {
	end := uint64(address) + uint64(n)
	if end > uint64(len(memory)) {
		return nil, false
	}
	return memory[address:end:end], true
}

// text reads the (address, bytes) pair at the start of pair. An empty text may
// stand at any address.
func text(memory, pair []byte, max uint32) ([]byte, bool) {
	address, n := le.Uint32(pair), le.Uint32(pair[4:])
	if n == 0 {
		return nil, true
	}
	if n > max {
		return nil, false
	}
	return within(memory, address, n)
}

func isReason(s []byte) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
