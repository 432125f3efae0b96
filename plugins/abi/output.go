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
// (address << 32 | length) from the guest's memory, and sets the verdict's Output to
// it. payable is what is left to pay, Subtotal − DiscountSoFar: the largest discount
// there is.
//
// Any breach of the contract is ErrBadOutput with the detail, and an empty Output: a
// wrong price is never returned.
func (v *Verdict) DecodeOutput(memory []byte, result uint64, payable int64) error {
	err := v.decode(memory, result, payable)
	if err != nil {
		v.Output = Output{}
	}
	return err
}

// decode fills the Output, which is not to be used after an error.
func (v *Verdict) decode(memory []byte, result uint64, payable int64) error {
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
	v.Outcome, v.Final = Outcome(le.Uint16(b[atOutcome:])), flags&flagFinal != 0
	v.Discount = int64(le.Uint64(b[atDiscount:]))
	if err := v.checkAmount(payable); err != nil {
		return err
	}
	label, ok := text(memory, b[atLabel:], LabelBytesMax)
	if !ok || !isASCII(label) && !utf8.Valid(label) {
		return fmt.Errorf("%w: the label is not UTF-8 text of at most %d bytes in memory", ErrBadOutput, LabelBytesMax)
	}
	reason, ok := text(memory, b[atReason:], ReasonBytesMax)
	if !ok || !isReason(reason) {
		return fmt.Errorf("%w: the reason is not [a-z0-9_], at most %d bytes in memory", ErrBadOutput, ReasonBytesMax)
	}
	v.setTexts(label, reason)
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

// isASCII says yes to most labels, in less time than utf8.Valid takes for what is
// left of one behind its last whole word.
func isASCII(s []byte) bool {
	const word, high = 8, 0x8080808080808080
	if len(s) < word {
		all := byte(0)
		for _, c := range s {
			all |= c
		}
		return all < utf8.RuneSelf
	}
	all := le.Uint64(s[len(s)-word:])
	for ; len(s) > word; s = s[word:] {
		all |= le.Uint64(s)
	}
	return all&high == 0
}

// reasonBytes says which bytes a reason may have.
var reasonBytes = func() (ok [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyz0123456789_") {
		ok[c] = true
	}
	return ok
}()

func isReason(s []byte) bool {
	for _, c := range s {
		if !reasonBytes[c] {
			return false
		}
	}
	return true
}
