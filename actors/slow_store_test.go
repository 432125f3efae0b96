package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/journal/sharded"
	"github.com/doorbuster/doorbuster/runtime/own"
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

type bell chan struct{}

func (b bell) Wake() { b <- struct{}{} }

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
	// who does not wait in Call hears of it, and waits there
	r, err := h.node.Acquire(own.ClassNew)
	if err != nil {
		t.Fatal(err)
	}
	told := make(bell, 1)
	var waker own.Waker = told
	r.WakeBy(&waker)
	r.Deal, r.Cmd.Kind, r.Cmd.User, r.Cmd.Key, r.Cmd.Quantity = []byte("d"), deal.Place, []byte("u"), []byte("posted"), 1
	if err := h.node.Post(r); err != nil {
		t.Fatal(err)
	}
	<-told
	if answered, err := h.node.Poll(r); !answered || !errors.Is(err, ErrLeaving) {
		t.Fatalf("%v, %v", answered, err)
	}
	posted := make(chan error, 1)
	go func() { posted <- h.node.CallAgain(r) }()
	time.Sleep(time.Millisecond)
	close(store.hold)
	if err := <-posted; err != nil || r.Reply.Code != deal.OK {
		t.Errorf("%v, %v", err, r.Reply.Code)
	}
	h.node.Release(r)
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
		if _, err := h.node.Deal(t.Context(), "d"); err != nil {
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

// silentStore is a server that answers nothing while it is silent, and nobody knows
// better for as long as they wait.
type silentStore struct {
	*journaltest.Memory
	silent atomic.Bool
	within time.Duration // after which it is not waited for, if that is set
}

func (s *silentStore) hear(ctx context.Context) error {
	if !s.silent.Load() {
		return nil
	}
	if s.within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.within)
		defer cancel()
	}
	<-ctx.Done()
	return fmt.Errorf("%w: %w", journal.ErrUnreachable, ctx.Err())
}

func (s *silentStore) Open(ctx context.Context, stream string) (journal.Head, error) {
	if err := s.hear(ctx); err != nil {
		return journal.Head{}, err
	}
	return s.Memory.Open(ctx, stream)
}

func (s *silentStore) Tables() journal.Tables { return silentTables{s.Memory.Tables(), s} }

type silentTables struct {
	journal.Tables
	s *silentStore
}

func (t silentTables) Apply(ctx context.Context, m []journal.Mutation, durable bool) error {
	return t.ApplyIf(ctx, nil, m, durable)
}

func (t silentTables) ApplyIf(ctx context.Context, e []journal.Expectation, m []journal.Mutation, durable bool) error {
	if err := t.s.hear(ctx); err != nil {
		return err
	}
	return t.Tables.ApplyIf(ctx, e, m, durable)
}

// Of two servers that keep the journal, one that falls silent holds up its own deals,
// for no longer than anybody waits, and no others.
func TestSilentShard(t *testing.T) {
	server := &silentStore{Memory: journaltest.NewMemory()}
	store := sharded.New([]journal.Store{journaltest.NewMemory(), server}, Beside)
	listed := make(chan string, 100)
	h, ids := onTwoServers(t, store, Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) }, Workers: 1, RequestTimeout: 5 * time.Second,
		Listed: func(v deal.View) { listed <- v.Spec.ID },
	}, 5, 5)
	defer h.node.Close()
	for len(listed) > 0 {
		<-listed
	}
	if a := h.place(ids[1][0], "u", "k", 1); a.err != nil { // so that the lists owe something there
		t.Fatal(a.err)
	}
	server.silent.Store(true)
	read := make(chan error, len(ids[1]))
	for _, id := range ids[1][1:] { // more than may load at once
		go func() {
			_, err := h.node.Deal(t.Context(), id)
			read <- err
		}()
	}
	for range ids[1][1:] {
		if err := <-read; !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrOverloaded) {
			t.Errorf("a deal of the silent server: %v", err)
		}
	}
	for _, id := range ids[0] {
		if a := h.place(id, "u", "k", 1); a.err != nil {
			t.Fatalf("a deal of the other: %v", a.err)
		}
	}
	want := make(map[string]bool)
	for _, id := range ids[0] {
		want[id] = true
	}
	for late := time.After(time.Minute); len(want) > 0; {
		select {
		case id := <-listed:
			delete(want, id)
		case <-late:
			t.Fatalf("not in the lists: %v", want)
		}
	}
	if _, _, err := h.node.Deals(t.Context(), DealQuery{Limit: 100}); err != nil {
		t.Errorf("a list: %v", err)
	}
}

// refusingStore is a server that refuses connections while it is away.
type refusingStore struct {
	*journaltest.Memory
	away atomic.Bool
}

func (s *refusingStore) Open(ctx context.Context, stream string) (journal.Head, error) {
	if s.away.Load() {
		return journal.Head{}, fmt.Errorf("%w: connection refused", journal.ErrUnreachable)
	}
	return s.Memory.Open(ctx, stream)
}

// Of two servers that keep the journal, one refuses connections. More shoppers than the
// node has places want its deals, and are told at once that they cannot have them; the
// deals of the other are served, and so are its own as soon as it is back.
func TestRefusingShard(t *testing.T) {
	server := &refusingStore{Memory: journaltest.NewMemory()}
	store := sharded.New([]journal.Store{journaltest.NewMemory(), server}, Beside)
	h, ids := onTwoServers(t, store, Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) }, Workers: 2, InFlightMax: 20, RequestTimeout: time.Minute,
	}, 1, 5)
	defer h.node.Close()
	server.away.Store(true)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	const shoppers = 40
	var all sync.WaitGroup
	var refused atomic.Int32
	for k := range shoppers {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				a := h.place(ids[1][k%len(ids[1])], fmt.Sprint("u", k), fmt.Sprint(i), 1)
				switch {
				case errors.Is(a.err, ErrUnavailable):
					refused.Add(1)
				case !errors.Is(a.err, ErrOverloaded):
					t.Errorf("a deal of the server that is away: %+v", a)
				}
				time.Sleep(50 * time.Millisecond) // a shopper's
			}
		})
	}
	served, overloaded := 0, 0
	for i := 0; (i < 100 || refused.Load() < 10*shoppers) && ctx.Err() == nil; i++ {
		switch a := h.place(ids[0][0], fmt.Sprint("x", i), "k", 1); {
		case a.err == nil:
			served++
		case errors.Is(a.err, ErrOverloaded):
			overloaded++
		default:
			t.Errorf("a deal of the other server: %+v", a)
		}
		time.Sleep(time.Millisecond) // the next shopper comes
	}
	if ctx.Err() != nil {
		t.Error("those who cannot be served are not told at once")
	}
	stop()
	all.Wait()
	// Those who are refused have a place for a moment, which is long on a busy machine. If they
	// waited there, nearly nobody else would be served.
	if overloaded > 10*served {
		t.Errorf("%d orders were served, %d refused because of the other server", served, overloaded)
	}
	server.away.Store(false)
	for _, id := range ids[1] {
		if a := h.place(id, "late", "k", 1); a.err != nil {
			t.Errorf("once the server is back: %+v", a)
		}
	}
}

// onTwoServers starts a node on two servers, with so many deals on each, which are at rest:
// the node has been started again since they were made. ids are theirs, by server.
func onTwoServers(t *testing.T, store *sharded.Store, cfg Config, first, second int) (h *house, ids [2][]string) {
	t.Helper()
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Start()
	t.Cleanup(clock.Close)
	h = &house{t: t, cfg: cfg}
	open := func() {
		if h.node, err = NewNode(t.Context(), store, clock, h.cfg); err != nil {
			t.Fatal(err)
		}
	}
	open()
	for i := 0; len(ids[0]) < first || len(ids[1]) < second; i++ {
		id := fmt.Sprint("d", i)
		ids[store.Shard(id)] = append(ids[store.Shard(id)], id)
		h.create(id, func(s *deal.Spec) { s.StartsAt = 0 })
	}
	if err := h.node.Snapshot(t.Context()); err != nil { // the lists know all of them
		t.Fatal(err)
	}
	h.node.Close()
	open()
	return h, ids
}

// stillStore neither commits nor tells anything of itself while it stands still.
type stillStore struct {
	*journaltest.Memory
	still atomic.Bool
	asked chan struct{} // holds a token once it was asked how it is
	goOn  chan struct{}
}

func (s *stillStore) Commit(group []*journal.Write) error {
	if s.still.Load() {
		<-s.goOn
	}
	return s.Memory.Commit(group)
}

func (s *stillStore) Stats() journal.Stats {
	if s.still.Load() {
		select {
		case s.asked <- struct{}{}:
		default:
		}
		<-s.goOn
	}
	return s.Memory.Stats()
}

// A disk on which everything stands still holds up no deadline.
func TestDeadlineWhileTheStoreStandsStill(t *testing.T) {
	store := &stillStore{Memory: journaltest.NewMemory(), asked: make(chan struct{}, 1), goOn: make(chan struct{})}
	h := &house{t: t, clock: clockd.NewManual(start)}
	var err error
	h.node, err = NewNode(t.Context(), store, h.clock.Clock(), Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) }, RequestTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.node.Close)
	h.create("d", nil)
	store.still.Store(true)
	h.eventually("the node looks at the disk", func() bool { return len(store.asked) > 0 })
	answered := make(chan answer, 1)
	go func() { answered <- h.place("d", "u", "k", 1) }()
	h.eventually("the order is given up", func() bool { return len(answered) > 0 })
	if a := <-answered; !errors.Is(a.err, ErrDeadline) {
		t.Errorf("%+v", a)
	}
	store.still.Store(false)
	close(store.goOn)
	if a := h.place("d", "u", "k", 1); a.err != nil || !a.again {
		t.Errorf("the same key finds the truth: %+v", a)
	}
}

// Who wants to see a deal whose snapshot takes long on its way to another node waits no
// longer than for any answer.
func TestWaitForADealThatLeavesEnds(t *testing.T) {
	store := &badStore{Memory: journaltest.NewMemory(), hold: make(chan struct{}), holding: make(chan struct{})}
	v := newTownOver(t, store, "a", "b")
	v.agree("a")
	a := v.node("a")
	a.open([]string{"d"})
	for i := range replayedAtOnce {
		if got := a.place("d", "u", fmt.Sprint("k", i), 1); got.err != nil {
			t.Fatal(got.err)
		}
	}
	a.members.Store(&[]string{"b"})
	handed := make(chan error, 1)
	go func() { handed <- a.node.HandOver(t.Context()) }()
	<-store.holding
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan error, 1)
	go func() {
		_, err := a.node.viewHere(ctx, "d")
		seen <- err
	}()
	cancel()
	select {
	case err := <-seen:
		if !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for the snapshot")
	}
	close(store.hold)
	if err := <-handed; err != nil {
		t.Error(err)
	}
}
