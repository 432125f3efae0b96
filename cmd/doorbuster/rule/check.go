package rule

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

func newCheck(o *options) *cobra.Command {
	var update bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the module as the server does, and run its vectors and sample",
		Long: `Validate the module as the server does, and run its vectors and sample in the engine.

Each case of vectors.json must get the answer that it states. vectors.tsv, which
native tests read where JSON is out of reach, must say the same: --update copies the
cases there. What a case states changes only where you change vectors.json.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.check(cmd, update) },
	}
	cmd.Flags().BoolVar(&update, "update", false, "copy the cases of vectors.json to vectors.tsv; changes no case")
	return cmd
}

// checked is the result of check.
type checked struct {
	Rule      string       `json:"rule"`
	Module    string       `json:"module"`
	Size      int          `json:"size"` // bytes
	SHA256    string       `json:"sha256"`
	Imports   []string     `json:"imports"`
	FuelLimit uint64       `json:"fuel_limit"`
	FuelMost  uint64       `json:"fuel_most"` // of the vectors and the sample
	Cases     int          `json:"cases"`
	Faults    []fault      `json:"faults"`   // of the module
	Failures  []difference `json:"failures"` // of cases
	OK        bool         `json:"ok"`
}

// fault is one thing that is wrong with a module.
type fault struct {
	Section string `json:"section"`
	Offset  int    `json:"offset"`
	Reason  string `json:"reason"`
}

// difference is one case that did not go as it must.
type difference struct {
	Case string        `json:"case"`
	Got  answer        `json:"got"`
	Want *rules.Expect `json:"want,omitempty"` // absent: any answer would do, but no fault
}

func (o *options) check(cmd *cobra.Command, update bool) error {
	p, err := o.load()
	if err != nil {
		return err
	}
	p.warnStale(cmd.ErrOrStderr())
	result, err := p.check(cmd.Context())
	if err == nil {
		err = p.checkTable(update)
	}
	if err != nil {
		return err
	}
	if err := o.print(cmd, result, result.text); err != nil {
		return err
	}
	if !result.OK {
		return result.failure("does not pass")
	}
	return nil
}

// failure says what became of a rule because it does not pass.
func (c *checked) failure(became string) error {
	return failf(ExitDifference, "%s %s: %d faults of the module, %d failures in %d cases", c.Rule, became, len(c.Faults), len(c.Failures), c.Cases)
}

func (p *project) check(ctx context.Context) (*checked, error) {
	wasm, err := p.wasm()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(wasm)
	c := &checked{
		Rule: p.Rule, Module: p.path(p.Module), Size: len(wasm), SHA256: hex.EncodeToString(sum[:]), FuelLimit: p.FuelLimit,
		Imports: []string{}, Faults: []fault{}, Failures: []difference{},
	}
	trial, err := plugins.NewTrial(ctx, wasm, p.FuelLimit)
	if invalid := new(plugins.InvalidError); errors.As(err, &invalid) {
		for _, f := range invalid.Faults {
			c.Faults = append(c.Faults, fault{f.Section, f.Offset, f.Reason})
		}
		return c, nil
	}
	if err != nil {
		return nil, coded(ExitUsage, err)
	}
	c.FuelLimit = trial.FuelLimit()
	for _, name := range trial.Imports() {
		if !slices.Contains(c.Imports, name) { // Go's runtime and the kit both import proc_exit
			c.Imports = append(c.Imports, name)
		}
	}
	err = c.run(p, trial)
	c.OK = len(c.Failures) == 0
	return c, errors.Join(err, trial.Close())
}

// run evaluates the vectors and the sample.
func (c *checked) run(p *project, trial *plugins.Trial) error {
	vectors, err := p.vectors()
	if err != nil {
		return err
	}
	if vectors != nil {
		for i := range vectors.Cases {
			v := &vectors.Cases[i]
			in, err := v.Order()
			if err != nil {
				return coded(ExitUsage, err)
			}
			c.one(trial, v.Name, in, &v.Expect)
		}
	}
	in, err := readSample(p.path(sampleFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c.one(trial, sampleFile, in, nil)
	return nil
}

func (c *checked) one(trial *plugins.Trial, name string, in *abi.Input, want *rules.Expect) {
	e := trial.Evaluate(in)
	c.Cases++
	c.FuelMost = max(c.FuelMost, e.Fuel)
	if e.Fault != abi.FaultNone || want != nil && rules.Answer(&e.Output) != *want {
		c.Failures = append(c.Failures, difference{Case: name, Got: newAnswer(e), Want: want})
	}
}

func (c *checked) text(out io.Writer) {
	fmt.Fprintf(out, "module   %s, %d bytes, sha256 %s\n", c.Module, c.Size, c.SHA256)
	if len(c.Faults) > 0 {
		fmt.Fprintf(out, "verdict  refused\n")
		for _, f := range c.Faults {
			fmt.Fprintf(out, "  %s section, offset %d: %s\n", f.Section, f.Offset, f.Reason)
		}
		return
	}
	fmt.Fprintf(out, "verdict  valid\nimports  %s\n", importsText(c.Imports))
	fmt.Fprintf(out, "fuel     at most %d of %d\n", c.FuelMost, c.FuelLimit)
	fmt.Fprintf(out, "cases    %d, of which %d failed\n", c.Cases, len(c.Failures))
	for _, f := range c.Failures {
		fmt.Fprintf(out, "  %s\n    got   %s\n", f.Case, f.Got.line())
		if f.Want != nil {
			want := answer{Outcome: f.Want.Outcome, Discount: f.Want.Discount, Label: f.Want.Label, Reason: f.Want.Reason, Final: f.Want.Final}
			fmt.Fprintf(out, "    want  %s\n", want.line())
		}
	}
}

// importsText lists imports, and says only once what module they are from.
func importsText(imports []string) string {
	if len(imports) == 0 {
		return "none"
	}
	var text strings.Builder
	last := ""
	for _, name := range imports {
		module, function, _ := strings.Cut(name, ".")
		switch {
		case module == last:
			text.WriteString(", ")
		case last != "":
			text.WriteString("; ")
			fallthrough
		default:
			text.WriteString(module + ": ")
		}
		text.WriteString(function)
		last = module
	}
	return text.String()
}

// checkTable compares vectors.tsv with vectors.json, or writes it.
func (p *project) checkTable(update bool) error {
	vectors, err := p.vectors()
	if err != nil || vectors == nil {
		return err
	}
	table, err := vectors.Table()
	if err != nil {
		return coded(ExitUsage, err)
	}
	if update {
		return writeFile(p.path(tableFile), table)
	}
	there, err := readFile(p.path(tableFile), fileMax)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && !bytes.Equal(there, table) {
		err = failf(ExitDifference, "%s is not what %s says: doorbuster rule check --update copies the cases there", p.path(tableFile), vectorsFile)
	}
	return err
}
