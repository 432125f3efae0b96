package sdk_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/sample"
	"github.com/doorbuster/doorbuster/plugins/sdk"
	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
	"github.com/doorbuster/doorbuster/plugins/sdk/toolchain"
)

func TestProjects(t *testing.T) {
	for _, lang := range sdk.Languages() {
		t.Run(lang, func(t *testing.T) {
			project, err := sdk.Project(lang, "spring")
			if err != nil {
				t.Fatal(err)
			}
			for file, source := range project {
				if strings.HasSuffix(file, ".tmpl") || bytes.Contains(source, []byte("{{")) || bytes.Contains(source, []byte("github.com/doorbuster")) {
					t.Errorf("%s is not filled in", file)
				}
			}
			var manifest struct{ Rule, Source, Module string }
			if err := json.Unmarshal(project["rule.json"], &manifest); err != nil {
				t.Fatal(err)
			}
			if manifest.Rule != "spring" || manifest.Module == "" || project[manifest.Source] == nil {
				t.Errorf("rule.json: %+v", manifest)
			}
			if !bytes.Contains(project[".gitignore"], []byte("\n/"+manifest.Module+"\n")) {
				t.Errorf(".gitignore: %s", project[".gitignore"])
			}
			if f, err := rules.Decode(project["vectors.json"]); err != nil || f.Rule != "spring" {
				t.Errorf("vectors.json: %v", err)
			}
			if _, err := sample.Decode(project["sample.json"]); err != nil {
				t.Errorf("sample.json: %v", err)
			}
			if len(project["README.md"]) == 0 {
				t.Error("there is no README.md")
			}
		})
	}
}

// TestKits: a project gets every source file of its kit but the kit's own tests.
func TestKits(t *testing.T) {
	for lang, patterns := range map[string][]string{
		"go": {"*.go", "*/*.go"}, "assemblyscript": {"doorbuster*"}, "rust": {"doorbuster*"}, "c": {"doorbuster*"},
	} {
		project, err := sdk.Project(lang, "spring")
		if err != nil {
			t.Fatal(err)
		}
		for _, pattern := range patterns {
			found, err := filepath.Glob(filepath.Join(lang, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range found {
				into := "doorbuster/" + strings.TrimPrefix(filepath.ToSlash(file), lang+"/")
				if project[into] == nil && !strings.HasSuffix(file, "_test.go") {
					t.Errorf("%s is not copied", file)
				}
			}
		}
	}
}

// nodeModules is where `npm ci` puts the AssemblyScript compiler.
const nodeModules = "assemblyscript/node_modules"

// TestNewProjects runs what a new project's README says, offline, and builds its
// module.
func TestNewProjects(t *testing.T) {
	commands := map[string][][]string{
		"go":             {{"go", "test", "./..."}},
		"assemblyscript": {{"npm", "test"}},
		"rust":           {{"cargo", "test", "--offline"}},
		"c":              {{"cc", "-std=c11", "-Wall", "-Werror", "-o", "rule_test", "rule_test.c"}, {"./rule_test"}},
	}
	for _, lang := range sdk.Languages() {
		t.Run(lang, func(t *testing.T) {
			t.Parallel()
			dir := newProject(t, lang)
			if lang == "assemblyscript" {
				installed, err := filepath.Abs(nodeModules)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(installed, filepath.Join(dir, "node_modules")); err != nil {
					t.Fatal(err)
				}
			}
			for _, command := range commands[lang] {
				run(t, dir, command...)
			}
			sources, err := filepath.Glob(filepath.Join(dir, "rule.*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, source := range sources {
				if slices.Contains([]string{".go", ".ts", ".rs", ".c"}, filepath.Ext(source)) {
					if err := toolchain.Build(t.Context(), source, filepath.Join(dir, "rule.wasm")); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// newProject writes a new project's files.
func newProject(t *testing.T, lang string) (dir string) {
	t.Helper()
	project, err := sdk.Project(lang, "spring-sale_1")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for file, source := range project {
		path := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, source, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestOwnTests runs the kits' own tests, in their languages. (Go's run as Go tests.)
func TestOwnTests(t *testing.T) {
	const testdata, vectors = "../../abi/testdata", "../rules/vectors"
	t.Run("assemblyscript", func(t *testing.T) {
		t.Parallel()
		asc, err := filepath.Abs(filepath.Join(nodeModules, ".bin/asc"))
		if err != nil {
			t.Fatal(err)
		}
		module := filepath.Join(t.TempDir(), "sdk_test.wasm")
		run(t, "assemblyscript", asc, "sdk_test.ts", "--target", "test", "--outFile", module)
		run(t, "assemblyscript", "node", "doorbuster_test.mjs", module)
		run(t, "assemblyscript", "node", "sdk_test.mjs", module, testdata, vectors)
		wrong := exec.CommandContext(t.Context(), "node", "assemblyscript/doorbuster_test.mjs", module, "rules/vectors/tiered.tsv")
		if out, err := wrong.CombinedOutput(); err == nil {
			t.Errorf("no rule, and it passes:\n%s", out)
		}
	})
	t.Run("rust", func(t *testing.T) {
		t.Parallel()
		test := filepath.Join(t.TempDir(), "sdk_test")
		run(t, "rust", "rustc", "--edition=2021", "--test", "-Dwarnings", "sdk_test.rs", "-o", test)
		run(t, "rust", test)
	})
	t.Run("c", func(t *testing.T) {
		t.Parallel()
		test := filepath.Join(t.TempDir(), "sdk_test")
		run(t, "c", "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover", "-o", test, "sdk_test.c")
		run(t, "c", test, testdata, vectors)
	})
}

func run(t *testing.T, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command[0], err, out)
	}
}

func TestUnknownLanguage(t *testing.T) {
	if _, err := sdk.Project("cobol", "spring"); err == nil || !strings.Contains(err.Error(), "go") {
		t.Error(err)
	}
}
