package gas

// bodyWriter rewrites one function. The result has this shape, in which the
// source's labels keep their numbers, since the block takes the place of the
// function's own label:
//
//	block trap
//	  copy what the globals count into locals
//	  take frame units, to trap below 0    (functions that call only)
//	  block (result …)
//	    the source's instructions; return becomes a branch to this block
//	  end
//	  give the frame units back
//	  return
//	end
//	unreachable
//
// The fuel that is left, and the marks where they are set without a test, are in a local
// as well as in their global: reading a global that was just written costs more than all
// else that counting does. The global is written each time, so that a trap anywhere
// leaves it right; the local is read again after each call.
type bodyWriter struct {
	out
	w    *rewriter
	body *body
	in   bodyReader

	// Locals added behind the source's: one more than each one's index, 0 while there
	// is none, by its type, from v128 on, and which one of that type it is.
	temps     [i32Type - v128Type + 1][tempsMax]uint32
	tempTypes []byte

	// The block being charged: where its padded count stands, and the count.
	// Without open, the next counted instruction starts a block.
	open    bool
	countAt int
	count   uint32

	operands operands
	stores   int      // so far that are not fixed
	marked   []marked // with an arena
}

// tempsMax is how many locals of one type are added.
const tempsMax = 3

// rewrite returns the parts of the function's code, which hold until the next one.
// The writer's memory serves all functions of a module.
func (c *bodyWriter) rewrite(w *rewriter, b *body) [][]byte {
	*c = bodyWriter{
		out: out{b: c.b[:0]}, w: w, body: b, operands: c.operands[:0], marked: c.marked[:0], tempTypes: c.tempTypes[:0],
		in: bodyReader{reader: b.code, src: w.src, locals: b.localsN, frames: c.in.frames[:0]},
	}
	results := w.src.typeList[b.typeIndex].results
	c.op(opBlock, emptyType)
	c.reload()
	c.enter()
	c.op(opBlock)
	c.resultType(results)
	for !c.in.done {
		c.instruction()
	}
	c.closeCount()
	c.op(opEnd)
	c.leave()
	c.op(opReturn)
	c.op(opEnd)
	c.op(opUnreachable)
	c.op(opEnd)
	var groups, added out
	groups.u32(uint32(b.groups + len(c.tempTypes)))
	for _, t := range c.tempTypes {
		added.b = append(added.b, 1, t)
	}
	return [][]byte{groups.b, b.locals, added.b, c.b}
}

// resultType writes the type of a block with the given results.
func (c *bodyWriter) resultType(results string) {
	switch len(results) {
	case 0:
		c.b = append(c.b, emptyType)
	case 1:
		c.b = append(c.b, results[0])
	default:
		index, ok := c.w.resultBlocks[results]
		if !ok {
			index = c.w.typeIndex(funcType{results: results})
			c.w.resultBlocks[results] = index
		}
		c.signed(int64(index))
	}
}

func (c *bodyWriter) local(valueType byte, n int) uint32 {
	known := &c.temps[valueType-v128Type][n]
	if *known == 0 {
		c.tempTypes = append(c.tempTypes, valueType)
		*known = uint32(c.body.localsN + len(c.tempTypes))
	}
	return *known - 1
}

func (c *bodyWriter) global(i uint32) uint32 { return c.w.firstGlobal + i }

// callHelper calls an injected function, after which the globals are not what the
// locals say.
func (c *bodyWriter) callHelper(i uint32) {
	c.op(opCall, c.w.firstFunction+i)
	c.reload()
}

// Numbers of the locals that are what a global is, among those of their type.
const (
	localFuel  = 0
	localDirty = 2 // where marks are set without a test
)

// reload reads these globals.
func (c *bodyWriter) reload() {
	c.op(opGlobalGet, c.global(globalFuel))
	c.op(opLocalSet, c.local(i64Type, localFuel))
	if c.w.gratis() {
		c.op(opGlobalGet, c.global(globalDirty0))
		c.op(opLocalSet, c.local(i64Type, localDirty))
	}
}

// frameUnits is what a call of this function takes from the call depth.
func (c *bodyWriter) frameUnits() int32 { return 1 + int32(c.body.localsN/frameUnitLocals) }

// enter takes the frame units. A function that calls nothing is bounded by the
// one that called it.
func (c *bodyWriter) enter() {
	if !c.body.calls {
		return
	}
	left := c.local(i32Type, 0)
	c.op(opGlobalGet, c.global(globalFrames))
	c.i32(c.frameUnits())
	c.op(opI32Sub)
	c.op(opLocalTee, left)
	c.op(opGlobalSet, c.global(globalFrames))
	c.op(opLocalGet, left)
	c.i32(0)
	c.op(opI32LtS)
	c.op(opBrIf, 0)
}

func (c *bodyWriter) leave() {
	if !c.body.calls {
		return
	}
	c.op(opGlobalGet, c.global(globalFrames))
	c.i32(c.frameUnits())
	c.op(opI32Add)
	c.op(opGlobalSet, c.global(globalFrames))
}

// instruction rewrites the next source instruction, with what it costs.
func (c *bodyWriter) instruction() {
	depth := len(c.in.frames)
	var top frame
	if depth > 0 {
		top = c.in.frames[depth-1]
	}
	in := c.in.next()
	if in.op != opEnd && in.op != opElse {
		c.charge(depth)
	}
	if in.op == opRefFunc || in.op == opTableGrow {
		c.count += CallUnits
	}
	address := c.operands.below()
	c.operands.apply(in.op, in.index)
	c.forget(in)
	switch op := in.op; {
	case c.in.done:
	case op == opReturn:
		c.op(opBr, uint32(depth))
	case isStore(op) && address.known && c.w.fix(op, address.value, in.offset):
		c.copy(in)
	case isStore(op):
		c.store(in, address)
	case op == opMemoryGrow:
		c.callHelper(helperGrow)
	case op == opMemorySize && c.w.arena() != nil:
		c.op(opGlobalGet, c.global(globalSize))
	case op == opMemoryInit || op == opMemoryCopy || op == opMemoryFill:
		c.bulkMemory(in)
	case op == opTableSet:
		c.callHelper(helperRebuild)
		c.copy(in)
	case op == opTableInit || op == opTableCopy || op == opTableFill || op == opTableGrow:
		c.bulkTable(in)
	case op == opDataDrop || op == opElemDrop:
	case op == opCall || op == opCallIndirect:
		c.copy(in)
		c.reload()
	default:
		c.copy(in)
		c.canonical(op)
	}
	if plantFreeBlock && in.op == opIf {
		c.count = 0
	}
	if endsBlock(in.op) || in.op == opEnd && top.joins() {
		c.closeCount()
	}
}

// copy writes the instruction as it stands in the source, where a memory has no
// index: there is one in the result.
func (c *bodyWriter) copy(in instruction) {
	switch {
	case in.behind > 0:
		c.op(in.op, in.align, in.offset)
		c.b = append(c.b, c.in.b[in.behind:in.end]...)
	case in.op == opMemoryInit:
		c.op(in.op, in.index, 0)
	case in.op == opMemoryCopy:
		c.op(in.op, 0, 0)
	case in.op == opMemoryFill:
		c.op(in.op, 0)
	default:
		c.b = append(c.b, c.in.b[in.start:in.end]...)
	}
}

// endsBlock says whether the next instruction starts a basic block.
func endsBlock(op uint16) bool {
	switch op {
	case opLoop, opIf, opElse, opBr, opBrIf, opBrTable, opReturn, opUnreachable:
		return true
	}
	return false
}

// joins says whether control can reach the frame's end from elsewhere than the
// instruction before it.
func (f frame) joins() bool {
	return f.targeted && f.op != opLoop || f.op == opIf || f.op == opElse
}

// paddedBytes is the room for a block's count, which is known at its end only.
const paddedBytes = 5

// charge counts one instruction, and starts the block when it is the first:
//
//	fuel -= count; if fuel < 0 { trap }
func (c *bodyWriter) charge(depth int) {
	c.count++
	if c.open {
		return
	}
	c.open = true
	fuel := c.local(i64Type, localFuel)
	c.op(opLocalGet, fuel)
	c.op(opI64Const)
	c.countAt = len(c.b)
	c.b = append(c.b, make([]byte, paddedBytes)...)
	c.op(opI64Sub)
	c.op(opLocalTee, fuel)
	c.op(opGlobalSet, c.global(globalFuel))
	c.op(opLocalGet, fuel)
	c.i64(0)
	c.op(opI64LtS)
	c.op(opBrIf, uint32(depth)+1)
}

// closeCount ends the block and writes its count.
func (c *bodyWriter) closeCount() {
	if !c.open {
		return
	}
	for i := range paddedBytes - 1 {
		c.b[c.countAt+i] = byte(c.count>>(7*i)) | 0x80
	}
	c.b[c.countAt+paddedBytes-1] = byte(c.count >> (7 * (paddedBytes - 1)))
	c.open, c.count = false, 0
}

// storeTypes are the types of what i32.store … i64.store32 store. The other
// stores store a v128.
var storeTypes = [opLastStore - opFirstStore + 1]byte{
	i32Type, i64Type, f32Type, f64Type, i32Type, i32Type, i64Type, i64Type, i64Type,
}

// store writes the store behind a test of its page's mark, unless there is an arena: the first store to a
// page pays and marks before it writes. Where no page costs anything, setting the mark
// again is cheaper than the test. A store out of bounds may mark a page for
// nothing and then traps. The operands are the address, which is also base, and the value.
func (c *bodyWriter) store(in instruction, base operand) {
	valueType := byte(v128Type)
	if in.op <= opLastStore {
		valueType = storeTypes[in.op-opFirstStore]
	}
	address, value := c.local(i32Type, 0), c.local(valueType, 1)
	c.op(opLocalSet, value)
	c.op(opLocalSet, address)
	if a := c.w.arena(); a != nil {
		c.arenaStore(a, in, address, value, base)
		return
	}
	if c.stores++; c.w.gratis() {
		c.mark(address, in.offset)
	} else if c.stores <= inlineStores {
		c.unmarked(address, in.offset)
		c.op(opIf, emptyType)
		c.callMark(address, in.offset)
		c.op(opEnd)
	} else {
		c.callMark(address, in.offset)
	}
	c.op(opLocalGet, address)
	c.op(opLocalGet, value)
	c.copy(in)
}

// mark sets the bit of the page of address + offset in the only word of marks.
func (c *bodyWriter) mark(address, offset uint32) {
	dirty := c.local(i64Type, localDirty)
	c.op(opLocalGet, dirty)
	c.i64(1)
	c.place(address, offset)
	c.i32(int32(c.w.pages.Shift))
	c.op(opI32ShrU)
	c.op(opI64ExtendU)
	c.op(opI64Shl)
	c.op(opI64Or)
	c.op(opLocalTee, dirty)
	c.op(opGlobalSet, c.global(globalDirty0))
}

func (c *bodyWriter) callMark(address, offset uint32) {
	c.place(address, offset)
	c.i32(1)
	c.callHelper(helperMark)
}

// unmarked leaves whether the page of address + offset has no mark.
func (c *bodyWriter) unmarked(address, offset uint32) {
	c.bit(globalDirty0, address, offset, uint32(c.w.pages.Shift))
	if c.w.pages.Two {
		c.bit(globalDirty1, address, offset, uint32(c.w.pages.Shift)+6)
		c.op(opI64And)
	}
	c.i64(1)
	c.op(opI64And)
	c.op(opI64Eqz)
}

// bit leaves the bit (address + offset) >> shift, modulo 64, of a global in the
// lowest place.
func (c *bodyWriter) bit(dirty, address, offset, shift uint32) {
	c.op(opGlobalGet, c.global(dirty))
	c.place(address, offset)
	c.i32(int32(shift))
	c.op(opI32ShrU)
	c.op(opI64ExtendU)
	c.op(opI64ShrU)
}

// place leaves address + offset.
func (c *bodyWriter) place(address, offset uint32) {
	c.op(opLocalGet, address)
	if offset != 0 {
		c.i32(int32(offset))
		c.op(opI32Add)
	}
}

// bulkMemory pays for memory.init, copy or fill by size, and marks where it is
// going to write. The operands are the destination, one more i32, and the bytes.
func (c *bodyWriter) bulkMemory(in instruction) {
	to, from, n := c.local(i32Type, 0), c.local(i32Type, 1), c.local(i32Type, 2)
	c.op(opLocalTee, n)
	c.i32(bytesShift)
	c.op(opI32ShrU)
	c.callHelper(helperCharge)
	c.op(opLocalSet, from)
	c.op(opLocalTee, to)
	c.op(opLocalGet, n)
	c.callHelper(helperMark)
	c.op(opLocalGet, to)
	c.op(opLocalGet, from)
	c.op(opLocalGet, n)
	c.copy(in)
}

// bulkTable pays for a table operation, whose last operand is a number of
// entries.
func (c *bodyWriter) bulkTable(in instruction) {
	n := c.local(i32Type, 0)
	c.op(opLocalTee, n)
	c.callHelper(helperCharge)
	c.callHelper(helperRebuild)
	c.op(opLocalGet, n)
	c.copy(in)
}

// canonical replaces a NaN that the operation may have made, keeping the value
// otherwise: value == value ? value : NaN.
func (c *bodyWriter) canonical(op uint16) {
	switch nanResult(op) {
	case f32Type:
		value := c.local(f32Type, 1)
		c.op(opLocalTee, value)
		c.op(opF32Const)
		c.b = append(c.b, nan32...)
		c.sameAs(value, opF32Eq)
		c.op(opSelect)
	case f64Type:
		value := c.local(f64Type, 1)
		c.op(opLocalTee, value)
		c.op(opF64Const)
		c.b = append(c.b, nan64...)
		c.sameAs(value, opF64Eq)
		c.op(opSelect)
	case f32x4:
		c.canonicalVector(nan32+nan32+nan32+nan32, opF32x4Eq)
	case f64x2:
		c.canonicalVector(nan64+nan64, opF64x2Eq)
	}
}

func (c *bodyWriter) canonicalVector(nan string, equal uint16) {
	value := c.local(v128Type, 1)
	c.op(opLocalTee, value)
	c.op(opV128Const)
	c.b = append(c.b, nan...)
	c.sameAs(value, equal)
	c.op(opV128Bitselect)
}

func (c *bodyWriter) sameAs(local uint32, equal uint16) {
	c.op(opLocalGet, local)
	c.op(opLocalGet, local)
	c.op(equal)
}

// The canonical NaNs, as encoded.
const (
	nan32 = "\x00\x00\xc0\x7f"
	nan64 = "\x00\x00\x00\x00\x00\x00\xf8\x7f"
)

// Shapes of vectors, beside the value types.
const (
	f32x4 = 1
	f64x2 = 2
)

// nanResult returns the shape of the floats that an operation computes, or 0
// when its result can have no new NaN.
func nanResult(op uint16) byte {
	switch {
	case op >= 0x8d && op <= 0x97, op == 0xb6: // f32.ceil … f32.max, f32.demote_f64
		return f32Type
	case op >= 0x9b && op <= 0xa5, op == 0xbb: // f64.ceil … f64.max, f64.promote_f32
		return f64Type
	case op >= 0xfd67 && op <= 0xfd6a, op >= 0xfde3 && op <= 0xfde9, op == 0xfd5e:
		return f32x4 // ceil, floor, trunc, nearest; sqrt … max; demote
	case op == 0xfd74, op == 0xfd75, op == 0xfd7a, op == 0xfd94, op >= 0xfdef && op <= 0xfdf5, op == 0xfd5f:
		return f64x2 // the same; promote
	}
	return 0
}
