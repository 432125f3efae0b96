package shopify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// arena is the memory of every function. The region is for what a function that
// Shopify's tool linked to a provider thinks to be in the provider's memory.
var arena = &gas.Arena{Bound: MemoryPagesMax, Region: 16}

// Engine compiles functions. Its methods are safe for concurrent use.
type Engine struct {
	host *host.Engine

	mu        sync.Mutex // guards providers, and what is said of it there
	providers map[[sha256.Size]byte]*provider
}

// provider is a compiled provider module. Functions share it: it is many times
// their size.
type provider struct {
	name     string // the module that functions import
	digest   [sha256.Size]byte
	module   *gas.Module
	compiled wazero.CompiledModule
	imports  map[[2]string]gas.Signature // what a function can import of it
	initial  []byte                      // its memory at first; guarded by the engine's mu
	users    int                         // programs; guarded by the engine's mu
	exchange bool                        // input and output pass through its memory
	discard  func()                      // removes its code from disk, unless a function was kept; guarded by the engine's mu
}

// New returns an engine whose modules live in the engine of the rules: compiled by
// the same process, under the same limits, and freed with it.
func New(h *host.Engine) (*Engine, error) {
	e := &Engine{host: h, providers: map[[sha256.Size]byte]*provider{}}
	return e, instantiateImports(context.Background(), h.Runtime())
}

// Compile makes a program of a function. Anything that is wrong with it or with its
// bundle is a *gas.Error with all the faults; another error is the world's.
func (e *Engine) Compile(ctx context.Context, wasm []byte) (*Program, error) {
	outline := gas.Read(wasm)
	bundle, size := unwrap(wasm, &outline)
	settings, err := bundle.settings()
	if err != nil {
		return nil, refused("bundle", "%v", err)
	}
	export, err := bundle.export(&outline)
	if err != nil {
		return nil, refused("export", "%v", err)
	}
	if size > ModuleBytesMax {
		return nil, refused("module", "Shopify's limit of 256 kB: the module has %d bytes", size)
	}
	p := &Program{engine: e, settings: settings, export: export, slots: make([]slot, e.host.Instances())}
	if err := p.link(ctx, wasm, &outline, bundle.Provider); err != nil {
		return nil, errors.Join(err, p.Abandon())
	}
	if err := p.slots[0].fill(p); err != nil {
		return nil, errors.Join(refused("init", "%q", err.Error()), p.Abandon())
	}
	return p, nil
}

// link rewrites and compiles the function, by the kind that its imports say.
func (p *Program) link(ctx context.Context, wasm []byte, o *gas.Outline, uploaded []byte) error {
	policy := &gas.Policy{Imports: imports, Prefix: prefix, Arena: arena}
	modules := map[string]bool{}
	for _, i := range o.Imports {
		modules[i.Module] = true
		switch {
		case isProvider(i):
			policy.Foreign, policy.Linked = i.Module, true
		case isAPI(i.Module):
			p.io, policy.Foreign, p.usesContext = throughAPI, i.Module, i.Module == apiV1
			p.trampolined = p.trampolined || i.Kind == importedMemory
		}
	}
	if policy.Linked {
		var err error
		if p.provider, err = p.engine.provider(ctx, policy.Foreign, uploaded); err != nil {
			return err
		}
		policy.Imports = map[[2]string]gas.Signature{} // of what it has, what the function imports
		for _, i := range o.Imports {
			key := [2]string{i.Module, i.Name}
			if signature, ok := p.provider.imports[key]; ok {
				policy.Imports[key] = signature
			}
		}
		p.io = p.provider.io()
	}
	if modules[apiV2] && modules[wasiModule] {
		return refused("import", "a function cannot import both %q and WASI: build it for wasm32-unknown-unknown", apiV2)
	}
	compiled, err := p.engine.host.CompileModule(ctx, policy, wasm)
	if err != nil {
		return limitNamed(err)
	}
	p.module, p.compiled, p.discard = compiled.Module, compiled.Code, compiled.Discard
	return nil
}

// provider returns a compiled provider, which counts one user more.
func (e *Engine) provider(ctx context.Context, name string, wasm []byte) (*provider, error) {
	if len(wasm) == 0 {
		return nil, refused("bundle", "the function imports %q: upload that module as its provider", name)
	}
	if len(wasm) > ProviderBytesMax {
		return nil, refused("bundle", "the provider has %d bytes, at most %d", len(wasm), ProviderBytesMax)
	}
	digest := providerDigest(name, wasm)
	if known := e.use(digest, nil); known != nil {
		return known, nil
	}
	v := &provider{name: name, digest: digest, imports: map[[2]string]gas.Signature{}}
	exchanged := 0
	for _, export := range gas.Read(wasm).Exports {
		v.imports[[2]string{name, export.Name}] = export.Signature
		if want, ok := exchangeExports[export.Name]; ok && want == export.Signature {
			exchanged++
		}
	}
	v.exchange = exchanged == len(exchangeExports)
	// Compiling takes long and holds no lock. Of two who do it at once one is late.
	compiled, err := e.host.CompileModule(ctx, &gas.Policy{Imports: imports, Prefix: prefix, Arena: arena}, wasm)
	if err != nil {
		return nil, err
	}
	v.module, v.compiled, v.discard = compiled.Module, compiled.Code, compiled.Discard
	known := e.use(digest, v)
	if known != v {
		_ = v.compiled.Close(context.Background())
	}
	return known, nil
}

// providerDigest names a provider: what is in one part cannot pass for the other's.
func providerDigest(name string, wasm []byte) [sha256.Size]byte {
	module := sha256.Sum256(wasm)
	return sha256.Sum256(append(module[:], name...))
}

// use counts a user of the provider that is known by the digest, or else of the
// given one, which is known from then on.
func (e *Engine) use(digest [sha256.Size]byte, v *provider) *provider {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.providers[digest]; known != nil {
		v = known
	}
	if v != nil {
		e.providers[digest] = v
		v.users++
	}
	return v
}

// exchangeExports are the functions of a provider through whose memory input and
// output pass: initialize makes room for so many bytes of input, finalize returns
// the place of six numbers, the places and lengths of the output and of the log's
// two parts.
var exchangeExports = map[string]gas.Signature{
	"initialize": {Params: i32, Results: i32},
	"finalize":   {Results: i32},
}

// io says how the functions of a provider read and write.
func (v *provider) io() exchange {
	switch {
	case v.exchange:
		return throughMemory
	case strings.HasPrefix(v.name, javyPrefix) && v.name != javyPrefix+"1":
		return throughMessagePack
	}
	return throughJSON
}

func refused(section, format string, args ...any) error {
	return &gas.Error{Faults: []gas.Fault{{Section: section, Reason: fmt.Sprintf(format, args...)}}}
}

// limitNamed says whose limit a memory is beyond.
func limitNamed(err error) error {
	var invalid *gas.Error
	if errors.As(err, &invalid) {
		for n, f := range invalid.Faults {
			if f.Section == "memory" && strings.HasPrefix(f.Reason, "a memory of ") && strings.Contains(f.Reason, " at most ") {
				invalid.Faults[n].Reason = "Shopify's limit of 10,000 kB: " + f.Reason
			}
		}
	}
	return err
}

// exchange is how a function gets its input and gives its output.
type exchange uint8

const (
	throughJSON        exchange = iota // standard input and output
	throughMessagePack                 // the same, as MessagePack
	throughAPI                         // the Shopify Function API
	throughMemory                      // the provider's memory, as MessagePack
)

// Program is a compiled function, ready to price orders.
type Program struct {
	engine      *Engine
	module      *gas.Module
	compiled    wazero.CompiledModule
	provider    *provider // nil: the function has its own memory
	settings    *settings
	export      string
	io          exchange
	trampolined bool // the function copies to and from a provider's memory
	usesContext bool // version 1 of the API
	discard     func()

	// initial is the state that every evaluation starts from. Written before the
	// program is shared.
	initial *state

	slots  []slot
	closed atomic.Bool
}

// slot holds one instance, made when it is first needed.
type slot struct {
	mu       sync.Mutex // held during an evaluation; guards instance
	instance *instance
	_        [112]byte // a cache line pair of its own
}

func (s *slot) fill(p *Program) (err error) {
	s.instance, err = newInstance(p)
	return err
}

func (s *slot) empty() {
	if s.instance != nil {
		s.instance.close()
		s.instance = nil
	}
}

// Imports names the functions that the module imports, "module.name".
func (p *Program) Imports() []string { return p.module.Imports }

// Footprint returns how many bytes of memory the program may come to hold while it is
// loaded: its code, an arena for each instance, and what it had at first. Functions
// share the code of their provider.
func (p *Program) Footprint() int {
	bytes := host.CodeBytes(p.module) + len(p.slots)*int(arena.Bound+arena.Region+1)<<wasmPageShift + len(p.initial.memory)
	if p.provider != nil {
		p.engine.mu.Lock()
		defer p.engine.mu.Unlock()
		bytes += host.CodeBytes(p.provider.module) / max(p.provider.users, 1)
	}
	return bytes
}

// Evaluate prices one order with the given budget of fuel, at most InstructionsMax,
// and fills out, but for its version. trace may be nil. It keeps nothing of in. It
// returns false, and has not run the function, when the program is closed.
func (p *Program) Evaluate(in *abi.Input, fuel uint64, out *abi.Verdict, trace *host.Trace) bool {
	out.Reset()
	s := p.take()
	defer s.mu.Unlock()
	if p.closed.Load() {
		return false
	}
	if s.instance == nil {
		if err := s.fill(p); err != nil {
			out.Fault = abi.FaultRuleInit
			trace.Note(nil, 0, err)
			return true
		}
	}
	i := s.instance
	err := i.evaluate(in, min(fuel, InstructionsMax), out)
	trace.Note(i.log.text[:i.log.n], i.log.dropped, err)
	if !i.reset() {
		s.empty()
		// The evaluation has paid for this. A failure shows at the next one, which
		// tries again.
		_ = s.fill(p)
	}
	return true
}

// take locks a slot that is free, or waits for one.
func (p *Program) take() *slot {
	n := uint32(len(p.slots))
	start := rand.Uint32N(n)
	for i := range n {
		if s := &p.slots[(start+i)%n]; s.mu.TryLock() {
			return s
		}
	}
	s := &p.slots[start]
	s.mu.Lock()
	return s
}

// Close frees the program once its last evaluation has ended. Later ones do nothing.
func (p *Program) Close() error { return p.close(false) }

// Abandon is Close of a program that is not kept after all: nor is its code on disk,
// or its provider's, unless it was there before.
func (p *Program) Abandon() error { return p.close(true) }

func (p *Program) close(discard bool) (err error) {
	if p.closed.Swap(true) {
		return nil
	}
	for i := range p.slots {
		s := &p.slots[i]
		s.mu.Lock()
		s.empty()
		s.mu.Unlock()
	}
	ctx, e := context.Background(), p.engine
	if p.compiled != nil {
		err = p.compiled.Close(ctx)
		if discard {
			p.discard()
		}
	}
	if p.provider == nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !discard {
		p.provider.discard = func() {}
	}
	if p.provider.users--; p.provider.users == 0 {
		delete(e.providers, p.provider.digest)
		err = errors.Join(err, p.provider.compiled.Close(ctx))
		p.provider.discard()
	}
	return err
}

// memoryModule is the rewritten module that has the memory.
func (p *Program) memoryModule() *gas.Module {
	if p.provider != nil {
		return p.provider.module
	}
	return p.module
}
