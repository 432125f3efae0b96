package embedded

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// asker asks for merges as pebble does: once it was refused, it waits to be granted one.
type asker struct {
	merges    *merges
	due       bool // there is something to merge
	waiting   bool
	begun     int
	meanwhile func() // runs right after it declined a grant
}

func (a *asker) ask() {
	if a.waiting || !a.due {
		return
	}
	if may, _ := a.merges.TrySchedule(); may {
		a.begun++
	} else {
		a.waiting = true
	}
}

// Schedule implements pebble.DBForCompaction.
func (a *asker) Schedule(pebble.CompactionGrantHandle) bool {
	switch {
	case !a.waiting:
		return false
	case a.due:
		a.begun++
		return true
	}
	a.waiting = false
	if a.meanwhile != nil {
		a.meanwhile()
	}
	return false
}

// GetAllowedWithoutPermission implements pebble.DBForCompaction.
func (a *asker) GetAllowedWithoutPermission() int { return 1 }

// GetWaitingCompaction implements pebble.DBForCompaction.
func (a *asker) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	return a.waiting, pebble.WaitingCompaction{}
}

// TestRefusedWhileAnotherIsDeclined: a flush that ends while a grant is being declined has
// its merge refused, and that one is not forgotten.
func TestRefusedWhileAnotherIsDeclined(t *testing.T) {
	m := &merges{now: func() int64 { return 1 }}
	a := &asker{merges: m, due: true}
	m.Register(1, a)
	a.ask() // begins
	a.ask() // waits
	a.due = false
	a.meanwhile = func() {
		a.due, a.meanwhile = true, nil
		a.ask()
	}
	m.Done()
	if a.begun != 2 {
		t.Fatalf("%d merges began", a.begun)
	}
	a.due = false
	m.Done()
	a.due = true
	a.ask()
	if a.begun != 3 {
		t.Errorf("%d merges began", a.begun)
	}
}
