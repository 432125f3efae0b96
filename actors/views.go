package actors

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The lists are derived from the journal, off the order path: an order writes
// its event and nothing else. A deal's row is also the cursor up to which its
// events are in the lists, and is written in the same batch as they are.
const (
	tableDeals  = "deals"          // deal id → dealRow
	tableOrders = "orders_by_user" // user 0x00 deal 0x00 seq → nothing
)

// derivedMax bounds the rows of one batch.
const derivedMax = 1024

// views keeps the lists. touch is called with each commit, catchUp from time
// to time and before every read of a list.
type views struct {
	node  *Node
	pass  sync.Mutex // held by the one catchUp that runs
	mu    sync.Mutex // guards dirty
	dirty []*entry
}

func newViews(n *Node) *views { return &views{node: n} }

// touch notes that a deal has events that the lists lack.
func (v *views) touch(e *entry) {
	if e.dirty.Swap(true) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty = append(v.dirty, e)
}

// catchUp brings the lists to what was committed when it began. It returns
// the first error; a deal that failed is tried again with the next pass.
func (v *views) catchUp(ctx context.Context) error {
	v.pass.Lock()
	defer v.pass.Unlock()
	v.mu.Lock()
	dirty := v.dirty
	v.dirty = nil
	v.mu.Unlock()
	var first error
	for _, e := range dirty {
		e.dirty.Store(false)
		if err := v.derive(ctx, e); err != nil {
			v.touch(e)
			if first == nil {
				first = fmt.Errorf("deal %s: %w", e.id, err)
			}
		}
	}
	return first
}

// derive reads a deal's events behind its row and writes what follows from
// them. Doing it twice gives the same rows.
func (v *views) derive(ctx context.Context, e *entry) error {
	n := v.node
	row, err := v.row(ctx, e.id)
	if err != nil {
		return err
	}
	a, err := n.awake(e)
	if err != nil {
		return err
	}
	a.mu.Lock()
	now := dealRow{seq: a.committed.Seq, due: a.expiry, view: a.committed}
	a.mu.Unlock()
	if now.view.Spec == nil || now.seq == row.seq {
		return nil
	}
	if plantMarkEarly {
		_ = n.store.Tables().Apply(ctx, []journal.Mutation{{Table: tableDeals, Key: e.id, Value: now.encode()}}, false)
	}
	var batch []journal.Mutation
	var event deal.Event
	var key []byte
	err = n.store.Read(ctx, e.id, row.seq, func(je journal.Event) error {
		if je.Seq > now.seq {
			return journal.ErrStop
		}
		if deal.Kind(je.Data[0]) != deal.OrderPlaced {
			return nil
		}
		if err := event.Decode(je.Data); err != nil {
			return err
		}
		key = appendOrderKey(key[:0], event.Placed.User, e.id, je.Seq)
		if batch = append(batch, journal.Mutation{Table: tableOrders, Key: string(key), Value: present}); len(batch) < derivedMax {
			return nil
		}
		err := n.store.Tables().Apply(ctx, batch, false)
		batch = batch[:0]
		return err
	})
	if err != nil {
		return err
	}
	batch = append(batch, journal.Mutation{Table: tableDeals, Key: e.id, Value: now.encode()})
	return n.store.Tables().Apply(ctx, batch, false)
}

func (v *views) row(ctx context.Context, id string) (dealRow, error) {
	value, err := v.node.store.Tables().Get(ctx, tableDeals, id)
	if errors.Is(err, journal.ErrNotFound) {
		return dealRow{}, nil
	}
	if err != nil {
		return dealRow{}, err
	}
	return decodeDealRow(value)
}

// dealRow is a deal as the lists know it.
type dealRow struct {
	seq  uint64 // events up to this one are in the lists
	due  int64  // when the deal next needs a turn
	view deal.View
}

func (r *dealRow) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, r.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.due))
	return r.view.AppendView(b)
}

func decodeDealRow(b []byte) (dealRow, error) {
	if len(b) < 16 {
		return dealRow{}, fmt.Errorf("%w: row of a deal", deal.ErrMalformed)
	}
	view, err := deal.DecodeView(b[16:])
	return dealRow{
		seq: binary.BigEndian.Uint64(b), due: int64(binary.BigEndian.Uint64(b[8:])), view: view,
	}, err
}

// present is the value of a row that has nothing to say but that it is there.
var present = []byte{}

// appendOrderKey sorts a user's orders by deal and age. Neither ids nor names
// hold the separator; the number at the end may.
func appendOrderKey[T string | []byte](dst []byte, user T, dealID string, seq uint64) []byte {
	dst = append(append(dst, user...), 0)
	dst = append(append(dst, dealID...), 0)
	return binary.BigEndian.AppendUint64(dst, seq)
}

func splitOrderKey(key string) (dealID string, seq uint64, ok bool) {
	_, rest, ok := strings.Cut(key, "\x00")
	dealID, number, ok2 := strings.Cut(rest, "\x00")
	if !ok || !ok2 || len(number) != 8 {
		return "", 0, false
	}
	return dealID, binary.BigEndian.Uint64([]byte(number)), true
}
