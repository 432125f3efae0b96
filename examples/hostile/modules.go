package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// Module is a module that means harm, and what has to become of it: refused with a
// fault that says Refusal, or run to Fault, or, harmless, to none.
type Module struct {
	Wasm    []byte
	Refusal string
	Fault   abi.Fault
}

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

// types are n different types.
func types(n int) []gastest.Type {
	list := make([]gastest.Type, n)
	for i := range list {
		for bit := range 10 {
			list[i].Params = append(list[i].Params, gastest.I32-byte(i>>bit&1)) // or i64
		}
	}
	return list
}

// elements is a segment of n nulls, for the table's begin.
func elements(n int) []byte {
	segment := append([]byte{4, 0x41, 0, 0x0b}, gastest.U32(n)...)
	return append(segment, slices.Repeat([]byte{0xd0, gastest.Funcref, 0x0b}, n)...)
}

// known are the modules by name.
func known() map[string]Module {
	all := map[string]Module{
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
		"rebuild of elements":    {rebuilt(func(m *gastest.Module) { m.TableMin, m.Elems = gas.ElementsMax, make([]int, gas.ElementsMax) }), "", abi.FaultOutOfFuel},
		"rebuild of some":        {rebuilt(func(m *gastest.Module) { m.TableMin, m.Elems = 1000, make([]int, 1000) }), "", abi.FaultNone},
		"rebuild of a table":     {rebuilt(func(m *gastest.Module) { m.TableMin = gas.TableEntriesMax }), "", abi.FaultNone},
		"rebuild of data":        {rebuilt(func(m *gastest.Module) { m.Data = slices.Repeat([]gastest.Data{{Bytes: "x"}}, gas.SegmentsMax) }), "", abi.FaultOutOfFuel},
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
		}), "at most 10000", 0},
		"many types":     {ruleOf(gastest.Result, func(m *gastest.Module) { m.Types = append(m.Types, types(gas.TypesMax-gastest.RuleTypes)...) }), "", 0},
		"too many types": {ruleOf(gastest.Result, func(m *gastest.Module) { m.Types = append(m.Types, types(gas.TypesMax)...) }), "at most 1000", 0},
		"many elements":  {claimed(9, slices.Concat([]byte{2}, elements(gas.ElementsMax/2), elements(gas.ElementsMax/2+1))...), "16385 elements of all segments so far, at most 16384", 0},
		"stores in many functions": {ruleOf(gastest.Result, func(m *gastest.Module) {
			m.Funcs = append(m.Funcs, slices.Repeat([]gastest.Func{{Type: gastest.TypeI32, Code: "raw " + strings.Repeat("20002000360000", 35_000) + " i32.const 0"}}, 16)...)
		}), "rewritten it has more than", 0},
		"one long function":      {ruleOf(strings.Repeat("local.get 0 i32.load 0 0 drop ", 40_000)+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"stores without end":     {ruleOf(strings.Repeat("local.get 0 local.get 0 i32.store 0 0 ", 35_000)+gastest.Result, nil), "", abi.FaultOutOfFuel},
		"blocks and locals":      {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[0] = blocksAndLocals(2000) }), "in one function", 0},
		"most blocks and locals": {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[0] = blocksAndLocals(720) }), "", 0},

		// Modules of other WebAssemblies than the ABI's.
		"component":         {[]byte("\x00asm\x0d\x00\x01\x00"), "not a core WebAssembly module", 0},
		"no module":         {[]byte("#!/bin/sh"), "not a core WebAssembly module", 0},
		"nothing":           {nil, "not a core WebAssembly module", 0},
		"only a header":     {[]byte("\x00asm\x01\x00\x00\x00"), `no export "rule_evaluate"`, 0},
		"5 MiB":             {append(ruleOf(gastest.Result, nil), make([]byte, 5<<20)...), "at most 4194304", 0},
		"shared memory":     {claimed(5, 1, 3, 1, 1), "neither shared nor 64-bit", 0},
		"64-bit memory":     {claimed(5, 1, 4, 1), "neither shared nor 64-bit", 0},
		"two memories":      {claimed(5, 2, 0, 1, 0, 1), "at most 1", 0},
		"exceptions":        {claimed(13, 1, 0, 0), "unknown section 13", 0},
		"atomics":           {ruleOf("raw fe0300"+gastest.Result, nil), "unknown instruction 0xfe", 0},
		"tail call":         {ruleOf("raw 1203", nil), "unknown instruction 0x12", 0},
		"relaxed vectors":   {ruleOf("raw fd8002"+gastest.Result, nil), "unknown instruction 0xfd 256", 0},
		"imported memory":   {claimed(2, 1, 1, 'm', 1, 'n', 2, 0, 1), "only functions can be imported", 0},
		"nameless memory":   {claimed(2, 1, 0, 6, 'm', 'e', 'm', 'o', 'r', 'y', 2, 0, 1), "only functions can be imported", 0},
		"imported global":   {claimed(2, 1, 1, 'm', 1, 'n', 3, 0x7f, 0), "only functions can be imported", 0},
		"unknown import":    {gastest.Rule(gastest.Result).WithImport("env", "system", gastest.TypeLog).Encode(), `"env"."system" is not offered`, 0},
		"import, ill-typed": {gastest.Rule(gastest.Result).WithImport("doorbuster", "log", gastest.TypeTwo).Encode(), `"doorbuster"."log" is func`, 0},
		"section twice":     {append(ruleOf(gastest.Result, nil), gastest.Section(1, []byte{0})...), "out of order or there twice", 0},
		"cut short":         {cut(ruleOf(gastest.Result, nil), 9), "where", 0},
		"name not UTF-8":    {claimed(0, 2, 0xff, 0xfe), "not UTF-8", 0},
		"long name":         {claimed(0, append([]byte{0x81, 0x10}, make([]byte, 2049)...)...), "bytes of a name, at most 1024", 0},
		"overlong integer":  {claimed(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00), "malformed integer", 0},
		"huge table":        {ruleOf(gastest.Result, func(m *gastest.Module) { m.TableMin = 1 << 30 }), "at most 65536", 0},
		"many parameters":   {ruleOf(gastest.Result, func(m *gastest.Module) { m.Types = append(m.Types, gastest.Type{Params: make65k()}) }), "parameters, at most 1000", 0},
		"command":           {ruleOf(gastest.Result, func(m *gastest.Module) { m.Exports = append(m.Exports, gastest.Export{Name: "_start"}) }), "not a command", 0},
		"ill-typed code":    {ruleOf("i32.const 0", nil), "code section", 0},
		"ill-typed stack":   {ruleOf("i64.add"+gastest.Result, nil), "code section", 0},

		// Initialisation.
		"trap at start":      {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[gastest.FuncBuffer].Code = "unreachable" }), "init section", 0},
		"recursion at start": {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[gastest.FuncBuffer].Code = "i32.const 0 call 1" }), "init section", 0},
		"data out of bounds": {ruleOf(gastest.Result, func(m *gastest.Module) { m.Data = []gastest.Data{{At: 65535, Bytes: "xx"}} }), "init section", 0},

		// What calls an import too often.
		"clock bomb": {withType(gastest.Rule("loop void i32.const 0 i64.const 0 i32.const 64 call 0 drop br 0 end"+gastest.Result).WithImport("wasi_snapshot_preview1", "clock_time_get", gastest.RuleTypes), gastest.Type{Params: []byte{gastest.I32, gastest.I64, gastest.I32}, Results: []byte{gastest.I32}}), "", abi.FaultOutOfFuel},
		"exit":       {withType(gastest.Rule("i32.const 0 call 0"+gastest.Result).WithImport("wasi_snapshot_preview1", "proc_exit", gastest.RuleTypes), gastest.Type{Params: []byte{gastest.I32}}), "", abi.FaultTrap},

		// Traps.
		"unreachable":          {ruleOf("unreachable", nil), "", abi.FaultTrap},
		"load out of bounds":   {ruleOf("i32.const -4 i32.load 0 0 drop"+gastest.Result, nil), "", abi.FaultTrap},
		"store out of bounds":  {ruleOf("i32.const -4 i32.const 0 i32.store 0 0"+gastest.Result, nil), "", abi.FaultTrap},
		"offset out of bounds": {ruleOf("i32.const 0 i32.const 0 i32.store 0 4294967295"+gastest.Result, nil), "", abi.FaultTrap},
		"null call":            {ruleOf("i32.const 0 call_indirect 0 0"+gastest.Result, func(m *gastest.Module) { m.TableMin = 1 }), "", abi.FaultTrap},
		"call of another type": {ruleOf("i32.const 0 call_indirect 1 0 drop"+gastest.Result, func(m *gastest.Module) {
			m.TableMin, m.Elems, m.Funcs[2].Code = 1, []int{0}, "i32.const 0 i32.const 0 call_indirect 1 0 drop"+gastest.Result
		}), "", abi.FaultTrap},
		"division by 0": {ruleOf("i32.const 1 i32.const 0 i32.div_u drop"+gastest.Result, nil), "", abi.FaultTrap},

		// Answers that would make a wrong price.
		"reserved bits":    {ruleOf("i32.const 4096 i32.const 1 i32.store 0 4"+gastest.Result, nil), "", abi.FaultBadOutput},
		"unknown outcome":  {ruleOf("i32.const 4096 i32.const 3 i32.store16 0 0"+gastest.Result, nil), "", abi.FaultBadOutput},
		"unknown flag":     {ruleOf("i32.const 4096 i32.const 2 i32.store16 0 2"+gastest.Result, nil), "", abi.FaultBadOutput},
		"short output":     {ruleOf("i64.const 17592186044447", nil), "", abi.FaultBadOutput},
		"long label":       {ruleOf("i32.const 4096 i32.const 129 i32.store 0 20"+gastest.Result, nil), "", abi.FaultBadOutput},
		"label elsewhere":  {ruleOf("i32.const 4096 i32.const -1 i32.store 0 16 i32.const 4096 i32.const 5 i32.store 0 20"+gastest.Result, nil), "", abi.FaultBadOutput},
		"label not UTF-8":  {ruleOf("i32.const 64 i32.const 255 i32.store8 0 0 i32.const 4096 i32.const 64 i32.store 0 16 i32.const 4096 i32.const 1 i32.store 0 20"+gastest.Result, nil), "", abi.FaultBadOutput},
		"loud reason":      {ruleOf("i32.const 64 i32.const 65 i32.store8 0 0 i32.const 4096 i32.const 64 i32.store 0 24 i32.const 4096 i32.const 1 i32.store 0 28"+gastest.Result, nil), "", abi.FaultBadOutput},
		"largest discount": {ruleOf(discount("i64.const 9223372036854775807"), nil), "", abi.FaultBadOutput},

		// What would remember an order: the first evaluation's discount is 0, and so must
		// be every other's.
		"memory kept":          {ruleOf("i32.const 64 i32.const 64 i64.load 0 0 i64.const 1 i64.add i64.store 0 0 "+discount("i32.const 64 i64.load 0 0 i64.const 1 i64.sub"), nil), "", 0},
		"memory kept far away": {ruleOf("i32.const 16000000 i32.const 16000000 i64.load 0 0 i64.const 1 i64.add i64.store 0 0 "+discount("i32.const 16000000 i64.load 0 0 i64.const 1 i64.sub"), func(m *gastest.Module) { m.MemoryMin = 256 }), "", 0},
		"global kept": {ruleOf("global.get 0 i64.const 1 i64.add global.set 0 "+discount("global.get 0 i64.const 1 i64.sub"), func(m *gastest.Module) {
			m.Globals = []gastest.Global{{Type: gastest.I64, Mutable: true, Init: "i64.const 0"}}
		}), "", 0},
		"size kept":    {ruleOf("i32.const 1 memory.grow drop "+discount("memory.size i64.extend_i32_s i64.const 2 i64.sub"), nil), "", 0},
		"table kept":   {ruleOf(discount("i64.const 1 i32.const 0 table.get 0 raw d1 i64.extend_i32_s i64.sub")+"drop i32.const 0 ref.func 0 table.set 0"+gastest.Result, func(m *gastest.Module) { m.TableMin = 1 }), "", 0},
		"data dropped": {ruleOf("i32.const 64 i32.const 0 i32.const 4 memory.init 0 0 data.drop 0 "+discount("i64.const 0"), func(m *gastest.Module) { m.Data = []gastest.Data{{At: -1, Bytes: "1234"}} }), "", 0},
	}
	for id := range byte(13) {
		if id != 8 { // the start section is no vector
			all[fmt.Sprintf("claim of section %d", id)] = Module{claim(id), "section, offset", 0}
		}
	}
	return all
}

// claimed is a module of one section.
func claimed(id byte, content ...byte) []byte {
	return append([]byte("\x00asm\x01\x00\x00\x00"), gastest.Section(id, content)...)
}

// cut leaves away the last bytes.
func cut(wasm []byte, n int) []byte { return wasm[:len(wasm)-n] }

func make65k() []byte { return slices.Repeat([]byte{gastest.I32}, 1<<16) }

// withType encodes a module that has one more type, the last.
func withType(m *gastest.Module, t gastest.Type) []byte {
	m.Types = append(m.Types, t)
	return m.Encode()
}

// discount is code that takes off what code leaves.
func discount(code string) string {
	return "i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 " + code + " i64.store 3 8" + gastest.Result
}

// Modules returns the names of all modules, sorted, and the modules.
func Modules() ([]string, map[string]Module) {
	all := known()
	return slices.Sorted(maps.Keys(all)), all
}
