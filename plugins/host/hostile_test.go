package host_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// hostile is a module that means harm, and what has to become of it: refused
// with a fault that says refusal, or run to a fault, or, harmless, to none.
type hostile struct {
	module  []byte
	refusal string
	fault   abi.Fault
}

// Bounds on what one hostile module may cost. Compiling has one far above what
// these modules take on a quiet machine, since tests share theirs. An evaluation
// may take hostileLoops times as long as the plainest endless loop takes for the
// same fuel, at the same moment: instructions differ by that much. It is measured
// up to hostileRounds times, since a moment can be a bad one.
const (
	hostileCompile = 20 * time.Second
	hostileRounds  = 50
)

// ruleOf returns a rule with some of it changed.
func ruleOf(evaluate string, change func(*gastest.Module)) []byte {
	m := gastest.Rule(evaluate)
	if change != nil {
		change(m)
	}
	return m.Encode()
}

// callTree is n functions that each call the next twice: 2^n calls, no loop.
func callTree(n int) []byte {
	return ruleOf("call 3"+gastest.Result, func(m *gastest.Module) {
		for i := range n - 1 {
			m.Funcs = append(m.Funcs, gastest.Func{Code: fmt.Sprintf("call %d call %d", 4+i, 4+i)})
		}
		m.Funcs = append(m.Funcs, gastest.Func{Code: "nop"})
	})
}

// frames is a recursion that keeps n values alive in each frame.
func frames(n int) []byte {
	return ruleOf("i32.const 1 call 3 drop"+gastest.Result, func(m *gastest.Module) {
		code := strings.Repeat("local.get 0 i32.load 0 0 ", n) + "local.get 0 call 3 " + strings.Repeat("i32.add ", n)
		m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: code})
	})
}

// diagonal stores to n pages whose marks together stand for n × n of them.
func diagonal(n int) []byte {
	code := strings.Builder{}
	for i := range n {
		fmt.Fprintf(&code, "i32.const %d i32.const 1 i32.store8 0 0 ", i*(4096+64*4096))
	}
	return ruleOf(code.String()+gastest.Result, func(m *gastest.Module) { m.MemoryMin = gas.MemoryPagesMax })
}

// blocksAndLocals is a function that keeps a compiler busy: n blocks that mix n
// locals.
func blocksAndLocals(n int) gastest.Func {
	code := strings.Builder{}
	for i := range n {
		fmt.Fprintf(&code, "local.get %d if void local.get %d local.set %d end ", i, i, (i*7)%n)
	}
	return gastest.Func{Locals: slices.Repeat([]byte{gastest.I32}, n), Code: code.String()}
}

// rebuilt writes its table, which takes a new instance.
func rebuilt(change func(*gastest.Module)) []byte {
	return ruleOf("i32.const 0 ref.null table.set 0"+gastest.Result, func(m *gastest.Module) {
		m.TableMin = 1
		if change != nil {
			change(m)
		}
	})
}

// start makes initialising a module take 4 units for each of n rounds.
func start(n int) func(*gastest.Module) {
	return func(m *gastest.Module) {
		m.Funcs[gastest.FuncBuffer] = gastest.Func{Type: gastest.TypeI32, Locals: []byte{gastest.I32}, Code: fmt.Sprintf(
			"i32.const %d local.set 1 loop void local.get 1 i32.const 1 i32.sub local.tee 1 br_if 0 end i32.const %d", n, gastest.BufferAt)}
	}
}

func globals(n int) func(*gastest.Module) {
	return func(m *gastest.Module) {
		m.Globals = slices.Repeat([]gastest.Global{{Type: gastest.I32, Init: "i32.const 0"}}, n)
	}
}

// claim is a section whose vector claims 2^32-1 entries.
func claim(id byte) []byte {
	return append([]byte("\x00asm\x01\x00\x00\x00"), gastest.Section(id, []byte{0xff, 0xff, 0xff, 0xff, 0x0f})...)
}

func hostiles() map[string]hostile {
	all := map[string]hostile{
		"endless loop":          {ruleOf("loop void br 0 end"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"endless loop, hidden":  {ruleOf("loop void block void i32.const 1 br_table2 1 1 1 end end"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"endless nested loops":  {ruleOf("loop void loop void loop void br 2 end end end"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"endless recursion":     {ruleOf("call 3"+gastest.Result, func(m *gastest.Module) { m.Funcs = append(m.Funcs, gastest.Func{Code: "call 3"}) }), "", abi.FaultTrap},
		"recursion, wide frame": {frames(2000), "", abi.FaultOutOfFuel},
		"recursion by table": {ruleOf("i32.const 0 call_indirect 0 0"+gastest.Result, func(m *gastest.Module) {
			m.Funcs[0].Code, m.TableMin, m.Elems = "i32.const 0 call_indirect 0 0", 1, []int{0}
		}), "", abi.FaultTrap},
		"2^60 calls":         {callTree(60), "", abi.FaultOutOfFuel},
		"gigabytes of fill":  {ruleOf("loop void i32.const 0 i32.const 1 i32.const 65536 memory.fill br 0 end"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"16 MiB fills":       {ruleOf("loop void i32.const 0 i32.const 1 i32.const 16777216 memory.fill br 0 end"+gastest.Result, func(m *gastest.Module) { m.MemoryMin = 256 }), "", abi.FaultOutOfFuel},
		"gigabytes of copy":  {ruleOf("loop void i32.const 0 i32.const 1 i32.const 65535 memory.copy br 0 end"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"fill out of bounds": {ruleOf("i32.const 65535 i32.const 1 i32.const 2 memory.fill"+gastest.Result, nil), "", abi.FaultTrap},
		"growth bomb":        {ruleOf("loop void i32.const 1 memory.grow drop br 0 end"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"growth at once":     {ruleOf("i32.const 255 memory.grow drop"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"table growth":       {ruleOf("ref.null i32.const 2000000000 table.grow 0 drop"+gastest.Result, func(m *gastest.Module) { m.TableMin = 1 }), "", abi.FaultOutOfFuel},
		"table growth bomb":  {ruleOf("loop void ref.null i32.const 100 table.grow 0 drop br 0 end"+gastest.Result, func(m *gastest.Module) { m.TableMin = 1 }), "", abi.FaultOutOfFuel},
		"table copies":       {ruleOf("loop void i32.const 0 i32.const 0 i32.const 60000 table.copy 0 0 br 0 end"+gastest.Result, func(m *gastest.Module) { m.TableMin = 65536 }), "", abi.FaultOutOfFuel},
		"diagonal of marks":  {diagonal(64), "", abi.FaultOutOfFuel},
		"half a diagonal":    {diagonal(16), "", abi.FaultNone},
		"log bomb": {gastest.Rule("loop void i32.const 0 i32.const 65536 call 0 br 0 end"+gastest.Result).
			WithImport("doorbuster", "log", gastest.TypeLog).Encode(), "", abi.FaultOutOfFuel},
		"random bomb": {gastest.Rule("loop void i32.const 0 i32.const 65536 call 0 drop br 0 end"+gastest.Result).
			WithImport("wasi_snapshot_preview1", "random_get", gastest.TypeTwo).Encode(), "", abi.FaultOutOfFuel},
		"host calls": {gastest.Rule("loop void i32.const 0 i32.const 0 call 0 br 0 end"+gastest.Result).
			WithImport("doorbuster", "log", gastest.TypeLog).Encode(), "", abi.FaultOutOfFuel},
		"references":             {ruleOf("loop void ref.func 0 drop br 0 end"+gastest.Result, func(m *gastest.Module) { m.TableMin, m.Elems = 1, []int{0} }), "", abi.FaultOutOfFuel},
		"growth by nothing":      {ruleOf("loop void i32.const 0 memory.grow drop br 0 end"+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"table growth by one":    {ruleOf("loop void ref.null i32.const 1 table.grow 0 drop br 0 end"+gastest.Result, func(m *gastest.Module) { m.TableMin = 1 }), "", abi.FaultOutOfFuel},
		"rebuild":                {rebuilt(nil), "", abi.FaultNone},
		"rebuild of 10 pages":    {rebuilt(func(m *gastest.Module) { m.MemoryMin = 10 }), "", abi.FaultNone},
		"rebuild of 256 pages":   {rebuilt(func(m *gastest.Module) { m.MemoryMin = 256 }), "", abi.FaultOutOfFuel},
		"rebuild, long start":    {rebuilt(start(1_600_000)), "", abi.FaultOutOfFuel},
		"rebuild, short start":   {rebuilt(start(10_000)), "", abi.FaultNone},
		"rebuild by growth":      {ruleOf("i32.const 1 memory.grow drop"+gastest.Result, start(1_600_000)), "", abi.FaultOutOfFuel},
		"rebuild of elements":    {rebuilt(func(m *gastest.Module) { m.TableMin, m.Elems = 60_000, make([]int, 60_000) }), "", abi.FaultOutOfFuel},
		"rebuild of some":        {rebuilt(func(m *gastest.Module) { m.TableMin, m.Elems = 1000, make([]int, 1000) }), "", abi.FaultNone},
		"rebuild of a table":     {rebuilt(func(m *gastest.Module) { m.TableMin = gas.TableEntriesMax }), "", abi.FaultNone},
		"rebuild of data":        {rebuilt(func(m *gastest.Module) { m.Data = slices.Repeat([]gastest.Data{{Bytes: "x"}}, 99_000) }), "", abi.FaultOutOfFuel},
		"rebuild of some data":   {rebuilt(func(m *gastest.Module) { m.Data = slices.Repeat([]gastest.Data{{Bytes: "\x00"}}, 3000) }), "", abi.FaultNone},
		"rebuild of globals":     {rebuilt(globals(9_900)), "", abi.FaultOutOfFuel},
		"rebuild of few globals": {rebuilt(globals(1000)), "", abi.FaultNone},
		"vector global": {ruleOf("global.get 0 global.set 0"+gastest.Result, func(m *gastest.Module) {
			m.Globals = []gastest.Global{{Type: gastest.V128, Mutable: true, Init: "raw fd0c00000000000000000000000000000000"}}
		}), "cannot put back a v128", 0},
		"50000 locals":      {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[0].Locals = make([]byte, 50_000) }), "at most 4096", 0},
		"most locals":       {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[0].Locals = slices.Repeat([]byte{gastest.I64}, gas.LocalsMax) }), "", 0},
		"deep nesting":      {ruleOf(strings.Repeat("block void ", 50_000)+strings.Repeat("end ", 50_000)+gastest.Result, nil), "nest deeper", 0},
		"deepest nesting":   {ruleOf(strings.Repeat("block void ", gas.NestingMax)+strings.Repeat("end ", gas.NestingMax)+gastest.Result, nil), "", 0},
		"deepest loops":     {ruleOf(strings.Repeat("loop void ", gas.NestingMax)+strings.Repeat("end ", gas.NestingMax)+gastest.Result, nil), "", 0},
		"deepest ifs":       {ruleOf(strings.Repeat("local.get 0 if void ", gas.NestingMax)+strings.Repeat("end ", gas.NestingMax)+gastest.Result, nil), "", 0},
		"huge br_table":     {ruleOf("block void i32.const 0 raw 0effffff7f"+strings.Repeat("00", 100)+" end"+gastest.Result, nil), "do not fit", 0},
		"largest br_table":  {ruleOf("block void i32.const 0 raw 0e808001"+strings.Repeat("00", gas.BranchTargetsMax+1)+" end"+gastest.Result, nil), "", 0},
		"giant custom":      {ruleOf(gastest.Result, func(m *gastest.Module) { m.Custom = map[string]string{"x": strings.Repeat("x", 3<<20)} }), "", 0},
		"names of controls": {ruleOf("unreachable", func(m *gastest.Module) { m.Custom = map[string]string{"name": "\x01\x05\x01\x02\x02\x1b\x07"} }), "", abi.FaultTrap},
		"export of controls": {ruleOf("unreachable", func(m *gastest.Module) {
			m.Exports = append(m.Exports, gastest.Export{Name: "a\x1b[2J\n\x00", Index: 2})
		}), "", abi.FaultTrap},
		"import of controls":  {gastest.Rule(gastest.Result).WithImport("\x1b[2J", "\x00", 0).Encode(), `"\x1b[2J"."\x00" is not offered`, 0},
		"start function":      {ruleOf(gastest.Result, func(m *gastest.Module) { m.Start = 1 }), "start function", 0},
		"output at the end":   {ruleOf(fmt.Sprintf("i64.const %d", 65520<<32|32), nil), "", abi.FaultBadOutput},
		"output wraps":        {ruleOf("i64.const -1", nil), "", abi.FaultBadOutput},
		"negative discount":   {ruleOf(discount("i64.const -1"), nil), "", abi.FaultBadOutput},
		"too large discount":  {ruleOf(discount("i64.const 9901"), nil), "", abi.FaultBadOutput},
		"buffer out of reach": {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[gastest.FuncBuffer].Code = "i32.const -1" }), "out of bounds", 0},
		"memory of 4 GiB":     {ruleOf(gastest.Result, func(m *gastest.Module) { m.MemoryMin = 65536 }), "at most 256", 0},
		"endless start":       {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[gastest.FuncBuffer].Code = "loop i32 br 0 end" }), "out of fuel", 0},
		"injected fuel":       {ruleOf("i64.const 9 global.set 0"+gastest.Result, nil), "global 0 of 0", 0},
		"injected export":     {ruleOf(gastest.Result, func(m *gastest.Module) { m.Exports = append(m.Exports, gastest.Export{Name: gas.GlobalFuel, Index: 2}) }), "are the host's", 0},
		"injected function":   {ruleOf("call 4"+gastest.Result, nil), "function 4 of 3", 0},
		"many functions": {ruleOf(gastest.Result, func(m *gastest.Module) {
			m.Funcs = append(m.Funcs, make([]gastest.Func, gas.FunctionsMax-3)...)
		}), "", 0},
		"too many functions": {ruleOf(gastest.Result, func(m *gastest.Module) {
			m.Funcs = append(m.Funcs, make([]gastest.Func, gas.FunctionsMax)...)
		}), "at most 20000", 0},
		"one long function":      {ruleOf(strings.Repeat("local.get 0 i32.load 0 0 drop ", 40_000)+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"stores without end":     {ruleOf(strings.Repeat("local.get 0 local.get 0 i32.store 0 0 ", 35_000)+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"blocks and locals":      {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[0] = blocksAndLocals(2000) }), "in one function", 0},
		"most blocks and locals": {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[0] = blocksAndLocals(720) }), "", 0},
	}
	for id := range byte(13) {
		if id != 8 { // the start section is no vector
			all[fmt.Sprintf("claim of section %d", id)] = hostile{claim(id), "section, offset", 0}
		}
	}
	return all
}

// TestHostile runs every hostile module. After each, another merchant's rule in
// the same engine prices as before.
func TestHostile(t *testing.T) {
	e := engine(t, host.Config{Instances: 1})
	honest, err := e.Compile(t.Context(), gastest.Rule(discount("i64.const 990")).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	loop, err := e.Compile(t.Context(), ruleOf("loop void br 0 end"+gastest.Result, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range hostiles() {
		t.Run(name, func(t *testing.T) {
			h.attack(t, e, loop)
			if v, trace := evaluate(honest, order); v.Discount != 990 {
				t.Errorf("another rule was harmed: %v %v", v.Fault, trace.Err)
			}
		})
	}
}

func (h hostile) attack(t *testing.T, e *host.Engine, loop *host.Program) {
	started := time.Now()
	p, err := e.Compile(t.Context(), h.module, nil)
	if took := time.Since(started); took > hostileCompile {
		t.Errorf("compiling took %s, at most %s", took, hostileCompile)
	}
	if h.refusal != "" || err != nil {
		var faults *gas.Error
		if !errors.As(err, &faults) || h.refusal == "" || !strings.Contains(err.Error(), h.refusal) {
			t.Fatalf("refused with %v, want %q", err, h.refusal)
		}
		printable(t, err.Error())
		return
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	for range 3 {
		var v abi.Verdict
		var trace host.Trace
		p.Evaluate(order, abi.FuelDefault, &v, &trace)
		if v.Fault != h.fault || v.Fuel > abi.FuelDefault || v.Discount != 0 {
			t.Fatalf("%v after %d units, want %v (%v)", v.Fault, v.Fuel, h.fault, trace.Err)
		}
	}
	for _, fuel := range []uint64{abi.FuelDefault, abi.FuelMax} {
		took, plain := quickest(p, loop, fuel)
		if took > hostileLoops*plain {
			t.Errorf("%d units took %s, a plain loop %s", fuel, took, plain)
		}
		t.Logf("%d units took %s, %.1f times a plain loop", fuel, took, float64(took)/float64(plain))
	}
}

// quickest returns the shortest evaluation of each of two programs, taking
// turns until they are within the bound: what the rest of the machine does harms
// neither.
func quickest(p, loop *host.Program, fuel uint64) (took, plain time.Duration) {
	took, plain = time.Hour, time.Hour
	var v abi.Verdict
	for range hostileRounds {
		start := time.Now()
		loop.Evaluate(order, fuel, &v, nil)
		between := time.Now()
		p.Evaluate(order, fuel, &v, nil)
		plain, took = min(plain, between.Sub(start)), min(took, time.Since(between))
		if took <= hostileLoops*plain {
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

// FuzzCompile: no bytes harm the engine, and what compiles can be evaluated.
func FuzzCompile(f *testing.F) {
	for _, h := range hostiles() {
		if len(h.module) < 1<<10 {
			f.Add(h.module)
		}
	}
	f.Add(generate(1))
	e := engine(f, host.Config{Instances: 1})
	f.Fuzz(func(t *testing.T, wasm []byte) {
		p, err := e.Compile(t.Context(), wasm, nil)
		if err != nil {
			return
		}
		var v abi.Verdict
		p.Evaluate(order, abi.FuelDefault, &v, nil)
		if v.Fuel > abi.FuelDefault || v.Discount < 0 || v.Discount > order.Subtotal {
			t.Errorf("%+v", v.Output)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
