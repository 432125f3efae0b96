package gas

// The injected functions. Their instructions are the engine's, not the
// source's: they cost what the prices say and nothing else.

// bytesShift divides by BytesPerUnit.
const bytesShift = 3

// helper starts a body without locals of its own.
func (w *rewriter) helper() *out { return &out{b: []byte{0}} }

func (w *rewriter) chargeHelper() []byte {
	o, fuel := w.helper(), w.firstGlobal+globalFuel
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
	o, rebuild := w.helper(), w.firstGlobal+globalRebuild
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
	if a := w.arena(); a != nil {
		return w.arenaGrowHelper(a)
	}
	o := w.helper()
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

// markHelper is Pages.Mark, after it charged what Pages.Price rises by.
func (w *rewriter) markHelper() []byte {
	if a := w.arena(); a != nil {
		return w.arenaMarkHelper(a)
	}
	const address, n, first, last, before = 0, 1, 2, 3, 4
	const new0, new1 = 5, 6
	dirty0, dirty1 := w.firstGlobal+globalDirty0, w.firstGlobal+globalDirty1
	o := &out{}
	o.u32(2)
	o.u32(3)
	o.b = append(o.b, i32Type)
	o.u32(2)
	o.b = append(o.b, i64Type)
	o.op(opLocalGet, n)
	o.op(opI32Eqz)
	o.op(opIf, emptyType)
	o.op(opReturn)
	o.op(opEnd)
	o.op(opGlobalGet, dirty0)
	o.op(opLocalSet, new0)
	o.i64(1)
	o.op(opLocalSet, new1)
	if w.pages.Two {
		o.op(opGlobalGet, dirty1)
		o.op(opLocalSet, new1)
	}
	w.price(o, new0, new1, first)
	o.op(opLocalSet, before)

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
	markSpan(o, new0, first, last)
	if w.pages.Two {
		for _, local := range []uint32{first, last} {
			o.op(opLocalGet, local)
			o.i32(6)
			o.op(opI32ShrU)
			o.op(opLocalSet, local)
		}
		markSpan(o, new1, first, last)
	}

	w.price(o, new0, new1, first)
	o.op(opLocalGet, before)
	o.op(opI32Sub)
	o.op(opCall, w.firstFunction+helperCharge)
	o.op(opLocalGet, new0)
	o.op(opGlobalSet, dirty0)
	if w.pages.Two {
		o.op(opLocalGet, new1)
		o.op(opGlobalSet, dirty1)
	}
	o.op(opEnd)
	return o.b
}

// price leaves Pages.Price of the marks in two locals. It uses a third, an i32.
func (w *rewriter) price(o *out, dirty0, dirty1, scratch uint32) {
	o.op(opLocalGet, dirty0)
	o.op(opI64Popcnt)
	o.op(opLocalGet, dirty1)
	o.op(opI64Popcnt)
	o.op(opI64Mul)
	o.op(opI32WrapI64)
	o.i32(int32(w.pages.free()))
	o.op(opI32Sub)
	o.op(opLocalTee, scratch)
	o.i32(0)
	o.op(opLocalGet, scratch)
	o.i32(0)
	o.op(opI32GtS)
	o.op(opSelect)
	o.i32(int32(w.pages.units()))
	o.op(opI32Mul)
}

// keepHelper is FunctionKeep.
func (w *rewriter) keepHelper() []byte {
	o := w.helper()
	o.i32(0)
	o.op(opGlobalSet, w.firstGlobal+globalRebuild)
	w.eachSet(func(index, keep uint32) {
		o.op(opGlobalGet, index)
		o.op(opGlobalSet, keep)
	})
	o.op(opEnd)
	return o.b
}

// evaluateHelper is FunctionEvaluate.
func (w *rewriter) evaluateHelper() []byte {
	const length, fuel = 0, 1
	o := w.helper()
	o.op(opLocalGet, fuel)
	o.op(opGlobalSet, w.firstGlobal+globalFuel)
	o.i32(FrameUnitsMax) // a trap left no frame to give its units back
	o.op(opGlobalSet, w.firstGlobal+globalFrames)
	for _, dirty := range []uint32{globalDirty0, globalDirty1} {
		o.i64(0)
		o.op(opGlobalSet, w.firstGlobal+dirty)
	}
	w.eachSet(func(index, keep uint32) {
		o.op(opGlobalGet, keep)
		o.op(opGlobalSet, index)
	})
	o.op(opLocalGet, length)
	o.op(opCall, w.src.exportIndices[exportEvaluate])
	for _, left := range []uint32{globalFuel, globalDirty0, globalDirty1, globalRebuild} {
		o.op(opGlobalGet, w.firstGlobal+left)
	}
	o.op(opEnd)
	return o.b
}

// markSpan is bitSpan: dirty |= last-first > 62 ? -1 : rotl((1 << (last-first+1)) - 1, first).
func markSpan(o *out, dirty, first, last uint32) {
	o.op(opLocalGet, dirty)
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
	o.op(opLocalSet, dirty)
}
