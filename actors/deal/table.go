package deal

import (
	"bytes"
	"hash/maphash"
)

// table numbers byte strings in the order in which they are added, finds
// them again, and forgets the oldest. It holds no pointers for the garbage
// collector to follow, and adding to it allocates only as it doubles: a deal
// keeps two of them, of users and of idempotency keys, with up to millions of
// entries.
//
// The hash is seeded for each process, so that nobody outside can aim
// collisions; entries that do collide are chained. 32 bits of it halve the
// index, and a million entries still have only some hundred chains of two.
type table struct {
	seed  maphash.Seed
	heads map[uint32]uint32 // hash → number of the newest entry with it
	list  []entry           // list[i] is entry number first+i
	first uint32            // number of the oldest entry still kept
	text  []byte            // the bytes of list, in order
	base  uint64            // offset of text[0]
}

type entry struct {
	off  uint64 // of the bytes; subtract table.base
	len  uint32
	prev uint32 // number+1 of the next older entry with the same hash, 0 = none
}

// newTable returns an empty table with room for some entries.
func newTable(room int) table {
	return table{seed: maphash.MakeSeed(), heads: make(map[uint32]uint32, room), list: make([]entry, 0, room)}
}

func (t *table) hash(b []byte) uint32 { return uint32(maphash.Bytes(t.seed, b)) }

// len returns how many entries are kept.
func (t *table) len() int { return len(t.list) }

// at returns the bytes of entry n, which must be kept.
func (t *table) at(n uint32) []byte {
	e := t.list[n-t.first]
	return t.text[e.off-t.base:][:e.len:e.len]
}

// find returns the number of the newest entry with these bytes.
func (t *table) find(b []byte) (uint32, bool) {
	n, ok := t.heads[t.hash(b)]
	return t.follow(n, ok, b)
}

// follow looks for b in the chain that begins with entry n, if ok.
func (t *table) follow(n uint32, ok bool, b []byte) (uint32, bool) {
	for ok && n >= t.first {
		if bytes.Equal(t.at(n), b) {
			return n, true
		}
		prev := t.list[n-t.first].prev
		n, ok = prev-1, prev != 0
	}
	return 0, false
}

// add appends an entry and returns its number, and that of the newest before
// it with the same bytes, if there is one.
func (t *table) add(b []byte) (n, before uint32, again bool) {
	n = t.first + uint32(len(t.list))
	e := entry{off: t.base + uint64(len(t.text)), len: uint32(len(b))}
	h := t.hash(b)
	prev, ok := t.heads[h]
	if ok && prev >= t.first {
		e.prev = prev + 1
		before, again = t.follow(prev, true, b)
	}
	t.heads[h] = n
	t.text = append(t.text, b...)
	t.list = append(t.list, e)
	return n, before, again
}

// dropFirst forgets the oldest entry, which must exist. The room comes back
// once half of what is held is dead.
func (t *table) dropFirst() {
	if h := t.hash(t.at(t.first)); t.heads[h] == t.first {
		delete(t.heads, h)
	}
	t.list = t.list[1:]
	t.first++
	dead := uint64(len(t.text))
	if len(t.list) > 0 {
		dead = t.list[0].off - t.base
	}
	if dead > 4096 && dead > uint64(len(t.text))/2 {
		t.text = append([]byte(nil), t.text[dead:]...)
		t.base += dead
		t.list = append([]entry(nil), t.list...)
	}
}
