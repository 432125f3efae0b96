package actors

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// TestHandOverSumsUp: a deal with much to replay leaves a snapshot behind for its next
// owner, and one with little leaves none, for which everybody would wait.
func TestHandOverSumsUp(t *testing.T) {
	v := newTown(t, "a", "b")
	v.agree("a")
	a, b := v.node("a"), v.node("b")
	events := map[string]int{"little": replayedAtOnce - 1, "much": replayedAtOnce}
	for id, n := range events {
		a.open([]string{id})
		for i := range n - 1 { // it began with one
			if got := a.place(id, "u", fmt.Sprint("k", i), 1); got.err != nil {
				t.Fatal(got.err)
			}
		}
	}
	a.members.Store(&[]string{"b"})
	b.members.Store(&[]string{"b"})
	if err := a.node.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, n := range events {
		head, err := v.store.Head(t.Context(), id)
		if err != nil || head.Seq != uint64(n) {
			t.Fatalf("%s is at %+v: %v", id, head, err)
		}
		summed, replayed := n >= replayedAtOnce, b.node.replayed.Load()
		if (head.SnapshotSeq == head.Seq) != summed {
			t.Errorf("of %d events of %s, %d are summed up", n, id, head.SnapshotSeq)
		}
		if got := b.place(id, "u", "next", 1); got.err != nil {
			t.Fatal(got.err)
		}
		if replayed = b.node.replayed.Load() - replayed; (replayed == 0) != summed {
			t.Errorf("the next owner of %s replayed %d of %d events", id, replayed, n)
		}
	}
}

// TestAbandonedWhileItAsks: an activation that is given up while it asks others to let go
// of its deal does not take the deal over from the one that came after it.
func TestAbandonedWhileItAsks(t *testing.T) {
	v := newTown(t, "a", "silent")
	v.agree("a")
	a, silent := v.node("a"), v.node("silent")
	a.open([]string{"d"})
	before, err := v.store.Head(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	a.node.Lost() // the next order finds it gone
	silent.stuck.Store(true)
	placed := make(chan answer, 1)
	begin := time.Now()
	go func() { placed <- a.place("d", "u", "k", 1) }()
	var first *activation
	a.eventually("an activation that asks", func() bool {
		first = a.node.directory.find([]byte("d")).active.Load()
		return first != nil && silent.unasked.Load() > 0
	})
	silent.stuck.Store(false)
	a.node.Lost()
	inTime := time.Since(begin) < releaseWait // then it asks no more, and has taken the deal over
	if got := <-placed; got.err != nil {
		t.Error(got.err)
	}
	<-first.tried
	if head, err := v.store.Head(t.Context(), "d"); err != nil || inTime && head.Epoch != before.Epoch+1 {
		t.Errorf("from epoch %d to %+v: %v", before.Epoch, head, err)
	}
}

// TestHandedDealsAreTakenUp: whoever gets a deal has it in memory soon, before anybody asks
// for it.
func TestHandedDealsAreTakenUp(t *testing.T) {
	v := newTown(t, "a", "b")
	v.agree("a")
	a, b := v.node("a"), v.node("b")
	deals := []string{"d-1", "d-2", "d-3"}
	a.open(deals)
	a.members.Store(&[]string{"b"})
	b.members.Store(&[]string{"b"})
	if err := a.node.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.eventually("all deals in memory", func() bool {
		for _, id := range deals {
			e := b.node.directory.find([]byte(id))
			if e == nil {
				return false
			}
			if a := e.active.Load(); a == nil || !a.loaded.Load() {
				return false
			}
		}
		return true
	})
}

// TestHandOverGoesInGroups: no more deals are on their way at the same time than may be, and
// the others are served.
func TestHandOverGoesInGroups(t *testing.T) {
	const deals = 2*handedAtOnce + 1
	store := &slowStore{Memory: journaltest.NewMemory()}
	v := newTownOver(t, store, "a", "b")
	v.agree("a")
	a := v.node("a")
	ids := a.ids(deals)
	a.open(ids)
	store.gate.Lock()
	open := sync.OnceFunc(store.gate.Unlock)
	defer open()
	placed := make(chan answer, deals)
	for _, id := range ids {
		go func() { placed <- a.place(id, "u", "k", 1) }()
	}
	count := func(is func(*activation) bool) int { return len(a.node.active.list(is)) }
	leaves := func(d *activation) bool { return d.departs.Load() != nil }
	a.eventually("all orders are on their way", func() bool {
		return count(func(d *activation) bool { return d.uncommitted.Load() > 0 }) == deals
	})
	a.members.Store(&[]string{"b"})
	v.node("b").members.Store(&[]string{"b"})
	done := make(chan error, 1)
	go func() { done <- a.node.HandOver(t.Context()) }()
	a.eventually("a group leaves", func() bool { return count(leaves) >= handedAtOnce })
	for range 20 {
		time.Sleep(time.Millisecond)
		if n := count(leaves); n != handedAtOnce {
			t.Fatalf("%d deals are on their way, not %d", n, handedAtOnce)
		}
	}
	open()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for range deals {
		if got := <-placed; got.err != nil || got.code != deal.OK {
			t.Errorf("%+v", got)
		}
	}
	if n := a.node.Stats().HandedOver; n != deals {
		t.Errorf("%d of %d deals were handed over", n, deals)
	}
}
