package plugins_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sdk/toolchain"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

//go:generate go test -run TestHouseRulesAreBuiltFromSource -update-house .

var updateHouse = flag.Bool("update-house", false, "build the house rules anew")

// TestHouseRulesAreBuiltFromSource compares the embedded modules with a fresh
// build of examples/rules/c. The bytes depend on the compiler: they are those of
// Debian's clang 14 and wasm-ld 14.
func TestHouseRulesAreBuiltFromSource(t *testing.T) {
	committed, err := filepath.Glob("house/*.wasm")
	if err != nil || len(committed) == 0 {
		t.Fatal("there is no house rule", err)
	}
	for _, path := range committed {
		source := filepath.Join("../examples/rules/c", strings.TrimSuffix(filepath.Base(path), ".wasm")+".c")
		fresh := filepath.Join(t.TempDir(), "fresh.wasm")
		if *updateHouse {
			fresh = path
		}
		if err := toolchain.Build(t.Context(), source, fresh); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(fresh)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			version, _ := exec.CommandContext(t.Context(), "clang", "--version").Output()
			t.Errorf("%s is not what its source builds: go generate ./plugins. It was built with clang 14, here is %s", path, version)
		}
	}
}

func TestTiered(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	for _, c := range []struct {
		quantity          uint32
		subtotal, already int64
		want              int64
		label, reason     string
	}{
		{0, 0, 0, 0, "", ""},
		{1, 9900, 0, 990, "10% off from 1", "tier_1"},
		{2, 19800, 0, 1980, "10% off from 1", "tier_1"},
		{3, 29700, 0, 4455, "15% off from 3", "tier_3"},
		{4, 4, 0, 0, "15% off from 3", "tier_3"},
		{5, 49500, 0, 9900, "20% off from 5", "tier_5"},
		{1000, 9_900_000, 0, 1_980_000, "20% off from 5", "tier_5"},
		{1, 9999, 0, 999, "10% off from 1", "tier_1"},   // rounded down
		{1, 9, 0, 0, "10% off from 1", "tier_1"},        // down to nothing
		{1, 9900, 9900, 0, "10% off from 1", "tier_1"},  // nothing is left to pay
		{1, 9900, 900, 900, "10% off from 1", "tier_1"}, // of what is left
		{5, 1<<63 - 1, 0, (1<<63 - 1) / 5, "20% off from 5", "tier_5"},
	} {
		in := &abi.Input{Quantity: c.quantity, Subtotal: c.subtotal, DiscountSoFar: c.already}
		var v abi.Verdict
		r.Evaluate("any", "tiered", in, &v)
		if v.Fault != abi.FaultNone || v.Discount != c.want || string(v.Label) != c.label || string(v.Reason) != c.reason {
			t.Errorf("%+v: %d %q %q %v", c, v.Discount, v.Label, v.Reason, v.Fault)
		}
	}
}
