// Package toolchain builds a rule's source into a module, with the compiler of
// its language. It holds every compiler's flags, and the reasons for them, in one
// place: the command line, the engine's own rules and the tests all build here.
//
// Every flag serves one of three ends: a module that the rule ABI accepts (a
// reactor: no start section, no import but the log), one page of memory (Go's
// runtime takes more), since each version's instances are resident, and a stack that
// traps when it overflows instead of running into the data. None turns warnings into errors: a project that
// builds today builds with the compilers of ten years on. Its native tests warn.
package toolchain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ErrMissing says that a compiler is not installed. The error that wraps it says
// which, and how to get it.
var ErrMissing = errors.New("a compiler is missing")

// ErrLanguage says that a source is in no language that rules are written in.
var ErrLanguage = errors.New("rules are written in .c, .go, .rs, .ts (AssemblyScript) and .wat")

// A rule's memory: one page of 64 KiB, the first 4 KiB of it stack. With
// --stack-first an overflow leaves the memory, and traps.
var linkFlags = []string{"--stack-first", "-z", "stack-size=4096", "--initial-memory=65536", "--max-memory=65536"}

// builders are the languages, by the extension of a source.
var builders = map[string]func(ctx context.Context, source, out string) error{
	".c":   buildC,
	".go":  buildGo,
	".rs":  buildRust,
	".ts":  buildAssemblyScript,
	".wat": buildWAT,
}

// Build compiles the rule in source into the module out. The error is
// ErrMissing, ErrLanguage, or has what the compiler said.
func Build(ctx context.Context, source, out string) error {
	build, ok := builders[filepath.Ext(source)]
	if !ok {
		return fmt.Errorf("%s: %w", source, ErrLanguage)
	}
	if _, err := os.Stat(source); err != nil {
		return err
	}
	if err := build(ctx, source, out); err != nil {
		return err
	}
	return os.Chmod(out, 0o644) // linkers make it executable
}

// buildC compiles one freestanding file. Debian's clang has no driver for linking
// WebAssembly without a C library, so that wasm-ld is called by itself.
func buildC(ctx context.Context, source, out string) error {
	clang, err := find("clang", "apt-get install clang lld")
	if err != nil {
		return err
	}
	lld, err := find("wasm-ld", "apt-get install clang lld")
	if err != nil {
		return err
	}
	object := out + ".o"
	defer func() { _ = os.Remove(object) }()
	if err := run(ctx, "", clang, "--target=wasm32", "-std=c11", "-O2",
		"-ffreestanding", "-nostdlib", "-c", source, "-o", object); err != nil {
		return err
	}
	return run(ctx, "", lld, slices.Concat(linkFlags, []string{"--no-entry", "--strip-all", object, "-o", out})...)
}

// buildRust compiles one file that is no_std on wasm32, and needs core alone.
func buildRust(ctx context.Context, source, out string) error {
	rustc, err := findRust(ctx)
	if err != nil {
		return err
	}
	args := []string{
		"--edition=2021", "--crate-type=cdylib", "--target=wasm32-unknown-unknown",
		"-Copt-level=3", "-Ccodegen-units=1", "-Clto=fat", "-Cpanic=abort", "-Cstrip=symbols",
	}
	for _, flag := range linkFlags {
		args = append(args, "-Clink-arg="+flag)
	}
	err = run(ctx, "", rustc, append(args, source, "-o", out)...)
	if err != nil && strings.Contains(err.Error(), "linker `rust-lld` not found") {
		return fmt.Errorf("%w: rust-lld (%s)", ErrMissing, howRust)
	}
	return err
}

const howRust = "apt-get install rustc libstd-rust-dev-wasm32 lld, or rustup target add wasm32-unknown-unknown"

// findRust finds a rustc that has the core library for wasm32: one that the user
// put into the path, or the system's own behind it.
func findRust(ctx context.Context) (string, error) {
	for _, rustc := range []string{"rustc", "/usr/bin/rustc"} {
		folder, err := exec.CommandContext(ctx, rustc, "--print=target-libdir", "--target=wasm32-unknown-unknown").Output()
		if err != nil {
			continue
		}
		if _, err := os.Stat(strings.TrimSpace(string(folder))); err == nil {
			return rustc, nil
		}
	}
	return "", fmt.Errorf("%w: no rustc here has the target wasm32-unknown-unknown (%s)", ErrMissing, howRust)
}

// buildAssemblyScript compiles one file. asc reads its flags from the asconfig.json
// beside the source, as it does for an author who calls it by hand.
func buildAssemblyScript(ctx context.Context, source, out string) error {
	asc, err := findAssemblyScript(filepath.Dir(source))
	if err != nil {
		return err
	}
	if _, err := find("node", "apt-get install nodejs"); err != nil { // which asc is a script for
		return err
	}
	out, err = filepath.Abs(out)
	if err != nil {
		return err
	}
	return run(ctx, filepath.Dir(source), asc, filepath.Base(source), "--outFile", out)
}

// findAssemblyScript finds the asc of the nearest node_modules, as npm does, or the
// one in the path.
func findAssemblyScript(folder string) (string, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	for {
		asc := filepath.Join(folder, "node_modules", ".bin", "asc")
		if _, err := os.Stat(asc); err == nil {
			return asc, nil
		}
		if folder == filepath.Dir(folder) {
			return find("asc", "npm ci, in the rule's folder")
		}
		folder = filepath.Dir(folder)
	}
}

func buildWAT(ctx context.Context, source, out string) error {
	wat2wasm, err := find("wat2wasm", "apt-get install wabt")
	if err != nil {
		return err
	}
	return run(ctx, "", wat2wasm, source, "-o", out)
}

func find(program, how string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: %s (%s)", ErrMissing, program, how)
	}
	return path, nil
}

// run runs a compiler, in a folder unless that is "".
func run(ctx context.Context, folder, program string, args ...string) error {
	command := exec.CommandContext(ctx, program, args...)
	command.Dir = folder
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, output)
	}
	return nil
}
