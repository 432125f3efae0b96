package deal

import (
	"slices"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// Rules runs promotion rules. An implementation keeps nothing of in, and
// fills all of out; it may be called from many deals at once.
type Rules interface {
	// Evaluate runs the merchant's rule of that name. A rule that does not
	// answer properly is a fault in out, never a panic.
	Evaluate(merchant, rule string, in *abi.Input, out *abi.Verdict)
}

// Decide answers one command. It changes nothing: what would happen is in
// r.Event, to be applied by the caller. Whatever is due at c.At must have
// been applied before. r must be Reset. A command beyond the bounds of its
// fields is the caller's bug, and a panic.
func (s *State) Decide(c *Command, rules Rules, r *Reply) {
	if s.Spec == nil && c.Kind != Create {
		r.refuse(DealNotFound)
		return
	}
	if !c.bounded() {
		panic("deal: a command beyond its bounds, which the caller must refuse: the journal could not hold its event")
	}
	r.Event.At = max(c.At, s.At)
	switch c.Kind {
	case Place, Quote:
		s.decideOrder(c, rules, r)
	case Confirm:
		s.decideChange(c, r, OrderConfirmed)
	case Cancel:
		s.decideChange(c, r, OrderCancelled)
	case Refund:
		s.decideChange(c, r, OrderRefunded)
	case Create:
		s.decideCreate(c, r)
	case Change:
		s.decidePatch(c, r)
	case Pause:
		s.decideFlag(r, DealPausedAt, s.Paused)
	case Resume:
		s.decideFlag(r, DealResumed, !s.Paused)
	case Close:
		s.decideFlag(r, DealClosed, s.Closed)
	case LookupOrder:
		s.lookupOrder(c.Order, r)
	case LookupGroup:
		s.lookupGroup(c.Group, r)
	}
}

// decideOrder goes through idempotency → window → stock → quota → group →
// rules, and stops at the first that says no.
func (s *State) decideOrder(c *Command, rules Rules, r *Reply) {
	p := &r.Event.Placed
	var held holding
	if u, known := s.users.find(c.User); known {
		held = s.held[u]
		if c.Kind == Place && s.replay(u, c, r) {
			return
		}
	}
	if code := s.closedFor(r.Event.At); code != OK {
		r.refuse(code)
		return
	}
	if c.Quantity < 1 || c.Quantity > MaxQuantity {
		r.refuse(QuantityInvalid)
		return
	}
	if s.Available < c.Quantity {
		r.refuse(SoldOut)
		return
	}
	if s.orders.len() >= MaxOrders {
		r.Detail = "the deal has taken as many orders as it may"
		r.refuse(SoldOut)
		return
	}
	if limit := s.Spec.PerUserLimit; limit != 0 && int64(held.units)+c.Quantity > int64(limit) {
		r.refuse(UserLimitExceeded)
		return
	}
	p.UnitPrice = s.Spec.UnitPrice
	if c.GroupMode != Alone && !s.joinGroup(c, r) {
		return
	}
	p.User, p.Key = c.User, c.Key
	p.Quantity = uint32(c.Quantity)
	p.Codes, p.Attributes = append(p.Codes, c.Codes...), append(p.Attributes, c.Attributes...)
	p.UserQuantity, p.FirstOrder = held.units, held.orders == 0
	p.Available, p.Stock = s.Available-c.Quantity, s.Stock
	p.StartsAt, p.EndsAt = s.Spec.StartsAt, s.Spec.EndsAt
	p.ExpiresAt = r.Event.At + s.Spec.ReserveTTL
	if !s.price(c, rules, r) {
		return
	}
	if c.Kind == Place {
		p.Fingerprint = c.fingerprint()
		r.Event.Kind = OrderPlaced
		r.Order, r.Status = s.Seq+1, Reserved
		if c.GroupMode == OpenGroup {
			r.Group.Seq = r.Order
		}
	}
}

// replay answers a repeated idempotency key with its first order.
func (s *State) replay(user uint32, c *Command, r *Reply) bool {
	o := s.findKey(user, c.Key, r.Event.At)
	if o == nil {
		return false
	}
	if o.fingerprint != c.fingerprint() {
		r.refuse(IdempotencyMismatch)
		return true
	}
	r.Replayed = true
	s.describe(o, r)
	return true
}

// closedFor says why the deal takes no orders at now, OK when it does.
func (s *State) closedFor(now int64) Code {
	v := s.View()
	switch v.Status(now) {
	case Ended:
		return DealEnded
	case OnHold:
		return DealPaused
	case Scheduled:
		return DealNotStarted
	case OutOfStock:
		return SoldOut
	case Live:
	}
	return OK
}

// joinGroup finds the order its group, or opens one, and its group price.
func (s *State) joinGroup(c *Command, r *Reply) bool {
	p := &r.Event.Placed
	spec := &s.Spec.Group
	if spec.Size == 0 {
		r.refuse(GroupNotOffered)
		return false
	}
	p.UnitPrice, p.GroupMode, p.GroupSize = spec.UnitPrice, c.GroupMode, spec.Size
	p.GroupMembers, p.GroupEnds = 1, r.Event.At+spec.Window
	if c.GroupMode == JoinGroup {
		i := s.findGroup(c.Group)
		if i < 0 {
			r.refuse(GroupNotFound)
			return false
		}
		g := &s.groups[i]
		if g.status != Forming {
			r.refuse(GroupClosed)
			return false
		}
		if g.members >= spec.Size {
			r.refuse(GroupFull)
			return false
		}
		p.Group, p.GroupMembers, p.GroupEnds = g.seq, g.members+1, g.expires
	}
	r.Group = GroupView{Seq: p.Group, Size: spec.Size, Members: p.GroupMembers, Status: Forming, ExpiresAt: p.GroupEnds}
	return true
}

// price runs the deal's rules over the order in r. False: one refused it.
func (s *State) price(c *Command, rules Rules, r *Reply) bool {
	if len(s.Spec.Rules) == 0 {
		return true
	}
	in := &r.input
	in.DealID, in.Currency, in.DealAttributes = s.id, s.Spec.Currency, s.Spec.Attributes
	r.Event.Input(in)
	if c.Kind == Quote {
		in.Flags |= abi.FlagQuote
	}
	if !in.Fits() { // the shopper's doing, and no fault of a rule
		r.refuse(OrderTooLarge)
		return false
	}
	return s.Spec.price(rules, s.off, r)
}

// Reprice answers what the order of e would cost under the spec's rules, all of
// them switched on: r has its price in Event.Placed, or says RuleRejected. The
// spec is the order's deal, perhaps with other rules; r must be Reset.
func (s *Spec) Reprice(e *Event, rules Rules, r *Reply) {
	p := &r.Event.Placed
	codes, attributes, evaluations := p.Codes, p.Attributes, p.Evaluations
	r.Event = *e
	p.Codes, p.Attributes = append(codes, e.Placed.Codes...), append(attributes, e.Placed.Attributes...)
	p.Evaluations, p.Discount = evaluations, 0
	in := &r.input
	in.DealID, in.Currency, in.DealAttributes = keep(r, s.ID), s.Currency, s.Attributes
	r.Event.Input(in)
	s.price(rules, nil, r)
}

// price runs the rules, in order and but for those that are off, on r.input, and
// adds up their discounts in r.Event. False: one refused the order.
func (s *Spec) price(rules Rules, off []string, r *Reply) bool {
	p, in := &r.Event.Placed, &r.input
	for _, rule := range s.Rules {
		if slices.Contains(off, rule) {
			if s.OnRuleError == RejectOnRuleError {
				r.Detail = "a promotion rule of this deal kept failing and is switched off"
				r.refuse(RuleRejected)
				return false
			}
			continue
		}
		in.DiscountSoFar = p.Discount
		rules.Evaluate(s.Merchant, rule, in, &r.verdict)
		v := &r.verdict
		p.Evaluations = append(p.Evaluations, Evaluation{
			Rule: keep(r, rule), House: v.House, Version: v.Version, SHA256: v.SHA256, Outcome: v.Outcome, Final: v.Final, Fault: v.Fault,
			Fuel: v.Fuel, Digest: v.Digest, Label: keep(r, v.Label), Reason: keep(r, v.Reason), Trial: v.Trial,
		})
		e := &p.Evaluations[len(p.Evaluations)-1]
		switch {
		case v.Fault != abi.FaultNone:
			e.Outcome, e.Final = abi.OutcomeNone, false
			if s.OnRuleError == RejectOnRuleError {
				r.Detail = "a promotion rule of this deal failed"
				r.refuse(RuleRejected)
				return false
			}
		case v.Outcome == abi.OutcomeReject:
			r.Detail = "a promotion rule of this deal refused the order"
			r.refuse(RuleRejected)
			return false
		case v.Outcome == abi.OutcomeDiscount:
			e.Discount = v.Discount
			p.Discount += v.Discount
		}
		if e.Final {
			break
		}
	}
	return true
}

// keep copies text into the reply's own buffer.
func keep[T string | []byte](r *Reply, text T) []byte {
	at := len(r.text)
	r.text = append(r.text, text...)
	return r.text[at:len(r.text):len(r.text)]
}

// decideChange moves an order along. An order that is already where the
// command would take it gets the same answer again and no event; a step that
// OrderStatus does not list is a conflict.
func (s *State) decideChange(c *Command, r *Reply, kind Kind) {
	i := s.findOrder(c.Order)
	if i < 0 {
		r.refuse(OrderNotFound)
		return
	}
	o := s.orders.at(i)
	s.describe(o, r)
	from, to := Reserved, Cancelled
	switch kind {
	case OrderConfirmed:
		to = Confirmed
		if o.group != 0 {
			to = Paid
		}
	case OrderRefunded:
		from, to = RefundDue, Refunded
	default: // OrderCancelled
	}
	switch o.status {
	case from:
		r.Event.Kind, r.Event.Order, r.Event.Ref = kind, o.seq, c.Ref
		if kind == OrderRefunded {
			r.Event.Payment = r.Moved
		}
		r.Status = to
	case to:
	case Confirmed: // a paid order whose group has completed since
		if to != Paid {
			r.refuse(OrderStateConflict)
		}
	default:
		r.refuse(OrderStateConflict)
	}
}

// Settled fills in what a reply can say only after its event was applied: a
// payment may have completed the order's group.
func (s *State) Settled(r *Reply) {
	if r.Event.Kind == OrderPlaced {
		return
	}
	if i := s.findOrder(r.Order); i >= 0 {
		s.describe(s.orders.at(i), r)
	}
}

// describe fills r with an order as it stands.
func (s *State) describe(o *order, r *Reply) {
	r.Order, r.Status, r.Moved = o.seq, o.status, 0
	if o.moved != 0 {
		r.Moved = o.seq + uint64(o.moved)
	}
	if o.group != 0 {
		r.Group = s.viewGroup(&s.groups[o.group-1])
	}
}

func (s *State) viewGroup(g *group) GroupView {
	return GroupView{Seq: g.seq, Size: s.Spec.Group.Size, Members: g.members, Status: g.status, ExpiresAt: g.expires}
}

// GroupOf returns the group that e, an event of this state, has changed, as it
// stands now. False: e changed none.
func (s *State) GroupOf(e *Event) (GroupView, bool) {
	switch e.Kind {
	case OrderPlaced:
		if e.Placed.GroupMode == Alone {
			return GroupView{}, false
		}
		return s.groupOfOrder(e.Seq)
	case OrderConfirmed, OrderCancelled, OrderExpired:
		return s.groupOfOrder(e.Order)
	case GroupFailed:
		i := s.findGroup(e.Group)
		return s.viewGroup(&s.groups[i]), true
	case DealCreated, DealChanged, DealPausedAt, DealResumed, DealClosed, OrderRefunded, RuleSwitchedOff:
	}
	return GroupView{}, false
}

func (s *State) groupOfOrder(seq uint64) (GroupView, bool) {
	o := s.orders.at(s.findOrder(seq))
	if o.group == 0 {
		return GroupView{}, false
	}
	return s.viewGroup(&s.groups[o.group-1]), true
}

func (s *State) lookupOrder(seq uint64, r *Reply) {
	i := s.findOrder(seq)
	if i < 0 {
		r.refuse(OrderNotFound)
		return
	}
	s.describe(s.orders.at(i), r)
}

func (s *State) lookupGroup(seq uint64, r *Reply) {
	i := s.findGroup(seq)
	if i < 0 {
		r.refuse(GroupNotFound)
		return
	}
	r.Group = s.viewGroup(&s.groups[i])
}

func (s *State) decideCreate(c *Command, r *Reply) {
	if s.Spec != nil {
		r.refuse(DealExists)
		return
	}
	if f := c.Spec.Validate(); f != nil {
		r.Detail = f[0].Error()
		r.refuse(DealInvalid)
		return
	}
	r.Event.Kind, r.Event.Spec = DealCreated, c.Spec
}

func (s *State) decidePatch(c *Command, r *Reply) {
	p := c.Patch
	f := p.Validate()
	switch {
	case f != nil:
		r.Detail = f[0].Error()
		r.refuse(DealInvalid)
	case s.Closed || s.ended(r.Event.At):
		r.refuse(DealEnded)
	case p.EndsAt != nil && *p.EndsAt != 0 && *p.EndsAt <= s.Spec.StartsAt:
		r.Detail = FieldError{"ends_at", "must be later than starts_at"}.Error()
		r.refuse(DealInvalid)
	case s.Stock+p.StockAdd > MaxStock:
		r.Detail = FieldError{"stock_add", "would take the stock past its bound"}.Error()
		r.refuse(DealInvalid)
	default:
		r.Event.Kind, r.Event.Patch = DealChanged, p
	}
}

// decideFlag pauses, resumes or closes. Asking for what already is changes
// nothing and succeeds; a deal that has ended is neither paused nor resumed.
func (s *State) decideFlag(r *Reply, kind Kind, already bool) {
	if kind != DealClosed && s.ended(r.Event.At) {
		r.refuse(DealEnded)
		return
	}
	if !already {
		r.Event.Kind = kind
	}
}

func (s *State) ended(now int64) bool {
	v := s.View()
	return v.Status(now) == Ended
}
