package actors

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// badStore is a store whose snapshots hang while hold is open, and whose stream
// called damaged cannot be opened.
type badStore struct {
	*journaltest.Memory
	damaged string
	hold    chan struct{}
	holding chan struct{}
}

func (s *badStore) PutSnapshot(ctx context.Context, stream string, epoch, seq uint64, data []byte) error {
	close(s.holding)
	<-s.hold
	return s.Memory.PutSnapshot(ctx, stream, epoch, seq, data)
}

func (s *badStore) Open(ctx context.Context, stream string) (journal.Head, error) {
	if stream == s.damaged {
		return journal.Head{}, fmt.Errorf("stream %s: %w", stream, journal.ErrCorrupt)
	}
	return s.Memory.Open(ctx, stream)
}

// A request that met a deal on its way out of memory waits no longer than its
// deadline for the way in.
func TestDeadlineWhileADealLeaves(t *testing.T) {
	store := &badStore{Memory: journaltest.NewMemory(), hold: make(chan struct{}), holding: make(chan struct{})}
	h := &house{t: t, clock: clockd.NewManual(start)}
	var err error
	h.node, err = NewNode(t.Context(), store, h.clock.Clock(), Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) }, PassivateAfter: time.Second, RequestTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.node.Close)
	h.create("d", nil)
	for i := range uint64(snapshotAfter) {
		h.change(deal.Pause, "d", i)
		h.change(deal.Resume, "d", i)
	}
	h.eventually("the deal is about to leave", func() bool {
		h.clock.Advance(100 * time.Millisecond)
		select {
		case <-store.holding:
			return true
		default:
			return false
		}
	})
	answered := make(chan answer)
	go func() { answered <- h.place("d", "u", "k", 1) }()
	var a answer
	for done := false; !done; {
		select {
		case a = <-answered:
			done = true
		case <-time.After(time.Millisecond):
			h.clock.Advance(100 * time.Millisecond)
		}
	}
	if !errors.Is(a.err, ErrUnavailable) {
		t.Errorf("%+v", a)
	}
	close(store.hold)
	h.eventually("the deal has left", func() bool { return h.node.Stats().Active == 0 && h.node.Stats().Pool.InUse == 0 })
	if a := h.place("d", "u", "k", 1); a.err != nil || a.again {
		t.Errorf("%+v", a)
	}
}

// A user's list has what can be read, whatever happened to the rest.
func TestUsersListWithoutADamagedDeal(t *testing.T) {
	h := newHouse(t, nil)
	for _, id := range []string{"d1", "d2", "d3"} {
		h.create(id, nil)
		for i := range 3 {
			if a := h.place(id, "u", fmt.Sprint("k", i), 1); a.err != nil {
				t.Fatal(a.err)
			}
		}
	}
	if err := h.node.Snapshot(t.Context()); err != nil { // the lists know all of them
		t.Fatal(err)
	}
	h.node.Close()
	node, err := NewNode(t.Context(), &badStore{Memory: h.store.Reopen(), damaged: "d2"}, h.clock.Clock(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.node = node
	var seen []string
	q := OrderQuery{User: "u", Limit: 3}
	for more := true; more; {
		var page []*Order
		if page, more, err = node.Orders(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if more && len(page) == 0 {
			t.Fatal("an empty page that is not the last")
		}
		for _, o := range page {
			seen = append(seen, o.Deal)
			q.AfterDeal, q.AfterSeq = o.Deal, o.Seq
		}
	}
	if fmt.Sprint(seen) != "[d1 d1 d1 d3 d3 d3]" || node.Stats().LeftOut == 0 {
		t.Errorf("%v, %d left out", seen, node.Stats().LeftOut)
	}
	if _, _, err := node.Orders(t.Context(), OrderQuery{User: "u", Deal: "d2", Limit: 3}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the damaged deal itself: %v", err)
	}
}

// A watcher whose deal has failed and cannot come back is told so, and may close.
func TestWatchOfADealThatIsGone(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	w, err := h.node.Watch("d", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Next(nil); err != nil { // the present state
		t.Fatal(err)
	}
	for range restartsMax { // another owner takes the deal over, until it is suspended
		if _, err := h.node.Deal("d"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.store.Open(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		if a := h.place("d", "u", "k", 1); !errors.Is(a.err, ErrUnavailable) {
			t.Fatalf("%+v", a)
		}
	}
	if _, err := w.Next(nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	w.Close()
}
