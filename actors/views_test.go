package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// watchedStore counts the times that a stream is read, and the batches of rows that do
// not come by their keys. It can refuse rows.
type watchedStore struct {
	journal.Store
	reads    atomic.Int64
	unsorted atomic.Int64
	refuse   atomic.Bool
}

type watchedTables struct {
	journal.Tables
	of *watchedStore
}

func (s *watchedStore) Read(ctx context.Context, stream string, after uint64, fn func(journal.Event) error) error {
	s.reads.Add(1)
	return s.Store.Read(ctx, stream, after, fn)
}

func (s *watchedStore) Tables() journal.Tables { return watchedTables{s.Store.Tables(), s} }

func (t watchedTables) Apply(ctx context.Context, rows []journal.Mutation, durable bool) error {
	if !slices.IsSortedFunc(rows, func(a, b journal.Mutation) int { return strings.Compare(a.Key, b.Key) }) {
		t.of.unsorted.Add(1)
	}
	if t.of.refuse.Load() && !durable {
		return errors.New("refused")
	}
	return t.Tables.Apply(ctx, rows, durable)
}

// The lists come from what the deal's activation still holds. What it holds no
// more, because it was too much or because writing the rows failed, is read from
// the journal.
func TestListsAreDerivedFromMemoryFirst(t *testing.T) {
	many := freshMax/3 + rowsMax // more bytes than are kept, and more rows than fit a batch
	for _, test := range []struct {
		name   string
		orders int
		refuse bool
		reads  int64
	}{
		{name: "few", orders: 5},
		{name: "many", orders: many, reads: 1},
		{name: "refused", orders: 5, refuse: true, reads: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := &watchedStore{Store: journaltest.NewMemory()}
			node, err := NewNode(t.Context(), store, clockd.NewManual(start).Clock(), Config{
				Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) },
			})
			if err != nil {
				t.Fatal(err)
			}
			h := &house{t: t, node: node}
			t.Cleanup(node.Close)
			listed := func() (orders int) {
				t.Helper()
				q := OrderQuery{User: "u", Limit: 100}
				for more := true; more; {
					var page []*Order
					if page, more, err = node.Orders(t.Context(), q); err != nil {
						t.Fatal(err)
					}
					for _, o := range page {
						orders++
						q.AfterDeal, q.AfterSeq = o.Deal, o.Seq
					}
				}
				return orders
			}
			h.create("d", func(s *deal.Spec) { s.Stock = int64(many) })
			if got := listed(); got != 0 {
				t.Fatalf("%d orders are listed before there were any", got)
			}
			before := store.reads.Load()
			for i := range test.orders {
				if a := h.place("d", "u", fmt.Sprint("k", i), 1); a.err != nil || a.seq != uint64(i)+2 {
					t.Fatalf("order %d: %+v", i, a)
				}
			}
			if test.refuse {
				store.refuse.Store(true)
				if err := node.views.catchUp(t.Context()); err == nil {
					t.Fatal("rows that were refused are no error")
				}
				store.refuse.Store(false)
			}
			if got := listed(); got != test.orders {
				t.Fatalf("%d orders are listed, of %d", got, test.orders)
			}
			if reads := store.reads.Load() - before; reads != test.reads {
				t.Errorf("the journal was read %d times, want %d", reads, test.reads)
			}
			if n := store.unsorted.Load(); n > 0 {
				t.Errorf("%d batches were not in order", n)
			}
		})
	}
}

// lateTables write rows, and say once that nobody knows whether they did.
type lateTables struct {
	journal.Tables
	of *lateStore
}

type lateStore struct {
	journal.Store
	lose atomic.Bool
}

func (s *lateStore) Tables() journal.Tables { return lateTables{s.Store.Tables(), s} }

func (t lateTables) Apply(ctx context.Context, rows []journal.Mutation, durable bool) error {
	err := t.Tables.Apply(ctx, rows, durable)
	if err == nil && !durable && t.of.lose.Swap(false) {
		err = journal.ErrUnreachable
	}
	return err
}

// Whoever waits for a deal's events is told of them, though the answer to the write that
// put them into the lists was lost.
func TestListedAfterALostAnswer(t *testing.T) {
	store := &lateStore{Store: journaltest.NewMemory()}
	told := make(map[string]uint64)
	node, err := NewNode(t.Context(), store, clockd.NewManual(start).Clock(), Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) },
		Listed: func(v deal.View) { told[v.Spec.ID] = v.Seq }, // in the pass alone
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	h := &house{t: t, node: node}
	h.create("d", nil)
	if a := h.place("d", "u", "k", 1); a.err != nil {
		t.Fatal(a.err)
	}
	store.lose.Store(true)
	if err := node.views.catchUp(t.Context()); err == nil || store.lose.Load() {
		t.Fatalf("the answer was not lost: %v", err)
	}
	if err := node.views.catchUp(t.Context()); err != nil || told["d"] != 2 {
		t.Errorf("%v; told of event %d", err, told["d"])
	}
}
