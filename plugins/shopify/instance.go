package shopify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// state is all of a module that an evaluation can change and reset puts back.
type state struct {
	memory  []byte // as far as the module had asked for it
	globals []uint64
}

// instance is one instantiated function, with its provider when it has one. One
// goroutine uses it at a time.
type instance struct {
	host.Guest
	program  *Program
	module   api.Module
	provider api.Module      // nil: none
	ctx      context.Context // carries the instance to the imports
	memory   []byte          // the whole arena: it never grows
	run      api.Function

	frames, rebuild, price, size, denied api.MutableGlobal
	mutable                              []api.MutableGlobal

	// What one evaluation sees and leaves, besides the module's own state.
	log    guestLog
	exit   *uint32 // code of proc_exit, nil: not called
	stdin  []byte  // what is left of it
	stdout []byte
	inputs inputWriter
	input  document
	output writer
	answer document
	api    apiState
	buffer []byte // the encoded input
	abi    []byte // the order's own encoding, for its digest
	stack  [1]uint64

	arguments [4]uint64 // of an import that takes a context before them
}

// initNow is the clock during initialisation, Unix ms: not 0, which language
// runtimes take for a broken clock.
const initNow = 1

// initFuel is the budget of _initialize.
const initFuel = InstructionsMax

// instanceKey finds the instance in the context of a call.
type instanceKey struct{}

// newInstance instantiates the program. The first instance sets the initial state;
// every other one must come to the same.
func newInstance(p *Program) (*instance, error) {
	i := &instance{program: p}
	i.Memory, i.Write, i.Input = i, i.write, true
	i.ctx = context.WithValue(context.Background(), instanceKey{}, i)
	i.api.reset()
	i.input.grow()
	i.input.null() // what there is to read before an order comes
	if err := i.instantiate(); err != nil {
		i.close()
		return nil, err
	}
	if err := i.initialise(); err != nil {
		i.close()
		return nil, err
	}
	if p.initial == nil {
		p.initial = i.state()
	} else if !i.at(p.initial) {
		i.close()
		return nil, errors.New("initialising the function again came to another state")
	}
	i.rebuild.Set(0) // a table written until now is the initial one
	i.reset()        // what initialising marked, wrote, logged and drew is of no evaluation
	return i, nil
}

func (i *instance) instantiate() (err error) {
	p, config := i.program, wazero.NewModuleConfig().WithName("").WithStartFunctions()
	ctx := experimental.WithImportResolver(i.ctx, func(name string) api.Module {
		if p.provider != nil && name == p.provider.name {
			return i.provider
		}
		return nil
	})
	owner, runtime := &i.module, p.engine.host.Runtime()
	if p.provider != nil {
		owner = &i.provider
		if i.provider, err = runtime.InstantiateModule(ctx, p.provider.compiled, config); err != nil {
			return err
		}
	}
	if i.module, err = runtime.InstantiateModule(ctx, p.compiled, config); err != nil {
		return err
	}
	m := *owner
	memory := m.ExportedMemory("memory")
	i.memory, _ = memory.Read(0, memory.Size())
	global := func(name string) api.MutableGlobal {
		return m.ExportedGlobal(name).(api.MutableGlobal) // gas injects them, mutable
	}
	i.Fuel, i.frames, i.rebuild, i.price = global(gas.GlobalFuel), global(gas.GlobalFrames), global(gas.GlobalRebuild), global(gas.GlobalPrice)
	i.size, i.denied = global(gas.GlobalSize), global(gas.GlobalDenied)
	for _, name := range p.memoryModule().Mutable {
		i.mutable = append(i.mutable, global(name))
	}
	i.run = i.module.ExportedFunction(p.export)
	return i.checkData()
}

// checkData refuses data outside the memory that the module has: WebAssembly would
// not instantiate it, and the arena would not put it back.
func (i *instance) checkData() error {
	for rest := i.memory[len(i.view()):]; len(rest) > 0; rest = rest[len(zeros):] {
		if !bytes.Equal(rest[:len(zeros)], zeros[:]) {
			return errors.New("a data segment is out of bounds")
		}
	}
	return nil
}

var zeros [1 << wasmPageShift]byte

// initialise runs _initialize, which a WASI reactor has. A new instance costs an
// evaluation what this costs, and the whole arena, which is made and looked through.
func (i *instance) initialise() error {
	i.Now = initNow
	i.Fuel.Set(initFuel)
	if fn := i.module.ExportedFunction("_initialize"); fn != nil {
		if _, err := i.call(fn); err != nil {
			return fmt.Errorf("_initialize: %w", err)
		}
	}
	if err := i.payMarks(); err != nil {
		return fmt.Errorf("_initialize: %w", err)
	}
	p := i.program
	price := p.memoryModule().RebuildPrice(uint32(len(i.memory)>>wasmPageShift), initFuel-i.Fuel.Get())
	if p.provider != nil {
		price += p.module.RebuildPrice(0, 0)
	}
	i.price.Set(uint64(price))
	return nil
}

func (i *instance) close() {
	for _, m := range []api.Module{i.module, i.provider} {
		if m != nil {
			_ = m.Close(context.Background())
		}
	}
}

// call calls a function with at most one parameter and one result.
func (i *instance) call(fn api.Function, parameter ...uint32) (uint32, error) {
	i.stack[0] = 0
	if len(parameter) > 0 {
		i.stack[0] = uint64(parameter[0])
	}
	if err := fn.CallWithStack(i.ctx, i.stack[:]); err != nil {
		i.frames.Set(gas.FrameUnitsMax) // a trap leaves no frame to give its units back
		return 0, err
	}
	return uint32(i.stack[0]), nil
}

// view is the memory that the function has asked for so far.
func (i *instance) view() []byte { return i.memory[:i.size.Get()<<wasmPageShift] }

const wasmPageShift = 16

func (i *instance) state() *state {
	s := &state{memory: i.view()}
	if v := i.program.provider; v != nil {
		s.memory = i.program.engine.shared(v, s.memory)
	} else {
		s.memory = bytes.Clone(s.memory)
	}
	for _, g := range i.all() {
		s.globals = append(s.globals, g.Get())
	}
	return s
}

// all are the globals that an evaluation can change and that are put back.
func (i *instance) all() []api.MutableGlobal {
	return append(i.mutable[:len(i.mutable):len(i.mutable)], i.size)
}

func (i *instance) at(s *state) bool {
	for n, g := range i.all() {
		if g.Get() != s.globals[n] {
			return false
		}
	}
	return bytes.Equal(i.view(), s.memory)
}

// reset puts the initial state back. It returns false when that is impossible and
// the instance has to be replaced.
func (i *instance) reset() bool {
	if i.rebuild.Get() != 0 {
		return false
	}
	initial := i.program.initial
	arena.Restore(i.memory, initial.memory)
	for n, g := range i.mutable {
		g.Set(initial.globals[n])
	}
	i.size.Set(initial.globals[len(i.mutable)])
	i.denied.Set(0)
	i.Random, i.exit = 0, nil
	i.stdin, i.stdout = nil, i.stdout[:0]
	i.log.n, i.log.dropped = 0, 0
	i.api.reset()
	i.output.reset()
	return true
}

// Errors that a trace names. Each limit is Shopify's.
var (
	errInstructions = errors.New("beyond Shopify's limit of 11,000,000 instructions, or the smaller one that was asked for")
	errMemory       = errors.New("beyond Shopify's limit of 10,000 kB of memory")
	errInputSize    = errors.New("beyond Shopify's limit of 128 kB of input")
	errOutputSize   = errors.New("beyond Shopify's limit of 20 kB of output")
	errExit         = errors.New("the function ended itself")
)

// evaluate prices one order. The instance is dirty afterwards.
func (i *instance) evaluate(in *abi.Input, fuel uint64, out *abi.Verdict) error {
	encoded, err := in.Append(i.abi[:0])
	if err != nil {
		out.Fault = abi.FaultBadOutput
		return err
	}
	i.abi = encoded
	out.Digest = abi.Digest(encoded)
	// What the function is told comes from the encoding, which is what is journalled;
	// and so the caller's input need not outlive the call.
	order, err := abi.DecodeInput(encoded)
	if err != nil {
		out.Fault = abi.FaultBadOutput
		return err
	}
	i.Now = order.Now
	i.inputs.start(&i.input, i.program.settings, order, fuel)
	i.inputs.write()
	i.Fuel.Set(fuel)
	if err = i.offer(); err == nil {
		i.payInput()
		_, err = i.call(i.run)
		if i.exit != nil && *i.exit == 0 {
			err = nil
		}
	}
	i.api.settle(i)
	var answer *document
	if err == nil {
		answer, err = i.collect()
	}
	if written := i.payMarks(); written != nil && err != nil {
		err = fmt.Errorf("%w; %w", written, err)
	} else if written != nil {
		err = written
	}
	spent := int64(i.Fuel.Get())
	out.Fuel = fuel - uint64(max(spent, 0))
	if err != nil {
		return i.failed(err, spent, out)
	}
	w := &i.inputs
	price := pricing{d: answer, in: &w.in, line: w.line, variant: w.variant, exponent: w.exponent}
	result, err := price.price()
	if err != nil {
		out.Fault = abi.FaultBadOutput
		return err
	}
	out.SetOutput(result)
	return nil
}

// failed names the fault of an evaluation that gave no answer.
func (i *instance) failed(err error, fuel int64, out *abi.Verdict) error {
	// A new function has a new stack: recursion may have left one of megabytes.
	i.run = i.module.ExportedFunction(i.program.export)
	out.Fault = abi.FaultTrap
	switch {
	case fuel < 0:
		out.Fault, err = abi.FaultOutOfFuel, errInstructions
	case errors.Is(err, errWild): // a trap, whatever else
	case errors.Is(err, errOutputSize):
		out.Fault, err = abi.FaultBadOutput, errOutputSize
	case errors.Is(err, errInputSize), errors.Is(err, errOutput):
		out.Fault = abi.FaultBadOutput
	case i.denied.Get() != 0:
		err = fmt.Errorf("%w: %w", errMemory, err)
	case i.exit != nil:
		err = fmt.Errorf("%w with code %d", errExit, *i.exit)
	}
	return err
}

// payInput takes fuel for what writing the input took. When there is not enough, the
// function's first instruction ends the evaluation.
func (i *instance) payInput() {
	units := uint64(len(i.input.nodes))*unitsPerStep + uint64(len(i.input.text))/gas.BytesPerUnit + i.inputs.spent
	i.Take(units)
}

// offer gives the input to the function.
func (i *instance) offer() error {
	if i.inputs.tooLarge() {
		return errInputSize
	}
	switch i.program.io {
	case throughAPI:
		return i.api.offer(i)
	case throughJSON:
		i.buffer = i.input.appendJSON(i.buffer[:0], 0)
	case throughMessagePack, throughMemory:
		i.buffer = i.input.appendMessagePack(i.buffer[:0], 0)
	}
	if len(i.buffer) > InputBytesMax {
		return errInputSize
	}
	if i.program.io != throughMemory {
		i.stdin = i.buffer
		return nil
	}
	place, err := i.call(i.provider.ExportedFunction("initialize"), uint32(len(i.buffer)))
	if err != nil {
		return err
	}
	if err := i.give(place, i.buffer); err != nil {
		return fmt.Errorf("the provider's room for the input: %w", err)
	}
	return nil
}

// collect takes the output from the function.
func (i *instance) collect() (*document, error) {
	var err error
	switch i.program.io {
	case throughAPI:
		return i.api.collect(i)
	case throughJSON:
		err = i.answer.readJSON(i.stdout)
	case throughMessagePack:
		err = i.answer.readMessagePack(i.stdout)
	case throughMemory:
		err = i.finalise()
	}
	if err != nil {
		return nil, badOutput("%v", err)
	}
	return &i.answer, nil
}

// finalise reads what a provider says that the function wrote and logged.
func (i *instance) finalise() error {
	place, err := i.call(i.provider.ExportedFunction("finalize"))
	if err != nil {
		return err
	}
	numbers := i.At(place, 24)
	if numbers == nil {
		return errors.New("the provider's result is out of bounds")
	}
	part := func(n int) []byte {
		return i.At(binary.LittleEndian.Uint32(numbers[8*n:]), binary.LittleEndian.Uint32(numbers[8*n+4:]))
	}
	i.log.add(part(1))
	i.log.add(part(2))
	output := part(0)
	if len(output) > OutputBytesMax {
		return errOutputSize
	}
	return i.answer.readMessagePack(output)
}

// shared returns the bytes of the provider's own initial memory when they are the
// given ones: a copy for all functions.
func (e *Engine) shared(v *provider, memory []byte) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	if v.initial == nil {
		v.initial = bytes.Clone(memory)
	}
	if bytes.Equal(v.initial, memory) {
		return v.initial
	}
	return bytes.Clone(memory)
}
