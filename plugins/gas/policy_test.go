package gas_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

var arena = &gas.Arena{Bound: 4, Region: 1}

// command is a module of another kind than a rule: one function, `run`.
func command(code string) *gastest.Module {
	return &gastest.Module{
		Types:     []gastest.Type{{}, {Params: []byte{gastest.I32}}},
		Funcs:     []gastest.Func{{Code: code}},
		MemoryMin: 1,
		Exports:   []gastest.Export{{Name: "memory", Kind: 2}, {Name: "_start"}},
	}
}

func TestPolicies(t *testing.T) {
	with := func(change func(*gastest.Module)) []byte {
		m := command("nop")
		change(m)
		return m.Encode()
	}
	linked := &gas.Policy{Foreign: "owner", Linked: true, Arena: arena}
	trampolined := &gas.Policy{Foreign: "owner", Arena: arena}
	// A memory of "owner", before an own one.
	imported := section(2, append(append([]byte{1, 5}, "owner\x06memory"...), 2, 0, 1)...)
	function := slices.Concat(section(1, 1, 0x60, 0, 0), imported, section(3, 1, 0))
	body := func(code ...byte) []byte {
		return section(10, append([]byte{1, byte(len(code) + 2), 0}, append(code, 0x0b)...)...)
	}
	own, export := section(5, 1, 0, 1), section(7, append(append([]byte{2, 6}, "memory"...), append([]byte{2, 1, 6}, "_start\x00\x00"...)...)...)
	for name, c := range map[string]struct {
		policy *gas.Policy
		wasm   []byte
		want   string // "": accepted
	}{
		"a command":                    {&gas.Policy{Arena: arena}, with(func(*gastest.Module) {}), ""},
		"an import":                    {&gas.Policy{Arena: arena, Imports: map[[2]string]gas.Signature{{"a", "b"}: {}}}, with(func(m *gastest.Module) { m.Imports = []gastest.Import{{Module: "a", Name: "b"}} }), ""},
		"an import of another type":    {&gas.Policy{Arena: arena, Imports: map[[2]string]gas.Signature{{"a", "b"}: {Params: "\x7f"}}}, with(func(m *gastest.Module) { m.Imports = []gastest.Import{{Module: "a", Name: "b"}} }), "is func (i32) → ()"},
		"an import of a rule":          {&gas.Policy{Arena: arena}, with(func(m *gastest.Module) { m.Imports = []gastest.Import{{Module: "doorbuster", Name: "log"}} }), "is not offered"},
		"too much memory":              {&gas.Policy{Arena: arena}, with(func(m *gastest.Module) { m.MemoryMin = 5 }), "a memory of 5, at most 4"},
		"a foreign memory of nobody":   {&gas.Policy{Arena: arena}, raw(function, own, export, body()), "only functions can be imported"},
		"a memory of no name":          {&gas.Policy{Arena: arena}, raw(section(1, 1, 0x60, 0, 0), section(2, append([]byte{1, 0}, "\x06memory\x02\x00\x01"...)...), section(3, 1, 0), own, export, body()), "only functions can be imported"},
		"a foreign memory":             {trampolined, raw(function, own, export, body(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 10, 0, 1)), ""},
		"a third memory":               {trampolined, raw(function, own, export, body(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 10, 0, 2)), "memory 2 of 2"},
		"a store to a foreign memory":  {trampolined, raw(function, own, export, body(0x41, 0, 0x41, 0, 0x36, 0x42, 0, 0)), ""},
		"a foreign memory that grows":  {trampolined, raw(function, own, export, body(0x41, 0, 0x40, 0, 0x1a)), "the size of an imported memory"},
		"an export of the foreign one": {trampolined, raw(function, own, section(7, append(append([]byte{1, 6}, "memory"...), 2, 0)...), body()), "an imported memory cannot be exported"},
		"linked":                       {linked, raw(function, body(0x41, 0, 0x41, 0, 0x36, 2, 0)), ""},
		"linked, with an own memory":   {linked, raw(function, own, body()), "no memory, globals or tables of its own"},
		"linked, with a global":        {linked, raw(function, section(6, 1, 0x7f, 0, 0x41, 0, 0x0b), body()), "no memory, globals or tables of its own"},
		"linked to nobody":             {linked, raw(section(1, 1, 0x60, 0, 0), section(3, 1, 0), body()), `the memory of "owner" must be imported`},
	} {
		_, err := c.policy.Rewrite(c.wasm)
		var e *gas.Error
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &e) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestOutline(t *testing.T) {
	m := command("nop")
	m.Imports = []gastest.Import{{Module: "a", Name: "b", Type: 1}}
	m.Exports[1].Index = 1
	wasm := gas.AppendCustom(m.Encode(), "note", []byte("text"))
	o := gas.Read(wasm)
	if len(o.Imports) != 1 || o.Imports[0] != (gas.Import{Module: "a", Name: "b"}) || len(o.Exports) != 1 || o.Exports[0] != (gas.Export{Name: "_start"}) || string(o.Custom["note"]) != "text" {
		t.Errorf("%+v", o)
	}
	for n := range wasm {
		gas.Read(wasm[:n]) // never fails, whatever is missing
	}
}

func TestArenaRestores(t *testing.T) {
	memory := make([]byte, 6<<16)
	initial := []byte(strings.Repeat("initial", 1_000))
	copy(memory, initial)
	for _, at := range []uint32{0, 4095, 6_990, 1 << 16, arena.RegionAt(), arena.RegionEnd() - 8} {
		arena.Mark(memory, at, 8)
		copy(memory[at:], "12345678")
	}
	// What follows a store at a page's end reaches into the next, which has no mark.
	memory[3<<12+254] = 1
	arena.Mark(memory, 3<<12-1, 1)
	if n, allowed := arena.Marked(memory, 2); n != 6 || !allowed {
		t.Error(n, allowed)
	}
	if _, allowed := arena.Marked(memory, 1); allowed {
		t.Error("a page that the source does not have is marked")
	}
	if n := arena.Restore(memory, initial); n == 0 || n > 10*(4096+256) {
		t.Errorf("%d bytes were copied", n)
	}
	if string(memory[:len(initial)]) != string(initial) || slices.ContainsFunc(memory[len(initial):], func(b byte) bool { return b != 0 }) {
		t.Error("the memory is not what it was")
	}
	if arena.Restore(memory, initial) != 0 {
		t.Error("there are marks left")
	}
}

// TestRead: an outline takes no more memory than is in proportion to the module.
func TestRead(t *testing.T) {
	types := section(1, 2, 0x60, 0, 0, 0x60, 0, 0)
	hostile := raw(slices.Repeat(types, 10_000))
	for n := range 20_000 {
		hostile = gas.AppendCustom(hostile, fmt.Sprint(n), nil)
	}
	if n := len(gas.Read(hostile).Custom); n != gas.CustomMax {
		t.Errorf("%d custom sections", n)
	}
	gas.Read(raw(section(0, 2, 0xff, 0xfe))) // a name that is not UTF-8, up to the module's end
	before := testing.AllocsPerRun(5, func() { gas.Read(raw(types)) })
	if n := testing.AllocsPerRun(5, func() { gas.Read(raw(slices.Repeat(types, 10_000))) }); n > before+5 {
		t.Errorf("%v allocations for types that come again, %v without", n, before)
	}
	m := command("nop")
	m.Custom = map[string]string{"a": "b"}
	if o := gas.Read(gas.AppendCustom(m.Encode(), "a", []byte("c"))); len(o.Exports) != 1 || o.Exports[0].Name != "_start" || string(o.Custom["a"]) != "c" {
		t.Errorf("%+v", o)
	}
}
