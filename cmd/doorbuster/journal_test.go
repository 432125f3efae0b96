package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

func TestVerifyNamesTheDealThatIsDamaged(t *testing.T) {
	store, err := openOffline(t.Context(), config.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	write(t, store, "d-1", []byte("nonsense"))
	var out strings.Builder
	err = verifyJournal(t.Context(), store, &out, false)
	if err == nil || !strings.Contains(out.String(), "d-1: after 0 events: ") || !strings.Contains(out.String(), "1 deal, 0 events, 0 rows, 1 damaged") {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	err = verifyJournal(t.Context(), store, &out, true)
	var got verified
	if unreadable := json.Unmarshal([]byte(out.String()), &got); err == nil || unreadable != nil {
		t.Fatalf("%v, %v\n%s", err, unreadable, out.String())
	}
	if got.Deals != 1 || len(got.Damaged) != 1 || got.Damaged[0].Deal != "d-1" || got.Damaged[0].Error == "" {
		t.Errorf("%s", out.String())
	}
}

// TestVerifyHoldsEventsAgainstTheirOwners: an event of an owner that had been superseded is
// damage, whoever finds it. epochs shows the owners.
func TestVerifyHoldsEventsAgainstTheirOwners(t *testing.T) {
	memory := journaltest.NewMemory()
	memory.Now = func() time.Time { return time.UnixMicro(1_790_000_000_123_456) }
	created := (&deal.Event{Kind: deal.DealCreated, At: 1000, Spec: &deal.Spec{ID: "d-1", Merchant: "acme", Currency: [3]byte{'C', 'N', 'Y'}, Stock: 1, ReserveTTL: 1}}).Append(nil)
	write(t, memory, "d-1", created)
	if _, err := memory.Open(t.Context(), "d-1"); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := verifyJournal(t.Context(), memory, &out, false); err != nil || out.String() != "1 deal, 1 event, 2 take-overs, 0 rows, 0 damaged\n" {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	const late = "d-1: after 0 events: event 1 is of epoch 1, and epoch 2 was opened before it\n"
	if err := verifyJournal(t.Context(), forged{memory}, &out, false); err == nil || !strings.HasPrefix(out.String(), late) {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	const table = "EPOCH  FROM EVENT  OPENED AT                   BY\n" +
		"1      1           2026-09-21 14:13:20.123456  memory\n" +
		"2      2           2026-09-21 14:13:20.123456  memory\n"
	if err := showEpochs(t.Context(), memory, "d-1", &out, false); err != nil || out.String() != table {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := showEpochs(t.Context(), memory, "d-2", &out, false); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("of no deal: %v", err)
	}
}

// forged is a journal that says of all epochs that they were opened before event 1.
type forged struct{ *journaltest.Memory }

func (f forged) Openings(ctx context.Context, stream string, fn func(journal.Opening) error) error {
	return f.Memory.Openings(ctx, stream, func(o journal.Opening) error {
		o.First = 1
		return fn(o)
	})
}

func TestVerifyNamesTheTableThatIsDamaged(t *testing.T) {
	store, err := openOffline(t.Context(), config.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, table := range []string{"keys", "rules"} {
		if err := store.Tables().Apply(t.Context(), []journal.Mutation{{Table: table, Key: "k", Value: []byte("v")}}, true); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	err = verifyJournal(t.Context(), store, &out, false)
	if err != nil || out.String() != "0 deals, 0 events, 2 rows, 0 damaged\n" {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	err = verifyJournal(t.Context(), rulesLost{store}, &out, false)
	if err == nil || out.String() != "table rules: journal: corrupt somewhere: planted\n0 deals, 0 events, 1 row, 1 damaged\n" {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	err = verifyJournal(t.Context(), rulesLost{store}, &out, true)
	const want = `{"deals":0,"events":0,"rows":1,"damaged":[{"events_before":0,"table":"rules","error":"journal: corrupt somewhere: planted"}]}` + "\n"
	if err == nil || out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// rulesLost is a store whose table rules cannot be read.
type rulesLost struct{ journal.Store }

func (s rulesLost) Tables() journal.Tables { return noRules{s.Store.Tables()} }

type noRules struct{ journal.Tables }

func (t noRules) Scan(ctx context.Context, table, prefix, after string, fn func(string, []byte) error) error {
	if table == "rules" {
		return &journal.CorruptError{File: "somewhere", Detail: "planted"}
	}
	return t.Tables.Scan(ctx, table, prefix, after, fn)
}

// TestRepriceFindsTheOrderThatDiffers among others that do not, and the deal
// that cannot be read.
func TestRepriceFindsTheOrderThatDiffers(t *testing.T) {
	store, err := openOffline(t.Context(), config.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rules, err := plugins.New(t.Context(), plugins.Config{Tables: store.Tables(), Now: func() int64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	defer rules.Close()
	records := pricedOrders(t, rules)
	reprice := func(want string) {
		t.Helper()
		for _, interpreter := range []bool{false, true} {
			var out strings.Builder
			err := repriceJournal(t.Context(), store, interpreter, &out)
			if text := strings.TrimSpace(out.String()); !strings.HasSuffix(text, want) || (err == nil) != strings.Contains(want, " 0 damaged, 2 orders, 2 evaluations, 0 differences") {
				t.Errorf("interpreter %t: %v\n%s", interpreter, err, text)
			}
		}
	}
	write(t, store, "d-1", records...)
	reprice("1 deal, 0 damaged, 2 orders, 2 evaluations, 0 differences")
	var changed deal.Event
	if err := changed.Decode(records[1]); err != nil {
		t.Fatal(err)
	}
	changed.Placed.Evaluations[0].Fuel++
	changed.Placed.Discount--
	write(t, store, "d-2", records[0], changed.Append(nil), records[2])
	write(t, store, "d-3", records[1])
	reprice("d-1-2: discount_total was 989 and is now 990\nd-3: event 1: deal: malformed record: an order before its deal\n3 deals, 1 damaged, 4 orders, 4 evaluations, 2 differences in 1 order")
}

// TestUnchanged: tables for a command that only looks take nothing.
func TestUnchanged(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	row := []journal.Mutation{{Table: "rule_wasm", Key: "k", Value: []byte("v")}}
	err := errors.Join(unchanged{tables}.Apply(t.Context(), row, true), unchanged{tables}.ApplyIf(t.Context(), nil, row, true))
	if _, missing := tables.Get(t.Context(), "rule_wasm", "k"); err != nil || !errors.Is(missing, journal.ErrNotFound) {
		t.Error(err, missing)
	}
}

// pricedOrders returns the records of a deal with two orders.
func pricedOrders(t *testing.T, rules deal.Rules) (records [][]byte) {
	t.Helper()
	s := deal.NewState()
	for i, c := range []*deal.Command{
		{Kind: deal.Create, Spec: &deal.Spec{
			ID: "d-1", Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 9900, Stock: 10, ReserveTTL: 1000, Rules: []string{"tiered"},
		}},
		{Kind: deal.Place, User: []byte("ann"), Key: []byte("k"), Quantity: 1},
		{Kind: deal.Place, User: []byte("bob"), Key: []byte("k"), Quantity: 2},
	} {
		var r deal.Reply
		c.At = int64(1000 + i)
		s.Decide(c, rules, &r)
		r.Event.Seq = s.Seq + 1
		if err := s.Apply(&r.Event); err != nil {
			t.Fatal(err)
		}
		records = append(records, r.Event.Append(nil))
	}
	return records
}

// write appends a stream's first events.
func write(t *testing.T, store journal.Store, stream string, records ...[]byte) {
	t.Helper()
	head, err := store.Open(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	w := journal.Write{Stream: stream, Epoch: head.Epoch, Seq: 1, Count: len(records)}
	for _, record := range records {
		w.Data = journal.AppendEvent(w.Data, record)
	}
	if err := store.Commit([]*journal.Write{&w}); err != nil || w.Err != nil {
		t.Fatal(err, w.Err)
	}
}
