package doorbuster

import (
	"encoding/binary"
	"unsafe"
)

// The bytes between a rule and its host: the tables of the rule ABI, version 1.

const (
	inputBytesMax = 8 << 10
	outputBytes   = 32
	refBytes      = 8
	pairBytes     = 2 * refBytes
)

// Bits of an input's flags.
const (
	flagFirstOrder = 1
	flagOpensGroup = 2
	flagJoinsGroup = 4
	flagQuote      = 8
)

// Decode reads an encoded input. Texts point into b; the slices that the Input
// has already are used again.
func (in *Input) Decode(b []byte) {
	le := binary.LittleEndian
	flags := le.Uint16(b[6:])
	in.FirstOrder, in.OpensGroup = flags&flagFirstOrder != 0, flags&flagOpensGroup != 0
	in.JoinsGroup, in.Quote = flags&flagJoinsGroup != 0, flags&flagQuote != 0
	in.Now = int64(le.Uint64(b[8:]))
	in.UnitPrice = Money(le.Uint64(b[16:]))
	in.Subtotal = Money(le.Uint64(b[24:]))
	in.DiscountSoFar = Money(le.Uint64(b[32:]))
	in.Quantity, in.UserQuantity = le.Uint32(b[40:]), le.Uint32(b[44:])
	in.Available, in.Stock = int64(le.Uint64(b[48:])), int64(le.Uint64(b[56:]))
	in.StartsAt, in.EndsAt = int64(le.Uint64(b[64:])), int64(le.Uint64(b[72:]))
	in.GroupSize, in.GroupMembers = le.Uint32(b[80:]), le.Uint32(b[84:])
	in.Currency = currency(b[88:91])
	in.DealID, in.UserID = textAt(b, 96), textAt(b, 104)
	in.Codes = in.Codes[:0]
	for at, end := span(b, 112, refBytes); at < end; at += refBytes {
		in.Codes = append(in.Codes, textAt(b, at))
	}
	in.Attributes = attributesAt(in.Attributes[:0], b, 120)
	in.DealAttributes = attributesAt(in.DealAttributes[:0], b, 128)
}

func currency(b []byte) string {
	if b[0] == 0 {
		return "" // a sample without one
	}
	return text(b)
}

// span returns where the array of the ref at at begins and ends.
func span(b []byte, at uint32, entryBytes uint32) (first, end uint32) {
	first = binary.LittleEndian.Uint32(b[at:])
	return first, first + entryBytes*binary.LittleEndian.Uint32(b[at+4:])
}

func textAt(b []byte, at uint32) string {
	first, end := span(b, at, 1)
	return text(b[first:end])
}

func attributesAt(list Attributes, b []byte, ref uint32) Attributes {
	for at, end := span(b, ref, pairBytes); at < end; at += pairBytes {
		list = append(list, Attribute{Key: textAt(b, at), Value: textAt(b, at+refBytes)})
	}
	return list
}

// text is b as a string, not copied: nobody writes to an input.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
