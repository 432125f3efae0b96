package rule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// off is a rule that takes an amount off every order.
func off(amount int64) *gastest.Module {
	return gastest.Rule(fmt.Sprintf("i32.const %d i32.const 1 i32.store16 0 0 i32.const %d i64.const %d i64.store 0 8",
		gastest.OutputAt, gastest.OutputAt, amount) + gastest.Result)
}

// moduleProject writes a project of one module and one case: 990 off one unit of 9900.
func moduleProject(t *testing.T, wasm []byte) string {
	t.Helper()
	return write(t, map[string]string{
		"rule.json":    `{"rule":"spring","source":"rule.c","module":"rule.wasm","fuel_limit":5000}`,
		"rule.wasm":    string(wasm),
		"vectors.json": `{"rule":"spring","cases":[{"name":"a tenth","input":{"deal":{"unit_price":9900}},"expect":{"outcome":"discount","discount":990}}]}`,
		"sample.json":  `{"deal":{"unit_price":9900},"order":{"quantity":2}}`,
	})
}

// write writes files into a new folder.
func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		if err := writeFile(filepath.Join(dir, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// told is a rule that takes off what its configuration says, 32 bits of it.
func told() *gastest.Module {
	m := gastest.Rule(gastest.Result)
	m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: fmt.Sprintf(
		"i32.const %[1]d i32.const 1 i32.store16 0 0 i32.const %[1]d i32.const %[2]d i32.load 0 0 i32.store 0 8 i32.const 0", gastest.OutputAt, gastest.BufferAt)})
	m.Exports = append(m.Exports, gastest.Export{Name: "rule_init", Index: gastest.RuleFuncs})
	return m
}

// TestConfiguration: a project's configuration is checked with its module.
func TestConfiguration(t *testing.T) {
	dir := moduleProject(t, told().Encode())
	if code, out := check(t, dir); code != ExitDifference {
		t.Errorf("%d without a configuration: %s", code, out)
	}
	for name, content := range map[string]string{"rule.json": `{"rule":"spring","source":"rule.c","module":"rule.wasm","configuration":"tenth.bin"}`, "tenth.bin": "\xde\x03\x00\x00"} {
		if err := writeFile(filepath.Join(dir, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if code, out := check(t, dir); code != 0 {
		t.Errorf("%d with 990 as its configuration: %s", code, out)
	}
}

// TestCheck: what a module is found to be, for people and for programs.
func TestCheck(t *testing.T) {
	imports := off(990).WithImport("doorbuster", "log", gastest.TypeLog).
		WithImport("wasi_snapshot_preview1", "random_get", gastest.TypeTwo).
		WithImport("wasi_snapshot_preview1", "args_get", gastest.TypeTwo)
	for name, c := range map[string]struct {
		module   *gastest.Module
		code     int
		faults   string // a part of the first one
		failures []string
		says     string
	}{
		"good":           {off(990), 0, "", nil, "imports  none"},
		"with imports":   {imports, 0, "", nil, "imports  doorbuster: log; wasi_snapshot_preview1: random_get, args_get\n"},
		"another price":  {off(1000), ExitDifference, "", []string{"a tenth: discount 1000"}, "    got   discount 1000\n    want  discount 990\n"},
		"beyond the sum": {off(9901), ExitDifference, "", []string{"a tenth: bad_output"}, "    got   fault bad_output: "},
		"never ends": {
			gastest.Rule("loop void br 0 end" + gastest.Result), ExitDifference, "",
			[]string{"a tenth: out_of_fuel", "sample.json: out_of_fuel"},
			"fuel     at most 5000 of 5000",
		},
		"traps": {gastest.Rule("unreachable"), ExitDifference, "", []string{"a tenth: trap", "sample.json: trap"}, "of which 2 failed"},
		"starts": {
			&gastest.Module{Types: []gastest.Type{{}}, Funcs: []gastest.Func{{}, {}}, Start: 1}, ExitDifference,
			"start function", nil, "verdict  refused\n",
		},
		"speaks to the terminal": {
			off(990).WithImport("\x1b[2J", "\x00", gastest.TypeVoid), ExitDifference,
			`"\x1b[2J"."\x00" is not offered`, nil, `"\x1b[2J"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := moduleProject(t, c.module.Encode())
			code, out := check(t, dir)
			if code != c.code || !strings.Contains(out, c.says) || strings.ContainsRune(out, '\x1b') {
				t.Errorf("exit code %d, %q", code, out)
			}
			got := checkJSON(t, dir, c.code)
			if got.OK != (c.code == 0) || got.Size != len(c.module.Encode()) || len(got.SHA256) != 64 || got.FuelMost > got.FuelLimit {
				t.Errorf("%+v", got)
			}
			if (c.faults == "") != (len(got.Faults) == 0) || len(got.Faults) > 0 && !strings.Contains(got.Faults[0].Reason, c.faults) {
				t.Errorf("faults %+v", got.Faults)
			}
			var failures []string
			for _, f := range got.Failures {
				what := f.Got.line()
				if f.Got.Fault != "" {
					what = f.Got.Fault
				}
				failures = append(failures, f.Case+": "+what)
			}
			if !slices.Equal(failures, c.failures) {
				t.Errorf("failures %q", failures)
			}
		})
	}
}

func check(t *testing.T, dir string, more ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code, err := command(t.Context(), &out, append([]string{"check", "-C", dir}, more...)...)
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	return code, out.String()
}

// checkJSON runs check for a program: one document, whatever the module is.
func checkJSON(t *testing.T, dir string, want int) (c checked) {
	t.Helper()
	var out bytes.Buffer
	if code, err := command(t.Context(), &out, "check", "-C", dir, "--json"); code != want {
		t.Errorf("exit code %d, not %d: %v", code, want, err)
	}
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || d.More() {
		t.Errorf("not one document: %v", err)
	}
	return c
}

// TestCheckOfAProject: what is not right about a project is told with its file, and is
// not a verdict on the module.
func TestCheckOfAProject(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		code          int
		says          string
	}{
		"no module yet":      {"rule.json", `{"rule":"spring","source":"rule.c","module":"other.wasm"}`, ExitUsage, "doorbuster rule build"},
		"a module too large": {"rule.wasm", strings.Repeat("x", abi.ModuleBytesMax+1), ExitUsage, "at most 4194304 are allowed"},
		"a fuel beyond":      {"rule.json", `{"rule":"spring","source":"rule.c","module":"rule.wasm","fuel_limit":1000001}`, ExitUsage, "fuel"},
		"a misspelt field":   {"rule.json", `{"rule":"spring","sourse":"rule.c"}`, ExitUsage, `unknown field "sourse"`},
		"more than one":      {"rule.json", `{"rule":"spring","source":"rule.c","module":"rule.wasm"} {}`, ExitUsage, "more behind the project"},
		"no name":            {"rule.json", `{"rule":"spring sale","source":"rule.c","module":"rule.wasm"}`, ExitUsage, "cannot name a rule"},
		"itself":             {"rule.json", `{"rule":"spring","source":"rule.c","module":"./rule.c"}`, ExitUsage, "the module cannot be the source"},
		"half a project":     {"rule.json", `{"rule":"spring"}`, ExitUsage, "rule, source and module are required"},
		"no vectors":         {"vectors.json", `{"rule":"spring","cases":[]}`, ExitUsage, "vectors.json: 0 cases"},
		"a wrong vector":     {"vectors.json", `{"rule":"spring","cases":[{"name":"x","input":{"deal":{"unit_price":-1}}}]}`, ExitUsage, "vectors.json: x: "},
		"an unknown outcome": {"vectors.json", `{"rule":"spring","cases":[{"name":"x","input":{},"expect":{"outcome":"gift"}}]}`, ExitUsage, `no outcome "gift"`},
		"a wrong sample":     {"sample.json", `{"order":{"quantity":-1}}`, ExitUsage, "sample.json: "},
		"no sample's JSON":   {"sample.json", `quantity: 1`, ExitUsage, "sample.json: "},
		"an older table":     {"vectors.tsv", "of yesterday", ExitDifference, "vectors.tsv is not what vectors.json says"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := moduleProject(t, off(990).Encode())
			if err := writeFile(filepath.Join(dir, c.file), []byte(c.content)); err != nil {
				t.Fatal(err)
			}
			if code, out := check(t, dir); code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d, %s", code, out)
			}
		})
	}
}

// TestCheckUpdate writes the table that native tests read.
func TestCheckUpdate(t *testing.T) {
	dir := moduleProject(t, off(990).Encode())
	if code, out := check(t, dir, "--update"); code != 0 {
		t.Fatal(code, out)
	}
	table, err := os.ReadFile(filepath.Join(dir, tableFile))
	if err != nil || !strings.HasSuffix(string(table), "\t1\t990\t0\t\t\ta tenth\n") {
		t.Errorf("%v %q", err, table)
	}
	if code, out := check(t, dir); code != 0 {
		t.Error(code, out)
	}
}

// TestCheckWithoutCases: a project need not have any.
func TestCheckWithoutCases(t *testing.T) {
	dir := moduleProject(t, off(990).Encode())
	for _, file := range []string{vectorsFile, sampleFile} {
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	if code, out := check(t, dir); code != 0 || !strings.Contains(out, "cases    0") {
		t.Error(code, out)
	}
}

// TestCheckSaysWhatIsStale: an author who forgot to build learns it before the verdict,
// whichever file of the module it is, and from no other file.
func TestCheckSaysWhatIsStale(t *testing.T) {
	for name, stale := range map[string]bool{
		"rule.c": true, "tiers.c": true, "doorbuster/doorbuster.h": true,
		"rule_test.c": false, "README.md": false, "node_modules/a.c": false, ".old/rule.c": false,
	} {
		dir := moduleProject(t, off(990).Encode())
		source := filepath.Join(dir, filepath.FromSlash(name))
		later := time.Now().Add(time.Minute)
		if err := writeFile(source, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(source, later, later); err != nil {
			t.Fatal(err)
		}
		code, out := check(t, dir)
		warning, verdict := strings.Index(out, source+" is newer than"), strings.Index(out, "verdict")
		if code != 0 || stale != (warning >= 0) || verdict < warning {
			t.Error(name, code, out)
		}
	}
}

// TestBuildOfAProject: what is wrong with a project is not what is wrong with a rule. A
// module that is there already can be checked all the same.
func TestBuildOfAProject(t *testing.T) {
	for source, want := range map[string]int{"gone/rule.c": ExitUsage, "rule.py": ExitUsage, "wrong.c": ExitDifference} {
		dir := moduleProject(t, off(990).Encode())
		for name, content := range map[string]string{
			"rule.json": `{"rule":"spring","source":"` + source + `","module":"rule.wasm"}`,
			"rule.py":   "pass", "wrong.c": "wrong",
		} {
			if err := writeFile(filepath.Join(dir, name), []byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		if code, err := command(t.Context(), new(bytes.Buffer), "build", "-C", dir); code != want {
			t.Errorf("%s: %d %v", source, code, err)
		}
		if code, out := check(t, dir); code != 0 {
			t.Errorf("%s: %d %s", source, code, out)
		}
	}
}

// TestBuildIntoAFolder: the folder of the module is made.
func TestBuildIntoAFolder(t *testing.T) {
	dir := newProject(t)
	if err := writeFile(filepath.Join(dir, "rule.json"), []byte(`{"rule":"spring","source":"rule.c","module":"out/rule.wasm"}`)); err != nil {
		t.Fatal(err)
	}
	if code, err := command(t.Context(), new(bytes.Buffer), "build", "-C", dir); code != 0 {
		t.Fatal(code, err)
	}
	if code, out := check(t, dir); code != 0 {
		t.Error(code, out)
	}
}
