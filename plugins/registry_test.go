package plugins_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const now = 1_790_000_000_000

// open returns a registry over the tables.
func open(t testing.TB, tables journal.Tables) *plugins.Registry {
	t.Helper()
	r, err := plugins.New(t.Context(), plugins.Config{Tables: tables, Now: func() int64 { return now }, Host: host.Config{Instances: 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// fixed is a rule that takes a fixed amount off.
func fixed(amount int) []byte {
	return gastest.Rule(fmt.Sprintf("i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 i64.const %d i64.store 3 8", amount) + gastest.Result).Encode()
}

func upload(t *testing.T, r *plugins.Registry, merchant, id string, wasm []byte) plugins.Version {
	t.Helper()
	v, created, err := r.Upload(t.Context(), plugins.Upload{Merchant: merchant, RuleID: id, Wasm: wasm, By: "tester"})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	return v
}

// price returns the discount and the version that a merchant's order gets.
func price(r *plugins.Registry, merchant, id string) (int64, uint32) {
	var v abi.Verdict
	r.Evaluate(merchant, id, &abi.Input{Subtotal: 9900, UnitPrice: 9900, Quantity: 1}, &v)
	return v.Discount, v.Version
}

func expect(t *testing.T, r *plugins.Registry, merchant, id string, discount int64, version uint32) {
	t.Helper()
	if d, v := price(r, merchant, id); d != discount || v != version {
		t.Fatalf("%s/%s gives %d by version %d, want %d by %d", merchant, id, d, v, discount, version)
	}
}

func TestVersionsAndRollout(t *testing.T) {
	store := journaltest.NewMemory()
	r := open(t, store.Tables())
	first := upload(t, r, "acme", "sale", fixed(100))
	if first.Version != 1 || first.FuelLimit != abi.FuelDefault || first.CreatedAt != now || len(first.SHA256) != 64 || first.Size != len(fixed(100)) {
		t.Fatalf("%+v", first)
	}
	expect(t, r, "acme", "sale", 100, 1)
	upload(t, r, "acme", "sale", fixed(200))
	expect(t, r, "acme", "sale", 200, 2)

	again, created, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "sale", Wasm: fixed(100)})
	if err != nil || created || again != first {
		t.Fatalf("the same bytes: %+v %v %v", again, created, err)
	}
	step := func(o plugins.Rollout, err error) func(plugins.Rollout, int64) {
		return func(want plugins.Rollout, discount int64) {
			t.Helper()
			if err != nil || o != want {
				t.Fatalf("%+v %v, want %+v", o, err, want)
			}
			expect(t, r, "acme", "sale", discount, want.Stable)
		}
	}
	step(r.SetRollout(t.Context(), "ann", "acme", "sale", plugins.Change{Stable: 1}))(plugins.Rollout{Stable: 1, Previous: 2, Pinned: true}, 100)
	upload(t, r, "acme", "sale", fixed(300))
	expect(t, r, "acme", "sale", 100, 1) // pinned
	step(r.Promote(t.Context(), "ann", "", "acme", "sale"))(plugins.Rollout{Stable: 3, Previous: 1, Pinned: true}, 300)
	step(r.Rollback(t.Context(), "bob", "", "acme", "sale"))(plugins.Rollout{Stable: 1, Previous: 3, Pinned: true}, 100)

	// The same after a restart, and a version that nobody needed since runs.
	r = open(t, store.Tables())
	expect(t, r, "acme", "sale", 100, 1)
	e, err := r.EvaluateVersion(t.Context(), "acme", "sale", 2, &abi.Input{Subtotal: 500})
	if err != nil || e.Discount != 200 || e.Verdict.Version != 2 || e.Nanoseconds <= 0 {
		t.Fatalf("%+v %v", e, err)
	}
	step(r.Promote(t.Context(), "ann", "", "acme", "sale"))(plugins.Rollout{Stable: 3, Previous: 1, Pinned: true}, 300)
	var trail []string
	err = r.Audits(t.Context(), "acme", "sale", 0, func(a plugins.Audit) error {
		trail = append(trail, fmt.Sprint(a.By, a.Action, a.From, a.To, a.Version))
		return nil
	})
	want := "testerupload0 1 1|testerupload1 2 2|annpin2 1 0|testerupload1 1 3|annpromote1 3 0|bobrollback3 1 0|annpromote1 3 0"
	if got := strings.Join(trail, "|"); err != nil || got != want {
		t.Fatalf("audit %s (%v)", got, err)
	}
	wasm, err := r.Wasm(t.Context(), "acme", "sale", 2)
	if err != nil || !bytes.Equal(wasm, fixed(200)) {
		t.Fatal("the bytes are not those uploaded", err)
	}
}

func TestMerchantsAreApart(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	upload(t, r, "acme", "sale", fixed(100))
	upload(t, r, "bolt", "sale", fixed(7))
	upload(t, r, "bolt", "tiered", fixed(8))
	expect(t, r, "acme", "sale", 100, 1)
	expect(t, r, "bolt", "sale", 7, 1)
	expect(t, r, "bolt", "tiered", 8, 1)   // hides the house's
	expect(t, r, "acme", "tiered", 990, 1) // the house's
	if r.Exists("carl", "sale") || !r.Exists("carl", "tiered") {
		t.Fatal("a merchant sees another's rule, or not the house's")
	}
	list := r.Rules("bolt")
	if len(list) != 2 || list[0].RuleID != "sale" || list[1].Merchant != "bolt" || list[1].NotRunnable != "" {
		t.Fatalf("%+v", list)
	}
	if _, err := r.Rollback(t.Context(), "ann", "", "carl", "tiered"); !errors.Is(err, plugins.ErrRuleNotFound) {
		t.Fatalf("a merchant changed a house rule: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	upload(t, r, "acme", "sale", fixed(1))
	up := func(u plugins.Upload) error { _, _, err := r.Upload(t.Context(), u); return err }
	set := func(c plugins.Change) error {
		_, err := r.SetRollout(t.Context(), "", "acme", "sale", c)
		return err
	}
	_, notFound := r.Rule(t.Context(), "acme", "nothing")
	_, noVersion := r.Version(t.Context(), "acme", "sale", 2)
	_, noZero := r.Version(t.Context(), "acme", "sale", 0)
	_, noRuleVersion := r.Version(t.Context(), "acme", "nothing", 1)
	_, noWasm := r.Wasm(t.Context(), "acme", "sale", 2)
	_, noEvaluate := r.EvaluateVersion(t.Context(), "acme", "sale", 2, &abi.Input{})
	_, promoted := r.Promote(t.Context(), "", "", "acme", "sale")
	_, rolledBack := r.Rollback(t.Context(), "", "", "acme", "sale")
	for name, c := range map[string]struct{ got, want error }{
		"rule id":           {up(plugins.Upload{Merchant: "acme", RuleID: "a/b", Wasm: fixed(1)}), plugins.ErrBadID},
		"long id":           {up(plugins.Upload{Merchant: "acme", RuleID: strings.Repeat("a", 65), Wasm: fixed(1)}), plugins.ErrBadID},
		"no merchant":       {up(plugins.Upload{RuleID: "a", Wasm: fixed(1)}), plugins.ErrBadID},
		"fuel":              {up(plugins.Upload{Merchant: "acme", RuleID: "a", Wasm: fixed(1), FuelLimit: abi.FuelMax + 1}), plugins.ErrBadFuelLimit},
		"rule":              {notFound, plugins.ErrRuleNotFound},
		"version":           {noVersion, plugins.ErrVersionNotFound},
		"version 0":         {noZero, plugins.ErrVersionNotFound},
		"version of none":   {noRuleVersion, plugins.ErrRuleNotFound},
		"wasm":              {noWasm, plugins.ErrVersionNotFound},
		"evaluate":          {noEvaluate, plugins.ErrVersionNotFound},
		"audits":            {r.Audits(t.Context(), "acme", "nothing", 0, nil), plugins.ErrRuleNotFound},
		"canary":            {set(plugins.Change{Stable: 1, Mode: "canary"}), plugins.ErrBadRollout},
		"candidate":         {set(plugins.Change{Stable: 1, Candidate: 2}), plugins.ErrBadRollout},
		"pin to nothing":    {set(plugins.Change{Stable: 9}), plugins.ErrVersionNotFound},
		"promote nothing":   {promoted, plugins.ErrNothingToChange},
		"roll back nothing": {rolledBack, plugins.ErrNothingToChange},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	var invalid *plugins.InvalidError
	if err := up(plugins.Upload{Merchant: "acme", RuleID: "bad", Wasm: []byte("no module")}); !errors.As(err, &invalid) || len(invalid.Faults) == 0 {
		t.Errorf("not a module: %v", err)
	}
	if r.Exists("acme", "bad") {
		t.Error("a refused upload left a rule")
	}
	var v abi.Verdict
	if r.Evaluate("acme", "nothing", &abi.Input{}, &v); v.Fault != abi.FaultRuleInit || v.Version != 0 {
		t.Errorf("a rule that is not there: %+v", v.Fault)
	}
}

// TestVerdictNamesItsVersion: by its bytes and its owner, so that a merchant's
// rule is not taken for the house's of the same name.
func TestVerdictNamesItsVersion(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	r := open(t, tables)
	house, err := r.Version(t.Context(), "", "tiered", 1)
	if err != nil {
		t.Fatal(err)
	}
	named := func(r *plugins.Registry, by plugins.Version, isHouse bool) {
		t.Helper()
		var v abi.Verdict
		r.Evaluate("acme", "tiered", &abi.Input{}, &v)
		if hex.EncodeToString(v.SHA256[:]) != by.SHA256 || v.House != isHouse || v.Version != by.Version {
			t.Errorf("version %d, sha256 %x, house %t; want %+v", v.Version, v.SHA256, v.House, by)
		}
	}
	named(r, house, true)
	own := upload(t, r, "acme", "tiered", fixed(1))
	named(r, own, false)
	named(open(t, tables), own, false)
	e, err := r.EvaluateVersion(t.Context(), "", "tiered", 1, &abi.Input{})
	if err != nil || hex.EncodeToString(e.SHA256[:]) != house.SHA256 || !e.House {
		t.Errorf("%+v, %v", e, err)
	}
	var v abi.Verdict
	r.Evaluate("acme", "tiered", &abi.Input{}, &v)
	if r.Evaluate("acme", "nothing", &abi.Input{}, &v); v.SHA256 != [32]byte{} || v.House {
		t.Errorf("a rule that is not there: %x", v.SHA256)
	}
}

func TestFuelLimitMakesAVersion(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	upload(t, r, "acme", "sale", fixed(1))
	v, created, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "sale", Wasm: fixed(1), FuelLimit: 5})
	if err != nil || !created || v.Version != 2 || v.FuelLimit != 5 {
		t.Fatal(v, created, err)
	}
	var out abi.Verdict
	if r.Evaluate("acme", "sale", &abi.Input{}, &out); out.Fault != abi.FaultOutOfFuel || out.Fuel != 5 {
		t.Fatal(out.Fault, out.Fuel)
	}
	var stats []plugins.RuleStats
	r.Stats(func(s plugins.RuleStats) { stats = append(stats, s) })
	if len(stats) != 1 || stats[0].Calls != 1 || stats[0].Fuel != 5 || stats[0].Faults[abi.FaultOutOfFuel] != 1 || stats[0].Stable != 2 {
		t.Fatalf("%+v", stats)
	}
}

// failing fails every durable write.
type failing struct{ journal.Tables }

var errDisk = errors.New("no disk")

func (failing) ApplyIf(context.Context, []journal.Expectation, []journal.Mutation, bool) error {
	return errDisk
}

// TestNothingHappensUnlessStored: what is not on disk prices no order.
func TestNothingHappensUnlessStored(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	upload(t, open(t, tables), "acme", "sale", fixed(1))
	upload(t, open(t, tables), "acme", "sale", fixed(2))
	r := open(t, failing{tables})
	if _, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "sale", Wasm: fixed(3)}); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	if _, err := r.Rollback(t.Context(), "", "", "acme", "sale"); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	expect(t, r, "acme", "sale", 2, 2)
}

func TestDamagedRows(t *testing.T) {
	for name, damage := range map[string][]journal.Mutation{
		"version":   {{Table: "rule_version", Key: "acme/sale/0000000000000001", Value: []byte("{")}},
		"gap":       {{Table: "rule_version", Key: "acme/sale/0000000000000001"}},
		"rollout":   {{Table: "rule_rollout", Key: "acme/sale", Value: []byte("7")}},
		"stable":    {{Table: "rule_rollout", Key: "acme/sale", Value: []byte(`{"Stable":9}`)}},
		"no stable": {{Table: "rule_rollout", Key: "acme/sale"}},
	} {
		t.Run(name, func(t *testing.T) {
			tables := journaltest.NewMemory().Tables()
			r := open(t, tables)
			upload(t, r, "acme", "sale", fixed(1))
			upload(t, r, "acme", "sale", fixed(2))
			if err := tables.Apply(t.Context(), damage, true); err != nil {
				t.Fatal(err)
			}
			if _, err := plugins.New(t.Context(), plugins.Config{Tables: tables, Now: func() int64 { return now }}); err == nil {
				t.Fatal("a damaged row went unseen")
			}
		})
	}
}

// TestDamagedModule: bytes that are not what their name says never run.
func TestDamagedModule(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	v := upload(t, open(t, tables), "acme", "sale", fixed(1))
	if err := tables.Apply(t.Context(), []journal.Mutation{{Table: "rule_wasm", Key: v.SHA256, Value: fixed(9)}}, true); err != nil {
		t.Fatal(err)
	}
	r := open(t, tables)
	var out abi.Verdict
	if r.Evaluate("acme", "sale", &abi.Input{}, &out); out.Fault != abi.FaultRuleInit || out.Version != 1 || r.NotRunnable() != 1 {
		t.Fatalf("a swapped module went unseen: %v by %d, %d do not run", out.Fault, out.Version, r.NotRunnable())
	}
	expect(t, r, "acme", "tiered", 990, 1)
}

// smallRows refuse a row that is larger than a piece of a module, and all of a table from the
// n-th on.
type smallRows struct {
	journal.Tables
	t    *testing.T
	left int
}

var errNoMore = errors.New("no more")

func (s *smallRows) see(rows []journal.Mutation) error {
	for _, row := range rows {
		if len(row.Value) > 64<<10 {
			s.t.Errorf("a row of %s has %d bytes", row.Table, len(row.Value))
		}
		if row.Table == "rule_wasm" {
			if s.left--; s.left < 0 {
				return errNoMore
			}
		}
	}
	return nil
}

func (s *smallRows) Apply(ctx context.Context, rows []journal.Mutation, durable bool) error {
	if !durable {
		s.t.Error("a piece is not durable")
	}
	return errors.Join(s.see(rows), s.Tables.Apply(ctx, rows, durable))
}

func (s *smallRows) ApplyIf(ctx context.Context, expected []journal.Expectation, rows []journal.Mutation, durable bool) error {
	if err := s.see(rows); err != nil {
		return err
	}
	return s.Tables.ApplyIf(ctx, expected, rows, durable)
}

// TestLargeModule: a module of any size is stored by small rows, and is the same after a
// start. An upload that breaks off in the middle leaves nothing that is seen.
func TestLargeModule(t *testing.T) {
	for _, size := range []int{64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 200_000} {
		memory := journaltest.NewMemory().Tables()
		tables := &smallRows{memory, t, 1000}
		r := start(t, plugins.Config{Tables: tables})
		wasm := filledTo(fixed(7), size)
		pieces := (size + 64<<10 - 1) / (64 << 10)
		for stored := range pieces {
			tables.left = stored
			if _, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "sale", Wasm: wasm}); !errors.Is(err, errNoMore) {
				t.Fatal(err)
			}
			if r.Exists("acme", "sale") || open(t, memory).Exists("acme", "sale") {
				t.Fatalf("%d of %d pieces are a version", stored, pieces)
			}
		}
		tables.left = pieces
		upload(t, r, "acme", "sale", wasm)
		again := open(t, memory)
		expect(t, again, "acme", "sale", 7, 1)
		if stored, err := again.Wasm(t.Context(), "acme", "sale", 1); err != nil || !bytes.Equal(stored, wasm) {
			t.Errorf("%d bytes: %d are stored, %v", size, len(stored), err)
		}
	}
}

// filledTo has a custom section behind a module, so that it has so many bytes.
func filledTo(wasm []byte, size int) []byte {
	const head = 1 + 3 + 2 // the section's id, its size in three bytes, and the name "x"
	n := size - len(wasm) - head + 2
	wasm = append(slices.Clip(wasm), 0, byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14), 1, 'x')
	return append(wasm, make([]byte, size-len(wasm))...)
}

// TestStoredVersionNoLongerValid: a stricter release must not keep the node down.
func TestStoredVersionNoLongerValid(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	upload(t, open(t, tables), "acme", "sale", fixed(1))
	const sha = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d" // of one zero byte
	err := tables.Apply(t.Context(), []journal.Mutation{
		{Table: "rule_wasm", Key: sha, Value: []byte{0}},
		{Table: "rule_version", Key: "acme/sale/0000000000000001", Value: []byte(`{"RuleID":"sale","Version":1,"SHA256":"` + sha + `"}`)},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, tables)
	var out abi.Verdict
	if r.Evaluate("acme", "sale", &abi.Input{}, &out); out.Fault != abi.FaultRuleInit || out.Version != 1 {
		t.Fatalf("%v by %d", out.Fault, out.Version)
	}
	rule, err := r.Rule(t.Context(), "acme", "sale")
	if err != nil || !strings.HasPrefix(rule.NotRunnable, "version 1 is not valid in this release: ") {
		t.Fatalf("%+v %v", rule, err)
	}
	// What the module is to blame for is said again without looking at it again.
	if err := tables.Apply(t.Context(), []journal.Mutation{{Table: "rule_wasm", Key: sha, Value: []byte{1}}}, true); err != nil {
		t.Fatal(err)
	}
	var invalid *plugins.InvalidError
	if _, err := r.EvaluateVersion(t.Context(), "acme", "sale", 1, &abi.Input{}); !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	expect(t, r, "acme", "tiered", 990, 1)
}

func TestConfig(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	for name, c := range map[string]plugins.Config{
		"tables":    {Now: func() int64 { return 0 }},
		"now":       {Tables: tables},
		"instances": {Tables: tables, Now: func() int64 { return 0 }, Host: host.Config{Instances: -1}},
	} {
		if _, err := plugins.New(t.Context(), c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestConcurrentUse: orders are priced while versions change under them, each
// wholly by one version.
func TestConcurrentUse(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	upload(t, r, "acme", "sale", fixed(1))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if d, v := price(r, "acme", "sale"); d != int64(v) {
					t.Errorf("version %d took %d off", v, d)
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	for range 2 { // twins: both upload the same versions
		writers.Go(func() {
			for n := 2; n <= 6; n++ {
				if _, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "sale", Wasm: fixed(n)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	expect(t, r, "acme", "sale", 6, 6)
}

func TestEvaluateDoesNotAllocate(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	in := &abi.Input{Subtotal: 9900, Quantity: 1, DealID: []byte("deal"), UserID: []byte("user")}
	var v abi.Verdict
	if n := testing.AllocsPerRun(1000, func() { r.Evaluate("acme", "tiered", in, &v) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestEvaluationCarriesLogsAndFault(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	m := gastest.Rule("i32.const 16 i32.const 5 call 0 unreachable").WithImport("doorbuster", "log", gastest.TypeLog)
	m.Data = []gastest.Data{{At: 16, Bytes: "he\nl\xff"}}
	upload(t, r, "acme", "talk", m.Encode())
	e, err := r.EvaluateVersion(t.Context(), "acme", "talk", 1, &abi.Input{})
	if err != nil || e.Fault != abi.FaultTrap || string(e.Logs) != "he\nl\xff\n" || e.FaultDetail != "wasm error: unreachable" {
		t.Fatalf("%v %q %q %v", e.Fault, e.Logs, e.FaultDetail, err)
	}
}

// TestCountQuota: how many rules and versions a merchant may have, and that each bound lets
// through what is below it.
func TestCountQuota(t *testing.T) {
	for _, c := range []struct {
		id              string
		rules, versions int
		want            string
	}{
		{"new", plugins.MerchantRulesMax - 1, 1, ""},
		{"new", plugins.MerchantRulesMax, 1, "too many rules: a merchant may have 1000"},
		{"r-0", plugins.MerchantRulesMax, 1, ""},
		{"r-0", 1, plugins.VersionsMax - 1, ""},
		{"r-0", 1, plugins.VersionsMax, `too many versions: "r-0" has 1000`},
		{"new", 2, plugins.MerchantVersionsMax/2 - 1, ""},
		{"new", 2, plugins.MerchantVersionsMax / 2, "too many versions: the rules of a merchant may have 2000"},
		{"new", plugins.RulesMax, 0, "too many rules: the engine has 10000"},
	} {
		got := ""
		if err := plugins.Room(c.id, c.rules, c.versions); errors.Is(err, plugins.ErrTooMany) {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s beside %d rules of %d versions: %q, want %q", c.id, c.rules, c.versions, got, c.want)
		}
	}
}

// function is a Shopify function, which may have 11 MiB of memory for each CPU.
func function(n int) []byte {
	return (&gastest.Module{
		Types: []gastest.Type{{}}, Funcs: []gastest.Func{{Code: fmt.Sprintf("i32.const %d drop", n)}}, MemoryMin: 1,
		Exports: []gastest.Export{{Name: "memory", Kind: 2}, {Name: "run"}}, Custom: map[string]string{"doorbuster:classes": "ORDER"},
	}).Encode()
}

// TestMemoryQuotaOfWhatIsNotLoaded: a start that loads nothing makes no room.
func TestMemoryQuotaOfWhatIsNotLoaded(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	up := func(r *plugins.Registry, n int, wasm []byte) error {
		_, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: fmt.Sprint("r-", n), Wasm: wasm})
		return err
	}
	a := start(t, plugins.Config{Tables: tables, Host: host.Config{Instances: 1}})
	n := 0
	for up(a, n, function(n)) == nil {
		n++
	}
	var healthy atomic.Bool
	sleep, again := sleeper()
	b := start(t, plugins.Config{Tables: unless(tables, &healthy), Sleep: sleep, Host: host.Config{Instances: 1}})
	if b.NotRunnable() != n+len(b.Rules("")) {
		t.Fatalf("%d do not run", b.NotRunnable())
	}
	for range 2 {
		if err := up(b, n, function(n)); !errors.Is(err, plugins.ErrTooMany) {
			t.Errorf("a function more than %d: %v", n, err)
		}
		if err := up(b, 0, function(-1)); err != nil {
			t.Errorf("one in the place of another: %v", err)
		}
		healthy.Store(true)
		again()
		if b.NotRunnable() != 0 {
			t.Fatalf("%d do not run", b.NotRunnable())
		}
	}
}

// TestMemoryQuota: what a merchant's rules may hold is bounded, by whichever way a
// version comes to price orders, and rules that hold little are many.
func TestMemoryQuota(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	up := func(rule string, wasm []byte) error {
		_, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: rule, Wasm: wasm})
		return err
	}
	// A rule that was heavy once, and one that is to become so.
	for rule, versions := range map[string][][]byte{"was": {function(-1), fixed(1)}, "will": {fixed(1), function(-2)}} {
		for n, wasm := range versions {
			if err := up(rule, wasm); err != nil {
				t.Fatal(err)
			}
			if rule == "will" && n == 0 {
				if _, err := r.SetRollout(t.Context(), "", "acme", rule, plugins.Change{Stable: 1}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	n, full := 0, error(nil)
	for ; full == nil && n < 200; n++ {
		full = up(fmt.Sprint("r-", n), function(n))
	}
	if !errors.Is(full, plugins.ErrTooMany) || !strings.Contains(full.Error(), "bytes of memory") || n < 50 {
		t.Fatalf("%v after %d functions", full, n)
	}
	if err := up("small", fixed(2)); err != nil {
		t.Errorf("a small rule: %v", err)
	}
	for _, change := range []plugins.Change{{Stable: 2}, {Stable: 1, Candidate: 2, Mode: plugins.ModeShadow}} {
		if _, err := r.SetRollout(t.Context(), "", "acme", "will", change); !errors.Is(err, plugins.ErrTooMany) {
			t.Errorf("%+v: %v", change, err)
		}
	}
	if _, err := r.Promote(t.Context(), "", "", "acme", "will"); !errors.Is(err, plugins.ErrTooMany) {
		t.Error(err)
	}
	if _, err := r.SetRollout(t.Context(), "", "acme", "was", plugins.Change{Stable: 1}); !errors.Is(err, plugins.ErrTooMany) {
		t.Error(err)
	}
	if err := up("r-0", fixed(3)); err != nil { // one heavy version less
		t.Error(err)
	}
	if _, err := r.Promote(t.Context(), "", "", "acme", "will"); err != nil {
		t.Error(err)
	}
	if _, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "bolt", RuleID: "r", Wasm: function(0)}); err != nil {
		t.Errorf("another merchant: %v", err)
	}
}
