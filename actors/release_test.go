package actors

import (
	"context"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// keeper counts the streams that are open and not released.
type keeper struct {
	journal.Store
	held sync.Map
}

func (k *keeper) Open(ctx context.Context, stream string) (journal.Head, error) {
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
