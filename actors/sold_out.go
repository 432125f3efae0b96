package actors

import (
	"math/bits"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/doorbuster/doorbuster/actors/deal"
)

// A deal that is sold out answers new orders without waking its actor, but a
// repeated idempotency key must still get its first answer. keyFilter is how
// the edge tells the two apart: a Bloom filter of the keys that the deal
// remembers. Maybe means the actor is asked; no is certain, because a deal
// without stock takes no new keys.
type keyFilter struct {
	spec  *deal.Spec // of the deal when the filter was made
	words []atomic.Uint64
	next  int // keys[:next] of the state are in; only the actor uses it
	room  int // keys the filter is sized for
}

// Three probes into 10 bits a key are wrong about 2 % of the time.
const (
	filterBitsPerKey = 10
	filterProbes     = 3
	filterRoomMin    = 1 << 7
)

func newKeyFilter(keys int, spec *deal.Spec) *keyFilter {
	room := max(filterRoomMin, 2*keys)
	words := 1 << bits.Len(uint(room*filterBitsPerKey/64))
	return &keyFilter{spec: spec, words: make([]atomic.Uint64, words), room: room}
}

func keyHash(user, key []byte) uint64 {
	return xxhash.Sum64(user)*0x9e3779b97f4a7c15 ^ xxhash.Sum64(key)
}

func (f *keyFilter) add(user, key []byte) {
	h := keyHash(user, key)
	for range filterProbes {
		w, bit := f.probe(h)
		w.Or(bit)
		h = h>>21 | h<<43
	}
}

func (f *keyFilter) mayHold(user, key []byte) bool {
	h := keyHash(user, key)
	for range filterProbes {
		if w, bit := f.probe(h); w.Load()&bit == 0 {
			return false
		}
		h = h>>21 | h<<43
	}
	return true
}

func (f *keyFilter) probe(h uint64) (word *atomic.Uint64, bit uint64) {
	return &f.words[(h>>6)&uint64(len(f.words)-1)], 1 << (h & 63)
}

// soldOutFilter returns the filter to publish while the deal is sold out, nil
// while it is not. The filter is kept and brought up to date, so that a deal
// that hovers around its last unit does not build it again and again.
func (a *activation) soldOutFilter(status deal.Status) *keyFilter {
	if status != deal.OutOfStock {
		return nil
	}
	if n := a.state.KeyCount(); a.keys == nil || n > a.keys.room {
		a.keys = newKeyFilter(n, a.state.Spec)
	}
	a.keys.next = a.state.EachKey(a.keys.next, a.keys.add)
	return a.keys
}

// SoldOut returns a deal that has nothing left and has never seen the user's key,
// so that an order with it is bound to be refused as sold out; otherwise nil. The
// terms may have changed since it sold out, but not those that never change. It
// wakes nobody.
func (n *Node) SoldOut(dealID, user, key []byte) *deal.Spec {
	e := n.directory.find(dealID)
	if e == nil {
		return nil
	}
	a := e.active.Load()
	if a == nil {
		return nil
	}
	f := a.soldOut.Load()
	if f == nil || f.mayHold(user, key) {
		return nil
	}
	return f.spec
}
