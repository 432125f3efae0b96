package rule

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// watchEvery is how often files are looked at.
const watchEvery = 250 * time.Millisecond

// stdin is what a file is called that a command reads from its standard input.
const stdin = "-"

func newRun(o *options) *cobra.Command {
	var input string
	var watch bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Price one sample order with the module",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := o.load()
			if err != nil {
				return err
			}
			if input == "" {
				input = p.path(sampleFile)
			}
			if watch && input == stdin {
				return failf(ExitUsage, "--watch looks at a file again and again: it does not go with --input -")
			}
			if watch {
				return o.watch(cmd, p, input)
			}
			return o.runOnce(cmd, p, input)
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "file with the sample order, - for standard input (default: the project's sample.json)")
	cmd.Flags().BoolVar(&watch, "watch", false, "build and run again whenever a source, the sample or the configuration changes")
	return cmd
}

// answer is what a rule answered, in the words of the API's evaluate call.
type answer struct {
	Outcome     string   `json:"outcome"`
	Discount    int64    `json:"discount"`
	Label       string   `json:"label"`
	Reason      string   `json:"reason"`
	Final       bool     `json:"final"`
	Fault       string   `json:"fault,omitempty"`
	FaultDetail string   `json:"fault_detail,omitempty"`
	Fuel        uint64   `json:"fuel"`
	Logs        []string `json:"logs"`
	LogsDropped int      `json:"logs_dropped,omitempty"`
	Nanoseconds int64    `json:"ns"`
}

func newAnswer(e *plugins.Evaluation) answer {
	a := answer{
		Outcome: e.Outcome.String(), Discount: e.Discount, Label: string(e.Label), Reason: string(e.Reason), Final: e.Final,
		FaultDetail: e.FaultDetail, Fuel: e.Fuel, Logs: []string{}, LogsDropped: e.LogsDropped, Nanoseconds: e.Nanoseconds,
	}
	for line := range strings.Lines(strings.ToValidUTF8(string(e.Logs), "\ufffd")) {
		a.Logs = append(a.Logs, strings.TrimSuffix(line, "\n"))
	}
	if e.Fault != abi.FaultNone {
		a.Outcome, a.Fault = "fault", e.Fault.String()
	}
	return a
}

// line is the answer in one line. What a module wrote is quoted: it may be
// anything.
func (a *answer) line() string {
	if a.Fault != "" {
		return fmt.Sprintf("fault %s: %s", a.Fault, a.FaultDetail)
	}
	text := a.Outcome
	if a.Outcome == "discount" {
		text += fmt.Sprintf(" %d", a.Discount)
	}
	if a.Label != "" {
		text += fmt.Sprintf(" label %q", a.Label)
	}
	if a.Reason != "" {
		text += fmt.Sprintf(" reason %q", a.Reason)
	}
	if a.Final {
		text += " final"
	}
	return text
}

func (a *answer) text(out io.Writer) {
	fmt.Fprintf(out, "%s\n", a.line())
	for _, line := range a.Logs {
		fmt.Fprintf(out, "log   %q\n", line)
	}
	if a.LogsDropped > 0 {
		fmt.Fprintf(out, "log   … and %d bytes more, beyond the limit\n", a.LogsDropped)
	}
	fmt.Fprintf(out, "fuel  %d\ntime  %d ns\n", a.Fuel, a.Nanoseconds)
}

func (o *options) runOnce(cmd *cobra.Command, p *project, input string) error {
	in, err := readInput(cmd, input)
	if err != nil {
		return err
	}
	p.warnStale(cmd.ErrOrStderr())
	e, err := p.evaluate(cmd.Context(), in)
	if err != nil {
		return err
	}
	a := newAnswer(e)
	if err := o.print(cmd, a, a.text); err != nil {
		return err
	}
	if e.Fault != abi.FaultNone {
		return failf(ExitDifference, "%s faulted", p.Rule)
	}
	return nil
}

// readInput reads the sample that --input names.
func readInput(cmd *cobra.Command, input string) (*abi.Input, error) {
	if input != stdin {
		return readSample(input)
	}
	text, err := readAll("standard input", cmd.InOrStdin(), fileMax)
	if err != nil {
		return nil, err
	}
	return decodeSample("standard input", text)
}

// evaluate runs the project's module once, and measures how long that takes.
func (p *project) evaluate(ctx context.Context, in *abi.Input) (*plugins.Evaluation, error) {
	wasm, err := p.wasm()
	if err != nil {
		return nil, err
	}
	return evaluate(ctx, wasm, p.FuelLimit, in)
}

func evaluate(ctx context.Context, wasm []byte, fuel uint64, in *abi.Input) (*plugins.Evaluation, error) {
	trial, err := plugins.NewTrial(ctx, wasm, fuel)
	if err != nil {
		return nil, coded(ExitDifference, err)
	}
	e := trial.Evaluate(in)
	e.Nanoseconds = trial.Time(in)
	return e, coded(ExitDifference, trial.Close())
}

// watch builds and runs until the context ends.
func (o *options) watch(cmd *cobra.Command, p *project, input string) error {
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		return err
	}
	clock.Start()
	defer clock.Close()
	var source map[string]time.Time
	var order [2]time.Time
	for {
		newSource, newOrder := maps.Collect(p.sources()), [2]time.Time{changed(input), changed(p.told())}
		rebuild := !maps.EqualFunc(newSource, source, time.Time.Equal)
		if rebuild || newOrder != order {
			source, order = newSource, newOrder
			if err := o.again(cmd, p, input, rebuild); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%v\n", err)
			}
		}
		if err := clock.Sleep(cmd.Context(), watchEvery); err != nil {
			return nil // the user has seen enough
		}
	}
}

func (o *options) again(cmd *cobra.Command, p *project, input string, rebuild bool) error {
	if rebuild {
		if _, err := p.build(cmd.Context()); err != nil {
			return err
		}
	}
	return o.runOnce(cmd, p, input)
}

// changed is when a file was written last, the zero time if it cannot be read.
func changed(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
