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
// The index is open-addressed with linear probing: to find out that a string is
// new takes one look into memory, where a map takes four. When it is three quarters
// full a larger one takes its place, to which each add moves some slots: none pays for
// moving all. The slot of an entry that is forgotten stays until then.
//
// The hash is seeded for each process, so that nobody outside can aim collisions.
type table struct {
	seed  maphash.Seed
	slots []slot // a power of two
	used  int    // slots that are not empty
	old   []slot // what slots takes the place of; old[:moved] are there already
	moved int

	list  column[entry] // by number
	first uint32        // number of the oldest entry still kept
	text  column[byte]  // the bytes of list, in order
}

// slot says which entry has a hash.
type slot struct {
	hash uint32
	n    uint32 // number+1, 0 = empty; an entry that is forgotten = nothing to be found here
}

// entry is where the bytes are: a deal has room for MaxOrders of them, of which none is
// longer than a user's number and a key.
type entry struct {
	off uint32 // in table.text
	len uint32
}

const (
	slotsMin = 8
	// An index of which three quarters are used is replaced by one of half its size or
	// more, three eighths of which are used when all is moved: that takes an eighth of
	// its length in adds, with room for more.
	moveSlots = 8
)

// newTable returns an empty table with room for some entries.
func newTable(room int) table {
	return table{seed: maphash.MakeSeed(), slots: makeSlots(room, 0)}
}

// makeSlots returns an index, at least so long, of which some entries use three eighths
// at most.
func makeSlots(entries, atLeast int) []slot {
	n := max(slotsMin, atLeast)
	for 3*n < 8*entries {
		n *= 2
	}
	return make([]slot, n)
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
func (t *table) find(b []byte) (n uint32, ok bool) {
	h := t.hash(b)
	s := t.slotOf(t.slots, h, b)
	if s.n == 0 && t.old != nil {
		s = t.slotOf(t.old, h, b)
	}
	return s.n - 1, s.n != 0
}

// slotOf returns the slot with these bytes, or the empty one where they belong.
func (t *table) slotOf(slots []slot, h uint32, b []byte) *slot {
	for i := h; ; i++ {
		s := &slots[i&uint32(len(slots)-1)]
		if s.n == 0 || s.hash == h && s.n > t.first && bytes.Equal(t.at(s.n-1), b) {
			return s
		}
	}
}

// add appends an entry and returns its number, and that of the newest before
// it with the same bytes, if there is one.
func (t *table) add(b []byte) (n, before uint32, again bool) {
	t.makeRoom()
	n = uint32(t.list.len())
	h := t.hash(b)
	s := t.slotOf(t.slots, h, b)
	known := *s
	if known.n == 0 {
		t.used++
		if t.old != nil {
			known = *t.slotOf(t.old, h, b)
		}
	}
	*s = slot{h, n + 1}
	t.list.add(entry{off: uint32(t.text.addRun(b)), len: uint32(len(b))})
	return n, known.n - 1, known.n != 0
}

// makeRoom keeps a quarter of the index empty.
func (t *table) makeRoom() {
	if t.old == nil && 4*(t.used+1) > 3*len(t.slots) {
		t.old, t.slots = t.slots, makeSlots(t.len(), len(t.slots)/2)
		t.used, t.moved = 0, 0
	}
	if t.old == nil {
		return
	}
	for _, s := range t.old[t.moved:][:moveSlots] {
		if s.n <= t.first {
			continue
		}
		t.move(s)
	}
	if t.moved += moveSlots; t.moved == len(t.old) {
		t.old = nil
	}
}

// move puts a slot of the old index into the new one, unless a newer entry has its bytes.
func (t *table) move(s slot) {
	for i := s.hash; ; i++ {
		to := &t.slots[i&uint32(len(t.slots)-1)]
		if to.n == 0 {
			*to = s
			t.used++
			return
		}
		if to.hash == s.hash && to.n > t.first && bytes.Equal(t.at(to.n-1), t.at(s.n-1)) {
			to.n = max(to.n, s.n)
			return
		}
	}
}

// dropFirst forgets the oldest entry, which must exist.
func (t *table) dropFirst() {
	e := t.list.at(int(t.first))
	t.text.forget(int(e.off) + int(e.len))
	t.list.forget(int(t.first) + 1)
	t.first++
}
