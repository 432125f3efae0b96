// Package host runs rules. Beside package shopify, which runs its modules in the
// same engine, it is the only importer of wazero.
//
// An Engine compiles modules into Programs; a Program prices orders. Every
// evaluation of a program starts from the same memory, globals and tables, those
// that its module had when its initialisation ended, and what the module reads of
// the world (clock, randomness) comes from the evaluation's own input. So the same
// input gives the same output, fuel and logs for ever, on any machine, and on
// wazero's compiler as on its interpreter.
//
// A module is judged and rewritten by package gas before wazero sees it: it counts its own
// fuel, and says which pages of memory it changed, so that putting it back costs
// a copy of these pages. What cannot be put back (memory that grew, a written
// table) costs a new instance.
//
// Modules are judged, rewritten and compiled by a process of their own, CompileChild,
// under limits that it cannot get around; this process loads the code that came of it.
// See Config.Compiler.
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
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
)

// Config is how an Engine runs.
type Config struct {
	// Interpreter selects wazero's interpreter in place of its compiler: the same
	// results, about 20 times slower. Tests compare the two.
	Interpreter bool
	// Instances is how many evaluations of one program can run at once.
	// 0: GOMAXPROCS.
	Instances int
	// Compiler is the command that compiles: its program, then its arguments. It
	// must do nothing but call CompileChild with the arguments that are added
	// to them. Empty: modules are compiled in this process, where nothing but the
	// bounds of package gas limits what that takes; that is for tests and for tools
	// that run their owner's module, never for a server.
	Compiler []string
	// Cache is the folder of compiled code, which is made if need be and belongs to
	// this engine alone. Required with Compiler, unused without.
	Cache string
	// Busy says whether this process has orders to take now: its compilers rest for half
	// of the time then. It is asked once in CompilePiece of each compilation. nil: it never
	// has. Unused without Compiler.
	Busy func() bool
	// CompileCPU and CompileMemory are what one compilation may take: processor
	// time, in whole seconds, and bytes beyond what its process starts with.
	// 0: CompileCPUDefault, CompileMemoryDefault. Unused without Compiler.
	CompileCPU    time.Duration
	CompileMemory uint64
}

func (c *Config) validate() error {
	if c.Instances < 0 {
		return fmt.Errorf("host: %d instances", c.Instances)
	}
	if c.Instances == 0 {
		c.Instances = runtime.GOMAXPROCS(0)
	}
	if (len(c.Compiler) > 0) != (c.Cache != "") || c.Interpreter && c.Cache != "" {
		return errors.New("host: a compiler and a cache go together, and not with the interpreter")
	}
	if c.Busy == nil {
		c.Busy = func() bool { return false }
	}
	if c.CompileCPU == 0 {
		c.CompileCPU = CompileCPUDefault
	}
	if c.CompileMemory == 0 {
		c.CompileMemory = CompileMemoryDefault
	}
	if c.CompileCPU < time.Second || c.CompileCPU > CompileWait {
		return fmt.Errorf("host: %s to compile, 1s to %s", c.CompileCPU, CompileWait)
	}
	return nil
}

// Engine compiles programs. Its methods are safe for concurrent use.
type Engine struct {
	config    Config
	runtime   wazero.Runtime
	cache     *cache        // nil: this process compiles
	compiling chan struct{} // a token for each compilation under way …
	loading   chan struct{} // … and one for loading code, which waits for no compilation
}

// New returns an engine. Close it to free what its programs hold.
func New(config Config) (*Engine, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	e := &Engine{config: config, compiling: make(chan struct{}, CompilersMax), loading: make(chan struct{}, 1)}
	var compiled wazero.CompilationCache
	if config.Cache != "" {
		var err error
		if e.cache, err = openCache(&config); err != nil {
			return nil, err
		}
		compiled = e.cache.engine
	}
	ctx := context.Background()
	e.runtime = wazero.NewRuntimeWithConfig(ctx, runtimeConfig(config.Interpreter, compiled))
	if err := instantiateImports(ctx, e.runtime); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Close frees the engine and all its programs. No evaluation may be running.
func (e *Engine) Close() error {
	ctx := context.Background()
	err := e.runtime.Close(ctx)
	if e.cache != nil {
		e.cache.end()
		err = errors.Join(err, e.cache.engine.Close(ctx))
	}
	return err
}

// Compile makes a program of a source module, with the merchant's configuration
// for its rule_init. Anything that is wrong with the module is a *gas.Error with
// all the faults; another error is the world's.
func (e *Engine) Compile(ctx context.Context, wasm, config []byte) (*Program, error) {
	if len(config) > abi.InputBytesMax {
		return nil, fmt.Errorf("host: a configuration of %d bytes, at most %d", len(config), abi.InputBytesMax)
	}
	compiled, err := e.CompileModule(ctx, gas.Rules(), wasm)
	if err != nil {
		return nil, err
	}
	p := &Program{
		engine: e, module: compiled.Module, compiled: compiled.Code, discard: compiled.Discard, config: append([]byte(nil), config...),
		slots: make([]slot, e.config.Instances),
	}
	if err := p.grow(); err != nil {
		_ = p.compiled.Close(context.Background())
		p.discard()
		return nil, refused("init", "%q", err.Error())
	}
	return p, nil
}

// Runtime is where the engine's modules live, for a package that runs modules of
// another kind beside the rules. What it makes there has names of its own.
func (e *Engine) Runtime() wazero.Runtime { return e.runtime }

// Instances is Config.Instances.
func (e *Engine) Instances() int { return e.config.Instances }

// Compiled is a module that can be instantiated.
type Compiled struct {
	Module *gas.Module // without Wasm
	Code   wazero.CompiledModule
	// Discard removes the code that the call has made, when the module comes to nothing
	// after all: nobody would pay for keeping it.
	Discard func()
}

// CompileModule has a module of any kind judged, rewritten and compiled, as its policy
// says: under the same limits, in the same process of its own. The errors are those of
// Compile.
func (e *Engine) CompileModule(ctx context.Context, policy *gas.Policy, wasm []byte) (*Compiled, error) {
	discard := func() {}
	if e.cache == nil {
		return e.compileHere(ctx, policy, wasm)
	}
	encoded := policy.Encode()
	key := cacheKey(encoded, wasm)
	for harmed := false; ; {
		has, err := e.cache.has(key)
		if err != nil {
			return nil, err
		}
		if !has {
			if err := e.compile(ctx, key, encoded, wasm); err != nil {
				return nil, err
			}
			discard = func() { e.cache.forget(key) }
		}
		compiled, err := e.load(ctx, key)
		if err == nil {
			compiled.Discard = discard
			return compiled, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if errors.Is(err, errDiscarded) {
			continue
		}
		if short := machines(err); short != nil {
			return nil, short
		}
		// The compiler has accepted these bytes: its code has come to harm on disk, or is
		// for a processor of another kind.
		e.cache.forget(key)
		if harmed {
			return nil, fmt.Errorf("host: loading compiled code: %w", err)
		}
		harmed = true
	}
}

// compileHere is CompileModule without a child.
func (e *Engine) compileHere(ctx context.Context, policy *gas.Policy, wasm []byte) (*Compiled, error) {
	module, err := policy.Rewrite(wasm)
	if err != nil {
		return nil, err
	}
	if err := enter(ctx, e.compiling); err != nil {
		return nil, err
	}
	defer leave(e.compiling)
	code, err := compileModule(ctx, e.runtime, module.Wasm)
	if err != nil {
		return nil, refused("code", "%q", err.Error())
	}
	module.Wasm = nil
	return &Compiled{module, code, func() {}}, nil
}

// errDiscarded: code was removed before it could be loaded, by somebody whose module
// of the same bytes came to nothing.
var errDiscarded = errors.New("host: the code is gone")

// compile has a child compile a module.
func (e *Engine) compile(ctx context.Context, key string, policy, wasm []byte) error {
	if err := enter(ctx, e.compiling); err != nil {
		return err
	}
	defer leave(e.compiling)
	return e.cache.make(ctx, key, policy, wasm)
}

// load loads what a child has made of a module, one at a time: wazero hands out code that it
// has read from disk to the next who asks for the same before all of it is there, and
// while one processor loads a module, the others are for orders.
func (e *Engine) load(ctx context.Context, key string) (*Compiled, error) {
	if err := enter(ctx, e.loading); err != nil {
		return nil, err
	}
	defer leave(e.loading)
	e.cache.files.RLock()
	defer e.cache.files.RUnlock()
	switch has, err := e.cache.has(key); {
	case err != nil:
		return nil, err
	case !has:
		return nil, errDiscarded
	}
	module, shell, err := e.cache.read(key)
	if err != nil {
		return nil, err
	}
	code, err := compileModule(onlyLoads(), e.runtime, shell)
	if err != nil {
		return nil, err
	}
	return &Compiled{Module: module, Code: code}, nil
}

// onlyLoads is a context with which wazero compiles nothing, but for what is no function:
// a shell has another's code, and compiling it would give every function a trap.
func onlyLoads() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return experimental.WithCompilationWorkers(ctx, 2) // more than one look at their context
}

// enter takes a token, or gives up with the context.
func enter(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		leave(tokens)
		return err
	}
	return nil
}

func leave(tokens chan struct{}) { <-tokens }

// compileModule has wazero check and compile a rewritten module, or load the code
// that its cache has. A panic of its compiler is an error. wazero looks at a
// context only when it compiles on goroutines of its own, where a panic would end
// the process, so it does not get to.
func compileModule(ctx context.Context, r wazero.Runtime, wasm []byte) (compiled wazero.CompiledModule, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%w: %v", errGaveUp, fault)
		}
	}()
	return r.CompileModule(ctx, wasm)
}

// errGaveUp: the compiler panicked.
var errGaveUp = errors.New("the compiler gave up")

// refused is a fault that shows when a module is compiled or initialised: it
// has no offset in the source.
func refused(section, format string, args ...any) error {
	return &gas.Error{Faults: []gas.Fault{{Section: section, Reason: fmt.Sprintf(format, args...)}}}
}
