package host_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// generator writes programs that end: random ones, valid by construction, whose
// loops count down. They may trap.
//
// Locals: 0 the parameter, 1-3 i32, 4-6 i64, 7-8 f64, 9-11 loop counters by depth,
// 12 a v128.
type generator struct {
	r     *rand.Rand
	b     strings.Builder
	loops int
	calls bool // may call the helper function
}

var generatedLocals = []byte{
	gastest.I32, gastest.I32, gastest.I32, gastest.I64, gastest.I64, gastest.I64, gastest.F64, gastest.F64,
	gastest.I32, gastest.I32, gastest.I32, gastest.V128,
}

func (g *generator) emit(format string, args ...any) { fmt.Fprintf(&g.b, format+" ", args...) }

func (g *generator) pick(options ...func()) { options[g.r.IntN(len(options))]() }

// address leaves an address that is in bounds, nearly always.
func (g *generator) address(depth int) {
	if g.r.IntN(4) == 0 {
		g.emit("i32.const %d", 5000+g.r.IntN(80)) // where stores may be fixed
		return
	}
	g.i32(depth)
	if g.r.IntN(60) > 0 {
		g.emit("i32.const 0xfff7 i32.and")
	}
}

func (g *generator) i32(depth int) {
	if depth <= 0 {
		g.pick(
			func() { g.emit("i32.const %d", int32(g.r.Uint32())>>g.r.IntN(32)) },
			func() { g.emit("local.get %d", g.r.IntN(4)) },
			func() { g.emit("global.get 0") },
		)
		return
	}
	binary := func(op string) func() {
		return func() { g.i32(depth - 1); g.i32(depth - 1); g.emit(op) }
	}
	g.pick(
		binary("i32.add"), binary("i32.sub"), binary("i32.mul"), binary("i32.xor"), binary("i32.shl"), binary("i32.lt_s"),
		func() { g.i32(depth - 1); g.emit("i32.const 3 i32.or"); g.i32(depth - 1); g.emit("i32.div_u") },
		func() { g.address(depth - 1); g.emit("i32.load 0 %d", g.r.IntN(8)) },
		func() { g.i64(depth - 1); g.emit("i32.wrap_i64") },
		func() { g.emit("memory.size") },
		func() {
			g.i32(depth - 1)
			g.emit("if i32")
			g.i32(depth - 1)
			g.emit("else")
			g.i32(depth - 1)
			g.emit("end")
		},
		func() {
			g.emit("block i32")
			g.i32(depth - 1)
			g.i32(depth - 1)
			g.emit("br_if 0")
			g.emit("drop")
			g.i32(depth - 1)
			g.emit("end")
		},
		func() { g.f64(depth - 1); g.emit("raw fc02") }, // i32.trunc_sat_f64_s
		func() {
			if g.calls {
				g.i32(depth - 1)
				g.emit("call %d", gastest.RuleFuncs)
			} else {
				g.emit("i32.const 5")
			}
		},
		func() {
			g.i32(depth - 1)
			g.emit("i32.const 3 i32.and call_indirect %d 0", gastest.TypeVoid)
			g.emit("i32.const 1")
		},
	)
}

func (g *generator) i64(depth int) {
	if depth <= 0 {
		g.pick(
			func() { g.emit("i64.const %d", int64(g.r.Uint64())>>g.r.IntN(64)) },
			func() { g.emit("local.get %d", 4+g.r.IntN(3)) },
		)
		return
	}
	binary := func(op string) func() {
		return func() { g.i64(depth - 1); g.i64(depth - 1); g.emit(op) }
	}
	g.pick(
		binary("i64.add"), binary("i64.mul"), binary("i64.xor"),
		func() { g.i32(depth - 1); g.emit("i64.extend_i32_s") },
		func() { g.address(depth - 1); g.emit("i64.load 0 %d", g.r.IntN(8)) },
		func() { g.f64(depth - 1); g.emit("raw fc06") }, // i64.trunc_sat_f64_s
		func() { g.emit("local.get 12 i64x2.extract_lane %d", g.r.IntN(2)) },
	)
}

// f64 values reach integers by truncation only, where every NaN is 0: the
// source's NaN bits are the machine's.
func (g *generator) f64(depth int) {
	if depth <= 0 {
		g.pick(
			func() { g.emit("f64.const %g", g.r.NormFloat64()*1e6) },
			func() { g.emit("local.get %d", 7+g.r.IntN(2)) },
			func() { g.emit("f64.const nan") },
		)
		return
	}
	binary := func(op string) func() {
		return func() { g.f64(depth - 1); g.f64(depth - 1); g.emit(op) }
	}
	g.pick(
		binary("f64.add"), binary("f64.sub"), binary("f64.mul"), binary("f64.div"),
		func() { g.f64(depth - 1); g.emit("f64.sqrt") },
		func() { g.i32(depth - 1); g.emit("f64.convert_i32_s") },
		func() { g.f64(depth - 1); g.emit("f32.demote_f64 f64.promote_f32") },
	)
}

func (g *generator) statements(n, depth int) {
	for range n {
		g.statement(depth)
	}
}

func (g *generator) statement(depth int) {
	if depth <= 0 {
		g.i32(1)
		g.emit("local.set %d", 1+g.r.IntN(3))
		return
	}
	g.pick(
		func() { g.i64(2); g.emit("local.set %d", 4+g.r.IntN(3)) },
		func() { g.f64(2); g.emit("local.set %d", 7+g.r.IntN(2)) },
		func() { g.i32(2); g.emit("global.set 0") },
		func() { g.i32(1); g.emit("i32x4.splat local.set 12") },
		func() {
			g.address(2)
			g.i32(2)
			g.emit([]string{"i32.store", "i32.store8", "i32.store16"}[g.r.IntN(3)]+" 0 %d", g.r.IntN(8))
		},
		func() {
			g.address(2)
			g.i64(2)
			g.emit([]string{"i64.store", "i64.store8", "i64.store16", "i64.store32"}[g.r.IntN(4)]+" 0 %d", g.r.IntN(8))
		},
		func() {
			g.address(1)
			g.emit("local.get 12")
			g.emit([]string{"v128.store 0 0", "v128.store64_lane 0 3 1"}[g.r.IntN(2)])
		},
		func() {
			g.address(1)
			g.i32(1)
			g.emit("i32.const %d memory.fill", g.r.IntN(3000))
		},
		func() {
			g.address(1)
			g.address(1)
			g.emit("i32.const %d memory.copy", g.r.IntN(3000))
		},
		func() { g.emit("i32.const %d i32.const 0 i32.const 4 memory.init 1 0", 0x1000*g.r.IntN(16)) },
		func() {
			g.i32(1)
			g.emit("if void")
			g.statements(2, depth-1)
			if g.r.IntN(2) > 0 {
				g.emit("else")
				g.statements(1, depth-1)
			}
			g.emit("end")
		},
		func() { g.loop(depth) },
		func() {
			g.emit("block void block void")
			g.statements(1, depth-1)
			g.i32(1)
			g.emit("br_table2 0 1 0 end")
			g.statements(1, depth-1)
			g.emit("end")
		},
		func() {
			g.i32(1)
			g.emit("i32.const 7 i32.and i32.eqz if void")
			g.i64(1)
			g.emit([]string{"return", "br 1"}[g.r.IntN(2)])
			g.emit("end")
		},
		func() { g.emit("i32.const %d memory.grow local.set 1", []int{0, 0, 1, 3, 100_000}[g.r.IntN(5)]) },
		func() { g.emit("i32.const %d ref.func 0 table.set 0", g.r.IntN(4)) },
		func() { g.emit("data.drop 0 elem.drop 0") }, // active ones: dropped already
	)
}

// loop counts down from a small number.
func (g *generator) loop(depth int) {
	if g.loops == 3 {
		return
	}
	counter := 9 + g.loops
	g.loops++
	g.emit("i32.const %d local.set %d loop void", 1+g.r.IntN(4), counter)
	g.statements(2, depth-1)
	g.emit("local.get %d i32.const 1 i32.sub local.tee %d i32.const 0 i32.lt_s i32.eqz br_if 0 end", counter, counter)
	g.loops--
}

// generate returns the module of a seed.
func generate(seed uint64) []byte {
	g := &generator{r: rand.New(rand.NewPCG(seed, 0))}
	program := func(calls bool, statements int) string {
		g.b.Reset()
		g.calls = calls
		g.statements(statements, 3)
		g.i64(2)
		return g.b.String()
	}
	helper := program(false, 2) + " i32.wrap_i64"
	helper = strings.NewReplacer(" return", " i32.wrap_i64 return", " br 1", " i32.wrap_i64 return").Replace(helper)
	m := gastest.Rule(strings.ReplaceAll(program(true, 8), " br 1", " return"), generatedLocals...)
	m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Locals: generatedLocals, Code: helper})
	m.TableMin, m.TableMax, m.Elems = 4, 10, []int{0, 0, 0}
	m.Globals = []gastest.Global{{Type: gastest.I32, Mutable: true, Init: "i32.const 11"}}
	m.Data = []gastest.Data{{At: 0, Bytes: "some data"}, {At: -1, Bytes: "more"}}
	m.MemoryMin = []int{1, 1, 2, 4, 6}[g.r.IntN(5)]
	m.MemoryMax = m.MemoryMin + 2
	return m.Encode()
}

// ending is how a run ended.
type ending struct {
	trapped string
	result  uint64
	fuel    uint64
	memory  []byte
	globals []uint64
}

// run runs a module's rule_evaluate in a runtime of its own making, without the
// host: rewritten or as it is.
func run(t *testing.T, config wazero.RuntimeConfig, wasm []byte, module *gas.Module) (end ending) {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, config)
	defer r.Close(ctx)
	m, err := r.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	const fuel = 1 << 40
	whole := func() []byte { b, _ := m.Memory().Read(0, m.Memory().Size()); return b }
	before := bytes.Clone(whole())
	if module != nil {
		m.ExportedGlobal(gas.GlobalFuel).(api.MutableGlobal).Set(fuel)
	}
	result, err := m.ExportedFunction("rule_evaluate").Call(ctx, 100)
	if err != nil {
		end.trapped, _, _ = strings.Cut(err.Error(), "\n")
	} else {
		end.result = result[0]
	}
	end.memory = bytes.Clone(whole())
	if module != nil {
		end.fuel = fuel - m.ExportedGlobal(gas.GlobalFuel).Get()
		for _, name := range module.Mutable {
			end.globals = append(end.globals, m.ExportedGlobal(name).Get())
		}
		checkRestore(t, m, module, before, whole())
	}
	return end
}

// checkRestore: copying the dirty pages back gives the memory before.
func checkRestore(t *testing.T, m api.Module, module *gas.Module, before, after []byte) {
	t.Helper()
	if m.ExportedGlobal(gas.GlobalRebuild).Get() != 0 {
		return
	}
	if len(before) != len(after) {
		t.Fatal("memory grew without a mark")
	}
	dirty := gas.Dirty{Low: m.ExportedGlobal(gas.GlobalDirty0).Get(), High: m.ExportedGlobal(gas.GlobalDirty1).Get()}
	module.Restore(after, before, dirty)
	if !bytes.Equal(before, after) {
		t.Fatal("a store left no mark")
	}
}

// differ compares a source with its rewriting, on the compiler and the
// interpreter. It returns how the source ended.
func differ(t *testing.T, source []byte) ending {
	t.Helper()
	module, err := gas.Rewrite(source)
	if err != nil {
		t.Fatal(err)
	}
	original := run(t, wazero.NewRuntimeConfigCompiler(), source, nil)
	compiled := run(t, wazero.NewRuntimeConfigCompiler(), module.Wasm, module)
	interpreted := run(t, wazero.NewRuntimeConfigInterpreter(), module.Wasm, module)
	if original.trapped != compiled.trapped || original.result != compiled.result || !bytes.Equal(original.memory, compiled.memory) {
		t.Fatalf("original %q %x, rewritten %q %x, same memory %v", original.trapped, original.result,
			compiled.trapped, compiled.result, bytes.Equal(original.memory, compiled.memory))
	}
	if compiled.trapped != interpreted.trapped || compiled.result != interpreted.result || compiled.fuel != interpreted.fuel ||
		!bytes.Equal(compiled.memory, interpreted.memory) || !slices.Equal(compiled.globals, interpreted.globals) {
		t.Fatalf("compiler %q %x %d, interpreter %q %x %d", compiled.trapped, compiled.result, compiled.fuel,
			interpreted.trapped, interpreted.result, interpreted.fuel)
	}
	if compiled.fuel == 0 {
		t.Fatal("it ran for nothing")
	}
	return original
}

func TestDifferential(t *testing.T) {
	const seeds = 150
	trapped := 0
	for seed := range uint64(seeds) {
		if differ(t, generate(seed)).trapped != "" {
			trapped++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if trapped == 0 || trapped > seeds/2 {
		t.Errorf("%d of %d programs trap: the generator is one-sided", trapped, seeds)
	}
}

func FuzzDifferential(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { differ(t, generate(seed)) })
}
