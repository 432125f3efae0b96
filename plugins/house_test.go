package plugins_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// TestHouseRulesAreBuiltFromSource compares the embedded modules with a fresh
// build of examples/rules.
func TestHouseRulesAreBuiltFromSource(t *testing.T) {
	for _, tool := range []string{"clang", "wasm-ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing, so the house rules cannot be compared with their source: apt-get install clang lld", tool)
		}
	}
	fresh := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "sh", "../examples/rules/build.sh", fresh).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	built, err := filepath.Glob(filepath.Join(fresh, "*.wasm"))
	if err != nil || len(built) == 0 {
		t.Fatal("nothing was built", err)
	}
	committed, err := filepath.Glob("house/*.wasm")
	if err != nil || len(committed) != len(built) {
		t.Fatalf("%d rules are committed, %d are built (%v)", len(committed), len(built), err)
	}
	for _, path := range built {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("house", filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			version, _ := exec.CommandContext(t.Context(), "clang", "--version").Output()
			t.Errorf("house/%s is not what its source builds: run examples/rules/build.sh. It was built with clang 14, here is %s", filepath.Base(path), version)
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
