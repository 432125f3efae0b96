package rules_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// BenchmarkRules measures every rule of every language on the first case of its
// vectors that it answers: encoding the input, the call with its fuel, decoding the
// output and the reset.
func BenchmarkRules(b *testing.B) {
	engine := newEngine(b)
	for _, l := range languages {
		for rule, wasm := range build(b, l.folder, l.extension) {
			b.Run(rule+"/"+l.folder, func(b *testing.B) {
				program, err := engine.Compile(b.Context(), wasm, nil)
				if err != nil {
					b.Fatal(err)
				}
				in := applies(b, rule)
				var v abi.Verdict
				b.ReportAllocs()
				for b.Loop() {
					program.Evaluate(in, abi.FuelDefault, &v, nil)
				}
				b.ReportMetric(float64(v.Fuel), "fuel/op")
				b.ReportMetric(float64(len(wasm)), "bytes")
			})
		}
	}
}

// applies returns the first case in which a rule does something.
func applies(b *testing.B, rule string) *abi.Input {
	b.Helper()
	for _, c := range cases(b, rule) {
		if c.Expect.Outcome != abi.OutcomeNone.String() {
			return c.input
		}
	}
	b.Fatalf("%s never applies", rule)
	return nil
}
