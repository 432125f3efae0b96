// Command hostile shows what becomes of modules that mean harm: it makes each of
// them, has it compiled as an upload is, runs it, and prints the verdict and what it
// took. Not one of them is a file: modules.go is all there is to read.
//
//	go run ./examples/hostile
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// compileRule is the argument that makes this program a compiler of one module, as
// the server's own binary is.
const compileRule = "compile-rule"

func main() {
	if len(os.Args) > 1 && os.Args[1] == compileRule {
		os.Exit(host.CompileChild(os.Args[2:], os.Stdin, os.Stdout))
	}
	names, _ := Modules()
	if err := run(os.Stdout, names); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

// order is what the modules are told.
var order = &abi.Input{
	Now: 1_790_000_000_123, UnitPrice: 9900, Subtotal: 9900, Quantity: 1, Stock: 100, Available: 100,
	Currency: [3]byte{'C', 'N', 'Y'}, DealID: []byte("deal-1"), UserID: []byte("user-1"),
}

// run tries the modules of these names.
func run(out io.Writer, names []string) (err error) {
	cache, err := os.MkdirTemp("", "hostile-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cache)) }()
	engine, err := host.New(host.Config{Instances: 1, Compiler: []string{"/proc/self/exe", compileRule}, Cache: cache})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "module\tbytes\tcompiled in\tfuel\tevaluated in\tverdict")
	_, all := Modules()
	for _, name := range names {
		m := all[name]
		o := try(engine, m.Wasm)
		fmt.Fprintf(table, "%s\t%d\t%s\t%d\t%s\t%s\n", name, len(m.Wasm), o.compiled.Round(time.Millisecond), o.fuel, o.evaluated, o.verdict)
	}
	return table.Flush()
}

// outcome is what became of a module.
type outcome struct {
	verdict             string
	fuel                uint64
	compiled, evaluated time.Duration
}

func try(engine *host.Engine, wasm []byte) (o outcome) {
	begin := clockd.Mono()
	program, err := engine.Compile(context.Background(), wasm, nil)
	o.compiled = time.Duration(clockd.Mono() - begin)
	if err != nil {
		o.verdict = "refused: " + firstFault(err)
		return o
	}
	var v abi.Verdict
	begin = clockd.Mono()
	program.Evaluate(order, abi.FuelDefault, &v, nil)
	o.evaluated, o.fuel, o.verdict = time.Duration(clockd.Mono()-begin), v.Fuel, v.Fault.String()
	_ = program.Close()
	return o
}

func firstFault(err error) string {
	var faults *gas.Error
	if !errors.As(err, &faults) {
		return err.Error()
	}
	text := faults.Faults[0].String()
	if more := len(faults.Faults) - 1 + faults.More; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return cmp.Or(text, "without a reason")
}
