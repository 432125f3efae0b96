package deal

import (
	"encoding/binary"
	"fmt"
)

// snapshotVersion is the first byte of a snapshot. A reader of a later
// version still reads earlier ones.
const (
	snapshotVersion = 3
	snapshotNoRefs  = 2 // it did not say where an order's references are
	snapshotFirst   = 1 // it had no rules that are switched off
)

// viewVersion is the first byte of a view. One without rules that are switched off is
// of the first version, which nodes of an earlier release read.
const (
	viewVersion = 2
	viewFirst   = 1
)

// AppendSnapshot encodes the whole state behind dst, in the format of
// FORMAT.md. Idempotency keys that have left the window at s.At are left out.
// A deal that was not created has no snapshot: dst comes back as it is.
func (s *State) AppendSnapshot(dst []byte) []byte {
	if s.Spec == nil {
		return dst
	}
	dst = append(dst, snapshotVersion)
	dst = binary.AppendUvarint(dst, s.Seq)
	dst = binary.AppendUvarint(dst, uint64(s.At))
	dst = s.Spec.append(dst)
	for _, n := range [...]int64{s.Stock, s.Available, s.Reserved, s.Sold} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = append(dst, flags(s.Paused, s.Closed))
	dst = appendNames(dst, s.off)
	dst = binary.AppendUvarint(dst, uint64(s.users.len()))
	for i, h := range s.held {
		dst = appendText(dst, s.users.at(uint32(i)))
		dst = binary.AppendUvarint(dst, uint64(h.units))
		dst = binary.AppendUvarint(dst, uint64(h.orders))
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.groups)))
	for i := range s.groups {
		dst = s.groups[i].append(dst)
	}
	dst = binary.AppendUvarint(dst, uint64(s.orders.len()))
	var prev order
	for i := range s.orders.len() {
		dst = s.orders.at(i).append(dst, &prev)
		prev = *s.orders.at(i)
	}
	return s.appendKeys(dst)
}

// Restore makes s what it was when AppendSnapshot wrote b. On an error s is
// not to be used. Anything that AppendSnapshot cannot have written is
// ErrMalformed, or ErrInvariant where it contradicts itself; b is not kept.
func (s *State) Restore(b []byte) error {
	*s = *NewState()
	r := reader{b: b}
	v := r.byte()
	if v < snapshotFirst || v > snapshotVersion {
		return fmt.Errorf("%w: snapshot version %d", ErrMalformed, v)
	}
	s.Seq = r.uint()
	s.At = r.int()
	s.Spec = new(Spec)
	s.Spec.read(&r)
	s.id = []byte(s.Spec.ID)
	for _, n := range [...]*int64{&s.Stock, &s.Available, &s.Reserved, &s.Sold} {
		*n = r.int()
	}
	s.Paused, s.Closed = r.flags()
	if v > snapshotFirst {
		s.readOff(&r)
	}
	s.readUsers(&r)
	for n := r.uint(); n > 0 && !r.bad; n-- {
		s.groups = append(s.groups, readGroup(&r))
	}
	s.readOrders(&r, v)
	s.readKeys(&r)
	if err := r.end("snapshot"); err != nil {
		return err
	}
	s.relink()
	c := newRecount(s)
	c.numbers()
	return c.err
}

func (s *State) readOff(r *reader) {
	for range r.count(MaxRules) {
		if !s.switchOff(string(r.text(MaxIDLen))) {
			r.fail()
		}
	}
}

// userBytesMin is the shortest encoding of a user. It bounds how many of them a record
// can hold, so that a number in it cannot ask for more room than that.
const userBytesMin = 3

func (s *State) readUsers(r *reader) {
	n := r.uint()
	room := min(n, uint64(len(r.b)/userBytesMin))
	s.users, s.held = newTable(int(room)), make([]holding, 0, room)
	for ; n > 0 && !r.bad; n-- {
		if _, _, again := s.users.add(r.text(MaxIDLen)); again {
			r.fail()
		}
		s.held = append(s.held, holding{units: r.uint32(), orders: r.uint32()})
	}
}

func (g *group) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, g.seq)
	dst = binary.AppendUvarint(dst, uint64(g.expires))
	dst = binary.AppendUvarint(dst, uint64(g.paid))
	return append(dst, byte(g.status))
}

func readGroup(r *reader) group {
	g := group{seq: r.uint(), expires: r.int(), paid: r.uint32(), status: GroupStatus(r.byte())}
	if g.status < Forming || g.status > Failed {
		r.fail()
	}
	return g
}

// Orders are written as differences to the one before: both seq and time
// only rise.
func (o *order) append(dst []byte, prev *order) []byte {
	dst = binary.AppendUvarint(dst, o.seq-prev.seq)
	dst = binary.AppendUvarint(dst, uint64(o.at-prev.at))
	dst = binary.AppendUvarint(dst, uint64(o.expires-o.at))
	dst = binary.LittleEndian.AppendUint64(dst, o.fingerprint)
	dst = binary.AppendUvarint(dst, uint64(o.quantity))
	dst = binary.AppendUvarint(dst, uint64(o.user))
	dst = binary.AppendUvarint(dst, uint64(o.group))
	dst = append(dst, byte(o.status))
	return binary.AppendUvarint(dst, uint64(o.moved))
}

func (s *State) readOrders(r *reader, version byte) {
	n := r.uint()
	var prev order
	for ; n > 0 && !r.bad; n-- {
		prev = readOrder(r, &prev, version)
		if prev.seq+uint64(prev.moved) > s.Seq || prev.at > s.At || int(prev.user) >= s.users.len() || int(prev.group) > len(s.groups) {
			r.fail()
		}
		s.orders.add(prev)
	}
}

func readOrder(r *reader, prev *order, version byte) order {
	o := order{seq: prev.seq + r.uint(), at: prev.at + r.int()}
	o.expires = o.at + r.int()
	o.fingerprint = r.uint64()
	o.quantity, o.user, o.group = r.uint32(), r.uint32(), r.uint32()
	o.status = OrderStatus(r.byte())
	if o.status < Reserved || o.status > Refunded {
		r.fail()
	}
	if version > snapshotNoRefs {
		o.moved = r.uint32()
	}
	return o
}

// appendKeys writes the idempotency keys of the newest orders; the user in
// front of each is known from its order.
func (s *State) appendKeys(dst []byte) []byte {
	first := s.keys.first
	for int(first-s.keys.first) < s.keys.len() && s.orders.at(int(first+s.keyShift)).at <= s.At-KeyWindow {
		first++
	}
	n := s.keys.len() - int(first-s.keys.first)
	dst = binary.AppendUvarint(dst, uint64(n))
	for i := range uint32(n) {
		dst = appendText(dst, s.keys.at(first + i)[userBytes:])
	}
	return dst
}

func (s *State) readKeys(r *reader) {
	n := r.uint()
	if n > uint64(s.orders.len()) {
		r.fail()
		return
	}
	s.keyShift = uint32(uint64(s.orders.len()) - n)
	if n > 0 && s.orders.at(int(s.keyShift)).at <= s.At-KeyWindow {
		r.fail()
	}
	s.keys = newTable(int(min(n, uint64(len(r.b)))))
	for i := s.keyShift; n > 0 && !r.bad; n-- {
		if _, _, again := s.keys.add(s.key(s.orders.at(int(i)).user, r.text(MaxIDLen))); again {
			r.fail()
		}
		i++
	}
}

// relink rebuilds what a snapshot leaves out because it follows from the
// rest: who sits in which group.
func (s *State) relink() {
	for i := range s.orders.len() {
		o := s.orders.at(i)
		if o.group == 0 {
			continue
		}
		g := &s.groups[o.group-1]
		o.nextMember, g.newest = g.newest, uint32(i)+1
		if o.status <= Confirmed {
			g.members++
		}
	}
}

// AppendView encodes a view behind dst: what a list of deals shows without
// the deals' states. v.Spec must not be nil.
func (v *View) AppendView(dst []byte) []byte {
	version := byte(viewFirst)
	if len(v.Off) > 0 {
		version = viewVersion
	}
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, v.Seq)
	dst = v.Spec.append(dst)
	dst = append(dst, flags(v.Paused, v.Closed))
	for _, n := range [...]int64{v.Stock, v.Available, v.Reserved, v.Sold} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	if version > viewFirst {
		dst = appendNames(dst, v.Off)
	}
	return dst
}

// DecodeView reads what AppendView wrote. b is not kept.
func DecodeView(b []byte) (View, error) {
	r := reader{b: b}
	version := r.byte()
	if version < viewFirst || version > viewVersion {
		return View{}, fmt.Errorf("%w: view version %d", ErrMalformed, version)
	}
	v := View{Seq: r.uint(), Spec: new(Spec)}
	v.Spec.read(&r)
	v.Paused, v.Closed = r.flags()
	for _, n := range [...]*int64{&v.Stock, &v.Available, &v.Reserved, &v.Sold} {
		*n = r.int()
	}
	if version > viewFirst {
		if v.Off = r.names(); len(v.Off) == 0 {
			r.fail()
		}
	}
	return v, r.end("view")
}

func flags(paused, closed bool) (b byte) {
	if paused {
		b |= 1
	}
	if closed {
		b |= 2
	}
	return b
}

func (r *reader) flags() (paused, closed bool) {
	b := r.byte()
	if b > 3 {
		r.fail()
	}
	return b&1 != 0, b&2 != 0
}
