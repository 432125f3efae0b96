// Package host runs rules. It is the only importer of wazero.
//
// An Engine compiles modules into Programs; a Program prices orders. Every
// evaluation of a program starts from the same memory, globals and tables, those
// that its module had when its initialisation ended, and what the module reads of
// the world (clock, randomness) comes from the evaluation's own input. So the same
// input gives the same output, fuel and logs for ever, on any machine, and on
// wazero's compiler as on its interpreter.
//
// A module is rewritten by package gas before wazero sees it: it counts its own
// fuel, and says which pages of memory it changed, so that putting it back costs
// a copy of these pages. What cannot be put back (memory that grew, a written
// table) costs a new instance.
//
// Evaluate does not allocate. It may be called by any number of goroutines: each
// takes one of a program's instances for the call, and waits for one when all are
// taken, at most for as long as an evaluation's fuel lasts.
package host

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
)

// InitFuel is the budget of _initialize, rule_buffer and rule_init together. A
// language runtime starts in it, and a hostile module holds up its own upload by
// a few milliseconds at most.
const InitFuel = 10_000_000

// Config is how an Engine runs.
type Config struct {
	// Interpreter selects wazero's interpreter in place of its compiler: the same
	// results, about 20 times slower. Tests compare the two.
	Interpreter bool
	// Instances is how many evaluations of one program can run at once.
	// 0: GOMAXPROCS.
	Instances int
}

func (c *Config) validate() error {
	if c.Instances < 0 {
		return fmt.Errorf("host: %d instances", c.Instances)
	}
	if c.Instances == 0 {
		c.Instances = runtime.GOMAXPROCS(0)
	}
	return nil
}

// Engine compiles programs. Its methods are safe for concurrent use.
type Engine struct {
	config    Config
	runtime   wazero.Runtime
	compiling sync.Mutex // one module at a time: compiling must leave CPU to orders
}

// New returns an engine. Close it to free what its programs hold.
func New(config Config) (*Engine, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	rc := wazero.NewRuntimeConfigCompiler()
	if config.Interpreter {
		rc = wazero.NewRuntimeConfigInterpreter()
	}
	rc = rc.WithCoreFeatures(api.CoreFeaturesV2).
		WithMemoryLimitPages(gas.MemoryPagesMax).
		WithDebugInfoEnabled(false)
	ctx := context.Background()
	e := &Engine{config: config, runtime: wazero.NewRuntimeWithConfig(ctx, rc)}
	if err := instantiateImports(ctx, e.runtime); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Close frees the engine and all its programs. No evaluation may be running.
func (e *Engine) Close() error { return e.runtime.Close(context.Background()) }

// Compile makes a program of a source module, with the merchant's configuration
// for its rule_init. Anything that is wrong with the module is a *gas.Error with
// all the faults; another error is the world's (the context ended).
func (e *Engine) Compile(ctx context.Context, wasm, config []byte) (*Program, error) {
	if len(config) > abi.InputBytesMax {
		return nil, fmt.Errorf("host: a configuration of %d bytes, at most %d", len(config), abi.InputBytesMax)
	}
	module, err := gas.Rewrite(wasm)
	if err != nil {
		return nil, err
	}
	compiled, err := e.compile(ctx, module.Wasm)
	if err != nil {
		return nil, err
	}
	p := &Program{
		engine: e, module: module, compiled: compiled, config: append([]byte(nil), config...),
		slots: make([]slot, e.config.Instances),
	}
	if err := p.slots[0].fill(p); err != nil {
		_ = compiled.Close(context.Background())
		return nil, refused("init", "%q", err.Error())
	}
	return p, nil
}

// compile has wazero check and compile a rewritten module. What gas bounds is all
// that bounds its time, because wazero looks at a context only when it compiles
// on goroutines of its own, where a panic of its compiler would end the process.
// Here it is a fault of the module that caused it.
func (e *Engine) compile(ctx context.Context, wasm []byte) (compiled wazero.CompiledModule, err error) {
	e.compiling.Lock()
	defer e.compiling.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err // while it waited for others
	}
	defer func() {
		if r := recover(); r != nil {
			err = refused("code", "the compiler gave up: %q", fmt.Sprint(r))
		}
	}()
	compiled, err = e.runtime.CompileModule(ctx, wasm)
	if err != nil {
		return nil, refused("code", "%q", err.Error())
	}
	return compiled, nil
}

// refused is a fault that shows when a module is compiled or initialised: it
// has no offset in the source.
func refused(section, format string, args ...any) error {
	return &gas.Error{Faults: []gas.Fault{{Section: section, Reason: fmt.Sprintf(format, args...)}}}
}
