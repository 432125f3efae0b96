package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == compileRule { // the engine's own child
		main()
	}
}

// Bounds on what one module may cost. Compiling has one far above what these
// modules take on a quiet machine, since tests share theirs. An evaluation may take
// loopsMax times as long as the plainest endless loop takes for the same fuel, at
// the same moment: instructions differ by that much. It is measured up to rounds
// times, since a moment can be a bad one.
const (
	compileMax = 40 * time.Second
	rounds     = 50
)

func engine(t testing.TB) *host.Engine {
	t.Helper()
	e, err := host.New(host.Config{Instances: 2, Compiler: []string{"/proc/self/exe", compileRule}, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func compile(t testing.TB, e *host.Engine, wasm []byte) *host.Program {
	t.Helper()
	p, err := e.Compile(t.Context(), wasm, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestVerdicts: each module comes to what it must, within its bounds, and after it
// another merchant's rule in the same engine prices as before.
func TestVerdicts(t *testing.T) {
	e := engine(t)
	honest := compile(t, e, ruleOf(discount("i64.const 990"), nil))
	loop := compile(t, e, ruleOf("loop void br 0 end"+gastest.Result, nil))
	names, all := Modules()
	if len(names) < 70 {
		t.Fatalf("%d modules", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			all[name].attack(t, e, loop)
			var v abi.Verdict
			if honest.Evaluate(order, abi.FuelDefault, &v, nil); v.Discount != 990 {
				t.Errorf("another rule was harmed: %v", v.Fault)
			}
		})
	}
}

func (m Module) attack(t *testing.T, e *host.Engine, loop *host.Program) {
	started := time.Now()
	p, err := e.Compile(t.Context(), m.Wasm, nil)
	if took := time.Since(started); took > compileMax {
		t.Errorf("compiling took %s, at most %s", took, compileMax)
	}
	if m.Refusal != "" || err != nil {
		var faults *gas.Error
		if !errors.As(err, &faults) || m.Refusal == "" || !strings.Contains(err.Error(), m.Refusal) {
			t.Fatalf("refused with %v, want %q", err, m.Refusal)
		}
		printable(t, err.Error())
		return
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	fuel := uint64(0)
	for n := range 3 {
		var v abi.Verdict
		var trace host.Trace
		p.Evaluate(order, abi.FuelDefault, &v, &trace)
		if v.Fault != m.Fault || v.Fuel > abi.FuelDefault || v.Discount != 0 || n > 0 && v.Fuel != fuel {
			t.Fatalf("%v after %d units, %d off, want %v (%v)", v.Fault, v.Fuel, v.Discount, m.Fault, trace.Err)
		}
		fuel = v.Fuel
	}
	for _, fuel := range []uint64{abi.FuelDefault, abi.FuelMax} {
		if took, plain := quickest(p, loop, fuel); took > loopsMax*plain {
			t.Errorf("%d units took %s, a plain loop %s", fuel, took, plain)
		}
	}
}

// quickest returns the shortest evaluation of each of two programs, taking turns
// until they are within the bound: what the rest of the machine does harms neither.
func quickest(p, loop *host.Program, fuel uint64) (took, plain time.Duration) {
	took, plain = time.Hour, time.Hour
	var v abi.Verdict
	for range rounds {
		start := time.Now()
		loop.Evaluate(order, fuel, &v, nil)
		between := time.Now()
		p.Evaluate(order, fuel, &v, nil)
		plain, took = min(plain, between.Sub(start)), min(took, time.Since(between))
		if took <= loopsMax*plain {
			break
		}
	}
	return took, plain
}

// printable: what a module is called must not reach a terminal or a log as it is.
func printable(t *testing.T, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\n' }); i >= 0 {
		t.Errorf("a control character in %q", text)
	}
}

// Of TestNeighbours.
const (
	batches      = 12                     // that the modules are divided into, for a measurement
	quietTime    = 100 * time.Millisecond // before each batch
	measurements = 8                      // at most; one that is within the bound is enough
	ratioMax     = 1.5                    // of hostile to quiet
)

// TestNeighbours: while all of these modules are compiled and run, batch by batch, the
// rules of another merchant are as quick as in the quiet moments between. It is a
// bound on what hostile modules can do to others, so one measurement within it proves
// it, whatever else the machine did during the others; a module that holds up its
// neighbours does so in all of them.
func TestNeighbours(t *testing.T) {
	e := engine(t)
	honest := []*host.Program{
		compile(t, e, ruleOf(discount("i64.const 990"), nil)),
		compile(t, e, ruleOf(discount("i32.const 8192 i64.load 3 24 i64.const 20 raw 7f"), nil)), // a twentieth
		compile(t, e, ruleOf("i32.const 1000 local.set 1 loop void local.get 1 i32.const 1 i32.sub local.tee 1 br_if 0 end "+gastest.Result,
			func(m *gastest.Module) { m.Funcs[gastest.FuncEvaluate].Locals = []byte{gastest.I32} })),
	}
	names, all := Modules()
	ratio := 0.0
	for range measurements {
		var quiet, hostile []time.Duration
		for batch := range slices.Chunk(names, (len(names)+batches-1)/batches) {
			end := time.Now().Add(quietTime)
			quiet = append(quiet, p99(t, honest, func() bool { return time.Now().After(end) }))
			var attack sync.WaitGroup
			var over atomic.Bool
			attack.Go(func() { attackWith(t, e, batch, all); over.Store(true) })
			hostile = append(hostile, p99(t, honest, over.Load))
			attack.Wait()
		}
		ratio = float64(median(hostile)) / float64(median(quiet))
		t.Logf("P99 quiet %s, hostile %s, ratio %.2f", median(quiet), median(hostile), ratio)
		if ratio <= ratioMax {
			return
		}
	}
	t.Errorf("the P99 of orders is %.2f times what it is without hostile modules", ratio)
}

// attackWith compiles modules one after the other, and runs each while the next is
// being compiled.
func attackWith(t *testing.T, e *host.Engine, names []string, all map[string]Module) {
	programs := make(chan *host.Program, len(names))
	go func() {
		defer close(programs)
		for _, name := range names {
			if p, err := e.Compile(t.Context(), all[name].Wasm, nil); err == nil {
				programs <- p
			}
		}
	}()
	var v abi.Verdict
	for p := range programs {
		for range rounds {
			p.Evaluate(order, abi.FuelDefault, &v, nil)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// p99 prices orders by all the rules, one after the other, until it is over.
func p99(t *testing.T, rules []*host.Program, over func() bool) time.Duration {
	t.Helper()
	var v abi.Verdict
	var took []time.Duration
	for !over() {
		begin := time.Now()
		for _, p := range rules {
			if p.Evaluate(order, abi.FuelDefault, &v, nil); v.Fault != abi.FaultNone {
				t.Fatal(v.Fault)
			}
		}
		took = append(took, time.Since(begin))
	}
	return ninetyNinth(took)
}

// ninetyNinth returns the P99, and sorts d.
func ninetyNinth(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)*99/100]
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
