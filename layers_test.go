// Package doorbuster_test holds the rules of the house that no compiler checks.
//
// The tests parse files instead of calling `go list`: they see every build tag,
// and because they open what they judge, `go test` never serves a stale pass.
package doorbuster_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/doorbuster/doorbuster"

// layers says who may import whom, top down: a package imports only packages
// that stand further down. A package that is missing here fails the test.
var layers = []layer{
	{pkg: "cmd/doorbuster", imports: []string{"cmd/doorbuster/bench", "cmd/doorbuster/config", "cmd/doorbuster/rule", "cmd/progress", "gateway", "gateway/client", "actors", "plugins", "plugins/reprice", "plugins/host", "runtime/own", "runtime/journal", "runtime/journal/embedded", "runtime/journal/postgres", "runtime/journal/sharded", "runtime/guard", "runtime/admit", "runtime/cluster", "runtime/cluster/etcd", "runtime/cluster/k8s", "runtime/cluster/mtls", "runtime/webhook", "runtime/obs", "runtime/trace", "clockd", "actors/deal", "plugins/abi"}, tests: []string{"runtime/guard/redistest", "runtime/journal/journaltest", "runtime/journal/postgres/pgtest", "runtime/cluster/etcd/etcdtest", "runtime/journal/fusetest", "runtime/porttest"}},
	{pkg: "cmd/doorbuster/bench", imports: []string{"cmd/benchmark/lab", "cmd/benchmark/page", "cmd/progress", "gateway/client", "clockd"}},
	{pkg: "cmd/benchmark", imports: []string{"cmd/benchmark/lab", "cmd/benchmark/page", "gateway", "clockd"}, tests: []string{"cmd/benchmark/lab/labtest"}},
	{pkg: "cmd/doorbuster/rule", imports: []string{"cmd/doorbuster/config", "plugins", "plugins/sdk", "plugins/sdk/toolchain", "plugins/sdk/rules", "plugins/sample", "clockd", "actors/deal", "plugins/abi"}, tests: []string{"plugins/gas/gastest"}},
	{pkg: "cmd/doorbuster/config", imports: []string{"runtime/own"}},
	{pkg: "deploy"},
	{pkg: "examples/quickstart"},
	{pkg: "examples/rules", tests: []string{"plugins", "plugins/host", "plugins/abi", "plugins/sdk/rules", "plugins/sdk/toolchain", "runtime/journal/journaltest"}},
	{pkg: "examples/rules/go", imports: []string{"plugins/sdk/go"}, tests: []string{"plugins", "plugins/abi", "plugins/sdk/rules", "plugins/sdk/go/rulestest"}},
	{pkg: "examples/hostile", imports: []string{"plugins/host", "plugins/gas", "plugins/gas/gastest", "plugins/abi", "clockd"}, tests: []string{"cmd/benchmark/lab", "gateway/client"}},
	{pkg: "examples/incident", imports: []string{"cmd/benchmark/lab", "cmd/benchmark/page", "cmd/progress", "gateway/client", "runtime/own", "runtime/journal", "runtime/journal/embedded", "clockd"}},
	{pkg: "examples/cluster", imports: []string{"cmd/benchmark/lab", "cmd/benchmark/page", "cmd/progress", "gateway/client", "actors/deal", "runtime/journal", "runtime/journal/postgres", "runtime/journal/postgres/pgtest", "clockd"}, tests: []string{"runtime/journal/journaltest"}},
	{pkg: "cmd/benchmark/peers", imports: []string{"cmd/benchmark/lab", "cmd/benchmark/page", "runtime/guard/redistest", "runtime/journal", "runtime/journal/embedded", "clockd"}, tests: []string{"cmd/benchmark/lab/labtest"}},
	{pkg: "cmd/benchmark/overload", imports: []string{"cmd/benchmark/lab", "cmd/benchmark/page", "gateway", "gateway/client", "clockd"}},
	{pkg: "cmd/benchmark/soak", imports: []string{"cmd/benchmark/lab", "cmd/benchmark/page", "gateway/client", "clockd"}},
	{pkg: "cmd/benchmark/lab/labtest", imports: []string{"cmd/benchmark/lab"}},
	{pkg: "cmd/benchmark/lab", imports: []string{"gateway/client"}},
	{pkg: "cmd/benchmark/page"},
	{pkg: "cmd/progress", imports: []string{"clockd"}},
	{pkg: "gateway", imports: []string{"plugins/sample", "actors", "actors/deal", "plugins", "plugins/reprice", "plugins/abi", "runtime/own", "runtime/journal", "runtime/admit", "runtime/cluster", "runtime/webhook", "runtime/obs", "runtime/trace", "clockd", "runtime/yield"}, tests: []string{"plugins/gas/gastest", "runtime/journal/journaltest"}},
	{pkg: "gateway/client", imports: []string{"clockd"}, tests: []string{"runtime/porttest"}},
	{pkg: "actors/sim/plant"},
	{pkg: "actors/sim", tests: []string{"actors", "actors/deal", "plugins", "plugins/abi", "runtime/own", "runtime/journal", "runtime/journal/embedded", "runtime/journal/journaltest", "clockd"}},
	{pkg: "actors", imports: []string{"actors/deal", "plugins/abi", "runtime/own", "runtime/journal", "runtime/admit", "runtime/cluster", "clockd"}, tests: []string{"plugins", "runtime/guard", "runtime/guard/redistest", "runtime/journal/embedded", "runtime/journal/journaltest", "runtime/journal/sharded"}},
	{pkg: "plugins/reprice", imports: []string{"plugins", "actors/deal", "plugins/abi", "runtime/journal", "clockd"}, tests: []string{"plugins/gas/gastest", "runtime/journal/journaltest"}},
	{pkg: "plugins", imports: []string{"plugins/shopify", "plugins/host", "plugins/gas", "plugins/abi", "runtime/journal", "clockd", "runtime/yield"}, tests: []string{"plugins/sdk/toolchain", "plugins/gas/gastest", "runtime/journal/journaltest"}},
	{pkg: "plugins/sdk", imports: []string{"plugins/sdk/rules"}, tests: []string{"plugins/sdk/toolchain", "plugins/sample"}},
	{pkg: "plugins/sdk/toolchain"},
	{pkg: "plugins/sdk/go/rulestest", imports: []string{"plugins/sdk/go"}},
	{pkg: "plugins/sdk/go", tests: []string{"plugins/sdk/go/rulestest"}, pure: true},
	{pkg: "plugins/sdk/rules", imports: []string{"plugins/sample", "plugins/abi"}},
	{pkg: "plugins/sample", imports: []string{"plugins/abi"}},
	{pkg: "plugins/shopify", imports: []string{"plugins/host", "plugins/gas", "plugins/abi"}, tests: []string{"plugins/gas/gastest"}},
	{pkg: "plugins/host", imports: []string{"plugins/gas", "plugins/abi", "clockd", "runtime/yield"}, tests: []string{"plugins/gas/gastest"}},
	{pkg: "runtime/guard", imports: []string{"runtime/journal", "clockd"}, tests: []string{"runtime/guard/redistest"}},
	{pkg: "runtime/guard/redistest", imports: []string{"runtime/proctest", "clockd"}},
	{pkg: "runtime/journal/sharded", imports: []string{"runtime/journal"}, tests: []string{"runtime/journal/journaltest", "runtime/journal/postgres", "runtime/journal/postgres/pgtest", "clockd"}},
	{pkg: "runtime/journal/postgres/pgtest", imports: []string{"runtime/porttest", "runtime/proctest"}},
	{pkg: "runtime/journal/postgres", imports: []string{"runtime/journal", "clockd"}, tests: []string{"runtime/journal/journaltest", "runtime/journal/postgres/pgtest"}},
	{pkg: "runtime/cluster/etcd/etcdtest", imports: []string{"runtime/porttest", "runtime/proctest", "clockd"}},
	{pkg: "runtime/cluster/etcd", imports: []string{"runtime/cluster"}, tests: []string{"runtime/cluster/mtls", "runtime/cluster/clustertest", "runtime/cluster/registrytest", "runtime/cluster/etcd/etcdtest", "runtime/proctest", "clockd"}},
	{pkg: "runtime/cluster/k8s", imports: []string{"runtime/cluster", "clockd"}, tests: []string{"runtime/cluster/clustertest", "runtime/cluster/registrytest", "runtime/cluster/etcd/etcdtest", "runtime/porttest"}},
	{pkg: "runtime/cluster/registrytest", imports: []string{"runtime/cluster", "runtime/porttest", "clockd"}},
	{pkg: "runtime/cluster", imports: []string{"runtime/cluster/batch", "runtime/cluster/mtls", "clockd"}, tests: []string{"runtime/cluster/clustertest", "runtime/cluster/registrytest", "runtime/porttest"}},
	{pkg: "runtime/cluster/batch"},
	{pkg: "runtime/cluster/mtls", imports: []string{"clockd"}},
	{pkg: "runtime/cluster/clustertest"},
	{pkg: "runtime/webhook", imports: []string{"runtime/journal", "clockd"}, tests: []string{"runtime/journal/journaltest"}},
	{pkg: "runtime/journal/embedded", imports: []string{"runtime/journal", "clockd"}, tests: []string{"runtime/journal/journaltest"}},
	{pkg: "runtime/journal/fusetest"},
	{pkg: "runtime/journal/journaltest", imports: []string{"runtime/journal", "clockd"}},
	{pkg: "runtime/journal", imports: []string{"clockd"}, tests: []string{"runtime/journal/journaltest"}},
	{pkg: "runtime/admit", imports: []string{"clockd"}},
	{pkg: "runtime/trace", imports: []string{"clockd"}},
	{pkg: "runtime/obs", imports: []string{"runtime/own", "clockd"}},
	{pkg: "runtime/yield"},
	{pkg: "runtime/own", imports: []string{"clockd"}},
	{pkg: "runtime/porttest"},
	{pkg: "runtime/proctest"},
	{pkg: "actors/deal", imports: []string{"plugins/abi"}, pure: true},
	{pkg: "plugins/gas/gastest"},
	{pkg: "plugins/gas", tests: []string{"plugins/gas/gastest"}, pure: true},
	{pkg: "plugins/abi", pure: true},
	{pkg: "clockd"},
	{pkg: "."},
}

type layer struct {
	pkg     string
	imports []string // packages of this module
	tests   []string // more of them, for its tests alone
	pure    bool     // imports nothing that can reach a file, a clock or another goroutine
}

// owners says which packages may import a third-party module. "tests" stands
// for every test file and for the packages whose name ends in "test".
var owners = map[string][]string{
	"github.com/HdrHistogram/hdrhistogram-go":   {"cmd/doorbuster", "cmd/doorbuster/bench", "cmd/benchmark/overload", "cmd/benchmark/soak", "plugins/reprice"},
	"github.com/Shopify/toxiproxy/v2":           {"examples/cluster"},
	"github.com/anishathalye/porcupine":         {"tests", "examples/cluster"},
	"github.com/asynkron/protoactor-go/actor":   {"actors", "clockd", "runtime/cluster"},
	"github.com/asynkron/protoactor-go/cluster": {"runtime/cluster"},
	"github.com/asynkron/protoactor-go/remote":  {"runtime/cluster"},
	"github.com/cespare/xxhash/v2":              {"actors", "actors/deal", "plugins", "plugins/abi", "plugins/gas", "runtime/admit", "runtime/cluster", "runtime/journal/sharded"},
	"github.com/cockroachdb/datadriven":         {"tests"},
	"github.com/cockroachdb/pebble/v2":          {"runtime/journal/embedded", "actors/sim"},
	"github.com/getkin/kin-openapi":             {"tests"},
	"github.com/go-jose/go-jose/v4":             {"gateway"},
	"github.com/goccy/go-json":                  {"gateway", "cmd/benchmark/peers"},
	"github.com/jackc/pgx/v5":                   {"cmd/benchmark/peers", "runtime/journal/postgres"},
	"github.com/hanwen/go-fuse/v2":              {"tests"},
	"github.com/klauspost/compress":             {"runtime/journal/embedded"},
	"github.com/knadh/koanf":                    {"cmd/doorbuster/config"},
	"github.com/prometheus/client_golang":       {"runtime/obs"},
	"github.com/puzpuzpuz/xsync/v4":             {"actors", "runtime/journal/embedded", "runtime/journal/postgres"},
	"github.com/redis/rueidis":                  {"cmd/benchmark/peers", "runtime/guard"},
	"github.com/rogpeppe/go-internal":           {"tests"},
	"github.com/rs/zerolog":                     {"examples/cluster"},
	"github.com/schollz/progressbar/v3":         {"cmd/progress"},
	"github.com/spf13/cobra":                    {"cmd/doorbuster", "cmd/doorbuster/bench", "cmd/doorbuster/rule", "cmd/benchmark", "cmd/benchmark/lab", "cmd/benchmark/overload", "cmd/benchmark/peers", "cmd/benchmark/soak"},
	"github.com/spf13/pflag":                    {"cmd/doorbuster", "cmd/doorbuster/config"},
	"github.com/tetratelabs/wazero":             {"plugins/host", "plugins/shopify"},
	"github.com/valyala/fasthttp":               {"gateway", "gateway/client", "cmd/benchmark/peers"},
	"github.com/vektah/gqlparser/v2":            {"plugins/shopify"},
	"go.etcd.io/etcd":                           {"runtime/cluster/etcd"},
	"go.opentelemetry.io/otel":                  {"runtime/trace"},
	"go.uber.org/goleak":                        {"tests"},
	"go.uber.org/zap":                           {"runtime/cluster/etcd"},
	"go.yaml.in/yaml/v3":                        {"tests", "cmd/doorbuster/config"},
	"golang.org/x/sys":                          {"runtime/journal/embedded", "runtime/journal/postgres", "cmd/doorbuster", "gateway", "plugins/host", "examples/cluster", "cmd/benchmark/overload"},
	"golang.org/x/term":                         {"cmd/progress"},
	"google.golang.org/grpc":                    {"runtime/cluster", "runtime/cluster/mtls", "runtime/cluster/etcd"},
	"google.golang.org/protobuf":                {"runtime/cluster", "runtime/cluster/batch"},
	"pgregory.net/rapid":                        {"tests"},
}

// pureImports is what a pure package may take from the standard library.
// hash/maphash is seeded anew in each process: it may spread keys over a table,
// and no order or outcome may depend on it. embed reads what is in the binary.
var pureImports = []string{
	"bytes", "cmp", "container/heap", "crypto/sha256", "embed", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "hash/crc32",
	"hash/maphash", "iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "unicode/utf8", "unsafe",
}

func TestLayers(t *testing.T) {
	table := make(map[string]layer, len(layers))
	seen := make(map[string]bool, len(layers))
	for i, l := range layers {
		table[l.pkg] = l
		for _, imported := range l.imports {
			below := slices.ContainsFunc(layers[i+1:], func(l layer) bool { return l.pkg == imported })
			if !below {
				t.Errorf("the table lets %s import %s, which does not stand below it", l.pkg, imported)
			}
		}
	}
	for _, f := range goFiles(t) {
		l, ok := table[f.pkg]
		if !ok {
			t.Errorf("%s: package %q is missing from the table of layers", f.path, f.pkg)
			continue
		}
		seen[f.pkg] = true
		for _, spec := range f.ast.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if why := forbidden(l, f, imported); why != "" {
				t.Errorf("%s imports %s: %s", f.path, imported, why)
			}
		}
	}
	for pkg := range table {
		if !seen[pkg] {
			t.Errorf("package %q is in the table of layers and not in the tree", pkg)
		}
	}
}

// forbidden says why a file may not have an import, or "".
func forbidden(l layer, f goFile, imported string) string {
	if rest, ours := strings.CutPrefix(imported, module+"/"); ours {
		if rest == l.pkg || slices.Contains(l.imports, rest) || f.test && slices.Contains(l.tests, rest) {
			return ""
		}
		return "the table of layers does not allow it"
	}
	if host, _, _ := strings.Cut(imported, "/"); !strings.Contains(host, ".") {
		if l.pure && !f.test && !slices.Contains(pureImports, imported) {
			return "the package is pure"
		}
		return ""
	}
	for _, mod := range slices.Sorted(maps.Keys(owners)) {
		if imported != mod && !strings.HasPrefix(imported, mod+"/") {
			continue
		}
		owned := slices.Contains(owners[mod], l.pkg)
		tests := slices.Contains(owners[mod], "tests") && (f.test || strings.HasSuffix(l.pkg, "test"))
		if owned || tests {
			return ""
		}
		return "it belongs to " + strings.Join(owners[mod], ", ")
	}
	return "nobody owns it: name its owner in the table"
}

// timeReaders are the functions of package time that know what time it is.
var timeReaders = []string{"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"}

func TestOnlyClockdReadsTime(t *testing.T) {
	for _, f := range goFiles(t) {
		// The incident's chapter on time shows what reading it everywhere costs.
		if f.test || f.pkg == "clockd" || f.path == "examples/incident/clock.go" {
			continue
		}
		name := importedAs(f.ast, "time")
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == name && slices.Contains(timeReaders, sel.Sel.Name) {
				t.Errorf("%s: time.%s outside clockd", f.fset.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}

func TestNoLeftovers(t *testing.T) {
	leftover := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|HA` + `CK)\b`)
	read := []string{".go", ".md", ".yml", ".yaml", ".c", ".wat", ".txt", ".lua", ".sh"}
	walk(t, func(file string) {
		if !slices.Contains(read, path.Ext(file)) {
			return
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if leftover.MatchString(line) {
				t.Errorf("%s:%d: %s", file, i+1, strings.TrimSpace(line))
			}
		}
	})
}

type goFile struct {
	path string
	pkg  string // the folder, slash-separated, relative to the module
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// goFiles parses all Go files of the module.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	fset := token.NewFileSet()
	walk(t, func(file string) {
		if path.Ext(file) != ".go" {
			return
		}
		parsed, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, goFile{
			path: file, pkg: path.Dir(file), test: strings.HasSuffix(file, "_test.go"), ast: parsed, fset: fset,
		})
	})
	if len(files) == 0 {
		t.Fatal("found no Go file")
	}
	return files
}

// walk calls fn for every file of the tree, but not for those that Git, tools
// and fuzzing keep there, and not for other modules.
func walk(t *testing.T, fn func(file string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			fn(filepath.ToSlash(file))
			return nil
		}
		name := entry.Name()
		if file != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "data") {
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && file != "." {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// importedAs is the name by which a file knows an import, "" if it does not.
func importedAs(f *ast.File, imported string) string {
	for _, spec := range f.Imports {
		if spec.Path.Value != strconv.Quote(imported) {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(imported)
	}
	return ""
}
