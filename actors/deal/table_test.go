package deal

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// colliding returns three pairs of strings that the table's hash cannot tell
// apart. 32 bits collide soon enough to look for it.
func colliding(t testing.TB, table *table) (pairs [3][2]string) {
	t.Helper()
	seen := make(map[uint32]string)
	found := 0
	for i := range 10_000_000 {
		s := fmt.Sprintf("key-%d", i)
		h := table.hash([]byte(s))
		if other, ok := seen[h]; ok {
			pairs[found] = [2]string{other, s}
			if found++; found == len(pairs) {
				return pairs
			}
			continue
		}
		seen[h] = s
	}
	t.Fatal("no collisions")
	return pairs
}

// TestTableCollisions walks through what may happen to a chain of two.
func TestTableCollisions(t *testing.T) {
	for name, check := range map[string]func(t *testing.T, table *table, a, b []byte){
		"both are found": func(t *testing.T, table *table, a, b []byte) {
			mustFind(t, table, a, 0)
			mustMiss(t, table, b)
			table.add(b)
			mustFind(t, table, a, 0)
			mustFind(t, table, b, 1)
		},
		"the older leaves": func(t *testing.T, table *table, a, b []byte) {
			table.add(b)
			table.dropFirst()
			mustMiss(t, table, a)
			mustFind(t, table, b, 1)
			table.add(a)
			mustFind(t, table, a, 2)
			mustFind(t, table, b, 1)
		},
		"both leave": func(t *testing.T, table *table, a, b []byte) {
			table.add(b)
			table.dropFirst()
			table.dropFirst()
			mustMiss(t, table, a)
			mustMiss(t, table, b)
			if len(table.heads) != 0 {
				t.Errorf("%d heads of nothing", len(table.heads))
			}
			table.add(b)
			mustMiss(t, table, a)
			mustFind(t, table, b, 2)
		},
		"the older comes again": func(t *testing.T, table *table, a, b []byte) {
			table.add(b)
			table.add(a)
			mustFind(t, table, a, 2)
			table.dropFirst()
			mustFind(t, table, a, 2)
			mustFind(t, table, b, 1)
			table.dropFirst()
			mustFind(t, table, a, 2)
			mustMiss(t, table, b)
		},
		"both, again and again": func(t *testing.T, table *table, a, b []byte) {
			for i := range uint32(10_000) { // through several moves of the text
				table.add([][]byte{b, a}[i%2])
				table.dropFirst()
				mustFind(t, table, [][]byte{b, a}[i%2], i+1)
				mustMiss(t, table, [][]byte{a, b}[i%2])
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(0)
			for _, pair := range colliding(t, &table) {
				fresh := newTable(0)
				fresh.seed = table.seed
				fresh.add([]byte(pair[0]))
				check(t, &fresh, []byte(pair[0]), []byte(pair[1]))
			}
		})
	}
}

func mustFind(t *testing.T, table *table, b []byte, want uint32) {
	t.Helper()
	if n, ok := table.find(b); !ok || n != want || !bytes.Equal(table.at(n), b) {
		t.Errorf("%s is %d (%t), not %d", b, n, ok, want)
	}
}

func mustMiss(t *testing.T, table *table, b []byte) {
	t.Helper()
	if n, ok := table.find(b); ok {
		t.Errorf("%s is %d", b, n)
	}
}

// TestTable holds a table against a slice, with words of which many collide.
func TestTable(t *testing.T) {
	seeded := newTable(0)
	words := []string{"", "a", "b"}
	for _, pair := range colliding(t, &seeded) {
		words = append(words, pair[:]...)
	}
	rapid.Check(t, func(t *rapid.T) {
		table := newTable(0)
		table.seed = seeded.seed
		var kept []string
		first := 0
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				w := rapid.SampledFrom(words).Draw(t, "word")
				kept = append(kept, w)
				before := slices.Index(reversed(kept[:len(kept)-1]), w)
				n, found, again := table.add([]byte(w))
				if int(n) != first+len(kept)-1 || again != (before >= 0) || again && int(found) != int(n)-1-before {
					t.Fatalf("added as %d, known as %d (%t)", n, found, again)
				}
			},
			"drop": func(t *rapid.T) {
				if len(kept) == 0 {
					t.Skip()
				}
				kept = kept[1:]
				first++
				table.dropFirst()
			},
			"": func(t *rapid.T) {
				for _, w := range words {
					want, ok := 0, false
					for i, k := range kept {
						if k == w {
							want, ok = first+i, true
						}
					}
					if n, found := table.find([]byte(w)); found != ok || int(n) != want {
						t.Fatalf("%q is %d (%t), not %d (%t)", w, n, found, want, ok)
					}
				}
				for i, w := range kept {
					if got := table.at(uint32(first + i)); string(got) != w {
						t.Fatalf("entry %d is %q, not %q", first+i, got, w)
					}
				}
			},
		})
	})
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// TestTableGivesRoomBack: what is forgotten does not stay in memory.
func TestTableGivesRoomBack(t *testing.T) {
	table := newTable(0)
	word := bytes.Repeat([]byte("w"), 60)
	for i := range 200_000 {
		table.add(fmt.Appendf(word[:50], "%010d", i))
		if table.len() > 100 {
			table.dropFirst()
		}
	}
	if cap(table.text) > 64<<10 || cap(table.list) > 4096 || len(table.heads) != 100 {
		t.Errorf("100 words of 60 bytes in %d bytes, %d entries, %d heads", cap(table.text), cap(table.list), len(table.heads))
	}
	for table.len() > 0 {
		table.dropFirst()
	}
	if n, _, _ := table.add([]byte("again")); string(table.at(n)) != "again" {
		t.Error("an emptied table does not serve")
	}
}

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
		"order's seq":       func(s *State) { s.orders[1].seq = s.orders[0].seq },
		"order's future":    func(s *State) { s.orders[3].seq = s.Seq + 1 },
		"order's time":      func(s *State) { s.orders[1].at = s.orders[0].at - 1 },
		"order's expiry":    func(s *State) { s.orders[1].expires = s.orders[0].expires - 1 },
		"order's quantity":  func(s *State) { s.orders[0].quantity++ },
		"order's user":      func(s *State) { s.orders[0].user = 1 },
		"nobody's order":    func(s *State) { s.orders[0].user = 99 },
		"order's group":     func(s *State) { s.orders[1].group = 0 },
		"no such group":     func(s *State) { s.orders[1].group = 99 },
		"order's status":    func(s *State) { s.orders[0].status = Paid },
		"skipped expiry":    func(s *State) { s.nextExpiry = len(s.orders) },
		"skipped group":     func(s *State) { s.nextGroup = len(s.groups) },
		"held units":        func(s *State) { s.held[0].units++ },
		"held orders":       func(s *State) { s.held[0].orders++ },
		"user without name": func(s *State) { s.held = append(s.held, holding{}) },
		"user's name":       func(s *State) { s.users.text[0]++ },
		"user's index":      func(s *State) { clear(s.users.heads) },
		"group's members":   func(s *State) { s.groups[0].members++ },
		"group's paid":      func(s *State) { s.groups[0].paid++ },
		"group's status":    func(s *State) { s.groups[0].status = Complete },
		"group's opener":    func(s *State) { s.groups[0].seq = 3 },
		"group's size":      func(s *State) { s.Spec = &Spec{ID: "d", Group: GroupSpec{Size: 1}} },
		"group's chain":     func(s *State) { s.groups[0].newest = 0 },
		"key's number":      func(s *State) { s.keyShift++ },
		"key's user":        func(s *State) { s.keys.text[0]++ },
		"key's index":       func(s *State) { clear(s.keys.heads) },
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
