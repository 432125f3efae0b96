//go:build owncheck

package own

import (
	"bytes"
	"strings"
	"testing"
)

func TestDoublePutShowsBothStacks(t *testing.T) {
	p := newPool(t, 1, 0)
	o := mustGet(t, p)
	firstPut(p, o)
	text := mustPanic(t, "double Put", func() { secondPut(p, o) })
	for _, name := range []string{"own.firstPut", "own.secondPut"} {
		if !strings.Contains(text, name) {
			t.Errorf("no %s in:\n%s", name, text)
		}
	}
}

//go:noinline
func firstPut(p *Pool[order], o *order) { p.Put(o) }

//go:noinline
func secondPut(p *Pool[order], o *order) { p.Put(o) }

func TestReadAfterPutFindsPoison(t *testing.T) {
	p := newPool(t, 1, 0)
	o := mustGet(t, p)
	o.id, o.user, o.sum = 7, "u-7", [4]byte{1, 2, 3, 4}
	o.body = append(o.body, "an order"...)
	o.extra.quantity = 1
	kept := o.body
	p.Put(o)
	if o.id != 0xdbdbdbdbdbdbdbdb || o.user != poisonText || o.extra.quantity != 0xdbdbdbdb {
		t.Errorf("not poisoned: id %x, user %q, quantity %x", o.id, o.user, o.extra.quantity)
	}
	if !bytes.Equal(kept, bytes.Repeat([]byte{poisonByte}, len(kept))) || o.sum != [4]byte{poisonByte, poisonByte, poisonByte, poisonByte} {
		t.Errorf("not poisoned: body %q, sum %x", kept, o.sum)
	}
}

func TestWriteAfterPutIsFoundByTheNextGet(t *testing.T) {
	for name, write := range map[string]func(o *order, kept []byte){
		"number": func(o *order, _ []byte) { o.id = 1 },
		"text":   func(o *order, _ []byte) { o.user = "u-8" },
		"array":  func(o *order, _ []byte) { o.sum[1]++ },
		"nested": func(o *order, _ []byte) { o.extra.quantity = 3 },
		"buffer": func(_ *order, kept []byte) { kept[2] = 'x' },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, 1, 0)
			o := mustGet(t, p)
			o.body = append(o.body, "an order"...)
			kept := o.body
			firstPut(p, o)
			write(o, kept)
			text := mustPanic(t, "seat 0 was written to after its Put", func() { p.Get(ClassNew) })
			if !strings.Contains(text, "own.firstPut") {
				t.Errorf("the Put is not named in:\n%s", text)
			}
		})
	}
}
