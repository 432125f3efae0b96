package gas

import "encoding/binary"

// Arena is a layout of memory for modules whose memory grows in every evaluation,
// which is what most allocators do: putting such a memory back by making a new
// instance would cost more than the evaluation.
//
// The rewritten memory has its full size from the start, in pages of 64 KiB:
//
//	Bound    the source's own memory; how much of it the source has is the global
//	         GlobalSize, which memory.size reads and memory.grow raises
//	Region   the host's: where it puts what the source thinks to be in another
//	         module's memory
//	1        the marks, behind 4 KiB that nobody may write to
//
// A mark is one byte for 4 KiB. A store asks for its page's mark and, the first
// time, calls a helper that traps when the page is neither in what the source has
// nor in the region, takes its price, and marks it. So no store reaches the marks or the memory
// that the source has not asked for. A load from there does not trap: it reads
// what is the same in every evaluation, since there is nothing in it (behind
// GlobalSize) or what the host put there (the region) or the evaluation did (the
// marks).
type Arena struct {
	Bound, Region uint32
}

// ArenaPageUnits is the price of the first store to a page: what putting its bytes
// back takes.
const ArenaPageUnits = 1 << arenaShift / BytesPerUnit

const (
	arenaShift    = 12 // bytes of a mark's page
	wasmPageShift = 16
)

func (a *Arena) pages() uint32 { return a.Bound + a.Region + 1 }

// RegionAt is the address of the region.
func (a *Arena) RegionAt() uint32 { return a.Bound << wasmPageShift }

// RegionEnd is the address behind the region.
func (a *Arena) RegionEnd() uint32 { return (a.Bound + a.Region) << wasmPageShift }

func (a *Arena) marksAt() uint32 { return a.RegionEnd() + 1<<arenaShift }

// Mark marks n bytes from address on, as stores do, and returns how many pages had
// no mark. Both ends are inside the source's memory or the region.
func (a *Arena) Mark(memory []byte, address, n uint32) (pages int) {
	if n == 0 {
		return 0
	}
	marks := memory[a.marksAt():]
	for page := address >> arenaShift; page <= (address+n-1)>>arenaShift; page++ {
		pages += 1 - int(marks[page])
		marks[page] = 1
	}
	return pages
}

// Restore puts the marked pages back to initial, whose end is followed by zeros
// for ever, and takes the marks away. It returns how many bytes were copied.
func (a *Arena) Restore(memory, initial []byte) (copied int) {
	first := a.marksAt()
	marks := memory[first : first+first>>arenaShift]
	for group := 0; group+8 <= len(marks); group += 8 {
		if binary.LittleEndian.Uint64(marks[group:]) == 0 {
			continue
		}
		for page := group; page < group+8; page++ {
			if marks[page] == 0 {
				continue
			}
			// A store may begin at the page's end and reach into the next.
			at := page << arenaShift
			end := at + 1<<arenaShift + storeBytesMax - 1
			n := copy(memory[at:end], initial[min(at, len(initial)):])
			clear(memory[at+n : end])
			copied += end - at
		}
		clear(marks[group : group+8])
	}
	return copied
}

// arenaGrowHelper: if delta > bound - size { denied = 1; return -1 };
// size += delta; return size - delta.
func (w *rewriter) arenaGrowHelper(a *Arena) []byte {
	o, size := w.helper(), w.firstGlobal+globalSize
	bound := a.Bound
	if !w.src.policy.Linked {
		bound = min(bound, w.src.memoryMax)
	}
	o.op(opLocalGet, 0)
	o.i32(int32(bound))
	o.op(opGlobalGet, size)
	o.op(opI32Sub)
	o.op(opI32GtU)
	o.op(opIf, emptyType)
	o.i32(1)
	o.op(opGlobalSet, w.firstGlobal+globalDenied)
	o.i32(-1)
	o.op(opReturn)
	o.op(opEnd)
	o.op(opGlobalGet, size)
	o.op(opGlobalGet, size)
	o.op(opLocalGet, 0)
	o.op(opI32Add)
	o.op(opGlobalSet, size)
	o.op(opEnd)
	return o.b
}

// arenaMarkHelper is Arena.Mark behind its check:
//
//	if !n { return }
//	last = address + n - 1
//	if last < address || last >= size<<16 && (address < region || last >= regionEnd) { trap }
//	for page = address>>12; page <= last>>12; page++ {
//		if !marks[page] { charge(ArenaPageUnits); marks[page] = 1 }
//	}
func (w *rewriter) arenaMarkHelper(a *Arena) []byte {
	const address, n, last = 0, 1, 1
	o := &out{b: []byte{0}}
	o.op(opLocalGet, n)
	o.op(opI32Eqz)
	o.op(opIf, emptyType)
	o.op(opReturn)
	o.op(opEnd)
	o.op(opLocalGet, address)
	o.op(opLocalGet, n)
	o.op(opI32Add)
	o.i32(1)
	o.op(opI32Sub)
	o.op(opLocalSet, last)

	o.op(opLocalGet, last)
	o.op(opLocalGet, address)
	o.op(opI32LtU)
	o.op(opLocalGet, last)
	o.op(opGlobalGet, w.firstGlobal+globalSize)
	o.i32(wasmPageShift)
	o.op(opI32Shl)
	o.op(opI32GeU)
	o.op(opLocalGet, address)
	o.i32(int32(a.RegionAt()))
	o.op(opI32LtU)
	o.op(opLocalGet, last)
	o.i32(int32(a.RegionEnd()))
	o.op(opI32GeU)
	o.op(opI32Or)
	o.op(opI32And)
	o.op(opI32Or)
	o.op(opIf, emptyType)
	o.op(opUnreachable)
	o.op(opEnd)

	o.op(opLocalGet, last)
	o.i32(arenaShift)
	o.op(opI32ShrU)
	o.op(opLocalSet, last)
	o.op(opLocalGet, address)
	o.i32(arenaShift)
	o.op(opI32ShrU)
	o.op(opLocalSet, address)
	o.op(opLoop, emptyType)
	o.op(opLocalGet, address)
	o.op(opI32Load8U, 0, a.marksAt())
	o.op(opI32Eqz)
	o.op(opIf, emptyType)
	o.i32(ArenaPageUnits)
	o.op(opCall, w.firstFunction+helperCharge)
	o.op(opLocalGet, address)
	o.i32(1)
	o.op(opI32Store8, 0, a.marksAt())
	o.op(opEnd)
	o.op(opLocalGet, address)
	o.op(opLocalGet, last)
	o.op(opI32LtU)
	o.op(opIf, emptyType)
	o.op(opLocalGet, address)
	o.i32(1)
	o.op(opI32Add)
	o.op(opLocalSet, address)
	o.op(opBr, 1)
	o.op(opEnd)
	o.op(opEnd)
	o.op(opEnd)
	return o.b
}
