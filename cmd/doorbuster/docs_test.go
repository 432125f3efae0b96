package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var (
	fenced     = regexp.MustCompile("(?ms)^```[^\n]*\n(.*?)^```")
	codeSpan   = regexp.MustCompile("`([^`]+)`")
	endOfWords = regexp.MustCompile(`\s(\||\|\||&&|&|#|>|2>|\\$)(\s|$)|[;)]|\s--\s`)
	doorbuster = regexp.MustCompile(`(?:^|[\s(]|bin/|cmd/)doorbuster((?: -| [a-z][a-z-]*(?: |$)).*)$`)
	goRun      = regexp.MustCompile(`\bgo (?:run|test|install|build) .*`)
	packages   = regexp.MustCompile(`\s(\./[^\s'"]*)`)
	runFlag    = regexp.MustCompile(`\s-run '?([^\s']+)`)
	testFunc   = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// documented calls fn with every line of code of every Markdown page of the module, and
// makes the module's folder the current one.
func documented(t *testing.T, fn func(page, line string)) {
	t.Helper()
	t.Chdir("../..")
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && file != "." && (strings.HasPrefix(name, ".") || slices.Contains([]string{"node_modules", "testdata", "bin", "data"}, name)):
			return fs.SkipDir
		case filepath.Ext(name) != ".md":
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, block := range fenced.FindAllSubmatch(text, -1) {
			for line := range strings.Lines(strings.ReplaceAll(string(block[1]), "\\\n", " ")) {
				fn(file, strings.TrimSpace(line))
			}
		}
		for _, span := range codeSpan.FindAllSubmatch(fenced.ReplaceAll(text, nil), -1) {
			fn(file, strings.Join(strings.Fields(string(span[1])), " "))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDocumentedCommands: every command of doorbuster that a page names is there, and has
// the flags that it is given.
func TestDocumentedCommands(t *testing.T) {
	found := 0
	documented(t, func(page, line string) {
		for part := range strings.SplitSeq(line, "&&") {
			if at := endOfWords.FindStringIndex(part); at != nil {
				part = part[:at[0]]
			}
			match := doorbuster.FindStringSubmatch(part)
			if match == nil {
				continue
			}
			found++
			if err := known(strings.Fields(match[1])); err != nil {
				t.Errorf("%s: %s: %v", page, line, err)
			}
		}
	})
	if found < 40 {
		t.Errorf("found %d commands", found)
	}
	for _, wrong := range []string{"serv", "rule chekc", "serve --dta x", "rule run --input=x --rule y", "keys create -x"} {
		if known(strings.Fields(wrong)) == nil {
			t.Errorf("there is a %q", wrong)
		}
	}
}

// known says what newRoot does not know of a command line.
func known(words []string) error {
	cmd, rest, err := newRoot().Find(words)
	if err != nil {
		return err
	}
	if cmd.HasSubCommands() && len(rest) > 0 && regexp.MustCompile(`^[a-z]`).MatchString(rest[0]) {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), rest[0])
	}
	cmd.InheritedFlags() // makes them the command's own
	for _, word := range rest {
		var flag *pflag.Flag
		name, _, _ := strings.Cut(word, "=")
		switch {
		case name == "--help" || name == "--" || !strings.HasPrefix(name, "-") || len(name) == 1:
			continue
		case strings.HasPrefix(name, "--"):
			flag = cmd.Flag(name[2:])
		default:
			flag = cmd.Flags().ShorthandLookup(name[1:])
		}
		if flag == nil {
			return fmt.Errorf("%s has no flag %s", cmd.CommandPath(), name)
		}
	}
	return nil
}

// TestDocumentedPackages: the packages that a page runs or tests are there, and -run finds
// a test in one of them.
func TestDocumentedPackages(t *testing.T) {
	found := 0
	documented(t, func(page, line string) {
		command := goRun.FindString(line)
		if command == "" || strings.Contains(page, "plugins/sdk") || page == "docs/rules.md" { // of a merchant's project
			return
		}
		found++
		if err := runs(command); err != nil {
			t.Errorf("%s: %s: %v", page, line, err)
		}
	})
	if found < 20 {
		t.Errorf("found %d commands", found)
	}
	for _, wrong := range []string{"go test ./nope", "go run ./cmd/nope", "go test -run TestNope ./gateway"} {
		if runs(wrong) == nil {
			t.Errorf("%s would work", wrong)
		}
	}
}

func runs(command string) error {
	named := packages.FindAllStringSubmatch(command, -1)
	if strings.HasPrefix(command, "go run") && len(named) > 1 {
		named = named[:1] // the rest is for the program
	}
	for _, dir := range named {
		if _, err := os.Stat(strings.TrimSuffix(dir[1], "...")); err != nil {
			return err
		}
	}
	pattern := runFlag.FindStringSubmatch(command)
	if pattern == nil || slices.Contains([]string{"-", "^$", "xxx"}, pattern[1]) { // benchmarks alone
		return nil
	}
	top, _, _ := strings.Cut(pattern[1], "/")
	wanted, err := regexp.Compile(top)
	if err != nil {
		return err
	}
	if named == nil {
		named = [][]string{{"", "."}}
	}
	for _, dir := range named {
		files, err := filepath.Glob(filepath.Join(dir[1], "*_test.go"))
		if err != nil {
			return err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for _, test := range testFunc.FindAllSubmatch(text, -1) {
				if wanted.Match(test[1]) {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("no test fits %q", top)
}
