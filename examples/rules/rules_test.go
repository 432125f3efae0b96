// Package rules_test builds the rules of this folder with the compilers of their
// languages, and holds all of them against the same vectors. (The rules in Go are
// tested in go.)
package rules_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
	"github.com/doorbuster/doorbuster/plugins/sdk/toolchain"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

const (
	vectors = "../../plugins/sdk/rules/vectors/"
	asc     = "../../plugins/sdk/assemblyscript/node_modules/assemblyscript/dist/asc.js"
)

// languages are the folders beside go, with the extension of their rules and the
// rules that they have at least.
var languages = []struct {
	folder, extension string
	rules             []string
}{
	{"assemblyscript", ".ts", []string{
		"buyxgety", "bundle", "code", "combinedcap", "firstorder", "flashhour", "groupleader", "membertag",
		"quantitycap", "region", "stockprice", "tiered",
	}},
	{"rust", ".rs", []string{"membertag", "region", "tiered"}},
	{"c", ".c", []string{"membertag", "region", "tiered"}},
	{"wat", ".wat", []string{"firstorder", "quantitycap", "tiered"}},
}

// TestModules: every rule of every language is valid, imports nothing, and gives the
// answers of its vectors; and what each compiler makes is what the registry takes.
func TestModules(t *testing.T) {
	engine, registry := newEngine(t), newRegistry(t)
	for _, l := range languages {
		t.Run(l.folder, func(t *testing.T) {
			t.Parallel()
			modules := build(t, l.folder, l.extension)
			for _, rule := range l.rules {
				if modules[rule] == nil {
					t.Errorf("%s is missing", rule)
				}
			}
			for rule, wasm := range modules {
				program, err := engine.Compile(t.Context(), wasm, nil)
				if err != nil {
					t.Errorf("%s: %v", rule, err)
					continue
				}
				if imports := program.Imports(); len(imports) > 0 {
					t.Errorf("%s imports %v", rule, imports)
				}
				fuel := judge(t, rule, func(in *abi.Input, v *abi.Verdict) { program.Evaluate(in, abi.FuelDefault, v, nil) })
				t.Logf("%s: %d bytes, at most %d units of fuel", rule, len(wasm), fuel)
			}
			upload := plugins.Upload{Merchant: "acme", RuleID: l.folder, Wasm: modules["tiered"]}
			if _, created, err := registry.Upload(t.Context(), upload); err != nil || !created {
				t.Fatal(created, err)
			}
			judge(t, "tiered", func(in *abi.Input, v *abi.Verdict) { registry.Evaluate("acme", l.folder, in, v) })
		})
	}
}

// TestNative runs the rules without any engine, as their authors do, and sees that a
// rule with another one's vectors fails.
func TestNative(t *testing.T) {
	t.Run("c", func(t *testing.T) {
		t.Parallel()
		for _, rule := range sources(t, "c", ".c") {
			test := filepath.Join(t.TempDir(), rule)
			run(t, "c", "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", `-DRULE="`+rule+`.c"`, "-o", test, "vectors_test.c")
			run(t, "c", test, "../"+vectors+rule+".tsv")
			if err := exec.CommandContext(t.Context(), test, vectors+"flashhour.tsv").Run(); err == nil {
				t.Errorf("%s passes flashhour's vectors", rule)
			}
		}
	})
	t.Run("rust", func(t *testing.T) {
		t.Parallel()
		for _, rule := range sources(t, "rust", ".rs") {
			test := filepath.Join(t.TempDir(), rule)
			run(t, "rust", "rustc", "--edition=2021", "--test", "-Dwarnings", rule+".rs", "-o", test)
			run(t, "rust", test)
		}
	})
}

// TestLogsAndTraps: what a rule logs arrives, and a share of a debt is a fault.
func TestLogsAndTraps(t *testing.T) {
	engine := newEngine(t)
	for _, extension := range []string{".ts", ".rs", ".c"} {
		t.Run(extension, func(t *testing.T) {
			t.Parallel()
			module := filepath.Join(t.TempDir(), "note.wasm")
			if extension == ".ts" {
				buildAssemblyScript(t, filepath.Dir(module), "../testdata/note.ts")
			} else if err := toolchain.Build(t.Context(), "testdata/note"+extension, module); err != nil {
				t.Fatal(err)
			}
			program, err := engine.Compile(t.Context(), read(t, module), nil)
			if err != nil {
				t.Fatal(err)
			}
			in := &abi.Input{Quantity: 1, Subtotal: 9900, Attributes: []abi.KV{{Key: []byte("note"), Value: []byte("für dich")}}}
			var v abi.Verdict
			var trace host.Trace
			program.Evaluate(in, abi.FuelDefault, &v, &trace)
			if v.Fault != abi.FaultNone || v.Discount != 1 || string(v.Label) != "für dich" || string(trace.Logs) != "für dich\n" {
				t.Errorf("%v %d %q %q", v.Fault, v.Discount, v.Label, trace.Logs)
			}
			in.Quantity = 2
			if program.Evaluate(in, abi.FuelDefault, &v, &trace); v.Fault != abi.FaultTrap {
				t.Errorf("a share of a debt: %v", v.Fault)
			}
		})
	}
}

// vector is one case that an evaluation is held against.
type vector struct {
	rules.Case
	input *abi.Input
}

func cases(t testing.TB, rule string) (list []vector) {
	t.Helper()
	file, err := rules.Decode(read(t, vectors+rule+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		in, err := c.Order()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, vector{c, in})
	}
	return list
}

// judge holds a rule against its vectors and returns the most fuel that a case took.
func judge(t *testing.T, rule string, evaluate func(*abi.Input, *abi.Verdict)) (fuel uint64) {
	t.Helper()
	for _, c := range cases(t, rule) {
		var v abi.Verdict
		evaluate(c.input, &v)
		if got := rules.Answer(&v.Output); v.Fault != abi.FaultNone || got != c.Expect {
			t.Errorf("%s: %s: %v, got %+v, want %+v", rule, c.Name, v.Fault, got, c.Expect)
		}
		fuel = max(fuel, v.Fuel)
	}
	return fuel
}

func newEngine(t testing.TB) *host.Engine {
	t.Helper()
	engine, err := host.New(host.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

func newRegistry(t *testing.T) *plugins.Registry {
	t.Helper()
	registry, err := plugins.New(t.Context(), plugins.Config{Tables: journaltest.NewMemory().Tables(), Now: func() int64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Error(err)
		}
	})
	return registry
}

// sources names the rules of a folder.
func sources(t testing.TB, folder, extension string) (list []string) {
	t.Helper()
	paths, err := filepath.Glob(folder + "/*" + extension)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		list = append(list, strings.TrimSuffix(filepath.Base(path), extension))
	}
	return slices.DeleteFunc(list, func(name string) bool { return strings.HasSuffix(name, "_test") })
}

// build compiles the rules of a language.
func build(t testing.TB, folder, extension string) map[string][]byte {
	t.Helper()
	out := t.TempDir()
	rules := sources(t, folder, extension)
	if extension == ".ts" {
		var files []string
		for _, rule := range rules {
			files = append(files, rule+extension)
		}
		buildAssemblyScript(t, out, files...)
	}
	modules := map[string][]byte{}
	for _, rule := range rules {
		module := filepath.Join(out, rule+".wasm")
		if extension != ".ts" {
			if err := toolchain.Build(t.Context(), filepath.Join(folder, rule+extension), module); err != nil {
				t.Fatal(err)
			}
		}
		modules[rule] = read(t, module)
	}
	return modules
}

// buildAssemblyScript compiles files that are named from the folder assemblyscript.
func buildAssemblyScript(t testing.TB, out string, files ...string) {
	t.Helper()
	if _, err := os.Stat(asc); err != nil {
		t.Fatalf("%v: npm ci, in plugins/sdk/assemblyscript", err)
	}
	run(t, ".", "node", append([]string{"assemblyscript/build.mjs", asc, out}, files...)...)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func run(t testing.TB, folder, program string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, args...)
	command.Dir = folder
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, output)
	}
}
