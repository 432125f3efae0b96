package gas_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// faults rewrites a module and returns what is wrong with it.
func faults(wasm []byte) []gas.Fault {
	_, err := gas.Rewrite(wasm)
	var e *gas.Error
	if errors.As(err, &e) {
		return e.Faults
	}
	return nil
}

const header = "\x00asm\x01\x00\x00\x00"

// raw is a module of hand-made sections.
func raw(sections ...[]byte) []byte { return append([]byte(header), slices.Concat(sections...)...) }

// section is a section with hand-made content.
func section(id byte, content ...byte) []byte { return gastest.Section(id, content) }

// with returns a module after a change to a good one.
func with(change func(*gastest.Module)) []byte {
	m := gastest.Rule(gastest.Result)
	change(m)
	return m.Encode()
}

// code returns a module whose rule_evaluate is the given code, with a table, a
// mutable and an immutable global and two data segments, the second passive.
func code(text string) []byte {
	return with(func(m *gastest.Module) {
		m.TableMin, m.Elems = 2, []int{0, 1}
		m.Globals = []gastest.Global{{Type: gastest.I32, Mutable: true, Init: "i32.const 0"}, {Type: gastest.I32, Init: "i32.const 0"}}
		m.Data = []gastest.Data{{At: 0, Bytes: "abc"}, {At: -1, Bytes: "def"}}
		m.Funcs[gastest.FuncEvaluate].Code = text
	})
}

// TestRefused: each module breaks one rule, and the fault says which.
func TestRefused(t *testing.T) {
	blocks := strings.Repeat("block void ", gas.NestingMax+1)
	for name, c := range map[string]struct {
		wasm []byte
		want string
	}{
		"empty":             {nil, "not a core WebAssembly module"},
		"component":         {[]byte("\x00asm\x0d\x00\x01\x00"), "not a core WebAssembly module"},
		"too large":         {make([]byte, gas.ModuleBytesMax+1), "at most 4194304"},
		"cut":               {gastest.Rule(gastest.Result).Encode()[:40], "where"},
		"unknown section":   {raw(section(13, 0)), "unknown section 13"},
		"section order":     {raw(section(3, 0), section(1, 0)), "out of order"},
		"section twice":     {raw(section(1, 0), section(1, 0)), "out of order or there twice"},
		"left over":         {raw(section(1, 0, 0)), "left over"},
		"false count":       {raw(section(1, 0xff, 0xff, 0xff, 0xff, 0x0f)), "do not fit"},
		"long integer":      {raw(section(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0)), "malformed integer"},
		"large integer":     {raw(section(1, 0xff, 0xff, 0xff, 0xff, 0x1f)), "malformed integer"},
		"struct type":       {raw(section(1, 1, 0x5f, 0, 0)), "no function type"},
		"value type":        {raw(section(1, 1, 0x60, 1, 0x6e, 0)), "unknown value type 0x6e"},
		"custom name":       {raw(section(0, 1, 0xff)), "not UTF-8"},
		"custom without":    {raw(section(0)), "unexpected end"},
		"unknown import":    {with(func(m *gastest.Module) { m.WithImport("env", "now", 0) }), `"env"."now" is not offered`},
		"import type":       {with(func(m *gastest.Module) { m.WithImport("doorbuster", "log", 0) }), "is func (i32 i32) → ()"},
		"import no type":    {with(func(m *gastest.Module) { m.WithImport("doorbuster", "log", 99) }), "type 99 of 5"},
		"imported memory":   {raw(section(2, 1, 1, 'e', 1, 'm', 2, 0, 1)), "only functions can be imported"},
		"function type":     {with(func(m *gastest.Module) { m.Funcs[0].Type = 9 }), "type 9 of 5"},
		"table too large":   {with(func(m *gastest.Module) { m.TableMin = 1 << 17 }), "a table of 131072"},
		"table limits":      {with(func(m *gastest.Module) { m.TableMin, m.TableMax = 9, 8 }), "below its minimum"},
		"table type":        {raw(section(4, 1, 0x40, 0, 1)), "unknown reference type"},
		"memory too large":  {with(func(m *gastest.Module) { m.MemoryMin = 257 }), "a memory of 257, at most 256"},
		"shared memory":     {raw(section(5, 1, 3, 1, 1)), "neither shared nor 64-bit"},
		"two memories":      {raw(section(5, 2, 0, 1, 0, 1)), "at most 1"},
		"empty memories":    {raw(section(5, 0)), "there must be a memory"},
		"mutability":        {raw(section(6, 1, 0x7f, 2, 0x41, 0, 0x0b)), "mutability 2"},
		"long constant":     {raw(section(6, 1, 0x7f, 0, 0x41, 0, 0x41, 0, 0x0b)), "has one instruction"},
		"no constant":       {raw(section(6, 1, 0x7f, 0, 0x45, 0x0b)), "not a constant expression"},
		"vector constant":   {raw(section(6, 1, 0x7b, 0, 0xfd, 0, 0x0b)), "not a constant expression"},
		"constant global":   {with(func(m *gastest.Module) { m.Globals = []gastest.Global{{Type: gastest.I32, Init: "global.get 0"}} }), "global 0 of 0"},
		"export index":      {with(func(m *gastest.Module) { m.Exports = append(m.Exports, gastest.Export{Name: "x", Index: 3}) }), `"x": index 3 of 3`},
		"export kind":       {with(func(m *gastest.Module) { m.Exports = append(m.Exports, gastest.Export{Name: "x", Kind: 4}) }), "unknown kind 4"},
		"export twice":      {with(func(m *gastest.Module) { m.Exports = append(m.Exports, m.Exports[0]) }), "exported twice"},
		"reserved export":   {with(func(m *gastest.Module) { m.Exports = append(m.Exports, gastest.Export{Name: "doorbuster:fuel"}) }), "are the host's"},
		"_start":            {with(func(m *gastest.Module) { m.Exports = append(m.Exports, gastest.Export{Name: "_start"}) }), "not a command"},
		"no memory export":  {with(func(m *gastest.Module) { m.Exports = m.Exports[1:] }), `exported as "memory"`},
		"memory is no":      {with(func(m *gastest.Module) { m.Exports[0].Kind = 0 }), `exported as "memory"`},
		"no marker":         {with(func(m *gastest.Module) { m.Exports[1].Name = "x" }), `no export "doorbuster_abi_v1"`},
		"evaluate type":     {with(func(m *gastest.Module) { m.Exports[3].Index = 1 }), `"rule_evaluate" must be func (i32) → (i64)`},
		"evaluate is no":    {with(func(m *gastest.Module) { m.Exports[3].Kind, m.Exports[3].Index = 2, 0 }), `"rule_evaluate" must be`},
		"start":             {with(func(m *gastest.Module) { m.Start = 1 }), "may not have a start function"},
		"element kind":      {raw(section(9, 1, 8, 0, 0)), "element segment of kind 8"},
		"element function":  {with(func(m *gastest.Module) { m.TableMin, m.Elems = 1, []int{7} }), "function 7 of 3"},
		"element table":     {with(func(m *gastest.Module) { m.Elems = []int{0} }), "table 0 of 0"},
		"elements beyond":   {with(func(m *gastest.Module) { m.TableMin, m.Elems = 1, []int{0, 0} }), "2 elements where the table has room for 1"},
		"elements far away": {raw(section(4, 1, 0x70, 0, 2), section(9, 1, 0, 0x41, 0x7f, 0x0b, 0)), "0 elements where the table has room for 0"},
		"elements by name":  {raw(section(4, 1, 0x70, 0, 2), section(6, 1, 0x7f, 0, 0x41, 2, 0x0b), section(9, 1, 4, 0x23, 0, 0x0b, 1, 0xd0, 0x70, 0x0b)), "1 elements where the table has room for 0"},
		"element type":      {raw(section(9, 1, 1, 5, 0)), "element kind 5"},
		"element ref":       {raw(section(9, 1, 5, 0, 0)), "element kind 0"},
		"data kind":         {raw(section(11, 1, 3, 0)), "data segment of kind 3"},
		"data memory":       {raw(section(11, 1, 0, 0x41, 0, 0x0b, 0)), "not there"},
		"data second":       {raw(section(5, 1, 0, 1), section(11, 1, 2, 1, 0x41, 0, 0x0b, 0)), "not there"},
		"data cut":          {raw(section(11, 1, 1, 9)), "9 bytes where 0 are left"},
		"data count":        {raw(section(12, 1)), "0 data segments, but a data count of 1"},
		"no code":           {raw(section(1, 1, 0x60, 0, 0), section(3, 1, 0)), "1 functions and no code"},
		"bodies":            {raw(section(10, 1, 2, 0, 0x0b)), "1 bodies for 0 functions"},
		"locals":            {with(func(m *gastest.Module) { m.Funcs[0].Locals = make([]byte, 0) }), ""},
		"50000 locals":      {raw(section(1, 1, 0x60, 0, 0), section(3, 1, 0), section(10, 1, 6, 1, 0xd0, 0x86, 3, 0x7f, 0x0b)), "more than 4096 locals"},
		"local type":        {raw(section(1, 1, 0x60, 0, 0), section(3, 1, 0), section(10, 1, 4, 1, 1, 0x40, 0x0b)), "unknown value type"},
		"nesting":           {code(blocks), "nest deeper than 2048"},
		"unknown opcode":    {code("raw 06"), "unknown instruction 0x06"},
		"tail call":         {code("raw 1200"), "unknown instruction 0x12"},
		"atomics":           {code("raw fe00"), "unknown instruction 0xfe"},
		"0xfc":              {code("raw fc12"), "unknown instruction 0xfc 18"},
		"relaxed simd":      {code("raw fd8002"), "unknown instruction 0xfd 256"},
		"no end":            {code("block void"), "unexpected end"},
		"early end":         {code("end nop"), "behind the function's end"},
		"else":              {code("else"), "else without if"},
		"else of block":     {code("block void else end"), "else without if"},
		"block type":        {code("block 77 end"), "block type 77 of 5"},
		"label":             {code("br 1"), "branch to label 1 of 1"},
		"br_table":          {code("i32.const 0 br_table2 0 0 5"), "branch to label 5 of 1"},
		"br_table count":    {code("raw 0effffffff0f00"), "do not fit"},
		"br_table large":    {code("raw 0e818001" + strings.Repeat("00", 1<<14+2)), "16385 branch targets, at most 16384"},
		"call":              {code("call 3"), "function 3 of 3"},
		"call_indirect":     {code("call_indirect 9 0"), "type 9 of 5"},
		"call_indirect tab": {code("call_indirect 0 1"), "table 1 of 1"},
		"ref.func":          {code("ref.func 3"), "function 3 of 3"},
		"local":             {code("local.get 1"), "local 1 of 1"},
		"global":            {code("global.get 2"), "global 2 of 2"}, // 2 is the injected fuel
		"set global":        {code("i64.const 9 global.set 2"), "global 2 of 2"},
		"set vector": {with(func(m *gastest.Module) {
			m.Globals = []gastest.Global{{Type: gastest.V128, Mutable: true, Init: "raw fd0c00000000000000000000000000000000"}}
			m.Funcs[0].Code = "global.get 0 global.set 0"
		}), "global 0 is set, and a host cannot put back a v128"},
		"set reference": {with(func(m *gastest.Module) {
			m.Globals = []gastest.Global{{Type: gastest.Funcref, Mutable: true, Init: "ref.null"}}
			m.Funcs[0].Code = "ref.null global.set 0"
		}), "global 0 is set, and a host cannot put back a funcref"},
		"keep vector": {with(func(m *gastest.Module) {
			m.Globals = []gastest.Global{{Type: gastest.V128, Mutable: true, Init: "raw fd0c00000000000000000000000000000000"}}
			m.Funcs[0].Code = "global.get 0 drop"
		}), ""},
		"set immutable": {code("i32.const 9 global.set 1"), "global 1 is set but immutable"},
		"table":         {code("table.get 1"), "table 1 of 1"},
		"table.size":    {code("table.size 1"), "table 1 of 1"},
		"alignment":     {code("i32.const 0 i32.load 5 0"), "alignment 5"},
		"memory index":  {code("raw 3f01"), "one memory at most"},
		"memory.init":   {code("memory.init 2 0"), "data segment 2 of 2"},
		"data.drop":     {code("data.drop 2"), "data segment 2 of 2"},
		"elem.drop":     {code("elem.drop 1"), "element segment 1 of 1"},
		"table.init":    {code("table.init 1 0"), "element segment 1 of 1"},
		"select":        {code("raw 1c027f7f"), "2 types of a select"},
		"select count":  {code("raw 1c007f"), "select has one type"},
		"ref.null":      {code("raw d07f"), "unknown reference type"},
		"constant cut":  {code("raw fd0c00"), "unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			got := faults(c.wasm)
			if c.want == "" {
				if got != nil {
					t.Fatalf("refused: %v", got)
				}
				return
			}
			if !slices.ContainsFunc(got, func(f gas.Fault) bool { return strings.Contains(f.Reason, c.want) }) {
				t.Fatalf("no fault says %q: %v", c.want, got)
			}
		})
	}
}

// TestAllFaults: one upload shows everything that is wrong, with its place.
func TestAllFaults(t *testing.T) {
	m := gastest.Rule("call 99 global.get 7").WithImport("env", "time", gastest.TypeVoid)
	m.MemoryMin = 500
	m.Exports = m.Exports[:3]
	_, err := gas.Rewrite(m.Encode())
	var e *gas.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var sections []string
	for _, f := range e.Faults {
		sections = append(sections, f.Section)
		if f.Offset <= 0 || f.Offset > len(m.Encode()) {
			t.Errorf("%s: offset %d", f.Section, f.Offset)
		}
	}
	if want := []string{"import", "memory", "code", "code", "module"}; !slices.Equal(sections, want) {
		t.Fatalf("%v\n%v", sections, err)
	}
	if lines := strings.Count(err.Error(), "\n"); lines != 4 {
		t.Fatalf("%d lines: %v", lines, err)
	}
}

func TestFaultsAreBounded(t *testing.T) {
	_, err := gas.Rewrite(code(strings.Repeat("call 99 ", 1000)))
	var e *gas.Error
	if !errors.As(err, &e) || len(e.Faults) != gas.FaultsMax || e.More != 900 || !strings.Contains(err.Error(), "and 900 more") {
		t.Fatal(len(e.Faults), e.More)
	}
}

func TestCountsAcrossTheModule(t *testing.T) {
	many := with(func(m *gastest.Module) {
		set := ""
		for i := range gas.MutableMax + 1 {
			m.Globals = append(m.Globals, gastest.Global{Type: gastest.I32, Mutable: true, Init: "i32.const 0"})
			set += "i32.const 1 global.set " + strconv.Itoa(i) + " "
		}
		m.Funcs[0].Code = set
	})
	// wide has functions of 4,000 locals and the given number of blocks.
	wide := func(functions, blocks int) []byte {
		return with(func(m *gastest.Module) {
			for range functions {
				m.Funcs = append(m.Funcs, gastest.Func{
					Locals: slices.Repeat([]byte{gastest.I32}, 4000),
					Code:   strings.Repeat("i32.const 0 br_if 0 ", blocks-1),
				})
			}
		})
	}
	if got := faults(wide(1, gas.BodyLocalsMax/4000)); got != nil {
		t.Errorf("within the bound: %v", got)
	}
	for want, wasm := range map[string][]byte{
		"globals, at most":   many,
		"in one function":    wide(1, gas.BodyLocalsMax/4000+1),
		"over the functions": wide(9, gas.BodyLocalsMax/4000),
	} {
		if got := faults(wasm); len(got) != 1 || !strings.Contains(got[0].Reason, want) {
			t.Errorf("%q: %v", want, got)
		}
	}
}

// TestWorkIsBounded: what a small module claims does not matter.
func TestWorkIsBounded(t *testing.T) {
	claims := raw(section(1, 0xff, 0xff, 0xff, 0xff, 0x0f))
	if len(claims) != 15 {
		t.Fatalf("%d bytes", len(claims))
	}
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			_, _ = gas.Rewrite(claims)
		}
	})
	if got.AllocedBytesPerOp() > 64<<10 {
		t.Fatalf("%d bytes for a module of %d", got.AllocedBytesPerOp(), len(claims))
	}
}

func TestPagesMarkAndRestore(t *testing.T) {
	// A write at any place of any memory is undone, whatever the page size.
	const size = 3 << 20
	src := make([]byte, size)
	for i := range src {
		src[i] = byte(i)
	}
	for _, p := range []gas.Pages{{Shift: 10}, {Shift: 12}, {Shift: 10, Two: true}, {Shift: 12, Two: true}} {
		dst := slices.Clone(src)
		var d gas.Dirty
		for _, w := range [][2]uint32{{0, 1}, {1023, 2}, {4095, 2}, {70_000, 300_000}, {size - 1, 1}, {5, 0}, {1 << 20, 1 << 20}} {
			p.Mark(&d, w[0], w[1])
			for i := range w[1] {
				dst[w[0]+i] ^= 0xff
			}
			p.Restore(dst, src, d)
			if !slices.Equal(dst, src) {
				t.Fatalf("%+v: %d bytes at %d stayed", p, w[1], w[0])
			}
			d = gas.Dirty{}
		}
	}
}

func TestRestoreCopiesLittle(t *testing.T) {
	src, dst := make([]byte, 1<<20), make([]byte, 1<<20)
	for i := range dst {
		dst[i] = 1
	}
	p := gas.Pages{Shift: 10, Two: true}
	var d gas.Dirty
	p.Mark(&d, 500_000, 8)
	p.Restore(dst, src, d)
	restored := 0
	for _, b := range dst {
		if b == 0 {
			restored++
		}
	}
	if restored != 1024+15 {
		t.Fatalf("%d bytes were copied for one store", restored)
	}
}

func TestRewriteLeavesSourceAlone(t *testing.T) {
	wasm := code(gastest.Result)
	before := slices.Clone(wasm)
	m, err := gas.Rewrite(wasm)
	if err != nil {
		t.Fatal(err)
	}
	clear(wasm)
	again, err := gas.Rewrite(before)
	if err != nil || !slices.Equal(m.Wasm, again.Wasm) {
		t.Fatal("the result shares memory with its source, or is not deterministic", err)
	}
}

// FuzzRewrite: no bytes make it panic, and what it takes is proportional to them.
func FuzzRewrite(f *testing.F) {
	f.Add(code(gastest.Result))
	f.Add(code("loop void i32.const 1 br_if 0 end table.size 0 drop i32.const 0 memory.grow drop" + gastest.Result))
	f.Add(code("i32.const 0 i32.const 1 i32.const 2 memory.fill i32.const 0 v128.load 0 0 f32x4.sqrt drop" + gastest.Result))
	f.Add(code("block i32 i32.const 3 i32.const 0 br_table2 0 0 1 end if void return else nop end" + gastest.Result))
	f.Add(raw(section(1, 0xff, 0xff, 0xff, 0xff, 0x0f)))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		m, err := gas.Rewrite(wasm)
		if (err == nil) == (m == nil) {
			t.Fatal(m, err)
		}
		if err == nil && len(m.Wasm) > 100*len(wasm)+1000 {
			t.Fatalf("%d bytes became %d", len(wasm), len(m.Wasm))
		}
	})
}
