package actors

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/own"
)

func TestConfigIsChecked(t *testing.T) {
	for what, tune := range map[string]func(*Config){
		"no rules":         func(c *Config) { c.Rules = nil },
		"no logger":        func(c *Config) { c.Logger = nil },
		"no way to end":    func(c *Config) { c.Fatal = nil },
		"too few seats":    func(c *Config) { c.InFlightMax = 15 },
		"too many seats":   func(c *Config) { c.InFlightMax = own.SeatsMax + 1 },
		"a negative bound": func(c *Config) { c.ActiveMax = -1 },
	} {
		cfg := Config{Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(error) {}}
		tune(&cfg)
		if _, err := NewNode(t.Context(), journaltest.NewMemory(), nil, cfg); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

// More expiries than one write holds are all applied before the next decision.
func TestManyExpiriesAtOnce(t *testing.T) {
	h := newHouse(t, nil)
	const orders = 60_000 // about 10 bytes an event: more than half of journal.WriteMax
	h.create("d", func(s *deal.Spec) { s.Stock, s.Rules = orders, nil })
	h.inParallel(orders, func(i int) {
		if a := h.place("d", "u", fmt.Sprint("k", i), 1); a.code != deal.OK || a.err != nil {
			t.Errorf("%v, %+v", a.err, a)
		}
	})
	h.clock.Advance(time.Duration(deal.DefaultTTL) * time.Millisecond)
	if a := h.place("d", "late", "k", orders); a.code != deal.OK || a.left != 0 {
		t.Errorf("the whole stock is free again: %v, %+v", a.err, a)
	}
	h.crash()
	if v, err := h.node.Deal(t.Context(), "d"); err != nil || v.Reserved != orders {
		t.Errorf("after a crash: %+v, %v", v, err)
	}
}

// Orders that fill a write spread over as many as they need.
func TestLargeOrders(t *testing.T) {
	gate := make(chan struct{})
	h := newHouse(t, func(c *Config) {
		c.Workers, c.RequestTimeout = 1, time.Hour // the clock runs while the test waits
		c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
			<-gate
			tenPercent(rule, in, out)
		})
	})
	h.create("d", func(s *deal.Spec) { s.Stock = 1000 })
	done := make(chan answer, 200)
	text := []byte(strings.Repeat("x", deal.MaxTextLen))
	for i := range cap(done) {
		go func() {
			done <- h.do("d", own.ClassNew, func(c *deal.Command) {
				c.Kind, c.User, c.Key, c.Quantity = deal.Place, []byte("u"), fmt.Appendf(nil, "k%d", i), 1
				for range deal.MaxCodes {
					c.Codes = append(c.Codes, text)
				}
			})
		}()
	}
	h.eventually("all wait", func() bool { return h.node.Stats().Waiting == cap(done) })
	close(gate)
	for range cap(done) {
		if a := <-done; a.code != deal.OK || a.err != nil {
			t.Fatalf("%v, %+v", a.err, a)
		}
	}
	h.crash()
	if v, err := h.node.Deal(t.Context(), "d"); err != nil || v.Reserved != int64(cap(done)) {
		t.Errorf("after a crash: %+v, %v", v, err)
	}
}

// damaged is a store in which one stream cannot be read.
type damaged struct {
	journal.Store
	stream string
}

func (d damaged) Read(ctx context.Context, stream string, after uint64, fn func(journal.Event) error) error {
	if stream == d.stream {
		return &journal.CorruptError{Stream: stream, Detail: "planted"}
	}
	return d.Store.Read(ctx, stream, after, fn)
}

func TestDamagedDealLeavesTheOthersAlone(t *testing.T) {
	h := newHouse(t, nil)
	h.create("bad", nil)
	h.create("good", nil)
	if _, _, err := h.node.Deals(t.Context(), DealQuery{Limit: 1}); err != nil { // the lists know both
		t.Fatal(err)
	}
	h.place("bad", "u", "k", 1)
	h.node.Close()
	h.store = h.store.Reopen()
	node, err := NewNode(t.Context(), damaged{h.store, "bad"}, h.clock.Clock(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.node = node
	if a := h.place("bad", "u", "k", 1); !errors.Is(a.err, ErrUnavailable) {
		t.Errorf("the damaged deal: %v, %+v", a.err, a)
	}
	if _, err := h.node.Deal(t.Context(), "bad"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("its state: %v", err)
	}
	if _, err := h.node.Watch("bad", 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("its events: %v", err)
	}
	if a := h.place("good", "u", "k", 1); a.code != deal.OK || a.err != nil {
		t.Errorf("the sound deal: %v, %+v", a.err, a)
	}
	page, _, err := h.node.Deals(t.Context(), DealQuery{Limit: 10})
	if err != nil || len(page) != 2 {
		t.Errorf("the list: %d deals, %v", len(page), err)
	}
}

func TestUnknown(t *testing.T) {
	h := newHouse(t, nil)
	h.create("d", nil)
	if _, err := h.node.Deal(t.Context(), "x"); !errors.Is(err, ErrDealNotFound) {
		t.Errorf("deal: %v", err)
	}
	if _, err := h.node.Watch("x", 0); !errors.Is(err, ErrDealNotFound) {
		t.Errorf("watch: %v", err)
	}
	if _, err := h.node.Order(t.Context(), "x", 2); !errors.Is(err, ErrDealNotFound) {
		t.Errorf("order of no deal: %v", err)
	}
	if _, err := h.node.Order(t.Context(), "d", 2); !errors.Is(err, ErrOrderNotFound) {
		t.Errorf("order: %v", err)
	}
	var o Order
	if err := h.node.LoadOrder(t.Context(), "d", 1, &o); !errors.Is(err, ErrOrderNotFound) {
		t.Errorf("an event that is no order: %v", err)
	}
	if err := h.node.LoadOrder(t.Context(), "d", 9, &o); !errors.Is(err, ErrOrderNotFound) {
		t.Errorf("an event to come: %v", err)
	}
	if _, _, err := h.node.Orders(t.Context(), OrderQuery{Deal: "x", Limit: 1}); !errors.Is(err, ErrDealNotFound) {
		t.Errorf("orders of no deal: %v", err)
	}
	if page, more, err := h.node.Orders(t.Context(), OrderQuery{User: "nobody", Limit: 1}); len(page) != 0 || more || err != nil {
		t.Errorf("orders of nobody: %v, %v, %v", page, more, err)
	}
}

// A create that is refused leaves no deal behind, in memory or in a list.
func TestRefusedCreateLeavesNothing(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.PassivateAfter = time.Second })
	h.store.SetReadOnly(true)
	h.eventually("the node notices", func() bool { return h.node.Stats().ReadOnly })
	a := h.do("d", own.ClassNew, func(c *deal.Command) { c.Kind, c.Spec = deal.Create, &deal.Spec{ID: "d"} })
	if !errors.Is(a.err, ErrReadOnly) {
		t.Fatalf("%v, %+v", a.err, a)
	}
	if _, err := h.node.Deal(t.Context(), "d"); !errors.Is(err, ErrDealNotFound) {
		t.Errorf("%v", err)
	}
	h.clock.Advance(2 * time.Second)
	h.eventually("it is forgotten", func() bool { return h.node.Stats().Deals == 0 })
}

func TestActiveDealsAreBounded(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.ActiveMax = 2 })
	h.create("a", nil)
	h.create("b", nil)
	third := h.do("c", own.ClassNew, func(c *deal.Command) { c.Kind, c.Spec = deal.Create, &deal.Spec{ID: "c"} })
	if !errors.Is(third.err, ErrOverloaded) {
		t.Fatalf("%v, %+v", third.err, third)
	}
	if n := h.node.Stats().Deals; n != 2 {
		t.Errorf("the node knows %d deals", n)
	}
	h.eventually("the longest idle made room", func() bool {
		h.clock.Advance(evictIdle * time.Millisecond)
		third = h.do("c", own.ClassNew, func(c *deal.Command) { c.Kind, c.Spec = deal.Create, &deal.Spec{ID: "c"} })
		return third.err == nil
	})
}

// A search for idle deals that takes longer than a tick is not begun again meanwhile.
func TestOneSearchForIdleDeals(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.ActiveMax = 1 })
	h.create("a", nil)
	create := func() error {
		h.clock.Advance(evictIdle * time.Millisecond)
		return h.do("b", own.ClassNew, func(c *deal.Command) { c.Kind, c.Spec = deal.Create, &deal.Spec{ID: "b"} }).err
	}
	a := h.node.directory.find([]byte("a"))
	h.eventually("a may leave", func() bool {
		h.clock.Advance(evictIdle * time.Millisecond)
		return !a.dirty.Load()
	})
	h.node.evicting.underWay.Store(true)
	for range 20 {
		if err := create(); !errors.Is(err, ErrOverloaded) {
			t.Fatalf("beside a search that goes on: %v", err)
		}
		time.Sleep(5 * time.Millisecond) // in which a would leave
	}
	h.node.evicting.underWay.Store(false)
	h.eventually("there is room", func() bool { return create() == nil })
}

func TestDrainGivesUpInTime(t *testing.T) {
	h := newHouse(t, nil)
	r, err := h.node.Acquire(own.ClassNew)
	if err != nil {
		t.Fatal(err)
	}
	defer h.node.Release(r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.node.Drain(ctx); !errors.Is(err, context.Canceled) || !h.node.Draining() {
		t.Errorf("%v", err)
	}
}

func TestClockFloorIsChecked(t *testing.T) {
	store := journaltest.NewMemory()
	if floor, err := ClockFloor(t.Context(), store.Tables(), ""); floor != 0 || err != nil {
		t.Errorf("a new store: %d, %v", floor, err)
	}
	if err := store.Tables().Apply(t.Context(), []journal.Mutation{{Table: tableMeta, Key: keyClock, Value: []byte("?")}}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := ClockFloor(t.Context(), store.Tables(), ""); err == nil {
		t.Error("a mark of one byte was accepted")
	}
}

// inline runs turns at once, on the poster's goroutine.
type inline struct{}

func (inline) Schedule(turn func()) { turn() }
func (inline) Throughput() int      { return 1 }

// heard is an actor that writes down what reaches it.
type heard struct {
	log  []string
	then func() // for each batch, optional
}

func (h *heard) InvokeSystemMessage(m any) { h.log = append(h.log, fmt.Sprint("system ", m)) }
func (h *heard) InvokeUserMessage(m any) {
	b := m.(*batch)
	h.log = append(h.log, fmt.Sprint("batch ", b.msgs, " of ", b.since))
	if h.then != nil {
		h.then()
	}
}
func (h *heard) EscalateFailure(any, any) {}
func (h *heard) said(m *mailbox, want string) string {
	if got := strings.Join(h.log, ", "); got != want {
		return fmt.Sprintf("heard %q, want %q (%d queued)", got, want, m.UserMessageCount())
	}
	return ""
}

func TestMailbox(t *testing.T) {
	var bounced []any
	manual := clockd.NewManual(start)
	m, h := newMailbox(func(msg any) { bounced = append(bounced, msg) }, manual.Clock()), &heard{}
	m.RegisterHandlers(h, inline{})
	m.Start()
	m.PostUserMessage(1)
	manual.Advance(time.Millisecond)
	m.PostUserMessage(2)
	m.PostSystemMessage("started")
	if wrong := h.said(m, "system started"); wrong != "" {
		t.Error("before it opens:", wrong)
	}
	opened := manual.Clock().Now().Mono
	m.open()
	manual.Advance(time.Millisecond)
	m.PostUserMessage(3)
	turns := fmt.Sprintf("system started, batch [1 2] of %d, batch [3] of %d", opened, opened+int64(time.Millisecond))
	if wrong := h.said(m, turns); wrong != "" {
		t.Error("after it opened:", wrong)
	}
	if !m.closeIfEmpty() {
		t.Error("an empty mailbox did not close")
	}
	m.PostUserMessage(4)
	m.PostSystemMessage("stop")
	if wrong := h.said(m, turns+", system stop"); wrong != "" || fmt.Sprint(bounced) != "[4]" {
		t.Error("after it closed:", wrong, bounced)
	}

	shut := newMailbox(nil, manual.Clock())
	shut.RegisterHandlers(h, inline{})
	shut.PostUserMessage(5)
	if shut.closeIfEmpty() {
		t.Error("a mailbox with a message in it closed")
	}
	if queued := shut.close(); fmt.Sprint(queued) != "[5]" {
		t.Error("close returned", queued)
	}
}

// What came first in a turn says how long mailboxes make wait.
func TestTurnsWaited(t *testing.T) {
	deciding, decide := make(chan struct{}, 2), make(chan struct{})
	h := newHouse(t, func(c *Config) {
		c.Rules = rulesFunc(func(rule string, in *abi.Input, out *abi.Verdict) {
			deciding <- struct{}{}
			<-decide
			tenPercent(rule, in, out)
		})
	})
	h.create("d", nil)
	before := h.node.Stats()
	post := func(key string) *Request {
		r, err := h.node.Acquire(own.ClassNew)
		if err != nil {
			t.Fatal(err)
		}
		r.Deal = []byte("d")
		r.Cmd.Kind, r.Cmd.User, r.Cmd.Key, r.Cmd.Quantity = deal.Place, []byte("u"), []byte(key), 1
		if err := h.node.Post(r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := post("1")
	<-deciding
	second := post("2")
	h.clock.Advance(7 * time.Millisecond)
	close(decide)
	for _, r := range []*Request{first, second} {
		if _, err := h.node.receive(r, r.Wait()); err != nil || r.Reply.Code != deal.OK {
			t.Errorf("%v, %v", err, r.Reply.Code)
		}
		h.node.Release(r)
	}
	after := h.node.Stats()
	if waited, turns := after.TurnsWaited-before.TurnsWaited, after.Turns-before.Turns; waited != 7*time.Millisecond || turns < 2 {
		t.Errorf("%v in %d turns", waited, turns)
	}
}

// damagedList is a store of which nobody can read the list of deals.
type damagedList struct{ journal.Store }

func (d damagedList) Tables() journal.Tables { return damagedRows{d.Store.Tables()} }

type damagedRows struct{ journal.Tables }

func (d damagedRows) Get(ctx context.Context, table, key string) ([]byte, error) {
	if table == tableDeals {
		return nil, &journal.CorruptError{Detail: "planted"}
	}
	return d.Tables.Get(ctx, table, key)
}

func (d damagedRows) Scan(ctx context.Context, table, prefix, after string, fn func(string, []byte) error) error {
	if table == tableDeals {
		return &journal.CorruptError{Detail: "planted"}
	}
	return d.Tables.Scan(ctx, table, prefix, after, fn)
}

// TestDamagedListIsDerivedAnew: what a row of the list of deals says is in the deal's
// stream, too. A node whose list is damaged serves, and writes the rows again.
func TestDamagedListIsDerivedAnew(t *testing.T) {
	spoilt := []journal.Mutation{{Table: tableDeals, Key: "d", Value: []byte("spoilt")}}
	for name, in := range map[string]func(journal.Store) journal.Store{
		"a block of the store": func(s journal.Store) journal.Store { return damagedList{s} },
		"a row":                func(s journal.Store) journal.Store { return s },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			h.create("d", nil)
			h.place("d", "u", "k", 2)
			h.node.Close()
			h.store = h.store.Reopen()
			if err := h.store.Tables().Apply(t.Context(), spoilt, true); err != nil {
				t.Fatal(err)
			}
			node, err := NewNode(t.Context(), in(h.store), h.clock.Clock(), h.cfg)
			if err != nil {
				t.Fatal(err)
			}
			h.node = node
			if a := h.place("d", "u", "k", 2); a.code != deal.OK || a.err != nil || !a.again {
				t.Errorf("the order again: %v, %+v", a.err, a)
			}
			h.eventually("its row is as its stream says", func() bool {
				value, err := h.store.Tables().Get(t.Context(), tableDeals, "d")
				row, malformed := decodeDealRow(value)
				return err == nil && malformed == nil && row.seq == 2 && row.view.Reserved == 2
			})
		})
	}
}
