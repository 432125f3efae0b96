package gateway

import (
	"bytes"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// The order decoder reads a body once, from left to right, and allocates
// nothing: texts are unescaped where they stand, and the command's slices
// point into the body. It is stricter than a general decoder where leniency
// could turn one order into another: names must match exactly, a name may
// stand only once, numbers must be whole, texts must be UTF-8.
//
//	{"deal_id":…,"user_id":…,"quantity":…,"codes":[…],"group":{…},"attributes":{…}}
//
// An unknown field ends the reading at its name, so nothing nests deeper than
// these fields do.

// order is what a body says.
type order struct {
	deal []byte // required
	user []byte // nil = absent
	join []byte // the group to join, nil = none
	cmd  *deal.Command
}

// orderFault is why a request was refused, without allocating: a problem, the
// field at fault, if any, and static words. The zero value means that it is good.
type orderFault struct {
	problem problem
	field   []byte // part of the body, or static
	message string
}

// decodeOrder fills o.cmd with what body asks for. It writes to body.
func decodeOrder(body []byte, o *order) orderFault {
	d := decoder{b: body}
	d.order(o)
	return d.fault
}

// decoder reads b from i on. After the first fault it reads nothing more.
type decoder struct {
	b     []byte
	i     int
	fault orderFault
}

func (d *decoder) bad(message string) {
	if d.fault.problem == noProblem {
		d.fault = orderFault{problem: invalidJSON, message: message}
	}
}

func (d *decoder) refuse(p problem, field []byte, message string) {
	if d.fault.problem == noProblem {
		d.fault = orderFault{p, field, message}
	}
}

func (d *decoder) ok() bool { return d.fault.problem == noProblem }

// Bits of the fields that were seen.
const (
	seenDeal = 1 << iota
	seenUser
	seenQuantity
	seenCodes
	seenGroup
	seenAttributes
	seenOpen
	seenJoin
)

var (
	fieldDeal       = []byte("deal_id")
	fieldUser       = []byte("user_id")
	fieldQuantity   = []byte("quantity")
	fieldCodes      = []byte("codes")
	fieldGroup      = []byte("group")
	fieldAttributes = []byte("attributes")
	fieldJoin       = []byte("group.join")
)

const (
	wantID         = "must be 1 to 64 of A-Z a-z 0-9 _ -"
	wantQuantity   = "must be a whole number from 1 to 1000000"
	wantNumber     = "must be a number, without quotes: a whole one from 1 to 1000000"
	wantCode       = "must be a list of at most 16 texts of 1 to 256 bytes"
	wantAttributes = "must be an object of at most 32 texts; names are 1 to 256 bytes, values at most 256"
	wantGroup      = `must be {"open":true} or {"join":"<group_id>"}`
	notTwice       = "must not be given twice"
)

func (d *decoder) order(o *order) {
	var seen uint
	d.object(func(name []byte) {
		switch string(name) {
		case "deal_id":
			d.once(&seen, seenDeal, name)
			o.deal = d.id(fieldDeal)
		case "user_id":
			d.once(&seen, seenUser, name)
			if !d.null() {
				o.user = d.id(fieldUser)
			}
		case "quantity":
			d.once(&seen, seenQuantity, name)
			o.cmd.Quantity = d.quantity()
		case "codes":
			d.once(&seen, seenCodes, name)
			if !d.null() {
				d.codes(o.cmd)
			}
		case "group":
			d.once(&seen, seenGroup, name)
			if !d.null() {
				d.group(o)
			}
		case "attributes":
			d.once(&seen, seenAttributes, name)
			if !d.null() {
				d.attributes(o.cmd)
			}
		default:
			d.refuse(unknownField, name, "is not a field of an order")
		}
	})
	if d.space(); d.i != len(d.b) {
		d.bad("there is something after the object")
	}
	if seen&seenDeal == 0 {
		d.refuse(invalidRequest, fieldDeal, "is required")
	}
	if seen&seenQuantity == 0 {
		d.refuse(invalidRequest, fieldQuantity, "is required")
	}
}

// object reads an object and calls field after each name, to read the value.
func (d *decoder) object(field func(name []byte)) {
	d.space()
	if !d.take('{') {
		d.other(nil, wantObject)
		return
	}
	if d.space(); d.take('}') {
		return
	}
	for d.ok() {
		d.space()
		name := d.text()
		d.space()
		if d.ok() && !d.take(':') {
			d.bad("a name must be followed by a colon")
		}
		if !d.ok() {
			return
		}
		d.space()
		field(name)
		if d.space(); d.take('}') {
			return
		}
		if !d.take(',') {
			d.bad("a field must be followed by a comma or the object's end")
		}
	}
}

func (d *decoder) once(seen *uint, bit uint, name []byte) {
	if *seen&bit != 0 {
		d.refuse(invalidRequest, name, notTwice)
	}
	*seen |= bit
}

func (d *decoder) id(field []byte) []byte {
	id := d.textOf(field, wantID)
	if d.ok() && !deal.ValidID(id) {
		d.refuse(invalidRequest, field, wantID)
	}
	return id
}

func (d *decoder) codes(c *deal.Command) {
	if !d.take('[') {
		d.other(fieldCodes, wantCode)
		return
	}
	if d.space(); d.take(']') {
		return
	}
	for d.ok() {
		d.space()
		code := d.textOf(fieldCodes, wantCode)
		if d.ok() && (len(code) == 0 || len(code) > deal.MaxTextLen || len(c.Codes) == deal.MaxCodes) {
			d.refuse(invalidRequest, fieldCodes, wantCode)
		}
		c.Codes = append(c.Codes, code)
		if d.space(); d.take(']') {
			return
		}
		if !d.take(',') {
			d.bad("an entry must be followed by a comma or the list's end")
		}
	}
}

// attributes puts them in the order of their names: an object has no order of
// its own, and what the order means must not depend on one.
func (d *decoder) attributes(c *deal.Command) {
	if !d.at('{') {
		d.other(fieldAttributes, wantAttributes)
		return
	}
	d.object(func(name []byte) {
		value := d.textOf(fieldAttributes, wantAttributes)
		if !d.ok() {
			return
		}
		if len(name) == 0 || len(name) > deal.MaxTextLen || len(value) > deal.MaxTextLen || len(c.Attributes) == deal.MaxAttributes {
			d.refuse(invalidRequest, fieldAttributes, wantAttributes)
		}
		at, taken := slices.BinarySearchFunc(c.Attributes, name, func(kv abi.KV, name []byte) int { return bytes.Compare(kv.Key, name) })
		if taken {
			d.refuse(invalidRequest, fieldAttributes, notTwice)
		}
		c.Attributes = slices.Insert(c.Attributes, at, abi.KV{Key: name, Value: value})
	})
}

func (d *decoder) group(o *order) {
	if !d.at('{') {
		d.other(fieldGroup, wantGroup)
		return
	}
	var seen uint
	d.object(func(name []byte) {
		switch string(name) {
		case "open":
			d.once(&seen, seenOpen, name)
			if !d.literal("true") {
				d.other(fieldGroup, wantGroup)
			}
			o.cmd.GroupMode = deal.OpenGroup
		case "join":
			d.once(&seen, seenJoin, name)
			o.join = d.textOf(fieldJoin, wantGroup)
			o.cmd.GroupMode = deal.JoinGroup
		default:
			d.refuse(unknownField, name, "is not a field of an order's group")
		}
	})
	if seen != seenOpen && seen != seenJoin {
		d.refuse(invalidRequest, fieldGroup, wantGroup)
	}
}

// quantity reads a number. What is a number but cannot be a quantity is
// refused as a quantity; anything else is a request of the wrong shape.
func (d *decoder) quantity() int64 {
	negative := d.take('-')
	digits := d.digits()
	if digits == 0 {
		if negative {
			d.bad("a number must have digits")
		}
		d.other(fieldQuantity, wantNumber)
		return 0
	}
	first := d.i - digits
	if digits > 1 && d.b[first] == '0' {
		d.bad("a number must not begin with 0")
	}
	whole := true
	if d.take('.') {
		whole = false
		if d.digits() == 0 {
			d.bad("a number must not end in a point")
		}
	}
	if d.take('e') || d.take('E') {
		whole = false
		if !d.take('+') {
			d.take('-')
		}
		if d.digits() == 0 {
			d.bad("a number's exponent is missing")
		}
	}
	if !whole || digits > len("1000000") {
		d.refuse(quantityInvalid, fieldQuantity, wantQuantity)
		return 0
	}
	var n int64
	for _, c := range d.b[first:][:digits] {
		n = n*10 + int64(c-'0')
	}
	if negative || n < 1 || n > deal.MaxQuantity {
		d.refuse(quantityInvalid, fieldQuantity, wantQuantity)
	}
	return n
}

func (d *decoder) digits() int {
	from := d.i
	for d.i < len(d.b) && d.b[d.i]-'0' <= 9 {
		d.i++
	}
	return d.i - from
}

// textOf reads a value that must be a text.
func (d *decoder) textOf(field []byte, want string) []byte {
	if !d.at('"') {
		d.other(field, want)
		return nil
	}
	return d.text()
}

// other refuses a value that is not of the wanted type: as JSON if no value
// can begin like this, as a request otherwise.
func (d *decoder) other(field []byte, want string) {
	switch {
	case d.i == len(d.b):
		d.bad("the body ends too early")
	case d.at('"'), d.at('{'), d.at('['), d.at('-'), d.b[d.i]-'0' <= 9, d.literal("true"), d.literal("false"), d.literal("null"):
		d.refuse(invalidRequest, field, want)
	default:
		d.bad("a value is not one of JSON's")
	}
}

func (d *decoder) null() bool { return d.literal("null") }

func (d *decoder) literal(word string) bool {
	if len(d.b)-d.i < len(word) || string(d.b[d.i:d.i+len(word)]) != word {
		return false
	}
	d.i += len(word)
	return true
}

func (d *decoder) at(c byte) bool { return d.i < len(d.b) && d.b[d.i] == c }

func (d *decoder) take(c byte) bool {
	if !d.at(c) {
		return false
	}
	d.i++
	return true
}

func (d *decoder) space() {
	for d.i < len(d.b) && (d.b[d.i] == ' ' || d.b[d.i] == '\n' || d.b[d.i] == '\r' || d.b[d.i] == '\t') {
		d.i++
	}
}

// text reads a text, quotes included, and unescapes it where it stands: what
// it means is never longer than how it is written.
func (d *decoder) text() []byte {
	if !d.take('"') {
		d.bad("a text must begin with a double quote")
		return nil
	}
	from, to := d.i, d.i
	ascii := true
	for d.i < len(d.b) {
		c := d.b[d.i]
		switch {
		case c == '"':
			d.i++
			text := d.b[from:to:to]
			if !ascii && !utf8.Valid(text) {
				d.bad("a text is not UTF-8")
			}
			return text
		case c == '\\':
			ascii = false
			to += d.escape(d.b[to:])
			if !d.ok() {
				return nil
			}
		case c < ' ':
			d.bad("a text must not hold control characters")
			return nil
		default:
			ascii = ascii && c < utf8.RuneSelf
			d.b[to] = c
			to++
			d.i++
		}
	}
	d.bad("the body ends within a text")
	return nil
}

// escape reads one escape sequence, writes what it means to dst, and returns
// the number of bytes written.
func (d *decoder) escape(dst []byte) int {
	if len(d.b)-d.i < 2 {
		d.bad("the body ends within a text")
		return 0
	}
	c := d.b[d.i+1]
	if c == 'u' {
		r := d.unicode()
		if !d.ok() {
			return 0
		}
		return utf8.EncodeRune(dst, r)
	}
	plain := unescaped[c]
	if plain == 0 {
		d.bad("an escape sequence is not one of JSON's")
		return 0
	}
	d.i += 2
	dst[0] = plain
	return 1
}

var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unicode reads \uXXXX, or the two of a surrogate pair.
func (d *decoder) unicode() rune {
	r := d.hex4()
	if r < surrogateMin || r > surrogateMax {
		return r
	}
	low := rune(math.MaxInt32)
	if r < surrogateLow && d.at('\\') {
		low = d.hex4()
	}
	if low < surrogateLow || low > surrogateMax {
		d.bad(halfOfPair)
		return 0
	}
	return (r-surrogateMin)<<10 | (low - surrogateLow) + 0x10000
}

// UTF-16 writes a rune beyond 16 bits as one code unit from surrogateMin on
// and one from surrogateLow on.
const (
	surrogateMin = 0xd800
	surrogateLow = 0xdc00
	surrogateMax = 0xdfff
)

func (d *decoder) hex4() rune {
	if len(d.b)-d.i < 6 || d.b[d.i+1] != 'u' {
		d.bad("an escape sequence is cut short")
		return 0
	}
	var r rune
	for _, c := range d.b[d.i+2 : d.i+6] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			d.bad("an escape sequence holds no hexadecimal number")
			return 0
		}
		r = r<<4 | rune(c)
	}
	d.i += 6
	return r
}
