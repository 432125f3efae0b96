package deal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// samples are one event of each kind, with everything that it may hold.
func samples() []Event {
	title, ends, limit, rules, none := "Lychee", int64(99), uint32(2), []string{"a", "b"}, []string{}
	spec := &Spec{
		ID: "d", Merchant: "m", Title: "t", Category: "fruit", Currency: [3]byte{'E', 'U', 'R'}, UnitPrice: 1, Stock: 2,
		PerUserLimit: 3, StartsAt: 4, EndsAt: 5, ReserveTTL: 6, Group: GroupSpec{Size: 7, Window: 8, UnitPrice: 9},
		Rules: rules, OnRuleError: SkipOnRuleError, Attributes: []abi.KV{{Key: []byte("k"), Value: []byte("v")}},
	}
	placed := Placed{
		User: []byte("u"), Key: []byte("k"), Fingerprint: 1 << 63, Quantity: 2, UnitPrice: 300, Discount: 4, ExpiresAt: 50_000,
		Codes: [][]byte{[]byte("A"), {}}, Attributes: []abi.KV{{Key: []byte("k"), Value: []byte{}}},
		GroupMode: JoinGroup, Group: 70, GroupMembers: 2, GroupEnds: 60_000, GroupSize: 3,
		Available: 1 << 29, Stock: 1 << 30, StartsAt: 1, EndsAt: 70_000, UserQuantity: 300, FirstOrder: true,
		Evaluations: []Evaluation{
			{Rule: []byte("r"), House: true, Version: 3, SHA256: [32]byte{0: 1, 31: 2}, Outcome: abi.OutcomeDiscount, Final: true, Discount: 4, Fuel: 1000, Digest: 5, Label: []byte("l"), Reason: []byte("why")},
			{Rule: []byte("s"), Fault: abi.FaultRuleInit},
		},
	}
	opening := placed
	opening.GroupMode, opening.Group, opening.FirstOrder = OpenGroup, 0, false
	return []Event{
		{Kind: DealCreated, At: 1, Spec: spec},
		{Kind: DealCreated, At: 1, Spec: &Spec{ID: "d"}},
		{Kind: DealChanged, At: 2, Patch: &Patch{Title: &title, EndsAt: &ends, PerUserLimit: &limit, Rules: &rules, StockAdd: 300}},
		{Kind: DealChanged, At: 2, Patch: &Patch{Rules: &none}},
		{Kind: DealChanged, At: 2, Patch: &Patch{}},
		{Kind: DealPausedAt, At: 3},
		{Kind: DealResumed, At: 4},
		{Kind: DealClosed, At: 5},
		{Kind: OrderPlaced, At: 6, Placed: placed},
		{Kind: OrderPlaced, At: 6, Placed: opening},
		{Kind: OrderPlaced, At: 6, Placed: Placed{ExpiresAt: 6}},
		{Kind: OrderConfirmed, At: 7, Order: 300, Ref: []byte("pay-1")},
		{Kind: OrderCancelled, At: 8, Order: 3, Ref: []byte{}},
		{Kind: OrderExpired, At: 9, Order: 3},
		{Kind: OrderRefunded, At: 10, Order: 3, Ref: []byte("back-1")},
		{Kind: OrderRefunded, At: 10, Order: 3, Ref: []byte("back-1"), Payment: 8},
		{Kind: GroupFailed, At: maxTime, Group: 1 << 62},
		{Kind: RuleSwitchedOff, At: 11, Rule: []byte("r")},
	}
}

// TestEventRoundTrip: what is written is read again, field by field.
func TestEventRoundTrip(t *testing.T) {
	var reused Event
	for _, e := range samples() {
		record := e.Append([]byte("before"))[len("before"):]
		if err := reused.Decode(record); err != nil {
			t.Fatalf("kind %d: %v", e.Kind, err)
		}
		if again := reused.Append(nil); !bytes.Equal(record, again) {
			t.Errorf("kind %d: %x is read as %x", e.Kind, record, again)
		}
		for n := range record {
			if err := new(Event).Decode(record[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("kind %d cut at %d: %v", e.Kind, n, err)
			}
		}
		if err := new(Event).Decode(append(record, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("kind %d with a byte too many: %v", e.Kind, err)
		}
	}
	p := &reused
	if e := samples()[8]; p.Decode(e.Append(nil)) != nil || p.Placed.GroupMode != JoinGroup || !p.Placed.FirstOrder || p.Placed.Total() != 596 ||
		string(p.Placed.Evaluations[0].Label) != "l" || !p.Placed.Evaluations[0].House || p.Placed.Evaluations[0].SHA256 != [32]byte{0: 1, 31: 2} ||
		p.Placed.Stock != 1<<30 || p.Placed.StartsAt != 1 || p.Placed.EndsAt != 70_000 || p.Placed.GroupSize != 3 || p.Placed.Evaluations[1].Fault != abi.FaultRuleInit || len(p.Placed.Codes) != 2 {
		t.Errorf("%+v", p)
	}
	if err := p.Decode([]byte{99, 1}); !errors.Is(err, ErrMalformed) {
		t.Errorf("kind 99: %v", err)
	}
}

// TestDecodeRefuses: what is out of bounds, unknown, or spelled longer than it
// needs to be.
func TestDecodeRefuses(t *testing.T) {
	order := func(change func(*Placed)) []byte {
		e := samples()[8]
		change(&e.Placed)
		return e.Append(nil)
	}
	long := make([]byte, 300)
	bothGroups := order(func(*Placed) {})
	bothGroups[2] = flagOpens | flagJoins
	earlier := order(func(*Placed) {})
	earlier[0] = byte(retired)
	for name, record := range map[string][]byte{
		"nothing":         {},
		"kind":            {14, 1},
		"retired kind":    earlier,
		"long spelling":   {byte(DealPausedAt), 0x80, 0},
		"time":            append([]byte{byte(DealPausedAt)}, binary.AppendUvarint(nil, math.MaxInt64/4+1)...),
		"number":          append([]byte{byte(OrderExpired), 1}, bytes.Repeat([]byte{0xff}, 10)...),
		"patch's fields":  {byte(DealChanged), 1, 16, 0},
		"patch's limit":   append([]byte{byte(DealChanged), 1, patchLimit, 0}, binary.AppendUvarint(nil, 1<<32)...),
		"patch's rules":   append([]byte{byte(DealChanged), 1, patchRules, 0, MaxRules + 1}, make([]byte, MaxRules+1)...),
		"reference":       (&Event{Kind: OrderConfirmed, Ref: long}).Append(nil),
		"on rule error":   (&Event{Kind: DealCreated, Spec: &Spec{OnRuleError: SkipOnRuleError + 1}}).Append(nil),
		"title":           (&Event{Kind: DealCreated, Spec: &Spec{Title: string(long)}}).Append(nil),
		"opens and joins": bothGroups,
		"user":            order(func(p *Placed) { p.User = long }),
		"codes":           order(func(p *Placed) { p.Codes = make([][]byte, MaxCodes+1) }),
		"code":            order(func(p *Placed) { p.Codes = [][]byte{long} }),
		"attributes":      order(func(p *Placed) { p.Attributes = make([]abi.KV, MaxAttributes+1) }),
		"evaluations":     order(func(p *Placed) { p.Evaluations = make([]Evaluation, MaxRules+1) }),
		"outcome":         order(func(p *Placed) { p.Evaluations[0].Outcome = abi.OutcomeReject + 1 }),
		"fault":           order(func(p *Placed) { p.Evaluations[1].Fault = abi.FaultRuleInit + 1 }),
		"house's nothing": order(func(p *Placed) { p.Evaluations[1].House = true }),
		"starts later":    order(func(p *Placed) { p.StartsAt = 7 }),
		"starts before 0": order(func(p *Placed) { p.StartsAt = -1 }),
		"ended":           order(func(p *Placed) { p.EndsAt = 5 }),
	} {
		if err := new(Event).Decode(record); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v := sample(t).View()
	view := v.AppendView(nil)
	for name, at := range map[string]int{"version": 0, "flags": len(view) - 5} {
		bad := bytes.Clone(view)
		bad[at] += 4
		if _, err := DecodeView(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("view's %s: %v", name, err)
		}
	}
}

func FuzzEventDecode(f *testing.F) {
	for _, e := range samples() {
		f.Add(e.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		if err := e.Decode(b); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if again := e.Append(nil); !bytes.Equal(b, again) {
			t.Fatalf("%x is read as %x", b, again)
		}
	})
}

// FuzzApply plays any records on a deal with some orders: each is refused, or
// leaves a deal that is right in every number.
func FuzzApply(f *testing.F) {
	base := sample(f).AppendSnapshot(nil)
	for _, e := range samples() {
		e.At += 1000
		if e.Kind == OrderPlaced {
			e.Placed = Placed{
				User: []byte("ann"), Key: []byte("k9"), Quantity: 1, UnitPrice: 1, ExpiresAt: 3000, Available: 89, Stock: 100,
				GroupMode: JoinGroup, Group: 2, GroupMembers: 3, GroupEnds: 6000, GroupSize: 3,
			}
		}
		for order := range uint64(6) {
			e.Order, e.Group = order, order
			record := e.Append(nil)
			f.Add(append([]byte{byte(len(record))}, record...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewState()
		if err := s.Restore(base); err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			var e Event
			if e.Decode(b[1:1+n]) != nil {
				return
			}
			b = b[1+n:]
			e.Seq = s.Seq + 1
			if err := s.Apply(&e); err != nil {
				if !errors.Is(err, ErrInvariant) {
					t.Fatal(err)
				}
				return
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			for s.Due(s.At+1000, &e) {
				e.Seq = s.Seq + 1
				if err := s.Apply(&e); err != nil {
					t.Fatal(err)
				}
			}
		}
		snapshot := s.AppendSnapshot(nil)
		back := NewState()
		if err := back.Restore(snapshot); err != nil || !bytes.Equal(snapshot, back.AppendSnapshot(nil)) {
			t.Fatalf("%x does not come back (%v)", snapshot, err)
		}
	})
}

// TestSnapshotCut: no part of a snapshot is a snapshot.
func TestSnapshotCut(t *testing.T) {
	snapshot := sample(t).AppendSnapshot(nil)
	for n := range snapshot {
		if err := NewState().Restore(snapshot[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d of %d: %v", n, len(snapshot), err)
		}
	}
	if err := NewState().Restore(append(snapshot, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte too many: %v", err)
	}
	snapshot[0]++
	if err := NewState().Restore(snapshot); !errors.Is(err, ErrMalformed) {
		t.Errorf("version %d: %v", snapshot[0], err)
	}
}

func FuzzRestore(f *testing.F) {
	s := sample(f)
	f.Add(s.AppendSnapshot(nil))
	var e Event
	for s.Due(10_000, &e) {
		e.Seq = s.Seq + 1
		if err := s.Apply(&e); err != nil {
			f.Fatal(err)
		}
		f.Add(s.AppendSnapshot(nil))
	}
	empty := NewState()
	if err := empty.Apply(&Event{Kind: DealCreated, Seq: 1, At: 1, Spec: &Spec{ID: "d", Stock: 1}}); err != nil {
		f.Fatal(err)
	}
	f.Add(empty.AppendSnapshot(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewState()
		if err := s.Restore(b); err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrInvariant) {
				t.Fatal(err)
			}
			return
		}
		again := s.AppendSnapshot(nil)
		if b[0] != snapshotVersion { // of an earlier release: it comes back in today's format
			if err := s.Restore(again); err != nil {
				t.Fatal(err)
			}
			b, again = again, s.AppendSnapshot(nil)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("%x is read as %x", b, again)
		}
		var e Event
		for s.Due(s.At, &e) { // a deal that came back can go on
			e.Seq = s.Seq + 1
			if err := s.Apply(&e); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeView(f *testing.F) {
	v := sample(f).View()
	f.Add(v.AppendView(nil))
	v.Paused, v.Closed, v.Off = true, true, []string{"r"}
	f.Add(v.AppendView(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeView(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if again := v.AppendView(nil); !bytes.Equal(b, again) {
			t.Fatalf("%x is read as %x", b, again)
		}
	})
}

// FuzzParseID: an id is what AppendOrderID or AppendGroupID makes of its
// parts, or it is none; and never both.
func FuzzParseID(f *testing.F) {
	for _, id := range []string{
		"d-1001-42", "d-1001-g42", "d-g4-2", "d--1", "d-0", "d-01", "-1", "d-", "d-g", "1", "d-g-1", "d-18446744073709551615",
		"d-9223372036854775807", "d-g9223372036854775808", "ü-1", "d-1 ", "",
		"0123456789012345678901234567890123456789012345678901234567890123-g1", "01234567890123456789012345678901234567890123456789012345678901234-1",
		"012345678901234567890123456789012345678901", "0123456789012345678901234567890123456789012", "0123456789012345678901234567890123456789012345678901234567890123",
	} {
		f.Add([]byte(id))
	}
	f.Fuzz(func(t *testing.T, id []byte) {
		deal, seq, order := ParseOrderID(id)
		if order && (!ValidID(deal) || seq == 0 || string(AppendOrderID(nil, deal, seq)) != string(id)) {
			t.Fatalf("order %q is %q %d", id, deal, seq)
		}
		deal, seq, group := ParseGroupID(id)
		if group && (!ValidID(deal) || seq == 0 || string(AppendGroupID(nil, deal, seq)) != string(id)) {
			t.Fatalf("group %q is %q %d", id, deal, seq)
		}
		if order && group {
			t.Fatalf("%q is an order and a group", id)
		}
		if !ValidID(id) {
			return
		}
		name := AppendName(nil, id)
		if !ValidID(name) || HasShortName(id) == bytes.Equal(name, id) {
			t.Fatalf("%q is called %q", id, name)
		}
		for _, seq := range []uint64{1, 42, 1<<63 - 1} {
			if d, n, ok := ParseOrderID(AppendOrderID(nil, id, seq)); !ok || n != seq || !bytes.Equal(d, name) {
				t.Fatalf("order %d of %q", seq, id)
			}
			if d, n, ok := ParseGroupID(AppendGroupID(nil, id, seq)); !ok || n != seq || !bytes.Equal(d, name) {
				t.Fatalf("group %d of %q", seq, id)
			}
		}
	})
}
