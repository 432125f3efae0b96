package gas

import (
	"slices"
	"strconv"
)

// rewriter turns a source without faults into the module that runs.
//
// Injected indices come behind the source's: globals from firstGlobal on,
// functions from firstFunction on, types behind the source's types.
type rewriter struct {
	src           *source
	pages         Pages
	firstGlobal   uint32
	firstFunction uint32
	types         []funcType
	fixed         span // so far
	// resultBlocks maps a list of two or more result types to the type of a
	// block that has them: shorter lists need no type.
	resultBlocks map[string]uint32
}

// Injected globals, numbered from firstGlobal on.
const (
	globalFuel = iota
	globalFrames
	globalRebuild
	globalPrice
	globalDirty0
	globalDirty1
	globalSize
	globalDenied
	injectedGlobals
)

// injected are the types and the names of the injected globals. The last two are
// there with an arena only.
var injected = [injectedGlobals]struct {
	valueType byte
	name      string
}{
	globalFuel: {i64Type, GlobalFuel}, globalFrames: {i32Type, GlobalFrames}, globalRebuild: {i32Type, GlobalRebuild},
	globalPrice: {i32Type, GlobalPrice}, globalDirty0: {i64Type, GlobalDirty0}, globalDirty1: {i64Type, GlobalDirty1},
	globalSize: {i32Type, GlobalSize}, globalDenied: {i32Type, GlobalDenied},
}

func (w *rewriter) injected() int {
	if w.arena() == nil {
		return globalSize
	}
	return injectedGlobals
}

func (w *rewriter) arena() *Arena { return w.src.policy.Arena }

// gratis says that marking a page costs nothing, so that it needs no test.
func (w *rewriter) gratis() bool { return w.arena() == nil && w.pages.gratis() }

// Injected functions, numbered from firstFunction on.
const (
	helperCharge   = iota // (units i32): takes fuel, traps below 0
	helperRebuild         // (): notes that the host needs a new instance
	helperGrow            // (delta i32) → i32: memory.grow, paid
	helperMark            // (address, n i32): marks a range
	helperKeep            // FunctionKeep; this and what follows for rules only
	helperEvaluate        // FunctionEvaluate
	injectedFunctions
)

var helperTypes = [injectedFunctions]funcType{
	helperCharge:   {tI, ""},
	helperRebuild:  {},
	helperGrow:     {tI, tI},
	helperMark:     {tI + tI, ""},
	helperKeep:     {},
	helperEvaluate: {tI + tL, tL + tL + tL + tL + tI},
}

// helpers is how many injected functions the module has.
func (w *rewriter) helpers() int {
	if w.src.policy.rule {
		return injectedFunctions
	}
	return helperKeep
}

// eachSet calls fn for each source global that the code sets, with the index of
// its keep, which holds what evaluations start from: behind all the others.
func (w *rewriter) eachSet(fn func(index, keep uint32)) {
	keep := w.firstGlobal + uint32(w.injected())
	for i, g := range w.src.globalList {
		if g.set {
			fn(uint32(i), keep)
			keep++
		}
	}
}

func rewrite(src *source) *Module {
	w := &rewriter{
		src:           src,
		pages:         pagesFor(src.memoryMin),
		firstGlobal:   uint32(len(src.globalList)),
		firstFunction: uint32(len(src.importTypes) + len(src.functionTypes)),
		types:         slices.Clone(src.typeList),
		resultBlocks:  map[string]uint32{},
	}
	if src.policy.Linked {
		w.firstGlobal = 0 // imported, and the only ones
	}
	m := &Module{Pages: w.pages, Imports: src.importNames, parts: src.parts()}
	_, m.Initialize = src.exportKinds[exportInitialize]
	_, m.RuleInit = src.exportKinds[exportInit]
	w.eachSet(func(index, _ uint32) { m.Mutable = append(m.Mutable, mutableName(int(index))) })
	m.Wasm = w.module()
	m.Size, m.fixed = len(m.Wasm), w.fixed
	return m
}

func mutableName(i int) string { return reservedPrefix + "global" + strconv.Itoa(i) }

// module assembles the sections. Functions come first, because code may add
// types; custom sections and the start section are left out.
func (w *rewriter) module() []byte {
	functions, code := w.functions()
	m := out{b: make([]byte, 0, len(code)+len(w.src.dataBytes)+1<<10)}
	m.b = append(m.b, header...)
	m.section(secType, w.typeSection())
	m.section(secImport, w.importSection())
	m.section(secFunction, functions)
	m.section(secTable, w.tableSection())
	m.section(secMemory, w.memorySection())
	m.section(secGlobal, w.globalSection())
	m.section(secExport, w.exportSection())
	m.section(secElement, w.src.raw[secElement])
	m.section(secDataCount, w.src.raw[secDataCount])
	m.section(secCode, code)
	m.section(secData, w.dataSection())
	return m.b
}

func (w *rewriter) typeSection() []byte {
	var o out
	o.u32(uint32(len(w.types)))
	for _, t := range w.types {
		o.b = append(o.b, 0x60)
		o.vector([]byte(t.params))
		o.vector([]byte(t.results))
	}
	return o.b
}

// typeIndex returns the index of a type, adding it when the source has none.
func (w *rewriter) typeIndex(t funcType) uint32 {
	if i := slices.Index(w.types, t); i >= 0 {
		return uint32(i)
	}
	w.types = append(w.types, t)
	return uint32(len(w.types) - 1)
}

// functions returns the function and the code section. It goes no further than
// RewrittenMax, where the module is refused.
func (w *rewriter) functions() (functions, code []byte) {
	var f out
	c := out{b: make([]byte, 0, 2*len(w.src.raw[secCode]))} // what real modules come to
	n := uint32(len(w.src.functionTypes) + w.helpers())
	f.u32(n)
	c.u32(n)
	var b bodyWriter
	for i := range w.src.bodies {
		if len(c.b) > RewrittenMax {
			break
		}
		f.u32(w.src.bodies[i].typeIndex)
		c.vector(b.rewrite(w, &w.src.bodies[i])...)
	}
	for i, helper := range []func() []byte{
		helperCharge: w.chargeHelper, helperRebuild: w.rebuildHelper, helperGrow: w.growHelper, helperMark: w.markHelper,
		helperKeep: w.keepHelper, helperEvaluate: w.evaluateHelper,
	}[:w.helpers()] {
		f.u32(w.typeIndex(helperTypes[i]))
		c.vector(helper())
	}
	return f.b, c.b
}

func (w *rewriter) tableSection() []byte {
	if len(w.src.tableList) == 0 {
		return nil
	}
	var o out
	o.u32(uint32(len(w.src.tableList)))
	for _, t := range w.src.tableList {
		o.b = append(o.b, t.refType, 1)
		o.u32(t.min)
		o.u32(t.max)
	}
	return o.b
}

// importSection leaves out a foreign memory, which the arena holds, unless the
// module is linked to its owner: then the injected globals are the owner's too.
func (w *rewriter) importSection() []byte {
	if !w.src.policy.Linked {
		if len(w.src.importTypes) == 0 {
			return nil
		}
		var o out
		o.u32(uint32(len(w.src.importTypes)))
		return append(o.b, w.src.importBytes...)
	}
	o, n := out{b: slices.Clone(w.src.importBytes)}, len(w.src.importTypes)
	entry := func(name string, kind ...byte) {
		o.vector([]byte(w.src.policy.Foreign))
		o.vector([]byte(name))
		o.b = append(o.b, kind...)
		n++
	}
	entry(exportMemory, 2, 0, 0)
	for _, g := range injected[:w.injected()] {
		entry(g.name, 3, g.valueType, 1)
	}
	var count out
	count.u32(uint32(n))
	return append(count.b, o.b...)
}

func (w *rewriter) dataSection() []byte {
	if w.src.raw[secData] == nil {
		return nil
	}
	var o out
	o.u32(uint32(w.src.dataN))
	return append(o.b, w.src.dataBytes...)
}

func (w *rewriter) memorySection() []byte {
	if w.src.policy.Linked {
		return nil
	}
	o := out{b: []byte{1, 1}}
	if a := w.arena(); a != nil {
		o.u32(a.pages())
		o.u32(a.pages())
		return o.b
	}
	o.u32(w.src.memoryMin)
	o.u32(w.src.memoryMax)
	return o.b
}

func (w *rewriter) globalSection() []byte {
	if w.src.policy.Linked {
		return nil
	}
	var o out
	n := w.firstGlobal + uint32(w.injected())
	if w.src.policy.rule {
		w.eachSet(func(uint32, uint32) { n++ })
	}
	o.u32(n)
	for _, g := range w.src.globalList {
		mutable := byte(0)
		if g.mutable {
			mutable = 1
		}
		o.b = append(append(o.b, g.valueType, mutable), g.init...)
	}
	for i, g := range injected[:w.injected()] {
		o.b = append(o.b, g.valueType, 1)
		switch {
		case g.valueType == i64Type:
			o.i64(0)
		case i == globalFrames:
			o.i32(FrameUnitsMax)
		case i == globalSize:
			o.i32(int32(w.src.memoryMin))
		default:
			o.i32(0)
		}
		o.op(opEnd)
	}
	if w.src.policy.rule {
		w.eachSet(func(index, _ uint32) {
			g := w.src.globalList[index]
			o.b = append(append(o.b, g.valueType, 1), g.init...)
		})
	}
	return o.b
}

func (w *rewriter) exportSection() []byte {
	var names, own out
	own.b = w.src.exportBytes
	n := w.src.exportCount
	export := func(name string, kind byte, index uint32) {
		names.vector([]byte(name))
		names.b = append(names.b, kind)
		names.u32(index)
		n++
	}
	const function, global = 0, 3
	if w.src.policy.Linked {
		var o out
		o.u32(uint32(n))
		return append(o.b, own.b...)
	}
	for i, g := range injected[:w.injected()] {
		export(g.name, global, w.firstGlobal+uint32(i))
	}
	w.eachSet(func(index, _ uint32) { export(mutableName(int(index)), global, index) })
	if w.src.policy.rule {
		export(FunctionKeep, function, w.firstFunction+helperKeep)
		export(FunctionEvaluate, function, w.firstFunction+helperEvaluate)
	}
	var o out
	o.u32(uint32(n))
	return slices.Concat(o.b, own.b, names.b)
}

// out encodes.
type out struct{ b []byte }

// op appends an opcode and its single-byte or LEB128 immediates.
func (o *out) op(op uint16, immediates ...uint32) {
	if op > 0xff {
		o.b = append(o.b, byte(op>>8))
		o.u32(uint32(op & 0xff))
	} else {
		o.b = append(o.b, byte(op))
	}
	for _, v := range immediates {
		o.u32(v)
	}
}

func (o *out) u32(v uint32) {
	for ; v >= 0x80; v >>= 7 {
		o.b = append(o.b, byte(v)|0x80)
	}
	o.b = append(o.b, byte(v))
}

func (o *out) signed(v int64) {
	for v < -64 || v >= 64 {
		o.b = append(o.b, byte(v)|0x80)
		v >>= 7
	}
	o.b = append(o.b, byte(v)&0x7f)
}

func (o *out) i32(v int32) { o.op(opI32Const); o.signed(int64(v)) }

func (o *out) i64(v int64) { o.op(opI64Const); o.signed(v) }

// vector appends the length of the parts together, then the parts.
func (o *out) vector(parts ...[]byte) {
	n := 0
	for _, part := range parts {
		n += len(part)
	}
	o.u32(uint32(n))
	o.b = slices.Grow(o.b, n)
	for _, part := range parts {
		o.b = append(o.b, part...)
	}
}

func (o *out) section(id byte, content []byte) {
	if content == nil {
		return
	}
	o.b = append(o.b, id)
	o.vector(content)
}
