package doorbuster_test

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// pages are the Markdown pages, by their paths.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	walk(t, func(file string) {
		if path.Ext(file) != ".md" || strings.Contains(file, "/node_modules/") {
			return
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	})
	if texts["README.md"] == "" || texts["docs/rules.md"] == "" {
		t.Fatal("found no pages")
	}
	return texts
}

var (
	linkText = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	fence    = regexp.MustCompile("(?ms)^```.*?^```")
	codeText = regexp.MustCompile("`[^`\n]*`")
)

// TestLinks: what a page links to is there, down to the heading.
func TestLinks(t *testing.T) {
	texts := pages(t)
	links := 0
	for file, text := range texts {
		text = codeText.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, match := range linkText.FindAllStringSubmatch(text, -1) {
			target, heading, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			to := file
			if target != "" {
				to = path.Join(path.Dir(file), target)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", file, match[1], err)
			} else if heading != "" && !slices.Contains(anchors(texts[to]), heading) {
				t.Errorf("%s links to %s, and no heading of %s is that", file, match[1], to)
			}
		}
	}
	if links < 20 {
		t.Errorf("found %d links", links)
	}
}

// anchors are the names by which a page's headings are linked to.
func anchors(text string) (names []string) {
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(strings.TrimLeft(line, "#")))
		names = append(names, name)
	}
	return names
}

var taskText = regexp.MustCompile(`go tool task ([a-z][a-z:]*)`)

// TestTasks: a task that is named anywhere, in a page, in the code or by another task,
// is there.
func TestTasks(t *testing.T) {
	var file struct{ Tasks map[string]any }
	text, err := os.ReadFile("Taskfile.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	named := 0
	walk(t, func(name string) {
		if !slices.Contains([]string{".md", ".go", ".yml", ".yaml"}, path.Ext(name)) || strings.Contains(name, "/node_modules/") {
			return
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range taskText.FindAllStringSubmatch(string(text), -1) {
			named++
			if task := strings.TrimRight(match[1], ":"); file.Tasks[task] == nil {
				t.Errorf("%s names the task %q", name, task)
			}
		}
	})
	if named < 20 {
		t.Errorf("found %d names of tasks", named)
	}
}

var (
	chosenTests = regexp.MustCompile(`-(?:run|skip|bench|fuzz) '?\^?\(?((?:Test|Benchmark|Fuzz)[\w|]*)\)?`)
	rerunTests  = regexp.MustCompile(`Test@\(([\w|]+)\)`)
	testName    = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
)

// TestTasksChooseTests: a test that a task runs, skips or does not forgive is there. go
// test is content with a pattern that fits no test.
func TestTasksChooseTests(t *testing.T) {
	var tests []string
	walk(t, func(name string) {
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range testName.FindAllStringSubmatch(string(text), -1) {
			tests = append(tests, match[1])
		}
	})
	chosen := 0
	for file, form := range map[string]*regexp.Regexp{"Taskfile.yml": chosenTests, ".ci/go-test": rerunTests} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range form.FindAllStringSubmatch(string(text), -1) {
			for name := range strings.SplitSeq(match[1], "|") {
				if form == rerunTests {
					name = "Test" + name
				}
				chosen++
				if !slices.ContainsFunc(tests, func(test string) bool { return strings.HasPrefix(test, name) }) {
					t.Errorf("%s chooses %s, and no test is called so", file, name)
				}
			}
		}
	}
	if chosen < 20 {
		t.Errorf("found %d names of tests", chosen)
	}
}
