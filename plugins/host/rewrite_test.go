package host_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// TestFuel counts by hand: one unit for each source instruction that runs, none
// for end and else.
func TestFuel(t *testing.T) {
	const (
		result = 1 // i64.const
		// Of a new instance: 1 page, 4 entries of the element segment, 4 functions,
		// 4 exports, 1 data segment, a table of 4, 11 bytes of data section, and
		// rule_buffer's one instruction.
		rebuild = gas.RebuildBase + gas.RebuildPerPage + 4*gas.RebuildPerEntry + (4+4+1)*gas.RebuildPerPart + 4*gas.TableEntryPrice + 1 + 1
	)
	for name, c := range map[string]struct {
		code string
		fuel uint64
	}{
		"straight":        {"nop nop nop", 3},
		"block":           {"block void nop end nop", 3},
		"block left":      {"block void br 0 nop nop end nop", 3},
		"br_if taken":     {"block void i32.const 1 br_if 0 nop nop end nop", 4},
		"br_if not taken": {"block void i32.const 0 br_if 0 nop nop end nop", 6},
		"if taken":        {"i32.const 1 if void nop nop end nop", 5},
		"if not taken":    {"i32.const 0 if void nop nop end nop", 3},
		"then":            {"i32.const 1 if void nop else nop nop nop end nop", 4},
		"else":            {"i32.const 0 if void nop else nop nop nop end nop", 6},
		"loop once":       {"loop void nop end nop", 3},
		"loop thrice":     {"i32.const 3 local.set 0 loop void local.get 0 i32.const 1 i32.sub local.tee 0 br_if 0 end nop", 2 + 1 + 3*5 + 1},
		"br_table 0":      {"block void block void i32.const 0 br_table2 0 1 1 end nop nop end nop", 7},
		"br_table 1":      {"block void block void i32.const 1 br_table2 0 1 1 end nop nop end nop", 5},
		"br_table other":  {"block void block void i32.const 9 br_table2 1 1 0 end nop nop end nop", 7},
		"return":          {"i32.const 1 if void i64.const 17592186044448 return end nop nop", 4 - result},
		"br function":     {"i64.const 17592186044448 br 0 nop nop", 2 - result},
		"call":            {"i32.const 7 call 3 drop", 3 + 2},
		"call_indirect":   {"i32.const 7 i32.const 3 call_indirect 1 0 drop", 4 + 2},
		"dead":            {"block void br 0 loop void br 0 end end", 2},
		"dead if":         {"block void br 0 i32.const 0 if void nop else nop end nop end nop", 3},
		"fill":            {"i32.const 0 i32.const 0 i32.const 800 memory.fill", 4 + 100},
		"fill 7":          {"i32.const 0 i32.const 0 i32.const 7 memory.fill", 4},
		"copy":            {"i32.const 0 i32.const 0 i32.const 16 memory.copy", 4 + 2},
		"init":            {"i32.const 0 i32.const 0 i32.const 8 memory.init 0 0", 4 + 1},
		"grow none":       {"i32.const 0 memory.grow drop", 3},
		"grow too far":    {"i32.const 65536 memory.grow drop", 3},
		"grow":            {"i32.const 2 memory.grow drop", 3 + rebuild + 3*gas.GrowPerPage},
		"grow twice": {
			"i32.const 1 memory.grow drop i32.const 1 memory.grow drop",
			6 + rebuild + 5*gas.GrowPerPage,
		},
		"table.set":  {"i32.const 0 ref.null table.set 0", 3 + rebuild},
		"table.fill": {"i32.const 0 ref.null i32.const 2 table.fill 0", 4 + 2 + rebuild},
		"table.grow": {"ref.null i32.const 2 table.grow 0 drop", 4 + gas.CallUnits + 2 + rebuild},
		"ref.func":   {"ref.func 0 drop nop ref.func 0 drop", 5 + 2*gas.CallUnits},
		"drops":      {"data.drop 0 elem.drop 0", 2},
	} {
		t.Run(name, func(t *testing.T) {
			m := gastest.Rule(c.code + gastest.Result)
			m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: "nop local.get 0"})
			m.TableMin, m.Elems = 4, []int{3, 3, 3, 3}
			m.Data = []gastest.Data{{At: -1, Bytes: "12345678"}}
			if name == "return" || name == "br function" {
				m.Funcs[gastest.FuncEvaluate].Code = c.code + gastest.Result
			}
			for _, interpreter := range []bool{false, true} {
				p := compile(t, host.Config{Interpreter: interpreter, Instances: 1}, m.Encode())
				for range 2 { // the second by a used, or rebuilt, instance
					var v abi.Verdict
					p.Evaluate(&abi.Input{}, abi.FuelMax, &v, nil)
					if v.Fault != abi.FaultNone || v.Fuel != c.fuel+result {
						t.Fatalf("%v, %d units, want %d", v.Fault, v.Fuel, c.fuel+result)
					}
					// The last unit decides, and no evaluation goes beyond its budget.
					if p.Evaluate(&abi.Input{}, c.fuel, &v, nil); v.Fault != abi.FaultOutOfFuel || v.Fuel != c.fuel {
						t.Fatalf("with one unit less: %v, %d units", v.Fault, v.Fuel)
					}
					if p.Evaluate(&abi.Input{}, c.fuel+result, &v, nil); v.Fault != abi.FaultNone {
						t.Fatalf("with just enough: %v", v.Fault)
					}
				}
			}
		})
	}
}

// TestImportsCost counts by hand too: a call of an import is not one
// instruction's work.
func TestImportsCost(t *testing.T) {
	const result = 1
	for name, c := range map[string]struct {
		module, code string
		typ          int
		fuel         uint64
	}{
		"log":            {"doorbuster", "i32.const 0 i32.const 0 call 0", gastest.TypeLog, 3 + gas.CallUnits},
		"log twice":      {"doorbuster", "i32.const 0 i32.const 0 call 0 i32.const 0 i32.const 9 call 0", gastest.TypeLog, 2 * (3 + gas.CallUnits)},
		"args_get":       {"wasi_snapshot_preview1", "i32.const 0 i32.const 0 call 0 drop", gastest.TypeTwo, 4 + gas.CallUnits},
		"fd_prestat_get": {"wasi_snapshot_preview1", "i32.const 3 i32.const 0 call 0 drop", gastest.TypeTwo, 4 + gas.CallUnits},
		"random_get":     {"wasi_snapshot_preview1", "i32.const 0 i32.const 5 call 0 drop", gastest.TypeTwo, 4 + gas.CallUnits + 5},
	} {
		t.Run(name, func(t *testing.T) {
			imported, _, _ := strings.Cut(name, " ")
			m := gastest.Rule(c.code+gastest.Result).WithImport(c.module, imported, c.typ)
			for _, interpreter := range []bool{false, true} {
				p := compile(t, host.Config{Interpreter: interpreter, Instances: 1}, m.Encode())
				var v abi.Verdict
				if p.Evaluate(&abi.Input{}, abi.FuelMax, &v, nil); v.Fault != abi.FaultNone || v.Fuel != c.fuel+result {
					t.Fatalf("%v, %d units, want %d", v.Fault, v.Fuel, c.fuel+result)
				}
				if p.Evaluate(&abi.Input{}, c.fuel-1, &v, nil); v.Fault != abi.FaultOutOfFuel || v.Fuel != c.fuel-1 {
					t.Fatalf("with too little: %v, %d units", v.Fault, v.Fuel)
				}
			}
		})
	}
}

// TestDirtyPagesCost: what reset has to copy is paid for, however the pages were
// dirtied, and before they are.
func TestDirtyPagesCost(t *testing.T) {
	const step = 4096 + 64*4096 // of a diagonal through the marks of 256 pages of memory
	diagonal := func(n int, store string, each uint64) (string, uint64) {
		code := strings.Builder{}
		for i := range n {
			fmt.Fprintf(&code, store+" ", i*step)
		}
		return code.String(), uint64(n)*each + uint64(max(n*n-16, 0)*4096/gas.RestoredPerUnit)
	}
	for name, c := range map[string]struct {
		store string
		each  uint64 // without its pages
	}{
		"i32.store":  {"i32.const %d i32.const 1 i32.store 0 0", 3},
		"v128.store": {"i32.const %d i32.const 1 i32x4.splat v128.store 0 0", 4},
		"fill":       {"i32.const %d i32.const 1 i32.const 1 memory.fill", 4},
		"fill 0":     {"i32.const %d i32.const 1 i32.const 0 memory.fill i32.const 0 i32.const 1 i32.store 0 0", 7},
		"copy":       {"i32.const %d i32.const 1 i32.const 1 memory.copy", 4},
		"random_get": {"i32.const %d i32.const 1 call 0 drop", 4 + gas.CallUnits + 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 4, 5, 40, 60} {
				code, fuel := diagonal(n, c.store, c.each)
				if name == "fill 0" {
					fuel = uint64(n) * c.each // one page
				}
				fuel++ // the result
				m := gastest.Rule(code + gastest.Result)
				if name == "random_get" {
					m = m.WithImport("wasi_snapshot_preview1", name, gastest.TypeTwo)
				}
				m.MemoryMin = gas.MemoryPagesMax
				for _, interpreter := range []bool{false, true} {
					p := compile(t, host.Config{Interpreter: interpreter, Instances: 1}, m.Encode())
					var v abi.Verdict
					for range 2 {
						if p.Evaluate(&abi.Input{}, abi.FuelMax, &v, nil); v.Fault != abi.FaultNone || v.Fuel != fuel {
							t.Fatalf("%d stores: %v, %d units, want %d", n, v.Fault, v.Fuel, fuel)
						}
					}
					if p.Evaluate(&abi.Input{}, fuel-1, &v, nil); v.Fault != abi.FaultOutOfFuel {
						t.Fatalf("%d stores with one unit less: %v", n, v.Fault)
					}
				}
			}
		})
	}
}

// TestEveryStoreIsMarked: each kind of store, around the edges of pages, in
// memories of each way of marking.
func TestEveryStoreIsMarked(t *testing.T) {
	stores := []string{
		"local.get 0 i32.const -1 i32.store 0 %d", "local.get 0 i64.const -1 i64.store 0 %d",
		"local.get 0 f32.const 1.1 f32.store 0 %d", "local.get 0 f64.const 1.1 f64.store 0 %d",
		"local.get 0 i32.const -1 i32.store8 0 %d", "local.get 0 i32.const -1 i32.store16 0 %d",
		"local.get 0 i64.const -1 i64.store8 0 %d", "local.get 0 i64.const -1 i64.store16 0 %d", "local.get 0 i64.const -1 i64.store32 0 %d",
		"local.get 0 i32.const -1 i32x4.splat v128.store 0 %d", "local.get 0 i32.const -1 i32x4.splat v128.store64_lane 0 %d 1",
		"local.get 0 i32.const %d i32.add i32.const 255 i32.const 1100 memory.fill",
		"local.get 0 i32.const %d i32.add i32.const 255 i32.const 70000 memory.fill",
		"local.get 0 i32.const %d i32.add i32.const 255 i32.const 65536 memory.fill", // 64 pages of 1 KiB
		"local.get 0 i32.const %d i32.add i32.const 9 i32.const 5000 memory.copy",
		"local.get 0 i32.const %d i32.add i32.const 0 i32.const 8 memory.init 0 0",
	}
	ctx := context.Background()
	for _, pages := range []int{1, 2, 3, 5, 65} {
		for _, store := range stores {
			for _, offset := range []int{0, 1000, 40_000} {
				store := fmt.Sprintf(store, offset)
				m := gastest.Rule(store + gastest.Result)
				m.MemoryMin = pages
				m.Data = []gastest.Data{{At: -1, Bytes: "12345678"}}
				checkMarks(ctx, t, m.Encode(), pages, offset)
				if t.Failed() {
					t.Fatalf("%s with %d pages", store, pages)
				}
			}
		}
	}
}

// TestFixedStores: a store is taken for one to a constant address only when it is one,
// whatever code computes its address and its value.
func TestFixedStores(t *testing.T) {
	constants := []string{"i32.const 5000 i32.const -1 i32.store 0 0 ", "i32.const 16 i32.const -1 i32.store 0 0 "}
	addresses := []string{
		"i32.const 5004", "local.get 0", "i32.const 4 local.get 0 i32.add", "i32.const 5004 drop local.get 0",
		"i32.const 5004 local.get 0 i32.const 0 select", "i32.const 5004 i32.load 0 0 local.get 0 i32.add",
		"i32.const 5004 local.set 0 i32.const 70 i32.const 1 i32.shl", "local.get 0 local.tee 0", "i32.const 5004 raw 67 local.get 0 i32.or",
		"i32.const 5004 if i32 local.get 0 else i32.const 5004 end", "block i32 i32.const 5004 local.get 0 br_if 0 end",
		"i32.const 5004 call 3", "i32.const 5004 global.set 0 global.get 0 local.get 0 i32.xor",
	}
	values := []string{
		"i32.const -1", "i32.const 5004 i32.const 2 i32.sub", "i32.const 5004 i32.load 0 0", "local.get 0", "i64.const -1 i32.wrap_i64",
		"i32.const 5004 i32.const 5008 i32.lt_s i32.eqz", "i32.const 5004 i32.const 5008 i32.const 0 select", "block i32 i32.const -1 end", "i32.const -1 call 3",
	}
	for _, constant := range constants {
		for n := range len(addresses) * len(values) {
			address, value := addresses[n/len(values)], values[n%len(values)]
			m := gastest.Rule(constant + address + " " + value + " i32.store 0 0" + gastest.Result)
			m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: "local.get 0 i32.const -1 i32.xor"})
			m.Globals = []gastest.Global{{Type: gastest.I32, Mutable: true, Init: "i32.const 0"}}
			checkMarks(t.Context(), t, m.Encode(), 1, 0)
			if t.Failed() {
				t.Fatalf("%s%s %s", constant, address, value)
			}
		}
	}
}

// TestFixedStoresTakeNoMark: the answer's bytes are put back without one; what is
// elsewhere, or has a price, is marked.
func TestFixedStoresTakeNoMark(t *testing.T) {
	const near, far = "i32.const 5000 i32.const -1 i32.store16 0 0 i32.const 5000 i64.const 1 i64.store 0 56 ", "i32.const 6000 i32.const -1 i32.store 0 0 "
	for _, c := range []struct {
		code  string
		pages int
		marks bool
	}{{near, 1, false}, {near + far, 1, true}, {"i32.const 65532 i64.const 1 i64.store 0 0 ", 1, true}, {near, 2, true}} {
		m := gastest.Rule(c.code + gastest.Result)
		m.MemoryMin = c.pages
		module, err := gas.Rewrite(m.Encode())
		if err != nil {
			t.Fatal(err)
		}
		r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
		instance, err := r.Instantiate(t.Context(), module.Wasm)
		if err != nil {
			t.Fatal(err)
		}
		instance.ExportedGlobal(gas.GlobalFuel).(api.MutableGlobal).Set(1 << 40)
		_, _ = instance.ExportedFunction("rule_evaluate").Call(t.Context(), 0) // one of them is out of bounds
		if marks := instance.ExportedGlobal(gas.GlobalDirty0).Get() != 0; marks != c.marks {
			t.Errorf("%s with %d pages: marks %v", c.code, c.pages, marks)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func checkMarks(ctx context.Context, t *testing.T, source []byte, pages, offset int) {
	t.Helper()
	module, err := gas.Rewrite(source)
	if err != nil {
		t.Fatal(err)
	}
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	defer r.Close(ctx)
	m, err := r.Instantiate(ctx, module.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	global := func(name string) api.MutableGlobal { return m.ExportedGlobal(name).(api.MutableGlobal) }
	memory, _ := m.Memory().Read(0, m.Memory().Size())
	before := make([]byte, len(memory))
	for i := range memory {
		memory[i] = byte(i>>8) ^ 0x5a
	}
	copy(before, memory)
	step := 1 << module.Pages.Shift
	for _, edge := range []int{0, step, 5 * step, 63 * step, 64 * step, pages<<16 - 1024, pages<<16 - 16} {
		for _, at := range []int{edge - 15, edge - 7, edge - 1, edge, edge + 1} {
			global(gas.GlobalFuel).Set(1 << 40)
			global(gas.GlobalDirty0).Set(0)
			global(gas.GlobalDirty1).Set(0)
			address := uint64(uint32(at - offset))
			if _, err := m.ExportedFunction("rule_evaluate").Call(ctx, address); err != nil {
				continue // out of bounds
			}
			dirty := gas.Dirty{Low: global(gas.GlobalDirty0).Get(), High: global(gas.GlobalDirty1).Get()}
			module.Restore(memory, before, dirty)
			if !bytes.Equal(memory, before) {
				t.Errorf("a store at %d left no mark", at)
				return
			}
		}
	}
}
