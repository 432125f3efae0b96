package gas

// Opcodes that the decoder or the rewriter treat one by one. Those behind the
// prefixes 0xfc and 0xfd have the prefix in their high byte.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelect       = 0x1b
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opFirstMemory  = 0x28 // i32.load
	opI64Load      = 0x29
	opI32Load8U    = 0x2d
	opFirstStore   = 0x36 // i32.store
	opI32Store8    = 0x3a
	opLastStore    = 0x3e // i64.store32
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opFirstPlain   = 0x45 // i32.eqz
	opI32Eqz       = 0x45
	opI32LtS       = 0x48
	opI32LtU       = 0x49
	opI32GtS       = 0x4a
	opI32GtU       = 0x4b
	opI32GeU       = 0x4f
	opI64Eqz       = 0x50
	opI64LtS       = 0x53
	opI64GeU       = 0x5a
	opF32Eq        = 0x5b
	opF64Eq        = 0x61
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32Mul       = 0x6c
	opI32And       = 0x71
	opI32Or        = 0x72
	opI32Shl       = 0x74
	opI32ShrU      = 0x76
	opI64Popcnt    = 0x7b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Mul       = 0x7e
	opI64And       = 0x83
	opI64Or        = 0x84
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opI64Rotl      = 0x89
	opI32WrapI64   = 0xa7
	opI64ExtendU   = 0xad
	opLastPlain    = 0xc4 // i64.extend32_s
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2

	opMemoryInit = 0xfc08
	opDataDrop   = 0xfc09
	opMemoryCopy = 0xfc0a
	opMemoryFill = 0xfc0b
	opTableInit  = 0xfc0c
	opElemDrop   = 0xfc0d
	opTableCopy  = 0xfc0e
	opTableGrow  = 0xfc0f
	opTableSize  = 0xfc10
	opTableFill  = 0xfc11

	opV128Store      = 0xfd0b
	opV128Const      = 0xfd0c
	opV128Shuffle    = 0xfd0d
	opFirstLane      = 0xfd15 // i8x16.extract_lane_s
	opLastLane       = 0xfd22 // f64x2.replace_lane
	opF32x4Eq        = 0xfd41
	opF64x2Eq        = 0xfd47
	opV128Bitselect  = 0xfd52
	opFirstMemLane   = 0xfd54 // v128.load8_lane
	opFirstStoreLane = 0xfd58
	opLastMemLane    = 0xfd5b // v128.store64_lane
	opLastLoadZero   = 0xfd5d
	opLastVector     = 0xfdff
)

// isStore says whether an instruction stores one value to memory.
func isStore(op uint16) bool {
	return op >= opFirstStore && op <= opLastStore || op == opV128Store || op >= opFirstStoreLane && op <= opLastMemLane
}

// instruction is one decoded instruction. Its immediates are in bounds.
type instruction struct {
	op         uint16
	start, end int    // in the module
	index      uint32 // function, local, global or segment; the label of a branch; the value of i32.const
	align      uint32 // of a memory access
	offset     uint32 // of a memory access
	behind     int    // place behind a memory access's alignment and offset
	targets    []byte // br_table: labels as encoded, the default last
	targetsN   int
}

// frame is one open block.
type frame struct {
	op       uint16 // opBlock, opLoop, opIf or opElse
	targeted bool   // some branch goes to its end
}

// bodyReader reads a function's instructions and checks everything about them
// but the types of operands.
type bodyReader struct {
	reader
	src    *source
	locals int
	frames []frame
	done   bool // the body's own end was read
}

// next reads one instruction. After a failure it returns an end of the body.
func (r *bodyReader) next() instruction {
	in := instruction{start: r.pos}
	in.op = uint16(r.byte())
	if in.op == 0xfc || in.op == 0xfd {
		prefix := in.op << 8
		if sub := r.u32(); sub <= 0xff {
			in.op = prefix | uint16(sub)
		} else {
			r.failf("unknown instruction 0x%02x %d", prefix>>8, sub)
		}
	}
	r.immediates(&in)
	if r.bad {
		in.op, r.frames, r.done = opEnd, nil, true
	}
	in.end = r.pos
	return in
}

func (r *bodyReader) immediates(in *instruction) {
	switch op := in.op; {
	case op == opBlock || op == opLoop || op == opIf:
		r.blockType()
		r.open(op)
	case op == opElse:
		r.elseArm()
	case op == opEnd:
		r.close()
	case op == opBr || op == opBrIf:
		in.index = r.label()
	case op == opBrTable:
		r.branchTable(in)
	case op <= 0x01 || op == opReturn || op == 0x1a || op == opSelect || op == opRefIsNull:
	case op == opCall || op == opRefFunc:
		in.index = r.src.functionIndex(&r.reader)
	case op == opCallIndirect:
		r.index("type", len(r.src.typeList))
		r.index("table", len(r.src.tableList))
	case op == opSelectTyped:
		if r.count("types of a select", 1, 1) != 1 {
			r.failf("a select has one type")
		}
		r.valueType()
	case op >= opLocalGet && op <= opLocalTee:
		in.index = r.index("local", r.locals)
	case op == opGlobalGet || op == opGlobalSet:
		in.index = r.index("global", len(r.src.globalList))
		r.globalSet(in)
	case op == opTableGet || op == opTableSet:
		r.index("table", len(r.src.tableList))
	case op >= opFirstMemory && op <= opLastStore:
		r.memoryAccess(in)
	case op == opMemorySize || op == opMemoryGrow:
		if at := r.pos; r.memoryIndex() != uint32(r.src.memoryCount()-1) {
			r.reportf(at, "the size of an imported memory is not the module's")
		}
	case op == opI32Const:
		in.index = uint32(r.signed(32))
	case op == opI64Const:
		r.signed(64)
	case op == opF32Const:
		r.skip(4)
	case op == opF64Const:
		r.skip(8)
	case op >= opFirstPlain && op <= opLastPlain:
	case op == opRefNull:
		r.refType()
	case op>>8 == 0xfc:
		r.bulk(in)
	case op>>8 == 0xfd:
		r.vector(in)
	default:
		r.failf("unknown instruction 0x%02x", op)
	}
}

// bulk reads what follows 0xfc.
func (r *bodyReader) bulk(in *instruction) {
	tables := len(r.src.tableList)
	switch op := in.op; {
	case op < opMemoryInit: // saturating truncation
	case op == opMemoryInit:
		in.index = r.index("data segment", max(r.src.dataCountN, 0))
		r.memoryIndex()
	case op == opDataDrop:
		r.index("data segment", max(r.src.dataCountN, 0))
	case op == opMemoryCopy:
		r.memoryIndex()
		r.memoryIndex()
	case op == opMemoryFill:
		r.memoryIndex()
	case op == opTableInit:
		r.index("element segment", r.src.elementsN)
		r.index("table", tables)
	case op == opElemDrop:
		r.index("element segment", r.src.elementsN)
	case op == opTableCopy:
		r.index("table", tables)
		r.index("table", tables)
	case op <= opTableFill:
		r.index("table", tables)
	default:
		r.failf("unknown instruction 0xfc %d", op&0xff)
	}
}

// vector reads what follows 0xfd.
func (r *bodyReader) vector(in *instruction) {
	switch op := in.op; {
	case op <= opV128Store, op > opLastMemLane && op <= opLastLoadZero:
		r.memoryAccess(in)
	case op == opV128Const || op == opV128Shuffle:
		r.skip(16)
	case op >= opFirstLane && op <= opLastLane:
		r.skip(1)
	case op >= opFirstMemLane && op <= opLastMemLane:
		r.memoryAccess(in)
		r.skip(1)
	}
}

func (r *bodyReader) blockType() {
	if t := r.b[min(r.pos, len(r.b)-1)]; t == emptyType || isValueType(t) {
		r.skip(1)
		return
	}
	at, i := r.pos, r.signed(33)
	if !r.bad && (i < 0 || i >= int64(len(r.src.typeList))) {
		r.reportf(at, "block type %d of %d", i, len(r.src.typeList))
	}
}

func (r *bodyReader) open(op uint16) {
	if len(r.frames) == NestingMax {
		r.failf("blocks nest deeper than %d", NestingMax)
	}
	r.frames = append(r.frames, frame{op: op})
}

func (r *bodyReader) elseArm() {
	top := len(r.frames) - 1
	if top < 0 || r.frames[top].op != opIf {
		r.failf("else without if")
		return
	}
	r.frames[top].op = opElse
}

func (r *bodyReader) close() {
	if len(r.frames) > 0 {
		r.frames = r.frames[:len(r.frames)-1]
		return
	}
	r.done = true
	if r.more() {
		r.failf("%d bytes behind the function's end", r.end-r.pos)
	}
}

// label reads a branch's label and marks the block it leaves.
func (r *bodyReader) label() uint32 {
	at, label := r.pos, r.u32()
	depth := uint32(len(r.frames))
	if label > depth {
		r.reportf(at, "branch to label %d of %d", label, depth+1)
	} else if label < depth {
		r.frames[depth-1-label].targeted = true
	}
	return label
}

func (r *bodyReader) branchTable(in *instruction) {
	in.targetsN = r.count("branch targets", BranchTargetsMax, 1) + 1
	from := r.pos
	for i := 0; i < in.targetsN && !r.bad; i++ {
		r.label()
	}
	in.targets = r.b[from:max(from, r.pos)]
}

// index reads an index that must be below n.
func (r *bodyReader) index(what string, n int) uint32 {
	at, i := r.pos, r.u32()
	if int64(i) >= int64(n) {
		r.reportf(at, "%s %d of %d", what, i, n)
	}
	return i
}

func (r *bodyReader) globalSet(in *instruction) {
	if in.op != opGlobalSet || int(in.index) >= len(r.src.globalList) {
		return
	}
	g := &r.src.globalList[in.index]
	if !g.mutable {
		r.reportf(in.start, "global %d is set but immutable", in.index)
	}
	if g.valueType < f64Type {
		r.reportf(in.start, "global %d is set, and a host cannot put back a %s", in.index, typeNames(string(g.valueType)))
	}
	g.set = true
}

func (r *bodyReader) memoryAccess(in *instruction) {
	if r.src.memoryCount() == 0 {
		r.reportf(in.start, "there is no memory")
	}
	in.align = r.u32()
	if in.align&namesMemory != 0 && r.src.memoryCount() == 2 {
		in.align &^= namesMemory
		r.memoryIndex()
	}
	if in.align > 4 {
		r.failf("alignment %d", in.align)
	}
	in.offset = r.u32()
	in.behind = r.pos
}

// namesMemory is the flag in an alignment that says that an index follows.
const namesMemory = 0x40

func (r *bodyReader) memoryIndex() uint32 {
	n := r.src.memoryCount()
	if n < 2 {
		if r.byte() != 0 || n == 0 {
			r.failf("there is one memory at most")
		}
		return 0
	}
	return r.index("memory", n)
}

// body decodes one function's locals and instructions.
func (s *source) body(r *reader, typeIndex uint32) body {
	b := body{typeIndex: typeIndex, localsN: len(s.typeList[typeIndex].params)}
	if n := r.end - r.pos; n > FunctionBytesMax {
		r.failf("a function of %d bytes, at most %d", n, FunctionBytesMax)
	}
	b.groups = r.count("groups of locals", LocalsMax, 2)
	from := r.pos
	for i := 0; i < b.groups && r.more(); i++ {
		at, n := r.pos, r.u32()
		if n > LocalsMax || b.localsN+int(n) > LocalsMax {
			r.pos = at
			r.failf("more than %d locals", LocalsMax)
		}
		b.localsN += int(n)
		r.valueType()
	}
	if r.bad {
		return b
	}
	b.locals, b.code = r.b[from:r.pos], *r
	s.instructions(&b)
	return b
}

// instructions checks a body from its first instruction to its end.
func (s *source) instructions(b *body) {
	blocks, stores := 1, 0
	r := bodyReader{reader: b.code, src: s, locals: b.localsN}
	for !r.done {
		switch in := r.next(); in.op {
		case opCall, opCallIndirect:
			b.calls = true
		case opBlock, opLoop, opIf, opBrIf, opBrTable:
			blocks++
		default:
			if isStore(in.op) {
				stores++
			}
		}
	}
	if r.bad {
		return
	}
	blocks += min(stores, inlineStores) // the test of a mark is one
	if cost := blocks * b.localsN; cost > BodyLocalsMax {
		s.fault(b.code.pos, "%d blocks × %d locals in one function, at most %d", blocks, b.localsN, BodyLocalsMax)
	} else if s.blockLocals += cost; s.blockLocals > BlockLocalsMax && s.blockLocals-cost <= BlockLocalsMax {
		s.fault(b.code.pos, "blocks × locals, summed over the functions, exceed %d", BlockLocalsMax)
	}
}
