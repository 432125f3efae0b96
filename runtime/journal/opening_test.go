package journal_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// TestOwners: an event is of the newest epoch that was opened before it. Epoch 3 was opened
// by somebody who left no event of it.
func TestOwners(t *testing.T) {
	owners := journal.Owners{{Epoch: 1, First: 1, By: "a"}, {Epoch: 2, First: 4, By: "b"}, {Epoch: 4, First: 4, By: "c"}, {Epoch: 5, First: 9, By: "d"}}
	for _, c := range []struct {
		seq, epoch uint64
		by         string // "" = not known
		good       bool
	}{
		{1, 1, "a", true},
		{3, 1, "a", true},
		{4, 1, "", false}, // epochs 2 and 4 were opened before it
		{3, 2, "", false}, // before it was opened
		{4, 2, "", false}, // epoch 4 was opened before it
		{4, 3, "", false},
		{4, 4, "c", true},
		{8, 4, "c", true},
		{8, 5, "", false},
		{9, 4, "", false},
		{9, 5, "d", true},
		{12, 6, "", true},
		{12, 7, "", true},
	} {
		o, known, err := owners.Of(journal.Event{Seq: c.seq, Epoch: c.epoch})
		if (err == nil) != c.good || known != (c.by != "") || o.By != c.by {
			t.Errorf("event %d of epoch %d: %+v, %t, %v", c.seq, c.epoch, o, known, err)
		}
	}
	if _, known, err := journal.Owners(nil).Of(journal.Event{Seq: 1, Epoch: 1}); known || err != nil {
		t.Errorf("where nobody is known: %t, %v", known, err)
	}
}
