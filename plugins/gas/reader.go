package gas

import "unicode/utf8"

// reader takes a span of the module apart. It never reads outside the span.
// After the first failure it stands at the span's end and returns zeros, so
// that loops over it stop; the failure is reported once, by fail.
type reader struct {
	b    []byte // the module
	pos  int
	end  int // of the span
	fail func(offset int, format string, args ...any)
	bad  bool
}

// sub returns a reader of the next n bytes and skips them.
func (r *reader) sub(n uint32) reader {
	if uint64(n) > uint64(r.end-r.pos) {
		r.failf("%d bytes where %d are left", n, r.end-r.pos)
		n = 0
	}
	s := reader{b: r.b, pos: r.pos, end: r.pos + int(n), fail: r.fail, bad: r.bad}
	r.pos += int(n)
	return s
}

func (r *reader) more() bool { return r.pos < r.end }

// failf reports the first failure at the reader's place.
func (r *reader) failf(format string, args ...any) {
	if !r.bad {
		r.fail(r.pos, format, args...)
	}
	r.bad, r.pos = true, r.end
}

// reportf reports a fault after which the reader can go on.
func (r *reader) reportf(offset int, format string, args ...any) {
	if !r.bad {
		r.fail(offset, format, args...)
	}
}

func (r *reader) byte() byte {
	if r.pos >= r.end {
		r.failf("unexpected end")
		return 0
	}
	r.pos++
	return r.b[r.pos-1]
}

func (r *reader) skip(n int) {
	if n > r.end-r.pos {
		r.failf("unexpected end")
		return
	}
	r.pos += n
}

// u32 reads an unsigned LEB128 of at most 5 bytes and 32 bits.
func (r *reader) u32() uint32 {
	if r.pos < r.end && r.b[r.pos] < 0x80 {
		r.pos++
		return uint32(r.b[r.pos-1])
	}
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		if shift == 28 && c > 0x0f {
			break
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.failf("malformed integer")
	return 0
}

// signed reads a signed LEB128 of the given bits: 32, 33 or 64.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; shift < bits; shift += 7 {
		c := r.byte()
		v |= int64(c&0x7f) << shift
		if left := bits - shift; left < 7 {
			// The last byte: what it holds above the value's bits repeats the sign.
			if top := int8(c<<1) >> left; c >= 0x80 || (top != 0 && top != -1) {
				break
			}
		}
		if c < 0x80 {
			if s := shift + 7; s < 64 && c&0x40 != 0 {
				v |= -1 << s
			}
			return v
		}
	}
	r.failf("malformed integer")
	return 0
}

// count reads a vector's length, bounded by limit and by the bytes that are
// left when each entry takes at least entryBytes.
func (r *reader) count(what string, limit, entryBytes int) int {
	n := r.u32()
	switch {
	case uint64(n)*uint64(entryBytes) > uint64(r.end-r.pos):
		r.failf("%d %s do not fit the %d bytes left", n, what, r.end-r.pos)
	case n > uint32(limit):
		r.failf("%d %s, at most %d", n, what, limit)
	default:
		return int(n)
	}
	return 0
}

// name reads a name. A name that is too long or not UTF-8 is a failure.
func (r *reader) name() string {
	n := r.count("bytes of a name", NameBytesMax, 1)
	s := string(r.b[r.pos : r.pos+n])
	r.pos += n
	if !utf8.ValidString(s) {
		r.failf("a name is not UTF-8")
	}
	return s
}

// Value types as encoded.
const (
	i32Type       = 0x7f
	i64Type       = 0x7e
	f32Type       = 0x7d
	f64Type       = 0x7c
	v128Type      = 0x7b
	funcrefType   = 0x70
	externrefType = 0x6f
	emptyType     = 0x40
)

func isValueType(t byte) bool { return t >= v128Type && t <= i32Type || isRefType(t) }

func isRefType(t byte) bool { return t == funcrefType || t == externrefType }

func (r *reader) valueType() byte {
	t := r.byte()
	if !r.bad && !isValueType(t) {
		r.failf("unknown value type 0x%02x", t)
	}
	return t
}

func (r *reader) refType() byte {
	t := r.byte()
	if !r.bad && !isRefType(t) {
		r.failf("unknown reference type 0x%02x", t)
	}
	return t
}
