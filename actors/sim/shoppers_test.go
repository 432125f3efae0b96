package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// holdMost is how long a reservation, a group or the suspension of a deal
// lasts at most, in ms.
const holdMost = 60_000

// op is one thing that was asked of the node, and its answer.
type op struct {
	id      int
	deal    string
	cmd     deal.Command
	request *actors.Request

	call, ret int64 // steps

	err     error // no decision is known
	soldOut bool  // answered by Node.SoldOut
	viewed  bool  // answered by Node.Deal

	code     deal.Code
	replayed bool
	event    deal.Kind // what the answer says it made happen, 0 = nothing
	order    uint64
	status   deal.OrderStatus
	total    int64
	left     int64 // Placed.Available
	at       int64 // the time by which it was decided
	view     deal.View
	group    deal.GroupView
}

func (o *op) String() string {
	return fmt.Sprintf("op %d: kind %d of %s by %s, key %s, ×%d, order %d, mode %d of %d",
		o.id, o.cmd.Kind, o.deal, o.cmd.User, o.cmd.Key, o.cmd.Quantity, o.cmd.Order, o.cmd.GroupMode, o.cmd.Group)
}

// answered says that the node has decided.
func (o *op) answered() bool { return o != nil && o.ret != 0 && o.err == nil }

// refused says that the op certainly did nothing: it never reached a deal.
func (o *op) refused() bool {
	return o.ret != 0 && (errors.Is(o.err, actors.ErrOverloaded) || errors.Is(o.err, actors.ErrDraining) || errors.Is(o.err, actors.ErrDealNotFound))
}

// shop is what the users know.
type shop struct {
	deals   []string
	specs   map[string]*deal.Spec
	created map[string]bool // as somebody was told
	ops     []*op           // all that was ever asked
	places  []*op           // orders that were asked for, for asking again
	orders  []orderRef
	groups  []orderRef // those of them that opened a group
	keys    int
}

type orderRef struct {
	deal string
	seq  uint64
}

// rules are what merchants could have uploaded.
var rules = map[string]func(*abi.Input) abi.Output{
	"tenth": func(in *abi.Input) abi.Output {
		return abi.Output{Outcome: abi.OutcomeDiscount, Discount: (in.Subtotal - in.DiscountSoFar) / 10}
	},
	"loyal": func(in *abi.Input) abi.Output {
		less := min(int64(in.UserQuantity)*100, in.Subtotal-in.DiscountSoFar)
		return abi.Output{Outcome: abi.OutcomeDiscount, Discount: less, Final: in.UserQuantity > 2}
	},
	"picky": func(in *abi.Input) abi.Output {
		if in.Quantity == 3 {
			return abi.Output{Outcome: abi.OutcomeReject}
		}
		return abi.Output{}
	},
}

// tooMany attributes are more than a rule can be told of.
var tooMany = slices.Repeat([]abi.KV{{Key: []byte("note"), Value: bytes.Repeat([]byte("x"), deal.MaxTextLen)}}, deal.MaxAttributes)

var ruleSets = [][]string{nil, {"tenth"}, {"loyal", "tenth"}, {"picky", "loyal"}}

func newShop(w *world) shop {
	s := shop{specs: map[string]*deal.Spec{}, created: map[string]bool{}}
	for i := range w.plan.deals {
		id := fmt.Sprintf("deal-%d", i)
		s.deals = append(s.deals, id)
		spec := &deal.Spec{
			ID: id, Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'},
			UnitPrice: 1000, Stock: 1 + w.rng.Int64N(40), StartsAt: epochMs,
			ReserveTTL: 100 + w.rng.Int64N(holdMost-100), Rules: ruleSets[w.rng.IntN(len(ruleSets))],
		}
		if w.flip() {
			spec.PerUserLimit = uint32(1 + w.rng.IntN(8))
		}
		if w.flip() {
			spec.Group = deal.GroupSpec{Size: uint32(2 + w.rng.IntN(2)), Window: 100 + w.rng.Int64N(holdMost-100), UnitPrice: 700}
		}
		if w.flip() {
			spec.OnRuleError = deal.SkipOnRuleError
		}
		if w.rng.IntN(4) == 0 {
			spec.StartsAt += w.rng.Int64N(20_000)
		}
		if w.rng.IntN(4) == 0 {
			spec.EndsAt = spec.StartsAt + 1 + w.rng.Int64N(600_000)
		}
		s.specs[id] = spec
	}
	return s
}

// ask lets somebody ask something.
func (w *world) ask() {
	id := w.shop.deals[w.rng.IntN(len(w.shop.deals))]
	switch x := w.rng.IntN(100); {
	case x < 1:
		w.list()
	case x < 4:
		w.look(id)
	case x < 50:
		w.placeOrder(id)
	case x < 52 || !w.shop.created[id] && w.flip():
		w.create(id)
	default:
		w.send(id, w.otherCommand(id, x))
	}
}

// placeOrder asks for an order, or asks for one again. Who finds the deal sold
// out at the door goes away.
func (w *world) placeOrder(id string) {
	c := deal.Command{
		Kind: deal.Place, User: w.user(), Quantity: 1 + w.rng.Int64N(3), GroupMode: deal.GroupMode(max(0, w.rng.IntN(6)-3)),
	}
	if c.GroupMode == deal.JoinGroup {
		c.Group = w.drawn(w.shop.groups, id)
	}
	switch x := w.rng.IntN(50); {
	case x == 0:
		c.Quantity = 0
	case x < 15 && len(w.shop.places) > 0:
		again := w.shop.places[w.rng.IntN(len(w.shop.places))]
		id, c = again.deal, again.cmd
		if w.rng.IntN(5) == 0 {
			c.Quantity++
		}
	case x == 15:
		id = "ghost"
	case x == 16:
		c.Attributes = tooMany
	}
	if c.Key == nil {
		w.shop.keys++
		c.Key = fmt.Appendf(nil, "k%d", w.shop.keys)
	}
	if w.node.SoldOut([]byte(id), c.User, c.Key) != nil {
		o := w.newOp(id, c)
		o.soldOut, o.ret, o.at = true, w.step, w.node.Now().Wall
		w.note("%v: sold out at the door", o)
		w.covered("answer", "sold out at the door")
		return
	}
	if o := w.send(id, c); o != nil {
		w.shop.places = append(w.shop.places, o)
	}
}

// create makes a deal, now and then one that cannot be.
func (w *world) create(id string) {
	spec := *w.shop.specs[id]
	if w.rng.IntN(8) == 0 {
		spec.Stock = 0
	}
	w.send(id, deal.Command{Kind: deal.Create, Spec: &spec})
}

// otherCommand draws a command to a deal; x is in 52 … 99.
func (w *world) otherCommand(id string, x int) deal.Command {
	c := deal.Command{User: w.user(), Quantity: 1 + w.rng.Int64N(3), Order: w.drawn(w.shop.orders, id), Group: w.drawn(w.shop.groups, id)}
	switch {
	case x < 68:
		c.Kind = deal.Confirm
	case x < 78:
		c.Kind = deal.Cancel
	case x < 82:
		c.Kind = deal.Refund
	case x < 86:
		c.Kind = deal.LookupOrder
	case x < 89:
		c.Kind = deal.LookupGroup
	case x < 92:
		c.Kind = deal.Quote
	case x < 94:
		c.Kind, c.Patch = deal.Change, w.patch()
	case x < 95:
		c.Kind = deal.Pause
	default:
		c.Kind = deal.Resume
		if w.rng.IntN(50) == 0 {
			c.Kind = deal.Close
		}
	}
	return c
}

func (w *world) patch() *deal.Patch {
	p := &deal.Patch{StockAdd: w.rng.Int64N(5)}
	if w.flip() {
		limit := uint32(w.rng.IntN(10))
		p.PerUserLimit = &limit
	}
	switch w.rng.IntN(8) {
	case 0:
		ends := epochMs + w.rng.Int64N(1_000_000)
		p.EndsAt = &ends
	case 1:
		p.StockAdd = -1
	case 2:
		set := ruleSets[w.rng.IntN(len(ruleSets))]
		p.Rules = &set
	}
	return p
}

func (w *world) user() []byte { return fmt.Appendf(nil, "u%d", w.rng.IntN(w.plan.users)) }

// drawn draws an order of a deal from those that somebody was told of, rarely
// one that may not exist.
func (w *world) drawn(from []orderRef, id string) uint64 {
	for range 10 {
		if n := len(from); n > 0 {
			if ref := from[w.rng.IntN(n)]; ref.deal == id {
				return ref.seq
			}
		}
	}
	return w.rng.Uint64N(50)
}

func (w *world) newOp(id string, c deal.Command) *op {
	o := &op{id: len(w.shop.ops), deal: id, cmd: c, call: w.step}
	w.shop.ops = append(w.shop.ops, o)
	return o
}

// look reads a deal's committed state.
func (w *world) look(id string) {
	o := w.newOp(id, deal.Command{})
	o.view, o.err = w.node.Deal(context.Background(), id)
	o.viewed, o.ret = true, w.step // now: the process may have died over it
	w.note("%v: view %d, %v", o, o.view.Seq, o.err)
}

// list reads the list of deals. A row may be old, when the pass that should
// have brought it up to date could not, but it never shows what never was.
func (w *world) list() {
	page, _, err := w.node.Deals(context.Background(), actors.DealQuery{Limit: w.plan.deals})
	if err != nil {
		w.fail("list: %w", err)
	}
	for i := range page {
		o := w.newOp(page[i].Spec.ID, deal.Command{})
		o.call, o.ret, o.viewed, o.view = 0, w.step, true, page[i]
		w.note("%v: listed %d", o, o.view.Seq)
		w.covered("answer", "listed")
	}
}

// send posts a command. Its answer comes at a later step, or never.
func (w *world) send(id string, c deal.Command) *op {
	class := own.ClassPriority
	if c.Kind == deal.Place || c.Kind == deal.Quote || c.Kind == deal.Create {
		class = own.ClassNew
	}
	o := w.newOp(id, c)
	r, err := w.node.Acquire(class)
	if err != nil {
		w.answer(o, err)
		return nil
	}
	at := r.Cmd.At
	r.Deal, r.Cmd = []byte(id), c
	r.Cmd.At = at
	w.note("%v", o)
	if err := w.node.Post(r); err != nil {
		w.node.Release(r)
		w.answer(o, err)
		return nil
	}
	o.request = r
	w.flights = append(w.flights, o)
	return o
}

// collect hands out the answers that have come.
func (w *world) collect() {
	if w.node == nil {
		return
	}
	waiting := w.flights[:0]
	for _, o := range w.flights {
		answered, err := w.node.Poll(o.request)
		if errors.Is(err, actors.ErrLeaving) {
			err = w.node.Post(o.request)
			answered = err != nil
		}
		switch {
		case !answered:
			waiting = append(waiting, o)
		case err == nil:
			o.read(o.request)
			w.checkFirstAnswer(o)
			w.node.Release(o.request)
			w.answer(o, nil)
		default:
			if !errors.Is(err, actors.ErrDeadline) {
				w.node.Release(o.request)
			}
			w.answer(o, err)
		}
	}
	clear(w.flights[len(waiting):])
	w.flights = waiting
}

// read keeps what the answer says.
func (o *op) read(r *actors.Request) {
	reply := &r.Reply
	o.code, o.replayed, o.event = reply.Code, reply.Replayed, reply.Event.Kind
	o.order, o.status, o.group = reply.Order, reply.Status, reply.Group
	o.total, o.left = reply.Event.Placed.Total(), reply.Event.Placed.Available
	o.at, o.view = reply.Event.At, r.View
}

func (w *world) answer(o *op, err error) {
	o.ret, o.err, o.request = w.step, err, nil
	w.note("%v: %v, code %d, event %d, order %d %v, view %d", o, err, o.code, o.event, o.order, o.status, o.view.Seq)
	switch {
	case err != nil:
		w.covered("error", errorName(err))
		return
	case o.replayed:
		w.covered("answer", "replayed")
	case o.code == deal.OK && o.event == deal.OrderPlaced:
		w.shop.orders = append(w.shop.orders, orderRef{o.deal, o.order})
		if o.cmd.GroupMode == deal.OpenGroup {
			w.shop.groups = append(w.shop.groups, orderRef{o.deal, o.order})
		}
	case o.event == deal.DealCreated:
		w.shop.created[o.deal] = true
	}
	w.covered("code", codeNames[o.code])
}

// checkFirstAnswer holds a replay against the order's record, which is what
// its body is made from.
func (w *world) checkFirstAnswer(o *op) {
	if !o.replayed {
		return
	}
	var order actors.Order
	err := w.node.LoadOrder(context.Background(), o.deal, o.order, &order)
	if err != nil {
		if w.calm {
			w.fail("%v: its first answer cannot be read: %w", o, err)
		}
		return
	}
	p := &order.Event.Placed
	if string(p.User) != string(o.cmd.User) || string(p.Key) != string(o.cmd.Key) || int64(p.Quantity) != o.cmd.Quantity {
		w.fail("%v: replayed as the order of %s with key %s, ×%d", o, p.User, p.Key, p.Quantity)
	}
}

// lastOrders asks every deal once more, now that nothing is wrong.
func (s *shop) lastOrders(w *world) {
	for _, id := range s.deals {
		s.keys++
		o := w.send(id, deal.Command{Kind: deal.Place, User: []byte("last"), Key: fmt.Appendf(nil, "k%d", s.keys), Quantity: 1})
		w.pump()
		if last := w.shop.ops[len(w.shop.ops)-1]; !o.answered() && !errors.Is(last.err, actors.ErrDealNotFound) {
			w.fail("I14: %v: %w", last, last.err)
			return
		}
	}
}
