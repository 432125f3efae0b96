package host_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// FuzzCompile: no bytes harm the engine, and what compiles can be evaluated.
func FuzzCompile(f *testing.F) {
	for _, wasm := range rules() {
		f.Add(wasm)
	}
	for seed := range uint64(4) {
		f.Add(generate(seed))
	}
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x01\x05\xff\xff\xff\xff\x0f")) // 2^32-1 types
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
