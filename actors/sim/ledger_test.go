package sim

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// ledger is a second account of a deal, kept from its events with maps and
// loops and none of the engine's code, so that the two are wrong together only
// if both are.
type ledger struct {
	seq   uint64
	at    int64
	spec  deal.Spec // as patched; ID "" until the deal is created
	rules []string  // of the deal that are not switched off

	stock, available, reserved, sold int64
	paused, closed                   bool

	orders map[uint64]*entry
	groups map[uint64]*party
	held   map[string]int64 // units by user
	placed map[string]int   // orders ever by user
	keys   map[string]*entry
}

// entry is one order.
type entry struct {
	deal.Event
	status deal.OrderStatus
	party  *party
}

// party is one group.
type party struct {
	seq     uint64
	members []*entry // that ever joined
	status  deal.GroupStatus
	ends    int64
}

func newLedger() *ledger {
	return &ledger{
		orders: map[uint64]*entry{}, groups: map[uint64]*party{},
		held: map[string]int64{}, placed: map[string]int{}, keys: map[string]*entry{},
	}
}

// apply enters the next event, if it may come next.
func (l *ledger) apply(e *deal.Event) error {
	if e.Seq != l.seq+1 {
		return fmt.Errorf("event %d follows event %d", e.Seq, l.seq)
	}
	if e.At < l.at {
		return fmt.Errorf("I10: event %d at %d, after one at %d", e.Seq, e.At, l.at)
	}
	if (l.spec.ID == "") != (e.Kind == deal.DealCreated) {
		return fmt.Errorf("event %d has kind %d", e.Seq, e.Kind)
	}
	l.seq, l.at = e.Seq, e.At
	if err := l.enter(e); err != nil {
		return fmt.Errorf("event %d: %w", e.Seq, err)
	}
	if l.available < 0 || l.reserved < 0 || l.sold < 0 || l.reserved+l.sold > l.stock {
		return fmt.Errorf("I1: event %d: available %d, reserved %d, sold %d of %d", e.Seq, l.available, l.reserved, l.sold, l.stock)
	}
	if l.available+l.reserved+l.sold != l.stock {
		return fmt.Errorf("I2: event %d: available %d + reserved %d + sold %d ≠ %d", e.Seq, l.available, l.reserved, l.sold, l.stock)
	}
	return nil
}

func (l *ledger) enter(e *deal.Event) error {
	switch e.Kind {
	case deal.DealCreated:
		l.spec, l.stock, l.available, l.rules = *e.Spec, e.Spec.Stock, e.Spec.Stock, e.Spec.Rules
	case deal.DealChanged:
		l.patch(e.Patch)
	case deal.DealPausedAt:
		l.paused = true
	case deal.DealResumed:
		l.paused = false
	case deal.DealClosed:
		l.closed = true
	case deal.OrderPlaced:
		return l.place(e)
	case deal.OrderConfirmed:
		return l.pay(e.Order)
	case deal.OrderCancelled:
		return l.release(e.Order, deal.Cancelled)
	case deal.OrderExpired:
		if o := l.orders[e.Order]; o != nil && e.At < o.Placed.ExpiresAt {
			return fmt.Errorf("order %d expires at %d, not at %d", e.Order, o.Placed.ExpiresAt, e.At)
		}
		return l.release(e.Order, deal.Expired)
	case deal.OrderRefunded:
		return l.move(e.Order, deal.RefundDue, deal.Refunded)
	case deal.GroupFailed:
		return l.failGroup(e)
	case deal.RuleSwitchedOff:
		if !slices.Contains(l.rules, string(e.Rule)) {
			return fmt.Errorf("rule %q is none of the deal's, or off already", e.Rule)
		}
		l.rules = slices.DeleteFunc(slices.Clone(l.rules), func(rule string) bool { return rule == string(e.Rule) })
	default:
		return fmt.Errorf("kind %d", e.Kind)
	}
	return nil
}

func (l *ledger) patch(p *deal.Patch) {
	l.stock += p.StockAdd
	l.available += p.StockAdd
	if p.PerUserLimit != nil {
		l.spec.PerUserLimit = *p.PerUserLimit
	}
	if p.EndsAt != nil {
		l.spec.EndsAt = *p.EndsAt
	}
	if p.Rules != nil {
		l.spec.Rules, l.rules = *p.Rules, *p.Rules
	}
}

func bound(user, key []byte) string { return string(user) + "\x00" + string(key) }

func (l *ledger) place(e *deal.Event) error {
	p := &e.Placed
	user, units := string(p.User), int64(p.Quantity)
	if code := l.refuses(e.At); code != deal.OK {
		return fmt.Errorf("placed, but the deal answers code %d", code)
	}
	if again := l.remembers(p.User, p.Key, e.At); again != nil {
		return fmt.Errorf("order %d has key %s of %s already", again.Seq, p.Key, user)
	}
	if limit := int64(l.spec.PerUserLimit); limit != 0 && l.held[user]+units > limit {
		return fmt.Errorf("I6: %s holds %d and gets %d more, the limit is %d", user, l.held[user], units, limit)
	}
	if p.Available != l.available-units || int64(p.UserQuantity) != l.held[user] || p.FirstOrder != (l.placed[user] == 0) {
		return fmt.Errorf("says %d left, %d held before, first %v; the ledger: %d, %d, %d orders",
			p.Available, p.UserQuantity, p.FirstOrder, l.available-units, l.held[user], l.placed[user])
	}
	o := &entry{Event: *e, status: deal.Reserved}
	if err := l.seat(o); err != nil {
		return err
	}
	if err := l.price(o); err != nil {
		return err
	}
	l.available -= units
	l.reserved += units
	l.held[user] += units
	l.placed[user]++
	l.orders[e.Seq] = o
	l.keys[bound(p.User, p.Key)] = o
	return nil
}

// digest identifies what a rule was told.
func digest(in *abi.Input) uint64 {
	encoded, err := in.Append(nil)
	if err != nil {
		panic(err)
	}
	return abi.Digest(encoded)
}

// price runs the rules of the deal once more, on what the order's event says that
// they were told.
func (l *ledger) price(o *entry) error {
	p := &o.Placed
	unit := l.spec.UnitPrice
	if o.party != nil {
		unit = l.spec.Group.UnitPrice
	}
	if p.Stock != l.stock || p.StartsAt != l.spec.StartsAt || p.EndsAt != l.spec.EndsAt || o.party != nil && p.GroupSize != l.spec.Group.Size {
		return fmt.Errorf("I7: says stock %d, from %d to %d, groups of %d", p.Stock, p.StartsAt, p.EndsAt, p.GroupSize)
	}
	in := l.spec.Input()
	o.Input(&in)
	for i, e := range p.Evaluations {
		if i >= len(l.rules) || string(e.Rule) != l.rules[i] || e.SHA256 != sha256.Sum256(e.Rule) {
			return fmt.Errorf("rule %d is %s, sha256 %x", i, e.Rule, e.SHA256)
		}
		if e.Digest != digest(&in) {
			return fmt.Errorf("I7: rule %s was told something else than %+v", e.Rule, in)
		}
		var out abi.Output
		if e.Fault == abi.FaultNone {
			out = rules[l.rules[i]](&in)
		}
		if e.Outcome != out.Outcome || e.Discount != out.Discount || e.Final != out.Final {
			return fmt.Errorf("I7: rule %s answered %+v, and now %+v", e.Rule, e, out)
		}
		in.DiscountSoFar += out.Discount
	}
	if p.UnitPrice != unit || p.Discount != in.DiscountSoFar {
		return fmt.Errorf("I7: unit price %d less %d, not %d less %d", p.UnitPrice, p.Discount, unit, in.DiscountSoFar)
	}
	return nil
}

func (l *ledger) seat(o *entry) error {
	p := &o.Placed
	switch p.GroupMode {
	case deal.Alone:
		return nil
	case deal.OpenGroup:
		o.party = &party{seq: o.Seq, status: deal.Forming, ends: p.GroupEnds}
		l.groups[o.Seq] = o.party
	case deal.JoinGroup:
		o.party = l.groups[p.Group]
	}
	g := o.party
	if g == nil || g.status != deal.Forming || g.count(deal.Reserved)+g.count(deal.Paid) >= int(l.spec.Group.Size) {
		return fmt.Errorf("no seat in group %d", p.Group)
	}
	g.members = append(g.members, o)
	return nil
}

func (g *party) count(status deal.OrderStatus) (n int) {
	for _, m := range g.members {
		if m.status == status {
			n++
		}
	}
	return n
}

func (l *ledger) move(seq uint64, from, to deal.OrderStatus) error {
	o := l.orders[seq]
	if o == nil || o.status != from {
		return fmt.Errorf("order %d cannot become %v", seq, to)
	}
	o.status = to
	return nil
}

func (l *ledger) pay(seq uint64) error {
	if err := l.move(seq, deal.Reserved, deal.Paid); err != nil {
		return err
	}
	o := l.orders[seq]
	if o.party == nil {
		l.confirm(o)
	} else if o.party.count(deal.Paid) == int(l.spec.Group.Size) {
		o.party.status = deal.Complete
		for _, m := range o.party.members {
			if m.status == deal.Paid {
				l.confirm(m)
			}
		}
	}
	return nil
}

func (l *ledger) confirm(o *entry) {
	o.status = deal.Confirmed
	l.reserved -= int64(o.Placed.Quantity)
	l.sold += int64(o.Placed.Quantity)
}

func (l *ledger) release(seq uint64, to deal.OrderStatus) error {
	if err := l.move(seq, deal.Reserved, to); err != nil {
		return err
	}
	l.giveBack(l.orders[seq])
	return nil
}

func (l *ledger) giveBack(o *entry) {
	units := int64(o.Placed.Quantity)
	l.reserved -= units
	l.available += units
	l.held[string(o.Placed.User)] -= units
}

func (l *ledger) failGroup(e *deal.Event) error {
	g := l.groups[e.Group]
	if g == nil || g.status != deal.Forming || e.At < g.ends {
		return fmt.Errorf("group %d cannot fail at %d", e.Group, e.At)
	}
	g.status = deal.Failed
	for _, m := range g.members {
		switch m.status {
		case deal.Paid:
			m.status = deal.RefundDue
			l.giveBack(m)
		case deal.Reserved:
			m.status = deal.Expired
			l.giveBack(m)
		case deal.Confirmed, deal.Cancelled, deal.Expired, deal.RefundDue, deal.Refunded:
		}
	}
	return nil
}

// remembers returns the order that a key is bound to at now.
func (l *ledger) remembers(user, key []byte, now int64) *entry {
	if o := l.keys[bound(user, key)]; o != nil && o.At > now-deal.KeyWindow {
		return o
	}
	return nil
}

// refuses says why the deal takes no order at now.
func (l *ledger) refuses(now int64) deal.Code {
	switch {
	case l.ended(now):
		return deal.DealEnded
	case l.paused:
		return deal.DealPaused
	case now < l.spec.StartsAt:
		return deal.DealNotStarted
	case l.available == 0:
		return deal.SoldOut
	}
	return deal.OK
}

func (l *ledger) ended(now int64) bool {
	return l.closed || l.spec.EndsAt != 0 && now >= l.spec.EndsAt
}

// agrees says whether a view is the deal as it stands.
func (l *ledger) agrees(v *deal.View) bool {
	if l.spec.ID == "" {
		return v.Spec == nil && v.Seq == 0
	}
	return v.Spec != nil && v.Spec.ID == l.spec.ID && v.Spec.PerUserLimit == l.spec.PerUserLimit && v.Spec.EndsAt == l.spec.EndsAt &&
		v.Seq == l.seq && v.Stock == l.stock && v.Available == l.available && v.Reserved == l.reserved && v.Sold == l.sold &&
		v.Paused == l.paused && v.Closed == l.closed
}

// overdue returns what should have run out by now and has not.
func (l *ledger) overdue(now int64) error {
	for seq, o := range l.orders {
		if o.status == deal.Reserved && o.Placed.ExpiresAt <= now {
			return fmt.Errorf("I14: order %d is still reserved at %d, it expires at %d", seq, now, o.Placed.ExpiresAt)
		}
	}
	for seq, g := range l.groups {
		if g.status == deal.Forming && g.ends <= now {
			return fmt.Errorf("I14: group %d is still forming at %d, it ends at %d", seq, now, g.ends)
		}
	}
	return nil
}

// justified says whether the ledger, as it stands, would have answered so. The
// op made nothing happen.
func (l *ledger) justified(o *op) bool {
	if o.code != deal.OK {
		return l.refused(o)
	}
	c := &o.cmd
	switch c.Kind {
	case deal.Place:
		first := l.remembers(c.User, c.Key, o.at)
		return o.replayed && first != nil && first.Seq == o.order && first.status == o.status && asked(first, c)
	case deal.Quote:
		return l.refuses(o.at) == deal.OK && l.available >= c.Quantity && o.left == l.available-c.Quantity
	case deal.Confirm:
		return l.stands(o, deal.Paid, deal.Confirmed)
	case deal.Cancel:
		return l.stands(o, deal.Cancelled)
	case deal.Refund:
		return l.stands(o, deal.Refunded)
	case deal.LookupOrder:
		return l.stands(o, o.status)
	case deal.LookupGroup:
		g := l.groups[c.Group]
		return g != nil && g.status == o.group.Status
	case deal.Pause:
		return l.paused
	case deal.Resume:
		return !l.paused
	case deal.Close:
		return l.closed
	case deal.Create, deal.Change:
	}
	return false
}

func (l *ledger) stands(o *op, one ...deal.OrderStatus) bool {
	e := l.orders[o.cmd.Order]
	for _, status := range one {
		if e != nil && e.status == status && o.status == status {
			return true
		}
	}
	return false
}

func asked(first *entry, c *deal.Command) bool {
	p := &first.Placed
	return int64(p.Quantity) == c.Quantity && p.GroupMode == c.GroupMode && (c.GroupMode != deal.JoinGroup || p.Group == c.Group)
}

func (l *ledger) refused(o *op) bool {
	c := &o.cmd
	var first *entry
	if c.Kind == deal.Place {
		first = l.remembers(c.User, c.Key, o.at)
	}
	if o.code == deal.IdempotencyMismatch {
		return first != nil && !asked(first, c)
	}
	if first != nil {
		return false // must have been replayed
	}
	e, g := l.orders[c.Order], l.groups[c.Group]
	switch o.code {
	case deal.DealExists:
		return l.spec.ID != ""
	case deal.DealNotFound:
		return l.spec.ID == ""
	case deal.DealEnded:
		return l.ended(o.at)
	case deal.DealPaused, deal.DealNotStarted:
		return l.refuses(o.at) == o.code
	case deal.DealInvalid:
		return c.Kind == deal.Create && c.Spec.Stock == 0 || c.Kind == deal.Change && (c.Patch.StockAdd < 0 || c.Patch.EndsAt != nil)
	case deal.SoldOut:
		return l.available < c.Quantity || l.available == 0
	case deal.UserLimitExceeded:
		return l.spec.PerUserLimit != 0 && l.held[string(c.User)]+c.Quantity > int64(l.spec.PerUserLimit)
	case deal.QuantityInvalid:
		return c.Quantity < 1
	case deal.RuleRejected:
		return len(l.spec.Rules) > 0
	case deal.OrderTooLarge:
		return len(l.spec.Rules) > 0 && len(c.Attributes) > 0
	case deal.GroupNotOffered:
		return l.spec.Group.Size == 0
	case deal.GroupNotFound:
		return g == nil
	case deal.GroupFull:
		return g != nil && g.count(deal.Reserved)+g.count(deal.Paid) >= int(l.spec.Group.Size)
	case deal.GroupClosed:
		return g != nil && g.status != deal.Forming
	case deal.OrderNotFound:
		return e == nil
	case deal.OrderStateConflict:
		return e != nil && e.status == o.status
	case deal.OK, deal.IdempotencyMismatch:
	}
	return false
}
