package actors

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// keeper counts the streams that are open and not released.
type keeper struct {
	journal.Store
	held  sync.Map
	stops func() // called before a stream is opened and before a group is committed, unless it is nil
}

func (k *keeper) stop() {
	if k.stops != nil {
		k.stops()
	}
}

func (k *keeper) Commit(group []*journal.Write) error {
	k.stop()
	return k.Store.Commit(group)
}

func (k *keeper) Open(ctx context.Context, stream string) (journal.Head, error) {
	k.stop()
	head, err := k.Store.Open(ctx, stream)
	if err == nil {
		k.held.Store(stream, head.Epoch)
	}
	return head, err
}

func (k *keeper) Release(stream string, epoch uint64) {
	k.Store.Release(stream, epoch)
	k.held.CompareAndDelete(stream, epoch)
}

// TestLostDealsAreReleased: of a deal that is served elsewhere the store remembers nothing.
func TestLostDealsAreReleased(t *testing.T) {
	store := &keeper{Store: journaltest.NewMemory()}
	v := newTownOver(t, store, "a")
	a := v.node("a")
	a.open([]string{"d-1", "d-2"})
	a.eventually("loads that have ended", func() bool {
		return len(a.node.active.list(func(a *activation) bool { return a.loaded.Load() })) == 2
	})
	a.members.Store(nil)
	a.node.Lost()
	store.held.Range(func(stream, epoch any) bool {
		t.Errorf("%v of epoch %v is held", stream, epoch)
		return true
	})
}

// TestLostAtWorkIsReleased: a deal that is lost while it is loaded or written is forgotten
// when that ends.
func TestLostAtWorkIsReleased(t *testing.T) {
	for _, what := range []string{"loaded", "written"} {
		t.Run(what, func(t *testing.T) {
			there, goOn := make(chan struct{}), make(chan struct{})
			var still atomic.Bool
			store := &keeper{Store: journaltest.NewMemory(), stops: func() {
				if still.CompareAndSwap(true, false) {
					close(there)
					<-goOn
				}
			}}
			a := newTownOver(t, store, "a").node("a")
			if what == "written" {
				a.open([]string{"d"})
			}
			still.Store(true)
			active, err := a.node.activate(a.node.directory.add("d"))
			if err != nil {
				t.Fatal(err)
			}
			placed := make(chan answer, 1)
			if what == "written" {
				go func() { placed <- a.place("d", "u", "k", 1) }()
			} else {
				placed <- answer{}
			}
			<-there
			a.members.Store(nil)
			a.node.Lost()
			close(goOn)
			a.eventually("the deal is forgotten", func() bool {
				_, held := store.held.Load("d")
				return active.loaded.Load() && active.uncommitted.Load() == 0 && !held
			})
			a.members.Store(&[]string{"a"})
			a.eventually("the order is answered", func() bool { return len(placed) > 0 })
		})
	}
}
