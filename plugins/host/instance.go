package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/runtime/yield"
)

// state is all that an evaluation can change and that is put back.
type state struct {
	memory  []byte
	mapped  mapped   // has it
	globals []uint64 // of gas.Module.Mutable
	random  uint64
}

// instance is one instantiated module. One goroutine uses it at a time.
type instance struct {
	Guest
	program *Program
	module  api.Module
	ctx     context.Context // carries the instance to the imports
	memory  api.Memory
	bytes   []byte // all of the memory, for as long as it has not grown
	buffer  uint32 // where the input goes

	evaluateFn api.Function // gas.FunctionEvaluate
	stack      [results]uint64

	rebuild, price, dirty0, dirty1 api.MutableGlobal
	mutable                        []api.MutableGlobal

	// What one evaluation leaves, besides the module's own state.
	log   guestLog
	input int // bytes of the buffer that are not in the initial state
}

// What the stack of a call holds: of gas.FunctionEvaluate the parameters, then the
// results; of the others the parameter, if any, then the result, if any.
const (
	paramLength = 0
	paramFuel   = 1

	resultAnswer  = 0
	resultFuel    = 1
	resultDirty0  = 2
	resultDirty1  = 3
	resultRebuild = 4
	results       = 5
)

// initNow is the clock during initialisation, Unix ms. It is the same for ever,
// and not 0, which Go's runtime takes for a broken clock.
const initNow = 1

// wasmPageShift divides by WebAssembly's page of 64 KiB.
const wasmPageShift = 16

// callContext carries the instance of a call to the imports. The engine asks it for
// values of its own at every call, so that it looks no further.
type callContext struct {
	context.Context
	instance *instance
}

// instanceKey finds the instance in the context of a call.
type instanceKey struct{}

// Value returns the instance, for instanceKey.
func (c *callContext) Value(key any) any {
	if key == (instanceKey{}) {
		return c.instance
	}
	return nil
}

// instanceConfig is how instances are made: nameless, since there are many of a module, and
// started by initialise. The source of random numbers is never asked (see Guest.Random);
// without one wazero seeds another for each instance.
var instanceConfig = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(noRandom{})

type noRandom struct{}

func (noRandom) Read([]byte) (int, error) { return 0, io.EOF }

// newInstance instantiates the program's module and initialises it. The first
// instance of a program sets the initial state; every other one must come to
// the same.
func newInstance(p *Program) (*instance, error) {
	i := &instance{program: p}
	i.Memory, i.Write = i, func(_ uint32, text []byte) { i.log.add(text) }
	i.ctx = &callContext{context.Background(), i}
	var memory mapped
	module, err := p.engine.runtime.InstantiateModule(memory.Context(i.ctx, p.compiled), p.compiled, instanceConfig)
	if err != nil {
		memory.Free()
		return nil, err
	}
	i.module, i.memory = module, module.ExportedMemory("memory")
	if i.memory == nil || !p.module.Fits(int(i.memory.Size())) {
		i.close()
		return nil, errors.New("the memory is not the one that the module was rewritten for")
	}
	i.bindGlobals()
	if err := i.initialise(); err != nil {
		i.close()
		if i.log.n > 0 {
			err = fmt.Errorf("%w; the module logged %q", err, i.log.text[:i.log.n])
		}
		return nil, err
	}
	if p.initial == nil {
		p.initial = i.state()
	} else if !i.at(p.initial) {
		i.close()
		return nil, errors.New("initialising the module again came to another state")
	}
	return i, nil
}

func (i *instance) close() { _ = i.module.Close(context.Background()) }

func (i *instance) bindGlobals() {
	global := func(name string) api.MutableGlobal {
		return i.module.ExportedGlobal(name).(api.MutableGlobal) // gas injects them, mutable
	}
	i.Fuel, i.rebuild, i.price = global(gas.GlobalFuel), global(gas.GlobalRebuild), global(gas.GlobalPrice)
	i.dirty0, i.dirty1 = global(gas.GlobalDirty0), global(gas.GlobalDirty1)
	for _, name := range i.program.module.Mutable {
		i.mutable = append(i.mutable, global(name))
	}
}

// initialise runs _initialize, rule_buffer and rule_init under one budget.
func (i *instance) initialise() error {
	m := i.program.module
	fuel := uint64(InitFuel)
	run := func(name string, argument uint64) (uint64, error) {
		result, err := i.call(name, argument, fuel)
		left := int64(i.Fuel.Get())
		if left < 0 {
			return 0, fmt.Errorf("%s: %w", name, ErrOutOfFuel)
		}
		fuel = uint64(left)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		return result, nil
	}
	if m.Initialize {
		if _, err := run("_initialize", 0); err != nil {
			return err
		}
	}
	address, err := run("rule_buffer", abi.InputBytesMax)
	if err != nil {
		return err
	}
	i.buffer = uint32(address)
	if uint64(i.buffer)+abi.InputBytesMax > uint64(i.memory.Size()) {
		return fmt.Errorf("rule_buffer: %d bytes at %d are out of bounds", abi.InputBytesMax, i.buffer)
	}
	if m.RuleInit {
		copy(i.view()[i.buffer:], i.program.config)
		refusal, err := run("rule_init", uint64(len(i.program.config)))
		if err != nil {
			return err
		}
		if code := int32(uint32(refusal)); code != 0 {
			return fmt.Errorf("rule_init refused the configuration with %d", code)
		}
	}
	i.price.Set(uint64(m.RebuildPrice(i.memory.Size()>>wasmPageShift, InitFuel-fuel)))
	if err := i.module.ExportedFunction(gas.FunctionKeep).CallWithStack(i.ctx, nil); err != nil {
		return err
	}
	i.evaluateFn, i.bytes, i.log = i.module.ExportedFunction(gas.FunctionEvaluate), i.view(), guestLog{}
	return nil
}

// call calls one of the source's functions under a budget of fuel.
func (i *instance) call(name string, argument, fuel uint64) (uint64, error) {
	i.Now = initNow
	i.Fuel.Set(fuel)
	i.stack[0] = argument
	err := i.module.ExportedFunction(name).CallWithStack(i.ctx, i.stack[:])
	return i.stack[0], err
}

// view is the whole memory. It is valid until the module grows it.
func (i *instance) view() []byte {
	b, _ := i.memory.Read(0, i.memory.Size())
	return b
}

// state copies what reset has to put back.
func (i *instance) state() *state {
	s := &state{random: i.Random}
	s.memory = s.mapped.copyOf(i.view())
	for _, g := range i.mutable {
		s.globals = append(s.globals, g.Get())
	}
	return s
}

// at says whether the instance is in the state.
func (i *instance) at(s *state) bool {
	for n, g := range i.mutable {
		if g.Get() != s.globals[n] {
			return false
		}
	}
	memory := i.view()
	if i.Random != s.random || len(memory) != len(s.memory) {
		return false
	}
	return yield.Pieces(len(memory), func(from, to int) bool { // as in copyOf
		return bytes.Equal(memory[from:to], s.memory[from:to])
	})
}

// dirty returns the marks of what was written.
func (i *instance) dirty() gas.Dirty {
	d := gas.Dirty{Low: i.dirty0.Get()}
	if i.program.module.Pages.Two {
		d.High = i.dirty1.Get()
	}
	return d
}

func (i *instance) setDirty(d gas.Dirty) {
	i.dirty0.Set(d.Low)
	if i.program.module.Pages.Two {
		i.dirty1.Set(d.High)
	}
}

// reset puts the initial state back, but for the memory, the globals and the input,
// which the next evaluation puts back itself before it runs. It returns false when that
// is impossible and the instance has to be replaced.
func (i *instance) reset() bool {
	if i.stack[resultRebuild] != 0 {
		return false
	}
	i.Random = i.program.initial.random
	i.log.n, i.log.dropped = 0, 0
	return true
}

// restore puts back the memory that the evaluation before wrote to. The next one does
// it, and not that one: the copies then reach memory while it encodes and hashes its
// input, where giving the instance back would wait for them.
func (i *instance) restore() {
	if !plantKeepRuleState {
		i.program.module.Restore(i.bytes, i.program.initial.memory, gas.Dirty{Low: i.stack[resultDirty0], High: i.stack[resultDirty1]})
	}
}

// setInput notes that the next n bytes of input are in the buffer, and puts back what
// a longer input before them has left behind them.
func (i *instance) setInput(n int) {
	if n < i.input {
		copy(i.bytes[int(i.buffer)+n:int(i.buffer)+i.input], i.program.initial.memory[int(i.buffer)+n:])
	}
	i.input = n
}
