package plugins_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// talkative logs the eight bytes at the place of the order's stamp, and traps
// for orders of two units.
func talkative() []byte {
	code := fmt.Sprintf(`i32.const %d i32.const 8 call 0
		i32.const %d i32.load 2 0 i32.const 2 i32.eq if void unreachable end `, gastest.BufferAt+8, gastest.BufferAt+40) + gastest.Result
	return gastest.Rule(code).WithImport("doorbuster", "log", gastest.TypeLog).Encode()
}

func priceAt(r *plugins.Registry, quantity uint32, now int64) abi.Fault {
	var v abi.Verdict
	r.Evaluate("acme", "mine", &abi.Input{Quantity: quantity, Now: now}, &v)
	return v.Fault
}

// next returns what a follower sees within the test's time.
func next(t *testing.T, f *plugins.Follower) []plugins.LogEntry {
	t.Helper()
	entries, missed := f.Next(t.Context().Done())
	if missed != 0 {
		t.Fatalf("%d were missed", missed)
	}
	return entries
}

func TestLogs(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	if _, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "mine", Wasm: talkative()}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Follow("acme", "none"); err == nil {
		t.Error("a rule that there is not can be followed")
	}
	if _, err := r.Logs("acme", "none"); err == nil {
		t.Error("a rule that there is not has logs")
	}

	// Nobody follows: only faults are kept.
	if priceAt(r, 1, 1000) != abi.FaultNone || priceAt(r, 2, 1001) != abi.FaultTrap {
		t.Fatal("the rule is not what this test needs")
	}
	f, err := r.Follow("acme", "mine")
	if err != nil {
		t.Fatal(err)
	}
	if got := next(t, f); len(got) != 1 || got[0].At != 1001 || got[0].Fault != abi.FaultTrap || got[0].FaultDetail == "" || got[0].Version != 1 {
		t.Fatalf("%+v", got)
	}

	// Somebody follows: a sample of what goes well, with its logs.
	for range plugins.LogSamples + 5 {
		priceAt(r, 1, 2000)
	}
	priceAt(r, 1, 3000)
	var seen []plugins.LogEntry
	for len(seen) < plugins.LogSamples+1 {
		seen = append(seen, next(t, f)...)
	}
	if last := seen[len(seen)-1]; len(seen) != plugins.LogSamples+1 || last.At != 3000 || string(last.Logs) != "\xb8\x0b\x00\x00\x00\x00\x00\x00\n" || last.Fuel == 0 {
		t.Fatalf("%d entries, the last %+v", len(seen), last)
	}

	// Nobody follows any more.
	f.Close()
	priceAt(r, 1, 4000)
	for i := range int64(plugins.LogFaults + 5) {
		priceAt(r, 2, 5000+i) // the same second
	}
	priceAt(r, 2, 6000)
	again, err := r.Follow("acme", "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	var entry plugins.LogEntry
	for entry.At != 6000 {
		entries, _ := again.Next(t.Context().Done())
		entry = entries[len(entries)-1]
		for _, e := range entries {
			if e.At == 4000 {
				t.Error("an order that went well was logged while nobody followed")
			}
		}
	}
	kept, err := r.Logs("acme", "mine")
	if err != nil {
		t.Fatal(err)
	}
	if n := uint64(1 + plugins.LogSamples + 1 + plugins.LogFaults + 1); len(kept) < plugins.LogsKept || kept[len(kept)-1].Seq != n {
		t.Errorf("%d entries, the last %d, not %d", len(kept), kept[len(kept)-1].Seq, n)
	}
}

// TestFaultsInTheServersLog: whoever looks after the server is told which rule faults,
// once in a minute.
func TestFaultsInTheServersLog(t *testing.T) {
	var lines bytes.Buffer // the follower sees an entry after its line
	r, err := plugins.New(t.Context(), plugins.Config{
		Tables: journaltest.NewMemory().Tables(), Now: func() int64 { return now }, Host: host.Config{Instances: 2},
		Logger: slog.New(slog.NewTextHandler(&lines, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	upload(t, r, "acme", "mine", talkative())
	f, err := r.Follow("acme", "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n, order := range []struct {
		quantity uint32
		now      int64
		told     int
	}{{1, 1_000, 0}, {2, 2_000, 1}, {2, 61_999, 1}, {2, 62_000, 2}, {1, 200_000, 2}} {
		priceAt(r, order.quantity, order.now)
		if got := next(t, f); len(got) != 1 || got[0].At != order.now {
			t.Fatalf("order %d: %+v", n, got)
		}
		if told := strings.Count(lines.String(), "a promotion rule faults\" merchant=acme rule=mine version=1 fault=trap detail="); told != order.told {
			t.Errorf("after order %d: %d lines\n%s", n, told, &lines)
		}
	}
}

// TestHouseLogs: a house rule prices the orders of all merchants, and none of them
// sees the others'.
func TestHouseLogs(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	if f, err := r.Follow("rival", "tiered"); !errors.Is(err, plugins.ErrRuleNotFound) {
		f.Close()
		t.Error("a merchant follows the orders of others")
	}
	if _, err := r.Logs("rival", "tiered"); !errors.Is(err, plugins.ErrRuleNotFound) {
		t.Error("a merchant sees the orders of others")
	}
	f, err := r.Follow("", "tiered")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var v abi.Verdict
	r.Evaluate("acme", "tiered", &abi.Input{Quantity: 1, Now: 1000}, &v)
	if got := next(t, f); len(got) != 1 || got[0].At != 1000 {
		t.Errorf("%+v", got)
	}
}

// TestFollowerThatIsLate learns how much it missed.
func TestFollowerThatIsLate(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	if _, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "mine", Wasm: talkative()}); err != nil {
		t.Fatal(err)
	}
	late, err := r.Follow("acme", "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	quick, err := r.Follow("acme", "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer quick.Close()
	priceAt(r, 2, 0)
	next(t, late)
	next(t, quick) // what it misses is counted from here on
	const orders = 3 * plugins.LogFaults
	for i := range int64(orders) {
		priceAt(r, 2, 1000*(1+i/plugins.LogFaults))
	}
	for seen := 0; seen < orders; {
		entries, missed := quick.Next(t.Context().Done())
		seen += len(entries) + int(missed)
	}
	entries, missed := late.Next(t.Context().Done())
	if len(entries) != plugins.LogsFollowed || missed != orders-plugins.LogsFollowed {
		t.Errorf("%d entries, %d missed", len(entries), missed)
	}
	done := make(chan struct{})
	close(done)
	if entries, _ := late.Next(done); entries != nil {
		t.Errorf("%d entries, when nothing happened", len(entries))
	}
}

func TestFollowingCostsNothingWhenNobodyDoes(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	var v abi.Verdict
	in := &abi.Input{Quantity: 1, UnitPrice: 100, Subtotal: 100}
	if n := testing.AllocsPerRun(100, func() { r.Evaluate("acme", "tiered", in, &v) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestLogsLoadNothingAgain: the orders of a rule that could not be loaded do not make
// the server try.
func TestLogsLoadNothingAgain(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	if _, _, err := open(t, tables).Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "mine", Wasm: talkative()}); err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	r := start(t, plugins.Config{Tables: ofRules{tables, func() error { tries.Add(1); return errDisk }}})
	before := tries.Load()
	f, err := r.Follow("acme", "mine")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if fault := priceAt(r, 1, 1000); fault != abi.FaultRuleInit {
		t.Fatal(fault)
	}
	if got := next(t, f); len(got) != 1 || got[0].Fault != abi.FaultRuleInit || got[0].Version != 1 || got[0].FaultDetail == "" {
		t.Errorf("%+v", got)
	}
	if now := tries.Load(); now != before {
		t.Errorf("%d tries, and %d after an order", before, now)
	}
}
