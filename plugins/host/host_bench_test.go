package host_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// BenchmarkEvaluate measures encoding the input, the call with its fuel, decoding
// the output and the reset. BenchmarkEncode is the encoding and the digest alone.
func BenchmarkEvaluate(b *testing.B) {
	for name, wasm := range rules() {
		b.Run(name, func(b *testing.B) {
			p := compile(b, host.Config{}, wasm)
			var v abi.Verdict
			b.ReportAllocs()
			for b.Loop() {
				p.Evaluate(order, abi.FuelDefault, &v, nil)
			}
			b.ReportMetric(float64(v.Fuel), "fuel/op")
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	buf := make([]byte, 0, abi.InputBytesMax)
	b.ReportAllocs()
	for b.Loop() {
		encoded, err := order.Append(buf)
		if err != nil {
			b.Fatal(err)
		}
		_ = abi.Digest(encoded)
	}
}

func BenchmarkCompile(b *testing.B) {
	e := engine(b, host.Config{Instances: 1})
	wasm := rules()["small"]
	for b.Loop() {
		p, err := e.Compile(b.Context(), wasm, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
