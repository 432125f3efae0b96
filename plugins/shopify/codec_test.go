package shopify

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

func TestCodecs(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `[]`, `{}`, `""`, `[1,-1,127,128,-33,-129,40000,-40000,3000000000,-3000000000,9007199254740991]`,
		`[0.5,-0.25,1e+300]`, `{"a":[{"b":null},"` + strings.Repeat("x", 300) + `"],"折":"\"\\\u0001"}`,
		`[` + strings.Repeat("0,", 70_000/2) + `0]`, `{"` + strings.Repeat("k", 70_000) + `":[[[[]]]]}`,
	} {
		var d, again document
		if err := d.readJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := string(d.appendJSON(nil, 0)); got != text {
			t.Errorf("JSON %.80s, want %.80s", got, text)
		}
		if err := again.readMessagePack(d.appendMessagePack(nil, 0)); err != nil || !reflect.DeepEqual(again.nodes, d.nodes) || !bytes.Equal(again.text, d.text) {
			t.Errorf("%.80s: not the same through MessagePack, %v", text, err)
		}
	}
}

func TestBadTexts(t *testing.T) {
	for _, text := range []string{"", "{", "[1,]", `{"a"}`, `{1:2}`, `"\x"`, `"\u12"`, "01", "1.", "-", "1e", "tru", `"a`, "[] []", strings.Repeat("[", 100), "\"\x01\"", "1e999"} {
		var d document
		if d.readJSON([]byte(text)) == nil {
			t.Errorf("%q is JSON", text)
		}
	}
	for _, text := range []string{"", "\xc1", "\x92\x01", "\x81\x01\x01", "\xa5abc", "\xdd\xff\xff\xff\xff", "\xcb\x00", "\x01\x01", strings.Repeat("\x91", 100) + "\xc0"} {
		var d document
		if d.readMessagePack([]byte(text)) == nil {
			t.Errorf("%q is MessagePack", text)
		}
	}
}

// FuzzJSON: what this package reads as JSON is what encoding/json reads.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{`{"a":[1,2.5,"\ud83d\ude00",null]}`, `"\ud800x"`, "\"\xff\"", ` [ true , false ] `} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d document
		if d.readJSON(text) != nil {
			return // stricter in nesting and numbers, never in what it takes
		}
		var want, got any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if err := json.Unmarshal(d.appendJSON(nil, 0), &got); err != nil {
			t.Fatalf("%q written: %v", text, err)
		}
		if !hasTwins(&d) && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %v, want %v", text, got, want)
		}
	})
}

// hasTwins says whether an object has a key twice: readers differ there.
func hasTwins(d *document) bool {
	for at := range d.nodes {
		if d.nodes[at].kind != object {
			continue
		}
		keys := map[string]bool{}
		for n := range int(d.nodes[at].n) {
			keys[string(d.str(d.index(at, n, true)))] = true
		}
		if len(keys) != int(d.nodes[at].n) {
			return true
		}
	}
	return false
}

// FuzzAnswer: no answer makes a wrong price, in either encoding.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(operations(product("ALL", percent("10", onLine)+","+fixed("1.5", "true", onLine)))), int64(1999))
	f.Add([]byte(operations(orderDiscount("MAXIMUM", percent("10", onOrder+`,"conditions":[{"orderMinimumSubtotal":{"minimumAmount":1}}]`)))), int64(1))
	f.Add([]byte(`{"discounts":[{"targets":[],"value":{"percentage":{"value":"5"}}}],"discountApplicationStrategy":"FIRST"}`), int64(1e12))
	f.Add([]byte("\x81\xaaoperations\x90"), int64(0))
	f.Fuzz(func(t *testing.T, answer []byte, unitPrice int64) {
		if unitPrice < 0 || unitPrice > 1e12 {
			return
		}
		var d document
		if d.readJSON(answer) != nil && d.readMessagePack(answer) != nil {
			return
		}
		in := &abi.Input{UnitPrice: unitPrice, Quantity: 7, Subtotal: 7 * unitPrice, DiscountSoFar: unitPrice, Currency: code("CNY")}
		p := pricing{d: &d, in: in, line: []byte(lineID), variant: []byte("v"), exponent: 2}
		out, err := p.price()
		if out.Discount < 0 || out.Discount > in.Subtotal-in.DiscountSoFar || len(out.Label) > abi.LabelBytesMax || err != nil && out.Discount != 0 {
			t.Fatalf("%+v, %v", out, err)
		}
	})
}

func TestBoxes(t *testing.T) {
	var d document
	if err := d.readJSON([]byte(`{"s":"` + strings.Repeat("x", 20_000) + `","a":[1,true,null],"n":-0.5}`)); err != nil {
		t.Fatal(err)
	}
	root := d.box(0)
	tag, _ := unbox(root)
	if tag != tagObject || root>>boxLenShift&boxLenMax != 3 || d.length(root) != 3 {
		t.Errorf("%x", root)
	}
	s := d.property(root, []byte("s"))
	if tag, _ := unbox(s); tag != tagText || s>>boxLenShift&boxLenMax != boxLenMax || d.length(s) != 20_000 {
		t.Errorf("a long text is %x", s)
	}
	list := d.property(root, []byte("a"))
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"number", d.property(root, []byte("n")), math.Float64bits(-0.5)},
		{"missing", d.property(root, []byte("x")), 0x7ffc_0000_0000_0000},
		{"element", d.element(list, 0, false), math.Float64bits(1)},
		{"true", d.element(list, 1, false), 0x7ffc_4000_0000_0001},
		{"null", d.element(list, 2, false), 0x7ffc_0000_0000_0000},
		{"out of range", d.element(list, 3, false), 0x7fff_c000_0000_0005},
		{"value of an object", d.element(root, 2, false), math.Float64bits(-0.5)},
		{"key of a list", d.element(list, 0, true), 0x7fff_c000_0000_0001},
		{"element of a text", d.element(s, 0, false), 0x7fff_c000_0000_0006},
		{"property of a number", d.property(math.Float64bits(1), []byte("a")), 0x7fff_c000_0000_0001},
		{"property of no value", d.property(box(7, 0, 1), []byte("a")), 0x7fff_c000_0000_0000},
		{"a place that is none", d.property(box(tagObject, 0, 99), []byte("a")), 0x7fff_c000_0000_0003},
		{"a place of something else", d.property(box(tagObject, 0, 2), []byte("a")), 0x7fff_c000_0000_0001},
	} {
		if c.got != c.want {
			t.Errorf("%s: %x, want %x", c.name, c.got, c.want)
		}
	}
	if key := d.element(root, 1, true); d.length(key) != 1 {
		t.Errorf("a key is %x", key)
	}
	if d.length(math.Float64bits(1)) != math.MaxUint32 || d.length(box(tagNull, 0, 0)) != math.MaxUint32 {
		t.Error("a length of what has none")
	}
}

// TestWriter follows the results that the API promises.
func TestWriter(t *testing.T) {
	var w writer
	for n, c := range []struct{ got, want uint32 }{
		{w.finish(array), writeNotAnArray},
		{w.begin(object, 2), writeOK},
		{w.scalar(false, 1), writeExpectedKey},
		{w.scalar(true, 1), writeOK},
		{w.scalar(false, 1), writeOK},
		{w.finish(object), writeObjectLength},
		{w.finish(array), writeNotAnArray},
		{w.scalar(true, 1), writeOK},
		{w.begin(array, 1), writeOK},
		{w.finish(object), writeNotAnObject},
		{w.finish(array), writeArrayLength},
		{w.scalar(true, 1), writeOK},
		{w.scalar(true, 1), writeArrayLength},
		{w.finish(array), writeOK},
		{w.scalar(true, 1), writeObjectLength},
		{w.finish(object), writeOK},
		{w.scalar(false, 1), writeAlreadyWritten},
		{w.begin(object, 0), writeAlreadyWritten},
	} {
		if c.got != c.want {
			t.Errorf("call %d: %d, want %d", n, c.got, c.want)
		}
	}
	if !w.done {
		t.Error("not done")
	}
}
