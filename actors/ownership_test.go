package actors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

func TestEveryRequestOnEveryNode(t *testing.T) {
	v := newTown(t, "a", "b", "c")
	for _, name := range []string{"a", "b", "c"} {
		owner := v.node(name)
		id := owner.ids(1)[0]
		v.node("a").create(id, func(s *deal.Spec) { s.StartsAt, s.Group = 0, deal.GroupSpec{Size: 2, Window: 60_000, UnitPrice: 5000} })
		for i, at := range []string{"a", "b", "c"} {
			r := v.node(at)
			user, key := fmt.Sprint("u", i), "k"
			placed := r.place(id, user, key, 2)
			if placed.err != nil || placed.code != deal.OK || placed.total != 17820 || placed.view.Spec.Merchant != "acme" {
				t.Fatalf("place in %s by %s: %+v", id, at, placed)
			}
			if again := r.place(id, user, key, 2); !again.again || again.seq != placed.seq {
				t.Errorf("same key: %+v", again)
			}
			if other := r.place(id, user, key, 3); other.code != deal.IdempotencyMismatch {
				t.Errorf("same key, other body: %+v", other)
			}
			if q := r.do(id, priority, func(c *deal.Command) { c.Kind, c.User, c.Quantity = deal.Quote, []byte("q"), 1 }); q.code != deal.OK || q.total != 8910 {
				t.Errorf("quote: %+v", q)
			}
			if c := r.change(deal.Confirm, id, placed.seq); c.err != nil || c.status != deal.Confirmed {
				t.Errorf("confirm: %+v", c)
			}
			if c := r.change(deal.Cancel, id, placed.seq); c.code != deal.OrderStateConflict {
				t.Errorf("cancel after confirm: %+v", c)
			}
			o, err := r.node.Order(t.Context(), id, placed.seq)
			if err != nil || o.Status != deal.Confirmed || string(o.Event.Placed.User) != user || o.Currency != [3]byte{'C', 'N', 'Y'} {
				t.Errorf("order: %+v, %v", o, err)
			}
			var replay Order
			if err := r.node.LoadOrder(t.Context(), id, placed.seq, &replay); err != nil || string(replay.Event.Placed.Key) != key {
				t.Errorf("replay: %+v, %v", replay, err)
			}
			if d, err := r.node.Deal(t.Context(), id); err != nil || d.Sold != int64(2*i+2) {
				t.Errorf("deal: %+v, %v", d, err)
			}
			if title := "Litchi"; r.do(id, priority, func(c *deal.Command) { c.Kind, c.Patch = deal.Change, &deal.Patch{Title: &title} }).view.Spec.Title != title {
				t.Error("the change does not show")
			}
			events := 0
			if _, err := r.node.Events(t.Context(), id, 0, func(*deal.View, *deal.Event) error { events++; return nil }); err != nil || events != 1+3*(i+1) {
				t.Errorf("%d events, %v", events, err)
			}
			if orders, _, err := r.node.Orders(t.Context(), OrderQuery{Deal: id, Limit: 10}); err != nil || len(orders) != i+1 {
				t.Errorf("%d orders of the deal, %v", len(orders), err)
			}
		}
	}
	if a := v.node("b").place("nowhere", "u", "k", 1); !errors.Is(a.err, ErrDealNotFound) {
		t.Errorf("unknown deal: %+v", a)
	}
	if _, err := v.node("b").node.Deal(t.Context(), "nowhere"); !errors.Is(err, ErrDealNotFound) {
		t.Errorf("unknown deal: %v", err)
	}
	if a := v.node("a").do("bad", priority, func(c *deal.Command) { c.Kind, c.Spec = deal.Create, &deal.Spec{ID: "bad", UnitPrice: -1} }); a.code != deal.DealInvalid {
		t.Errorf("bad terms: %+v", a)
	}
}

// unlistedStore does not say which streams it has while it is away.
type unlistedStore struct {
	*journaltest.Memory
	away  atomic.Bool
	asked atomic.Int32
}

func (s *unlistedStore) Streams(ctx context.Context, prefix string, fn func(string, journal.Head) error) error {
	if s.away.Load() {
		s.asked.Add(1)
		return journal.ErrUnreachable
	}
	return s.Memory.Streams(ctx, prefix, fn)
}

// TestSettled: a node that has become a member looks which deals are its own before it
// says that it knows, also while the journal does not answer.
func TestSettled(t *testing.T) {
	store := &unlistedStore{Memory: journaltest.NewMemory()}
	v := newTownOver(t, store)
	a := v.join("a", nil)
	if a.node.Settled() {
		t.Error("settled before it was a member")
	}
	store.away.Store(true)
	v.agree("a")
	a.eventually("it has looked in vain", func() bool { return store.asked.Load() > 0 })
	if a.node.Settled() {
		t.Error("settled without the journal")
	}
	store.away.Store(false)
	v.agree("a")
	a.eventually("it knows", a.node.Settled)
	v.agree("a", "b")
	if !a.node.Settled() {
		t.Error("others come and go, and it gets no traffic")
	}
}

// TestListsAcrossNodes: what was acknowledged anywhere is in the lists everywhere.
func TestListsAcrossNodes(t *testing.T) {
	v := newTown(t, "a", "b", "c")
	want := 0
	for _, name := range []string{"a", "b", "c"} {
		ids := v.node(name).ids(3)
		v.node("b").open(ids)
		for _, id := range ids {
			if a := v.node("c").place(id, "shopper", "k", 1); a.code != deal.OK || a.err != nil {
				t.Fatalf("%+v", a)
			}
			want++
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		deals, _, err := v.node(name).node.Deals(t.Context(), DealQuery{Limit: 100})
		if err != nil || len(deals) != want || deals[0].Reserved != 1 {
			t.Errorf("%s: %d deals of %d, %v", name, len(deals), want, err)
		}
		orders, _, err := v.node(name).node.Orders(t.Context(), OrderQuery{User: "shopper", Limit: 100})
		if err != nil || len(orders) != want {
			t.Errorf("%s: %d orders of %d, %v", name, len(orders), want, err)
		}
	}
}

// TestLongIDsAreFoundAnywhere: the ids of their orders do not hold them.
func TestLongIDsAreFoundAnywhere(t *testing.T) {
	v := newTown(t, "a", "b")
	id := strings.Repeat("x", deal.MaxIDLen)
	v.node("a").open([]string{id})
	name := deal.AppendName(nil, id)
	for _, at := range []string{"a", "b"} {
		if got, err := v.node(at).node.DealID(t.Context(), name); got != id {
			t.Errorf("%s: %s is %q, %v", at, name, got, err)
		}
		for _, none := range []string{"nothing", strings.Repeat("y", deal.MaxNameLen)} {
			if got, err := v.node(at).node.DealID(t.Context(), []byte(none)); !errors.Is(err, ErrDealNotFound) {
				t.Errorf("%s: %s is %q, %v", at, none, got, err)
			}
		}
	}
	v.node("b").deaf.Store(true)
	if got, err := v.node("a").node.DealID(t.Context(), bytes.Repeat([]byte("y"), deal.MaxNameLen)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("it is %q, %v, but b was not asked", got, err)
	}
}

// TestMembersChangeUnderLoad: nodes come, leave and come back while shoppers order
// through all of them. Nobody sees an error, and no order is lost.
func TestMembersChangeUnderLoad(t *testing.T) {
	v := newTown(t, "a", "b")
	deals := append(v.node("a").ids(6), v.node("b").ids(6)...)
	v.node("a").open(deals)
	u := v.rush(16, deals)
	u.placed(t, 300)
	v.join("c", nil)
	v.agree("a", "b", "c")
	u.placed(t, 300)
	v.agree("b", "c") // a is leaving, and still answers
	u.placed(t, 100)
	if err := v.node("a").node.HandOver(t.Context()); err != nil {
		t.Error(err)
	}
	if st := v.node("a").node.Stats(); st.Active != 0 || st.HandedOver == 0 {
		t.Errorf("after leaving: %+v", st)
	}
	u.placed(t, 100)
	v.agree("a", "b", "c")
	u.placed(t, 300)
	if errs := u.end(); len(errs) > 0 {
		t.Errorf("%d of %d orders failed: %v", len(errs), u.count, errs[0])
	}
	t.Logf("%d orders, the longest took %v", u.count, u.longest)
	for _, d := range deals {
		v.audit(d, plenty, u.acked[d])
	}
}

// TestHandOverIsToldOnce: of two who hand the same deals over at the same time, as a node
// that leaves does, the one that does it says so.
func TestHandOverIsToldOnce(t *testing.T) {
	const deals = 3 * handedAtOnce
	var told atomic.Int64
	v := newTown(t)
	a := v.join("a", func(c *Config, _ *clockd.Config) { c.Logger = slog.New(tally{slog.DiscardHandler, &told}) })
	v.join("b", nil)
	v.agree("a")
	a.open(a.ids(deals))
	a.members.Store(&[]string{"b"})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { _ = a.node.HandOver(t.Context()) })
	}
	all.Wait()
	if told.Load() == 0 || told.Load() > deals {
		t.Errorf("%d deals were handed over, it says, of %d", told.Load(), deals)
	}
}

// TestHandOverToSomebodySilent: it is told of every deal, and its answers, which never come,
// are not waited for.
func TestHandOverToSomebodySilent(t *testing.T) {
	const deals = 3 * handedAtOnce
	v := newTown(t, "a", "b")
	v.agree("a")
	a := v.node("a")
	a.open(a.ids(deals))
	v.node("b").stuck.Store(true)
	a.members.Store(&[]string{"b"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.node.HandOver(ctx); err != nil {
		t.Errorf("whoever is told was waited for: %v", err)
	}
	v.node("b").stuck.Store(false)
	if n := v.node("b").unwoken.Load(); n != deals {
		t.Errorf("told of %d deals of %d", n, deals)
	}
}

// TestFailedOnItsWayOut: a deal whose last write failed has not moved, and who waits for it is
// told so.
func TestFailedOnItsWayOut(t *testing.T) {
	v := newTown(t, "a")
	a := v.node("a")
	a.open([]string{"d"})
	leaving := a.node.directory.find([]byte("d")).active.Load()
	leaving.fail(errors.New("planted"))
	leaving.depart(&departure{})
	if leaving.moved.Load() || a.node.Stats().HandedOver != 0 {
		t.Error("it was handed over")
	}
}

// TestHandedDealsWaitForNobody: a node that is given deals waits for nobody else whom it may
// have asked for them, of whom one may just have died.
func TestHandedDealsWaitForNobody(t *testing.T) {
	v := newTown(t, "a", "b", "dead")
	v.agree("a")
	a, b := v.node("a"), v.node("b")
	ids := a.ids(12)
	a.open(ids)
	v.node("dead").stuck.Store(true)
	a.members.Store(&[]string{"b"})
	b.members.Store(&[]string{"b"})
	if err := a.node.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	waited := 0
	for _, id := range ids {
		begin := time.Now()
		if got := b.place(id, "u", "k", 1); got.err != nil {
			t.Errorf("%+v", got)
		}
		if time.Since(begin) > releaseWait/2 {
			waited++
		}
	}
	if waited == len(ids) { // some may have met a busy machine
		t.Error("each deal took as if somebody who does not answer were waited for")
	}
	v.node("dead").stuck.Store(false)
}

// TestMovedBeforeItsTurn: a deal that has become another node's while it waited here to be
// loaded is not opened here, and whoever waits for it follows it.
func TestMovedBeforeItsTurn(t *testing.T) {
	for name, follow := range map[string]func(a *resident, here *activation, turn <-chan struct{}) error{
		"and is told": func(a *resident, here *activation, _ <-chan struct{}) error {
			a.believe("b")
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			return here.await(ctx) // no turn has come meanwhile
		},
		"and is not told": func(a *resident, _ *activation, turn <-chan struct{}) error {
			a.members.Store(&[]string{"b"})
			<-turn
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newTown(t)
			a := v.join("a", func(c *Config, _ *clockd.Config) {
				c.Workers = 1
				c.RequestTimeout = time.Hour // nobody follows because of lost patience
			})
			b := v.join("b", nil)
			v.agree("b")
			b.open([]string{"d"})
			a.node.Learn("d")
			e, turns := a.node.directory.find([]byte("d")), a.node.loadSlots[0]
			for range cap(turns) {
				turns <- struct{}{}
			}
			v.agree("a")
			placed, read := make(chan answer), make(chan error)
			go func() { placed <- a.place("d", "u", "k", 1) }()
			var here *activation
			a.eventually("the deal waits for its turn", func() bool {
				here = e.active.Load()
				return here != nil && here.queued.Load() && b.node.active.len() == 0
			})
			go func() {
				_, err := a.node.Deal(t.Context(), "d")
				read <- err
			}()
			b.members.Store(&[]string{"b"})
			if err := follow(a, here, turns); err != nil {
				t.Fatalf("it still waits: %v", err)
			}
			if got := <-placed; got.err != nil || got.code != deal.OK {
				t.Errorf("who ordered: %v, code %d", got.err, got.code)
			}
			if err := <-read; err != nil {
				t.Errorf("who read: %v", err)
			}
			<-turns
			if <-here.tried; here.epoch != 0 {
				t.Errorf("its stream was opened here: epoch %d", here.epoch)
			}
		})
	}
}

// tally adds up the deals that log lines are about.
type tally struct {
	slog.Handler
	deals *atomic.Int64
}

func (tally) Enabled(context.Context, slog.Level) bool { return true }

func (h tally) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "deals" {
			h.deals.Add(a.Value.Int64())
		}
		return true
	})
	return nil
}

// TestDisagreement: two nodes both think that they own everything, for a while. The
// epochs decide between them, and shoppers notice nothing.
func TestDisagreement(t *testing.T) {
	v := newTown(t, "a", "b")
	deals := v.node("a").ids(3)
	v.node("a").open(deals)
	u := v.rush(8, deals)
	u.placed(t, 100)
	for range 3 {
		v.node("b").believe("b")
		v.node("a").believe("a")
		u.placed(t, 50)
		v.agree("a", "b")
		u.placed(t, 50)
	}
	if errs := u.end(); len(errs) > 0 {
		t.Errorf("%d of %d orders failed: %v", len(errs), u.count, errs[0])
	}
	t.Logf("%d orders, the longest took %v", u.count, u.longest)
	for _, d := range deals {
		v.audit(d, plenty, u.acked[d])
	}
}

// TestNoReleaseNeeded: the old owner neither answers nor gives way. After a second the
// next one takes over all the same, and the old one's next write is refused.
func TestNoReleaseNeeded(t *testing.T) {
	v := newTown(t, "a", "b")
	id := v.node("a").ids(1)[0]
	v.node("a").open([]string{id})
	if a := v.node("a").place(id, "u", "k1", 1); a.code != deal.OK {
		t.Fatalf("%+v", a)
	}
	v.node("a").stuck.Store(true)
	v.node("b").believe("b")
	begin := time.Now()
	taken := v.node("b").place(id, "u", "k2", 1)
	if took := time.Since(begin); taken.code != deal.OK || taken.err != nil || took < releaseWait/2 || took > 30*releaseWait { // its deadline is a minute away
		t.Fatalf("taken over after %v: %+v", took, taken)
	}
	// a still believes that the deal is its own, and serves from what it remembers until
	// it writes, or a second has passed.
	if late := v.node("a").place(id, "u", "k3", 1); late.err != nil || late.code != deal.OK || late.seq <= taken.seq {
		t.Errorf("the old owner: %+v after %d", late, taken.seq)
	}
	v.audit(id, plenty, map[uint64]string{taken.seq: "u/k2"})
}

// TestOldOwnerDeniesNoOrder: what the next owner has acknowledged is not unknown to one
// that has not heard of it.
func TestOldOwnerDeniesNoOrder(t *testing.T) {
	v := newTown(t, "a", "b")
	id := v.node("a").ids(1)[0]
	v.node("a").open([]string{id})
	v.node("a").stuck.Store(true)
	v.node("b").believe("b")
	placed := v.node("b").place(id, "u", "k", 1)
	if placed.code != deal.OK || placed.err != nil {
		t.Fatalf("%+v", placed)
	}
	if _, err := v.node("a").node.Order(t.Context(), id, placed.seq); err != nil {
		t.Errorf("the old owner shows: %v", err)
	}
	if a := v.node("a").change(deal.Confirm, id, placed.seq); a.err != nil || a.code != deal.OK {
		t.Errorf("the old owner confirms: %+v", a)
	}
	if _, err := v.node("a").node.Order(t.Context(), id, placed.seq+1); !errors.Is(err, ErrOrderNotFound) {
		t.Errorf("an order that is none: %v", err)
	}
}

// TestNewerEpochIsNoticed: an owner that nobody writes to learns of the next one.
func TestNewerEpochIsNoticed(t *testing.T) {
	v := newTown(t, "a")
	id := v.node("a").ids(1)[0]
	v.node("a").open([]string{id})
	v.node("a").members.Store(nil) // or it would take the deal back
	if _, err := v.store.Open(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	v.node("a").eventually("the activation gives way", func() bool { return v.node("a").node.Stats().Active == 0 })
}

// TestLost: without its lease a node ends all it has, and follows whoever has it then.
func TestLost(t *testing.T) {
	v := newTown(t, "a", "b")
	deals := v.node("a").ids(4)
	v.node("a").open(deals)
	u := v.rush(8, deals)
	u.placed(t, 100)
	v.node("a").members.Store(nil)
	v.node("a").node.Lost()
	if n := v.node("a").node.active.len(); n != 0 {
		t.Errorf("%d deals are active without a lease", n)
	}
	v.agree("b")
	u.placed(t, 200)
	if errs := u.end(); len(errs) > 0 {
		t.Errorf("%d of %d orders failed: %v", len(errs), u.count, errs[0])
	}
	for _, d := range deals {
		v.audit(d, plenty, u.acked[d])
	}
}

// TestBrokenLinks: answers are lost after the orders were placed. They are sent again,
// and their keys find what they came to.
func TestBrokenLinks(t *testing.T) {
	v := newTown(t, "b")
	v.join("a", func(c *Config, _ *clockd.Config) { c.RequestTimeout = 10 * time.Second })
	v.agree("a", "b")
	id := v.node("b").ids(1)[0]
	v.node("b").open([]string{id})
	v.node("b").mute.Store(true)
	got := make(chan answer)
	go func() { got <- v.node("a").place(id, "u", "k", 1) }()
	v.node("b").eventually("the answer is lost", func() bool { return v.node("b").lost.Load() > 0 })
	v.node("b").mute.Store(false)
	if a := <-got; a.err != nil || !a.again || a.seq != 2 {
		t.Errorf("after its answer was lost: %+v", a)
	}

	v.node("b").mute.Store(true)
	change := v.node("a").do(id, priority, func(c *deal.Command) { c.Kind, c.Patch = deal.Change, &deal.Patch{StockAdd: 5} })
	if !errors.Is(change.err, ErrDeadline) {
		t.Errorf("what cannot be sent again: %+v", change)
	}
	v.node("b").mute.Store(false)
	if d, err := v.node("a").node.Deal(t.Context(), id); err != nil || d.Stock != plenty+5 {
		t.Errorf("it was done once: %+v, %v", d, err)
	}

	// A node that is gone: its deals wait for the members to change.
	v.node("b").deaf.Store(true)
	go func() { got <- v.node("a").place(id, "u", "k2", 1) }()
	time.Sleep(20 * time.Millisecond)
	v.node("a").believe("a")
	if a := <-got; a.err != nil || a.code != deal.OK || a.seq != 4 {
		t.Errorf("after the owner has gone: %+v", a)
	}
	if n := v.node("a").node.Stats().Pool.InUse; n != 0 {
		t.Errorf("%d seats are still taken", n)
	}
}

// TestNobodyOwns: an order waits for an owner until its deadline, and is then refused
// for certain.
func TestNobodyOwns(t *testing.T) {
	v := newTown(t)
	r := v.join("a", func(c *Config, _ *clockd.Config) { c.RequestTimeout = 200 * time.Millisecond })
	if a := r.place("d", "u", "k", 1); !errors.Is(a.err, ErrUnavailable) {
		t.Errorf("nobody owns the deal: %+v", a)
	}
	if n := r.node.Stats().Pool.InUse; n != 0 {
		t.Errorf("%d seats are still taken", n)
	}
}

// TestTimeDoesNotGoBackOnAMove: the next owner's clock is an hour behind.
func TestTimeDoesNotGoBackOnAMove(t *testing.T) {
	v := newTown(t)
	ahead := v.join("ahead", func(_ *Config, c *clockd.Config) { c.Floor = time.Now().Add(time.Hour).UnixMilli() })
	v.join("behind", nil)
	v.agree("ahead")
	ahead.open([]string{"d"})
	first := ahead.place("d", "u", "k1", 1)
	v.agree("behind")
	second := v.node("behind").place("d", "u", "k2", 1)
	third := ahead.place("d", "u", "k3", 1) // stamped by the owner, not on the way
	v.audit("d", plenty, map[uint64]string{first.seq: "u/k1", second.seq: "u/k2", third.seq: "u/k3"})
}

// TestWhatIsDueMovesToo: a hold expires on the node that its deal was handed to, though
// nobody asks there for the deal.
func TestWhatIsDueMovesToo(t *testing.T) {
	v := newTown(t, "a", "b")
	id := v.node("a").ids(1)[0]
	v.node("a").create(id, func(s *deal.Spec) { s.StartsAt, s.ReserveTTL = 0, 2000 })
	if a := v.node("a").place(id, "u", "k", 1); a.code != deal.OK {
		t.Fatalf("%+v", a)
	}
	v.agree("b")
	v.node("b").eventually("the hold expires", func() bool {
		last := deal.Kind(0)
		_ = v.store.Read(t.Context(), id, 0, func(e journal.Event) error { last = deal.Kind(e.Data[0]); return nil })
		return last == deal.OrderExpired
	})
	v.node("a").eventually("the old owner has let go", func() bool { return v.node("a").node.Stats().Active == 0 })
}

// TestWatchAcrossNodes: who watches on another node sees the same, also while the deal
// moves.
func TestWatchAcrossNodes(t *testing.T) {
	v := newTown(t, "a", "b", "c")
	id := v.node("a").ids(1)[0]
	v.node("a").open([]string{id})
	stop := make(chan struct{})
	defer close(stop)
	var watches []*Watch
	for _, name := range []string{"a", "b", "b", "c"} {
		w, err := v.node(name).node.Watch(id, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		watches = append(watches, w)
	}
	if st := v.node("b").node.Stats(); st.Watched != 1 {
		t.Errorf("%d followers for two who watch one deal", st.Watched)
	}
	sees := func(reserved int64) {
		t.Helper()
		for i, w := range watches {
			for seen := int64(-1); seen != reserved; {
				updates, err := w.Next(stop)
				if err != nil {
					t.Fatalf("watch %d: %v", i, err)
				}
				for _, u := range updates {
					seen = u.View.Reserved
				}
			}
		}
	}
	sees(0)
	for i, owners := range [][]string{{"a", "b", "c"}, {"b"}, {"c"}, {"a"}} {
		v.agree(owners...)
		if a := v.node("b").place(id, "u", fmt.Sprint("k", i), 1); a.code != deal.OK {
			t.Fatalf("%+v", a)
		}
		sees(int64(i + 1))
	}
	if _, err := v.node("b").node.Watch("nowhere", 0); !errors.Is(err, ErrDealNotFound) {
		t.Errorf("watch nowhere: %v", err)
	}
}

// TestPanicsGiveSeatsBack: what panics while a message of another node is served is the
// end of that message, and takes no seat along.
func TestPanicsGiveSeatsBack(t *testing.T) {
	v := newTown(t)
	n := v.join("a", func(c *Config, _ *clockd.Config) {
		c.Prepare = func(context.Context, string, []string) { panic(poison) }
	}).node
	v.agree("a")
	deadline := n.deadline()
	for name, r := range map[string]*Request{
		"on the link's goroutine": {Cmd: deal.Command{Kind: deal.Place, User: []byte("u"), Key: []byte("k"), Quantity: 1}},
		"on one of its own": {Cmd: deal.Command{Kind: deal.Create, Spec: &deal.Spec{
			ID: "d", Merchant: "m", Title: "t", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 1, Stock: 1, EndsAt: n.Now().Wall + 60_000,
		}}},
	} {
		if r.Deal = []byte(poison); r.Cmd.Spec != nil {
			r.Deal = []byte(r.Cmd.Spec.ID)
		}
		answered := make(chan []byte, 1)
		n.Serve("b", appendCommand(nil, r), deadline, func(b []byte) { answered <- slices.Clone(b) })
		if b := <-answered; outcome(b[0]) != outcomeUnavailable {
			t.Errorf("%s: outcome %d", name, b[0])
		}
	}
	answered := make(chan []byte, 1)
	n.Serve("b", appendText(appendOp(nil, opView), poison), deadline, func(b []byte) { answered <- slices.Clone(b) })
	if b := <-answered; outcome(b[0]) != outcomeUnavailable {
		t.Errorf("a question: outcome %d", b[0])
	}
	v.node("a").eventually("no seat is taken", func() bool { return n.Stats().Pool.InUse == 0 })
}

// stuckStore tells of each snapshot that is to be put, and puts none before its gate
// is closed.
type stuckStore struct {
	*journaltest.Memory
	begun, gate chan struct{}
}

func (s *stuckStore) PutSnapshot(ctx context.Context, stream string, epoch, seq uint64, data []byte) error {
	s.begun <- struct{}{}
	<-s.gate
	return s.Memory.PutSnapshot(ctx, stream, epoch, seq, data)
}

// TestLostOnTheWayOut: a lease is lost while a deal is leaving memory. It leaves once, and
// the next activation has the room.
func TestLostOnTheWayOut(t *testing.T) {
	store := &stuckStore{journaltest.NewMemory(), make(chan struct{}, 1), make(chan struct{})}
	v := newTownOver(t, store)
	a := v.join("a", func(c *Config, _ *clockd.Config) { c.PassivateAfter = 2 * time.Second }) // longer than the orders take
	v.agree("a")
	a.open([]string{"d"})
	for i := range snapshotAfter + 1 {
		if got := a.place("d", fmt.Sprint("u", i), "k", 1); got.err != nil {
			t.Fatal(got.err)
		}
	}
	<-store.begun
	leaving := a.node.directory.find([]byte("d")).active.Load()
	a.node.Lost()
	if got := a.place("d", "u", "again", 1); got.err != nil {
		t.Fatal(got.err)
	}
	next := a.node.directory.find([]byte("d")).active.Load()
	close(store.gate) // the node waits for it when it is closed
	if leaving == next || next == nil {
		t.Errorf("the activations are %p and %p", leaving, next)
	}
}

// slowStore commits nothing while the gate is locked.
type slowStore struct {
	*journaltest.Memory
	gate sync.Mutex
}

func (s *slowStore) Commit(group []*journal.Write) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.Memory.Commit(group)
}

// TestHandOverWaitsForItsOwnWrites: a deal is given away once what was decided for it is
// on disk, and waits for no other deal's writes.
func TestHandOverWaitsForItsOwnWrites(t *testing.T) {
	store := &slowStore{Memory: journaltest.NewMemory()}
	v := newTownOver(t, store, "a", "b")
	v.agree("a")
	v.node("a").open([]string{"busy", "idle"})
	store.gate.Lock()
	open := sync.OnceFunc(store.gate.Unlock)
	defer open()
	placed := make(chan answer)
	go func() { placed <- v.node("a").place("busy", "u", "k", 1) }()
	here := func(id string) *activation { return v.node("a").node.directory.find([]byte(id)).active.Load() }
	busy := here("busy")
	v.node("a").eventually("the order is on its way", func() bool { return busy.uncommitted.Load() > 0 })
	v.agree("b")
	v.node("a").eventually("the idle deal has left", func() bool { return here("idle") == nil })
	v.node("a").eventually("the other one is about to", func() bool { return busy.departs.Load() != nil })
	for range 20 {
		time.Sleep(time.Millisecond)
		if busy.failed.Load() {
			t.Fatal("the deal was given away before its last order was written")
		}
	}
	open()
	if a := <-placed; a.err != nil || a.code != deal.OK {
		t.Errorf("%+v", a)
	}
	v.node("b").eventually("the next owner has both", func() bool { return v.node("b").node.Stats().Active == 2 })
	v.node("a").eventually("both were handed over", func() bool { return v.node("a").node.Stats().HandedOver == 2 })
}

func TestStatuses(t *testing.T) {
	v := newTown(t, "a", "b", "c")
	const tries = 30 // of what may be late once or twice: members have a second to answer
	left := make(chan string, tries)
	d := v.join("d", func(c *Config, _ *clockd.Config) { c.Leave = func() { left <- "d" } })
	v.agree("a", "b", "c", "d")
	d.open(d.ids(2))
	v.node("c").stuck.Store(true)
	late := func(err error) bool { return errors.Is(err, ErrDeadline) || errors.Is(err, ErrUnavailable) }
	all := v.node("a").node.Statuses()
	for n := 1; n < tries && len(all) == 3 && (late(all[0].Err) || late(all[2].Err)); n++ {
		all = v.node("a").node.Statuses()
	}
	if len(all) != 3 || all[0].Member != "b" || all[0].Err != nil || all[1].Err == nil || all[2].Active != 2 || all[2].EpochLowest != 1 || all[2].Wall == 0 {
		t.Errorf("%+v", all)
	}
	err := v.node("a").node.AskToLeave("d")
	for n := 1; n < tries && late(err); n++ {
		err = v.node("a").node.AskToLeave("d")
	}
	if err != nil || <-left != "d" {
		t.Error(err)
	}
	if err := v.node("a").node.AskToLeave("x"); !errors.Is(err, ErrNoMember) {
		t.Errorf("a stranger: %v", err)
	}
}
