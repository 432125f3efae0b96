package actors

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestErrands: whoever waits for them to end may do so while others begin, and sees all end
// that were begun before.
func TestErrands(t *testing.T) {
	for range 200 {
		var e errands
		e.none.L = &e.mu
		var ended atomic.Int64
		var others sync.WaitGroup
		const beginners, each = 4, 20
		for range beginners {
			others.Go(func() {
				for range each {
					e.begin(func() { e.begin(func() { ended.Add(1) }) })
				}
			})
			others.Go(e.wait)
		}
		others.Wait()
		if e.wait(); ended.Load() != beginners*each {
			t.Fatalf("%d of %d had ended", ended.Load(), beginners*each)
		}
	}
}

// TestAfterClose: who wants a deal of a node that has closed is not held up.
func TestAfterClose(t *testing.T) {
	for range 12 { // what is ready when decides
		h := newHouse(t, nil)
		h.create("d", nil)
		gone := h.node
		e := gone.directory.find([]byte("d"))
		if a := e.active.Load(); a != nil {
			a.fail(errAgain)
		}
		h.crash()
		if a, err := gone.activate(e); err == nil {
			h.eventually("it fails", func() bool { return a.failed.Load() })
		}
	}
}
