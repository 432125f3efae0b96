package deal

import (
	"encoding/binary"
	"fmt"
)

// Check recounts the deal from its orders and compares the result with every
// number, link and index that the state keeps beside them. It says what is
// wrong with an ErrInvariant. A right state never fails it.
//
// It costs a pass over all orders, users and keys, and looks each of them up:
// it is for tests and for doubts. Apply asserts what can be asserted at once.
func (s *State) Check() error {
	c := newRecount(s)
	if s.Spec == nil {
		c.must(s.Seq == 0 && s.Stock == 0 && s.orders.len() == 0, "something happened to a deal that was never created")
		return c.err
	}
	c.numbers()
	c.lookups()
	return c.err
}

// recount is what a pass over the orders finds.
type recount struct {
	s              *State
	reserved, sold int64
	held           []holding
	seats          []seats
	err            error
}

func newRecount(s *State) *recount {
	return &recount{s: s, held: make([]holding, len(s.held)), seats: make([]seats, len(s.groups))}
}

// numbers checks all that can be counted.
func (c *recount) numbers() {
	s := c.s
	c.orders()
	c.users()
	c.groups()
	c.keys()
	c.must(s.Available >= 0 && s.Stock <= MaxStock && s.Available+c.reserved+c.sold == s.Stock && c.reserved == s.Reserved && c.sold == s.Sold,
		"available %d + reserved %d of %d + sold %d of %d, stock %d", s.Available, c.reserved, s.Reserved, c.sold, s.Sold, s.Stock)
}

// seats is what the orders say of a group.
type seats struct {
	orders  int    // ever
	members uint32 // reserved, paid or confirmed
	paid    uint32 // paid, at whatever they have come to since
	chained int    // orders in the group's chain of members
}

// must keeps the first fault.
func (c *recount) must(ok bool, format string, args ...any) {
	if !ok && c.err == nil {
		c.err = fmt.Errorf("%w: at event %d: %s", ErrInvariant, c.s.Seq, fmt.Sprintf(format, args...))
	}
}

// possible says where an order may stand, by its group's status; 0 = alone.
var possible = [...][]OrderStatus{
	0:        {Reserved, Confirmed, Cancelled, Expired},
	Forming:  {Reserved, Paid, Cancelled, Expired},
	Complete: {Confirmed, Cancelled, Expired},
	Failed:   {RefundDue, Refunded, Cancelled, Expired},
}

func (c *recount) orders() {
	s := c.s
	prev := order{}
	for i := range s.orders.len() {
		o := s.orders.at(i)
		if o.seq <= prev.seq || o.seq > s.Seq || o.at < prev.at || o.at > s.At || o.expires < prev.expires || o.expires < o.at ||
			o.quantity == 0 || o.quantity > MaxQuantity || int(o.user) >= len(s.held) || int(o.group) > len(s.groups) ||
			o.status == Reserved && i < s.nextExpiry {
			c.must(false, "order %d is out of place", o.seq)
			return
		}
		prev = *o
		c.count(o)
	}
}

func (c *recount) count(o *order) {
	status := GroupStatus(0)
	if o.group != 0 {
		status = c.s.groups[o.group-1].status
		c.seats[o.group-1].add(o.status)
	}
	known := false
	for _, p := range possible[status] {
		known = known || p == o.status
	}
	c.must(known, "order %d has status %d in a group of status %d", o.seq, o.status, status)
	h := &c.held[o.user]
	h.orders++
	switch o.status {
	case Reserved, Paid:
		c.reserved += int64(o.quantity)
		h.units += o.quantity
	case Confirmed:
		c.sold += int64(o.quantity)
		h.units += o.quantity
	case Cancelled, Expired, RefundDue, Refunded:
	}
}

func (g *seats) add(s OrderStatus) {
	g.orders++
	switch s {
	case Reserved:
		g.members++
	case Paid, Confirmed:
		g.members++
		g.paid++
	case RefundDue, Refunded:
		g.paid++
	case Cancelled, Expired:
	}
}

func (c *recount) users() {
	s := c.s
	if s.users.len() != len(s.held) {
		c.must(false, "%d users, %d holdings", s.users.len(), len(s.held))
		return
	}
	for i := range s.held {
		c.must(s.held[i] == c.held[i] && s.held[i].orders > 0, "user %d: %+v, not %+v", i, s.held[i], c.held[i])
	}
}

func (c *recount) groups() {
	s := c.s
	prev := group{}
	for i := range s.groups {
		g, n := &s.groups[i], &c.seats[i]
		s.members(g, func(o *order) {
			if o.group == uint32(i)+1 {
				n.chained++
			}
		})
		opener := s.findOrder(g.seq)
		c.must(opener >= 0 && s.orders.at(opener).group == uint32(i)+1 && s.orders.at(opener).nextMember == 0, "group %d has no order that opened it", g.seq)
		c.must(g.seq > prev.seq && g.expires >= prev.expires && (g.status != Forming || i >= s.nextGroup), "group %d is out of place", g.seq)
		c.must(g.members == n.members && g.paid == n.paid && n.orders == n.chained,
			"group %d: %d members, %d paid, %d in its chain; its orders say %+v", g.seq, g.members, g.paid, n.chained, *n)
		c.must(g.members <= s.Spec.Group.Size && (g.status == Complete) == (g.paid == s.Spec.Group.Size),
			"group %d of size %d: status %d with %d paid of %d members", g.seq, s.Spec.Group.Size, g.status, g.paid, g.members)
		prev = *g
	}
}

func (c *recount) keys() {
	s := c.s
	first, after := uint64(s.keys.first), uint64(s.keys.first)+uint64(s.keys.len())
	if s.keys.len() > MaxKeys || after+uint64(s.keyShift) != uint64(s.orders.len()) {
		c.must(false, "%d keys from number %d, shifted by %d, for %d orders", s.keys.len(), first, s.keyShift, s.orders.len())
		return
	}
	for k := first; k < after; k++ {
		o := s.orders.at(int(k + uint64(s.keyShift)))
		c.must(binary.LittleEndian.Uint32(s.keys.at(uint32(k))) == o.user, "key %d is not of order %d's user", k, o.seq)
	}
}

// lookups checks that what is there can be found.
func (c *recount) lookups() {
	if c.err != nil {
		return
	}
	s := c.s
	for i := range s.held {
		n, ok := s.users.find(s.users.at(uint32(i)))
		c.must(ok && n == uint32(i), "user %d is not found by name", i)
	}
	for k := s.keys.first; int(k) < s.keys.list.len(); k++ {
		if o := s.orders.at(int(k + s.keyShift)); o.at > s.At-KeyWindow {
			n, ok := s.keys.find(s.keys.at(k))
			c.must(ok && n == k, "key %d of order %d is not found", k, o.seq)
		}
	}
}
