package own

import "sync/atomic"

// freeList is a stack of free seats, linked through Cell.next. One word holds
// its top, its length and a tag that changes with each operation: the length
// is checked and taken in one step, so that no burst of refused requests can
// push a priority request out, and a seat that went and came back between the
// read and the swap (ABA) is told from one that stayed.
type freeList struct {
	head atomic.Uint64 // tag<<32 | length<<16 | top
	_    [56]byte      // nothing else on the busiest cache line
}

const noSeat = 1<<16 - 1

func pack(tag uint32, length int, top uint16) uint64 {
	return uint64(tag)<<32 | uint64(length)<<16 | uint64(top)
}

func unpack(head uint64) (tag uint32, length int, top uint16) {
	return uint32(head >> 32), int(uint16(head >> 16)), uint16(head)
}

func (f *freeList) init(cells []*Cell) {
	f.head.Store(pack(0, 0, noSeat))
	for i := len(cells) - 1; i >= 0; i-- {
		f.push(cells, uint16(i))
	}
}

// pop takes the top seat, unless that would leave fewer than leave.
func (f *freeList) pop(cells []*Cell, leave int) (seat uint16, ok bool) {
	for {
		head := f.head.Load()
		tag, length, top := unpack(head)
		if length <= leave {
			return 0, false
		}
		// The seat may be popped by another meanwhile; then next is of no use,
		// and the tag makes the swap fail.
		next := uint16(cells[top].next.Load())
		if f.head.CompareAndSwap(head, pack(tag+1, length-1, next)) {
			return top, true
		}
	}
}

func (f *freeList) push(cells []*Cell, seat uint16) {
	for {
		head := f.head.Load()
		tag, length, top := unpack(head)
		cells[seat].next.Store(uint32(top))
		if f.head.CompareAndSwap(head, pack(tag+1, length+1, seat)) {
			return
		}
	}
}

func (f *freeList) len() int {
	_, length, _ := unpack(f.head.Load())
	return length
}
