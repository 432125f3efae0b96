package doorbuster_test

import (
	"bufio"
	"bytes"
	"go/ast"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// stays are the functions of testdata/escape.txt, as package and name.
func stays(t *testing.T) (packages []string, functions map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("testdata/escape.txt")
	if err != nil {
		t.Fatal(err)
	}
	functions = make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		if path := "./" + fields[0]; !slices.Contains(packages, path) {
			packages = append(packages, path)
		}
		for _, name := range fields[1:] {
			functions[fields[0]+" "+name] = true
		}
	}
	return packages, functions
}

// span is where a function stands in its file.
type span struct {
	function    string // package and name
	first, last int    // lines
}

// spans finds the functions of the module by file.
func spans(t *testing.T) map[string][]span {
	t.Helper()
	found := make(map[string][]span)
	for _, f := range goFiles(t) {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && !f.test {
				found[f.path] = append(found[f.path], span{
					function: f.pkg + " " + receiver(fn) + fn.Name.Name,
					first:    f.fset.Position(fn.Pos()).Line,
					last:     f.fset.Position(fn.End()).Line,
				})
			}
		}
	}
	return found
}

// receiver is "T." for a method of T or *T, generic or not.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	at := fn.Recv.List[0].Type
	for {
		switch t := at.(type) {
		case *ast.StarExpr:
			at = t.X
		case *ast.IndexExpr:
			at = t.X
		case *ast.Ident:
			return t.Name + "."
		default:
			return "?."
		}
	}
}

// escape is what the compiler says of a variable that does not stay on the stack, or of
// a value that is made on the heap. Other values that escape are arguments of errors, and
// texts of panics.
var escape = regexp.MustCompile(`^(\S+\.go):(\d+):\d+: (moved to heap: .*|(?:&|new\(|make\(|func literal|\[\]|map\[).* escapes to heap)$`)

// failure is an error that is made.
const failure = "&errors.errorString{...} escapes to heap"

// TestOrderPathStaysOnTheStack reads the compiler's own report on the functions of
// testdata/escape.txt.
func TestOrderPathStaysOnTheStack(t *testing.T) {
	packages, functions := stays(t)
	known := spans(t)
	missing := make(map[string]bool)
	for function := range functions {
		missing[function] = true
	}
	for _, file := range known {
		for _, s := range file {
			delete(missing, s.function)
		}
	}
	for function := range missing {
		t.Errorf("testdata/escape.txt names %s, which is not there", function)
	}
	report, err := exec.CommandContext(t.Context(), "go", append([]string{"build", "-gcflags=-m"}, packages...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, report)
	}
	values := 0
	for lines := bufio.NewScanner(bytes.NewReader(report)); lines.Scan(); {
		match := escape.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		values++
		line, _ := strconv.Atoi(match[2])
		for _, s := range known[match[1]] {
			if s.first <= line && line <= s.last && functions[s.function] && match[3] != failure {
				t.Errorf("%s: %s", s.function, lines.Text())
			}
		}
	}
	if values == 0 {
		t.Errorf("the compiler reported no value at all:\n%s", report)
	}
}
