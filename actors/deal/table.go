package deal

import (
	"bytes"
	"hash/maphash"
)

// table numbers byte strings in the order in which they are added, finds
// them again, and forgets the oldest. The garbage collector has next to
// nothing to follow in it: a deal keeps two of them, of users and of idempotency
// keys, with up to millions of entries.
//
// The hash is seeded for each process, so that nobody outside can aim
// collisions; entries that do collide are chained. 32 bits of it halve the
// index, and a million entries still have only some hundred chains of two.
type table struct {
	seed  maphash.Seed
	heads map[uint32]uint32 // hash → number of the newest entry with it
	list  column[entry]     // by number
	first uint32            // number of the oldest entry still kept
	text  column[byte]      // the bytes of list, in order
}

type entry struct {
	off  uint64 // of the bytes, in table.text
	len  uint32
	prev uint32 // number+1 of the next older entry with the same hash, 0 = none
}

// newTable returns an empty table with room for some entries.
func newTable(room int) table {
	return table{seed: maphash.MakeSeed(), heads: make(map[uint32]uint32, room)}
}

func (t *table) hash(b []byte) uint32 { return uint32(maphash.Bytes(t.seed, b)) }

// len returns how many entries are kept.
func (t *table) len() int { return t.list.len() - int(t.first) }

// at returns the bytes of entry n, which must be kept.
func (t *table) at(n uint32) []byte {
	e := t.list.at(int(n))
	return t.text.run(int(e.off), int(e.len))
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
		prev := t.list.at(int(n)).prev
		n, ok = prev-1, prev != 0
	}
	return 0, false
}

// add appends an entry and returns its number, and that of the newest before
// it with the same bytes, if there is one.
func (t *table) add(b []byte) (n, before uint32, again bool) {
	n = uint32(t.list.len())
	e := entry{len: uint32(len(b))}
	h := t.hash(b)
	prev, ok := t.heads[h]
	if ok && prev >= t.first {
		e.prev = prev + 1
		before, again = t.follow(prev, true, b)
	}
	t.heads[h] = n
	e.off = uint64(t.text.addRun(b))
	t.list.add(e)
	return n, before, again
}

// dropFirst forgets the oldest entry, which must exist.
func (t *table) dropFirst() {
	if h := t.hash(t.at(t.first)); t.heads[h] == t.first {
		delete(t.heads, h)
	}
	e := t.list.at(int(t.first))
	t.text.forget(int(e.off) + int(e.len))
	t.list.forget(int(t.first) + 1)
	t.first++
}
