package deal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
)

// State is a deal as its events have made it. It belongs to one goroutine.
//
// Invariant, after every event: Available + Reserved + Sold == Stock, and
// none of them is negative.
type State struct {
	Spec *Spec // nil until the deal is created; never changed in place
	Seq  uint64
	At   int64 // of the last event; time does not go back behind it

	Stock     int64
	Available int64
	Reserved  int64 // held by reserved and by paid orders
	Sold      int64 // held by confirmed orders

	Paused, Closed bool
	off            []string // rules of Spec that are switched off, in that order

	orders column[order] // in rising seq
	groups []group       // in rising seq
	users  table         // numbers index held
	held   []holding
	// keys numbers user and idempotency key together. Entry k belongs to
	// orders[k + keyShift]: every order adds exactly one, and only the oldest
	// are forgotten.
	keys     table
	keyShift uint32
	firstKey int64 // when the oldest key was bound, or earlier

	// Reservations last equally long, and so do groups: the oldest is due first.
	nextExpiry int   // no order before it is reserved
	nextGroup  int   // no group before it is forming
	nextDue    int64 // what NextExpiry says, if dueKnown
	dueKnown   bool

	id      []byte // Spec.ID
	scratch []byte
}

type order struct {
	seq         uint64
	fingerprint uint64
	at          int64
	expires     int64
	quantity    uint32
	user        uint32 // number in users
	group       uint32 // index in groups + 1, 0 = none
	nextMember  uint32 // index in orders + 1 of the next older member of the group
	status      OrderStatus
	moved       uint32 // events from its own to the last that carries a reference of it, 0 = none
}

type holding struct {
	units  uint32 // reserved, paid or confirmed
	orders uint32 // ever placed
}

type group struct {
	seq     uint64
	expires int64
	members uint32 // reserved, paid or confirmed
	paid    uint32
	newest  uint32 // index in orders + 1 of the newest member
	status  GroupStatus
}

// NewState returns a deal that nothing has happened to.
func NewState() *State {
	return &State{users: newTable(0), keys: newTable(0)}
}

// ErrInvariant is wrapped by the error of an Apply that would break what must
// be true of every deal. The state is not to be used after it.
var ErrInvariant = errors.New("deal: invariant broken")

// Apply makes e the next event of the deal. e.Seq must be s.Seq+1 and e must
// come from Decide or Due on an equal state; anything else is ErrInvariant.
// It keeps nothing of e but the pointer Spec and what Patch points to.
func (s *State) Apply(e *Event) error {
	if e.Seq != s.Seq+1 || e.At < s.At || (s.Spec == nil) != (e.Kind == DealCreated) {
		return fmt.Errorf("%w: event %d (kind %d, at %d) after event %d at %d", ErrInvariant, e.Seq, e.Kind, e.At, s.Seq, s.At)
	}
	s.Seq, s.At = e.Seq, e.At
	s.dueKnown = s.dueKnown && e.Kind == OrderPlaced // which only adds to what is due
	ok := true
	switch e.Kind {
	case DealCreated:
		s.Spec, s.Stock, s.Available = e.Spec, e.Spec.Stock, e.Spec.Stock
		s.id = []byte(e.Spec.ID)
	case DealChanged:
		if e.Patch.Rules != nil {
			s.off = nil
		}
		s.Spec = s.Spec.With(e.Patch)
		s.Stock += e.Patch.StockAdd
		s.Available += e.Patch.StockAdd
	case DealPausedAt:
		s.Paused = true
	case DealResumed:
		s.Paused = false
	case DealClosed:
		s.Closed = true
	case OrderPlaced:
		ok = s.place(e)
	case OrderConfirmed:
		ok = s.pay(e.Order) && s.refer(e)
	case OrderCancelled:
		ok = s.release(e.Order, Cancelled) && s.refer(e)
	case OrderExpired:
		ok = s.release(e.Order, Expired)
	case OrderRefunded:
		ok = s.refund(e) && s.refer(e)
	case GroupFailed:
		ok = s.failGroup(e.Group)
	case RuleSwitchedOff:
		ok = s.switchOff(string(e.Rule))
	default:
		ok = false
	}
	if !ok || s.Stock > MaxStock || s.Available < 0 || s.Reserved < 0 || s.Sold < 0 || s.Available+s.Reserved+s.Sold != s.Stock {
		return fmt.Errorf("%w: after event %d (kind %d): available %d + reserved %d + sold %d, stock %d",
			ErrInvariant, e.Seq, e.Kind, s.Available, s.Reserved, s.Sold, s.Stock)
	}
	return nil
}

// switchOff is false for a rule that the deal does not have, or that is off.
func (s *State) switchOff(rule string) bool {
	if !slices.Contains(s.Spec.Rules, rule) || slices.Contains(s.off, rule) {
		return false
	}
	s.off = append(slices.Clip(s.off), rule) // views keep theirs
	return true
}

// SwitchedOff returns the rules that are switched off. They are only to be read.
func (s *State) SwitchedOff() []string { return s.off }

// SwitchOff makes e the event that switches off a rule of the deal at now.
func (s *State) SwitchOff(rule []byte, now int64, e *Event) {
	e.Reset()
	e.Kind, e.At, e.Rule = RuleSwitchedOff, max(now, s.At), rule
}

func (s *State) place(e *Event) bool {
	p := &e.Placed
	if !s.fits(e) {
		return false
	}
	u, ok := s.users.find(p.User)
	if !ok {
		u, _, _ = s.users.add(p.User)
		s.held = append(s.held, holding{})
	}
	s.held[u].units += p.Quantity
	s.held[u].orders++
	o := order{
		seq: e.Seq, fingerprint: p.Fingerprint, at: e.At, expires: p.ExpiresAt,
		quantity: p.Quantity, user: u, status: Reserved,
	}
	if p.GroupMode != Alone && !s.seat(&o, p) {
		return false
	}
	s.orders.add(o)
	s.nextDue = sooner(s.nextDue, o.expires)
	s.Available -= int64(p.Quantity)
	s.Reserved += int64(p.Quantity)
	return s.remember(u, p.Key, e.At) && s.Available == p.Available
}

// fits says whether an order is within its bounds: a whole number of units, a
// discount that leaves a price, an expiry that keeps the queue of expiries in
// order; and whether what it says of the deal is so.
func (s *State) fits(e *Event) bool {
	p, last := &e.Placed, e.At
	if n := s.orders.len(); n > 0 {
		last = max(last, s.orders.at(n-1).expires)
	}
	return p.Quantity > 0 && p.Quantity <= MaxQuantity &&
		p.UnitPrice >= 0 && p.UnitPrice <= MaxUnitPrice &&
		p.Discount >= 0 && p.Discount <= p.Subtotal() &&
		p.ExpiresAt >= last &&
		p.Stock == s.Stock && p.StartsAt == s.Spec.StartsAt && p.EndsAt == s.Spec.EndsAt
}

// seat gives the order that is about to be appended a place in its group.
func (s *State) seat(o *order, p *Placed) bool {
	i := len(s.groups)
	if p.GroupMode == OpenGroup {
		if i > 0 && p.GroupEnds < s.groups[i-1].expires {
			return false
		}
		s.groups = append(s.groups, group{seq: o.seq, expires: p.GroupEnds, status: Forming})
		s.nextDue = sooner(s.nextDue, p.GroupEnds)
	} else if i = s.findGroup(p.Group); i < 0 {
		return false
	}
	g := &s.groups[i]
	o.group = uint32(i) + 1
	o.nextMember = g.newest
	g.newest = uint32(s.orders.len()) + 1
	g.members++
	return g.status == Forming && g.members == p.GroupMembers && g.members <= p.GroupSize && p.GroupSize == s.Spec.Group.Size
}

// pay confirms an order, or marks it paid while its group still forms. The
// group's last payment confirms all of its members.
func (s *State) pay(seq uint64) bool {
	i := s.findOrder(seq)
	if i < 0 || s.orders.at(i).status != Reserved {
		return false
	}
	o := s.orders.at(i)
	if o.group == 0 {
		s.confirm(o)
		return true
	}
	g := &s.groups[o.group-1]
	o.status = Paid
	g.paid++
	if g.paid == s.Spec.Group.Size {
		g.status = Complete
		s.members(g, func(m *order) {
			if m.status == Paid {
				s.confirm(m)
			}
		})
	}
	return true
}

// refer notes which event carries the newest reference of its order.
func (s *State) refer(e *Event) bool {
	s.orders.at(s.findOrder(e.Order)).moved = uint32(e.Seq - e.Order)
	return e.Seq-e.Order <= math.MaxUint32
}

func (s *State) confirm(o *order) {
	o.status = Confirmed
	s.Reserved -= int64(o.quantity)
	s.Sold += int64(o.quantity)
}

// release gives a reserved order's units back.
func (s *State) release(seq uint64, to OrderStatus) bool {
	i := s.findOrder(seq)
	if i < 0 || s.orders.at(i).status != Reserved {
		return false
	}
	s.giveBack(s.orders.at(i), to)
	return true
}

func (s *State) giveBack(o *order, to OrderStatus) {
	if o.group != 0 {
		s.groups[o.group-1].members--
	}
	o.status = to
	if !plantKeepQuota {
		s.held[o.user].units -= o.quantity
	}
	s.Reserved -= int64(o.quantity)
	s.Available += int64(o.quantity)
}

func (s *State) failGroup(seq uint64) bool {
	i := s.findGroup(seq)
	if i < 0 || s.groups[i].status != Forming {
		return false
	}
	g := &s.groups[i]
	g.status = Failed
	s.members(g, func(m *order) {
		switch m.status {
		case Paid:
			s.giveBack(m, RefundDue)
		case Reserved:
			s.giveBack(m, Expired)
		case Confirmed, Cancelled, Expired, RefundDue, Refunded:
		}
	})
	return true
}

func (s *State) refund(e *Event) bool {
	i := s.findOrder(e.Order)
	if i < 0 || s.orders.at(i).status != RefundDue {
		return false
	}
	o := s.orders.at(i)
	o.status = Refunded
	return e.Payment == 0 || e.Payment == o.seq+uint64(o.moved)
}

// members calls fn with every order that ever sat in g, newest first.
func (s *State) members(g *group, fn func(*order)) {
	for n := g.newest; n != 0; n = s.orders.at(int(n - 1)).nextMember {
		fn(s.orders.at(int(n - 1)))
	}
}

// findOrder returns the index of the order whose event was seq, or -1.
func (s *State) findOrder(seq uint64) int {
	i := sort.Search(s.orders.len(), func(i int) bool { return s.orders.at(i).seq >= seq })
	if i == s.orders.len() || s.orders.at(i).seq != seq {
		return -1
	}
	return i
}

// findGroup returns the index of the group that order seq opened, or -1.
func (s *State) findGroup(seq uint64) int {
	i := sort.Search(len(s.groups), func(i int) bool { return s.groups[i].seq >= seq })
	if i == len(s.groups) || s.groups[i].seq != seq {
		return -1
	}
	return i
}

// userBytes is how many bytes of a key's entry in State.keys name the user.
const userBytes = 4

// key is the bytes by which an idempotency key is found: it is the user's own.
func (s *State) key(user uint32, key []byte) []byte {
	s.scratch = append(s.scratch[:0], byte(user), byte(user>>8), byte(user>>16), byte(user>>24))
	s.scratch = append(s.scratch, key...)
	return s.scratch
}

// findKey returns the order that the user placed with this key within
// KeyWindow before now, or nil.
func (s *State) findKey(user uint32, key []byte, now int64) *order {
	n, ok := s.keys.find(s.key(user, key))
	if !ok {
		return nil
	}
	if o := s.orders.at(int(n + s.keyShift)); o.at > now-KeyWindow {
		return o
	}
	return nil
}

// remember binds the key to the order that was appended last. False: it was
// bound already, and the order must not have been.
func (s *State) remember(user uint32, key []byte, now int64) bool {
	s.forgetKeys(now)
	_, before, again := s.keys.add(s.key(user, key))
	return !again || s.orders.at(int(before+s.keyShift)).at <= now-KeyWindow
}

// forgetMax bounds the keys that one order forgets. More than the one that it
// adds, so that the table shrinks; few, so that the first order after a quiet
// day does not pay for all of the day before. findKey does not see what is
// out of the window, forgotten or not.
const forgetMax = 4

// forgetKeys makes room for one more key and drops some of those that are out
// of the window.
func (s *State) forgetKeys(now int64) {
	for range forgetMax {
		n := s.keys.len()
		if n == 0 {
			return
		}
		if s.firstKey <= now-KeyWindow {
			s.firstKey = s.orders.at(int(s.keys.first + s.keyShift)).at
		}
		if n < MaxKeys && s.firstKey > now-KeyWindow {
			return
		}
		s.keys.dropFirst()
	}
}

// Due fills e with the next event that the passing of time owes the deal at
// now, and says whether there is one: an expired reservation, a failed group.
func (s *State) Due(now int64, e *Event) bool {
	if next := s.NextExpiry(); next == 0 || next > now {
		return false
	}
	if s.nextExpiry < s.orders.len() {
		if o := s.orders.at(s.nextExpiry); o.expires <= now {
			e.Kind, e.At, e.Order = OrderExpired, max(now, s.At), o.seq
			return true
		}
	}
	e.Kind, e.At, e.Group = GroupFailed, max(now, s.At), s.groups[s.nextGroup].seq
	return true
}

// NextExpiry returns when Due will next have something to say; 0 = never.
func (s *State) NextExpiry() int64 {
	if s.dueKnown {
		return s.nextDue
	}
	var next int64
	for ; s.nextExpiry < s.orders.len(); s.nextExpiry++ {
		if o := s.orders.at(s.nextExpiry); o.status == Reserved {
			next = o.expires
			break
		}
	}
	for ; s.nextGroup < len(s.groups); s.nextGroup++ {
		if g := &s.groups[s.nextGroup]; g.status == Forming {
			next = sooner(next, g.expires)
			break
		}
	}
	s.nextDue, s.dueKnown = next, true
	return next
}

// NextDue is NextExpiry, or when the deal next starts or ends by itself if
// that comes first; 0 = never.
func (s *State) NextDue(now int64) int64 {
	next := s.NextExpiry()
	if s.Spec == nil || s.Closed {
		return next
	}
	for _, at := range [...]int64{s.Spec.StartsAt, s.Spec.EndsAt} {
		if at > now {
			next = sooner(next, at)
		}
	}
	return next
}

// sooner returns the earlier of two times, of which 0 is never.
func sooner(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Status is where a deal stands.
type Status uint8

// The statuses of a deal, in the order in which they win: an ended deal is
// ended whatever else is true of it.
const (
	Ended Status = iota + 1
	OnHold
	Scheduled
	OutOfStock
	Live
)

// String returns the status as the HTTP contract spells it.
func (s Status) String() string {
	return [...]string{"", "ended", "paused", "scheduled", "sold_out", "live"}[s]
}

// View is what anyone may know of a deal: the numbers after event Seq.
type View struct {
	Spec           *Spec
	Seq            uint64
	Stock          int64
	Available      int64
	Reserved       int64
	Sold           int64
	Paused, Closed bool
	Off            []string // rules of Spec that are switched off; only to be read
}

// View returns the deal as it is after its last event.
func (s *State) View() View {
	return View{
		Spec: s.Spec, Seq: s.Seq, Stock: s.Stock, Available: s.Available,
		Reserved: s.Reserved, Sold: s.Sold, Paused: s.Paused, Closed: s.Closed, Off: s.off,
	}
}

// Status returns where the deal stands at now, 0 when there is no deal yet.
func (v *View) Status(now int64) Status {
	switch {
	case v.Spec == nil:
		return 0
	case v.Closed || v.Spec.EndsAt != 0 && now >= v.Spec.EndsAt:
		return Ended
	case v.Paused:
		return OnHold
	case now < v.Spec.StartsAt:
		return Scheduled
	case v.Available == 0:
		return OutOfStock
	}
	return Live
}

// KeyCount returns how many idempotency keys were ever remembered.
func (s *State) KeyCount() int { return int(s.keys.first) + s.keys.len() }

// EachKey calls fn with the user and the idempotency key of every entry from
// number from on that is still remembered, and returns the number after the
// last. fn must not keep its arguments.
func (s *State) EachKey(from int, fn func(user, key []byte)) (next int) {
	next = s.KeyCount()
	for n := max(uint32(from), s.keys.first); n < uint32(next); n++ {
		fn(s.users.at(s.orders.at(int(n+s.keyShift)).user), s.keys.at(n)[userBytes:])
	}
	return next
}
