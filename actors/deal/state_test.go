package deal

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestKeyBound: a deal remembers the newest MaxKeys keys, however often it
// comes back from a snapshot.
func TestKeyBound(t *testing.T) {
	s := NewState()
	spec := &Spec{ID: "d", Merchant: "m", Title: "t", Currency: [3]byte{'E', 'U', 'R'}, Stock: MaxStock, ReserveTTL: MaxDuration}
	if err := s.Apply(&Event{Kind: DealCreated, Seq: 1, At: 1, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	c, r := &Command{Kind: Place, User: []byte("u"), Quantity: 1}, &Reply{}
	at := int64(2)
	place := func(key int) (replayed bool) {
		r.Reset()
		c.At, c.Key = at, fmt.Appendf(c.Key[:0], "k%d", key)
		s.Decide(c, nil, r)
		if r.Event.Kind == 0 {
			return r.Replayed
		}
		r.Event.Seq = s.Seq + 1
		if err := s.Apply(&r.Event); err != nil {
			t.Fatal(err)
		}
		return false
	}
	for key := range MaxKeys {
		if place(key) {
			t.Fatalf("key %d was known", key)
		}
	}
	restart := func() {
		back := NewState()
		if err := back.Restore(s.AppendSnapshot(nil)); err != nil {
			t.Fatal(err)
		}
		s = back
	}
	for _, step := range []struct {
		key   int
		known bool
	}{{0, true}, {MaxKeys - 1, true}, {MaxKeys, false}, {MaxKeys, true}, {1, true}, {0, false}, {2, true}, {1, false}, {0, true}} {
		if place(step.key) != step.known {
			t.Fatalf("key %d is known: %t", step.key, !step.known)
		}
	}
	if s.keys.len() != MaxKeys {
		t.Fatalf("%d keys", s.keys.len())
	}
	restart()
	for _, step := range []struct {
		key   int
		known bool
	}{{0, true}, {1, true}, {MaxKeys, true}, {3, true}, {2, false}, {3, false}, {2, true}} {
		if place(step.key) != step.known {
			t.Fatalf("after a restart key %d is known: %t", step.key, !step.known)
		}
	}
	// A day later none is known, and no order forgets more than a few.
	at += KeyWindow
	for key := range 10 {
		before := s.keys.len()
		if place(key) {
			t.Fatalf("a day later key %d is known", key)
		}
		if gone := before + 1 - s.keys.len(); gone != forgetMax {
			t.Fatalf("one order forgot %d keys", gone)
		}
	}
	restart()
	if s.keys.len() != 10 || !place(0) || place(10) {
		t.Fatalf("%d keys came back", s.keys.len())
	}
}

// TestCheckFinds: a recount that finds nothing is worth nothing.
func TestCheckFinds(t *testing.T) {
	for name, spoil := range map[string]func(s *State){
		"stock":             func(s *State) { s.Stock++ },
		"available":         func(s *State) { s.Available, s.Stock = -1, s.Stock-s.Available-1 },
		"reserved":          func(s *State) { s.Reserved++; s.Available-- },
		"sold":              func(s *State) { s.Sold++; s.Available-- },
		"bound of stock":    func(s *State) { s.Stock += MaxStock; s.Available += MaxStock },
		"order's seq":       func(s *State) { s.orders.at(1).seq = s.orders.at(0).seq },
		"order's future":    func(s *State) { s.orders.at(3).seq = s.Seq + 1 },
		"order's time":      func(s *State) { s.orders.at(1).at = s.orders.at(0).at - 1 },
		"order's expiry":    func(s *State) { s.orders.at(1).expires = s.orders.at(0).expires - 1 },
		"order's quantity":  func(s *State) { s.orders.at(0).quantity++ },
		"order's user":      func(s *State) { s.orders.at(0).user = 1 },
		"nobody's order":    func(s *State) { s.orders.at(0).user = 99 },
		"order's group":     func(s *State) { s.orders.at(1).group = 0 },
		"no such group":     func(s *State) { s.orders.at(1).group = 99 },
		"order's status":    func(s *State) { s.orders.at(0).status = Paid },
		"skipped expiry":    func(s *State) { s.nextExpiry = s.orders.len() },
		"skipped group":     func(s *State) { s.nextGroup = len(s.groups) },
		"held units":        func(s *State) { s.held[0].units++ },
		"held orders":       func(s *State) { s.held[0].orders++ },
		"user without name": func(s *State) { s.held = append(s.held, holding{}) },
		"user's name":       func(s *State) { (*s.users.text.at(0))++ },
		"user's index":      func(s *State) { clear(s.users.slots) },
		"group's members":   func(s *State) { s.groups[0].members++ },
		"group's paid":      func(s *State) { s.groups[0].paid++ },
		"group's status":    func(s *State) { s.groups[0].status = Complete },
		"group's opener":    func(s *State) { s.groups[0].seq = 3 },
		"group's size":      func(s *State) { s.Spec = &Spec{ID: "d", Group: GroupSpec{Size: 1}} },
		"group's chain":     func(s *State) { s.groups[0].newest = 0 },
		"key's number":      func(s *State) { s.keyShift++ },
		"key's user":        func(s *State) { (*s.keys.text.at(0))++ },
		"key's index":       func(s *State) { clear(s.keys.slots) },
		"never created":     func(s *State) { s.Spec = nil },
	} {
		s := sample(t)
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		spoil(s)
		if s.Check() == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

// TestRestoreFinds: a snapshot that contradicts itself does not become a deal.
func TestRestoreFinds(t *testing.T) {
	for name, spoil := range map[string]func(s *State){
		"sum":             func(s *State) { s.Stock++ },
		"reserved":        func(s *State) { s.Reserved++; s.Available-- },
		"user twice":      func(s *State) { copy(s.users.at(1), "ann") },
		"key twice":       func(s *State) { copy(s.keys.at(3)[userBytes:], "k1") },
		"too many keys":   func(s *State) { s.orders.last = s.orders.last[:3] },
		"held":            func(s *State) { s.held[1].units-- },
		"order's future":  func(s *State) { s.Seq = 4 },
		"order's time":    func(s *State) { s.At = s.orders.at(3).at - 1 },
		"order again":     func(s *State) { s.orders.at(1).seq = s.orders.at(0).seq },
		"order's user":    func(s *State) { s.orders.at(3).user = 3 },
		"order's group":   func(s *State) { s.orders.at(3).group = 2 },
		"order's status":  func(s *State) { s.orders.at(3).status = RefundDue },
		"no status":       func(s *State) { s.orders.at(3).status = 0 },
		"unknown status":  func(s *State) { s.orders.at(3).status = Refunded + 1 },
		"group's opener":  func(s *State) { s.groups[0].seq = 3 },
		"group's paid":    func(s *State) { s.groups[0].paid = 2 },
		"group's status":  func(s *State) { s.groups[0].status = Failed },
		"no group status": func(s *State) { s.groups[0].status = 0 },
	} {
		s := sample(t)
		spoil(s)
		err := NewState().Restore(s.AppendSnapshot(nil))
		if !errors.Is(err, ErrInvariant) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A key that has left the window cannot be in a snapshot of that time.
	s := sample(t)
	young := s.AppendSnapshot(nil)
	s.At += KeyWindow
	old := s.AppendSnapshot(nil)
	keys := young[len(young)-1-4*len("?k1"):]
	if err := NewState().Restore(append(old[:len(old)-1:len(old)-1], keys...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("old keys: %v", err)
	}
}

// sample returns a deal with one of everything: events 2 and 3 are orders of a
// group, 4 and 5 orders alone.
func sample(t testing.TB) *State {
	t.Helper()
	s := NewState()
	spec := &Spec{
		ID: "d", Merchant: "m", Title: "t", Currency: [3]byte{'E', 'U', 'R'}, Stock: 100, ReserveTTL: 1000,
		Group: GroupSpec{Size: 3, Window: 5000, UnitPrice: 1},
	}
	for _, c := range []*Command{
		{Kind: Create, Spec: spec},
		{Kind: Place, User: []byte("ann"), Key: []byte("k1"), Quantity: 1, GroupMode: OpenGroup},
		{Kind: Place, User: []byte("bob"), Key: []byte("k1"), Quantity: 2, GroupMode: JoinGroup, Group: 2},
		{Kind: Place, User: []byte("cat"), Key: []byte("k1"), Quantity: 3},
		{Kind: Place, User: []byte("ann"), Key: []byte("k2"), Quantity: 4},
		{Kind: Confirm, Order: 3},
		{Kind: Confirm, Order: 5},
	} {
		var r Reply
		c.At = s.At + 10
		s.Decide(c, nil, &r)
		r.Event.Seq = s.Seq + 1
		if err := s.Apply(&r.Event); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestDueBehindTheLastEvent: a clock that is behind the deal's last event, as
// a new owner's may be, does not turn the deal's time back.
func TestDueBehindTheLastEvent(t *testing.T) {
	s := sample(t)
	if err := s.Apply(&Event{Kind: DealPausedAt, Seq: s.Seq + 1, At: 20_000}); err != nil {
		t.Fatal(err)
	}
	var e Event
	var kinds []Kind
	for s.Due(10_000, &e) {
		e.Seq = s.Seq + 1
		if err := s.Apply(&e); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Kind)
	}
	if !slices.Equal(kinds, []Kind{OrderExpired, OrderExpired, GroupFailed}) || s.At != 20_000 {
		t.Errorf("kinds %v, at %d", kinds, s.At)
	}
}
