package plugins_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// BenchmarkEvaluate is the order path's view of one rule: lookup, encoding,
// call, decoding, reset, counters.
func BenchmarkEvaluate(b *testing.B) {
	r := open(b, journaltest.NewMemory().Tables())
	in := &abi.Input{
		Now: now, UnitPrice: 9900, Subtotal: 9900, Quantity: 1, Available: 99, Stock: 100,
		Currency: [3]byte{'C', 'N', 'Y'}, DealID: []byte("d-flash"), UserID: []byte("u-12345"),
	}
	var v abi.Verdict
	b.ReportAllocs()
	for b.Loop() {
		r.Evaluate("acme", "tiered", in, &v)
	}
	if v.Discount != 990 {
		b.Fatal(v.Fault)
	}
	b.ReportMetric(float64(v.Fuel), "fuel/op")
}
