package abi

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// Layout of the encoded input; see the table in ABI.md.
const (
	headerBytes = 136
	refBytes    = 8
	kvBytes     = 2 * refBytes

	atSize           = 0
	atVersion        = 4
	atFlags          = 6
	atNow            = 8
	atUnitPrice      = 16
	atSubtotal       = 24
	atDiscountSoFar  = 32
	atQuantity       = 40
	atUserQuantity   = 44
	atAvailable      = 48
	atStock          = 56
	atStartsAt       = 64
	atEndsAt         = 72
	atGroupSize      = 80
	atGroupMembers   = 84
	atCurrency       = 88
	atReserved       = 92
	atDealID         = 96
	atUserID         = 104
	atCodes          = 112
	atAttributes     = 120
	atDealAttributes = 128
)

var le = binary.LittleEndian

// Append encodes the input and appends it to dst, whose length must be a
// multiple of 8 for the encoding to be aligned. It returns dst unchanged and
// ErrInputTooLarge when the encoding is longer than InputBytesMax. It does not
// allocate when dst has room for InputBytesMax more bytes.
//
// The encoding is canonical: the header, then the arrays of refs in the order of
// the header, then the texts in the same order, padded with zeros to a multiple
// of 8. Equal inputs have equal bytes, so the digest of an input is stable.
func (in *Input) Append(dst []byte) ([]byte, error) {
	size, ok := in.encodedSize()
	if !ok {
		return dst, ErrInputTooLarge
	}
	start := len(dst)
	dst = slices.Grow(dst, size)[:start+size]
	in.encode(dst[start:])
	return dst, nil
}

// Fits says whether Append would take the input.
func (in *Input) Fits() bool {
	_, ok := in.encodedSize()
	return ok
}

// encode fills b, which is as long as encodedSize says. table and texts are where the
// next array of refs and the next text go.
func (in *Input) encode(b []byte) {
	le.PutUint64(b[len(b)-8:], 0) // holds all of the padding; everything else is written
	header := (*[headerBytes]byte)(b)
	in.encodeHeader(header, len(b))
	table, texts := headerBytes, headerBytes+in.tableBytes()
	putRef(header[:], atDealID, texts, len(in.DealID))
	texts += copy(b[texts:], in.DealID)
	putRef(header[:], atUserID, texts, len(in.UserID))
	texts += copy(b[texts:], in.UserID)
	putRef(header[:], atCodes, table, len(in.Codes))
	for _, code := range in.Codes {
		texts = putText(b, table, code, texts)
		table += refBytes
	}
	for n, list := range [...]*[]KV{&in.Attributes, &in.DealAttributes} {
		putRef(b, atAttributes+n*refBytes, table, len(*list))
		for i := range *list {
			texts = putText(b, table, (*list)[i].Key, texts)
			texts = putText(b, table+refBytes, (*list)[i].Value, texts)
			table += kvBytes
		}
	}
}

// Digest identifies an encoded input: it stands in the order's event, so that a
// price can be proved from the input that made it.
func Digest(encoded []byte) uint64 { return xxhash.Sum64(encoded) }

// encodeHeader writes all but the refs, in whole words: whoever hashes the input
// right behind it reads words, and one that came of several stores is not ready.
func (in *Input) encodeHeader(b *[headerBytes]byte, size int) {
	le.PutUint64(b[atSize:], uint64(size)|Version<<(8*(atVersion-atSize))|uint64(in.Flags)<<(8*(atFlags-atSize)))
	le.PutUint64(b[atNow:], uint64(in.Now))
	le.PutUint64(b[atUnitPrice:], uint64(in.UnitPrice))
	le.PutUint64(b[atSubtotal:], uint64(in.Subtotal))
	le.PutUint64(b[atDiscountSoFar:], uint64(in.DiscountSoFar))
	le.PutUint64(b[atQuantity:], pair(in.Quantity, in.UserQuantity))
	le.PutUint64(b[atAvailable:], uint64(in.Available))
	le.PutUint64(b[atStock:], uint64(in.Stock))
	le.PutUint64(b[atStartsAt:], uint64(in.StartsAt))
	le.PutUint64(b[atEndsAt:], uint64(in.EndsAt))
	le.PutUint64(b[atGroupSize:], pair(in.GroupSize, in.GroupMembers))
	currency := uint32(in.Currency[0]) | uint32(in.Currency[1])<<8 | uint32(in.Currency[2])<<16
	le.PutUint64(b[atCurrency:], pair(currency, 0))
}

// pair is a word of two fields.
func pair(first, second uint32) uint64 { return uint64(first) | uint64(second)<<32 }

// tableBytes is the room for the arrays of refs.
func (in *Input) tableBytes() int {
	return len(in.Codes)*refBytes + (len(in.Attributes)+len(in.DealAttributes))*kvBytes
}

// encodedSize returns the encoding's bytes, a multiple of 8. No address space has
// room for slices whose lengths would overflow the sum.
func (in *Input) encodedSize() (size int, ok bool) {
	if len(in.Codes) > InputBytesMax || len(in.Attributes) > InputBytesMax || len(in.DealAttributes) > InputBytesMax {
		return 0, false
	}
	size = headerBytes + in.tableBytes() + len(in.DealID) + len(in.UserID)
	for i := range in.Codes {
		size += len(in.Codes[i])
	}
	for i := range in.Attributes {
		size += len(in.Attributes[i].Key) + len(in.Attributes[i].Value)
	}
	for i := range in.DealAttributes {
		size += len(in.DealAttributes[i].Key) + len(in.DealAttributes[i].Value)
	}
	size = (size + 7) &^ 7
	return size, size <= InputBytesMax
}

func putRef(b []byte, at, offset, count int) {
	le.PutUint64(b[at:], pair(uint32(offset), uint32(count)))
}

// putText writes a text where texts says, and its ref at at. It returns where the
// next text goes.
func putText(b []byte, at int, s []byte, texts int) int {
	putRef(b, at, texts, len(s))
	return texts + copy(b[texts:], s)
}

// DecodeInput is the inverse of Append. The texts of the result point into b.
// It accepts a larger size than v1 knows, as every reader must, and refuses
// refs that leave the input and texts that are not UTF-8 with ErrBadInput.
func DecodeInput(b []byte) (Input, error) {
	if len(b) < headerBytes {
		return Input{}, fmt.Errorf("%w: %d bytes are less than the header's %d", ErrBadInput, len(b), headerBytes)
	}
	size := le.Uint32(b[atSize:])
	if size < headerBytes || uint64(size) > uint64(len(b)) || size > InputBytesMax {
		return Input{}, fmt.Errorf("%w: size %d of %d bytes", ErrBadInput, size, len(b))
	}
	if v := le.Uint16(b[atVersion:]); v != Version {
		return Input{}, fmt.Errorf("%w: abi %d", ErrBadInput, v)
	}
	in := decodeHeader(b)
	d := decoder{buf: b[:size]}
	in.DealID = d.text(atDealID)
	in.UserID = d.text(atUserID)
	in.Codes = d.codes()
	in.Attributes = d.attributes(atAttributes)
	in.DealAttributes = d.attributes(atDealAttributes)
	return in, d.err
}

func decodeHeader(b []byte) Input {
	in := Input{
		Flags:         le.Uint16(b[atFlags:]),
		Now:           int64(le.Uint64(b[atNow:])),
		UnitPrice:     int64(le.Uint64(b[atUnitPrice:])),
		Subtotal:      int64(le.Uint64(b[atSubtotal:])),
		DiscountSoFar: int64(le.Uint64(b[atDiscountSoFar:])),
		Quantity:      le.Uint32(b[atQuantity:]),
		UserQuantity:  le.Uint32(b[atUserQuantity:]),
		Available:     int64(le.Uint64(b[atAvailable:])),
		Stock:         int64(le.Uint64(b[atStock:])),
		StartsAt:      int64(le.Uint64(b[atStartsAt:])),
		EndsAt:        int64(le.Uint64(b[atEndsAt:])),
		GroupSize:     le.Uint32(b[atGroupSize:]),
		GroupMembers:  le.Uint32(b[atGroupMembers:]),
	}
	copy(in.Currency[:], b[atCurrency:])
	return in
}

// decoder reads refs; after the first error it returns nothing more.
type decoder struct {
	buf []byte
	err error
}

// span returns the bytes that the ref at at names.
func (d *decoder) span(at, entryBytes int) []byte {
	offset, count := le.Uint32(d.buf[at:]), le.Uint32(d.buf[at+4:])
	end := uint64(offset) + uint64(count)*uint64(entryBytes)
	if d.err != nil {
		return nil
	}
	if end > uint64(len(d.buf)) {
		d.err = fmt.Errorf("%w: ref at %d leaves the input", ErrBadInput, at)
		return nil
	}
	return d.buf[offset:end:end]
}

func (d *decoder) text(at int) []byte {
	s := d.span(at, 1)
	if !utf8.Valid(s) {
		d.err = fmt.Errorf("%w: text of the ref at %d is not UTF-8", ErrBadInput, at)
		return nil
	}
	return s
}

// offsetOf returns where the ref at at points to.
func (d *decoder) offsetOf(at int) int { return int(le.Uint32(d.buf[at:])) }

func (d *decoder) codes() [][]byte {
	n := len(d.span(atCodes, refBytes)) / refBytes
	if n == 0 {
		return nil
	}
	codes := make([][]byte, n)
	for i := range codes {
		codes[i] = d.text(d.offsetOf(atCodes) + i*refBytes)
	}
	return codes
}

func (d *decoder) attributes(at int) []KV {
	n := len(d.span(at, kvBytes)) / kvBytes
	if n == 0 {
		return nil
	}
	kvs := make([]KV, n)
	for i := range kvs {
		entry := d.offsetOf(at) + i*kvBytes
		kvs[i] = KV{Key: d.text(entry), Value: d.text(entry + refBytes)}
	}
	return kvs
}
