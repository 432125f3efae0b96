package host_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func engine(t testing.TB, config host.Config) *host.Engine {
	t.Helper()
	e, err := host.New(config)
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

func compile(t testing.TB, config host.Config, wasm []byte) *host.Program {
	t.Helper()
	p, err := engine(t, config).Compile(context.Background(), wasm, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refusal compiles a module and returns the faults.
func refusal(t testing.TB, e *host.Engine, wasm, config []byte) string {
	t.Helper()
	_, err := e.Compile(context.Background(), wasm, config)
	var faults *gas.Error
	if err != nil && !errors.As(err, &faults) {
		t.Fatalf("not a fault of the module: %v", err)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// discount writes a discount of what the i64 code computes and returns it.
func discount(code string) string {
	return "i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 " + code + " i64.store 3 8" + gastest.Result
}

var order = &abi.Input{
	Now: 1_790_000_000_123, UnitPrice: 9900, Subtotal: 9900, Quantity: 1, Stock: 100, Available: 100,
	Currency: [3]byte{'C', 'N', 'Y'}, DealID: []byte("deal-1"), UserID: []byte("user-1"),
}

func evaluate(p *host.Program, in *abi.Input) (v abi.Verdict, trace host.Trace) {
	p.Evaluate(in, abi.FuelDefault, &v, &trace)
	return v, trace
}

func TestEvaluate(t *testing.T) {
	// A tenth of the subtotal, read from the input.
	p := compile(t, host.Config{}, gastest.Rule(discount("i32.const 8192 i64.load 3 24 i64.const 8910 i64.sub")).Encode())
	v, trace := evaluate(p, order)
	encoded, err := order.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if v.Fault != abi.FaultNone || v.Discount != 990 || v.Outcome != abi.OutcomeDiscount || v.Digest != abi.Digest(encoded) || trace.Err != nil {
		t.Fatalf("%+v %+v", v.Output, trace)
	}
	over := *order
	over.DiscountSoFar = 9000 // 900 are left to pay
	if v, trace = evaluate(p, &over); v.Fault != abi.FaultBadOutput || v.Discount != 0 || !errors.Is(trace.Err, abi.ErrBadOutput) {
		t.Fatalf("%+v %+v", v.Output, trace)
	}
	huge := *order
	huge.DealID = make([]byte, abi.InputBytesMax)
	if v, trace = evaluate(p, &huge); v.Fault != abi.FaultBadOutput || v.Fuel != 0 || !errors.Is(trace.Err, abi.ErrInputTooLarge) {
		t.Fatalf("%+v %+v", v.Output, trace)
	}
	if v, _ = evaluate(p, order); v.Discount != 990 {
		t.Fatalf("after faults: %+v", v.Output)
	}
}

// pure evaluates several times and wants the same each time.
func pure(t *testing.T, m *gastest.Module, want int64) {
	t.Helper()
	for _, interpreter := range []bool{false, true} {
		p := compile(t, host.Config{Interpreter: interpreter, Instances: 1}, m.Encode())
		var first abi.Verdict
		for n := range 4 {
			v, trace := evaluate(p, order)
			if v.Fault != abi.FaultNone || v.Discount != want {
				t.Fatalf("evaluation %d: %d, %v, %v, want %d", n, v.Discount, v.Fault, trace.Err, want)
			}
			if n > 0 && v.Fuel != first.Fuel {
				t.Fatalf("evaluation %d took %d units, the first %d", n, v.Fuel, first.Fuel)
			}
			first = v
		}
	}
}

// TestNothingIsKeptOfAFault: a global that was set, and all the frames that were
// taken, before the module trapped.
func TestNothingIsKeptOfAFault(t *testing.T) {
	m := gastest.Rule("i32.const 8192 i32.load 2 40 i32.const 1 i32.eq if void i64.const 5 global.set 0 local.get 0 call " + strconv.Itoa(gastest.FuncEvaluate) + " drop end " +
		"global.get 0 i64.const 1 i64.add global.set 0 " + discount("global.get 0"))
	m.Globals = []gastest.Global{{Type: gastest.I64, Mutable: true, Init: "i64.const 0"}}
	for _, interpreter := range []bool{false, true} {
		p := compile(t, host.Config{Interpreter: interpreter, Instances: 1}, m.Encode())
		single, double := *order, *order
		double.Quantity = 2
		for range 3 {
			if v, _ := evaluate(p, &single); v.Fault != abi.FaultTrap {
				t.Fatalf("fault %v", v.Fault)
			}
			if v, trace := evaluate(p, &double); v.Fault != abi.FaultNone || v.Discount != 1 {
				t.Fatalf("fault %v, discount %d, %v", v.Fault, v.Discount, trace.Err)
			}
		}
	}
}

// TestNothingIsKept: modules that try to count their evaluations, by every kind
// of state there is.
func TestNothingIsKept(t *testing.T) {
	count := func(read, write string) string { return write + " " + discount(read) }
	for name, m := range map[string]*gastest.Module{
		"memory": gastest.Rule(count("i32.const 100 i64.load 3 0",
			"i32.const 100 i32.const 100 i64.load 3 0 i64.const 1 i64.add i64.store 3 0")),
		"last byte": gastest.Rule(count("i32.const 65535 i32.load8_u 0 0 i64.extend_i32_u",
			"i32.const 65535 i32.const 65535 i32.load8_u 0 0 i32.const 1 i32.add i32.store8 0 0")),
		"output buffer": gastest.Rule(count("i64.const 1", "i32.const 4096 i32.load 2 4 if void unreachable end i32.const 4120 i32.const 0 i32.store 2 0")),
		"input buffer": gastest.Rule(count("i64.const 1", // behind the input, and the input itself
			"i32.const 16000 i32.load 2 0 if void unreachable end i32.const 16000 i32.const 1 i32.store 2 0 i32.const 8192 i32.const 0 i32.const 8000 memory.fill")),
		"fill": gastest.Rule(count("i32.const 300 i32.load8_u 0 0 i64.extend_i32_u i64.const 7 i64.sub i64.const 1 i64.add",
			"i32.const 299 i32.load8_u 0 0 if void unreachable end i32.const 299 i32.const 7 i32.const 2000 memory.fill")),
		"copy": gastest.Rule(count("i64.const 1",
			"i32.const 30000 i32.load8_u 0 0 if void unreachable end i32.const 30000 i32.const 8192 i32.const 100 memory.copy")),
		"grown memory": gastest.Rule(count("memory.size i64.extend_i32_u i64.const 1 i64.sub", "i32.const 1 memory.grow drop")),
		"trap":         gastest.Rule(discount("i64.const 1")),
	} {
		t.Run(name, func(t *testing.T) { pure(t, m, 1) })
	}
	global := func(kind byte, initial, step, read string) *gastest.Module {
		m := gastest.Rule(step + " " + discount(read))
		m.Globals = []gastest.Global{{Type: kind, Mutable: true, Init: initial}}
		return m
	}
	for name, m := range map[string]*gastest.Module{
		"i32 global": global(gastest.I32, "i32.const 0", "global.get 0 i32.const 1 i32.add global.set 0", "global.get 0 i64.extend_i32_u"),
		"i64 global": global(gastest.I64, "i64.const 0", "global.get 0 i64.const 1 i64.add global.set 0", "global.get 0"),
		"f64 global": global(gastest.F64, "f64.const 0", "global.get 0 f64.const 1 f64.add global.set 0", "global.get 0 raw fc06"),
	} {
		t.Run(name, func(t *testing.T) {
			pure(t, m, 1)
		})
	}
	t.Run("table", func(t *testing.T) {
		m := gastest.Rule("i32.const 1 table.get 0 raw d1 if void else unreachable end i32.const 1 ref.func 0 table.set 0 " + discount("i64.const 1"))
		m.TableMin, m.Elems = 2, []int{0}
		pure(t, m, 1)
	})
	t.Run("random", func(t *testing.T) {
		m := gastest.Rule("i32.const 64 i32.const 8 call 0 drop "+discount("i32.const 64 i64.load 3 0 i64.const 2147483647 raw 83")).
			WithImport("wasi_snapshot_preview1", "random_get", gastest.TypeTwo)
		p := compile(t, host.Config{Instances: 1}, m.Encode())
		wide := *order
		wide.Subtotal = 1 << 40
		first, _ := evaluate(p, &wide)
		second, _ := evaluate(p, &wide)
		if first.Fault != abi.FaultNone || first.Discount == 0 || first.Discount != second.Discount {
			t.Fatal(first.Discount, second.Discount, first.Fault)
		}
	})
}

// TestInstanceSurvivesFaults: each fault leaves an instance that prices the next
// order as if nothing had been.
func TestInstanceSurvivesFaults(t *testing.T) {
	// The quantity selects what goes wrong.
	m := gastest.Rule("", gastest.I32)
	m.Funcs[gastest.FuncEvaluate].Code = `i32.const 100 i32.const 100 i32.load 2 0 i32.const 1 i32.add i32.store 2 0
		i32.const 100 i32.load 2 0 i32.const 1 i32.ne if void unreachable end
		i32.const 8192 i32.load 2 40 local.set 1
		block void local.get 1 i32.const 2 i32.ne br_if 0 unreachable end
		block void local.get 1 i32.const 3 i32.ne br_if 0 loop void br 0 end end
		block void local.get 1 i32.const 4 i32.ne br_if 0 i32.const 1 call 3 drop end
		block void local.get 1 i32.const 5 i32.ne br_if 0 i32.const -1 i32.load 2 0 drop end
		block void local.get 1 i32.const 6 i32.ne br_if 0 i64.const 0 return end ` + discount("i64.const 5")
	m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: "local.get 0 call 3"})
	p := compile(t, host.Config{Instances: 1}, m.Encode())
	for range 3 {
		for quantity, want := range map[uint32]abi.Fault{
			1: abi.FaultNone, 2: abi.FaultTrap, 3: abi.FaultOutOfFuel, 4: abi.FaultTrap, 5: abi.FaultTrap, 6: abi.FaultBadOutput,
		} {
			in := *order
			in.Quantity = quantity
			if v, trace := evaluate(p, &in); v.Fault != want || (want == abi.FaultNone) != (v.Discount == 5) {
				t.Fatalf("quantity %d: %v, %d, %v, want %v", quantity, v.Fault, v.Discount, trace.Err, want)
			}
		}
	}
}

// TestRecursionEndsAlike: at the same depth on the compiler and the interpreter,
// deeper than any honest program.
func TestRecursionEndsAlike(t *testing.T) {
	depth := func(interpreter bool, n int) abi.Fault {
		m := gastest.Rule(fmt.Sprintf("i32.const %d call 3 drop ", n) + discount("i64.const 1"))
		m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: "local.get 0 if i32 local.get 0 i32.const 1 i32.sub call 3 else i32.const 0 end"})
		v, _ := evaluate(compile(t, host.Config{Interpreter: interpreter}, m.Encode()), order)
		return v.Fault
	}
	for _, interpreter := range []bool{false, true} {
		// rule_evaluate is a frame, and the call with 0 is one.
		if got := depth(interpreter, gas.FrameUnitsMax-2); got != abi.FaultNone {
			t.Errorf("interpreter %v: %v before the bound", interpreter, got)
		}
		if got := depth(interpreter, gas.FrameUnitsMax-1); got != abi.FaultTrap {
			t.Errorf("interpreter %v: %v beyond the bound", interpreter, got)
		}
	}
}

func TestNaNsAreCanonical(t *testing.T) {
	const canonical32, canonical64 = 0x7fc00000, 0x7ff8000000000000
	for name, code := range map[string]string{
		"f64 sqrt": "f64.const -1 f64.sqrt i64.reinterpret_f64",
		"f64 div":  "f64.const 0 f64.const 0 f64.div i64.reinterpret_f64",
		"payload":  "f64.const 1 raw 44010000000000f87f f64.add i64.reinterpret_f64",
		"f32 sqrt": "f32.const -1 f32.sqrt i32.reinterpret_f32 i64.extend_i32_u",
		"demote":   "raw 44010000000000f8ff f32.demote_f64 i32.reinterpret_f32 i64.extend_i32_u",
		"promote":  "raw 43010080ff f64.promote_f32 i64.reinterpret_f64", // a signalling NaN with a sign
		"f32x4":    "f32.const -1 f32x4.splat f32x4.sqrt i64x2.extract_lane 1",
		"f64x2":    "f64.const -1 f64x2.splat f64x2.sqrt i64x2.extract_lane 1",
		"vector":   "f64.const 0 f64x2.splat f64.const 0 f64x2.splat f64x2.div i64x2.extract_lane 0",
	} {
		want := uint64(canonical64)
		switch name {
		case "f32 sqrt", "demote":
			want = canonical32
		case "f32x4":
			want = canonical32<<32 | canonical32
		}
		// 1 when the bits are canonical.
		same := fmt.Sprintf("%s i64.const %d i64.xor i64.eqz i64.extend_i32_u", code, want)
		for _, interpreter := range []bool{false, true} {
			p := compile(t, host.Config{Interpreter: interpreter}, gastest.Rule(discount(same), gastest.I64).Encode())
			if v, trace := evaluate(p, order); v.Discount != 1 {
				t.Errorf("%s, interpreter %v: the NaN is not canonical (%v)", name, interpreter, trace.Err)
			}
		}
	}
}

func TestRuleInit(t *testing.T) {
	e := engine(t, host.Config{})
	m := gastest.Rule(discount("i32.const 200 i64.load 3 0"))
	// rule_init keeps the configuration's size where rule_evaluate reads it.
	m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: "i32.const 200 local.get 0 i32.store 2 0 i32.const 8192 i32.load8_u 0 0 i32.const 33 i32.eq"})
	m.Exports = append(m.Exports, gastest.Export{Name: "rule_init", Index: gastest.RuleFuncs})
	p, err := e.Compile(t.Context(), m.Encode(), []byte("config"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if v, _ := evaluate(p, order); v.Discount != 6 {
			t.Fatalf("%+v", v.Output)
		}
	}
	if got := refusal(t, e, m.Encode(), []byte("!")); !strings.Contains(got, "rule_init refused the configuration with 1") {
		t.Fatal(got)
	}
	if _, err := e.Compile(t.Context(), m.Encode(), make([]byte, abi.InputBytesMax+1)); err == nil {
		t.Fatal("a configuration that does not fit the buffer was taken")
	}
}

func TestInitialisationRefused(t *testing.T) {
	e := engine(t, host.Config{})
	initialize := func(code string) []byte {
		m := gastest.Rule(gastest.Result)
		m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeVoid, Code: code})
		m.Exports = append(m.Exports, gastest.Export{Name: "_initialize", Index: gastest.RuleFuncs})
		return m.Encode()
	}
	buffer := gastest.Rule(gastest.Result)
	buffer.Funcs[gastest.FuncBuffer].Code = "i32.const 60000"
	for want, wasm := range map[string][]byte{
		"_initialize: out of fuel":      initialize("loop void br 0 end"),
		"_initialize: wasm error":       initialize("unreachable"),
		"8192 bytes at 60000 are out":   buffer.Encode(),
		"cannot use i32 as result":      gastest.Rule("i32.const 1").Encode(),
		"out of bounds memory access":   initialize("i32.const -1 i32.load 0 0 drop"),
		"at most 256":                   func() []byte { m := gastest.Rule(""); m.MemoryMin = 300; return m.Encode() }(),
		"the module logged \\\"hello\\": loggingStart(),
	} {
		if got := refusal(t, e, wasm, nil); !strings.Contains(got, want) {
			t.Errorf("%q: %s", want, got)
		}
	}
	if got := refusal(t, e, initialize("i32.const 1 memory.grow drop"), nil); got != "" {
		t.Errorf("a module that grows while it starts: %s", got)
	}
}

func loggingStart() []byte {
	m := gastest.Rule(gastest.Result).WithImport("doorbuster", "log", gastest.TypeLog)
	m.Data = []gastest.Data{{At: 16, Bytes: "hello"}}
	m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeVoid, Code: "i32.const 16 i32.const 5 call 0 unreachable"})
	m.Exports = append(m.Exports, gastest.Export{Name: "_initialize", Index: gastest.RuleFuncs + 1})
	return m.Encode()
}

func TestLogIsBounded(t *testing.T) {
	m := gastest.Rule("i32.const 0 i32.const 600 call 0 i32.const 0 i32.const 600 call 0 i32.const 65000 i32.const 6000 call 0"+gastest.Result).
		WithImport("doorbuster", "log", gastest.TypeLog)
	p := compile(t, host.Config{Instances: 1}, m.Encode())
	for range 2 {
		if _, trace := evaluate(p, order); len(trace.Logs) != abi.LogBytesMax || trace.Dropped != 2*601+1-abi.LogBytesMax {
			t.Fatalf("%d bytes kept, %d dropped", len(trace.Logs), trace.Dropped)
		}
	}
}

// wasiCase calls one WASI function with constants; its errno is the discount.
func wasiCase(t *testing.T, name, arguments, params string, check string, want int64) {
	t.Helper()
	m := gastest.Rule("").WithImport("wasi_snapshot_preview1", name, gastest.RuleTypes)
	typ := gastest.Type{Results: []byte{gastest.I32}}
	for _, c := range params {
		typ.Params = append(typ.Params, map[rune]byte{'i': gastest.I32, 'l': gastest.I64}[c])
	}
	if name == "proc_exit" {
		typ.Results = nil
	}
	m.Types = append(m.Types, typ)
	m.Data = []gastest.Data{{At: 16, Bytes: "\x40\x00\x00\x00\x05\x00\x00\x00\x45\x00\x00\x00\x01\x00\x00\x00"}, {At: 64, Bytes: "hello!"}}
	read := "local.get 1 i64.extend_i32_u"
	if check != "" {
		read = check
	}
	m.Funcs[gastest.FuncEvaluate] = gastest.Func{Type: gastest.TypeI64, Locals: []byte{gastest.I32}, Code: arguments + " call 0 local.set 1 " + discount(read)}
	if name == "proc_exit" {
		m.Funcs[gastest.FuncEvaluate].Code = arguments + " call 0 " + discount("i64.const 0")
	}
	p := compile(t, host.Config{Instances: 1}, m.Encode())
	in := *order
	in.Subtotal = 1 << 62
	for range 2 {
		v, trace := evaluate(p, &in)
		if want < 0 {
			if v.Fault != abi.Fault(-want) {
				t.Errorf("%s: %v %v", name, v.Fault, trace.Err)
			}
		} else if v.Discount != want || v.Fault != abi.FaultNone {
			t.Errorf("%s: %d, want %d (%v)", name, v.Discount, want, trace.Err)
		}
		if name == "fd_write" && want == 0 && string(trace.Logs) != "hello!" {
			t.Errorf("logged %q", trace.Logs)
		}
	}
}

func TestWASI(t *testing.T) {
	const badf, fault, inval, nosys = 8, 21, 28, 52
	outside := " i32.const 65535"
	for _, c := range []struct {
		name, arguments, params, check string
		want                           int64
	}{
		{"clock_time_get", "i32.const 0 i64.const 1 i32.const 512", "ili", "i32.const 512 i64.load 3 0", order.Now * 1_000_000},
		{"clock_time_get", "i32.const 0 i64.const 1" + outside, "ili", "", fault},
		{"clock_res_get", "i32.const 0 i32.const 512", "ii", "i32.const 512 i64.load 3 0", 1_000_000},
		{"args_sizes_get", "i32.const 512 i32.const 516", "ii", "", 0},
		{"args_sizes_get", outside + " i32.const 516", "ii", "", fault},
		{"environ_sizes_get", "i32.const 512" + outside, "ii", "", fault},
		{"environ_get", "i32.const 512 i32.const 516", "ii", "", 0},
		{"sched_yield", "", "", "", 0},
		{"random_get", "i32.const 512 i32.const 13", "ii", "", 0},
		{"random_get", outside + " i32.const 13", "ii", "", fault},
		{"random_get", "i32.const 0 i32.const -1", "ii", "", -int64(abi.FaultOutOfFuel)},
		{"proc_exit", "i32.const 0", "i", "", -int64(abi.FaultTrap)},
		{"fd_write", "i32.const 1 i32.const 16 i32.const 2 i32.const 512", "iiii", "", 0},
		{"fd_write", "i32.const 2 i32.const 16 i32.const 2 i32.const 512", "iiii", "i32.const 512 i32.load 2 0 i64.extend_i32_u", 6},
		{"fd_write", "i32.const 3 i32.const 16 i32.const 2 i32.const 512", "iiii", "", badf},
		{"fd_write", "i32.const 1 i32.const 16 i32.const 9000 i32.const 512", "iiii", "", fault},
		{"fd_write", "i32.const 1" + outside + " i32.const 1 i32.const 512", "iiii", "", fault},
		{"fd_write", "i32.const 1 i32.const 64 i32.const 1 i32.const 512", "iiii", "", fault},
		{"fd_write", "i32.const 1 i32.const 16 i32.const -1 i32.const 512", "iiii", "", -int64(abi.FaultOutOfFuel)},
		{"fd_fdstat_get", "i32.const 1 i32.const 512", "ii", "i32.const 512 i64.load 3 0", 2},
		{"fd_fdstat_get", "i32.const 0 i32.const 512", "ii", "i32.const 520 i64.load 3 0", 64},
		{"fd_fdstat_get", "i32.const 9 i32.const 512", "ii", "", badf},
		{"fd_fdstat_get", "i32.const 1" + outside, "ii", "", fault},
		{"fd_prestat_get", "i32.const 3 i32.const 512", "ii", "", badf},
		{"poll_oneoff", "i32.const 16 i32.const 512 i32.const 2 i32.const 600", "iiii", "i32.const 600 i32.load 2 0 i64.extend_i32_u", 2},
		{"poll_oneoff", "i32.const 16 i32.const 512 i32.const 0 i32.const 600", "iiii", "", inval},
		{"poll_oneoff", "i32.const 16" + outside + " i32.const 1 i32.const 600", "iiii", "", fault},
		{"poll_oneoff", "i32.const 16 i32.const 512 i32.const 2000 i32.const 600", "iiii", "", fault},
		{"fd_sync", "i32.const 1", "i", "", nosys},
	} {
		t.Run(c.name, func(t *testing.T) { wasiCase(t, c.name, c.arguments, c.params, c.check, c.want) })
	}
}

func TestCompileEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := engine(t, host.Config{}).Compile(ctx, gastest.Rule(gastest.Result).Encode(), nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestManyAtOnce(t *testing.T) {
	p := compile(t, host.Config{Instances: 2}, gastest.Rule(
		"i32.const 100 i32.const 100 i64.load 3 0 i64.const 1 i64.add i64.store 3 0 "+discount("i32.const 100 i64.load 3 0")).Encode())
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			var v abi.Verdict
			for range 500 {
				if p.Evaluate(order, abi.FuelDefault, &v, nil); v.Discount != 1 {
					t.Errorf("%d", v.Discount)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestEvaluateDoesNotAllocate(t *testing.T) {
	for name, m := range rules() {
		p := compile(t, host.Config{}, m)
		var v abi.Verdict
		if n := testing.AllocsPerRun(200, func() { p.Evaluate(order, abi.FuelDefault, &v, nil) }); n != 0 || v.Fault != abi.FaultNone {
			t.Errorf("%s: %v allocations, %v", name, n, v.Fault)
		}
	}
}

// rules are modules to measure, by what they do.
func rules() map[string][]byte {
	heavy := gastest.Rule("i32.const 1000 local.set 1 loop void i32.const 64 local.get 1 i32.store 2 0 local.get 1 i32.const 1 i32.sub local.tee 1 br_if 0 end "+discount("i64.const 1"), gastest.I32)
	large := gastest.Rule(discount("i64.const 1"))
	large.MemoryMin = 17
	return map[string][]byte{
		"small":             gastest.Rule(discount("i64.const 990")).Encode(),
		"17 pages":          large.Encode(),
		"8000 instructions": heavy.Encode(),
	}
}

func TestBadConfig(t *testing.T) {
	if _, err := host.New(host.Config{Instances: -1}); err == nil {
		t.Fatal("accepted")
	}
}
