package host_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

func TestSmoke(t *testing.T) {
	e, err := host.New(host.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	p, err := e.Compile(t.Context(), gastest.Rule(`
		i32.const 4096 i32.const 1 i32.store16 1 0
		i32.const 4096 i64.const 990 i64.store 3 8`+gastest.Result).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var v abi.Verdict
	var tr host.Trace
	p.Evaluate(&abi.Input{Subtotal: 9900}, 100000, &v, &tr)
	t.Logf("%+v %+v", v, tr)
	n := testing.AllocsPerRun(1000, func() { p.Evaluate(&abi.Input{Subtotal: 9900}, 100000, &v, nil) })
	t.Log(n)
	p, err = e.Compile(t.Context(), gastest.Rule(`loop void br 0 end`+gastest.Result).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Evaluate(&abi.Input{Subtotal: 9900}, 100000, &v, &tr)
	t.Logf("%+v %+v", v, tr)
}

func BenchmarkEvaluate(b *testing.B) {
	e, err := host.New(host.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	p, err := e.Compile(b.Context(), gastest.Rule(`
		i32.const 4096 i32.const 1 i32.store16 1 0
		i32.const 4096 i64.const 990 i64.store 3 8`+gastest.Result).Encode(), nil)
	if err != nil {
		b.Fatal(err)
	}
	var v abi.Verdict
	in := &abi.Input{Subtotal: 9900}
	for b.Loop() {
		p.Evaluate(in, 100000, &v, nil)
	}
}
