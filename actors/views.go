package actors

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The lists are derived from the journal, off the order path: an order writes
// its event and nothing else. A deal's row is also the cursor up to which its
// events are in the lists, and is written in the same batch as they are.
const (
	tableDeals  = "deals"          // deal id → dealRow
	tableOrders = "orders_by_user" // user 0x00 deal 0x00 seq → nothing
)

// Beside says which deal a row of a derived table belongs to, by its key: where several
// servers keep the journal, a row lies beside its deal.
var Beside = map[string]func(key string) (deal string){
	tableDeals: func(key string) string { return key },
	tableOrders: func(key string) string {
		id, _, _ := splitOrderKey(key)
		return id
	},
}

// rowsMax bounds the rows of one batch; a deal's own row may be one more. A large one
// pays: the rows of a batch go in by their keys, and neighbours are found close by.
const rowsMax = 4096

// lists are the views of all deals: one for each server that keeps the journal, since a
// deal's rows lie beside it. A server that does not answer holds up its own.
type lists []*views

func newLists(n *Node, shards int) lists {
	l := make(lists, shards)
	for i := range l {
		l[i] = &views{node: n, pass: make(chan struct{}, 1)}
	}
	return l
}

// touch notes that a deal has events that the lists lack.
func (l lists) touch(e *entry) {
	if !e.dirty.Swap(true) {
		l[e.shard].add(e)
	}
}

// catchUp brings the lists to what was committed when it began. It returns what
// failed; a deal that failed is tried again with the next pass.
func (l lists) catchUp(ctx context.Context) error {
	if len(l) == 1 {
		return l[0].catchUp(ctx)
	}
	errs := make([]error, len(l))
	var all sync.WaitGroup
	for i, v := range l {
		all.Go(func() { errs[i] = v.catchUp(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// views keeps the lists of some deals. add is called with each commit, catchUp from time
// to time and before every read of a list.
type views struct {
	node    *Node
	mu      sync.Mutex // guards dirty
	dirty   []*entry
	keeping chore // keepUp

	pass chan struct{} // holds a token while a pass runs, which has the rest
	// rows wait to be applied, with those of other deals; keys holds their keys
	// in one piece. deals are those whose own row is among them.
	rows  []journal.Mutation
	keys  strings.Builder
	deals []derived
	// believed are those rows as this node has them; with Peers, they must be so.
	believed []journal.Expectation
	key      []byte // scratch
	event    deal.Event
	fresh    freshOrders // taken from the deal that is being derived
	gentle   bool        // the pass rests between batches, from since on
	since    int64       // Mono ns

	waiting atomic.Int32 // readers who want the pass to be over
}

// A pass that nobody waits for leaves the processor to the orders most of the time:
// in one go, the lists of a busy second would hold up all that are in flight. It
// rests restTimes as long as it worked, for at most restMax.
const (
	restTimes = 5
	restMax   = 20 * time.Millisecond
)

// derived is a deal whose events up to seq are in the batch, with its row.
type derived struct {
	deal *activation
	seq  uint64
	row  []byte
}

func (v *views) add(e *entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty = append(v.dirty, e)
}

func (v *views) touch(e *entry) { v.node.views.touch(e) }

// catchUp returns the first error.
func (v *views) catchUp(ctx context.Context) error {
	v.waiting.Add(1)
	defer v.waiting.Add(-1)
	return v.run(ctx, false)
}

// keepUp is a catchUp in the background.
func (v *views) keepUp(ctx context.Context) error { return v.run(ctx, v.node.cfg.Driver == nil) }

func (v *views) run(ctx context.Context, gentle bool) error {
	select {
	case v.pass <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	handed := false // the pass, to somebody else
	defer func() {
		if !handed {
			<-v.pass
		}
	}()
	v.gentle, v.since = gentle, clockd.Mono()
	v.mu.Lock()
	dirty := v.dirty
	v.dirty = nil
	v.mu.Unlock()
	first := v.deriveAll(ctx, dirty)
	// A simulation has one goroutine: it would wait for itself.
	if handed = ctx.Err() != nil && v.node.ctx.Err() == nil && v.node.cfg.Driver == nil; handed {
		v.node.background(v.finish)
		return errors.Join(first, ctx.Err())
	}
	if err := v.apply(ctx); first == nil {
		first = err
	}
	return first
}

// finish ends a pass whose reader has gone: what it has got so far is written all the same.
func (v *views) finish() {
	defer func() { <-v.pass }()
	ctx, cancel := v.node.Patience(v.node.ctx)
	defer cancel()
	v.node.report("lists", v.apply(ctx))
}

// deriveAll returns the first error.
func (v *views) deriveAll(ctx context.Context, dirty []*entry) (first error) {
	for i, e := range dirty {
		e.dirty.Store(false)
		err := v.derive(ctx, e)
		if err == nil {
			continue
		}
		v.touch(e)
		if first == nil {
			first = fmt.Errorf("deal %s: %w", e.id, err)
		}
		if errors.Is(err, journal.ErrUnreachable) || ctx.Err() != nil { // and so it would be for the others
			v.putBack(dirty[i+1:])
			break
		}
	}
	return first
}

// putBack keeps deals for the next pass that this one has not looked at.
func (v *views) putBack(dirty []*entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty = append(v.dirty, dirty...)
}

// derive adds to the batch what follows from a deal's events behind its row.
// Doing it twice gives the same rows.
func (v *views) derive(ctx context.Context, e *entry) error {
	a, err := v.node.awake(ctx, e)
	if errors.Is(err, errAgain) && !errors.Is(err, journal.ErrUnreachable) {
		return nil // it is another node's, and so are its rows
	}
	if err != nil {
		return err
	}
	if a.listed == 0 {
		row, value, err := v.row(ctx, e.id)
		if err != nil {
			return err
		}
		if a.listed = row.seq; v.node.cfg.Peers != nil {
			a.row = value
		}
	}
	a.mu.Lock()
	now := dealRow{seq: a.committed.Seq, due: a.expiry, view: a.committed}
	v.fresh.reset()
	v.fresh, a.fresh = a.fresh, v.fresh
	a.mu.Unlock()
	if now.view.Spec == nil || now.seq <= a.listed {
		v.tell(a)
		return nil
	}
	if plantMarkEarly {
		_ = v.node.store.Tables().Apply(ctx, []journal.Mutation{{Table: tableDeals, Key: e.id, Value: now.encode()}}, false)
	}
	if err = v.addOrders(ctx, e.id, a.listed, now.seq); err != nil {
		return err
	}
	value := now.encode()
	v.rows = append(v.rows, journal.Mutation{Table: tableDeals, Key: e.id, Value: value})
	v.deals = append(v.deals, derived{a, now.seq, value})
	if v.node.cfg.Peers != nil {
		v.believed = append(v.believed, journal.Expectation{Table: tableDeals, Key: e.id, Value: a.row})
	}
	return nil
}

// addOrders adds the rows of a deal's orders after one event up to another: from memory
// if all of them are still there, or else from the journal.
func (v *views) addOrders(ctx context.Context, id string, after, last uint64) error {
	if v.fresh.covers(after) {
		return v.fresh.each(after, func(seq uint64, user []byte) error { return v.addOrder(ctx, user, id, seq) })
	}
	return v.node.store.Read(ctx, id, after, func(je journal.Event) error {
		if je.Seq > last {
			return journal.ErrStop
		}
		if deal.Kind(je.Data[0]) != deal.OrderPlaced {
			return nil
		}
		if err := v.event.Decode(je.Data); err != nil {
			return err
		}
		return v.addOrder(ctx, v.event.Placed.User, id, je.Seq)
	})
}

// addOrder adds the row of an order, behind those that no longer fit.
func (v *views) addOrder(ctx context.Context, user []byte, dealID string, seq uint64) error {
	if len(v.rows) >= rowsMax {
		if err := v.apply(ctx); err != nil {
			return err
		}
		if err := v.rest(ctx); err != nil {
			return err
		}
	}
	v.key = appendOrderKey(v.key[:0], user, dealID, seq)
	at := v.keys.Len()
	v.keys.Write(v.key)
	v.rows = append(v.rows, journal.Mutation{Table: tableOrders, Key: v.keys.String()[at:], Value: present})
	return nil
}

// apply writes the batch. A deal whose row is not written is derived again, and so is
// one whose row an owner before or after this one has written.
func (v *views) apply(ctx context.Context) error {
	if len(v.rows) == 0 {
		return nil
	}
	err := v.write(ctx)
	for _, d := range v.deals {
		d.deal.untold = true
		if err != nil { // they may be there all the same
			d.deal.listed = 0
			v.touch(d.deal.entry)
			continue
		}
		if d.deal.listed = d.seq; v.node.cfg.Peers != nil {
			d.deal.row = d.row
		}
		v.tell(d.deal)
	}
	clear(v.rows)
	clear(v.deals)
	clear(v.believed)
	v.rows, v.deals, v.believed = v.rows[:0], v.deals[:0], v.believed[:0]
	v.keys.Reset()
	if errors.Is(err, journal.ErrConflict) {
		return nil
	}
	return err
}

// tell tells of a deal whose new events are in the lists.
func (v *views) tell(a *activation) {
	if a.untold && v.node.cfg.Listed != nil {
		v.node.cfg.Listed(a.view())
	}
	a.untold = false
}

func (v *views) write(ctx context.Context) error {
	slices.SortFunc(v.rows, func(a, b journal.Mutation) int { return strings.Compare(a.Key, b.Key) })
	if len(v.believed) == 0 {
		return v.node.store.Tables().Apply(ctx, v.rows, false)
	}
	return v.node.store.Tables().ApplyIf(ctx, v.believed, v.rows, false)
}

// rest gives the processor to others, unless somebody waits.
func (v *views) rest(ctx context.Context) error {
	if !v.gentle || v.waiting.Load() > 0 {
		return nil
	}
	worked := time.Duration(clockd.Mono() - v.since)
	err := v.node.clock.Sleep(ctx, min(restTimes*worked, restMax))
	v.since = clockd.Mono()
	return err
}

// freshOrders are the newest orders of a deal, kept so that the lists need not read
// them back. A deal that is too hot for that is read from the journal, where its events
// lie together.
type freshOrders struct {
	after  uint64 // the orders of all events behind this one are here
	begun  bool   // so far there are such events
	missed bool   // later ones did not fit
	placed []byte // as appendPlaced has them; at most freshMax bytes
}

const freshMax = 8 << 10

// appendPlaced appends an order as freshOrders has it.
func appendPlaced(dst []byte, seq uint64, user []byte) []byte {
	dst = binary.AppendUvarint(dst, seq)
	dst = binary.AppendUvarint(dst, uint64(len(user)))
	return append(dst, user...)
}

// add takes the orders of all events behind one that follow those it has.
func (f *freshOrders) add(after uint64, placed []byte) {
	if f.missed = f.missed || len(f.placed)+len(placed) > freshMax; f.missed {
		return
	}
	if !f.begun {
		f.after, f.begun = after, true
	}
	f.placed = append(f.placed, placed...)
}

func (f *freshOrders) reset() { *f = freshOrders{placed: f.placed[:0]} }

// covers says whether the orders of every event behind after are there.
func (f *freshOrders) covers(after uint64) bool { return !f.missed && f.begun && f.after <= after }

// each calls fn for the orders behind after.
func (f *freshOrders) each(after uint64, fn func(seq uint64, user []byte) error) error {
	for rest := f.placed; len(rest) > 0; {
		seq, n := binary.Uvarint(rest)
		size, m := binary.Uvarint(rest[n:])
		user := rest[n+m:][:size]
		rest = rest[n+m+int(size):]
		if seq <= after {
			continue
		}
		if err := fn(seq, user); err != nil {
			return err
		}
	}
	return nil
}

// row returns a deal's row, and its value as it stands. One that is damaged says nothing,
// as if it were not there: it is written anew.
func (v *views) row(ctx context.Context, id string) (row dealRow, value []byte, err error) {
	value, err = v.node.store.Tables().Get(ctx, tableDeals, id)
	if err == nil {
		row, err = decodeDealRow(value)
	}
	if errors.Is(err, journal.ErrNotFound) || isDamage(err) {
		return dealRow{}, value, nil
	}
	return row, value, err
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
