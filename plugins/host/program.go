package host

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
)

// Program is a compiled rule, ready to price orders.
type Program struct {
	engine   *Engine
	module   *gas.Module
	compiled wazero.CompiledModule
	discard  func() // removes the code from disk that was made for this program
	config   []byte

	// initial is the state that every evaluation starts from: the first
	// instance's, when its initialisation ended. Written before the program is
	// shared.
	initial *state

	slots   []slot       // the first made of them have an instance
	made    atomic.Int32 // rises only
	growing atomic.Bool  // nobody else need begin

	mu     sync.Mutex // held while an instance is added
	closed atomic.Bool
}

// Imports names the functions that the source module imports, "module.name".
func (p *Program) Imports() []string { return p.module.Imports }

// slot holds one instance.
type slot struct {
	mu       sync.Mutex // held during an evaluation; guards instance
	instance *instance
	_        [112]byte // a cache line pair of its own
}

// fill makes the slot's instance. The caller holds mu.
func (s *slot) fill(p *Program) (err error) {
	s.instance, err = newInstance(p)
	return err
}

// empty closes the slot's instance. The caller holds mu.
func (s *slot) empty() {
	if s.instance != nil {
		s.instance.close()
		s.instance = nil
	}
}

// grow adds an instance, if the program is open and has room for one.
func (p *Program) grow() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.made.Load()
	if p.closed.Load() || int(n) == len(p.slots) {
		return nil
	}
	if err := p.slots[n].fill(p); err != nil {
		return err
	}
	p.made.Store(n + 1)
	return nil
}

// growLater adds an instance on a goroutine of its own. Where that fails, which
// only a lack of memory explains, the program goes on with those that it has.
func (p *Program) growLater() {
	if int(p.made.Load()) == len(p.slots) || p.growing.Swap(true) {
		return
	}
	go func() {
		if p.grow() == nil {
			p.growing.Store(false)
		}
	}()
}

// Trace is what an evaluation leaves for people to read.
type Trace struct {
	Logs    []byte // at most abi.LogBytesMax; each call of log ends with a newline
	Dropped int    // bytes that did not fit
	Err     error  // what the fault was, nil without one
}

// Evaluate prices one order: it encodes in, runs the rule with the given budget
// of fuel (at most abi.FuelMax), and fills out, but for its version. trace may be
// nil. It does not allocate without a trace and without a fault. It returns false,
// and has not run the rule, when the program is closed.
//
// An input that does not fit the ABI is FaultBadOutput without fuel used: the
// caller bounds what goes into an order, so no order that was accepted gets there.
func (p *Program) Evaluate(in *abi.Input, fuel uint64, out *abi.Verdict, trace *Trace) bool {
	s := p.take(uint32(out.Digest)) // of the evaluation before: as good as random
	defer s.mu.Unlock()
	out.Reset()
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
	err := i.evaluate(in, min(fuel, abi.FuelMax), out)
	trace.Note(i.log.text[:i.log.n], i.log.dropped, err)
	if !i.reset() {
		s.empty()
		// The evaluation has paid for this. A failure shows at the next one, which
		// tries again.
		_ = s.fill(p)
	}
	return true
}

// take locks a slot that is free, and begins to look for it where seed says: callers
// that begin elsewhere do not meet. When none is free, it waits for one, at most for as
// long as an evaluation takes, and has one more instance made: orders do not wait
// for that.
func (p *Program) take(seed uint32) *slot {
	slots := p.slots[:p.made.Load()]
	first := int(uint64(seed) * uint64(len(slots)) >> 32)
	for at, left := first, len(slots); left > 0; left-- {
		if s := &slots[at]; s.mu.TryLock() {
			return s
		}
		if at++; at == len(slots) {
			at = 0
		}
	}
	p.growLater()
	s := &slots[first]
	s.mu.Lock()
	return s
}

// Close frees the program when its last evaluation has ended. It may be called
// while others evaluate.
func (p *Program) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Swap(true) {
		return nil
	}
	for i := range p.slots {
		s := &p.slots[i]
		s.mu.Lock()
		s.empty()
		s.mu.Unlock()
	}
	p.initial.mapped.Free()
	return p.compiled.Close(context.Background())
}

// Abandon is Close of a program that is not kept after all: nor is its code on disk,
// unless it was there before.
func (p *Program) Abandon() error {
	err := p.Close()
	p.discard()
	return err
}

// Note copies what an evaluation leaves. t may be nil.
func (t *Trace) Note(logs []byte, dropped int, err error) {
	if t != nil {
		t.Logs, t.Dropped, t.Err = append(t.Logs[:0], logs...), dropped, err
	}
}

var errExit = errors.New("the module ended itself (proc_exit)")

// evaluate runs the rule. The instance is dirty afterwards.
func (i *instance) evaluate(in *abi.Input, fuel uint64, out *abi.Verdict) error {
	i.restore()
	input, err := in.Append(i.bytes[i.buffer : i.buffer : i.buffer+abi.InputBytesMax])
	if err != nil {
		i.stack = [results]uint64{} // nothing ran
		out.Fault = abi.FaultBadOutput
		return err
	}
	i.setInput(len(input))
	out.Digest = abi.Digest(input)
	i.Now = in.Now
	i.stack = [results]uint64{paramLength: uint64(len(input)), paramFuel: fuel}
	if err := i.evaluateFn.CallWithStack(i.ctx, i.stack[:]); err != nil {
		return i.trapped(err, fuel, out)
	}
	out.Fuel = fuel - i.stack[resultFuel]
	memory := i.bytes
	if i.stack[resultRebuild] != 0 {
		memory = i.view()
	}
	if err := out.DecodeOutput(memory, i.stack[resultAnswer], in.Subtotal-in.DiscountSoFar); err != nil {
		out.Fault = abi.FaultBadOutput
		return err
	}
	return nil
}

// trapped says what became of an evaluation that trapped, and brings the stack to what
// the call would have left there.
func (i *instance) trapped(err error, fuel uint64, out *abi.Verdict) error {
	d, left := i.dirty(), int64(i.Fuel.Get())
	i.stack = [results]uint64{resultDirty0: d.Low, resultDirty1: d.High, resultRebuild: i.rebuild.Get()}
	// A new function has a new stack: recursion may have left one of megabytes.
	i.evaluateFn = i.module.ExportedFunction(gas.FunctionEvaluate)
	if left < 0 {
		out.Fault, out.Fuel = abi.FaultOutOfFuel, fuel
		return ErrOutOfFuel
	}
	out.Fault, out.Fuel = abi.FaultTrap, fuel-uint64(left)
	return err
}
