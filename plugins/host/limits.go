package host

import (
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/gas"
)

// Bounds on what a module may cost before it prices an order. What an evaluation
// may cost is its fuel (package abi), and what a module may hold is in package gas.
const (
	// InitFuel is the budget of _initialize, rule_buffer and rule_init together. A
	// language runtime starts in it, and a hostile module holds up its own upload
	// by a few milliseconds at most. An evaluation that has to make a new instance
	// pays for all of it (gas.Module.RebuildPrice).
	InitFuel = 10_000_000

	// CompileCPUDefault is the processor time of one compilation. Go's runtime, the largest
	// that is known to be of use, takes about 3 s.
	CompileCPUDefault = 20 * time.Second
	// CompileMemoryDefault is what the compiler may take beyond what its process starts with.
	CompileMemoryDefault = 1 << 30
	// CompileWait ends a compilation that gets no processor. The machine is to blame
	// then, not the module.
	CompileWait = 2 * time.Minute
	// CompilersMax bounds compilations at one time: they must leave the CPU to
	// orders, and one merchant's bomb must not keep the others' uploads waiting.
	CompilersMax = 2
	// CompilePatience is how long a compilation that takes only what orders leave may
	// do without a part of 1/CompileShare of a processor. Then it is begun again with
	// CompileNice, which is a small share, but one for certain, and so are those of the
	// next CompileBusy: the machine has nothing to give away.
	CompilePatience = 2 * time.Second
	CompileShare    = 10
	CompileBusy     = 30 * time.Second
	CompileNice     = 10
	// CompilePiece is how long a compiler that takes only what orders leave works at a time,
	// and then rests, while the process is busy (Config.Busy). It is the least that Go's
	// timers wait for in a process that has nothing to do.
	CompilePiece = time.Millisecond
	// CompilerRest is how long a compiler's process waits for another module: to begin one
	// takes longer than most modules, and holds up orders.
	CompilerRest = 30 * time.Second
	// compilerCPU is the processor time, in seconds, that it may have taken in all once it
	// has compiled a module. It ends when it would keep more than 1/keptPart of the memory
	// that it may take.
	compilerCPU = 2
	keptPart    = 8
	// goesOnMax is the size of a rewritten module, in bytes, from which on that is not
	// enough: Go's take 3 s. A process that has compiled a module ends when one comes, and
	// they get one of their own.
	goesOnMax = 256 << 10
	// CompiledMax bounds the machine code of one module, in bytes.
	CompiledMax = 256 << 20
)

// runtimeConfig is wazero as rules run in it.
func runtimeConfig(interpreter bool, cache wazero.CompilationCache) wazero.RuntimeConfig {
	rc := wazero.NewRuntimeConfigCompiler()
	if interpreter {
		rc = wazero.NewRuntimeConfigInterpreter()
	}
	if cache != nil {
		rc = rc.WithCompilationCache(cache)
	}
	return rc.
		// What gas decodes: no threads, no exceptions, no tail calls.
		WithCoreFeatures(api.CoreFeaturesV2).
		// gas lowers larger maxima; this is the engine's own belt.
		WithMemoryLimitPages(gas.MemoryPagesMax).
		// A rule that grows its memory pays for that; memory that it may never use
		// is not set aside for it.
		WithMemoryCapacityFromMax(false).
		// gas drops custom sections; there is nothing to look up.
		WithDebugInfoEnabled(false).
		// The module counts its own fuel. Watching the context instead costs every
		// loop a check, and time is no measure that two machines agree on.
		WithCloseOnContextDone(false)
}
