package deal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
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
					if n, found := table.find([]byte(w)); found != ok || found && int(n) != want {
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

// TestTableMoves holds a table against a map while its index grows, shrinks and is
// replaced by one of the same size.
func TestTableMoves(t *testing.T) {
	table := newTable(0)
	var kept []string
	newest := make(map[string]uint32)
	random := rand.New(rand.NewPCG(1, 2))
	sizes := make(map[int]bool)
	for _, want := range []int{5000, 5000, 10, 800, 0, 300} {
		for step := 0; step < 10_000 || table.len() != want; step++ {
			if grow := table.len() < want || table.len() == want && step%2 == 0; grow {
				w := fmt.Sprintf("word-%d", random.IntN(20_000))
				before, known := newest[w]
				known = known && before >= table.first
				n, found, again := table.add([]byte(w))
				if again != known || again && found != before || table.list.len() != int(n)+1 {
					t.Fatalf("%s added as %d, known as %d (%t), not %d (%t)", w, n, found, again, before, known)
				}
				newest[w], kept = n, append(kept, w)
			} else {
				table.dropFirst()
			}
			if sizes[len(table.slots)] = true; 4*table.used > 3*len(table.slots) {
				t.Fatalf("%d of %d slots are used", table.used, len(table.slots))
			}
			w := kept[random.IntN(len(kept))]
			if n, found := table.find([]byte(w)); found != (newest[w] >= table.first) || found && n != newest[w] {
				t.Fatalf("%s is %d (%t), not %d", w, n, found, newest[w])
			}
		}
	}
	if len(sizes) < 7 {
		t.Errorf("the index had %d sizes only", len(sizes))
	}
}

// TestTableDoubles: an index whose entries all stay grows by no more than it must.
func TestTableDoubles(t *testing.T) {
	table := newTable(0)
	for i, slots := range []int{8, 16, 32, 64, 128, 256, 512, 1024} {
		for table.len() < 3*slots/4 {
			table.add(fmt.Append(nil, table.len()))
		}
		if len(table.slots) != slots {
			t.Errorf("%d: %d slots for %d entries, not %d", i, len(table.slots), table.len(), slots)
		}
	}
}

// TestTableMovesWithinTheNewest: of two entries with the same bytes in the old index the
// newer is found, whichever is moved first.
func TestTableMovesWithinTheNewest(t *testing.T) {
	table := newTable(0)
	older, newer := []byte("twice"), uint32(1)
	table.add(older)
	table.add(older)
	h := table.hash(older)
	for _, order := range [][]slot{{{h, 1}, {h, newer + 1}}, {{h, newer + 1}, {h, 1}}} {
		table.slots = make([]slot, slotsMin)
		for _, s := range order {
			table.move(s)
		}
		mustFind(t, &table, older, newer)
	}
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
	if text, list := table.text.kept(), table.list.kept(); text > 4 || list > 2 || len(table.slots)+len(table.old) > 1024 {
		t.Errorf("100 words of 60 bytes in %d chunks of text, %d of entries, %d slots", text, list, len(table.slots)+len(table.old))
	}
	for table.len() > 0 {
		table.dropFirst()
	}
	if n, _, _ := table.add([]byte("again")); string(table.at(n)) != "again" {
		t.Error("an emptied table does not serve")
	}
}
