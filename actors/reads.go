package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// Deal returns the deal's committed state. ErrDealNotFound, ErrOverloaded, ErrUnavailable.
func (n *Node) Deal(ctx context.Context, id string) (deal.View, error) {
	if n.cfg.Peers != nil {
		return n.viewAnywhere(ctx, id)
	}
	return n.viewHere(ctx, id)
}

func (n *Node) viewHere(ctx context.Context, id string) (deal.View, error) {
	e, err := n.entry(ctx, id)
	if err != nil {
		return deal.View{}, err
	}
	a, err := n.awakeInTime(ctx, e)
	if err != nil {
		return deal.View{}, err
	}
	v := a.view()
	if v.Spec == nil {
		return deal.View{}, ErrDealNotFound
	}
	return v, nil
}

// DealID returns the id of the deal that the ids of orders and groups call so.
// ErrDealNotFound, ErrUnavailable.
func (n *Node) DealID(ctx context.Context, name []byte) (string, error) {
	if e := n.directory.findNamed(name); e != nil {
		return e.id, nil
	}
	if n.cfg.Peers != nil {
		return n.idAnywhere(ctx, name)
	}
	return "", ErrDealNotFound
}

// DealQuery selects deals. Empty fields select all.
type DealQuery struct {
	Merchant, Category string
	Status             deal.Status
	RuleOff            string // a rule that is switched off
	After              string // id of the last deal of the page before
	Limit              int
}

func (q *DealQuery) matches(v *deal.View, now int64) bool {
	return (q.Merchant == "" || q.Merchant == v.Spec.Merchant) &&
		(q.Category == "" || q.Category == v.Spec.Category) &&
		(q.Status == 0 || q.Status == v.Status(now)) &&
		(q.RuleOff == "" || slices.Contains(v.Off, q.RuleOff))
}

// catchUp brings the lists up to date. A deal that fails keeps its old rows; the others
// are exact.
func (n *Node) catchUp(ctx context.Context) {
	if n.cfg.Peers != nil {
		n.catchUpAnywhere()
	}
	ctx, cancel := n.part(ctx)
	defer cancel()
	n.report("lists", n.views.catchUp(ctx))
}

// Deals returns a page of deals in the order of their ids, and whether there
// are more.
func (n *Node) Deals(ctx context.Context, q DealQuery) (page []deal.View, more bool, err error) {
	n.catchUp(ctx)
	now := n.clock.Now().Wall
	err = n.store.Tables().Scan(ctx, tableDeals, "", q.After, func(_ string, value []byte) error {
		row, err := decodeDealRow(value)
		if err != nil || !q.matches(&row.view, now) {
			return err
		}
		if len(page) == q.Limit {
			more = true
			return journal.ErrStop
		}
		page = append(page, row.view)
		return nil
	})
	return page, more, err
}

// Events calls fn for a deal's committed events after a seq, in order, and with the
// deal as it stands now, which it returns. The event is valid only during the call.
// An error of fn ends it and is returned. ErrDealNotFound, ErrUnavailable.
func (n *Node) Events(ctx context.Context, dealID string, after uint64, fn func(*deal.View, *deal.Event) error) (deal.View, error) {
	v, err := n.Deal(ctx, dealID)
	if err != nil {
		return v, err
	}
	var e deal.Event
	return v, n.store.Read(ctx, dealID, after, func(je journal.Event) error {
		if je.Seq > v.Seq {
			return journal.ErrStop
		}
		e.Reset()
		if err := e.Decode(je.Data); err != nil {
			return err
		}
		e.Seq = je.Seq
		return fn(&v, &e)
	})
}

// Order is an order as it was placed and as it stands.
type Order struct {
	Deal     string
	Currency [3]byte
	Seq      uint64
	Status   deal.OrderStatus
	Group    deal.GroupView
	Event    deal.Event // OrderPlaced; its slices lie in the record below
	// Step is the event that last gave the order a reference (of its payment,
	// cancellation or refund), with the reference; Kind 0 = none did.
	Step   deal.Kind
	Ref    string
	Paid   string // the reference of the payment that Step gave back
	record []byte
}

// LoadStep fills in Step, Ref and Paid from the event at seq, Reply.Moved of a decision.
func (n *Node) LoadStep(ctx context.Context, seq uint64, o *Order) error {
	if o.Step, o.Ref, o.Paid = 0, "", ""; seq == 0 {
		return nil
	}
	step, err := n.event(ctx, o.Deal, seq)
	if err != nil {
		return err
	}
	if o.Step, o.Ref = step.Kind, string(step.Ref); step.Payment == 0 {
		return nil
	}
	payment, err := n.event(ctx, o.Deal, step.Payment)
	o.Paid = string(payment.Ref)
	return err
}

// event reads one committed event.
func (n *Node) event(ctx context.Context, dealID string, seq uint64) (e deal.Event, err error) {
	record, err := n.store.Get(ctx, dealID, seq, nil)
	if err == nil {
		err = e.Decode(record)
	}
	return e, err
}

// LoadOrder fills in what the journal knows of an order: Deal, Currency, Seq
// and Event. It must have been acknowledged. ErrOrderNotFound.
func (n *Node) LoadOrder(ctx context.Context, dealID string, seq uint64, o *Order) error {
	ctx, cancel := n.Patience(ctx)
	defer cancel()
	v, err := n.Deal(ctx, dealID)
	if err != nil {
		return err
	}
	return n.loadOrder(ctx, v.Spec, seq, o)
}

// LoadPlaced is LoadOrder for the order that the answer in r is about, for as long as r
// may take.
func (n *Node) LoadPlaced(ctx context.Context, r *Request, o *Order) error {
	ctx, cancel := n.until(ctx, r.Deadline())
	defer cancel()
	return n.loadOrder(ctx, r.View.Spec, r.Reply.Order, o)
}

func (n *Node) loadOrder(ctx context.Context, spec *deal.Spec, seq uint64, o *Order) (err error) {
	o.record, err = n.store.Get(ctx, spec.ID, seq, o.record[:0])
	if errors.Is(err, journal.ErrNotFound) {
		return ErrOrderNotFound
	}
	if err != nil {
		return err
	}
	if err := o.Event.Decode(o.record); err != nil {
		return err
	}
	if o.Event.Kind != deal.OrderPlaced {
		return ErrOrderNotFound
	}
	o.Event.Seq = seq
	o.Deal, o.Seq, o.Currency = spec.ID, seq, spec.Currency
	return nil
}

// Order returns an order as it stands, also during a drain. ErrDealNotFound,
// ErrOrderNotFound, ErrOverloaded and the errors of Call.
func (n *Node) Order(ctx context.Context, dealID string, seq uint64) (*Order, error) {
	r, err := n.Admit(own.ClassNew)
	if err != nil {
		return nil, err
	}
	r.Deal = append(r.Body, dealID...)
	r.Cmd.Kind, r.Cmd.Order = deal.LookupOrder, seq
	ctx, cancel := n.Patience(ctx)
	defer cancel()
	if err := n.CallWithin(ctx, r); err != nil {
		if !errors.Is(err, ErrDeadline) {
			n.Release(r)
		}
		return nil, err
	}
	o := &Order{Status: r.Reply.Status, Group: r.Reply.Group}
	code, moved, spec := r.Reply.Code, r.Reply.Moved, r.View.Spec
	n.Release(r)
	if code != deal.OK {
		return nil, ErrOrderNotFound
	}
	if err := n.loadOrder(ctx, spec, seq, o); err != nil {
		return nil, err
	}
	return o, n.LoadStep(ctx, moved, o)
}

// OrderQuery selects the orders of a user, of a deal, or of a user in a deal.
type OrderQuery struct {
	User, Deal string // at least one
	AfterDeal  string // the last order of the page before
	AfterSeq   uint64
	Limit      int
}

// orderRef names an order.
type orderRef struct {
	deal string
	seq  uint64
}

// Orders returns a page of orders, of a user by deal and age, of a deal by
// age, and whether there are more. Orders of a user's deals that cannot serve now
// are left out and counted: they say nothing about the others.
func (n *Node) Orders(ctx context.Context, q OrderQuery) (page []*Order, more bool, err error) {
	find := n.ordersOfDeal
	if q.User != "" {
		find = n.ordersOfUser
	}
	for more = true; more && len(page) == 0; { // a page is empty only if it is the last
		refs, err := find(ctx, &q)
		if err != nil {
			return nil, false, err
		}
		if more = len(refs) > q.Limit; more {
			refs = refs[:q.Limit]
		}
		for _, ref := range refs {
			q.AfterDeal, q.AfterSeq = ref.deal, ref.seq
			o, err := n.Order(ctx, ref.deal, ref.seq)
			switch {
			case err == nil:
				page = append(page, o)
			case q.Deal != "" || !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrOverloaded):
				return nil, false, err
			default:
				n.leftOut.Add(1)
				n.report("list of a user's orders", fmt.Errorf("order %d of deal %s is left out: %w", ref.seq, ref.deal, err))
			}
		}
	}
	return page, more, nil
}

// ordersOfUser finds one more order than a page holds.
func (n *Node) ordersOfUser(ctx context.Context, q *OrderQuery) (refs []orderRef, err error) {
	n.catchUp(ctx)
	prefix := q.User + "\x00"
	if q.Deal != "" {
		prefix += q.Deal + "\x00"
	}
	after := ""
	if q.AfterSeq != 0 {
		after = string(appendOrderKey(nil, q.User, q.AfterDeal, q.AfterSeq))
	}
	err = n.store.Tables().Scan(ctx, tableOrders, prefix, after, func(key string, _ []byte) error {
		dealID, seq, ok := splitOrderKey(key)
		if !ok {
			return fmt.Errorf("%w: key %q of %s", deal.ErrMalformed, key, tableOrders)
		}
		return q.take(&refs, orderRef{dealID, seq})
	})
	return refs, err
}

func (n *Node) ordersOfDeal(ctx context.Context, q *OrderQuery) (refs []orderRef, err error) {
	v, err := n.Deal(ctx, q.Deal)
	if err != nil {
		return nil, err
	}
	err = n.store.Read(ctx, q.Deal, q.AfterSeq, func(e journal.Event) error {
		if e.Seq > v.Seq || deal.Kind(e.Data[0]) != deal.OrderPlaced {
			return nil
		}
		return q.take(&refs, orderRef{q.Deal, e.Seq})
	})
	return refs, err
}

// take adds a ref and ends the scan once there is one more than a page holds.
func (q *OrderQuery) take(refs *[]orderRef, ref orderRef) error {
	if *refs = append(*refs, ref); len(*refs) > q.Limit {
		return journal.ErrStop
	}
	return nil
}

// Stats is what a node tells of itself.
type Stats struct {
	Deals   int // known
	Active  int // in memory
	Waiting int // requests in the deals' mailboxes or under way behind them
	// Turns is how often a deal took what its mailbox held, and TurnsWaited how long the
	// first message of each turn had waited there, all turns together. A turn's other
	// messages have waited for less.
	Turns       uint64
	TurnsWaited time.Duration
	Pool        own.Stats
	ReadOnly    bool
	LeftOut     uint64 // orders that a list lacked, because their deal could not serve
	// The epochs of the deals in memory, 0 if there is none.
	EpochLowest, EpochHighest uint64
	RulesOff                  uint64 // times that a rule was switched off for a deal
	HandedOver                uint64 // deals, to other nodes
	Asked, Served             uint64 // messages to and from other nodes
	Watched                   int    // deals of other nodes that are watched here
}

// Stats returns the node's present numbers.
func (n *Node) Stats() Stats {
	st := Stats{
		Deals: n.directory.deals.Size(), Active: n.active.len(),
		Pool: n.pool.Stats(), ReadOnly: n.readOnly.Load(), RulesOff: n.rulesOff.Load(), LeftOut: n.leftOut.Load(),
	}
	st.Turns, st.TurnsWaited = n.turns.taken.Load(), time.Duration(n.turns.waited.Load())
	st.HandedOver, st.Asked, st.Served = n.cluster.handedOver.Load(), n.cluster.asked.Load(), n.cluster.served.Load()
	n.cluster.followers.mu.Lock()
	st.Watched = len(n.cluster.followers.byDeal)
	n.cluster.followers.mu.Unlock()
	n.active.list(func(a *activation) bool {
		st.Waiting += a.waiting.InFlight()
		if a.loaded.Load() && a.epoch != 0 {
			st.EpochHighest = max(st.EpochHighest, a.epoch)
			if st.EpochLowest == 0 || a.epoch < st.EpochLowest {
				st.EpochLowest = a.epoch
			}
		}
		return false
	})
	return st
}
