package plugins_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// look evaluates a version as somebody who looks at it.
func look(t *testing.T, r *plugins.Registry, n int) *plugins.Evaluation {
	t.Helper()
	e, err := r.EvaluateVersion(t.Context(), "acme", "sale", uint32(n), &abi.Input{Subtotal: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestLastUsedStays: of the versions that price no orders, the one that nobody has
// asked for longest leaves first.
func TestLastUsedStays(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	for n := range plugins.LoadedMax + 2 {
		upload(t, r, "acme", "sale", fixed(n+1))
	}
	for n := range plugins.LoadedMax + 1 { // all but the stable one
		look(t, r, n+1)
		look(t, r, 1)
		look(t, r, plugins.LoadedMax+2) // which takes no place
	}
	for n, want := range map[int]bool{1: true, 2: false, 3: true, plugins.LoadedMax + 1: true} {
		if got := r.HasProgram("acme", "sale", n); got != want {
			t.Errorf("version %d is loaded: %v", n, got)
		}
	}
	if n := r.Loaded(); n != plugins.LoadedMax+2 { // and that of the house
		t.Errorf("%d are loaded", n)
	}
}

// TestLoadedMemory: those that may come to hold much are fewer.
func TestLoadedMemory(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	const most = 2 * plugins.LoadedMemoryMax / (2 * 11 << 20) // two instances of 11 MiB in twice the bound
	for n := range plugins.LoadedMax {
		upload(t, r, "acme", "sale", function(n))
	}
	for n := range plugins.LoadedMax - 1 {
		look(t, r, n+1)
	}
	if n := r.Loaded() - 2; n < most/2 || n > most {
		t.Errorf("%d are loaded, of at most %d", n, most)
	}
}

// TestLookingWhileOthersLeave: an evaluation gets its answer though its version may be
// closed at any moment to make room.
func TestLookingWhileOthersLeave(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	const versions = plugins.LoadedMax + 4
	for n := range versions {
		upload(t, r, "acme", "sale", fixed(n+1))
	}
	var all sync.WaitGroup
	for g := range 3 {
		all.Go(func() {
			for i := range 2 * versions {
				n := (i+g*versions/3)%versions + 1
				var out abi.Verdict
				err := r.EvaluateAgain(t.Context(), "acme", "sale", uint32(n), &abi.Input{Subtotal: 10_000}, &out)
				if err != nil || out.Discount != int64(n) {
					t.Errorf("version %d: %d, %v", n, out.Discount, err)
				}
			}
		})
	}
	all.Wait()
	if n := r.Loaded(); n > plugins.LoadedMax+2 {
		t.Errorf("%d are loaded", n)
	}
}

// TestPublishedVersionsAreLoaded: while another node's change is loaded, the shelf may
// have no room for a version of it that was loaded before.
func TestPublishedVersionsAreLoaded(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	a := open(t, tables)
	for n := range 3 {
		upload(t, a, "acme", "sale", fixed(n+1))
	}
	for n := range plugins.LoadedMax + 2 {
		upload(t, a, "bolt", "r", fixed(100+n))
	}
	var b *plugins.Registry
	crowd := func() { // as soon as version 2 is read
		for n := range uint32(plugins.LoadedMax + 1) {
			if _, err := b.EvaluateVersion(t.Context(), "bolt", "r", n+1, &abi.Input{Subtotal: 500}); err != nil {
				t.Error(err)
			}
		}
	}
	var changing, crowded atomic.Bool
	b = start(t, plugins.Config{Tables: ofRules{tables, func() error {
		if changing.Load() && crowded.CompareAndSwap(false, true) {
			crowd()
		}
		return nil
	}}})
	look(t, b, 1)
	pin(t, a, plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeShadow})
	changing.Store(true)
	refresh(t, b, "acme/sale")
	expect(t, b, "acme", "sale", 1, 1)
	if !crowded.Load() || b.NotRunnable() != 0 || !b.HasProgram("acme", "sale", 2) {
		t.Errorf("%d do not run", b.NotRunnable())
	}
}
