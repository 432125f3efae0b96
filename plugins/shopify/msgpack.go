package shopify

import (
	"encoding/binary"
	"fmt"
	"math"
)

// MessagePack, as the providers of the Shopify Function API and the newer Javy
// providers exchange values with their host. Binary and extension values do not
// occur.
const (
	mpNil     = 0xc0
	mpFalse   = 0xc2
	mpTrue    = 0xc3
	mpFloat32 = 0xca
	mpFloat64 = 0xcb
	mpUint8   = 0xcc
	mpInt8    = 0xd0
	mpInt16   = 0xd1
	mpInt32   = 0xd2
	mpInt64   = 0xd3
	mpStr8    = 0xd9
	mpArray16 = 0xdc
	mpMap16   = 0xde
)

// appendMessagePack writes the value in the shortest encoding.
func (d *document) appendMessagePack(b []byte, at int) []byte {
	v := d.nodes[at]
	switch v.kind {
	case null:
		return append(b, mpNil)
	case boolean:
		return append(b, mpFalse+byte(v.n))
	case number:
		return appendMessagePackNumber(b, v.number)
	case text:
		return append(appendLength(b, v.n, 0xa0, 31, mpStr8, true), d.str(at)...)
	case array:
		b = appendLength(b, v.n, 0x90, 15, mpArray16, false)
	case object:
		b = appendLength(b, v.n, 0x80, 15, mpMap16, false)
	}
	for i := at + 1; i < int(v.end); i = int(d.nodes[i].end) {
		b = d.appendMessagePack(b, i)
	}
	return b
}

func appendMessagePackNumber(b []byte, v float64) []byte {
	n := int64(v)
	switch {
	case float64(n) != v || math.Abs(v) >= 1<<53 || n == 0 && math.Signbit(v):
		return binary.BigEndian.AppendUint64(append(b, mpFloat64), math.Float64bits(v))
	case n >= -32 && n <= math.MaxInt8:
		return append(b, byte(n))
	case n >= math.MinInt8 && n <= math.MaxInt8:
		return append(b, mpInt8, byte(n))
	case n >= math.MinInt16 && n <= math.MaxInt16:
		return binary.BigEndian.AppendUint16(append(b, mpInt16), uint16(n))
	case n >= math.MinInt32 && n <= math.MaxInt32:
		return binary.BigEndian.AppendUint32(append(b, mpInt32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, mpInt64), uint64(n))
}

// appendLength writes the head of a string, an array or an object: in one byte up
// to short, then with one (where there is that form), two or four bytes.
func appendLength(b []byte, n uint32, fix byte, short uint32, first byte, hasByte bool) []byte {
	switch {
	case n <= short:
		return append(b, fix|byte(n))
	case hasByte && n <= math.MaxUint8:
		return append(b, first, byte(n))
	}
	if hasByte {
		first++
	}
	if n <= math.MaxUint16 {
		return binary.BigEndian.AppendUint16(append(b, first), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, first+1), n)
}

// readMessagePack makes the document the value of a MessagePack text.
func (d *document) readMessagePack(b []byte) error {
	d.reset()
	r := messagePackReader{d: d, b: b}
	if !r.value(0) || r.pos != len(b) {
		return fmt.Errorf("%w at byte %d of %d", errNotMessagePack, r.pos, len(b))
	}
	return nil
}

type messagePackReader struct {
	d   *document
	b   []byte
	pos int
}

// uint reads n bytes.
func (r *messagePackReader) uint(n int) (v uint64, ok bool) {
	if len(r.b)-r.pos < n {
		return 0, false
	}
	for ; n > 0; n-- {
		v = v<<8 | uint64(r.b[r.pos])
		r.pos++
	}
	return v, true
}

func (r *messagePackReader) value(depth int) bool {
	head, ok := r.uint(1)
	if !ok || depth > nestingMax || len(r.d.nodes) >= nodesMax {
		return false
	}
	switch c := byte(head); {
	case c < 0x80 || c >= 0xe0:
		r.d.number(float64(int8(c)))
	case c < 0x90:
		return r.list(object, uint64(c&15), depth)
	case c < 0xa0:
		return r.list(array, uint64(c&15), depth)
	case c < 0xc0:
		return r.string(uint64(c & 31))
	case c == mpNil:
		r.d.null()
	case c == mpFalse || c == mpTrue:
		r.d.bool(c == mpTrue)
	case c == mpFloat32:
		v, ok := r.uint(4)
		r.d.number(float64(math.Float32frombits(uint32(v))))
		return ok
	case c == mpFloat64:
		v, ok := r.uint(8)
		r.d.number(math.Float64frombits(v))
		return ok
	case c >= mpUint8 && c < mpInt8:
		v, ok := r.uint(1 << (c - mpUint8))
		r.d.number(float64(v))
		return ok
	case c >= mpInt8 && c <= mpInt64:
		n := 1 << (c - mpInt8)
		v, ok := r.uint(n)
		r.d.number(float64(int64(v<<(64-8*n)) >> (64 - 8*n)))
		return ok
	case c >= mpStr8 && c < mpArray16:
		n, ok := r.uint(1 << (c - mpStr8))
		return ok && r.string(n)
	case c >= mpArray16 && c < mpMap16:
		n, ok := r.uint(2 << (c - mpArray16))
		return ok && r.list(array, n, depth)
	case c == mpMap16 || c == mpMap16+1:
		n, ok := r.uint(2 << (c - mpMap16))
		return ok && r.list(object, n, depth)
	default:
		return false
	}
	return true
}

func (r *messagePackReader) string(n uint64) bool {
	if uint64(len(r.b)-r.pos) < n {
		return false
	}
	r.d.bytes(r.b[r.pos : r.pos+int(n)])
	r.pos += int(n)
	return true
}

func (r *messagePackReader) list(k kind, n uint64, depth int) bool {
	if k == object {
		n *= 2
	}
	at := r.d.open(k)
	for i := range n {
		isKey := k == object && i%2 == 0
		key := len(r.d.nodes)
		if !r.value(depth+1) || isKey && r.d.nodes[key].kind != text {
			return false
		}
	}
	r.d.close(at)
	return true
}
