package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/own"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when every test begins.
const start = int64(1_795_000_000_000)

// rulesFunc is a promotion rule in Go.
type rulesFunc func(rule string, in *abi.Input, out *abi.Verdict)

func (f rulesFunc) Evaluate(_, rule string, in *abi.Input, out *abi.Verdict) { f(rule, in, out) }

func tenPercent(_ string, in *abi.Input, out *abi.Verdict) {
	out.Reset()
	out.Outcome, out.Discount, out.Version, out.Fuel = abi.OutcomeDiscount, in.Subtotal/10, 1, 7
	out.Label = append(out.Label[:0], "10% off"...)
}

var discard = slog.New(slog.DiscardHandler)

// house is one node over a store in memory and a clock that the test owns.
type house struct {
	t     testing.TB
	store *journaltest.Memory
	clock *clockd.Manual
	cfg   Config
	node  *Node
}

func newHouse(t *testing.T, tune func(*Config)) *house {
	t.Helper()
	h := &house{t: t, store: journaltest.NewMemory(), clock: clockd.NewManual(start)}
	h.cfg = Config{
		Rules:  rulesFunc(tenPercent),
		Logger: discard,
		Fatal:  func(err error) { t.Errorf("fatal: %v", err) },
	}
	if tune != nil {
		tune(&h.cfg)
	}
	h.open()
	t.Cleanup(func() { h.node.Close() })
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.node, err = NewNode(h.t.Context(), h.store, h.clock.Clock(), h.cfg); err != nil {
		h.t.Fatal(err)
	}
}

// crash ends the node without a drain and starts another on what is durable.
func (h *house) crash() {
	h.t.Helper()
	h.node.Close()
	h.store = h.store.Reopen()
	h.open()
}

// answer is what a caller keeps of a request.
type answer struct {
	err    error
	code   deal.Code
	seq    uint64
	status deal.OrderStatus
	group  deal.GroupView
	again  bool
	total  int64
	left   int64
	view   deal.View
}

func (h *house) do(dealID string, class own.Class, fill func(*deal.Command)) answer {
	r, err := h.node.Acquire(class)
	if err != nil {
		return answer{err: err}
	}
	r.Deal = []byte(dealID)
	fill(&r.Cmd)
	if err := h.node.Call(r); err != nil {
		if !errors.Is(err, ErrDeadline) {
			h.node.Release(r)
		}
		return answer{err: err}
	}
	defer h.node.Release(r)
	return answer{
		code: r.Reply.Code, seq: r.Reply.Order, status: r.Reply.Status, group: r.Reply.Group, again: r.Reply.Replayed,
		total: r.Reply.Event.Placed.Total(), left: r.Reply.Event.Placed.Available, view: r.View,
	}
}

func (h *house) create(id string, change func(*deal.Spec)) {
	h.t.Helper()
	s := &deal.Spec{
		ID: id, Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'},
		UnitPrice: 9900, Stock: 10, StartsAt: start, ReserveTTL: deal.DefaultTTL, Rules: []string{"tiered"},
	}
	if change != nil {
		change(s)
	}
	if a := h.do(id, own.ClassNew, func(c *deal.Command) { c.Kind, c.Spec = deal.Create, s }); a.err != nil || a.code != deal.OK {
		h.t.Fatalf("create %s: %+v", id, a)
	}
}

func (h *house) place(id, user, key string, quantity int64) answer {
	return h.do(id, own.ClassNew, func(c *deal.Command) {
		c.Kind, c.User, c.Key, c.Quantity = deal.Place, []byte(user), []byte(key), quantity
	})
}

func (h *house) change(kind deal.CommandKind, id string, order uint64) answer {
	return h.do(id, own.ClassPriority, func(c *deal.Command) { c.Kind, c.Order = kind, order })
}

// eventually polls, advancing the clock a tick at a time, until ok.
func (h *house) eventually(what string, ok func() bool) {
	h.t.Helper()
	for begin := time.Now(); time.Since(begin) < 2*time.Minute; {
		if ok() {
			return
		}
		h.clock.Advance(tickEvery)
		time.Sleep(time.Millisecond)
	}
	h.t.Fatalf("never: %s", what)
}

func TestPlaceConfirmCancel(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	first := h.place("d", "u1", "k1", 2)
	if first.code != deal.OK || first.seq != 2 || first.left != 8 || first.total != 17820 {
		t.Fatalf("place: %+v", first)
	}
	if again := h.place("d", "u1", "k1", 2); !again.again || again.seq != first.seq {
		t.Errorf("same key: %+v", again)
	}
	if other := h.place("d", "u1", "k1", 3); other.code != deal.IdempotencyMismatch {
		t.Errorf("same key, other body: %+v", other)
	}
	if a := h.change(deal.Confirm, "d", first.seq); a.status != deal.Confirmed || a.view.Sold != 2 {
		t.Errorf("confirm: %+v", a)
	}
	if a := h.change(deal.Cancel, "d", first.seq); a.code != deal.OrderStateConflict {
		t.Errorf("cancel after confirm: %+v", a)
	}
	if a := h.place("nowhere", "u1", "k1", 1); !errors.Is(a.err, ErrDealNotFound) {
		t.Errorf("unknown deal: %+v", a)
	}
}

func TestNoOversell(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Workers = 4 })
	h.create("d", func(s *deal.Spec) { s.Stock = 100 })
	var won sync.Map
	var wg sync.WaitGroup
	for u := range 16 {
		wg.Go(func() {
			for i := range 50 {
				if a := h.place("d", fmt.Sprint("u", u), fmt.Sprint("k", i), 1); a.err == nil && a.code == deal.OK {
					if _, twice := won.LoadOrStore(a.seq, true); twice {
						t.Errorf("seq %d was promised twice", a.seq)
					}
				}
			}
		})
	}
	wg.Wait()
	sold := 0
	won.Range(func(any, any) bool { sold++; return true })
	v, err := h.node.Deal(t.Context(), "d")
	if err != nil || sold != 100 || v.Available != 0 || v.Reserved != 100 {
		t.Fatalf("%d orders won of a stock of 100; %+v, %v", sold, v, err)
	}
	if h.node.SoldOut([]byte("d"), []byte("u99"), []byte("new")) == nil {
		t.Error("a new key should be answered from the flag")
	}
}

func TestSoldOutFlagLetsKnownKeysThrough(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", func(s *deal.Spec) { s.Stock = 1 })
	first := h.place("d", "u", "k", 1)
	if h.node.SoldOut([]byte("d"), []byte("u"), []byte("k")) != nil {
		t.Fatal("the key of the first order must reach the deal")
	}
	if again := h.place("d", "u", "k", 1); !again.again || again.seq != first.seq {
		t.Fatalf("%+v", again)
	}
	h.change(deal.Cancel, "d", first.seq)
	if h.node.SoldOut([]byte("d"), []byte("v"), []byte("new")) != nil {
		t.Fatal("stock is back")
	}
}

func TestReservationExpires(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	a := h.place("d", "u", "k", 3)
	h.clock.Advance(time.Duration(deal.DefaultTTL) * time.Millisecond)
	h.eventually("the stock comes back by itself", func() bool {
		v, err := h.node.Deal(t.Context(), "d")
		return err == nil && v.Available == 10
	})
	if c := h.change(deal.Confirm, "d", a.seq); c.code != deal.OrderStateConflict || c.status != deal.Expired {
		t.Errorf("confirm after expiry: %+v", c)
	}
}

func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", func(s *deal.Spec) { s.PerUserLimit = 2 })
	h.create("idle", nil)
	a, b := h.place("d", "u1", "k1", 2), h.place("d", "u2", "k2", 1)
	h.change(deal.Confirm, "d", a.seq)
	h.crash()
	v, err := h.node.Deal(t.Context(), "d")
	if err != nil || v.Sold != 2 || v.Reserved != 1 || v.Available != 7 {
		t.Fatalf("after the crash: %+v, %v", v, err)
	}
	if again := h.place("d", "u2", "k2", 1); !again.again || again.seq != b.seq {
		t.Errorf("the key was forgotten: %+v", again)
	}
	if over := h.place("d", "u1", "k3", 1); over.code != deal.UserLimitExceeded {
		t.Errorf("the limit was forgotten: %+v", over)
	}
	h.clock.Advance(time.Duration(deal.DefaultTTL) * time.Millisecond)
	h.eventually("a reservation from before the crash expires", func() bool {
		v, err := h.node.Deal(t.Context(), "d")
		return err == nil && v.Reserved == 0
	})
}

// After two restarts nobody has touched the deal: its expiry must come from
// what the lists remember.
func TestReservationExpiresAfterTwoCrashes(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	h.place("d", "u", "k", 4)
	h.crash()
	h.crash()
	h.clock.Advance(time.Duration(deal.DefaultTTL) * time.Millisecond)
	h.eventually("the list shows the stock again", func() bool {
		page, _, err := h.node.Deals(t.Context(), DealQuery{Limit: 1})
		return err == nil && len(page) == 1 && page[0].Available == 10
	})
}

// An expiry whose write is refused is tried again.
func TestRefusedExpiryIsNotForgotten(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	h.place("d", "u", "k", 4)
	if _, err := h.store.Open(t.Context(), "d"); err != nil { // the expiry's append will be fenced
		t.Fatal(err)
	}
	h.clock.Advance(time.Duration(deal.DefaultTTL) * time.Millisecond)
	h.eventually("the append is refused", func() bool { return h.store.Stats().Refused > 0 })
	h.clock.Advance(wakeRetry * time.Millisecond)
	h.eventually("the list shows the stock again", func() bool {
		page, _, err := h.node.Deals(t.Context(), DealQuery{Limit: 1})
		return err == nil && len(page) == 1 && page[0].Available == 10
	})
}

// Orders that meet a full disk before the node has noticed cost their
// activation, and must not suspend the deal.
func TestFullDiskDoesNotSuspend(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	a := h.place("d", "u", "k", 1)
	h.store.SetReadOnly(true)
	for i := range 2 * restartsMax {
		if b := h.place("d", "u", fmt.Sprint("full-", i), 1); !errors.Is(b.err, ErrReadOnly) {
			t.Fatalf("order %d: %v, %+v", i, b.err, b)
		}
	}
	if again := h.place("d", "u", "k", 1); !again.again || again.seq != a.seq {
		t.Errorf("a repeated key on a full disk: %+v", again)
	}
	if c := h.change(deal.Confirm, "d", a.seq); c.status != deal.Confirmed {
		t.Errorf("a confirm on a full disk: %v, %+v", c.err, c)
	}
}

func TestPassivationAndReturn(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.PassivateAfter = time.Second })
	h.create("d", nil)
	for i := range 5 {
		h.place("d", "u", fmt.Sprint("k", i), 1)
	}
	for i := range uint64(80) { // enough events for a snapshot
		h.change(deal.Pause, "d", i)
		h.change(deal.Resume, "d", i)
	}
	h.clock.Advance(2 * time.Second)
	h.eventually("the deal leaves memory", func() bool { return h.node.Stats().Active == 0 })
	if seq, _, err := h.store.Snapshot(t.Context(), "d"); err != nil || seq == 0 {
		t.Errorf("no snapshot: %d, %v", seq, err)
	}
	if a := h.place("d", "u", "k0", 1); !a.again {
		t.Errorf("first message after the return: %+v", a)
	}
	h.clock.Advance(time.Duration(deal.DefaultTTL) * time.Millisecond)
	h.eventually("a due reservation wakes the deal", func() bool {
		v, err := h.node.Deal(t.Context(), "d")
		return err == nil && v.Available == 10
	})
}

// Requests race with the deal's passivation: every one of them is answered,
// and none twice.
func TestPassivationLosesNoRequest(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.PassivateAfter, c.RequestTimeout = time.Millisecond, 24*time.Hour }) // the clock races
	h.create("d", func(s *deal.Spec) { s.Stock, s.ReserveTTL = 100_000, 24*time.Hour.Milliseconds() })
	done := make(chan struct{})
	var wg, ticker sync.WaitGroup
	ticker.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				h.clock.Advance(tickEvery)
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	for u := range 4 {
		wg.Go(func() {
			for i := range 300 {
				if a := h.place("d", fmt.Sprint("u", u), fmt.Sprint("k", i), 1); a.err != nil || a.code != deal.OK || a.again {
					t.Errorf("order %d of user %d: %v, %+v", i, u, a.err, a)
					return
				}
				if i%20 == 0 {
					time.Sleep(2 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	close(done)
	ticker.Wait()
	if v, err := h.node.Deal(t.Context(), "d"); err != nil || v.Reserved != 1200 {
		t.Fatalf("%+v, %v", v, err)
	}
}

func TestFencedActivationDies(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	h.place("d", "u", "k", 1)
	if _, err := h.store.Open(t.Context(), "d"); err != nil { // somebody else takes over
		t.Fatal(err)
	}
	if a := h.place("d", "u", "k2", 1); !errors.Is(a.err, ErrUnavailable) {
		t.Fatalf("an order of a fenced activation: %+v", a)
	}
	if a := h.place("d", "u", "k2", 1); a.code != deal.OK || a.again || a.left != 8 {
		t.Fatalf("the next activation: %+v", a)
	}
}

func TestReadOnlyRefusesOrdersAndConfirms(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	a := h.place("d", "u", "k", 1)
	h.store.SetReadOnly(true)
	h.eventually("the node notices", func() bool { return h.node.Stats().ReadOnly })
	if b := h.place("d", "u", "k2", 1); !errors.Is(b.err, ErrReadOnly) {
		t.Errorf("an order on a full disk: %+v", b)
	}
	if c := h.change(deal.Confirm, "d", a.seq); c.status != deal.Confirmed {
		t.Errorf("a confirm on a full disk: %+v", c)
	}
	h.store.SetReadOnly(false)
	h.eventually("space returns", func() bool { return h.place("d", "u", "k2", 1).code == deal.OK && !h.node.Stats().ReadOnly })
}

func TestRulePanicEndsTheActivationNotTheNode(t *testing.T) {
	var boom bool
	h := newHouse(t, func(c *Config) {
		c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
			if boom {
				panic("a bug of ours")
			}
			tenPercent(rule, in, out)
		})
	})
	h.create("d", nil)
	h.create("e", func(s *deal.Spec) { s.Rules = nil })
	boom = true
	for range restartsMax {
		if a := h.place("d", "u", "k", 1); !errors.Is(a.err, ErrUnavailable) {
			t.Fatalf("%+v", a)
		}
	}
	boom = false
	if a := h.place("d", "u", "k", 1); !errors.Is(a.err, ErrUnavailable) {
		t.Errorf("a deal that failed %d times should be suspended: %+v", restartsMax, a)
	}
	if a := h.place("e", "u", "k", 1); a.code != deal.OK {
		t.Errorf("another deal: %+v", a)
	}
	h.clock.Advance(suspension * time.Millisecond)
	if a := h.place("d", "u", "k", 1); a.code != deal.OK {
		t.Errorf("after the suspension: %+v", a)
	}
}

func TestAdmission(t *testing.T) {
	gate := make(chan struct{})
	h := newHouse(t, func(c *Config) {
		c.InFlightMax, c.DealInFlightMax, c.Workers, c.RequestTimeout = 20, 5, 1, time.Hour // the clock runs while the test waits
		c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
			<-gate
			tenPercent(rule, in, out)
		})
	})
	h.create("d", nil)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { h.place("d", "u", fmt.Sprint("k", i), 1) })
	}
	h.eventually("the deal is full", func() bool { return h.node.Stats().Waiting == 4 })
	if a := h.place("d", "u", "k", 1); !errors.Is(a.err, ErrOverloaded) {
		t.Errorf("a fifth order: %+v", a)
	}
	var held []*Request
	for {
		r, err := h.node.Acquire(own.ClassNew)
		if err != nil {
			if !errors.Is(err, ErrOverloaded) {
				t.Error(err)
			}
			break
		}
		held = append(held, r)
	}
	if len(held) != 12 { // 20 seats, 4 in flight, 4 kept
		t.Errorf("%d seats for new work", len(held))
	}
	if r, err := h.node.Acquire(own.ClassPriority); err != nil {
		t.Error("no seat for a confirm:", err)
	} else {
		h.node.Release(r)
	}
	for _, r := range held {
		h.node.Release(r)
	}
	close(gate)
	wg.Wait()
}

func TestDeadlineAbandons(t *testing.T) {
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	h := newHouse(t, func(c *Config) {
		c.RequestTimeout = time.Second
		c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
			entered <- struct{}{}
			<-gate
			tenPercent(rule, in, out)
		})
	})
	h.create("d", nil)
	result := make(chan answer)
	go func() { result <- h.place("d", "u", "k", 1) }()
	<-entered
	h.clock.Advance(2 * time.Second)
	var late answer
	h.eventually("the caller gives up", func() bool {
		select {
		case late = <-result:
			return true
		default:
			return false
		}
	})
	if !errors.Is(late.err, ErrDeadline) {
		t.Fatalf("%+v", late)
	}
	close(gate)
	if a := h.place("d", "u", "k", 1); a.code != deal.OK || !a.again {
		t.Fatalf("the same key finds the truth: %+v", a)
	}
	h.eventually("the abandoned seat comes back", func() bool { return h.node.Stats().Pool.InUse == 0 })
}

func TestDrain(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	a := h.place("d", "u", "k", 1)
	if err := h.node.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b := h.place("d", "u", "k2", 1); !errors.Is(b.err, ErrDraining) {
		t.Errorf("an order after the drain: %+v", b)
	}
	if c := h.change(deal.Confirm, "d", a.seq); !errors.Is(c.err, ErrDraining) {
		t.Errorf("a confirm after the drain: %+v", c)
	}
	h.node.Close()
	if seq, _, err := h.store.Snapshot(t.Context(), "d"); err != nil || seq != 2 {
		t.Errorf("snapshot after the drain: %d, %v", seq, err)
	}
	if floor, err := ClockFloor(t.Context(), h.store.Tables(), ""); err != nil || floor != h.node.Now().Wall {
		t.Errorf("clock floor after a clean stop: %d, %v, want %d", floor, err, h.node.Now().Wall)
	}
	h.open()
}

func TestLists(t *testing.T) {
	h := newHouse(t, nil)
	for i := range 5 {
		h.create(fmt.Sprint("d", i), func(s *deal.Spec) {
			s.Category = []string{"fruit", "toys"}[i%2]
			if i == 4 {
				s.StartsAt = start + 1000
			}
		})
	}
	for i := range 3 {
		h.place("d0", "u", fmt.Sprint("k", i), 1)
		h.place("d1", "u", fmt.Sprint("k", i), 1)
		h.place("d1", "v", fmt.Sprint("k", i), 1)
	}
	fruit, more, err := h.node.Deals(t.Context(), DealQuery{Category: "fruit", Limit: 2})
	if err != nil || !more || len(fruit) != 2 || fruit[0].Spec.ID != "d0" || fruit[0].Available != 7 {
		t.Errorf("fruit: %+v, %v, %v", fruit, more, err)
	}
	rest, more, err := h.node.Deals(t.Context(), DealQuery{Category: "fruit", Limit: 2, After: "d2"})
	if err != nil || more || len(rest) != 1 || rest[0].Spec.ID != "d4" {
		t.Errorf("second page: %+v, %v, %v", rest, more, err)
	}
	if later, _, _ := h.node.Deals(t.Context(), DealQuery{Status: deal.Scheduled, Limit: 9}); len(later) != 1 {
		t.Errorf("scheduled: %+v", later)
	}
	var got []string
	q := OrderQuery{User: "u", Limit: 4}
	for {
		page, more, err := h.node.Orders(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page {
			got = append(got, fmt.Sprint(o.Deal, "-", o.Seq, " ", o.Status, " ", string(o.Event.Placed.User)))
		}
		if !more {
			break
		}
		last := page[len(page)-1]
		q.AfterDeal, q.AfterSeq = last.Deal, last.Seq
	}
	if want := "[d0-2 reserved u d0-3 reserved u d0-4 reserved u d1-2 reserved u d1-4 reserved u d1-6 reserved u]"; fmt.Sprint(got) != want {
		t.Errorf("orders of u: %v", got)
	}
	inDeal, more, err := h.node.Orders(t.Context(), OrderQuery{Deal: "d1", Limit: 5})
	if err != nil || !more || len(inDeal) != 5 || inDeal[1].Seq != 3 {
		t.Errorf("orders of d1: %d, %v, %v", len(inDeal), more, err)
	}
}

func TestWatch(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", func(s *deal.Spec) { s.Stock, s.Group = 2, deal.GroupSpec{Size: 2, Window: 60_000, UnitPrice: 5000} })
	w, err := h.node.Watch("d", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	next := func() (kinds string) {
		updates, err := w.Next(t.Context().Done())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range updates {
			kinds += fmt.Sprintf("%d@%d ", u.Kind, u.Seq)
		}
		return kinds
	}
	if got := next(); got != "1@1 2@1 " {
		t.Errorf("present state: %s", got)
	}
	h.do("d", own.ClassNew, func(c *deal.Command) {
		c.Kind, c.User, c.Key, c.Quantity, c.GroupMode = deal.Place, []byte("u"), []byte("k"), 1, deal.OpenGroup
	})
	if got := next(); got != "3@2 1@2 " {
		t.Errorf("a group opened: %s", got)
	}
	h.place("d", "u", "k2", 1)
	if got := next(); got != "1@3 2@3 " {
		t.Errorf("sold out: %s", got)
	}
	h.clock.Advance(time.Minute)
	h.eventually("the group's window ends", func() bool {
		v, err := h.node.Deal(t.Context(), "d")
		return err == nil && v.Seq == 4
	})
	if got := next(); got != "3@4 1@4 2@4 " {
		t.Errorf("the group failed: %s", got)
	}
	resumed, err := h.node.Watch("d", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer resumed.Close()
	if updates, err := resumed.Next(t.Context().Done()); err != nil || len(updates) != 3 {
		t.Errorf("resumed after 1: %+v, %v", updates, err)
	}
	seen, err := h.node.Watch("d", 4)
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	if updates, err := seen.Next(t.Context().Done()); err != nil || len(updates) != 1 || updates[0].Kind != UpdateStatus {
		t.Errorf("resumed after the last event, since when the clock may have changed the status: %+v, %v", updates, err)
	}
	if _, err := h.store.Open(t.Context(), "d"); err != nil { // the activation will be fenced
		t.Fatal(err)
	}
	h.change(deal.Pause, "d", 0)
	h.change(deal.Pause, "d", 0)
	if got := next(); got != "2@5 " {
		t.Errorf("after the deal moved: %s", got)
	}
}
