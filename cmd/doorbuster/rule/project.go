package rule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sample"
	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

// Files of a project.
const (
	manifestFile = "rule.json"
	vectorsFile  = "vectors.json"
	tableFile    = "vectors.tsv"
	sampleFile   = "sample.json"
)

// fileMax bounds what is read of a project, but for modules.
const fileMax = 64 << 20

// project is a folder with a rule.json.
type project struct {
	dir string

	Rule      string `json:"rule"`   // the id on the server
	Source    string `json:"source"` // what is compiled
	Module    string `json:"module"` // what it is compiled into
	FuelLimit uint64 `json:"fuel_limit"`

	Configuration string `json:"configuration"` // file whose bytes rule_init is told; "": none

	configuration string // file to take in the place of Configuration, as the command line names it
}

// load reads the project.
func (o *options) load() (*project, error) {
	p := &project{dir: o.dir}
	text, err := readFile(p.path(manifestFile), fileMax)
	if errors.Is(err, os.ErrNotExist) {
		return nil, failf(ExitUsage, "%s is no project, it has no %s: make one with `doorbuster rule new`, or name one with -C", o.dir, manifestFile)
	}
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, failf(ExitUsage, "%s: %w", p.path(manifestFile), err)
	}
	switch {
	case !errors.Is(d.Decode(new(json.RawMessage)), io.EOF):
		return nil, failf(ExitUsage, "%s: there is more behind the project", p.path(manifestFile))
	case p.Rule == "" || p.Source == "" || p.Module == "":
		return nil, failf(ExitUsage, "%s: rule, source and module are required", p.path(manifestFile))
	case !deal.ValidID(p.Rule):
		return nil, failf(ExitUsage, "%s: %q cannot name a rule: 1 to 64 of A-Z a-z 0-9 _ -", p.path(manifestFile), p.Rule)
	case p.path(p.Source) == p.path(p.Module):
		return nil, failf(ExitUsage, "%s: the module cannot be the source", p.path(manifestFile))
	}
	return p, nil
}

// path is where a file of the project is.
func (p *project) path(file string) string { return filepath.Join(p.dir, filepath.FromSlash(file)) }

// wasm reads the module, with the configuration in it.
func (p *project) wasm() ([]byte, error) {
	wasm, err := readFile(p.path(p.Module), abi.ModuleBytesMax)
	if errors.Is(err, os.ErrNotExist) {
		return nil, failf(ExitUsage, "there is no %s yet: doorbuster rule build", p.path(p.Module))
	}
	told := p.told()
	if err != nil || told == "" {
		return wasm, err
	}
	configuration, err := readFile(told, plugins.ConfigurationBytesMax)
	if err != nil {
		return nil, err
	}
	return plugins.Configure(wasm, configuration)
}

// told is the file whose bytes rule_init is told, "" if there is none.
func (p *project) told() string {
	if p.configuration != "" || p.Configuration == "" {
		return p.configuration
	}
	return p.path(p.Configuration)
}

// warnStale says so if a source was written after the module: what runs is not
// what the author reads.
func (p *project) warnStale(out io.Writer) {
	module := changed(p.path(p.Module))
	if module.IsZero() {
		return
	}
	for path, written := range p.sources() {
		if written.After(module) {
			fmt.Fprintf(out, "%s is newer than %s: doorbuster rule build\n", path, p.path(p.Module))
			return
		}
	}
}

// filesMax bounds the files and folders of a project that are looked at for sources.
const filesMax = 10_000

// sources yields the files that the module is compiled from, with the times at which
// they were written: the source, and of its folder and those below all files of its
// language, but for tests, hidden folders and what others' tools keep there.
func (p *project) sources() iter.Seq2[string, time.Time] {
	return func(yield func(string, time.Time) bool) {
		source := p.path(p.Source)
		if !yield(source, changed(source)) {
			return
		}
		left := filesMax
		_ = filepath.WalkDir(filepath.Dir(source), func(path string, entry fs.DirEntry, err error) error {
			left--
			if left < 0 {
				return filepath.SkipAll
			}
			if err != nil { // and there may be no entry
				return nil // the compiler will say what it cannot read
			}
			name := entry.Name()
			if entry.IsDir() {
				if path != filepath.Dir(source) && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "target") {
					return filepath.SkipDir
				}
				return nil
			}
			extension := filepath.Ext(name)
			same := extension == filepath.Ext(source) || extension == ".h" && filepath.Ext(source) == ".c"
			if !same || path == source || strings.Contains(name, "_test.") {
				return nil
			}
			if !yield(path, changed(path)) {
				return filepath.SkipAll
			}
			return nil
		})
	}
}

// vectors reads the cases; nil when the project has none.
func (p *project) vectors() (*rules.File, error) {
	text, err := readFile(p.path(vectorsFile), fileMax)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := rules.Decode(text)
	if err != nil {
		return nil, failf(ExitUsage, "%s: %w", p.path(vectorsFile), err)
	}
	return f, coded(ExitUsage, f.Encode())
}

// readSample reads a sample input. One without a time is an order of this moment.
func readSample(path string) (*abi.Input, error) {
	text, err := readFile(path, fileMax)
	if err != nil {
		return nil, err
	}
	return decodeSample(path, text)
}

// decodeSample is readSample of a text that was read from a place of that name.
func decodeSample(path string, text []byte) (*abi.Input, error) {
	o, err := sample.Decode(text)
	if err != nil {
		return nil, failf(ExitUsage, "%s: %w", path, err)
	}
	if o.Now == 0 {
		now, err := wallNow()
		if err != nil {
			return nil, err
		}
		o.Now = sample.Instant(now)
	}
	in, err := o.Input()
	if err != nil {
		return nil, failf(ExitUsage, "%s: %w", path, err)
	}
	return in, nil
}

// wallNow is the system's time, Unix ms.
func wallNow() (int64, error) {
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		return 0, err
	}
	defer clock.Close()
	return clock.Now().Wall, nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, coded(ExitUsage, err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	return readAll(path, file, limit)
}

// readAll reads at most limit bytes to the end. A pipe does not say how many it has.
func readAll(name string, in io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, coded(ExitUsage, err)
	}
	if int64(len(text)) > limit {
		return nil, failf(ExitUsage, "%s has too many bytes, at most %d are allowed", name, limit)
	}
	return text, nil
}

func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return coded(ExitUsage, err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return coded(ExitUsage, fmt.Errorf("writing %s: %w", path, err))
	}
	return nil
}
