package deal_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
)

// The snapshot of FORMAT.md as version 2 had it: without the place of references.
const snapshotOfVersion2 = `02 03 f207
	02 6431 04 61636d65 05 4d616e676f 00 434e59 ac4d 0a 00 e807 00 a0f736 00 00 00
	01 03 74656e 00 01 03 736b75 01 4c
	0f 0d 02 00  00  00  01 03 616e6e 02 01  00
	01 02 ed07 a0f736 cd3675d05978312a 02 00 00 01
	01 02 6b31`

// TestReferencesOutliveSnapshots: a lookup finds the event of the newest reference,
// from this snapshot and from one of an earlier version.
func TestReferencesOutliveSnapshots(t *testing.T) {
	old, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(snapshotOfVersion2))
	if err != nil {
		t.Fatal(err)
	}
	s := deal.NewState()
	if err := s.Restore(old); err != nil {
		t.Fatal(err)
	}
	moved := func(s *deal.State) uint64 {
		var r deal.Reply
		s.Decide(&deal.Command{Kind: deal.LookupOrder, Order: 2, At: 1030}, nil, &r)
		if r.Code != deal.OK {
			t.Fatalf("%+v", r)
		}
		return r.Moved
	}
	if n := moved(s); n != 0 {
		t.Errorf("event %d has a reference that was never given", n)
	}
	if err := s.Apply(&deal.Event{Kind: deal.OrderConfirmed, Seq: 4, At: 1020, Order: 2, Ref: []byte("p")}); err != nil {
		t.Fatal(err)
	}
	snapshot := s.AppendSnapshot(nil)
	back := deal.NewState()
	if err := back.Restore(snapshot); err != nil || !bytes.Equal(back.AppendSnapshot(nil), snapshot) {
		t.Fatalf("the snapshot does not come back: %v", err)
	}
	if a, b := moved(s), moved(back); a != 4 || b != 4 {
		t.Errorf("events %d and %d, want 4", a, b)
	}
}
