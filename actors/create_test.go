package actors

import (
	"errors"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// Creates that fail leave nothing behind while others arrive. None of them may be told
// that there is no such deal: that is no answer to a create.
func TestCreateMeetsARemoval(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.ActiveMax = 1 })
	h.create("a", nil) // so that there is no room for another
	var rivals sync.WaitGroup
	for range 8 {
		rivals.Go(func() {
			for range 2000 {
				a := h.do("d", own.ClassNew, func(c *deal.Command) { c.Kind, c.Spec = deal.Create, &deal.Spec{ID: "d"} })
				if !errors.Is(a.err, ErrOverloaded) {
					t.Errorf("code %v, %v", a.code, a.err)
					return
				}
			}
		})
	}
	rivals.Wait()
	if n := h.node.Stats().Deals; n != 1 {
		t.Errorf("the node knows %d deals", n)
	}
}
