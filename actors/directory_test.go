package actors

import (
	"strings"
	"sync"
	"testing"
)

// A deal that came to nothing leaves its name together with its id: who creates it
// meanwhile finds both or neither.
func TestRemovedDealLeavesItsName(t *testing.T) {
	d := newDirectory()
	id := strings.Repeat("x", 64)
	var racing sync.WaitGroup
	for range 2 {
		racing.Go(func() {
			for range 50_000 {
				e := d.add(id)
				if e == nil {
					t.Error("the name is taken by nobody")
					return
				}
				d.remove(e)
			}
		})
	}
	racing.Wait()
	if e := d.add(id); e == nil || d.findNamed([]byte(e.id)) != e {
		t.Errorf("%+v", e)
	}
}
