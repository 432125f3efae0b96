package gas

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

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
// A mark is one byte for 4 KiB. Every store sets its page's, without a test: a branch at
// each store costs a quarter of the time that QuickJS runs for. It needs none for its
// bounds, either. No store begins behind the region, since a load that far ahead of it
// traps first, so nothing but marking reaches the marks. One to memory that the source has
// not asked for leaves a mark there, and whoever counts the marks at the end sees it; to
// ask for such memory afterwards traps. So it does what a trap does, though later.
//
// A mark stands for arenaSlack bytes behind its page as well: of stores that follow
// each other at one local's address and constant offsets, such as those of a frame or a
// struct, those that are so close behind the first one need no mark of their own. One of these
// that reaches behind what the source has is seen by what it left there, unless the source asks
// for that memory before its evaluation ends.
//
// A load from memory that is not the source's does not trap: it reads
// what is the same in every evaluation, since there is nothing in it (behind
// GlobalSize) or what the host put there (the region) or the evaluation did (the
// marks).
type Arena struct {
	Bound, Region uint32
}

// ArenaPageUnits is the price of a marked page: what putting its bytes back takes. The host
// takes it when the evaluation has ended.
const ArenaPageUnits = 1 << arenaShift / BytesPerUnit

const (
	arenaShift    = 12 // bytes of a mark's page
	arenaSlack    = 256
	wasmPageShift = 16
)

func (a *Arena) pages() uint32 { return a.Bound + a.Region + 1 }

// RegionAt is the address of the region.
func (a *Arena) RegionAt() uint32 { return a.Bound << wasmPageShift }

// RegionEnd is the address behind the region.
func (a *Arena) RegionEnd() uint32 { return (a.Bound + a.Region) << wasmPageShift }

func (a *Arena) marksAt() uint32 { return a.RegionEnd() + 1<<arenaShift }

// marks are the marks of what a store may begin in.
func (a *Arena) marks(memory []byte) []byte {
	return memory[a.marksAt():][:a.RegionEnd()>>arenaShift]
}

// Mark marks n bytes from address on, as stores do. Both ends are inside the source's
// memory or the region.
func (a *Arena) Mark(memory []byte, address, n uint32) {
	if n == 0 {
		return
	}
	marks := a.marks(memory)
	for page := address >> arenaShift; page <= (address+n-1)>>arenaShift; page++ {
		marks[page] = 1
	}
}

// Marked returns how many pages are marked, and whether all that was stored is the region's or in
// the first size pages of 64 KiB, which the source has.
func (a *Arena) Marked(memory []byte, size uint32) (pages int, allowed bool) {
	marks := a.marks(memory)
	for at := 0; at+8 <= len(marks); at += 8 { // a page of 64 KiB has 16 marks
		pages += bits.OnesCount64(binary.LittleEndian.Uint64(marks[at:]))
	}
	const perPage = 1 << (wasmPageShift - arenaShift)
	allowed = bytes.IndexByte(marks[size*perPage:a.Bound*perPage], 1) < 0
	if size < a.Bound { // a store that another one's mark stands for
		behind := memory[size<<wasmPageShift:][:arenaSlack]
		allowed = allowed && bytes.Equal(behind, make([]byte, arenaSlack))
	}
	return pages, allowed
}

// Restore puts the marked pages back to initial, whose end is followed by zeros
// for ever, and takes the marks away. It returns how many bytes were copied.
func (a *Arena) Restore(memory, initial []byte) (copied int) {
	marks := a.marks(memory)
	for group := 0; group+8 <= len(marks); group += 8 {
		if binary.LittleEndian.Uint64(marks[group:]) == 0 {
			continue
		}
		for page := group; page < group+8; page++ {
			if marks[page] == 0 {
				continue
			}
			at := page << arenaShift
			end := at + 1<<arenaShift + arenaSlack - 1
			n := copy(memory[at:end], initial[min(at, len(initial)):])
			clear(memory[at+n : end])
			copied += end - at
		}
		clear(marks[group : group+8])
	}
	return copied
}

// arenaGrowHelper:
//
//	if delta > bound - size { denied = 1; return -1 }
//	for page = size<<4; page < (size+delta)<<4; page += 8 {
//		if any of 8 marks from page on { trap }
//	}
//	size += delta; return size - delta
func (w *rewriter) arenaGrowHelper(a *Arena) []byte {
	const delta, page = 0, 1
	const marksShift = wasmPageShift - arenaShift
	o, size := &out{b: []byte{1, 1, i32Type}}, w.firstGlobal+globalSize
	bound := a.Bound
	if !w.src.policy.Linked {
		bound = min(bound, w.src.memoryMax)
	}
	o.op(opLocalGet, delta)
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
	o.i32(marksShift)
	o.op(opI32Shl)
	o.op(opLocalSet, page)
	o.op(opBlock, emptyType)
	o.op(opLoop, emptyType)
	o.op(opLocalGet, page)
	o.op(opGlobalGet, size)
	o.op(opLocalGet, delta)
	o.op(opI32Add)
	o.i32(marksShift)
	o.op(opI32Shl)
	o.op(opI32GeU)
	o.op(opBrIf, 1)
	o.op(opLocalGet, page)
	o.op(opI64Load, 0, a.marksAt())
	o.op(opI64Eqz)
	o.op(opI32Eqz)
	o.op(opIf, emptyType)
	o.op(opUnreachable)
	o.op(opEnd)
	o.op(opLocalGet, page)
	o.i32(8)
	o.op(opI32Add)
	o.op(opLocalSet, page)
	o.op(opBr, 0)
	o.op(opEnd)
	o.op(opEnd)

	o.op(opGlobalGet, size)
	o.op(opGlobalGet, size)
	o.op(opLocalGet, delta)
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
//		marks[page] = 1
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
	o.i32(1)
	o.op(opI32Store8, 0, a.marksAt())
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

// arenaStore writes a store of the arena, whose operands are in these locals.
func (c *bodyWriter) arenaStore(a *Arena, in instruction, address, value uint32, base operand) {
	end := uint64(in.offset) + uint64(a.pages()<<wasmPageShift-a.RegionEnd())
	if end > math.MaxUint32 {
		c.op(opUnreachable) // no memory is that large
		return
	}
	c.op(opLocalGet, address)
	c.op(opI32Load8U, 0, uint32(end))
	c.op(opDrop)
	c.op(opLocalGet, address)
	c.op(opLocalGet, value)
	c.copy(in)
	if c.covers(base.local, in.offset) {
		return
	}
	c.place(address, in.offset)
	c.i32(arenaShift)
	c.op(opI32ShrU)
	c.i32(1)
	c.op(opI32Store8, 0, a.marksAt())
}

// marked is a mark that straight-line code has set: of the address in a local, which is
// one more than its index, and an offset.
type marked struct{ local, offset uint32 }

// covers says whether a store needs no mark, since one that is set for the same local
// stands for it. Otherwise it will be.
func (c *bodyWriter) covers(local, offset uint32) bool {
	if local == 0 {
		return false
	}
	for _, m := range c.marked {
		if m.local == local && m.offset <= offset && offset-m.offset <= arenaSlack-storeBytesMax {
			return true
		}
	}
	if len(c.marked) == markedMax {
		c.marked = c.marked[:0]
	}
	c.marked = append(c.marked, marked{local, offset})
	return false
}

// markedMax bounds the marks that are remembered.
const markedMax = 64

// forget follows an instruction after which marks stand for nothing: another value of
// their local, or a place that can be reached without them.
func (c *bodyWriter) forget(in instruction) {
	switch in.op {
	case opLocalSet, opLocalTee:
		c.marked = slices.DeleteFunc(c.marked, func(m marked) bool { return m.local == in.index+1 })
	case opLoop, opElse, opEnd:
		c.marked = c.marked[:0]
	}
}
