package gateway

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	json "github.com/goccy/go-json"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sample"
)

// Bodies off the order path, in and out.

// readJSON decodes the request's body into v, a pointer to a struct whose
// fields all have a tag, or to a map.
func (c *call) readJSON(v any) error {
	body, err := c.body(isJSON, wantJSON, otherBodyMax)
	if err != nil {
		return err
	}
	return decodeBody(body, v)
}

// decodeBody is readJSON for a body that is here. The syntax is checked by the
// standard library first: a fast decoder may forgive what is not JSON.
func decodeBody(body []byte, v any) error {
	if len(body) == 0 {
		return refuse(invalidJSON, "the body is empty")
	}
	if !stdjson.Valid(body) || !utf8.Valid(body) {
		return refuse(invalidJSON, "the body is not JSON in UTF-8")
	}
	if hasHalfSurrogate(body) {
		return refuse(invalidJSON, halfOfPair)
	}
	if string(bytes.TrimSpace(body)) == "null" { // which a decoder takes for an object without fields
		return refuse(invalidRequest, wantObject)
	}
	names := stdjson.NewDecoder(bytes.NewReader(body))
	names.UseNumber()
	if err := checkNames(names, reflect.TypeOf(v), ""); err != nil {
		return err
	}
	return asBodyRefusal(json.Unmarshal(body, v))
}

// checkNames reads one value and refuses names that t does not have, and names
// that stand twice in an object. A decoder takes DEAL_ID for deal_id, and the
// last of two; whoever looked at the request before may have taken neither. It
// refuses what is no time as well: the decoder could not say in which field. And it refuses
// null in a map of texts, such as attributes: the decoder would take it for an empty one.
func checkNames(d *stdjson.Decoder, t reflect.Type, field string) error {
	token, err := d.Token()
	open, nested := token.(stdjson.Delim)
	isTimeField := t == reflect.TypeFor[optionalTime]() || t == reflect.TypeFor[sample.Instant]()
	if err == nil && isTimeField && !isTime(token) {
		return refuseField(invalidRequest, field, wantTime)
	}
	if err == nil && token == nil && t == namedText {
		return refuseField(invalidRequest, field, wantKind(field, t))
	}
	if err != nil || !nested {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		name := ""
		if open == '{' {
			if token, err = d.Token(); err != nil {
				return err
			}
			name = token.(string)
			if seen[name] {
				return refuseField(invalidRequest, name, notTwice)
			}
			seen[name] = true
		}
		inner, known := within(t, name)
		if open == '{' && !known {
			return refuseField(unknownField, name, "is not a field of this request")
		}
		if err := checkNames(d, inner, joinField(field, name)); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// hasHalfSurrogate says whether valid JSON has an escape sequence that is half of a pair
// of surrogates. A decoder would put U+FFFD in its place, and make one name of two.
func hasHalfSurrogate(body []byte) bool {
	for {
		at := bytes.IndexByte(body, '\\')
		if at < 0 {
			return false
		}
		body = body[at:]
		first, is := escaped(body)
		if !is {
			body = body[2:] // what is escaped may be a backslash
			continue
		}
		body = body[6:]
		if utf16.IsSurrogate(first) {
			if second, is := escaped(body); !is || utf16.DecodeRune(first, second) == utf8.RuneError {
				return true
			}
			body = body[6:]
		}
	}
}

// escaped reads the \u sequence that b begins with, if it does.
func escaped(b []byte) (r rune, is bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}

// joinField names a field of a field; what stands in a list has the list's name.
func joinField(outer, name string) string {
	if outer == "" || name == "" {
		return outer + name
	}
	return outer + "." + name
}

// within returns the type of what stands in a t under a name, nil if that is
// for the decoder to refuse. A struct knows the names of its tags, and no other.
func within(t reflect.Type, name string) (inner reflect.Type, known bool) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return nil, true
	case t.Kind() == reflect.Struct:
		for field := range t.Fields() {
			if field.Tag.Get("json") == name {
				return field.Type, true
			}
			if field.Anonymous {
				if inner, known := within(field.Type, name); known {
					return inner, true
				}
			}
		}
		return nil, false
	case t == reflect.TypeFor[map[string]string]():
		return namedText, true
	case t.Kind() == reflect.Map, t.Kind() == reflect.Slice:
		return t.Elem(), true
	}
	return nil, true
}

// namedText stands for a text in a map, which null is not.
var namedText = reflect.TypeFor[text]()

type text string

// readOptionalJSON is readJSON for a body that may be left out.
func (c *call) readOptionalJSON(v any) error {
	if c.ctx.Request.Header.ContentLength() <= 0 {
		return nil
	}
	return c.readJSON(v)
}

// readNothing takes a request that says all in its path: without a body, or with an
// object that has no fields.
func (c *call) readNothing() error { return c.readOptionalJSON(&struct{}{}) }

// body reads a body of the right type, at most limit bytes.
func (c *call) body(accepts func([]byte) bool, want string, limit int) ([]byte, error) {
	if n := c.ctx.Request.Header.ContentLength(); n > 0 && !accepts(c.ctx.Request.Header.ContentType()) {
		return nil, refuse(unsupportedMediaType, want)
	}
	body, p := appendBody(nil, c.ctx, limit)
	if p != noProblem {
		return nil, &refusal{problem: p}
	}
	return body, nil
}

// asBodyRefusal names the field that a decoder did not like.
func asBodyRefusal(err error) error {
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		field := wrongType.Field
		if field == "" {
			return refuse(invalidRequest, wantObject)
		}
		return refuseField(invalidRequest, field, wantKind(field, wrongType.Type))
	}
	var no *refusal
	if errors.As(err, &no) {
		return no
	}
	return refuse(invalidRequest, err.Error())
}

const halfOfPair = "an escape sequence is half of a surrogate pair"

const wantObject = "the body must be an object"

// wantKind says what a field must be.
func wantKind(field string, t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "must be a text"
	case reflect.Bool:
		return "must be true or false"
	case reflect.Slice:
		return "must be a list"
	case reflect.Struct, reflect.Map:
		return "must be an object"
	default:
	}
	if strings.HasSuffix(field, "unit_price") {
		return "must be an integer in minor units: 9900 for 99.00"
	}
	return "must be an integer"
}

// reply answers with v as JSON.
func (c *call) reply(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a reply: %w", err)
	}
	c.replyBytes(status, body)
	return nil
}

// replyBytes answers with JSON that is encoded already.
func (c *call) replyBytes(status int, body []byte) {
	c.ctx.SetStatusCode(status)
	c.ctx.Response.Header.SetContentTypeBytes(jsonMediaType)
	c.ctx.Response.SetBodyRaw(body)
}

// instant is a time in a body: RFC 3339 outside, Unix ms inside.
type instant int64

// MarshalJSON implements json.Marshaler.
func (t instant) MarshalJSON() ([]byte, error) { return appendTime(nil, int64(t)), nil }

// optionalTime is a time in a request's body that may be absent or null.
type optionalTime struct {
	given bool
	ms    int64 // 0 = null
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *optionalTime) UnmarshalJSON(b []byte) error {
	t.given = true
	if string(b) == "null" {
		t.ms = 0
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	parsed, err := time.Parse(time.RFC3339, text)
	t.ms = parsed.UnixMilli()
	return err
}

// isTime says whether a token is one that an optionalTime can hold.
func isTime(token stdjson.Token) bool {
	if token == nil {
		return true
	}
	text, ok := token.(string)
	if !ok {
		return false
	}
	parsed, err := time.Parse(time.RFC3339, text)
	return err == nil && parsed.UnixMilli() > 0
}

const wantTime = "must be a time in RFC 3339, later than 1970, like 2026-11-22T00:00:00.000Z"

// sortedKVs returns the attributes of a body in the order of their names, so
// that the same body always makes the same record.
func sortedKVs(m map[string]string) []abi.KV {
	list := make([]abi.KV, 0, len(m))
	for k, v := range m {
		list = append(list, abi.KV{Key: []byte(k), Value: []byte(v)})
	}
	slices.SortFunc(list, func(a, b abi.KV) int { return bytes.Compare(a.Key, b.Key) })
	return list
}

// kvMap is the other way round.
func kvMap(list []abi.KV) map[string]string {
	m := make(map[string]string, len(list))
	for _, kv := range list {
		m[string(kv.Key)] = string(kv.Value)
	}
	return m
}
