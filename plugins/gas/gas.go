// Package gas makes a module that nobody here wrote safe to run: it reads every
// byte of it under its own bounds, refuses what the rule ABI does not allow, and
// rewrites the rest so that the module counts its own fuel and remembers what an
// evaluation changed.
//
// Rewrite is the package. Its result computes what the source computes, and also
//
//   - charges fuel: one unit for each source instruction, taken at the start of
//     each basic block for the whole block, and traps once the fuel is below 0.
//     Bulk operations pay by size besides. The delimiters `end` and `else` are no
//     instructions and cost nothing; a loop costs at least its branch, so
//     nothing runs for ever for free;
//   - bounds its call depth, in frames weighted by their locals, well below the
//     engine's own limits, so that recursion ends at the same call on the
//     compiler and on the interpreter;
//   - marks the pages of memory that it stores to (Pages), after it paid for
//     copying them back, unless that is free and the store always goes to the same few
//     bytes, which are put back each time (for the pages of an Arena the host takes
//     the price, at the end); and says with a flag that it grew its memory or
//     wrote a table, after it paid for the new instance that this takes;
//   - gives canonical NaNs: every operation that may make one is followed by its
//     replacement with the positive quiet NaN without payload, so that no bit of
//     the machine's own NaN can be seen. Operations that only move bits (loads,
//     stores, reinterpret, neg, abs, copysign) stay as they are.
//
// The source's indices are checked against the source's own counts, and what is
// injected is numbered behind them, so that no module can name an injected
// global, local or function.
//
// Two things behave differently from the source, by contract: data.drop and
// elem.drop do nothing, and custom sections (names, debug information) are gone.
//
// Checking types inside function bodies is left to the engine that compiles the
// result. The rewriting keeps ill-typed code ill-typed: what it injects leaves
// the source's operand stack as it was, and every source label keeps its type.
//
// The package is pure: no dependency, no I/O, no state.
package gas

import (
	"fmt"
	"math"
	"strings"
)

// Bounds on a module. Toolchains stay well below them (Go and Javy make up to 2,000
// functions, 120 types, 2,000 elements and, Go, 31,000 data segments in 2.6 MB); each
// closes a way to make a decoder or a compiler work or allocate out of proportion to the
// bytes given.
const (
	ModuleBytesMax   = 4 << 20 // of the whole module
	TypesMax         = 1_000   // the engine compiles a call of each when it loads the module
	FunctionsMax     = 10_000
	ImportsMax       = 100
	ExportsMax       = 10_000
	GlobalsMax       = 10_000
	TablesMax        = 16
	SegmentsMax      = 1 << 16   // data segments; element segments have the same bound
	ElementsMax      = 1 << 14   // of all element segments
	TableEntriesMax  = 1 << 16   // a table's size; a larger maximum is lowered to it
	ParamsMax        = 1_000     // of one type; results have the same bound
	LocalsMax        = 4_096     // of one function, parameters included
	NestingMax       = 2_048     // of blocks in one function
	BranchTargetsMax = 16_384    // of one br_table
	FunctionBytesMax = 256 << 10 // of one body
	RewrittenMax     = 12 << 20  // bytes of the result: instructions that need most help grow twenty times
	NameBytesMax     = 1 << 10   // of an import's or export's name
	MemoryPagesMax   = 256       // 16 MiB; a larger maximum is lowered to it
	MutableMax       = 1_024     // globals that the code sets: each is restored after each evaluation
	BlockLocalsMax   = 1 << 22   // sum over functions of blocks × locals: what a compiler's analysis of values costs
	BodyLocalsMax    = 1 << 19   // blocks × locals of one function, where that cost grows faster still
	FaultsMax        = 100       // reported; later ones are counted only
	FrameUnitsMax    = 1_500     // depth of calls; the engine's interpreter stops at 2,000 frames
	frameUnitLocals  = 256       // locals that make a frame count for one unit more
	inlineStores     = 512       // of one function, whose marks are tested in place; later ones call, which adds no block
	reservedPrefix   = "doorbuster:"
	exportABI        = "doorbuster_abi_v1"
	exportBuffer     = "rule_buffer"
	exportEvaluate   = "rule_evaluate"
	exportInit       = "rule_init"
	exportInitialize = "_initialize"
	exportStart      = "_start"
	exportMemory     = "memory"
)

// Prices of what is not one instruction's work, in units of fuel.
const (
	CallUnits       = 64       // every call of an import, ref.func and table.grow: the engine leaves the module and comes back
	BytesPerUnit    = 8        // memory.fill, memory.copy and memory.init: bytes for one unit
	GrowPerPage     = 8_192    // memory.grow: for each page of the memory's new size, since the engine may move it
	RebuildBase     = 16_384   // the first growth or table write of an evaluation: the host makes a new instance …
	RebuildPerPage  = 8_192    // … of this many pages of memory,
	RebuildPerEntry = 64       // … globals and entries of element segments,
	RebuildPerPart  = 16       // … functions, exports and data segments
	TableEntryPrice = 1        // table.fill, table.copy, table.init and table.grow: for each entry
	FreeBytes       = 64 << 10 // pages that an evaluation may dirty for nothing; copying back what is beyond costs
	RestoredPerUnit = 16       // … one unit for so many bytes
)

// fixedBytesMax bounds what is put back after each evaluation without a mark: two
// outputs.
const fixedBytesMax = 64

// Names of the injected exports; a source module may not export anything that
// starts with "doorbuster:".
const (
	GlobalFuel    = reservedPrefix + "fuel"    // i64: what is left; below 0 after the module ran out
	GlobalFrames  = reservedPrefix + "frames"  // i32: frame units left
	GlobalRebuild = reservedPrefix + "rebuild" // i32: not 0 after growth or a table write
	GlobalPrice   = reservedPrefix + "price"   // i32: what the first of these takes; the host sets it, see RebuildPrice
	GlobalDirty0  = reservedPrefix + "dirty0"  // i64: Dirty.Low
	GlobalDirty1  = reservedPrefix + "dirty1"  // i64: Dirty.High
	GlobalSize    = reservedPrefix + "size"    // i32: pages of memory that the source has; with an arena only
	GlobalDenied  = reservedPrefix + "denied"  // i32: not 0 after the source asked for more; with an arena only
)

// Functions that a rule has besides, so that an evaluation is one call. They use
// no fuel.
const (
	// FunctionKeep, () → (), makes the globals as they are those that every
	// evaluation starts from, and forgets that there was growth.
	FunctionKeep = reservedPrefix + "keep"
	// FunctionEvaluate, (length i32, fuel i64) → (result i64, fuel i64, dirty0 i64,
	// dirty1 i64, rebuild i32), runs rule_evaluate from the globals that were kept,
	// with this fuel, no marks and all frame units. It returns its result and what
	// it left of these. After a trap the injected globals say the same.
	FunctionEvaluate = reservedPrefix + "evaluate"
)

// Module is a rewritten module and what its host must know about it.
type Module struct {
	// Wasm is the rewritten module, nil in a module that was decoded.
	Wasm []byte
	// Size is how many bytes it has.
	Size int
	// Pages says how the module marks what it stored to, unless its policy has an
	// arena, which says so then.
	Pages Pages
	// Mutable names the exports of the source globals that the code sets, which the
	// host of a module that is no rule restores after each evaluation.
	Mutable []string
	// Imports names the functions that the module imports, "module.name".
	Imports []string
	// Initialize and RuleInit say whether the module exports these functions.
	Initialize, RuleInit bool

	// fixed is what stores without marks write to.
	fixed span
	// parts is what making an instance takes, without its memory and what its
	// initialisation runs.
	parts uint64
}

// RebuildPrice returns the units of fuel that a new instance costs the evaluation
// that needs one: its parts, the pages of its initial memory, and the fuel that
// its initialisation uses.
func (m *Module) RebuildPrice(pages uint32, initFuel uint64) uint32 {
	return uint32(min(RebuildBase+uint64(pages)*RebuildPerPage+m.parts+initFuel, math.MaxInt32))
}

// Fault is one thing that is wrong with a module.
type Fault struct {
	Section string // "header", "type", "import", …
	Offset  int    // bytes from the start of the module
	Reason  string
}

// String returns the fault on one line.
func (f Fault) String() string {
	return fmt.Sprintf("%s section, offset %d: %s", f.Section, f.Offset, f.Reason)
}

// Error lists everything that is wrong with a module.
type Error struct {
	Faults []Fault // at least one, at most FaultsMax
	More   int     // faults that were found but are not listed
}

// Error returns all the faults, one on a line.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Faults)+1)
	for _, f := range e.Faults {
		lines = append(lines, f.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

// Rewrite validates a rule and rewrites it. The error is an *Error with every
// fault that was found. The work and the memory it takes are proportional to
// len(wasm), whatever the bytes claim; wasm is not modified or kept.
func Rewrite(wasm []byte) (*Module, error) { return rulePolicy.Rewrite(wasm) }

// Rewrite is the package's Rewrite for modules of another kind.
func (p *Policy) Rewrite(wasm []byte) (*Module, error) {
	src := decode(p, wasm)
	if len(src.faults) > 0 {
		return nil, &Error{Faults: src.faults, More: src.more}
	}
	m := rewrite(src)
	if m.Size > RewrittenMax {
		return nil, &Error{Faults: []Fault{{"module", len(wasm), fmt.Sprintf("rewritten it has more than %d bytes", RewrittenMax)}}}
	}
	return m, nil
}
