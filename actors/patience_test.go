package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/journal/sharded"
)

// lazyStore takes its time over each question, or for ever.
type lazyStore struct {
	*journaltest.Memory
	takes  atomic.Int64 // ns
	orders atomic.Bool  // events are read no more
}

func (s *lazyStore) think(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(s.takes.Load())):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", journal.ErrUnreachable, ctx.Err())
	}
}

func (s *lazyStore) Head(ctx context.Context, stream string) (journal.Head, error) {
	if err := s.think(ctx); err != nil {
		return journal.Head{}, err
	}
	return s.Memory.Head(ctx, stream)
}

func (s *lazyStore) Open(ctx context.Context, stream string) (journal.Head, error) {
	if err := s.think(ctx); err != nil {
		return journal.Head{}, err
	}
	return s.Memory.Open(ctx, stream)
}

func (s *lazyStore) Get(ctx context.Context, stream string, seq uint64, dst []byte) ([]byte, error) {
	if s.orders.Load() {
		<-ctx.Done()
		return nil, fmt.Errorf("%w: %w", journal.ErrUnreachable, ctx.Err())
	}
	return s.Memory.Get(ctx, stream, seq, dst)
}

// Finding a deal and loading it each take less than a request may, and together more.
func TestOneDeadlineForOneRequest(t *testing.T) {
	store := &lazyStore{Memory: journaltest.NewMemory()}
	v := newTownOver(t, store)
	a := v.join("a", func(c *Config, _ *clockd.Config) { c.RequestTimeout = time.Second })
	b := v.join("b", nil)
	b.members.Store(&[]string{"b"})
	b.open([]string{"d"})
	b.members.Store(&[]string{"a"})
	a.members.Store(&[]string{"a"}) // which has not looked at the journal since
	store.takes.Store(int64(700 * time.Millisecond))
	if _, err := a.node.Deal(t.Context(), "d"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after more than a second: %v", err)
	}
	a.eventually("the deal is there", func() bool { _, err := a.node.Deal(t.Context(), "d"); return err == nil })

	store.takes.Store(0)
	patient := v.join("patient", func(c *Config, _ *clockd.Config) { c.RequestTimeout = time.Minute })
	patient.members.Store(&[]string{"b"})
	b.stuck.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := patient.node.Order(ctx, "d", 2); !errors.Is(err, ErrDeadline) || time.Since(begin) > 20*time.Second {
		t.Errorf("an order, after %v: %v", time.Since(begin), err)
	}
	patient.eventually("no seat is taken", func() bool { return patient.node.Stats().Pool.InUse == 0 })
}

// That there is no such order is looked up before it is said, and for no longer than
// anybody waits.
func TestDenialWithoutAJournal(t *testing.T) {
	store := &lazyStore{Memory: journaltest.NewMemory()}
	v := newTownOver(t, store)
	a := v.join("a", func(c *Config, _ *clockd.Config) { c.RequestTimeout = 5 * time.Second })
	v.agree("a")
	a.open([]string{"d"})
	store.orders.Store(true)
	said := make(chan answer)
	go func() { said <- a.change(deal.Confirm, "d", 77) }()
	select {
	case got := <-said:
		if !errors.Is(got.err, ErrUnavailable) {
			t.Errorf("%+v", got)
		}
	case <-time.After(time.Minute):
		t.Error("it is still being looked up")
	}
	if n := a.node.Stats().Pool.InUse; n != 0 {
		t.Errorf("%d seats are still taken", n)
	}
}

// Who cannot have a deal because as many as may are being loaded is told just that,
// whoever asks.
func TestFullQueueOfLoads(t *testing.T) {
	for name, alone := range map[string]bool{"alone": true, "in a cluster": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &lazyStore{Memory: journaltest.NewMemory()}
			v := newTownOver(t, store)
			r := v.join("a", func(c *Config, _ *clockd.Config) {
				c.Workers, c.RequestTimeout = 1, 5*time.Second // a tenth of it is left to say so
				if alone {
					c.Peers, c.Member = nil, ""
				}
			})
			v.agree("a")
			ids := []string{"d0", "d1", "d2", "d3", "d4"}
			r.open(ids)
			for _, a := range r.node.active.list(func(*activation) bool { return true }) {
				a.abandon(errAgain)
			}
			store.takes.Store(int64(time.Hour))
			for _, id := range ids[:2] { // all places
				e := r.node.directory.find([]byte(id))
				if _, err := r.node.activate(e); err != nil {
					t.Fatal(err)
				}
			}
			r.eventually("both load", func() bool { return len(r.node.loadSlots[0]) == 2 })
			looked := make(chan error)
			go func() {
				_, err := r.node.Deal(t.Context(), ids[2])
				looked <- err
			}()
			if a := r.place(ids[3], "u", "k", 1); !errors.Is(a.err, ErrOverloaded) {
				t.Errorf("an order: %v", a.err)
			}
			if err := <-looked; !errors.Is(err, ErrOverloaded) {
				t.Errorf("a look: %v", err)
			}
			store.takes.Store(0)
		})
	}
}

// deafTables applies nothing for somebody who has gone.
type deafTables struct{ journal.Tables }

func (t deafTables) Apply(ctx context.Context, rows []journal.Mutation, durable bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.Tables.Apply(ctx, rows, durable)
}

// deafStore opens a stream called slow for ever, and has deafTables.
type deafStore struct {
	*journaltest.Memory
	slow atomic.Bool
}

func (s *deafStore) Tables() journal.Tables { return deafTables{s.Memory.Tables()} }

func (s *deafStore) Open(ctx context.Context, stream string) (journal.Head, error) {
	if stream == "slow" && s.slow.Load() {
		<-ctx.Done()
		return journal.Head{}, ctx.Err()
	}
	return s.Memory.Open(ctx, stream)
}

// What a reader of a list has derived before its time was over is written all the same.
func TestListsOutliveTheirReader(t *testing.T) {
	store := &deafStore{Memory: journaltest.NewMemory()}
	h := &house{t: t, clock: clockd.NewManual(start)} // which does not move: nobody else sees to the lists
	var err error
	h.node, err = NewNode(t.Context(), store, h.clock.Clock(), Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) }, RequestTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.node.Close() })
	h.create("quick", nil)
	h.create("slow", nil)
	e := h.node.directory.find([]byte("slow"))
	e.active.Load().abandon(errAgain)
	store.slow.Store(true)
	if _, _, err := h.node.Deals(t.Context(), DealQuery{Limit: 10}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the other deal is in the lists", func() bool {
		_, err := store.Memory.Tables().Get(t.Context(), tableDeals, "quick")
		return err == nil
	})
}

// Of two servers that keep the journal, one falls silent. More shoppers than the node has
// places want its deals; the deals of the other are served.
func TestSilentShardLeavesRoom(t *testing.T) {
	server := &silentStore{Memory: journaltest.NewMemory(), within: 300 * time.Millisecond}
	store := sharded.New([]journal.Store{journaltest.NewMemory(), server}, Beside)
	h, ids := onTwoServers(t, store, Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) }, Workers: 2, InFlightMax: 40, RequestTimeout: 20 * time.Second,
	}, 1, 20)
	defer h.node.Close()
	server.silent.Store(true)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var all sync.WaitGroup
	var turnedAway atomic.Int32
	for k := range 80 {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if a := h.place(ids[1][k%len(ids[1])], fmt.Sprint("u", k), fmt.Sprint(i), 1); errors.Is(a.err, errShardCrowded) {
					turnedAway.Add(1)
				}
				time.Sleep(50 * time.Millisecond) // a shopper's
			}
		})
	}
	for turnedAway.Load() == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	// Those who are turned away have a place for a moment, which is long on a busy machine.
	served, overloaded := 0, 0
	for i := 0; served < 100 && overloaded < 1000; i++ {
		switch a := h.place(ids[0][0], fmt.Sprint("x", i), "k", 1); {
		case a.err == nil:
			served++
		case errors.Is(a.err, ErrOverloaded):
			overloaded++
		default:
			t.Fatalf("order %d at the other server: %v", i, a.err)
		}
		time.Sleep(5 * time.Millisecond) // the next shopper comes
	}
	if served < 100 {
		t.Errorf("%d orders at the other server were served, %d refused", served, overloaded)
	}
	stop()
	all.Wait()
	for begin := time.Now(); h.node.Stats().Pool.InUse > 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d seats are still taken", h.node.Stats().Pool.InUse)
		}
	}
}

// brokenTables takes no rows.
type brokenTables struct {
	journal.Tables
	tries *atomic.Int64
}

func (t brokenTables) Apply(context.Context, []journal.Mutation, bool) error {
	t.tries.Add(1)
	return errors.New("away")
}

type brokenStore struct {
	*journaltest.Memory
	broken atomic.Bool
	tries  atomic.Int64
}

func (s *brokenStore) Tables() journal.Tables {
	if s.broken.Load() {
		return brokenTables{s.Memory.Tables(), &s.tries}
	}
	return s.Memory.Tables()
}

// That the journal is away is said every ten seconds, however often it is tried.
func TestWhatKeepsFailingIsToldNowAndThen(t *testing.T) {
	var told atomic.Int64
	store := &brokenStore{Memory: journaltest.NewMemory()}
	h := &house{t: t, clock: clockd.NewManual(start)}
	var err error
	h.node, err = NewNode(t.Context(), store, h.clock.Clock(), Config{
		Rules: rulesFunc(tenPercent), Logger: slog.New(lines{slog.DiscardHandler, &told}), Fatal: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.node.Close() })
	store.broken.Store(true)
	pass := func(tries int64) {
		goal := store.tries.Load() + tries
		h.eventually("it is tried", func() bool {
			h.clock.Advance(markEvery)
			return store.tries.Load() >= goal
		})
	}
	begin := h.node.clock.Now().Mono
	pass(20)
	if n, most := told.Load(), 1+(h.node.clock.Now().Mono-begin)/int64(reportAgain); n == 0 || n > most {
		t.Errorf("it was told %d times, and should be %d times at most", n, most)
	}
	h.clock.Advance(reportAgain)
	pass(2)
	h.eventually("it is told again", func() bool { return told.Load() >= 2 })
}

// lines counts the log lines about a mark of the clock.
type lines struct {
	slog.Handler
	count *atomic.Int64
}

func (lines) Enabled(context.Context, slog.Level) bool { return true }

func (h lines) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.String() == "clock mark" {
			h.count.Add(1)
		}
		return true
	})
	return nil
}

// TestWatchOfADealThatDoesNotLeave: a deal on its way out of memory may take as long as the
// journal does. Whoever wants to watch it is told after what any request may take.
func TestWatchOfADealThatDoesNotLeave(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.RequestTimeout = 100 * time.Millisecond })
	h.create("d", nil)
	b := &h.node.directory.find([]byte("d")).active.Load().board
	b.mu.Lock()
	b.leaving = true
	b.mu.Unlock()
	told := make(chan error, 1)
	go func() {
		_, err := h.node.Watch("d", 0)
		told <- err
	}()
	select {
	case err := <-told:
		if !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it still waits")
	}
}
