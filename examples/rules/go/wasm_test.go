package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

var all = flag.Bool("all", false, "build all twelve rules, not three of them")

// TestModules builds rules with Go's own compiler and runs their vectors in the
// engine: the answers are the native ones, within the default budget of fuel.
func TestModules(t *testing.T) {
	names := []string{"buyxgety", "region", "tiered"}
	if *all {
		names = names[:0]
		for name := range ruleByName {
			names = append(names, name)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { testModule(t, name) })
	}
}

func testModule(t *testing.T, name string) {
	trial, err := plugins.NewTrial(t.Context(), build(t, ".", name), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := trial.Close(); err != nil {
			t.Error(err)
		}
	}()
	document, err := os.ReadFile(vectors + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	file, err := rules.Decode(document)
	if err != nil {
		t.Fatal(err)
	}
	fuel := uint64(0)
	for i := range file.Cases {
		c := &file.Cases[i]
		in, err := c.Order()
		if err != nil {
			t.Fatal(err)
		}
		e := trial.Evaluate(in)
		if e.Fault != abi.FaultNone {
			t.Errorf("%s: %v: %s %q", c.Name, e.Fault, e.FaultDetail, e.Logs)
		} else if got := rules.Answer(&e.Output); got != c.Expect {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.Name, got, c.Expect)
		}
		fuel = max(fuel, e.Fuel)
	}
	t.Logf("at most %d units of fuel", fuel)
}

// TestPanics: a rule that panics within the default budget of fuel is told so, in its log,
// and leaves nothing to the next order.
func TestPanics(t *testing.T) {
	trial, err := plugins.NewTrial(t.Context(), build(t, "./testdata/panics", ""), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := trial.Close(); err != nil {
			t.Error(err)
		}
	}()
	for n, want := range []string{
		"", "panic: no tier for CNY\n", "panic: an error of its own\n",
		"panic: runtime error: index out of range [3] with length 0\n",
		"panic: runtime error: invalid memory address or nil pointer dereference\n",
		"panic: runtime error: integer divide by zero\n", "panic: with neither a text nor an error\n",
	} {
		e := trial.Evaluate(&abi.Input{Quantity: uint32(n), UnitPrice: 100, Subtotal: 100, Currency: [3]byte{'C', 'N', 'Y'}})
		fault := abi.FaultTrap
		if n == 0 {
			fault = abi.FaultNone
		}
		if e.Fault != fault || string(e.Logs) != want {
			t.Errorf("%d: %v (%s), logged %q, not %q", n, e.Fault, e.FaultDetail, e.Logs, want)
		}
		if again := trial.Evaluate(&abi.Input{UnitPrice: 100, Subtotal: 100}); again.Fault != abi.FaultNone || again.Discount != 10 || len(again.Logs) > 0 {
			t.Errorf("after %d: %v %d %q", n, again.Fault, again.Discount, again.Logs)
		}
		t.Logf("%d units: %q", e.Fuel, want)
	}
}

// build compiles a folder's rule, of several the one with that name.
func build(t *testing.T, folder, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rule.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-ldflags", "-s -w -X main.rule="+name, "-o", path, folder)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}
