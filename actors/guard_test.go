package actors

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/guard"
	"github.com/doorbuster/doorbuster/runtime/guard/redistest"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// sentry is a Guard that notes what it is told.
type sentry struct {
	next     func(*journal.Write)
	refuse   atomic.Bool // the next write
	refusing atomic.Bool // all that takes room
	closed   atomic.Bool

	mu   sync.Mutex
	told []told
}

type told struct {
	stream      string
	seq         uint64
	count       int
	taken, left int64
	landed      uint64
}

func (s *sentry) Start(next func(*journal.Write)) { s.next = next }
func (s *sentry) Refusing() bool                  { return s.refusing.Load() }
func (s *sentry) Close()                          { s.closed.Store(true) }

func (s *sentry) Submit(w *journal.Write, taken, left int64, landed uint64) {
	s.mu.Lock()
	s.told = append(s.told, told{w.Stream, w.Seq, w.Count, taken, left, landed})
	s.mu.Unlock()
	if s.refuse.Swap(false) {
		w.Epoch = 0
	}
	s.next(w)
}

func TestGuardIsToldOfEachWrite(t *testing.T) {
	s := &sentry{}
	t.Cleanup(func() {
		if !s.closed.Load() {
			t.Error("the node has ended and its guard has not")
		}
	})
	h := newHouse(t, func(c *Config) { c.Guard = s })
	h.create("d", nil)
	order := h.place("d", "u", "k", 3)
	h.place("d", "v", "k", 2)
	if a := h.change(deal.Cancel, "d", order.seq); a.err != nil {
		t.Fatal(a.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := []told{{"d", 1, 1, -10, 10, 0}, {"d", 2, 1, 3, 7, 1}, {"d", 3, 1, 2, 5, 2}, {"d", 4, 1, -3, 8, 3}}
	if !slices.Equal(s.told, want) {
		t.Errorf("it was told\n%+v\nwant\n%+v", s.told, want)
	}
}

func TestGuardRefuses(t *testing.T) {
	s := &sentry{}
	h := newHouse(t, func(c *Config) { c.Guard = s })
	h.create("d", nil)
	s.refuse.Store(true)
	if a := h.place("d", "u", "k", 1); !errors.Is(a.err, ErrUnavailable) {
		t.Fatalf("a refused order: %+v", a)
	}
	if a := h.place("d", "u", "k", 1); a.code != deal.OK || a.again || a.left != 9 {
		t.Fatalf("the next activation: %+v", a)
	}
}

func TestStrictGuardKeepsOrdersOut(t *testing.T) {
	s := &sentry{}
	h := newHouse(t, func(c *Config) { c.Guard = s })
	h.create("d", nil)
	order := h.place("d", "u", "k", 1)
	s.refusing.Store(true)
	if a := h.place("d", "v", "k", 1); !errors.Is(a.err, ErrUnavailable) {
		t.Errorf("an order: %+v", a)
	}
	if a := h.change(deal.Confirm, "d", order.seq); a.err != nil {
		t.Errorf("a confirmation: %v", a.err)
	}
	s.refusing.Store(false)
	if a := h.place("d", "v", "k", 1); a.code != deal.OK || a.left != 8 {
		t.Errorf("an order after it: %+v", a)
	}
}

// newLiar is a guard whose Redis answers every claim with the same letter.
func newLiar(t *testing.T, letter string) Guard {
	t.Helper()
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Start()
	t.Cleanup(clock.Close)
	g, err := guard.New(guard.Config{
		URL:   redistest.Liar(t, func(keys int) string { return redistest.Bulk(strings.Repeat(letter, keys)) }),
		Clock: clock, Logger: discard, Patience: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// A Redis that says yes to everything authorises nothing.
func TestYesIsNoAuthority(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Guard, c.Workers = newLiar(t, "+"), 4 })
	h.create("d", nil)
	var won atomic.Int64
	var wg sync.WaitGroup
	for u := range 4 {
		wg.Go(func() {
			for i := range 10 {
				if a := h.place("d", strconv.Itoa(u), strconv.Itoa(i), 1); a.err == nil && a.code == deal.OK {
					won.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if v, err := h.node.Deal(t.Context(), "d"); err != nil || won.Load() != 10 || v.Available != 0 {
		t.Errorf("%d orders of a stock of 10; %+v, %v", won.Load(), v, err)
	}
	h.create("e", nil)
	h.place("e", "u", "k", 1)
	if _, err := h.store.Open(t.Context(), "e"); err != nil { // somebody else takes over
		t.Fatal(err)
	}
	if a := h.place("e", "u", "k2", 1); !errors.Is(a.err, ErrUnavailable) {
		t.Errorf("an order of a fenced activation: %+v", a)
	}
	if a := h.place("e", "u", "k2", 1); a.code != deal.OK || a.left != 8 {
		t.Errorf("the next activation: %+v", a)
	}
}

// One that says no to everything sells nothing, and costs no stock either.
func TestNoCostsNoStock(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Guard = newLiar(t, "e") })
	a := h.do("d", 0, func(c *deal.Command) {
		c.Kind, c.Spec = deal.Create, &deal.Spec{
			ID: "d", Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 1, Stock: 10,
			StartsAt: start, ReserveTTL: deal.DefaultTTL,
		}
	})
	if !errors.Is(a.err, ErrUnavailable) {
		t.Errorf("a deal was made: %+v", a)
	}
	if head, err := h.store.Head(t.Context(), "d"); err == nil && head.Seq != 0 {
		t.Errorf("the journal has %+v", head)
	}
}
