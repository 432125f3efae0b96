package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// verdict is what an audit found.
type verdict struct {
	events     int
	violations []error
	moves      []time.Duration // how long those had to wait who asked while a deal got another owner
	spared     []*op           // that were asked of deals that kept their owner, and answered
	// stale counts the reads and the refusals that were true when they were decided, by
	// an owner that had been superseded and had not learned it: nothing but an append is
	// fenced. staleMost is by how much the oldest of them was behind.
	stale     int
	staleMost time.Duration
	takeOvers int // events that opened epochs
}

func (v *verdict) add(other verdict) {
	v.events += other.events
	v.violations = append(v.violations, other.violations...)
	v.moves = append(v.moves, other.moves...)
	v.spared = append(v.spared, other.spared...)
	v.stale += other.stale
	v.staleMost = max(v.staleMost, other.staleMost)
	v.takeOvers += other.takeOvers
}

// audit holds what shoppers were told against the journal. For each deal:
//
//   - its events obey the product (deal.State) and a naive count of it: no unit is sold
//     twice, no user gets more than the limit, no key has two orders;
//   - every acknowledgement names an event that is there and says the same, and every
//     event is one that somebody asked for and was not refused;
//   - the answers fit on one line with the times at which they were given;
//   - every event is of the epoch that was the newest when it was appended;
//   - nobody who asked after the first acknowledgement of an epoch, or later than it was
//     opened, was acknowledged by an older one.
func audit(ctx context.Context, store journal.Store, o openings, deals []string, ops []*op) verdict {
	byDeal := make(map[string][]*op, len(deals))
	for _, o := range ops {
		byDeal[o.deal] = append(byDeal[o.deal], o)
	}
	var all verdict
	for _, id := range deals {
		a := newAccount(id, byDeal[id])
		a.openings = o
		if err := a.check(ctx, store); err != nil {
			a.verdict.violations = append(a.verdict.violations, fmt.Errorf("%s: %w", id, err))
		}
		all.add(a.verdict)
	}
	return all
}

// openings is how to take the events that open epochs.
type openings struct {
	mono func(time.Time) int64 // what the shoppers' clock showed at a time of PostgreSQL's
	off  time.Duration         // by which that may be wrong
	gaps bool                  // some nodes may be of a release that appends none
}

// fact is an event, and the deal right after it.
type fact struct {
	kind     deal.Kind
	epoch    uint64
	order    uint64 // that it is about
	user     string // whose order it is
	key      string
	quantity int64
	total    int64

	available, reserved, sold int64
	held                      int64 // by user
	owner                     *op   // that asked for it
}

// account is one deal under audit.
type account struct {
	id       string
	openings openings
	owners   journal.Owners
	asked    []*op
	facts    []fact // by seq; facts[0] is the nothing before the first
	state    *deal.State
	status   map[uint64][]moment // of each order
	holds    map[string][]moment // of each user
	limit    int64
	verdict  verdict
}

// moment is what something was from an event on.
type moment struct {
	seq   uint64
	value int64
}

// at returns the value after event seq, 0 before the first.
func at(moments []moment, seq uint64) int64 {
	i, found := slices.BinarySearchFunc(moments, seq, func(m moment, seq uint64) int { return cmp.Compare(m.seq, seq) })
	if !found {
		i--
	}
	if i < 0 {
		return 0
	}
	return moments[i].value
}

func newAccount(id string, asked []*op) *account {
	return &account{
		id: id, asked: asked, facts: make([]fact, 1), state: deal.NewState(),
		status: make(map[uint64][]moment), holds: make(map[string][]moment),
	}
}

func (a *account) check(ctx context.Context, store journal.Store) error {
	var err error
	if a.owners, err = journal.ReadOwners(ctx, store, a.id); err != nil {
		return fmt.Errorf("I9: %w", err)
	}
	a.verdict.takeOvers = len(a.owners)
	err = store.Read(ctx, a.id, 0, func(e journal.Event) error {
		var event deal.Event
		if err := event.Decode(e.Data); err != nil {
			return err
		}
		event.Seq = e.Seq
		if err := a.state.Apply(&event); err != nil {
			return err
		}
		if err := a.enter(&event, e.Epoch); err != nil {
			return err
		}
		_, known, err := a.owners.Of(e)
		if err == nil && !known && !a.openings.gaps {
			err = fmt.Errorf("nobody has opened epoch %d of event %d", e.Epoch, e.Seq)
		}
		if err != nil {
			return fmt.Errorf("I9: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.verdict.events = len(a.facts) - 1
	if err := a.state.Check(); err != nil {
		return err
	}
	if err := a.claim(); err != nil {
		return err
	}
	if err := a.epochs(); err != nil {
		return err
	}
	if err := a.superseded(); err != nil {
		return err
	}
	return a.linearizable()
}

// enter counts an event, by none of the product's own rules.
func (a *account) enter(e *deal.Event, epoch uint64) error {
	last := a.facts[len(a.facts)-1]
	if e.Seq != uint64(len(a.facts)) || epoch < last.epoch {
		return fmt.Errorf("I9: event %d of epoch %d follows %d of epoch %d", e.Seq, epoch, len(a.facts)-1, last.epoch)
	}
	f := fact{kind: e.Kind, epoch: epoch, order: e.Order, available: last.available, reserved: last.reserved, sold: last.sold}
	switch e.Kind {
	case deal.DealCreated:
		f.available, a.limit = e.Spec.Stock, int64(e.Spec.PerUserLimit)
	case deal.OrderPlaced:
		p := &e.Placed
		f.order, f.user, f.key, f.quantity, f.total = e.Seq, string(p.User), string(p.Key), int64(p.Quantity), p.Total()
		f.available -= f.quantity
		f.reserved += f.quantity
		a.hold(f.user, e.Seq, f.quantity)
		a.status[e.Seq] = append(a.status[e.Seq], moment{e.Seq, int64(deal.Reserved)})
	case deal.OrderConfirmed, deal.OrderCancelled, deal.OrderExpired:
		if err := a.end(e, &f); err != nil {
			return err
		}
	default:
		return fmt.Errorf("event %d of kind %d: nobody asks for that here", e.Seq, e.Kind)
	}
	f.held = at(a.holds[f.user], e.Seq)
	if f.available < 0 || f.reserved < 0 || a.limit > 0 && f.held > a.limit {
		return fmt.Errorf("I1, I6: after event %d %d units are available, %d reserved, and %s holds %d", e.Seq, f.available, f.reserved, f.user, f.held)
	}
	a.facts = append(a.facts, f)
	return nil
}

// end counts the end of an order's reservation.
func (a *account) end(e *deal.Event, f *fact) error {
	if a.now(e.Order) != deal.Reserved {
		return fmt.Errorf("event %d of kind %d: order %d is %v", e.Seq, e.Kind, e.Order, a.now(e.Order))
	}
	placed := &a.facts[e.Order]
	f.user, f.quantity = placed.user, placed.quantity
	f.reserved -= f.quantity
	status := deal.Confirmed
	switch e.Kind {
	case deal.OrderConfirmed:
		f.sold += f.quantity
	case deal.OrderCancelled:
		status = deal.Cancelled
	default:
		status = deal.Expired
	}
	if status != deal.Confirmed {
		f.available += f.quantity
		a.hold(f.user, e.Seq, -f.quantity)
	}
	a.status[e.Order] = append(a.status[e.Order], moment{e.Seq, int64(status)})
	return nil
}

func (a *account) hold(user string, seq uint64, units int64) {
	held := a.holds[user]
	a.holds[user] = append(held, moment{seq, at(held, seq) + units})
}

// now returns the status of an order after the newest event, 0 if there is none.
func (a *account) now(order uint64) deal.OrderStatus {
	return deal.OrderStatus(at(a.status[order], math.MaxUint64))
}

// claim finds for each answer what it rests on, and for each event who asked for it.
func (a *account) claim() error {
	keys := make(map[string]uint64) // of the journal
	for seq := range a.facts {
		if f := &a.facts[seq]; f.kind == deal.OrderPlaced {
			if keys[f.key] != 0 {
				return fmt.Errorf("I3: key %s has order %d and order %d", f.key, keys[f.key], seq)
			}
			keys[f.key] = uint64(seq)
		}
	}
	ends := make(map[uint64]uint64) // of each order
	for seq := range a.facts {
		if f := &a.facts[seq]; f.kind == deal.OrderConfirmed || f.kind == deal.OrderCancelled {
			ends[f.order] = uint64(seq)
		}
	}
	for _, o := range a.asked {
		var err error
		switch o.what {
		case place:
			err = a.claimOrder(o, keys[o.key])
		case repeat:
			err = repeated(o)
		case confirm:
			err = a.claimEnd(o, ends[o.order.Seq], deal.OrderConfirmed)
		case cancel:
			err = a.claimEnd(o, ends[o.order.Seq], deal.OrderCancelled)
		case look:
			err = a.seen(o)
		}
		if err != nil {
			return err
		}
	}
	for seq := range a.facts {
		switch f := &a.facts[seq]; f.kind {
		case deal.OrderPlaced, deal.OrderConfirmed, deal.OrderCancelled:
			if f.owner == nil {
				return fmt.Errorf("event %d of kind %d: nobody asked for it", seq, f.kind)
			}
		default:
		}
	}
	return nil
}

// claimOrder looks at the event that has the key of an order, 0 if there is none.
func (a *account) claimOrder(o *op, seq uint64) error {
	f := &a.facts[seq]
	switch {
	case o.status == 201 && seq == 0:
		return fmt.Errorf("I3: lost: %v", o)
	case o.status == 201 && (o.told.Seq != seq || o.told.UserID != f.user || o.told.Quantity != f.quantity || o.told.Total != f.total || o.told.Available != f.available):
		return fmt.Errorf("I3: %v, but event %d is %+v", o, seq, f)
	case o.status == 409 && seq != 0 && o.failures == 0: // otherwise an earlier try may have got through late
		return fmt.Errorf("%v: refused, and event %d is the order", o, seq)
	case seq != 0 && (f.user != o.user || f.quantity != o.quantity):
		return fmt.Errorf("%v: event %d has its key and is %+v", o, seq, f)
	}
	if seq != 0 {
		f.owner = o
	}
	return nil
}

// repeated: the same key gets the same order.
func repeated(o *op) error {
	if first := o.order; o.ret != 0 && (o.status != 201 || o.told.OrderID != first.OrderID || o.told.Seq != first.Seq || o.told.Total != first.Total) {
		return fmt.Errorf("I3: acknowledged %+v, and now %v", first, o)
	}
	return nil
}

// claimEnd looks at the event that ended an order's reservation, 0 if none did but
// time. Nobody asks for two ends of one order.
func (a *account) claimEnd(o *op, seq uint64, kind deal.Kind) error {
	f := &a.facts[seq]
	switch {
	case o.status == 200 && (seq == 0 || f.kind != kind):
		return fmt.Errorf("I3: lost: %v", o)
	case o.status == 409 && seq != 0 && o.failures == 0:
		return fmt.Errorf("%v: refused, and event %d did it", o, seq)
	case seq != 0 && f.kind != kind:
		return fmt.Errorf("%v: event %d is of kind %d", o, seq, f.kind)
	}
	if seq != 0 {
		f.owner = o
	}
	return nil
}

// seen: a deal was once as it was shown.
func (a *account) seen(o *op) error {
	if o.ret == 0 {
		return nil
	}
	if o.told.Version >= uint64(len(a.facts)) {
		return fmt.Errorf("I3: %v: the journal ends at event %d", o, len(a.facts)-1)
	}
	if f := &a.facts[o.told.Version]; o.told.Available != f.available || o.told.Reserved != f.reserved || o.told.Sold != f.sold {
		return fmt.Errorf("I2: %v, but then there were %d available, %d reserved, %d sold", o, f.available, f.reserved, f.sold)
	}
	return nil
}

// epochs looks at when each epoch's first acknowledgement was given.
func (a *account) epochs() error {
	acknowledged := make([]*fact, 0, len(a.facts))
	for seq := range a.facts {
		if f := &a.facts[seq]; f.owner != nil && f.owner.acknowledged() {
			acknowledged = append(acknowledged, f)
		}
	}
	newer, first := uint64(0), int64(math.MaxInt64) // of the epochs behind the one at hand
	for i := len(acknowledged) - 1; i >= 0; {
		epoch, earliest := acknowledged[i].epoch, int64(math.MaxInt64)
		for ; i >= 0 && acknowledged[i].epoch == epoch; i-- {
			o := acknowledged[i].owner
			if o.call > first {
				return fmt.Errorf("I9: %v: acknowledged by epoch %d, %v after the first of epoch %d", o, epoch, time.Duration(o.call-first), newer)
			}
			earliest = min(earliest, o.ret)
		}
		if i >= 0 { // the deal had an owner before
			a.verdict.moves = append(a.verdict.moves, a.waited(earliest))
		}
		newer, first = epoch, min(first, earliest)
	}
	if len(a.verdict.moves) == 0 {
		for _, o := range a.asked {
			if o.ret != 0 {
				a.verdict.spared = append(a.verdict.spared, o)
			}
		}
	}
	return nil
}

// superseded looks at when each epoch was opened, also those that acknowledged nothing.
func (a *account) superseded() error {
	for seq := range a.facts {
		f := &a.facts[seq]
		next := sort.Search(len(a.owners), func(i int) bool { return a.owners[i].Epoch > f.epoch })
		if f.owner == nil || !f.owner.acknowledged() || next == len(a.owners) {
			continue
		}
		opened := &a.owners[next]
		if late := time.Duration(f.owner.call - a.openings.mono(opened.At)); late > a.openings.off {
			return fmt.Errorf("I9: %v: acknowledged by epoch %d, and asked %v after %s had opened epoch %d", f.owner, f.epoch, late, opened.By, opened.Epoch)
		}
	}
	return nil
}

// waited returns how long the slowest of those was held up whose question was open
// when a new owner first answered.
func (a *account) waited(when int64) (most time.Duration) {
	for _, o := range a.asked {
		if o.call <= when && when <= o.ret {
			most = max(most, time.Duration(o.ret-o.call))
		}
	}
	return most
}

// step is an operation as the model sees it: an event leads from the state before it
// to the one behind it, and any other answer needs a state that allows it.
type step struct {
	seq   uint64 // of the event, or that was seen
	moves bool
	o     *op // refused
}

// linearizable asks whether the answers can have happened one after the other, each
// between its question and its answer.
func (a *account) linearizable() error {
	from, until := a.confine()
	var history []porcupine.Operation
	for seq := 1; seq < len(a.facts); seq++ {
		call, ret := from[seq], until[seq]
		if o := a.facts[seq].owner; o != nil {
			if call = o.call; o.acknowledged() {
				ret = o.ret
			}
		}
		history = append(history, porcupine.Operation{Input: step{seq: uint64(seq), moves: true}, Call: call, Return: max(call, ret)})
	}
	for _, o := range a.asked {
		s := step{seq: o.told.Version}
		refused := o.status == 409
		if o.ret == 0 || o.what != look && !refused {
			continue
		}
		if refused {
			s = step{o: o}
		}
		fits, err := a.timely(s, o, from, until)
		if err != nil {
			return err
		}
		if fits {
			history = append(history, porcupine.Operation{Input: s, Call: o.call, Return: o.ret})
		}
	}
	result := porcupine.CheckOperationsTimeout(a.model(history), history, time.Minute)
	if result != porcupine.Ok {
		return fmt.Errorf("I4: %d operations: %v", len(history), result)
	}
	return nil
}

// confine returns for each event when it can have happened at the earliest and at the
// latest: not before anybody asked for it or for one before it, not after anybody was
// told of it or of one behind it.
func (a *account) confine() (from, until []int64) {
	n := len(a.facts)
	from, until = make([]int64, n), make([]int64, n+1)
	for seq := 1; seq < n; seq++ {
		from[seq] = from[seq-1]
		if o := a.facts[seq].owner; o != nil {
			from[seq] = max(from[seq], o.call)
		}
	}
	until[n] = math.MaxInt64
	for seq := n - 1; seq >= 0; seq-- {
		until[seq] = until[seq+1]
		if o := a.facts[seq].owner; o != nil && o.acknowledged() {
			until[seq] = min(until[seq], o.ret)
		}
	}
	return from, until
}

// timely says whether an answer that changed nothing was true of a moment at which it
// can have been given. One that was true only of an earlier moment is stale, and
// counted; one that never was is an error.
func (a *account) timely(s step, o *op, from, until []int64) (bool, error) {
	last := uint64(len(a.facts) - 1)
	for last > 1 && from[last] > o.ret { // it had not happened
		last--
	}
	for seq := last; seq >= 1; seq-- {
		over := seq < uint64(len(a.facts)-1) && until[seq+1] < o.call // somebody knew of the next before it was asked
		if !a.allows(seq, s) {
			continue
		}
		if over {
			a.verdict.stale++
			a.verdict.staleMost = max(a.verdict.staleMost, time.Duration(o.call-until[seq+1]))
		}
		return !over, nil
	}
	return false, fmt.Errorf("I4: %v: it was never so", o)
}

// allows says whether the deal could have answered so after event seq.
func (a *account) allows(seq uint64, s step) bool {
	if s.o == nil {
		return seq == s.seq
	}
	switch s.o.told.Code {
	case "sold_out":
		return a.facts[seq].available < s.o.quantity
	case "user_limit_exceeded":
		return at(a.holds[s.o.user], seq)+s.o.quantity > a.limit
	case "order_state_conflict":
		return deal.OrderStatus(at(a.status[s.o.order.Seq], seq)) == deal.Expired
	default:
		return false
	}
}

// model is a deal as its shoppers see it: its state is the number of events that have
// happened. One is left only once all who saw it have: so it is on every line that is
// right, and the checker need not try the others.
func (a *account) model(history []porcupine.Operation) porcupine.Model {
	type state struct{ seq, seen uint64 }
	seen := make([]uint64, len(a.facts))
	for _, o := range history {
		if s := o.Input.(step); !s.moves && s.o == nil {
			seen[s.seq]++
		}
	}
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(from, input, _ any) (bool, any) {
			now, s := from.(state), input.(step)
			switch {
			case s.moves:
				return s.seq == now.seq+1 && now.seen == seen[now.seq], state{seq: s.seq}
			case s.o == nil:
				return s.seq == now.seq, state{now.seq, now.seen + 1}
			}
			return a.allows(now.seq, s), now
		},
	}
}
