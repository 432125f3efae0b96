package plugins

import (
	"context"
	"errors"
	"slices"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// Trial is one module without a registry: what its author runs before anybody
// uploads it. It is validated, rewritten and compiled as an upload is.
type Trial struct {
	engines *engines
	program *program
	fuel    uint64
}

// NewTrial makes a trial of a module. asked is the budget of an evaluation,
// 0: the default of its kind. A module that breaks the rule ABI is an *InvalidError with
// every fault.
func NewTrial(ctx context.Context, wasm []byte, asked uint64) (*Trial, error) {
	fuel, err := fuelLimit(asked, wasm)
	if err != nil {
		return nil, err
	}
	engines, err := newEngines(host.Config{Instances: 1})
	if err != nil {
		return nil, err
	}
	program, err := engines.compile(ctx, wasm)
	if err != nil {
		return nil, errors.Join(err, engines.Close())
	}
	return &Trial{engines: engines, program: program, fuel: fuel}, nil
}

// FuelLimit is the budget of an evaluation.
func (t *Trial) FuelLimit() uint64 { return t.fuel }

// Imports names the functions that the module imports, "module.name".
func (t *Trial) Imports() []string { return t.program.Imports() }

// Evaluate runs the module on one input. What went wrong is the Evaluation's
// Fault.
func (t *Trial) Evaluate(in *abi.Input) *Evaluation { return observe(t.program, in, t.fuel) }

// How Time measures: the median of so many batches of so many evaluations.
const (
	timeBatches = 21
	timeBatch   = 50
)

// Time returns how long one evaluation of an input takes, with its reset and
// without anybody who looks at it, in nanoseconds.
func (t *Trial) Time(in *abi.Input) int64 {
	var v abi.Verdict
	var batches [timeBatches]int64
	for i := range batches {
		start := clockd.Mono()
		for range timeBatch {
			t.program.Evaluate(in, t.fuel, &v, nil)
		}
		batches[i] = (clockd.Mono() - start) / timeBatch
	}
	slices.Sort(batches[:])
	return batches[timeBatches/2]
}

// Close frees the module.
func (t *Trial) Close() error { return errors.Join(t.program.Close(), t.engines.Close()) }
