package deal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// withRule is a deal of one rule, that is switched off.
func withRule(t *testing.T) *State {
	t.Helper()
	s := NewState()
	spec := &Spec{ID: "d", Merchant: "acme", Title: "x", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 1, Stock: 1, ReserveTTL: DefaultTTL, Rules: []string{"a", "b"}}
	var off Event
	if err := s.Apply(&Event{Kind: DealCreated, Seq: 1, At: 1, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	s.SwitchOff([]byte("b"), 5, &off)
	off.Seq = 2
	if err := s.Apply(&off); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSwitchedOffSurvivesASnapshot: and setting the rules ends it.
func TestSwitchedOffSurvivesASnapshot(t *testing.T) {
	snapshot := withRule(t).AppendSnapshot(nil)
	s := NewState()
	if err := s.Restore(snapshot); err != nil || !slices.Equal(s.SwitchedOff(), []string{"b"}) {
		t.Fatal(s.SwitchedOff(), err)
	}
	if again := s.AppendSnapshot(nil); !bytes.Equal(again, snapshot) {
		t.Errorf("%x is read as %x", snapshot, again)
	}
	title := "y"
	for n, change := range []*Patch{{Title: &title}, {Rules: &[]string{"b"}}} {
		if err := s.Apply(&Event{Kind: DealChanged, Seq: s.Seq + 1, At: 6, Patch: change}); err != nil || len(s.SwitchedOff()) != 1-n {
			t.Fatal(s.SwitchedOff(), err)
		}
	}
}

// TestViewNamesWhatIsOff: and one that was made before keeps what it says.
func TestViewNamesWhatIsOff(t *testing.T) {
	s := withRule(t)
	before := s.View()
	back, err := DecodeView(before.AppendView(nil))
	if err != nil || !slices.Equal(back.Off, []string{"b"}) {
		t.Fatalf("%v, %v", back.Off, err)
	}
	for _, e := range []*Event{{Kind: RuleSwitchedOff, Seq: 3, At: 5, Rule: []byte("a")}, {Kind: DealChanged, Seq: 4, At: 6, Patch: &Patch{Rules: &[]string{"b"}}}} {
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	after := s.View()
	if len(after.Off) != 0 || after.AppendView(nil)[0] != viewFirst || !slices.Equal(before.Off, []string{"b"}) {
		t.Fatalf("%v, and %v before", after.Off, before.Off)
	}
}

// TestSwitchOffRefuses: a rule that is not the deal's, or is off already.
func TestSwitchOffRefuses(t *testing.T) {
	for _, rule := range []string{"b", "c", ""} {
		if err := withRule(t).Apply(&Event{Kind: RuleSwitchedOff, Seq: 3, At: 5, Rule: []byte(rule)}); !errors.Is(err, ErrInvariant) {
			t.Errorf("%q: %v", rule, err)
		}
	}
}

// TestFirstSnapshots: those of version 1 name no rules that are off. The deal has no
// orders, which later versions say more about.
func TestFirstSnapshots(t *testing.T) {
	s := withRule(t)
	if err := s.Apply(&Event{Kind: DealChanged, Seq: 3, At: 6, Patch: &Patch{Rules: &[]string{}}}); err != nil {
		t.Fatal(err)
	}
	now := s.AppendSnapshot(nil)
	head := binary.AppendUvarint(binary.AppendUvarint([]byte{snapshotVersion}, s.Seq), uint64(s.At))
	head = s.Spec.append(head)
	for _, n := range [...]int64{s.Stock, s.Available, s.Reserved, s.Sold} {
		head = binary.AppendUvarint(head, uint64(n))
	}
	head = append(head, flags(s.Paused, s.Closed))
	rest, ok := bytes.CutPrefix(now, append(slices.Clone(head), 0))
	if !ok {
		t.Fatalf("%x does not begin with %x", now, head)
	}
	head[0] = snapshotFirst
	first := NewState()
	if err := first.Restore(append(head, rest...)); err != nil {
		t.Fatal(err)
	}
	if again := first.AppendSnapshot(nil); !bytes.Equal(again, now) {
		t.Errorf("%x is read as %x", now, again)
	}
}
