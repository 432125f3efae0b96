package gateway

import (
	"context"
	"fmt"
	"testing"
)

// TestUploadsTakeTurns: one of a merchant at a time, and no merchant waits for another.
func TestUploadsTakeTurns(t *testing.T) {
	u := newUploads()
	enter := func(owner string) bool { return u.enter(t.Context(), owner) }
	if !enter("bomber") {
		t.Fatal("the first upload is refused")
	}
	waited := make(chan bool)
	for range uploadsMax - 1 {
		go func() { waited <- enter("bomber") }()
	}
	for entered := 0; entered < uploadsMax; {
		u.mu.Lock()
		entered = u.owners["bomber"].entered
		u.mu.Unlock()
	}
	if enter("bomber") {
		t.Error("as many as there may be wait, and one more does")
	}
	if !enter("honest") {
		t.Fatal("a merchant is refused for what another uploads")
	}
	u.leave("honest")
	for range uploadsMax - 1 {
		u.leave("bomber")
		if !<-waited {
			t.Error("refused in its turn")
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if u.enter(gone, "bomber") {
		t.Error("it did not wait")
	}
	u.leave("bomber")
	for n := range uploadsMax {
		if !enter(fmt.Sprint(n)) {
			t.Fatal(n)
		}
	}
	if enter("late") {
		t.Error("more uploads than there may be")
	}
	for n := range uploadsMax {
		u.leave(fmt.Sprint(n))
	}
	if len(u.owners) != 0 || len(u.all) != 0 {
		t.Errorf("%d owners and %d tokens are left", len(u.owners), len(u.all))
	}
}
