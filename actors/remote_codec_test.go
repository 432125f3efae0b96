package actors

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

var wireSpec = deal.Spec{
	ID: "d", Merchant: "acme", Title: "Lychee", Category: "fruit", Currency: [3]byte{'C', 'N', 'Y'},
	UnitPrice: 9900, Stock: 10, StartsAt: 1, ReserveTTL: 1000, Rules: []string{"r"},
}

// wireRequests are commands and their answers, as they go between nodes.
func wireRequests() []*Request {
	placed := deal.Placed{
		User: []byte("u"), Key: []byte("k"), Fingerprint: 7, Quantity: 2, UnitPrice: 9900, Discount: 990, ExpiresAt: 1005,
		Codes: [][]byte{[]byte("C1")}, Attributes: []abi.KV{{Key: []byte("channel"), Value: []byte("app")}},
		Available: 8, Stock: 10, StartsAt: 1, FirstOrder: true,
		Evaluations: []deal.Evaluation{{Rule: []byte("r"), Version: 1, Outcome: abi.OutcomeDiscount, Discount: 990, Label: []byte("10% off")}},
	}
	title := "Litchi"
	view := deal.View{Spec: &wireSpec, Seq: 2, Stock: 10, Available: 8, Reserved: 2}
	id := []byte("d")
	return []*Request{
		{
			Deal: id, View: view,
			Cmd:   deal.Command{Kind: deal.Place, User: placed.User, Key: placed.Key, Quantity: 2, Codes: placed.Codes, Attributes: placed.Attributes},
			Reply: deal.Reply{Order: 2, Status: deal.Reserved, Event: deal.Event{Kind: deal.OrderPlaced, At: 5, Placed: placed}},
		},
		{
			Deal: id, View: view,
			Cmd:   deal.Command{Kind: deal.Quote, User: placed.User, Quantity: 2},
			Reply: deal.Reply{Event: deal.Event{At: 5, Placed: placed}},
		},
		{
			Deal: id, View: view,
			Cmd:   deal.Command{Kind: deal.Place, User: placed.User, Key: placed.Key, Quantity: 2, GroupMode: deal.JoinGroup, Group: 9},
			Reply: deal.Reply{Code: deal.RuleRejected, Detail: "no", Event: deal.Event{At: 5, Placed: placed}},
		},
		{
			Deal: id, View: view,
			Cmd: deal.Command{Kind: deal.Confirm, Order: 2, Ref: []byte("pay-1")},
			Reply: deal.Reply{
				Order: 2, Status: deal.Confirmed, Moved: 3, Group: deal.GroupView{Seq: 2, Size: 3, Members: 1, Status: deal.Forming, ExpiresAt: 77},
				Event: deal.Event{Kind: deal.OrderConfirmed, At: 6, Order: 2, Ref: []byte("pay-1")},
			},
		},
		{
			Deal: id, View: deal.View{Spec: &wireSpec, Seq: 3, Stock: 10, Available: 10, Off: []string{"r"}},
			Cmd: deal.Command{Kind: deal.Resume}, Reply: deal.Reply{Event: deal.Event{Kind: deal.DealResumed, At: 7}},
		},
		{Deal: id, Cmd: deal.Command{Kind: deal.Create, Spec: &wireSpec}, Reply: deal.Reply{Code: deal.DealExists}, View: view},
		{Deal: id, Cmd: deal.Command{Kind: deal.Change, Patch: &deal.Patch{Title: &title, StockAdd: 3}}, Reply: deal.Reply{Code: deal.DealNotFound}},
	}
}

func TestCommandsAndRepliesTravel(t *testing.T) {
	specs := newSpecs()
	for i, want := range wireRequests() {
		var got Request
		command, reply := appendCommand(nil, want), appendReply(nil, want)
		if err := readCommand(command[messageRoom:], &got); err != nil {
			t.Fatalf("command %d: %v", i, err)
		}
		if again := appendCommand(nil, &got); !bytes.Equal(again, command) {
			t.Errorf("command %d: %x became %x", i, command, again)
		}
		fields, err := answerFields(reply)
		if err == nil {
			err = readReply(fields, &got, &specs)
		}
		if err != nil {
			t.Fatalf("reply %d: %v", i, err)
		}
		if again := appendReply(nil, &got); !bytes.Equal(again, reply) {
			t.Errorf("reply %d: %x became %x", i, reply, again)
		}
		g, w := &got.Reply, &want.Reply
		if g.Code != w.Code || g.Detail != w.Detail || g.Order != w.Order || g.Status != w.Status || g.Moved != w.Moved || g.Group != w.Group ||
			g.Event.Kind != w.Event.Kind || g.Event.At != w.Event.At || g.Event.Placed.Total() != w.Event.Placed.Total() ||
			!reflect.DeepEqual(got.View, want.View) {
			t.Errorf("reply %d: %+v %+v, want %+v %+v", i, g, got.View, w, want.View)
		}
	}
}

// TestMessagesStayAsTheyAre: a node of the version before reads these bytes.
func TestMessagesStayAsTheyAre(t *testing.T) {
	place := wireRequests()[0]
	view := place.View
	status := MemberStatus{Deals: 1, Active: 2, Waiting: 3, EpochLowest: 4, EpochHighest: 5, HandedOver: 6, Asked: 7, Served: 8, ClockLag: 9, Wall: 10, Draining: true}
	for name, m := range map[string]struct {
		message []byte
		want    string
	}{
		"command": {appendCommand(nil, place), "0101010001640175016b040000000102433101076368616e6e656c0361707000"},
		"reply": {appendReply(nil, place), "0101020001000502000000000000660c05010175016b070000000000000002ac4dde07e8070102433101076368616e6e656c03617070080a040000010172010000000000000000000000000000000000000000000000000000000000000000" +
			"0100de0700000000000000000007313025206f66660002000a080200ae8000010001640461636d65064c7963686565056672756974434e59ac4d0a000100e8070000000101720000000000000000"},
		"release": {encodeDeals(opRelease, []string{"d", "e"}), "04010201640165"},
		"watch":   {appendWatch(nil, "d", 7, deal.Live), "030101640705"},
		"news": {
			appendNews(nil, &view, deal.Live, []groupChange{{3, deal.GroupView{Seq: 2, Size: 3, Members: 1, Status: 1, ExpiresAt: 4}}}),
			"0101050103020301010402000a080200ae8000010001640461636d65064c7963686565056672756974434e59ac4d0a000100e8070000000101720000000000000000",
		},
		"status": {status.append(nil), "020102030405060708090a"},
		"moved":  {appendOutcome(nil, outcomeMoved), "0201"},
	} {
		if got := hex.EncodeToString(m.message); got != m.want {
			t.Errorf("%s: %s, want %s", name, got, m.want)
		}
	}
}

// TestLaterVersions: what a version adds stands at the end, and is left there; an op
// that is not known is said to be so.
func TestLaterVersions(t *testing.T) {
	for _, m := range wireRequests() {
		b := append(appendCommand(nil, m), "more"...)
		b[1] = messageVersion + 1
		var r Request
		if err := readCommand(b[messageRoom:], &r); err != nil {
			t.Errorf("a command of the next version: %v", err)
		}
	}
	h := newHouse(t, nil)
	for body, want := range map[string]outcome{"\x7f\x01": outcomeUnsupported, "\x01": outcomeMalformed, "\x01\x01": outcomeMalformed} {
		told := outcome(0)
		h.node.Serve("m", []byte(body), 0, func(b []byte) { told = outcome(b[0]) })
		if told != want {
			t.Errorf("%q: outcome %d, want %d", body, told, want)
		}
	}
	if _, err := answerFields(appendOutcome(nil, outcomeUnsupported)); !errors.Is(err, errPeer) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("an op that the other does not know: %v", err)
	}
	if _, err := answerFields([]byte{99, 2}); !errors.Is(err, errPeer) {
		t.Errorf("an outcome that we do not know: %v", err)
	}
}

func FuzzMessages(f *testing.F) {
	for _, r := range wireRequests() {
		f.Add(appendCommand(nil, r))
		f.Add(appendReply(nil, r))
	}
	f.Add(encodeDeals(opRelease, []string{"d", "e"}))
	f.Add(appendNews(nil, &deal.View{Spec: &wireSpec, Seq: 1}, deal.Live, []groupChange{{}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		fields, _ := answerFields(b)
		if len(b) >= messageRoom {
			fields = b[messageRoom:]
		}
		specs := newSpecs()
		var r Request
		if readCommand(fields, &r) == nil {
			var again Request
			if err := readCommand(appendCommand(nil, &r)[messageRoom:], &again); err != nil {
				t.Fatalf("a command that was read cannot be written: %v", err)
			}
			if first, second := appendCommand(nil, &r), appendCommand(nil, &again); !bytes.Equal(first, second) {
				t.Fatalf("%x became %x", first, second)
			}
		}
		_ = readReply(fields, &Request{Deal: []byte("d")}, &specs)
		_, _ = readDeals(fields)
		_, _, _, _ = readWatch(fields)
		var v deal.View
		_, _, _ = readNews(fields, []byte("d"), &v, &specs)
		_ = new(MemberStatus).read(fields)
	})
}

// TestAnswersAllocateNothing: the deal's terms are decoded once.
func TestAnswersAllocateNothing(t *testing.T) {
	r := wireRequests()[0]
	specs := newSpecs()
	body, got := appendReply(nil, r), Request{Deal: r.Deal}
	var wire, out []byte
	n := testing.AllocsPerRun(200, func() {
		wire = appendCommand(wire[:0], r)
		got.Cmd.Reset()
		if err := readCommand(wire[messageRoom:], &got); err != nil {
			t.Fatal(err)
		}
		out = appendReply(out[:0], r)
		fields, err := answerFields(body)
		if err == nil {
			err = readReply(fields, &got, &specs)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a command and its answer", n)
	}
}
