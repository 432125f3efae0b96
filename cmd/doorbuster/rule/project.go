package rule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	if p.Rule == "" || p.Source == "" || p.Module == "" {
		return nil, failf(ExitUsage, "%s: rule, source and module are required", p.path(manifestFile))
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
	if err != nil || p.Configuration == "" {
		return wasm, err
	}
	configuration, err := readFile(p.path(p.Configuration), plugins.ConfigurationBytesMax)
	if err != nil {
		return nil, err
	}
	return plugins.Configure(wasm, configuration)
}

// warnStale says so if the source was written after the module: what runs is not
// what the author reads.
func (p *project) warnStale(out io.Writer) {
	if module := changed(p.path(p.Module)); !module.IsZero() && changed(p.path(p.Source)).After(module) {
		fmt.Fprintf(out, "%s is newer than %s: doorbuster rule build\n", p.path(p.Source), p.path(p.Module))
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
	info, err := os.Stat(path)
	if err != nil {
		return nil, coded(ExitUsage, err)
	}
	if info.Size() > limit {
		return nil, failf(ExitUsage, "%s has %d bytes, at most %d are allowed", path, info.Size(), limit)
	}
	text, err := os.ReadFile(path)
	return text, coded(ExitUsage, err)
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
