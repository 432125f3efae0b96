package shopify

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

var (
	errNotJSON        = errors.New("not JSON")
	errNotMessagePack = errors.New("not MessagePack")
)

// jsonReader reads one JSON text (RFC 8259) into a document.
type jsonReader struct {
	d   *document
	b   []byte
	pos int
}

// readJSON makes the document the value of a JSON text.
func (d *document) readJSON(b []byte) error {
	d.reset()
	r := jsonReader{d: d, b: b}
	if !r.value(0) || r.next() != 0 || r.pos != len(b) {
		return fmt.Errorf("%w at byte %d of %d", errNotJSON, r.pos, len(b))
	}
	return nil
}

// next skips spaces and returns the byte behind them, 0 at the end.
func (r *jsonReader) next() byte {
	for ; r.pos < len(r.b); r.pos++ {
		switch c := r.b[r.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (r *jsonReader) value(depth int) bool {
	if depth > nestingMax || len(r.d.nodes) >= nodesMax {
		return false
	}
	switch c := r.next(); {
	case c == '{' || c == '[':
		return r.list(c, depth)
	case c == '"':
		return r.string()
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	}
	switch {
	case r.word("null"):
		r.d.null()
	case r.word("true"):
		r.d.bool(true)
	case r.word("false"):
		r.d.bool(false)
	default:
		return false
	}
	return true
}

func (r *jsonReader) word(w string) bool {
	if len(r.b)-r.pos < len(w) || string(r.b[r.pos:r.pos+len(w)]) != w {
		return false
	}
	r.pos += len(w)
	return true
}

func (r *jsonReader) list(opening byte, depth int) bool {
	k, closing := array, byte(']')
	if opening == '{' {
		k, closing = object, '}'
	}
	at := r.d.open(k)
	r.pos++
	if r.next() == closing {
		r.pos++
		r.d.close(at)
		return true
	}
	for {
		if k == object && (r.next() != '"' || !r.string() || r.next() != ':' || !r.word(":")) || !r.value(depth+1) {
			return false
		}
		switch r.next() {
		case ',':
			r.pos++
		case closing:
			r.pos++
			r.d.close(at)
			return true
		default:
			return false
		}
	}
}

func (r *jsonReader) number() bool {
	from := r.pos
	digits := func() bool {
		first := r.pos
		for r.pos < len(r.b) && r.b[r.pos] >= '0' && r.b[r.pos] <= '9' {
			r.pos++
		}
		return r.pos > first
	}
	r.word("-")
	if !r.word("0") && !digits() || r.word(".") && !digits() {
		return false
	}
	if r.word("e") || r.word("E") {
		if !r.word("+") {
			r.word("-")
		}
		if !digits() {
			return false
		}
	}
	v, err := strconv.ParseFloat(string(r.b[from:r.pos]), 64)
	if err != nil {
		return false // out of range
	}
	r.d.number(v)
	return true
}

// string reads a string. The text stays as it is but for its escapes; what is not
// UTF-8 becomes the replacement character, as in every JSON reader of Shopify's.
func (r *jsonReader) string() bool {
	r.pos++
	at := len(r.d.text)
	for r.pos < len(r.b) {
		switch c := r.b[r.pos]; {
		case c == '"':
			r.pos++
			r.d.add(node{kind: text, n: uint32(len(r.d.text) - at), at: uint32(at)})
			return true
		case c == '\\':
			if !r.escape() {
				return false
			}
		case c < 0x20:
			return false
		case c < utf8.RuneSelf:
			r.d.text = append(r.d.text, c)
			r.pos++
		default:
			v, n := utf8.DecodeRune(r.b[r.pos:])
			r.d.text = utf8.AppendRune(r.d.text, v)
			r.pos += n
		}
	}
	return false
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (r *jsonReader) escape() bool {
	if r.pos+1 >= len(r.b) {
		return false
	}
	if c, ok := escapes[r.b[r.pos+1]]; ok {
		r.d.text = append(r.d.text, c)
		r.pos += 2
		return true
	}
	v, ok := r.unicode()
	if !ok {
		return false
	}
	if utf16.IsSurrogate(v) {
		before := r.pos
		low, ok := r.unicode()
		if v = utf16.DecodeRune(v, low); !ok || v == utf8.RuneError {
			r.pos = before
		}
	}
	r.d.text = utf8.AppendRune(r.d.text, v)
	return true
}

// unicode reads \uXXXX.
func (r *jsonReader) unicode() (rune, bool) {
	if len(r.b)-r.pos < 6 || r.b[r.pos] != '\\' || r.b[r.pos+1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(r.b[r.pos+2:r.pos+6]), 16, 16)
	if err != nil {
		return 0, false
	}
	r.pos += 6
	return rune(v), true
}

// finite says whether a number can be written in JSON.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
