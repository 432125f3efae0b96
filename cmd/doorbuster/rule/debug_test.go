package rule

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/sdk"
)

// recordedOrder has what a server tells of an order of three units, and of which the rule
// "spring" was told the sample.
func recordedOrder(t *testing.T, sample []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample.json")
	if err := writeFile(path, sample); err != nil {
		t.Fatal(err)
	}
	in, err := readSample(path)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := in.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(map[string]any{"rules": []any{map[string]any{
		"rule": "spring", "version": 1, "input": json.RawMessage(sample), "input_abi": base64.StdEncoding.EncodeToString(encoded),
		"outcome": "discount", "discount": in.Subtotal / 10, "label": "10% off from 2", "reason": "from_2",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	url, _ := answers(t, map[string]string{"GET /api/v1/orders/d-1/explain": string(told)})
	return url
}

const threeUnits = `{"now":"2026-11-22T12:00:00.000Z","deal":{"deal_id":"d","currency":"CNY","unit_price":9900,"stock":10},"order":{"user_id":"u","quantity":3}}`

// debugOrder runs replay --debug of the order in a project.
func debugOrder(t *testing.T, dir, keys string) (int, string, error) {
	t.Helper()
	url := recordedOrder(t, []byte(threeUnits))
	var out bytes.Buffer
	code, err := typed(t.Context(), keys, &out, "replay", "-C", dir, "--server", url, "--order", "d-1", "--debug")
	return code, out.String(), err
}

// builtProject is a project of a language with the module of the C one in place of its
// own: what is debugged is the source.
func builtProject(t *testing.T, lang string) string {
	t.Helper()
	dir := newProject(t)
	if _, err := command(t.Context(), &bytes.Buffer{}, "build", "-C", dir); err != nil {
		t.Fatal(err)
	}
	if lang == "c" {
		return dir
	}
	for _, file := range []string{"rule.c", "rule_test.c"} { // which the Go tool would not build
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := sdk.Project(lang, "spring")
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range files {
		if err := writeFile(filepath.Join(dir, filepath.FromSlash(file)), content); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestDebugger: gdb stops in the rule, with the recorded order.
func TestDebugger(t *testing.T) {
	if _, err := exec.LookPath("gdb"); err != nil {
		t.Fatal("gdb is not installed: go tool task tools")
	}
	_, out, err := debugOrder(t, builtProject(t, "c"), "print in->quantity\ndelete\ncontinue\nquit\n")
	if err != nil || !strings.Contains(out, "$1 = 3") || !strings.Contains(out, "exited") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestDebuggers: each language's debugger is started where the order is the only case.
func TestDebuggers(t *testing.T) {
	for lang, c := range map[string]struct {
		tools, build, run string
		reads             string
	}{
		"c":              {"cc gdb", "cc -std=c11 -g", "gdb -q -ex break evaluate -ex run ./rule_test", "vectors.tsv"},
		"rust":           {"rustc rust-gdb", "rustc --edition=2021 --test -g", "rust-gdb -q -ex break rule::evaluate", "vectors.tsv"},
		"assemblyscript": {"npx node", "npx --no-install asc rule_test.ts --target test", "node --inspect-brk", "vectors.tsv"},
		"go":             {"dlv", "dlv test --wd", "--init", ""},
	} {
		t.Run(lang, func(t *testing.T) {
			dir, bin := builtProject(t, lang), t.TempDir()
			for tool := range strings.FieldsSeq(c.tools) {
				script := "#!/bin/sh\necho \"" + tool + " $@\"\n[ -f vectors.tsv ] && echo \"$(/usr/bin/wc -l < vectors.tsv) cases\"\n" +
					"[ " + tool + " = dlv ] && /bin/cat \"$3/vectors.json\" \"$5\"\nexit 3\n"
				if tool == "cc" || tool == "rustc" || tool == "npx" {
					script = strings.Replace(script, "exit 3", "exit 0", 1)
				}
				if err := os.WriteFile(filepath.Join(bin, tool), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin)
			code, out, err := debugOrder(t, dir, "")
			if err != nil || code != 0 || !strings.Contains(out, c.build) || !strings.Contains(out, c.run) {
				t.Fatalf("%d %v\n%s", code, err, out)
			}
			if c.reads != "" && !strings.Contains(out, "\n1 cases\n") {
				t.Errorf("the test does not read one case:\n%s", out)
			}
			if lang == "go" && (!strings.Contains(out, `"name": "d-1"`) || !strings.Contains(out, "evaluate$/\ncontinue")) {
				t.Errorf("no case and no breakpoint:\n%s", out)
			}
			t.Setenv("PATH", t.TempDir())
			if code, _, err := debugOrder(t, dir, ""); code != ExitNoCompiler || !strings.Contains(err.Error(), "install") {
				t.Errorf("without a debugger: %d %v", code, err)
			}
		})
	}
}
