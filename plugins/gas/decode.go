package gas

import (
	"bytes"
	"fmt"
	"math"
)

// header begins every module.
const header = "\x00asm\x01\x00\x00\x00"

// Section ids. The data count stands before the code, whatever its number says.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
)

// sections lists the known sections in the order a module must have them, with
// what decodes each.
var sections = []struct {
	id     byte
	name   string
	decode func(*source, *reader)
}{
	{secType, "type", (*source).types},
	{secImport, "import", (*source).imports},
	{secFunction, "function", (*source).functions},
	{secTable, "table", (*source).tables},
	{secMemory, "memory", (*source).memories},
	{secGlobal, "global", (*source).globals},
	{secExport, "export", (*source).exports},
	{secStart, "start", (*source).start},
	{secElement, "element", (*source).elements},
	{secDataCount, "data count", (*source).dataCount},
	{secCode, "code", (*source).code},
	{secData, "data", (*source).data},
}

// global is a source global, imports do not exist.
type global struct {
	valueType byte
	mutable   bool
	set       bool // by some global.set in the code
	init      []byte
}

// table is a source table.
type table struct {
	refType  byte
	min, max uint32 // max is at most TableEntriesMax
}

// body is one function's code.
type body struct {
	typeIndex uint32
	locals    []byte // the vector of locals, as encoded, without its count
	groups    int    // the count
	localsN   int    // parameters and locals
	code      reader // the instructions, the last end included
	calls     bool   // some instruction calls a function
}

// source is a decoded module. Slices of bytes point into it.
type source struct {
	policy  *Policy
	section string // being decoded
	faults  []Fault
	more    int

	raw           [secDataCount + 1][]byte // content of sections that are copied as they are
	typeList      []funcType
	importTypes   []uint32 // type indices of the imported functions
	importNames   []string // … and their names, "module.name"
	importBytes   []byte   // … as encoded, without their count
	foreign       bool     // memory 0 is imported
	functionTypes []uint32 // … of the module's own
	tableList     []table
	hasMemory     bool
	memoryMin     uint32
	memoryMax     uint32
	globalList    []global
	exportKinds   map[string]byte
	exportIndices map[string]uint32
	exportCount   int
	exportBytes   []byte // the exports, encoded without their count; the memory is memory 0
	elementsN     int
	entriesN      int    // of all element segments
	dataBytes     []byte // the data segments, encoded without their count; the memory is memory 0
	dataN         int    // by the data section
	dataCountN    int    // by the data count section, -1: none
	bodies        []body
	blockLocals   int // see BlockLocalsMax
}

func (s *source) fault(offset int, format string, args ...any) {
	if len(s.faults) == FaultsMax {
		s.more++
		return
	}
	s.faults = append(s.faults, Fault{s.section, offset, fmt.Sprintf(format, args...)})
}

// decode reads the whole module and collects its faults. A fault ends its
// section (in the code its function), and decoding goes on behind it.
func decode(p *Policy, wasm []byte) *source {
	s := &source{policy: p, section: "header", dataCountN: -1, exportKinds: map[string]byte{}, exportIndices: map[string]uint32{}}
	if len(wasm) > ModuleBytesMax {
		s.fault(0, "the module has %d bytes, at most %d", len(wasm), ModuleBytesMax)
		return s
	}
	if !bytes.HasPrefix(wasm, []byte(header)) {
		s.fault(0, "not a core WebAssembly module of version 1")
		return s
	}
	r := reader{b: wasm, pos: 8, end: len(wasm), fail: s.fault}
	for place := 0; r.more(); {
		place = s.nextSection(&r, place)
	}
	s.section = "module"
	s.checkCounts(len(wasm))
	s.checkABI(len(wasm))
	return s
}

// nextSection decodes one section. place is how many of the known sections are
// behind it; the new place is returned.
func (s *source) nextSection(r *reader, place int) int {
	s.section = "header"
	at := r.pos
	id := r.byte()
	content := r.sub(r.u32())
	if r.bad {
		return place
	}
	if id == secCustom {
		s.section = "custom"
		content.name()
		return place
	}
	for i, known := range sections {
		if known.id != id {
			continue
		}
		s.section = known.name
		if i < place {
			s.fault(at, "the section is out of order or there twice")
			return place
		}
		s.raw[id] = r.b[content.pos:content.end]
		known.decode(s, &content)
		if content.more() {
			content.failf("%d bytes are left over", content.end-content.pos)
		}
		return i + 1
	}
	s.fault(at, "unknown section %d", id)
	return place
}

func (s *source) types(r *reader) {
	n := r.count("types", TypesMax, 3)
	for i := 0; i < n && r.more(); i++ {
		if form := r.byte(); form != 0x60 {
			r.failf("type 0x%02x is no function type", form)
		}
		s.typeList = append(s.typeList, funcType{r.typeVector("parameters"), r.typeVector("results")})
	}
}

func (r *reader) typeVector(what string) string {
	n := r.count(what, ParamsMax, 1)
	from := r.pos
	for range n {
		r.valueType()
	}
	if r.bad {
		return ""
	}
	return string(r.b[from:r.pos])
}

func (s *source) imports(r *reader) {
	n := r.count("imports", ImportsMax, 4)
	for i := 0; i < n && r.more(); i++ {
		at := r.pos
		module, name := r.name(), r.name()
		kind := r.byte()
		if kind == 2 && module != "" && module == s.policy.Foreign && name == exportMemory && !s.foreign && !r.bad {
			s.foreign = true
			r.limits("memory", math.MaxUint16+1)
			continue
		}
		if kind != 0 && !r.bad {
			r.failf("%q.%q: only functions can be imported", module, name)
		}
		typeIndex := r.u32()
		if r.bad {
			return
		}
		s.importTypes = append(s.importTypes, typeIndex)
		s.importNames = append(s.importNames, module+"."+name)
		s.importFunction(module, name, typeIndex)
		want, known := s.policy.importable(module, name)
		switch {
		case !known:
			r.reportf(at, "%q.%q is not offered", module, name)
		case int(typeIndex) >= len(s.typeList):
			r.reportf(at, "type %d of %d", typeIndex, len(s.typeList))
		case s.typeList[typeIndex] != want:
			r.reportf(at, "%q.%q is %s, not %s", module, name, want, s.typeList[typeIndex])
		}
	}
}

// importFunction writes an import as the result has it.
func (s *source) importFunction(module, name string, typeIndex uint32) {
	if module != s.policy.Foreign || !s.policy.Linked {
		module = s.policy.Prefix + module
	}
	o := out{b: s.importBytes}
	o.vector([]byte(module))
	o.vector([]byte(name))
	o.b = append(o.b, 0)
	o.u32(typeIndex)
	s.importBytes = o.b
}

func (s *source) functions(r *reader) {
	n := r.count("functions", FunctionsMax, 1)
	for i := 0; i < n && r.more(); i++ {
		at, typeIndex := r.pos, r.u32()
		if int(typeIndex) >= len(s.typeList) {
			r.reportf(at, "type %d of %d", typeIndex, len(s.typeList))
		}
		s.functionTypes = append(s.functionTypes, typeIndex)
	}
}

// limits reads the limits of a memory or a table and lowers the maximum.
func (r *reader) limits(what string, bound uint32) (low, high uint32) {
	at, flags := r.pos, r.byte()
	if flags > 1 {
		r.failf("%s flags %d: neither shared nor 64-bit", what, flags)
		return 0, 0
	}
	low, high = r.u32(), bound
	if flags == 1 {
		high = r.u32()
	}
	if low > bound {
		r.reportf(at, "a %s of %d, at most %d", what, low, bound)
	}
	if high < low && low <= bound {
		r.reportf(at, "a %s whose maximum %d is below its minimum %d", what, high, low)
	}
	return low, min(high, bound)
}

func (s *source) tables(r *reader) {
	n := r.count("tables", TablesMax, 3)
	for i := 0; i < n && r.more(); i++ {
		t := table{refType: r.refType()}
		t.min, t.max = r.limits("table", TableEntriesMax)
		s.tableList = append(s.tableList, t)
	}
}

func (s *source) memories(r *reader) {
	at := r.pos
	if n := r.count("memories", 1, 2); n == 0 {
		r.reportf(at, "there must be a memory")
		return
	}
	s.hasMemory = true
	s.memoryMin, s.memoryMax = r.limits("memory", s.policy.memoryPages())
}

func (s *source) globals(r *reader) {
	n := r.count("globals", GlobalsMax, 4)
	for i := 0; i < n && r.more(); i++ {
		g := global{valueType: r.valueType()}
		mutable := r.byte()
		if mutable > 1 {
			r.failf("mutability %d", mutable)
		}
		g.mutable = mutable == 1
		from := r.pos
		s.constant(r)
		g.init = r.b[from:r.pos]
		s.globalList = append(s.globalList, g)
	}
}

// constant reads a constant expression: one instruction and its end.
func (s *source) constant(r *reader) {
	at := r.pos
	switch op := r.byte(); op {
	case 0x41:
		r.signed(32)
	case 0x42:
		r.signed(64)
	case 0x43:
		r.skip(4)
	case 0x44:
		r.skip(8)
	case 0xfd:
		if r.u32() != opV128Const&0xff {
			r.failf("not a constant expression")
		}
		r.skip(16)
	case 0x23:
		if i := r.u32(); int(i) >= len(s.globalList) {
			r.reportf(at, "global %d of %d", i, len(s.globalList))
		}
	case 0xd0:
		r.refType()
	case 0xd2:
		s.functionIndex(r)
	default:
		r.failf("not a constant expression")
	}
	if r.byte() != opEnd {
		r.failf("a constant expression has one instruction")
	}
}

// functionIndex reads the index of a source function.
func (s *source) functionIndex(r *reader) uint32 {
	at, i := r.pos, r.u32()
	if n := len(s.importTypes) + len(s.functionTypes); int(i) >= n {
		r.reportf(at, "function %d of %d", i, n)
	}
	return i
}

// typeOf returns a function's type, if its indices are right.
func (s *source) typeOf(function uint32) (funcType, bool) {
	i := int(function)
	if i < len(s.importTypes) {
		i = int(s.importTypes[i])
	} else if i -= len(s.importTypes); i < len(s.functionTypes) {
		i = int(s.functionTypes[i])
	} else {
		return funcType{}, false
	}
	if i >= len(s.typeList) {
		return funcType{}, false
	}
	return s.typeList[i], true
}

func (s *source) exports(r *reader) {
	n := r.count("exports", ExportsMax, 3)
	for i := 0; i < n && r.more(); i++ {
		s.export(r)
	}
	s.exportCount = n
}

func (s *source) export(r *reader) {
	at := r.pos
	name, kind, index := r.name(), r.byte(), r.u32()
	if r.bad {
		return
	}
	counts := []int{len(s.importTypes) + len(s.functionTypes), len(s.tableList), s.memoryCount(), len(s.globalList)}
	switch {
	case int(kind) >= len(counts):
		r.reportf(at, "%q: unknown kind %d", name, kind)
	case int(index) >= counts[kind]:
		r.reportf(at, "%q: index %d of %d", name, index, counts[kind])
	case len(name) >= len(reservedPrefix) && name[:len(reservedPrefix)] == reservedPrefix:
		r.reportf(at, "%q: names that start with %q are the host's", name, reservedPrefix)
	case name == exportStart && s.policy.rule:
		r.reportf(at, "%q: a rule is a library (a WASI reactor), not a command", name)
	case kind == 2 && s.foreign && index == 0:
		r.reportf(at, "%q: an imported memory cannot be exported", name)
	}
	if _, twice := s.exportKinds[name]; twice {
		r.reportf(at, "%q is exported twice", name)
	}
	s.exportKinds[name], s.exportIndices[name] = kind, index
	if kind == 2 {
		index = 0
	}
	e := out{b: s.exportBytes}
	e.vector([]byte(name))
	e.b = append(e.b, kind)
	e.u32(index)
	s.exportBytes = e.b
}

// memoryCount is how many memories the source can name: the foreign one, then its
// own.
func (s *source) memoryCount() int {
	n := 0
	for _, has := range []bool{s.foreign, s.hasMemory} {
		if has {
			n++
		}
	}
	return n
}

func (s *source) start(r *reader) {
	r.reportf(r.pos, "a module may not have a start function; export _initialize")
	r.u32()
}

// elements reads the eight forms of element segments.
func (s *source) elements(r *reader) {
	n := r.count("element segments", SegmentsMax, 3)
	for i := 0; i < n && r.more(); i++ {
		flags := r.u32()
		if flags > 7 {
			r.failf("element segment of kind %d", flags)
			return
		}
		active, explicit, expressions := flags&1 == 0, flags&2 != 0, flags&4 != 0
		place := r.pos
		var room int64
		if active {
			room = s.activeTable(r, explicit)
		}
		if !active || explicit {
			if kind := r.byte(); !r.bad && (expressions && !isRefType(kind) || !expressions && kind != 0) {
				r.failf("element kind %d", kind)
			}
		}
		at, entries := r.pos, r.count("elements", math.MaxInt32, 1)
		if s.entriesN += entries; s.entriesN > ElementsMax {
			r.pos = at
			r.failf("%d elements of all segments so far, at most %d", s.entriesN, ElementsMax)
			return
		}
		if active && !r.bad && int64(entries) > room {
			r.reportf(place, "%d elements where the table has room for %d", entries, max(room, 0))
		}
		for j := 0; j < entries && r.more(); j++ {
			if expressions {
				s.constant(r)
			} else {
				s.functionIndex(r)
			}
		}
		s.elementsN++
	}
}

// activeTable reads where an active element segment goes, and returns how many entries
// the table has from there on: more than that would be a trap when the module is
// instantiated, which the engine ignores.
func (s *source) activeTable(r *reader, explicit bool) (room int64) {
	at, i := r.pos, uint32(0)
	if explicit {
		i = r.u32()
	}
	known := int(i) < len(s.tableList)
	if !known {
		r.reportf(at, "table %d of %d", i, len(s.tableList))
	}
	offset, ok := s.constantI32(r)
	if !known || !ok {
		return math.MaxInt64
	}
	return int64(s.tableList[i].min) - int64(offset)
}

// constantI32 is constant for an i32, and returns it unsigned unless it is of another
// kind.
func (s *source) constantI32(r *reader) (v uint32, ok bool) {
	from := *r
	s.constant(r)
	if r.bad {
		return 0, false
	}
	switch from.byte() {
	case 0x41:
		return uint32(from.signed(32)), true
	case 0x23:
		if i := from.u32(); int(i) < len(s.globalList) {
			init := reader{b: s.globalList[i].init, end: len(s.globalList[i].init), fail: func(int, string, ...any) {}}
			if init.byte() == 0x41 {
				return uint32(init.signed(32)), true
			}
		}
	}
	return 0, false
}

func (s *source) dataCount(r *reader) { s.dataCountN = r.count("data segments", SegmentsMax, 0) }

// data reads the three forms of data segments.
func (s *source) data(r *reader) {
	n := r.count("data segments", SegmentsMax, 2)
	own := uint32(s.memoryCount() - 1) // the last
	for i := 0; i < n && r.more(); i++ {
		at, flags, memory := r.pos, r.u32(), uint32(0)
		if flags > 2 {
			r.failf("data segment of kind %d", flags)
		}
		if flags == 2 {
			memory = r.u32()
		}
		if flags != 1 && (memory != own || s.memoryCount() == 0) {
			r.reportf(at, "data for a memory that is not there")
		}
		from := r.pos
		if flags != 1 {
			s.constant(r)
		}
		r.sub(r.u32()) // the content is the module's own business
		s.dataBytes = append(append(s.dataBytes, byte(flags&1)), r.b[from:max(from, r.pos)]...)
		s.dataN++
	}
}

func (s *source) code(r *reader) {
	n := r.count("bodies", FunctionsMax, 2)
	for i := 0; i < n && r.more(); i++ {
		code := r.sub(r.u32())
		if r.bad || i >= len(s.functionTypes) || int(s.functionTypes[i]) >= len(s.typeList) {
			continue // counted, and reported where the type is missing
		}
		b := s.body(&code, s.functionTypes[i])
		s.bodies = append(s.bodies, b)
	}
	if n != len(s.functionTypes) {
		r.reportf(r.pos, "%d bodies for %d functions", n, len(s.functionTypes))
	}
}

// checkCounts compares what one section says with what another holds.
func (s *source) checkCounts(end int) {
	if len(s.functionTypes) > 0 && s.raw[secCode] == nil {
		s.fault(end, "%d functions and no code", len(s.functionTypes))
	}
	if s.dataCountN >= 0 && s.dataCountN != s.dataN {
		s.fault(end, "%d data segments, but a data count of %d", s.dataN, s.dataCountN)
	}
	set := 0
	for _, g := range s.globalList {
		if g.set {
			set++
		}
	}
	if set > MutableMax {
		s.fault(end, "the code sets %d globals, at most %d", set, MutableMax)
	}
}

// parts is what the module's own parts add to the price of a new instance.
func (s *source) parts() uint64 {
	units := (len(s.globalList)+s.entriesN)*RebuildPerEntry +
		(len(s.functionTypes)+s.exportCount+s.dataN)*RebuildPerPart +
		len(s.raw[secData])/BytesPerUnit
	for _, t := range s.tableList {
		units += int(t.min) * TableEntryPrice
	}
	return uint64(units)
}

// checkABI checks the exports that rule-abi names.
func (s *source) checkABI(end int) {
	if s.policy.Linked {
		s.checkLinked(end)
		return
	}
	if kind, ok := s.exportKinds[exportMemory]; !ok || kind != 2 {
		s.fault(end, "the memory must be exported as %q", exportMemory)
	}
	if !s.policy.rule {
		return
	}
	for _, f := range abiFunctions {
		kind, ok := s.exportKinds[f.name]
		if !ok {
			if f.required {
				s.fault(end, "no export %q", f.name)
			}
			continue
		}
		if got, known := s.typeOf(s.exportIndices[f.name]); kind != 0 || known && got != f.funcType {
			s.fault(end, "the export %q must be %s", f.name, f.funcType)
		}
	}
}
