package shopify

import (
	"math"
	"slices"
	"strconv"
)

// A document is a JSON value, as a function reads or writes one: the nodes in the
// order in which they stand in the text, and the strings behind each other. Both
// are reused by one evaluation after the other, so that none allocates.
type document struct {
	nodes []node
	text  []byte
	steps uint64 // that looking for properties and elements took
}

// node is one value of a document. An array's elements, and an object's keys and
// values by turns, are the nodes from its own place + 1 on; end leads behind each.
type node struct {
	kind   kind
	n      uint32  // of a string the bytes, of an array the elements, of an object the pairs, of true 1
	at     uint32  // of a string its place in the text
	end    uint32  // the node behind this one and all that is in it
	number float64 // of a number
}

type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	array
	object
)

// Bounds of a document. What a function writes is bounded by OutputBytesMax, and
// no value takes less than a byte.
const (
	nodesMax   = 64 << 10
	nestingMax = 64
)

func (d *document) reset() { d.nodes, d.text = d.nodes[:0], d.text[:0] }

func (d *document) add(v node) {
	v.end = uint32(len(d.nodes) + 1)
	d.nodes = append(d.nodes, v)
}

func (d *document) null() { d.add(node{kind: null}) }

func (d *document) bool(v bool) {
	n := node{kind: boolean}
	if v {
		n.n = 1
	}
	d.add(n)
}

func (d *document) number(v float64) { d.add(node{kind: number, number: v}) }

func (d *document) string(s string) {
	d.add(node{kind: text, n: uint32(len(s)), at: uint32(len(d.text))})
	d.text = append(d.text, s...)
}

func (d *document) bytes(s []byte) {
	d.add(node{kind: text, n: uint32(len(s)), at: uint32(len(d.text))})
	d.text = append(d.text, s...)
}

// open begins an array or an object, and close ends it: everything that was added
// in between is in it.
func (d *document) open(k kind) int {
	d.add(node{kind: k})
	return len(d.nodes) - 1
}

func (d *document) close(at int) {
	n := uint32(0)
	for i := at + 1; i < len(d.nodes); i = int(d.nodes[i].end) {
		n++
	}
	v := &d.nodes[at]
	v.end = uint32(len(d.nodes))
	v.n = n
	if v.kind == object {
		v.n = n / 2
	}
}

// append copies a whole document behind what this one has.
func (d *document) append(other *document) {
	node0, text0 := uint32(len(d.nodes)), uint32(len(d.text))
	for _, v := range other.nodes {
		v.end += node0
		v.at += text0
		d.nodes = append(d.nodes, v)
	}
	d.text = append(d.text, other.text...)
}

// str returns a string's bytes, or nil of another value.
func (d *document) str(at int) []byte {
	if at < 0 || d.nodes[at].kind != text {
		return nil
	}
	v := d.nodes[at]
	return d.text[v.at : v.at+v.n]
}

// get returns the place of an object's property, or -1 when it is missing or the
// value is no object. Of two with one name it is the first.
func (d *document) get(at int, name string) int {
	if at < 0 || d.nodes[at].kind != object {
		return -1
	}
	for i := at + 1; i < int(d.nodes[at].end); {
		d.steps++
		value := int(d.nodes[i].end)
		if string(d.str(i)) == name {
			return value
		}
		i = int(d.nodes[value].end)
	}
	return -1
}

// present is get for a property that is not null.
func (d *document) present(at int, name string) int {
	if at = d.get(at, name); at >= 0 && d.nodes[at].kind == null {
		return -1
	}
	return at
}

// index returns the place of element n of an array, of value n of an object, or
// with keys of key n. n is in bounds.
func (d *document) index(at, n int, keys bool) int {
	d.steps += uint64(n)
	i := at + 1
	for ; n > 0; n-- {
		i = int(d.nodes[i].end)
		if d.nodes[at].kind == object {
			i = int(d.nodes[i].end)
		}
	}
	if d.nodes[at].kind == object && !keys {
		i = int(d.nodes[i].end)
	}
	return i
}

// elements calls fn for the elements of an array. It returns false when the value
// is none, or fn does.
func (d *document) elements(at int, fn func(at int) bool) bool {
	if at < 0 || d.nodes[at].kind != array {
		return false
	}
	for i := at + 1; i < int(d.nodes[at].end); i = int(d.nodes[i].end) {
		if !fn(i) {
			return false
		}
	}
	return true
}

// appendJSON writes the value as JSON without spaces.
func (d *document) appendJSON(b []byte, at int) []byte {
	v := d.nodes[at]
	switch v.kind {
	case null:
	case boolean:
		return strconv.AppendBool(b, v.n != 0)
	case number:
		return appendNumber(b, v.number)
	case text:
		return appendQuoted(b, d.str(at))
	case array, object:
		return d.appendJSONList(b, at)
	}
	return append(b, "null"...)
}

func (d *document) appendJSONList(b []byte, at int) []byte {
	v := d.nodes[at]
	brackets := "[]"
	if v.kind == object {
		brackets = "{}"
	}
	b = append(b, brackets[0])
	key := true
	for i := at + 1; i < int(v.end); i = int(d.nodes[i].end) {
		switch {
		case i == at+1:
		case v.kind == object && !key:
			b = append(b, ':')
		default:
			b = append(b, ',')
		}
		b = d.appendJSON(b, i)
		key = !key
	}
	return append(b, brackets[1])
}

// appendNumber writes a whole number without exponent or point.
func appendNumber(b []byte, v float64) []byte {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

const hexDigits = "0123456789abcdef"

func appendQuoted(b, s []byte) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// grow makes room for an evaluation's usual document at once.
func (d *document) grow() {
	d.nodes, d.text = slices.Grow(d.nodes, 256), slices.Grow(d.text, 4<<10)
}
