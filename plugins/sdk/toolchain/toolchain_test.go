package toolchain_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/sdk/toolchain"
)

// write makes a source file and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBuild compiles the least that there is in each language that needs no
// project, and finds a module of one page of memory without a start section.
// (plugins/sdk builds whole projects, examples/rules runs what was built.)
func TestBuild(t *testing.T) {
	rust := "#![no_std]\n#[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n"
	for name, text := range map[string]string{
		"rule.c":   `__attribute__((export_name("f"))) int f(void) { return 1; }`,
		"rule.rs":  rust + "#[no_mangle]\npub extern \"C\" fn f() -> i32 { 1 }\n",
		"rule.wat": `(module (memory (export "memory") 1 1) (func (export "f") (result i32) (i32.const 1)))`,
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "rule.wasm")
			if err := toolchain.Build(t.Context(), write(t, name, text), out); err != nil {
				t.Fatal(err)
			}
			wasm, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			// The memory section: one memory, with a maximum, of 1 to 1 pages.
			if !bytes.HasPrefix(wasm, []byte("\x00asm\x01\x00\x00\x00")) || !bytes.Contains(wasm, []byte{5, 4, 1, 1, 1, 1}) {
				t.Fatalf("% x", wasm)
			}
			if info, err := os.Stat(out); err != nil || info.Mode().Perm()&0o111 != 0 {
				t.Errorf("%v %v", info.Mode(), err)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); err != nil || len(left) != 1 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// TestGoOutsideItsRepository: a rule in Go is built whatever repository it lies in, here one
// that git cannot read, and knows nothing of it.
func TestGoOutsideItsRepository(t *testing.T) {
	t.Setenv("GOENV", "off") // as nobody has set up anything
	source := write(t, "rule.go", "package main\n\nfunc main() {}\n")
	folder := filepath.Dir(source)
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte("module rule\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := toolchain.Build(t.Context(), source, filepath.Join(folder, "rule.wasm")); err != nil {
		t.Error(err)
	}
}

// TestCompilerErrors: what the compiler said is in the error.
func TestCompilerErrors(t *testing.T) {
	for name, want := range map[string]string{
		"rule.c":   "rule.c:1",
		"rule.rs":  "rule.rs:1",
		"rule.wat": "rule.wat:1",
	} {
		err := toolchain.Build(t.Context(), write(t, name, "nonsense"), filepath.Join(t.TempDir(), "rule.wasm"))
		if err == nil || errors.Is(err, toolchain.ErrMissing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMissingPrograms: a compiler that is there may need another program.
func TestMissingPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	script := write(t, "rule.ts", "")
	if err := os.MkdirAll(filepath.Join(filepath.Dir(script), "node_modules", ".bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(script), "node_modules", ".bin", "asc"), []byte("#!/usr/bin/env node\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	rust := "#![no_std]\n#[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n"
	for source, want := range map[string]string{script: "node (apt-get install nodejs)", write(t, "rule.rs", rust): "rust-lld (apt-get install"} {
		err := toolchain.Build(t.Context(), source, filepath.Join(t.TempDir(), "rule.wasm"))
		if !errors.Is(err, toolchain.ErrMissing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", filepath.Base(source), err)
		}
	}
}

// TestMissingCompilers: an author reads which program is missing, and how to get it.
// Rust is looked for at the system's own place too, and is left out for that.
func TestMissingCompilers(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for name, how := range map[string]string{
		"rule.c":   "apt-get install clang lld",
		"rule.go":  "go.dev/dl",
		"rule.ts":  "npm ci",
		"rule.wat": "apt-get install wabt",
	} {
		err := toolchain.Build(t.Context(), write(t, name, ""), filepath.Join(t.TempDir(), "rule.wasm"))
		if !errors.Is(err, toolchain.ErrMissing) || !strings.Contains(err.Error(), how) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoSource(t *testing.T) {
	if err := toolchain.Build(t.Context(), filepath.Join(t.TempDir(), "rule.c"), "rule.wasm"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := toolchain.Build(t.Context(), write(t, "rule.py", ""), "rule.wasm"); err == nil || !strings.Contains(err.Error(), ".wat") {
		t.Error(err)
	}
}
