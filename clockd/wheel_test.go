package clockd

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestWheelAgainstAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, model := NewWheel(), map[string]int64{}
		key := rapid.StringMatching(`[a-e]`)
		at := rapid.Int64Range(0, 20)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, a := key.Draw(t, "key"), at.Draw(t, "at")
				w.Set(k, a)
				model[k] = a
			},
			"remove": func(t *rapid.T) {
				k := key.Draw(t, "key")
				w.Remove(k)
				delete(model, k)
			},
			"due": func(t *rapid.T) {
				now := at.Draw(t, "now")
				last := int64(-1)
				w.Due(now, func(k string) {
					a, ok := model[k]
					if !ok || a > now || a < last {
						t.Fatalf("%q fired at %d: deadline %d, known %v, after %d", k, now, a, ok, last)
					}
					last = a
					delete(model, k)
				})
				for k, a := range model {
					if a <= now {
						t.Fatalf("%q of %d did not fire at %d", k, a, now)
					}
				}
			},
			"": func(t *rapid.T) {
				if w.Len() != len(model) || len(w.keys) != len(model) {
					t.Fatalf("%d in the heap, %d keys, want %d", w.Len(), len(w.keys), len(model))
				}
			},
		})
	})
}

func TestWheelFunctionMaySetItsKeyAgain(t *testing.T) {
	w := NewWheel()
	w.Set("d", 1)
	var fired []string
	again := func(k string) { fired = append(fired, k); w.Set(k, 1) }
	w.Due(10, again)
	w.Due(10, again)
	if want := []string{"d", "d"}; !slices.Equal(fired, want) {
		t.Fatalf("fired %q, want %q", fired, want)
	}
}

// TestWheelMemory holds the wheel to its share of a node with 100,000 deals.
func TestWheelMemory(t *testing.T) {
	const deals, bytesMax = 100_000, 120
	ids := make([]string, deals)
	for i := range ids {
		ids[i] = fmt.Sprintf("d-%06d", i)
	}
	before := heapInUse()
	w := NewWheel()
	for i, id := range ids {
		w.Set(id, int64(deals-i))
	}
	per := (heapInUse() - before) / deals
	if per > bytesMax {
		t.Errorf("%d bytes a key beside the key itself, want at most %d", per, bytesMax)
	}
	t.Logf("%d bytes a key", per)
	runtime.KeepAlive(w)
	runtime.KeepAlive(ids)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // the second one sweeps what the first one found
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkWheelSet(b *testing.B) {
	w := NewWheel()
	ids := make([]string, 100_000)
	for i := range ids {
		ids[i] = fmt.Sprintf("d-%06d", i)
		w.Set(ids[i], int64(i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Set(ids[i%len(ids)], int64(i*7919%1_000_000))
	}
}
