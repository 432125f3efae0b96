// Package gastest builds WebAssembly modules for tests: valid ones, and ones
// that no toolchain would make. Modules are written as Go values and code as
// text, so that no test needs a binary or a tool.
package gastest

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Value types.
const (
	I32     = 0x7f
	I64     = 0x7e
	F32     = 0x7d
	F64     = 0x7c
	V128    = 0x7b
	Funcref = 0x70
)

// Type is a function type.
type Type struct{ Params, Results []byte }

// Import is an imported function.
type Import struct {
	Module, Name string
	Type         int
}

// Func is a function of the module.
type Func struct {
	Type   int
	Locals []byte // one type each
	Code   string // see Asm; the function's end is added
}

// Global is a global variable. Init is code without its end.
type Global struct {
	Type    byte
	Mutable bool
	Init    string
}

// Export is an export: Kind 0 is a function, 1 a table, 2 the memory, 3 a global.
type Export struct {
	Name  string
	Kind  byte
	Index int
}

// Data is an active data segment, or a passive one when At is below 0.
type Data struct {
	At    int
	Bytes string
}

// Module is a module to encode. MemoryMax and TableMax of 0 are no maximum;
// without MemoryMin and MemoryMax there is no memory, without TableMin no table.
type Module struct {
	Types                []Type
	Imports              []Import
	Funcs                []Func
	TableMin, TableMax   int
	MemoryMin, MemoryMax int
	Globals              []Global
	Exports              []Export
	Start                int   // a function, 0 is none
	Elems                []int // functions put into the table at 0
	Data                 []Data
	Custom               map[string]string
}

// Types that every Rule has, in this order.
const (
	TypeVoid = iota // () → ()
	TypeI32         // (i32) → i32
	TypeI64         // (i32) → i64
	TypeLog         // (i32 i32) → ()
	TypeTwo         // (i32 i32) → i32
	RuleTypes
)

// Functions that every Rule without imports has, in this order.
const (
	FuncMarker = iota
	FuncBuffer
	FuncEvaluate
	RuleFuncs
)

// OutputAt is where the evaluate functions here put their output: above it,
// BufferAt is the input's buffer. Below are 4 KiB for the module.
const (
	OutputAt = 4096
	BufferAt = 8192
)

// Result is code that returns an output at OutputAt, which memory zeroed reads
// as "nothing".
var Result = fmt.Sprintf(" i64.const %d ", OutputAt<<32|32)

// Rule returns a module that speaks the ABI and whose rule_evaluate is the given
// code; its local 0 is the input's length. The module can be changed before it
// is encoded.
func Rule(evaluate string, locals ...byte) *Module {
	return &Module{
		Types: []Type{
			TypeVoid: {},
			TypeI32:  {[]byte{I32}, []byte{I32}},
			TypeI64:  {[]byte{I32}, []byte{I64}},
			TypeLog:  {[]byte{I32, I32}, nil},
			TypeTwo:  {[]byte{I32, I32}, []byte{I32}},
		},
		Funcs: []Func{
			FuncMarker:   {Type: TypeVoid},
			FuncBuffer:   {Type: TypeI32, Code: "i32.const " + strconv.Itoa(BufferAt)},
			FuncEvaluate: {Type: TypeI64, Locals: locals, Code: evaluate},
		},
		MemoryMin: 1,
		Exports: []Export{
			{"memory", 2, 0},
			{"doorbuster_abi_v1", 0, FuncMarker},
			{"rule_buffer", 0, FuncBuffer},
			{"rule_evaluate", 0, FuncEvaluate},
		},
	}
}

// WithImport adds an imported function as function 0, which moves the others up
// by one: code that calls functions has to be written for that.
func (m *Module) WithImport(module, name string, typ int) *Module {
	m.Imports = append(m.Imports, Import{module, name, typ})
	for i := range m.Exports {
		if m.Exports[i].Kind == 0 {
			m.Exports[i].Index++
		}
	}
	return m
}

// Encode returns the module's bytes.
func (m *Module) Encode() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	for name, content := range m.Custom {
		b = append(b, Section(0, append(vector([]byte(name)), content...))...)
	}
	b = append(b, list(1, m.Types, func(t Type) []byte {
		return append(append([]byte{0x60}, vector(t.Params)...), vector(t.Results)...)
	})...)
	b = append(b, list(2, m.Imports, func(i Import) []byte {
		return append(append(append(vector([]byte(i.Module)), vector([]byte(i.Name))...), 0), U32(i.Type)...)
	})...)
	b = append(b, list(3, m.Funcs, func(f Func) []byte { return U32(f.Type) })...)
	if m.TableMin > 0 {
		b = append(b, Section(4, append([]byte{1, Funcref}, limits(m.TableMin, m.TableMax)...))...)
	}
	if m.MemoryMin > 0 || m.MemoryMax > 0 {
		b = append(b, Section(5, append([]byte{1}, limits(m.MemoryMin, m.MemoryMax)...))...)
	}
	b = append(b, list(6, m.Globals, func(g Global) []byte {
		mutable := byte(0)
		if g.Mutable {
			mutable = 1
		}
		return append(append([]byte{g.Type, mutable}, Asm(g.Init)...), 0x0b)
	})...)
	b = append(b, list(7, m.Exports, func(e Export) []byte {
		return append(append(vector([]byte(e.Name)), e.Kind), U32(e.Index)...)
	})...)
	if m.Start > 0 {
		b = append(b, Section(8, U32(m.Start))...)
	}
	if len(m.Elems) > 0 {
		entry := append([]byte{1, 0, 0x41, 0, 0x0b}, U32(len(m.Elems))...)
		for _, f := range m.Elems {
			entry = append(entry, U32(f)...)
		}
		b = append(b, Section(9, entry)...)
	}
	if len(m.Data) > 0 {
		b = append(b, Section(12, U32(len(m.Data)))...)
	}
	b = append(b, list(10, m.Funcs, func(f Func) []byte {
		body := U32(len(f.Locals))
		for _, t := range f.Locals {
			body = append(body, 1, t)
		}
		return vector(append(append(body, Asm(f.Code)...), 0x0b))
	})...)
	return append(b, list(11, m.Data, func(d Data) []byte {
		if d.At < 0 {
			return append([]byte{1}, vector([]byte(d.Bytes))...)
		}
		return append(append(append([]byte{0, 0x41}, S64(int64(d.At))...), 0x0b), vector([]byte(d.Bytes))...)
	})...)
}

// Section encodes one section.
func Section(id byte, content []byte) []byte { return append([]byte{id}, vector(content)...) }

// U32 encodes an unsigned LEB128.
func U32(v int) (b []byte) {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// S64 encodes a signed LEB128.
func S64(v int64) (b []byte) {
	for v < -64 || v >= 64 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

func vector(b []byte) []byte { return append(U32(len(b)), b...) }

func limits(low, high int) []byte {
	if high == 0 {
		return append([]byte{0}, U32(low)...)
	}
	return append(append([]byte{1}, U32(low)...), U32(high)...)
}

func list[T any](id byte, entries []T, encode func(T) []byte) []byte {
	if len(entries) == 0 {
		return nil
	}
	content := U32(len(entries))
	for _, e := range entries {
		content = append(content, encode(e)...)
	}
	return Section(id, content)
}

// mnemonic is how one instruction is written: its opcode, then one letter for
// each immediate.
//
//	u unsigned LEB128   s signed LEB128   t a block's type   f, d floats   b a byte
type mnemonic struct {
	op         []byte
	immediates string
}

var mnemonics = map[string]mnemonic{
	"unreachable": {[]byte{0x00}, ""}, "nop": {[]byte{0x01}, ""},
	"block": {[]byte{0x02}, "t"}, "loop": {[]byte{0x03}, "t"}, "if": {[]byte{0x04}, "t"},
	"else": {[]byte{0x05}, ""}, "end": {[]byte{0x0b}, ""},
	"br": {[]byte{0x0c}, "u"}, "br_if": {[]byte{0x0d}, "u"}, "br_table2": {[]byte{0x0e, 2}, "uuu"},
	"return": {[]byte{0x0f}, ""}, "call": {[]byte{0x10}, "u"}, "call_indirect": {[]byte{0x11}, "uu"},
	"drop": {[]byte{0x1a}, ""}, "select": {[]byte{0x1b}, ""},
	"local.get": {[]byte{0x20}, "u"}, "local.set": {[]byte{0x21}, "u"}, "local.tee": {[]byte{0x22}, "u"},
	"global.get": {[]byte{0x23}, "u"}, "global.set": {[]byte{0x24}, "u"},
	"table.get": {[]byte{0x25}, "u"}, "table.set": {[]byte{0x26}, "u"},
	"i32.load": {[]byte{0x28}, "uu"}, "i64.load": {[]byte{0x29}, "uu"}, "f64.load": {[]byte{0x2b}, "uu"},
	"i32.load8_u": {[]byte{0x2d}, "uu"},
	"i32.store":   {[]byte{0x36}, "uu"}, "i64.store": {[]byte{0x37}, "uu"}, "f32.store": {[]byte{0x38}, "uu"},
	"f64.store": {[]byte{0x39}, "uu"}, "i32.store8": {[]byte{0x3a}, "uu"}, "i32.store16": {[]byte{0x3b}, "uu"},
	"i64.store8": {[]byte{0x3c}, "uu"}, "i64.store16": {[]byte{0x3d}, "uu"}, "i64.store32": {[]byte{0x3e}, "uu"},
	"memory.size": {[]byte{0x3f, 0}, ""}, "memory.grow": {[]byte{0x40, 0}, ""},
	"i32.const": {[]byte{0x41}, "s"}, "i64.const": {[]byte{0x42}, "s"},
	"f32.const": {[]byte{0x43}, "f"}, "f64.const": {[]byte{0x44}, "d"},
	"i32.eqz": {[]byte{0x45}, ""}, "i32.eq": {[]byte{0x46}, ""}, "i32.ne": {[]byte{0x47}, ""},
	"i32.lt_s": {[]byte{0x48}, ""}, "i32.lt_u": {[]byte{0x49}, ""},
	"i32.add": {[]byte{0x6a}, ""}, "i32.sub": {[]byte{0x6b}, ""}, "i32.mul": {[]byte{0x6c}, ""},
	"i32.div_s": {[]byte{0x6d}, ""}, "i32.div_u": {[]byte{0x6e}, ""}, "i32.rem_u": {[]byte{0x70}, ""},
	"i32.and": {[]byte{0x71}, ""}, "i32.or": {[]byte{0x72}, ""}, "i32.xor": {[]byte{0x73}, ""},
	"i32.shl": {[]byte{0x74}, ""}, "i32.shr_u": {[]byte{0x76}, ""},
	"i64.add": {[]byte{0x7c}, ""}, "i64.sub": {[]byte{0x7d}, ""}, "i64.mul": {[]byte{0x7e}, ""},
	"i64.xor": {[]byte{0x85}, ""}, "i64.eqz": {[]byte{0x50}, ""},
	"f32.sqrt": {[]byte{0x91}, ""}, "f32.div": {[]byte{0x95}, ""}, "f32.add": {[]byte{0x92}, ""},
	"f64.sqrt": {[]byte{0x9f}, ""}, "f64.add": {[]byte{0xa0}, ""}, "f64.sub": {[]byte{0xa1}, ""},
	"f64.mul": {[]byte{0xa2}, ""}, "f64.div": {[]byte{0xa3}, ""}, "f64.neg": {[]byte{0x9a}, ""},
	"i32.wrap_i64": {[]byte{0xa7}, ""}, "i64.extend_i32_s": {[]byte{0xac}, ""}, "i64.extend_i32_u": {[]byte{0xad}, ""},
	"f32.demote_f64": {[]byte{0xb6}, ""}, "f64.convert_i32_s": {[]byte{0xb7}, ""}, "f64.promote_f32": {[]byte{0xbb}, ""},
	"i32.reinterpret_f32": {[]byte{0xbc}, ""}, "i64.reinterpret_f64": {[]byte{0xbd}, ""},
	"ref.null": {[]byte{0xd0, Funcref}, ""}, "ref.func": {[]byte{0xd2}, "u"},
	"memory.init": {[]byte{0xfc, 8}, "ub"}, "data.drop": {[]byte{0xfc, 9}, "u"},
	"memory.copy": {[]byte{0xfc, 10, 0, 0}, ""}, "memory.fill": {[]byte{0xfc, 11, 0}, ""},
	"table.init": {[]byte{0xfc, 12}, "uu"}, "elem.drop": {[]byte{0xfc, 13}, "u"},
	"table.copy": {[]byte{0xfc, 14}, "uu"}, "table.grow": {[]byte{0xfc, 15}, "u"},
	"table.size": {[]byte{0xfc, 16}, "u"}, "table.fill": {[]byte{0xfc, 17}, "u"},
	"v128.load": {[]byte{0xfd, 0}, "uu"}, "v128.store": {[]byte{0xfd, 11}, "uu"},
	"v128.store64_lane": {[]byte{0xfd, 0x5b}, "uub"}, "i32x4.splat": {[]byte{0xfd, 0x11}, ""},
	"f32x4.splat": {[]byte{0xfd, 0x13}, ""}, "f64x2.splat": {[]byte{0xfd, 0x14}, ""},
	"i64x2.extract_lane": {[]byte{0xfd, 0x1d}, "b"}, "i32x4.extract_lane": {[]byte{0xfd, 0x1b}, "b"},
	"f32x4.sqrt": {[]byte{0xfd, 0xe3, 1}, ""}, "f64x2.sqrt": {[]byte{0xfd, 0xef, 1}, ""},
	"f64x2.div": {[]byte{0xfd, 0xf3, 1}, ""}, "f32x4.add": {[]byte{0xfd, 0xe4, 1}, ""},
}

var blockTypes = map[string]byte{"void": 0x40, "i32": I32, "i64": I64, "f32": F32, "f64": F64, "v128": V128}

// Asm assembles code: mnemonics and their immediates, apart by white space.
// Memory accesses take alignment and offset, blocks a type ("void", "i32", … or
// a type's index), floats also "nan". "raw" takes bytes in hexadecimal. It
// panics on text that it cannot read.
func Asm(code string) (b []byte) {
	tokens := strings.Fields(code)
	for len(tokens) > 0 {
		name := tokens[0]
		tokens = tokens[1:]
		if name == "raw" {
			for i := 0; i < len(tokens[0]); i += 2 {
				b = append(b, byte(number(tokens[0][i:i+2], 16)))
			}
			tokens = tokens[1:]
			continue
		}
		m, ok := mnemonics[name]
		if !ok {
			panic("gastest: no instruction " + name)
		}
		b = append(b, m.op...)
		for _, kind := range m.immediates {
			b = append(b, immediate(kind, tokens[0])...)
			tokens = tokens[1:]
		}
	}
	return b
}

func immediate(kind rune, token string) []byte {
	switch kind {
	case 'u':
		return U32(int(number(token, 0)))
	case 's':
		return S64(number(token, 0))
	case 'b':
		return []byte{byte(number(token, 0))}
	case 'f':
		return little(uint64(math.Float32bits(float32(float(token)))), 4)
	case 'd':
		return little(math.Float64bits(float(token)), 8)
	}
	if t, ok := blockTypes[token]; ok {
		return []byte{t}
	}
	return S64(number(token, 0))
}

func little(v uint64, n int) (b []byte) {
	for i := range n {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

func number(token string, base int) int64 {
	v, err := strconv.ParseInt(token, base, 64)
	if err != nil {
		panic("gastest: " + err.Error())
	}
	return v
}

func float(token string) float64 {
	v, err := strconv.ParseFloat(token, 64)
	if err != nil {
		panic("gastest: " + err.Error())
	}
	return v
}
