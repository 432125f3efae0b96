package shopify

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// compileRule makes this binary a compiler, as the server's own hidden command does.
const compileRule = "compile-rule"

func init() {
	if len(os.Args) > 1 && os.Args[1] == compileRule {
		os.Exit(host.CompileChild(os.Args[2:], os.Stdin, os.Stdout))
	}
}

// build makes a module of a source in testdata.
func build(t testing.TB, source string, flags ...string) []byte {
	t.Helper()
	folder := t.TempDir()
	out := filepath.Join(folder, "out.wasm")
	run := func(program string, args ...string) {
		t.Helper()
		if text, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s(apt-get install clang lld wabt rustc libstd-rust-dev-wasm32)", program, err, text)
		}
	}
	source = filepath.Join("testdata", source)
	switch filepath.Ext(source) {
	case ".wat":
		run("wat2wasm", "--enable-multi-memory", source, "-o", out)
	case ".rs": // by the system's compiler: what is before it in the path may not have the target
		target := "wasm32-wasip1"
		if _, err := os.Stat("/usr/lib/rustlib/wasm32-wasi"); err == nil { // as Rust called it before 1.78
			target = "wasm32-wasi"
		}
		run("/usr/bin/rustc", append(flags, "--edition=2021", "--target="+target, "-O", "-Clto=fat", "-Ccodegen-units=1", "-Cpanic=abort", "-Cstrip=symbols", source, "-o", out)...)
	default:
		object := filepath.Join(folder, "out.o")
		run("clang", append(flags, "--target=wasm32", "-O2", "-ffreestanding", "-mbulk-memory", "-c", source, "-o", object)...)
		run("wasm-ld", "--entry=_start", "--allow-undefined", "--no-entry", "--export-if-defined=_start", object, "-o", out)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func newEngine(t testing.TB, config host.Config) *Engine {
	t.Helper()
	h, err := host.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	e, err := New(h)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func compile(t testing.TB, e *Engine, wasm []byte, b Bundle) *Program {
	t.Helper()
	if !Detect(wasm) {
		t.Fatal("not taken for a Shopify function")
	}
	p, err := e.Compile(t.Context(), b.Wrap(wasm))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func order() *abi.Input {
	return &abi.Input{
		Now: 1_795_000_000_000, UnitPrice: 1_999, Subtotal: 5_997, Quantity: 3, Currency: [3]byte{'C', 'N', 'Y'},
		Available: 10, Stock: 10, DealID: []byte("sneaker"), UserID: []byte("ann"),
	}
}

// evaluate runs a program three times and wants the same three times.
func evaluate(t testing.TB, p *Program, in *abi.Input) (abi.Verdict, host.Trace) {
	t.Helper()
	var out, again abi.Verdict
	var trace, traceAgain host.Trace
	if !p.Evaluate(in, InstructionsMax, &out, &trace) {
		t.Fatal("the program is closed")
	}
	for range 2 {
		p.Evaluate(in, InstructionsMax, &again, &traceAgain)
		if again.Fault != out.Fault || again.Fuel != out.Fuel || again.Discount != out.Discount || string(again.Label) != string(out.Label) || !bytes.Equal(trace.Logs, traceAgain.Logs) {
			t.Errorf("not the same again: %+v %q, then %+v %q", out, trace.Logs, again, traceAgain.Logs)
		}
	}
	return out, trace
}

const valueQuery = `{discountNode{metafield(namespace:"a",key:"b"){value}}}`

func TestFunctions(t *testing.T) {
	function := Bundle{Configuration: []byte(`{"minimum":3,"percentage":12.5}`)}
	for _, c := range []struct {
		name   string
		wasm   []byte
		bundle Bundle
		want   int64
		label  string
		logs   string
	}{
		{"API v2", build(t, "function.c"), function, 750, "call 1", "running"}, // 749.625
		{"API v1", build(t, "function.c", "-DV1"), function, 750, "call 1", ""},
		{"API v2, linked by Shopify's tool", build(t, "trampolined.wat"), Bundle{}, 600, "", "\x00gid://shopify/CartLine/1"},
		{"WASI", build(t, "wasi.c"), Bundle{}, 2_999, "call 1", ""}, // 2998.5
		{"WASI that grows", build(t, "wasi.c"), Bundle{Configuration: []byte(`"uses"`), Query: valueQuery}, 2_999, "call 1", ""},
		{"WASI, from Rust", build(t, "function.rs"), function, 750, "12.5% off", ""},
		{"Javy", build(t, "linked.wat"), Bundle{Provider: build(t, "provider.wat")}, 0, "", "called"},
	} {
		for _, interpreter := range []bool{false, true} {
			p := compile(t, newEngine(t, host.Config{Instances: 1, Interpreter: interpreter}), c.wasm, c.bundle)
			out, trace := evaluate(t, p, order())
			if out.Fault != abi.FaultNone || out.Discount != c.want || string(out.Label) != c.label {
				t.Errorf("%s: %s %v, discount %d %q, want %d %q", c.name, out.Fault, trace.Err, out.Discount, out.Label, c.want, c.label)
			}
			if !strings.HasSuffix(string(trace.Logs), c.logs) || len(trace.Logs) > LogBytesMax {
				t.Errorf("%s: logs %q, want %q", c.name, trace.Logs, c.logs)
			}
			if out.Digest == 0 || out.Fuel == 0 {
				t.Errorf("%s: digest %d, fuel %d", c.name, out.Digest, out.Fuel)
			}
		}
	}
}

// TestLimits: each of Shopify's limits ends the evaluation, is named, and leaves the
// program as it was.
func TestLimits(t *testing.T) {
	e, wasm := newEngine(t, host.Config{Instances: 1}), build(t, "wasi.c")
	for _, c := range []struct {
		configuration string
		fault         abi.Fault
		named         error
		text          string
	}{
		{`"loops"`, abi.FaultOutOfFuel, errInstructions, ""},
		{`"ends"`, abi.FaultTrap, nil, "the function ended itself with code 3"},
		{`"writes"`, abi.FaultBadOutput, errOutputSize, ""},
		{`"grows"`, abi.FaultTrap, errMemory, ""},
		{`"stores"`, abi.FaultTrap, errWild, ""},
		{`"both"`, abi.FaultTrap, errWild, "; wasm error: unreachable"},
	} {
		p := compile(t, e, wasm, Bundle{Configuration: []byte(c.configuration), Query: valueQuery})
		out, trace := evaluate(t, p, order())
		if out.Fault != c.fault || c.named != nil && !errors.Is(trace.Err, c.named) || trace.Err == nil || !strings.Contains(trace.Err.Error(), c.text) {
			t.Errorf("%s: %s, %v", c.configuration, out.Fault, trace.Err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if p.Evaluate(order(), InstructionsMax, &out, nil) {
			t.Error("a closed program ran")
		}
	}
	long := Bundle{Configuration: []byte(`"` + strings.Repeat("x", 30_000) + `"`), Query: `{a:discount{metafield{value}} b:discount{metafield{value}} c:discount{metafield{value}} d:discount{metafield{value}} e:discount{metafield{value}}}`}
	if out, trace := evaluate(t, compile(t, e, wasm, long), order()); out.Fault != abi.FaultBadOutput || !errors.Is(trace.Err, errInputSize) {
		t.Errorf("%s, %v", out.Fault, trace.Err)
	}
}

func TestRefusals(t *testing.T) {
	e := newEngine(t, host.Config{Instances: 1})
	linked, wasi := build(t, "linked.wat"), build(t, "wasi.c")
	for _, c := range []struct {
		wasm   []byte
		bundle Bundle
		want   string
	}{
		{linked, Bundle{}, `imports "shopify_functions_javy_v3": upload that module`},
		{linked, Bundle{Provider: wasi}, `"shopify_functions_javy_v3"."cabi_realloc" is not offered`},
		{linked, Bundle{Provider: []byte("not a module")}, "header section"},
		{wasi, Bundle{Export: "none"}, `no export "none"`},
		{wasi, Bundle{Configuration: []byte("{")}, "the configuration is not JSON"},
		{wasi, Bundle{Query: "{cart{secrets}}"}, "Cart.secrets is not offered"},
		{wasi, Bundle{Query: "{cart"}, "the input query"},
		{wasi, Bundle{Query: "mutation{cart{cost{totalAmount{amount}}}}"}, "not one query"},
		{wasi, Bundle{Classes: []string{"FREE"}}, `"FREE" is none of`},
		{wasi, Bundle{Classes: slices.Repeat([]string{"ORDER"}, 100_000)}, "more discount classes than there are"},
		{append(wasi[:len(wasi):len(wasi)], gas.AppendCustom(nil, "padding", make([]byte, 256<<10))...), Bundle{}, "Shopify's limit of 256 kB"},
		{(&gastest.Module{
			Types: []gastest.Type{{}}, Funcs: []gastest.Func{{}}, MemoryMin: MemoryPagesMax + 1,
			Exports: []gastest.Export{{Name: "memory", Kind: 2}, {Name: "_start"}},
		}).Encode(), Bundle{Configuration: []byte("{}")}, "Shopify's limit of 10,000 kB: a memory of 157, at most 156"},
	} {
		_, err := e.Compile(t.Context(), c.bundle.Wrap(c.wasm))
		var faults *gas.Error
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if len(e.providers) != 0 {
		t.Errorf("%d providers are kept for nobody", len(e.providers))
	}
}

// TestShared: functions share a provider, and it goes with the last of them.
func TestShared(t *testing.T) {
	e := newEngine(t, host.Config{Instances: 2})
	linked, provider := build(t, "linked.wat"), build(t, "provider.wat")
	var wait sync.WaitGroup
	programs := make([]*Program, 4)
	for n := range programs {
		wait.Go(func() {
			p, err := e.Compile(t.Context(), (&Bundle{Provider: provider, Configuration: []byte{'0' + byte(n)}}).Wrap(linked))
			if err != nil {
				t.Error(err)
				return
			}
			var out abi.Verdict
			if p.Evaluate(order(), InstructionsMax, &out, nil); out.Fault != abi.FaultNone {
				t.Error(out.Fault)
			}
			programs[n] = p
		})
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	if len(e.providers) != 1 || programs[0].provider != programs[3].provider {
		t.Errorf("%d providers", len(e.providers))
	}
	for _, p := range programs {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(e.providers) != 0 {
		t.Error("the provider is kept")
	}
}

func TestDetect(t *testing.T) {
	for _, source := range []string{"function.c", "trampolined.wat", "wasi.c", "linked.wat"} {
		if !Detect(build(t, source)) {
			t.Error(source)
		}
	}
	if Detect(build(t, "provider.wat")) || Detect(nil) || Detect([]byte("\x00asm\x01\x00\x00\x00")) {
		t.Error("taken for a function")
	}
}

func BenchmarkEvaluate(b *testing.B) {
	for _, c := range []struct{ name, source string }{{"api", "function.c"}, {"wasi", "wasi.c"}, {"rust", "function.rs"}, {"trampolined", "trampolined.wat"}} {
		p := compile(b, newEngine(b, host.Config{Instances: 1}), build(b, c.source), Bundle{
			Configuration: []byte(`{"minimum":3,"percentage":12.5}`),
			Query:         `{cart{lines{id quantity}} discount{metafield{jsonValue}}}`,
		})
		in := order()
		b.Run(c.name, func(b *testing.B) {
			var out abi.Verdict
			b.ReportAllocs()
			for b.Loop() {
				p.Evaluate(in, InstructionsMax, &out, nil)
			}
			if out.Fault != abi.FaultNone {
				b.Fatal(out.Fault)
			}
		})
	}
}

// BenchmarkFolder measures real functions: each folder in the one that
// SHOPIFY_FUNCTIONS names has a function.wasm, and maybe a provider.wasm, an
// input.graphql and a configuration.json. Without the variable there are none.
func BenchmarkFolder(b *testing.B) {
	functions, err := filepath.Glob(filepath.Join(os.Getenv("SHOPIFY_FUNCTIONS"), "*", "function.wasm"))
	if err != nil {
		b.Fatal(err)
	}
	e := newEngine(b, host.Config{Instances: 1})
	for _, function := range functions {
		part := func(name string) []byte {
			content, _ := os.ReadFile(filepath.Join(filepath.Dir(function), name))
			return content
		}
		p := compile(b, e, part("function.wasm"), Bundle{Provider: part("provider.wasm"), Query: string(part("input.graphql")), Configuration: part("configuration.json")})
		in := order()
		b.Run(filepath.Base(filepath.Dir(function)), func(b *testing.B) {
			var out abi.Verdict
			var trace host.Trace
			p.Evaluate(in, InstructionsMax, &out, &trace)
			b.Logf("%s %s %d, %d units of fuel: %v", out.Fault, out.Outcome, out.Discount, out.Fuel, trace.Err)
			for b.Loop() {
				p.Evaluate(in, InstructionsMax, &out, nil)
			}
		})
	}
}

// TestHostile: what a module could keep from one order to the next, or make the host
// do for nothing.
func TestHostile(t *testing.T) {
	e := newEngine(t, host.Config{Instances: 1})
	for _, at := range []int{1 << 16, int(arena.RegionAt()), int(arena.RegionEnd()) + 4096} {
		m := &gastest.Module{
			Types: []gastest.Type{{}}, Funcs: []gastest.Func{{Code: "nop"}}, MemoryMin: 1,
			Data: []gastest.Data{{At: at, Bytes: "kept"}}, Exports: []gastest.Export{{Name: "memory", Kind: 2}, {Name: "_start"}},
		}
		if _, err := e.Compile(t.Context(), m.Encode()); err == nil || !strings.Contains(err.Error(), "a data segment is out of bounds") {
			t.Errorf("data at %d: %v", at, err)
		}
	}
	wasm := build(t, "function.c")
	narrow, _ := evaluate(t, compile(t, e, wasm, Bundle{Configuration: []byte(`{"minimum":3,"percentage":10}`)}), order())
	wide, _ := evaluate(t, compile(t, e, wasm, Bundle{Configuration: []byte("{" + strings.Repeat(`"":0,`, 4_000) + `"minimum":3,"percentage":10}`)}), order())
	if wide.Fault != abi.FaultNone || wide.Fuel < narrow.Fuel+3*4_000*unitsPerStep {
		t.Errorf("a search through 4,000 properties cost %d units, through 2 %d (%s)", wide.Fuel, narrow.Fuel, wide.Fault)
	}
	i := compile(t, e, wasm, Bundle{Query: "{presentmentCurrencyRate}"}).slots[0].instance
	pages := uint32(i.size.Get()) << wasmPageShift
	i.input.null()
	i.input.string("short")
	i.Fuel.Set(InstructionsMax)
	i.inputRead([]uint64{uint64(len(i.input.nodes)), 0, uint64(pages)})
	if marked, _ := arena.Marked(i.memory, pages>>wasmPageShift); marked != 1 {
		t.Errorf("a text of 5 bytes marks %d of %d pages", marked, pages>>12)
	}
	i.reset()
	i.Fuel.Set(InstructionsMax)
	i.Writable(0, pages)
	if err := i.payMarks(); err != nil {
		t.Error(err)
	}
	if paid := InstructionsMax - i.Fuel.Get(); paid != uint64(pages>>12)*gas.ArenaPageUnits {
		t.Errorf("%d pages cost %d units", pages>>12, paid)
	}
	i.reset()
	query := "{x"
	for n := range 150 {
		query += fmt.Sprintf(":discount{metafield{jsonValue}} x%d", n)
	}
	query += ":presentmentCurrencyRate}"
	many := compile(t, e, wasm, Bundle{Configuration: []byte("[" + strings.Repeat("0,", 15_000) + "0]"), Query: query})
	if out, trace := evaluate(t, many, order()); !errors.Is(trace.Err, errInputSize) || out.Fault != abi.FaultBadOutput || len(many.slots[0].instance.input.nodes) > 2*InputBytesMax {
		t.Errorf("%s, %v", out.Fault, trace.Err)
	}
}

// storing is a function whose code has four i32 locals. It has a page of memory.
func storing(code string) []byte {
	return (&gastest.Module{
		Types:     []gastest.Type{{}, {Params: []byte{gastest.I32, gastest.I32, gastest.I32, gastest.I32}, Results: []byte{gastest.I32}}},
		Imports:   []gastest.Import{{Module: wasiModule, Name: "fd_write", Type: 1}},
		Funcs:     []gastest.Func{{Code: code, Locals: []byte{gastest.I32, gastest.I32, gastest.I32, gastest.I32}}},
		MemoryMin: 1,
		Data:      []gastest.Data{{At: 4000, Bytes: strings.Repeat("initial", 200)}},
		Exports:   []gastest.Export{{Name: "memory", Kind: 2}, {Name: "_start", Index: 1}},
	}).Encode()
}

// keeps runs a function once and says whether its memory is anything but what it was.
func keeps(t *testing.T, e *Engine, code string) (abi.Verdict, error, bool) {
	t.Helper()
	p := compile(t, e, storing(code), Bundle{})
	first := p.slots[0].instance
	out, trace := evaluate(t, p, order())
	i := p.slots[0].instance
	left := i.memory[len(i.view()):]
	kept := !i.at(p.initial) || first != i || slices.ContainsFunc(left, func(b byte) bool { return b != 0 })
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return out, trace.Err, kept
}

// TestStoresOutOfBounds: a function that writes where it has no memory gets no price, and
// leaves nothing behind.
func TestStoresOutOfBounds(t *testing.T) {
	e := newEngine(t, host.Config{Instances: 1})
	marks := arena.RegionEnd() + 1<<12
	for name, c := range map[string]struct{ code, want string }{
		"the next page":        {"i32.const 65536 i32.const 1 i32.store 2 0", "beyond the memory that the function has"},
		"close behind":         {"i32.const 65532 local.tee 0 i32.const 1 i32.store 2 0 local.get 0 i32.const 1 i32.store 2 200", "beyond the memory that the function has"},
		"across the end":       {"i32.const 65534 i32.const -1 i32.store 2 0", "beyond the memory that the function has"},
		"the bound":            {fmt.Sprintf("i32.const %d i32.const 1 i32.store 2 0", arena.RegionAt()-4), "beyond the memory that the function has"},
		"before it asks":       {"i32.const 65540 i32.const 1 i32.store 2 0 i32.const 1 memory.grow drop", "beyond the memory that the function has"},
		"before it asks twice": {"i32.const 196540 i32.const 1 i32.store 2 0 i32.const 1 memory.grow drop i32.const 4 memory.grow drop", "beyond the memory that the function has"},
		"behind the region":    {fmt.Sprintf("i32.const %d i32.const 1 i32.store 2 0", arena.RegionEnd()), "out of bounds memory access"},
		"the marks":            {fmt.Sprintf("i32.const 4096 i32.const 1 i32.store 2 0 i32.const %d i32.const 0 i32.store 2 0", marks), "out of bounds memory access"},
		"the marks, far ahead": {fmt.Sprintf("i32.const 4096 local.tee 0 i32.const 1 i32.store 2 0 local.get 0 i32.const 0 i64.extend_i32_u i64.store 3 %d", marks-4096), "out of bounds memory access"},
		"farther than memory":  {"i32.const 4096 i32.const 1 i32.store 2 4294967295", "unreachable"},
		"a fill":               {"i32.const 65530 i32.const 1 i32.const 7 memory.fill", "unreachable"},
		"a fill of the marks":  {fmt.Sprintf("i32.const %d i32.const 0 i32.const 4096 memory.fill", marks), "unreachable"},
	} {
		out, err, kept := keeps(t, e, c.code)
		if out.Fault != abi.FaultTrap || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v, want %q", name, out.Fault, err, c.want)
		}
		if kept {
			t.Errorf("%s: something is left", name)
		}
	}
}

// TestStoresLeaveNothing: whatever is stored through locals that change, in blocks that are
// left early and loops, is put back; and the pages are paid for.
func TestStoresLeaveNothing(t *testing.T) {
	e := newEngine(t, host.Config{Instances: 1})
	const set, store, near = " i32.const 8192 local.set 0 ", " local.get 0 i32.const -1 i32.store 2 0 ", " local.get 0 i32.const -1 i32.store 2 4 "
	for name, code := range map[string]string{
		"the end of a page": "i32.const 8191 local.set 0" + store + "local.get 0 i32.const -1 i32.store 2 240",
		"a block left":      set + "block void i32.const 1 br_if 0" + store + "end" + near,
		"the other arm":     set + "i32.const 0 if void" + store + "else" + near + "end",
		"behind an arm":     set + "i32.const 0 if void" + store + "end" + near,
		"a second round":    set + store + "loop void" + near + "i32.const 20480 local.set 0 local.get 1 i32.eqz i32.const 1 local.set 1 br_if 0 end",
		"pushed before":     set + store + "local.get 0 i32.const 20480 local.tee 0 i32.const -1 i32.store 2 0 i32.const -1 i32.store 2 4" + near,
		"changed between":   set + "local.get 0 i32.const 20480 local.set 0 i32.const -1 i32.store 2 0" + near,
	} {
		if _, _, kept := keeps(t, e, code); kept {
			t.Errorf("%s: something is left", name)
		}
	}
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for seed := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		var code strings.Builder
		emit := func(format string, args ...any) { fmt.Fprintf(&code, " "+format, args...) }
		near := func() int { return random.IntN(64_000) }
		for n := range 4 {
			emit("i32.const %d local.set %d", near(), n)
		}
		var block func(depth int)
		block = func(depth int) {
			for range 12 {
				local := random.IntN(4)
				switch k := random.IntN(12); {
				case k < 6:
					emit("local.get %d i32.const -1 i32.store 2 %d", local, random.IntN(600))
				case k == 6:
					emit("local.get %d i32.const %d local.set %d i32.const -1 i32.store 2 %d", local, near(), local, random.IntN(300))
				case k == 7:
					emit("i32.const %d local.tee %d i32.const -1 i32.store 2 8", near(), local)
				case k == 8:
					emit("i32.const %d local.set %d", near(), local)
				case k == 9 && depth < 3:
					emit("block void i32.const %d br_if 0", random.IntN(2))
					block(depth + 1)
					emit("end")
				case k == 10 && depth < 3:
					emit("i32.const %d if void", random.IntN(2))
					block(depth + 1)
					emit("else")
					block(depth + 1)
					emit("end")
				case k == 11 && depth < 3:
					emit("loop void")
					block(depth + 1)
					emit("end")
				}
			}
		}
		block(0)
		out, err, kept := keeps(t, e, code.String())
		if kept {
			t.Fatalf("seed %d: something is left of %s", seed, code.String())
		}
		if out.Fault != abi.FaultBadOutput || out.Fuel < gas.ArenaPageUnits {
			t.Fatalf("seed %d: %s, %d units, %v", seed, out.Fault, out.Fuel, err)
		}
	}
}

// TestPagesArePaidFor: also at the end of an evaluation that has an answer.
func TestPagesArePaidFor(t *testing.T) {
	p := compile(t, newEngine(t, host.Config{Instances: 1}), wasi("", "i32.const 9000 i32.const 1 i32.store 2 0"+writeAnswer), Bundle{})
	full, _ := evaluate(t, p, order())
	var out abi.Verdict
	if p.Evaluate(order(), full.Fuel, &out, nil); out.Fault != abi.FaultNone || out.Fuel != full.Fuel {
		t.Fatalf("%s with %d units of %d", out.Fault, out.Fuel, full.Fuel)
	}
	if p.Evaluate(order(), full.Fuel-1, &out, nil); out.Fault != abi.FaultOutOfFuel || out.Fuel != full.Fuel-1 {
		t.Fatalf("%s with %d units of %d", out.Fault, out.Fuel, full.Fuel-1)
	}
}

// wasi is a function for WASI whose _initialize and _start are the given code.
func wasi(initialize, start string) []byte {
	vector := func(at, n byte) string { return string([]byte{at, 0, 0, 0, n, 0, 0, 0}) }
	const answer = `{"operations":[]}`
	two, four := []byte{gastest.I32, gastest.I32}, []byte{gastest.I32, gastest.I32, gastest.I32, gastest.I32}
	return (&gastest.Module{
		Types:     []gastest.Type{{}, {Params: two, Results: two[:1]}, {Params: four, Results: two[:1]}},
		Imports:   []gastest.Import{{Module: wasiModule, Name: "fd_write", Type: 2}, {Module: wasiModule, Name: "random_get", Type: 1}},
		Funcs:     []gastest.Func{{Code: initialize, Locals: []byte{gastest.I32}}, {Code: start}},
		TableMin:  1,
		MemoryMin: 1,
		Data:      []gastest.Data{{At: 64, Bytes: vector(128, byte(len(answer))) + vector(0, 8)}, {At: 128, Bytes: answer}},
		Exports:   []gastest.Export{{Name: "memory", Kind: 2}, {Name: "_initialize", Index: 2}, {Name: "_start", Index: 3}},
	}).Encode()
}

const (
	writeAnswer = " i32.const 1 i32.const 64 i32.const 1 i32.const 80 call 0 drop "
	writeLog    = " i32.const 2 i32.const 72 i32.const 1 i32.const 80 call 0 drop "
	drawRandom  = " i32.const 0 i32.const 8 call 1 drop "
	writeTable  = " i32.const 0 ref.null table.set 0 "
)

// TestInitialise: nothing of what initialising does reaches an order, but for the
// state that it leaves; and an order that needs it done again pays for it.
func TestInitialise(t *testing.T) {
	e := newEngine(t, host.Config{Instances: 1})
	for name, wasm := range map[string][]byte{
		"random numbers drawn": wasi(drawRandom, drawRandom+writeLog+writeAnswer),
		"output written":       wasi(writeAnswer, writeAnswer),
		"a log written":        wasi(writeLog, writeAnswer),
		"a table written":      wasi(writeTable, writeAnswer),
	} {
		p := compile(t, e, wasm, Bundle{})
		first := p.slots[0].instance
		if out, trace := evaluate(t, p, order()); out.Fault != abi.FaultNone {
			t.Errorf("%s: %s %v", name, out.Fault, trace.Err)
		}
		if p.slots[0].instance != first {
			t.Errorf("%s: each evaluation takes a new instance", name)
		}
	}
	const rounds = 1_000_000
	long := fmt.Sprintf("i32.const %d local.set 0 loop void local.get 0 i32.const 1 i32.sub local.tee 0 br_if 0 end", rounds)
	short, _ := evaluate(t, compile(t, e, wasi("", writeTable+writeAnswer), Bundle{}), order())
	out, trace := evaluate(t, compile(t, e, wasi(long, writeTable+writeAnswer), Bundle{}), order())
	if out.Fault != abi.FaultNone || out.Fuel < short.Fuel+4*rounds {
		t.Errorf("%d units where initialising took %d more (%v)", out.Fuel, short.Fuel+4*rounds, trace.Err)
	}
	api := &gastest.Module{
		Types:   []gastest.Type{{}, {Results: []byte{gastest.I64}}, {Params: []byte{gastest.I32}, Results: []byte{gastest.I32}}},
		Imports: []gastest.Import{{Module: apiV2, Name: "shopify_function_input_get", Type: 1}, {Module: apiV2, Name: "shopify_function_output_new_object", Type: 2}},
		Funcs:   []gastest.Func{{Code: "call 0 drop i32.const 0 call 1 drop"}, {Code: "i32.const 0 call 1 drop"}}, MemoryMin: 1,
		Exports: []gastest.Export{{Name: "memory", Kind: 2}, {Name: "_initialize", Index: 2}, {Name: "run", Index: 3}},
	}
	p := compile(t, e, api.Encode(), Bundle{})
	if len(p.slots[0].instance.output.open) != 0 {
		t.Error("an output that was begun before the order is still open")
	}
	evaluate(t, p, order())
}

// TestProviderDigest: no name and module are another's.
func TestProviderDigest(t *testing.T) {
	if providerDigest("a", []byte("bc")) == providerDigest("ab", []byte("c")) {
		t.Error("a part of a name passes for a part of a module")
	}
}

// TestRefusedLeavesNothing: whatever was compiled for a function that is refused, on
// disk as in memory; and what a function that is kept needs stays.
func TestRefusedLeavesNothing(t *testing.T) {
	cache := t.TempDir()
	e := newEngine(t, host.Config{Instances: 1, Compiler: []string{"/proc/self/exe", compileRule}, Cache: cache})
	linked, provider := build(t, "linked.wat"), build(t, "provider.wat")
	files := func() (n int) {
		made, err := filepath.Glob(filepath.Join(cache, "*", "wazero-*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(made)
	}
	refused := func(wasm []byte, provider []byte) {
		t.Helper()
		var faults *gas.Error
		if _, err := e.Compile(t.Context(), (&Bundle{Provider: provider}).Wrap(wasm)); !errors.As(err, &faults) {
			t.Fatalf("not refused: %v", err)
		}
	}
	bad := bytes.Replace(linked, []byte("cabi_realloc"), []byte("cabi_reallox"), 1)
	refused(wasi("unreachable", ""), nil)
	refused(bad, provider)
	if err := compile(t, e, linked, Bundle{Provider: provider}).Abandon(); err != nil {
		t.Error(err)
	}
	if n := files(); n > 0 {
		t.Errorf("%d modules stay", n)
	}
	kept := compile(t, e, linked, Bundle{Provider: provider})
	refused(bad, provider)
	if err := kept.Close(); err != nil {
		t.Error(err)
	}
	refused(bad, provider)
	if err := compile(t, e, linked, Bundle{Provider: provider}).Abandon(); err != nil {
		t.Error(err)
	}
	if n := files(); n != 2 {
		t.Errorf("%d modules, want a function and its provider", n)
	}
}
