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
	var kit []string
	for _, pattern := range []string{"go/*.go", "go/*/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		kit = append(kit, found...)
	}
	kit = slices.DeleteFunc(kit, func(file string) bool { return strings.HasSuffix(file, "_test.go") })
	project, err := sdk.Project("go", "spring")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range kit {
		if project["doorbuster/"+strings.TrimPrefix(filepath.ToSlash(file), "go/")] == nil {
			t.Errorf("%s is not copied", file)
		}
	}
}

// TestGoProject runs a new project's own tests, offline.
func TestGoProject(t *testing.T) {
	project, err := sdk.Project("go", "spring-sale_1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, source := range project {
		path := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, source, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestUnknownLanguage(t *testing.T) {
	if _, err := sdk.Project("cobol", "spring"); err == nil || !strings.Contains(err.Error(), "go") {
		t.Error(err)
	}
}
