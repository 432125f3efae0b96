package sim

import (
	"context"
	"errors"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// rival is another node that has taken a deal over.
type rival struct {
	stream string
	head   journal.Head
}

// owner is who opened a stream last.
type owner struct {
	epoch uint64
	rival bool
}

// rivalled says whether a rival owns a deal, so that this node may show, and
// refuse by, what the deal was before.
func (w *world) rivalled() bool {
	for _, o := range w.owners {
		if o.rival {
			return true
		}
	}
	return false
}

// takeOver lets another node open a deal.
func (w *world) takeOver() {
	stream := w.shop.deals[w.rng.IntN(len(w.shop.deals))]
	head, err := w.store.Open(context.Background(), stream)
	if err != nil {
		w.fail("take over: %w", err)
		return
	}
	w.owners[stream] = owner{epoch: head.Epoch, rival: true}
	w.rivals = append(w.rivals, rival{stream, head})
}

// rivalsWrite lets a rival act on the deal that it took over.
func (w *world) rivalsWrite() {
	if len(w.rivals) == 0 || w.rng.IntN(10) != 0 {
		return
	}
	i := w.rng.IntN(len(w.rivals))
	r := w.rivals[i]
	w.rivals = append(w.rivals[:i], w.rivals[i+1:]...)
	state, err := w.replay(r.stream, r.head.Seq)
	if err != nil {
		w.fail("a rival reads: %w", err)
		return
	}
	if state.Spec == nil {
		return
	}
	event := deal.Event{Kind: deal.DealPausedAt, At: state.At}
	if state.Paused {
		event.Kind = deal.DealResumed
	}
	write := journaltest.Append(r.stream, r.head.Epoch, r.head.Seq+1, string(event.Append(nil)))
	if err := w.store.Commit([]*journal.Write{write}); err != nil {
		w.fail("a rival writes: %w", err)
		return
	}
	newest := w.owners[r.stream].epoch
	w.note("epoch %d writes to %s, the newest is %d: %v", r.head.Epoch, r.stream, newest, write.Err)
	if (newest == r.head.Epoch) != (write.Err == nil) || write.Err != nil && !errors.Is(write.Err, journal.ErrFenced) {
		w.fail("I9: epoch %d of %s, the newest is %d: %v", r.head.Epoch, r.stream, newest, write.Err)
	}
	if write.Err == nil {
		w.covered("journal", "rival's event")
	}
}

// replay applies a stream's events up to last.
func (w *world) replay(stream string, last uint64) (*deal.State, error) {
	state := deal.NewState()
	err := w.store.Read(context.Background(), stream, 0, func(je journal.Event) error {
		if je.Seq > last {
			return journal.ErrStop
		}
		var event deal.Event
		if err := event.Decode(je.Data); err != nil {
			return err
		}
		event.Seq = je.Seq
		return state.Apply(&event)
	})
	return state, err
}
