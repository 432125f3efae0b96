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
	trial, err := plugins.NewTrial(t.Context(), build(t, name), 0)
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

func build(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-ldflags", "-s -w -X main.rule="+name, "-o", path, ".")
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
