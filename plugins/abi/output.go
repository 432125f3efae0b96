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

// decode fills the Output, which is not to be used after an error. An outcome that
// gives no discount has none, whatever the guest left in the field.
func (v *Verdict) decode(memory []byte, result uint64, payable int64) error {
	b, ok := within(memory, uint32(result>>32), uint32(result))
	if !ok {
		return fmt.Errorf("%w: it lies out of bounds", ErrBadOutput)
	}
	if len(b) < outputBytes {
		return fmt.Errorf("%w: %d bytes, not %d", ErrBadOutput, len(b), outputBytes)
	}
	head, discount := le.Uint64(b), int64(le.Uint64(b[atDiscount:]))
	outcome, flags := Outcome(head), head>>(8*atOutputFlags)
	if flags&^flagFinal != 0 {
		return fmt.Errorf("%w: a reserved bit is set", ErrBadOutput)
	}
	if outcome > OutcomeReject {
		return fmt.Errorf("%w: outcome %d", ErrBadOutput, outcome)
	}
	if discount < 0 || discount > payable {
		return fmt.Errorf("%w: discount %d of %d", ErrBadOutput, discount, payable)
	}
	if outcome != OutcomeDiscount {
		discount = 0
	}
	label, ok := text(memory, b[atLabel:], LabelBytesMax)
	if !ok || !isASCII(label) && !utf8.Valid(label) {
		return fmt.Errorf("%w: the label is not UTF-8 text of at most %d bytes in memory", ErrBadOutput, LabelBytesMax)
	}
	reason, ok := text(memory, b[atReason:], ReasonBytesMax)
	if !ok || !isReason(reason) {
		return fmt.Errorf("%w: the reason is not [a-z0-9_], at most %d bytes in memory", ErrBadOutput, ReasonBytesMax)
	}
	v.Outcome, v.Final, v.Discount = outcome, flags != 0, discount
	v.setTexts(label, reason)
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

// noReason is 0 for the bytes that a reason may have.
var noReason = func() (bad [256]byte) {
	for c := range bad {
		bad[c] = 1
	}
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyz0123456789_") {
		bad[c] = 0
	}
	return bad
}()

func isReason(s []byte) bool {
	bad := byte(0)
	for _, c := range s {
		bad |= noReason[c]
	}
	return bad == 0
}
