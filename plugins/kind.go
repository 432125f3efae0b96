package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/plugins/shopify"
)

// Bundle is what a module is uploaded with: of a Shopify function any part, of a rule
// the merchant's configuration. It becomes part of the module, and so of its digest.
type Bundle = shopify.Bundle

// configurationSection is the custom section that holds a rule's configuration.
const configurationSection = "doorbuster:rule_configuration"

// ConfigurationBytesMax bounds a rule's configuration: it is given to the rule in the
// buffer of its inputs.
const ConfigurationBytesMax = abi.InputBytesMax

// Configure returns a rule's module with the merchant's configuration in it, in place of
// the one that it has. It is what rule_init is told.
func Configure(wasm, configuration []byte) ([]byte, error) {
	if len(configuration) > ConfigurationBytesMax {
		return nil, refused("the configuration has %d bytes, at most %d", len(configuration), ConfigurationBytesMax)
	}
	return gas.AppendCustom(slices.Clip(wasm), configurationSection, configuration), nil
}

// wrap returns a module with what it is uploaded with.
func wrap(wasm []byte, b *Bundle) ([]byte, error) {
	if function := b.Wrap(wasm); shopify.Detect(function) {
		return function, nil
	}
	if len(b.Provider) > 0 || b.Query != "" || b.Export != "" || len(b.Classes) > 0 {
		return nil, refused("a provider, an input query, an export and discount classes are of Shopify functions, a rule has a configuration")
	}
	if len(b.Configuration) == 0 {
		return wasm, nil
	}
	return Configure(wasm, b.Configuration)
}

func refused(format string, args ...any) error {
	return &InvalidError{Faults: []gas.Fault{{Section: "bundle", Reason: fmt.Sprintf(format, args...)}}}
}

// engines compile the modules that can be a rule's version: those of the rule ABI,
// and Shopify's discount functions.
type engines struct {
	rules     *host.Engine
	functions *shopify.Engine
}

func newEngines(config host.Config) (*engines, error) {
	rules, err := host.New(config)
	if err != nil {
		return nil, err
	}
	functions, err := shopify.New(rules)
	if err != nil {
		return nil, errors.Join(err, rules.Close())
	}
	return &engines{rules, functions}, nil
}

// Close frees the engines and their programs. No evaluation may be running.
func (e *engines) Close() error { return e.rules.Close() }

func (e *engines) compile(ctx context.Context, wasm []byte) (*program, error) {
	if shopify.Detect(wasm) {
		function, err := e.functions.Compile(ctx, wasm)
		if err != nil {
			return nil, err
		}
		return &program{function: function}, nil
	}
	configuration := gas.Read(wasm).Custom[configurationSection]
	if len(configuration) > ConfigurationBytesMax {
		return nil, refused("the configuration has %d bytes, at most %d", len(configuration), ConfigurationBytesMax)
	}
	rule, err := e.rules.Compile(ctx, wasm, configuration)
	if err != nil {
		return nil, err
	}
	return &program{rule: rule}, nil
}

// program is a compiled module: one of the two. It is no interface, so that what the
// order path passes to it stays where it is.
type program struct {
	rule     *host.Program
	function *shopify.Program
}

// Evaluate is that of both kinds.
func (p *program) Evaluate(in *abi.Input, fuel uint64, out *abi.Verdict, trace *host.Trace) bool {
	if p.function != nil {
		return p.function.Evaluate(in, fuel, out, trace)
	}
	return p.rule.Evaluate(in, fuel, out, trace)
}

// Imports names the functions that the module imports, "module.name".
func (p *program) Imports() []string {
	if p.function != nil {
		return p.function.Imports()
	}
	return p.rule.Imports()
}

// Footprint returns how many bytes of memory the program may come to hold.
func (p *program) Footprint() int {
	if p.function != nil {
		return p.function.Footprint()
	}
	return p.rule.Footprint()
}

// Close frees the program once its last evaluation has ended.
func (p *program) Close() error {
	if p.function != nil {
		return p.function.Close()
	}
	return p.rule.Close()
}

// Abandon is Close of a program that is not kept after all, with its code.
func (p *program) Abandon() error {
	if p.function != nil {
		return p.function.Abandon()
	}
	return p.rule.Abandon()
}

// FuelMax is the largest budget of an evaluation, of whichever kind.
const FuelMax = max(abi.FuelMax, shopify.InstructionsMax)

// fuelLimit returns the budget that an upload asked for, 0 being the default of its
// kind: Shopify's functions have Shopify's, which is all that they may have.
func fuelLimit(asked uint64, wasm []byte) (uint64, error) {
	byDefault, most := uint64(abi.FuelDefault), uint64(abi.FuelMax)
	if shopify.Detect(wasm) {
		byDefault, most = shopify.InstructionsMax, shopify.InstructionsMax
	}
	switch {
	case asked == 0:
		return byDefault, nil
	case asked > most:
		return 0, fmt.Errorf("%w: %d, at most %d", ErrBadFuelLimit, asked, most)
	}
	return asked, nil
}
