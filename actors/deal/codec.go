package deal

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

func appendText[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendTexts(dst []byte, list [][]byte) []byte {
	dst = append(dst, byte(len(list)))
	for _, s := range list {
		dst = appendText(dst, s)
	}
	return dst
}

func appendNames(dst []byte, list []string) []byte {
	dst = append(dst, byte(len(list)))
	for _, s := range list {
		dst = appendText(dst, s)
	}
	return dst
}

func appendKVs(dst []byte, list []abi.KV) []byte {
	dst = append(dst, byte(len(list)))
	for _, kv := range list {
		dst = appendText(appendText(dst, kv.Key), kv.Value)
	}
	return dst
}

// reader takes values off the front of a record. The first value that is not
// there, or out of bounds, makes it bad, and every later one is zero: callers
// look once, at the end.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) end(what string) error {
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	return nil
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.bytes(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // a zero at the end: a longer spelling of the same number
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uint()
	if v > math.MaxUint32 {
		r.fail()
		return 0
	}
	return uint32(v)
}

// int reads a number that is never negative in a record.
func (r *reader) int() int64 {
	v := r.uint()
	if v > math.MaxInt64/4 { // sums of two such numbers cannot overflow
		r.fail()
		return 0
	}
	return int64(v)
}

func (r *reader) count(most int) int {
	n := int(r.byte())
	if n > most {
		r.fail()
		return 0
	}
	return n
}

func (r *reader) text(most int) []byte {
	n := r.uint()
	if n > uint64(most) {
		r.fail()
		return nil
	}
	return r.bytes(int(n))
}

func (r *reader) texts(dst [][]byte, most int) [][]byte {
	for range r.count(most) {
		dst = append(dst, r.text(MaxTextLen))
	}
	return dst
}

func (r *reader) kvs(dst []abi.KV) []abi.KV {
	for range r.count(MaxAttributes) {
		dst = append(dst, abi.KV{Key: r.text(MaxTextLen), Value: r.text(MaxTextLen)})
	}
	return dst
}

func (r *reader) name() string { return string(r.text(MaxIDLen)) }

func (r *reader) names() []string {
	n := r.count(MaxRules)
	list := make([]string, 0, n)
	for range n {
		list = append(list, r.name())
	}
	return list
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }
