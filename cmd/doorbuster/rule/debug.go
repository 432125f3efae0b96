package rule

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

// A recorded order is debugged natively, in the project's own test: that reads its cases
// from the folder that it runs in, and here this is a folder whose only case is the
// order. So each language's own debugger stops in the rule, at its source.

// debugger is how a language's test is built and run in its debugger. The commands have
// the project's folder for $project and the one with the case for $scratch.
type debugger struct {
	build []string // in the project's folder; nil: the debugger builds
	run   []string
	in    string            // the folder to run in: the case's, or the project's where the debugger builds
	how   map[string]string // programs, and how to get them
}

var debuggers = map[string]debugger{
	".go": {
		run: []string{"dlv", "test", "--wd", "$scratch", "--init", "$scratch/dlv.init", "--allow-non-terminal-interactive=true", "--", "-test.run", "^TestVectors$"},
		in:  "$project",
		how: map[string]string{"dlv": "go install github.com/go-delve/delve/cmd/dlv@latest"},
	},
	".c": {
		build: []string{"cc", "-std=c11", "-g", "-O0", "-o", "$scratch/rule_test", "rule_test.c"},
		run:   []string{"gdb", "-q", "-ex", "break evaluate", "-ex", "run", "./rule_test"},
		in:    "$scratch",
		how:   map[string]string{"cc": "apt-get install gcc libc6-dev", "gdb": "apt-get install gdb"},
	},
	".rs": {
		build: []string{"rustc", "--edition=2021", "--test", "-g", "--crate-name=rule", "-o", "$scratch/rule_test", "rule.rs"},
		run:   []string{"rust-gdb", "-q", "-ex", "break rule::evaluate", "-ex", "run", "--args", "./rule_test", "vectors", "--test-threads=1"},
		in:    "$scratch",
		how:   map[string]string{"rustc": "apt-get install rustc", "rust-gdb": "apt-get install rust-gdb"},
	},
	".ts": {
		build: []string{"npx", "--no-install", "asc", "rule_test.ts", "--target", "test", "--sourceMap", "--outFile", "$scratch/rule_test.wasm"},
		run:   []string{"node", "--inspect-brk", "$project/doorbuster/doorbuster_test.mjs", "rule_test.wasm", "vectors.tsv"},
		in:    "$scratch",
		how:   map[string]string{"npx": "apt-get install npm, and npm ci in the project", "node": "apt-get install nodejs"},
	},
}

// dlvInit stops where the rule begins. The kit has functions of other names.
const dlvInit = "break /\\.evaluate$/\ncontinue\n"

// debug runs the project's native test on one recorded order, in its language's debugger,
// until the user leaves that.
func (p *project) debug(ctx context.Context, name string, input json.RawMessage, recorded *answer, in io.Reader, out io.Writer) (err error) {
	d, ok := debuggers[filepath.Ext(p.Source)]
	if !ok {
		return failf(ExitUsage, "%s: there is a debugger for rules in .c, .go, .rs and .ts", p.Source)
	}
	for program, how := range d.how {
		if _, err := exec.LookPath(program); err != nil {
			return failf(ExitNoCompiler, "a debugger is missing: %s (%s)", program, how)
		}
	}
	project, err := filepath.Abs(p.dir)
	if err != nil {
		return coded(ExitUsage, err)
	}
	scratch, err := os.MkdirTemp("", "doorbuster-debug-")
	if err != nil {
		return coded(ExitUsage, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if err := writeCase(scratch, name, input, recorded); err != nil {
		return err
	}
	expand := func(word string) string {
		return os.Expand(word, func(name string) string {
			return map[string]string{"project": project, "scratch": scratch}[name]
		})
	}
	start := func(dir string, words []string, in io.Reader) error {
		args := make([]string, len(words))
		for i, word := range words {
			args[i] = expand(word)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, in, out, out
		return cmd.Run()
	}
	if d.build != nil {
		if err := start(project, d.build, nil); err != nil {
			return failf(ExitDifference, "building the test: %w", err)
		}
	}
	// How the test ends under a debugger is the user's affair.
	if err := start(expand(d.in), d.run, in); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return coded(ExitDifference, err)
	}
	return nil
}

// writeCase makes a folder of one case, in all the forms that native tests read.
func writeCase(dir, name string, input json.RawMessage, recorded *answer) error {
	c := rules.Case{Name: name, Input: input, Expect: rules.Expect{
		Outcome: recorded.Outcome, Discount: recorded.Discount, Label: recorded.Label, Reason: recorded.Reason, Final: recorded.Final,
	}}
	if recorded.Fault != "" {
		c.Expect = rules.Expect{Outcome: "none"} // no native test faults
	}
	f := rules.File{Rule: name, Cases: []rules.Case{c}}
	if err := f.Encode(); err != nil {
		return coded(ExitRefused, err)
	}
	document, err := f.JSON()
	if err != nil {
		return coded(ExitRefused, err)
	}
	table, err := f.Table()
	if err != nil {
		return coded(ExitRefused, err)
	}
	return errors.Join(
		writeFile(filepath.Join(dir, vectorsFile), document),
		writeFile(filepath.Join(dir, tableFile), table),
		writeFile(filepath.Join(dir, sampleFile), input),
		writeFile(filepath.Join(dir, "dlv.init"), []byte(dlvInit)),
	)
}
