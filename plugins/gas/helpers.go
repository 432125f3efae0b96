package gas

// The injected functions. Their instructions are the engine's, not the
// source's: they cost what the prices say and nothing else.

// bytesShift divides by BytesPerUnit.
const bytesShift = 3

// helper starts a body with added locals of type i32.
func (w *rewriter) helper(locals uint32) *out {
	o := &out{}
	if locals == 0 {
		o.u32(0)
		return o
	}
	o.u32(1)
	o.u32(locals)
	o.b = append(o.b, i32Type)
	return o
}

func (w *rewriter) chargeHelper() []byte {
	o, fuel := w.helper(0), w.firstGlobal+globalFuel
	o.op(opGlobalGet, fuel)
	o.op(opLocalGet, 0)
	o.op(opI64ExtendU)
	o.op(opI64Sub)
	o.op(opGlobalSet, fuel)
	o.op(opGlobalGet, fuel)
	o.i64(0)
	o.op(opI64LtS)
	o.op(opIf, emptyType)
	o.op(opUnreachable)
	o.op(opEnd)
	o.op(opEnd)
	return o.b
}

// rebuildHelper: if !rebuild { charge(price); rebuild = 1 }. A module that cannot
// pay traps before it changed what would have to be rebuilt.
func (w *rewriter) rebuildHelper() []byte {
	o, rebuild := w.helper(0), w.firstGlobal+globalRebuild
	o.op(opGlobalGet, rebuild)
	o.op(opI32Eqz)
	o.op(opIf, emptyType)
	o.op(opGlobalGet, w.firstGlobal+globalPrice)
	o.op(opCall, w.firstFunction+helperCharge)
	o.i32(1)
	o.op(opGlobalSet, rebuild)
	o.op(opEnd)
	o.op(opEnd)
	return o.b
}

// growHelper: if !delta { return size }; if delta > max - size { return -1 };
// rebuild(); charge((size+delta)×GrowPerPage); return memory.grow(delta). What
// changes nothing costs nothing besides its instruction, and does not bother the
// engine.
func (w *rewriter) growHelper() []byte {
	o := w.helper(0)
	o.op(opLocalGet, 0)
	o.op(opI32Eqz)
	o.op(opIf, emptyType)
	o.op(opMemorySize, 0)
	o.op(opReturn)
	o.op(opEnd)
	o.op(opLocalGet, 0)
	o.i32(int32(w.src.memoryMax))
	o.op(opMemorySize, 0)
	o.op(opI32Sub)
	o.op(opI32GtU)
	o.op(opIf, emptyType)
	o.i32(-1)
	o.op(opReturn)
	o.op(opEnd)
	o.op(opCall, w.firstFunction+helperRebuild)
	o.op(opMemorySize, 0)
	o.op(opLocalGet, 0)
	o.op(opI32Add)
	o.i32(GrowPerPage)
	o.op(opI32Mul)
	o.op(opCall, w.firstFunction+helperCharge)
	o.op(opLocalGet, 0)
	o.op(opMemoryGrow, 0)
	o.op(opEnd)
	return o.b
}

// markHelper is Pages.Mark.
func (w *rewriter) markHelper() []byte {
	const address, n, first, last = 0, 1, 2, 3
	o := w.helper(2)
	o.op(opLocalGet, n)
	o.op(opI32Eqz)
	o.op(opIf, emptyType)
	o.op(opReturn)
	o.op(opEnd)
	shift := int32(w.pages.Shift)
	o.op(opLocalGet, address)
	o.i32(shift)
	o.op(opI32ShrU)
	o.op(opLocalSet, first)
	o.op(opLocalGet, address)
	o.op(opLocalGet, n)
	o.op(opI32Add)
	o.i32(1)
	o.op(opI32Sub)
	o.i32(shift)
	o.op(opI32ShrU)
	o.op(opLocalSet, last)
	w.markSpan(o, globalDirty0, first, last)
	if w.pages.Two {
		for _, local := range []uint32{first, last} {
			o.op(opLocalGet, local)
			o.i32(6)
			o.op(opI32ShrU)
			o.op(opLocalSet, local)
		}
		w.markSpan(o, globalDirty1, first, last)
	}
	o.op(opEnd)
	return o.b
}

// markSpan is bitSpan: dirty |= last-first > 62 ? -1 : rotl((1 << (last-first+1)) - 1, first).
func (w *rewriter) markSpan(o *out, dirty, first, last uint32) {
	dirty += w.firstGlobal
	o.op(opGlobalGet, dirty)
	o.i64(-1)
	o.i64(1)
	o.op(opLocalGet, last)
	o.op(opLocalGet, first)
	o.op(opI32Sub)
	o.i32(1)
	o.op(opI32Add)
	o.op(opI64ExtendU)
	o.op(opI64Shl)
	o.i64(1)
	o.op(opI64Sub)
	o.op(opLocalGet, first)
	o.op(opI64ExtendU)
	o.op(opI64Rotl)
	o.op(opLocalGet, last)
	o.op(opLocalGet, first)
	o.op(opI32Sub)
	o.i32(62)
	o.op(opI32GtU)
	o.op(opSelect)
	o.op(opI64Or)
	o.op(opGlobalSet, dirty)
}
