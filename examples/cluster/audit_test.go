package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// story is a deal of five units, two for each user, and what became of it: three orders
// and two of their ends. The second owner begins with event 5.
type story struct {
	t     *testing.T
	store *journaltest.Memory
	state *deal.State
	head  journal.Head
	now   int64
	ops   []*op
}

const storyDeal = "d"

// newStory tells it, with what was asked and answered.
func newStory(t *testing.T) *story {
	s := beginStory(t)
	first := s.buy("u1", "k1", 2, 10, 20)   // event 2, three left
	second := s.buy("u2", "k2", 1, 15, 25)  // event 3, two left
	s.end(deal.Confirm, confirm, first, 30) // event 4
	s.own(37)                               // from here on by another
	s.end(deal.Cancel, cancel, second, 40)  // event 5, three left
	s.buy("u3", "k3", 2, 50, 60)            // event 6, one left
	s.look(6, 1, 2, 2, 70)                  // as it is
	s.add(&op{what: repeat, user: "u1", key: "k1", quantity: 2, order: &first.told, call: 80, ret: 85, status: 201, told: first.told})
	s.refused("u2", "k4", 2, "sold_out", 90) // one is left
	s.refused("u1", "k5", 1, "user_limit_exceeded", 91)
	return s
}

// beginStory makes the deal, of which nothing is sold.
func beginStory(t *testing.T) *story {
	s := &story{t: t, store: journaltest.NewMemory(), state: deal.NewState()}
	s.store.Now = func() time.Time { return time.Unix(0, s.now) }
	s.own(0)
	s.happen(&deal.Command{Kind: deal.Create, Spec: &deal.Spec{
		ID: storyDeal, Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 9900, Stock: 5, PerUserLimit: 2, StartsAt: 1, ReserveTTL: 1e6,
	}})
	return s
}

// own takes the deal over.
func (s *story) own(at int64) {
	var err error
	s.now = at
	s.head, err = s.store.Open(s.t.Context(), storyDeal)
	must(s.t, err)
}

// happen decides a command and writes its event.
func (s *story) happen(c *deal.Command) *deal.Event {
	s.t.Helper()
	c.At = int64(s.state.Seq) + 1
	var reply deal.Reply
	s.state.Decide(c, nil, &reply)
	e := &reply.Event
	if e.Kind == 0 {
		s.t.Fatalf("code %v", reply.Code)
	}
	e.Seq = s.state.Seq + 1
	must(s.t, s.state.Apply(e))
	w := &journal.Write{Stream: storyDeal, Epoch: s.head.Epoch, Seq: e.Seq, Count: 1, Data: journal.AppendEvent(nil, e.Append(nil))}
	must(s.t, s.store.Commit([]*journal.Write{w}))
	must(s.t, w.Err)
	return e
}

func (s *story) buy(user, key string, quantity, call, ret int64) *op {
	e := s.happen(&deal.Command{Kind: deal.Place, User: []byte(user), Key: []byte(key), Quantity: quantity})
	return s.add(&op{what: place, user: user, key: key, quantity: quantity, call: call, ret: ret, status: 201, told: told{
		OrderID: "o-" + strconv.FormatUint(e.Seq, 10), UserID: user, Quantity: quantity, Total: e.Placed.Total(), Seq: e.Seq, Available: s.state.Available,
	}})
}

func (s *story) end(command deal.CommandKind, asked what, order *op, call int64) {
	s.happen(&deal.Command{Kind: command, Order: order.told.Seq})
	s.add(&op{what: asked, user: order.user, quantity: order.quantity, order: &order.told, call: call, ret: call + 5, status: 200})
}

func (s *story) look(version uint64, available, reserved, sold, call int64) {
	s.add(&op{what: look, call: call, ret: call + 1, status: 200, told: told{Version: version, Available: available, Reserved: reserved, Sold: sold}})
}

func (s *story) refused(user, key string, quantity int64, code string, call int64) {
	s.add(&op{what: place, user: user, key: key, quantity: quantity, call: call, ret: call + 1, status: 409, told: told{Code: code}})
}

func (s *story) add(o *op) *op {
	o.deal, o.reached = storyDeal, o.call
	s.ops = append(s.ops, o)
	return o
}

func (s *story) audit() verdict {
	return s.auditOf(s.store)
}

// auditOf audits what is read of the journal. Epochs were opened at times of the shoppers.
func (s *story) auditOf(store journal.Store) verdict {
	return audit(s.t.Context(), store, openings{mono: func(at time.Time) int64 { return at.UnixNano() }}, []string{storyDeal}, s.ops)
}

func TestAudit(t *testing.T) {
	s := newStory(t)
	v := s.audit()
	if len(v.violations) > 0 || v.events != 6 || len(v.moves) != 1 || v.stale != 0 || v.takeOvers != 2 {
		t.Errorf("%+v", v)
	}
	// The second owner first answered at 45: who was waiting then had asked at 40.
	if v.moves[0] != 5 {
		t.Errorf("waited %v while the deal moved", v.moves)
	}
	if len(v.spared) != 0 {
		t.Errorf("the deal moved, and %d questions count as of one that stayed", len(v.spared))
	}
}

// TestAuditOfADealThatStayed: those who waited for it are told of, but not for how long
// somebody asked a node that was gone.
func TestAuditOfADealThatStayed(t *testing.T) {
	s := beginStory(t)
	s.buy("u1", "k1", 1, 10, 20)
	s.buy("u2", "k2", 1, 15, 32)
	s.buy("u3", "k3", 1, 33, 64).reached = 60
	r := row{verdict: s.audit()}
	if waits := r.stayed(); !slices.Equal(waits, []time.Duration{10, 17, 4}) || len(r.moves) != 0 {
		t.Errorf("%v, moves %v", waits, r.moves)
	}
}

// TestAuditCountsStale: an answer that was true a moment ago is counted, with its age.
func TestAuditCountsStale(t *testing.T) {
	s := newStory(t)
	s.look(3, 2, 3, 0, 39)                   // event 4 was acknowledged at 35
	s.refused("u4", "k6", 3, "sold_out", 48) // event 5, acknowledged at 45, gave one back
	v := s.audit()
	if len(v.violations) > 0 || v.stale != 2 || v.staleMost != 4 {
		t.Errorf("%+v", v)
	}
}

// TestAuditCanFail: each lie is found out.
func TestAuditCanFail(t *testing.T) {
	const first, second, third = 0, 1, 4 // among the ops
	for name, lie := range map[string]struct {
		tell func(s *story)
		want string
	}{
		"an order that is not in the journal": {func(s *story) {
			s.add(&op{what: place, user: "u9", key: "k9", quantity: 1, call: 1, ret: 2, status: 201, told: told{Seq: 7}})
		}, "I3"},
		"another price than the journal's": {func(s *story) { s.ops[first].told.Total++ }, "I3"},
		"another stock than the journal's": {func(s *story) { s.ops[first].told.Available++ }, "I3"},
		"an order that nobody asked for":   {func(s *story) { s.ops = slices.Delete(s.ops, second, third) }, "nobody asked"},
		"an order that was refused":        {func(s *story) { s.ops[third].status = 409 }, "refused"},
		"a repeated order that is another": {func(s *story) { s.ops[6].told.Seq = 3 }, "I3"},
		"a confirmation that did not happen": {func(s *story) {
			s.add(&op{what: confirm, order: &s.ops[third].told, call: 95, ret: 96, status: 200})
		}, "I3"},
		"a deal as it never was":          {func(s *story) { s.look(6, 2, 2, 2, 99) }, "I2"},
		"a deal of the future":            {func(s *story) { s.look(3, 2, 3, 0, 1) }, "I4"},
		"sold out with units left":        {func(s *story) { s.refused("u5", "k7", 1, "sold_out", 99) }, "I4"},
		"over the limit without any":      {func(s *story) { s.refused("u5", "k8", 1, "user_limit_exceeded", 99) }, "I4"},
		"an answer before its turn":       {func(s *story) { s.ops[second].call, s.ops[second].ret = 1, 2 }, "I4"},
		"the old owner after the new one": {func(s *story) { s.ops[2].call, s.ops[2].ret = 46, 47 }, "I9"},
		"the old owner after a new one that wrote nothing": {func(s *story) {
			s.own(45) // event 6, of the one before, was asked for at 50
		}, "I9: place d for u3"},
		"the same key twice": {func(s *story) {
			s.happen(&deal.Command{Kind: deal.Place, User: []byte("u7"), Key: []byte("k1"), Quantity: 1})
		}, "I3"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			lie.tell(s)
			v := s.audit()
			if len(v.violations) == 0 || !strings.Contains(v.violations[0].Error(), lie.want) {
				t.Errorf("found %v, want %s", v.violations, lie.want)
			}
		})
	}
}

// damaged is a journal that is read otherwise than it was written.
type damaged struct {
	*journaltest.Memory
	damage func(events []journal.Event) []journal.Event
}

func (d damaged) Read(ctx context.Context, stream string, after uint64, fn func(journal.Event) error) error {
	var events []journal.Event
	err := d.Memory.Read(ctx, stream, after, func(e journal.Event) error {
		e.Data = slices.Clone(e.Data)
		events = append(events, e)
		return nil
	})
	for _, e := range d.damage(events) {
		if err == nil {
			err = fn(e)
		}
	}
	return err
}

// taken is a journal whose events that open epochs are read otherwise than they were
// written.
type taken struct {
	*journaltest.Memory
	damage func(journal.Owners) journal.Owners
}

func (j taken) Openings(ctx context.Context, stream string, fn func(journal.Opening) error) error {
	owners, err := journal.ReadOwners(ctx, j.Memory, stream)
	for _, o := range j.damage(owners) {
		if err == nil {
			err = fn(o)
		}
	}
	return err
}

// TestAuditOfOwners: take-overs that do not fit the events are found out.
func TestAuditOfOwners(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(journal.Owners) journal.Owners
		want   string
	}{
		"as it was":                  {func(o journal.Owners) journal.Owners { return o }, ""},
		"a take-over lost":           {func(o journal.Owners) journal.Owners { return o[:1] }, "I9: nobody has opened epoch 2 of event 5"},
		"none":                       {func(journal.Owners) journal.Owners { return nil }, "I9: nobody has opened epoch 1 of event 1"},
		"one behind the first event": {func(o journal.Owners) journal.Owners { o[1].First++; return o }, "I9: event 5 is of epoch 2, which was opened before event 6"},
		"one before the last event":  {func(o journal.Owners) journal.Owners { o[1].First--; return o }, "I9: event 4 is of epoch 1, and epoch 2"},
		"out of turn":                {func(o journal.Owners) journal.Owners { o[0], o[1] = o[1], o[0]; return o }, "out of turn"},
		"one while the owner before still acknowledged": {func(o journal.Owners) journal.Owners { o[1].At = time.Unix(0, 29); return o }, "I9: confirm d o-2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			v := s.auditOf(taken{s.store, c.damage})
			if c.want == "" && len(v.violations) == 0 {
				return
			}
			if len(v.violations) != 1 || !strings.Contains(v.violations[0].Error(), c.want) {
				t.Errorf("found %v, want %q", v.violations, c.want)
			}
		})
	}
	s := newStory(t)
	v := audit(t.Context(), taken{s.store, func(o journal.Owners) journal.Owners { return o[:1] }},
		openings{mono: func(at time.Time) int64 { return at.UnixNano() }, gaps: true}, []string{storyDeal}, s.ops)
	if len(v.violations) > 0 {
		t.Errorf("an epoch of a release that opened it without an event: %v", v.violations)
	}
}

// TestAuditOfADamagedJournal: a journal that lost events, has them twice or from an owner
// that was superseded is found out, whoever was told what.
func TestAuditOfADamagedJournal(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(events []journal.Event) []journal.Event
		want   string
	}{
		"whole":               {func(e []journal.Event) []journal.Event { return e }, ""},
		"the last event lost": {func(e []journal.Event) []journal.Event { return e[:len(e)-1] }, "I3: lost: place d for u3"},
		"an event lost":       {func(e []journal.Event) []journal.Event { return slices.Delete(e, 3, 4) }, "event 5"},
		"an event twice":      {func(e []journal.Event) []journal.Event { return slices.Insert(e, 3, e[2]) }, "event 3"},
		"an event of the old owner behind the new one's": {func(e []journal.Event) []journal.Event {
			e[5].Epoch--
			return e
		}, "I9: event 6 of epoch 1 follows 5 of epoch 2"},
		"no event": {func(e []journal.Event) []journal.Event {
			e[4].Data = []byte("\xff")
			return e
		}, "event"},
		"all of it": {func([]journal.Event) []journal.Event { return nil }, "I3: lost"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			v := s.auditOf(damaged{s.store, c.damage})
			if c.want == "" && len(v.violations) == 0 {
				return
			}
			if len(v.violations) != 1 || !strings.Contains(v.violations[0].Error(), c.want) {
				t.Errorf("found %v, want %q", v.violations, c.want)
			}
		})
	}
}

// TestNaiveCount: what a deal may not do is found without the product's own rules, which
// may be what is wrong. The deal has five units, two for each user; orders are named by
// their events, 2 and later.
func TestNaiveCount(t *testing.T) {
	created := deal.Event{Kind: deal.DealCreated, Spec: &deal.Spec{Stock: 5, PerUserLimit: 2}}
	placed := func(user string, quantity uint32) deal.Event {
		return deal.Event{Kind: deal.OrderPlaced, Placed: deal.Placed{User: []byte(user), Quantity: quantity}}
	}
	ended := func(kind deal.Kind, order uint64) deal.Event { return deal.Event{Kind: kind, Order: order} }
	for name, c := range map[string]struct {
		events []deal.Event
		want   string // of the last one's error; "": all is well
	}{
		"sold out": {[]deal.Event{placed("a", 2), placed("b", 2), placed("c", 1)}, ""},
		"oversold": {[]deal.Event{placed("a", 2), placed("b", 2), placed("c", 2)}, "-1 units are available"},
		"a unit sold twice after it came back once": {[]deal.Event{
			placed("a", 2), placed("b", 2), placed("c", 1), ended(deal.OrderExpired, 2), placed("d", 2), placed("e", 1),
		}, "-1 units are available"},
		"over the limit at once":  {[]deal.Event{placed("a", 3)}, "a holds 3"},
		"over the limit in turn":  {[]deal.Event{placed("a", 2), ended(deal.OrderConfirmed, 2), placed("a", 1)}, "a holds 3"},
		"what came back counts":   {[]deal.Event{placed("a", 2), ended(deal.OrderCancelled, 2), placed("a", 2)}, ""},
		"confirmed twice":         {[]deal.Event{placed("a", 1), ended(deal.OrderConfirmed, 2), ended(deal.OrderConfirmed, 2)}, "order 2 is confirmed"},
		"confirmed when too late": {[]deal.Event{placed("a", 1), ended(deal.OrderExpired, 2), ended(deal.OrderConfirmed, 2)}, "order 2 is expired"},
		"cancelled what is paid":  {[]deal.Event{placed("a", 1), ended(deal.OrderConfirmed, 2), ended(deal.OrderCancelled, 2)}, "order 2 is confirmed"},
		"the end of no order":     {[]deal.Event{ended(deal.OrderCancelled, 9)}, "order 9 is"},
		"what nobody asks for":    {[]deal.Event{{Kind: deal.DealClosed}}, "nobody asks for that"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(storyDeal, nil)
			var err error
			for i, e := range append([]deal.Event{created}, c.events...) {
				if err != nil {
					t.Fatalf("before event %d: %v", i+1, err)
				}
				e.Seq = uint64(i) + 1
				err = a.enter(&e, 1)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	for name, tc := range map[string]struct {
		fault fault
		row   row
		good  bool
	}{
		"all well":             {fault{unnoticed: true, within: withinPromise, pause: pausePromise}, row{again: withinPromise, verdict: verdict{moves: []time.Duration{pausePromise}}}, true},
		"a request failed":     {fault{unnoticed: true}, row{failed: 1}, false},
		"failed, as it may":    {fault{}, row{failed: 1}, true},
		"never answered":       {fault{}, row{unknown: 1}, false},
		"too late":             {fault{within: withinPromise}, row{again: withinPromise + 1}, false},
		"others waited too":    {fault{spared: sparedPromise}, row{verdict: verdict{spared: []*op{{reached: 1, ret: 1}, {reached: 1, ret: 2 + int64(sparedPromise)}}}}, false},
		"a move took too long": {fault{pause: pausePromise}, row{verdict: verdict{moves: []time.Duration{pausePromise + 1}}}, false},
	} {
		if err := tc.fault.judge(&tc.row); (err == nil) != tc.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
