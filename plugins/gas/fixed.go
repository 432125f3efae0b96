package gas

// span is the bytes of memory from at up to end.
type span struct{ at, end uint32 }

// Restore puts back what an evaluation that left these marks has stored: it copies from
// src to dst, which are as long as the memory.
func (m *Module) Restore(dst, src []byte, d Dirty) {
	copy(dst[m.fixed.at:m.fixed.end], src[m.fixed.at:])
	m.Pages.Restore(dst, src, d)
}

// fixedBytes are what i32.store … i64.store32 write.
var fixedBytes = [opLastStore - opFirstStore + 1]uint32{4, 8, 4, 8, 1, 2, 1, 2, 4}

// fix says whether a store to a constant address needs no mark, since its bytes are put
// back each time. Most rules write their answer this way and nothing else, and copying
// its page would take as long as they do. Where a mark has a price, it stays.
func (w *rewriter) fix(op uint16, address, offset uint32) bool {
	if op > opLastStore || !w.gratis() {
		return false
	}
	end := uint64(address) + uint64(offset) + uint64(fixedBytes[op-opFirstStore])
	if end > uint64(w.src.memoryMin)<<wasmPageShift {
		return false
	}
	wider := span{address + offset, uint32(end)}
	if w.fixed.end > 0 {
		wider = span{min(wider.at, w.fixed.at), max(wider.end, w.fixed.end)}
	}
	if wider.end-wider.at > fixedBytesMax {
		return false
	}
	w.fixed = wider
	return true
}

// operands are what is known of the top of the operand stack: what straight-line code
// has pushed there. Anything else empties them, and what is below them is unknown.
type operands []operand

// operand is a value, when it is an i32.const, or what a local holds.
type operand struct {
	value uint32
	known bool
	local uint32 // one more than its index, 0: none
}

// below returns the operand below the top one: the address of a store.
func (o operands) below() operand {
	if len(o) < 2 {
		return operand{}
	}
	return o[len(o)-2]
}

// apply follows one instruction, with the value of an i32.const or the index of a local.
func (o *operands) apply(op uint16, value uint32) {
	switch {
	case op == opI32Const:
		o.replace(0, operand{value: value, known: true})
	case op == opLocalGet:
		o.replace(0, operand{local: value + 1})
	case op == opGlobalGet, op >= opI64Const && op <= opF64Const:
		o.replace(0, operand{})
	case op == opLocalTee:
		o.set(value)
		o.replace(1, operand{local: value + 1})
	case op == opLocalSet:
		o.pop(1)
		o.set(value)
	case op == opGlobalSet:
		o.pop(1)
	case op == opSelect:
		o.replace(3, operand{})
	case op >= opFirstMemory && op < opFirstStore, op >= opFirstPlain && op <= opLastPlain && !isBinary(op):
		o.replace(1, operand{})
	case isBinary(op):
		o.replace(2, operand{})
	case op >= opFirstStore && op <= opLastStore:
		o.pop(2)
	default:
		*o = (*o)[:0]
	}
}

// set follows that a local gets another value than what was pushed of it.
func (o operands) set(local uint32) {
	for n := range o {
		if o[n].local == local+1 {
			o[n].local = 0
		}
	}
}

func (o *operands) pop(n int) { *o = (*o)[:max(len(*o)-n, 0)] }

func (o *operands) replace(n int, with operand) {
	o.pop(n)
	*o = append(*o, with)
}

// isBinary says whether a plain operation has two operands; the others have one.
func isBinary(op uint16) bool {
	switch {
	case op >= 0x46 && op <= 0x4f, op >= 0x51 && op <= 0x66: // comparisons
		return true
	case op >= 0x6a && op <= 0x78, op >= 0x7c && op <= 0x8a: // of integers
		return true
	case op >= 0x92 && op <= 0x98, op >= 0xa0 && op <= 0xa6: // of floats
		return true
	}
	return false
}
