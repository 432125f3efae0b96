package deal_test

import (
	"encoding/binary"
	"strconv"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// tenPercent is a rule as fast as a rule can be, so that the deal is measured.
type tenPercent struct{}

func (tenPercent) Evaluate(_, _ string, in *abi.Input, out *abi.Verdict) {
	out.Reset()
	out.Version, out.Fuel, out.Digest = 3, 210, uint64(in.Now)
	out.SetOutput(abi.Output{Outcome: abi.OutcomeDiscount, Discount: in.Subtotal / 10, Label: tenPercentLabel, Reason: tenPercentReason})
}

var tenPercentLabel, tenPercentReason = []byte("10% off from 1"), []byte("tier_1")

// flow places orders as the deal's actor does, with buffers that are used
// again and again.
type flow struct {
	state  *deal.State
	cmd    deal.Command
	reply  deal.Reply
	record []byte
	user   []byte
	key    []byte
	n      int
}

func newFlow(tb testing.TB) *flow {
	f := &flow{state: deal.NewState(), record: make([]byte, 0, 1024)}
	f.cmd.Kind, f.cmd.At = deal.Create, dayOne
	f.cmd.Spec = &deal.Spec{
		ID: "d-1001", Merchant: "acme", Title: "Lychee 2.5 kg", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 9900, Stock: deal.MaxStock,
		PerUserLimit: 2, ReserveTTL: deal.DefaultTTL, Rules: []string{"tiered"},
	}
	f.step(tb)
	f.cmd.Kind, f.cmd.Quantity = deal.Place, 1
	f.cmd.Codes = [][]byte{[]byte("VIP")}
	f.cmd.Attributes = []abi.KV{{Key: []byte("channel"), Value: []byte("app")}}
	return f
}

// place has the next of ever new users place an order, two in a millisecond.
func (f *flow) place(tb testing.TB) {
	f.n++
	f.user = strconv.AppendInt(append(f.user[:0], "user-"...), int64(f.n), 10)
	f.key = strconv.AppendInt(append(f.key[:0], "6fd1a7c2-order-"...), int64(f.n), 10)
	f.cmd.User, f.cmd.Key, f.cmd.At = f.user, f.key, f.cmd.At+int64(f.n%2)
	f.step(tb)
}

// step decides, applies and encodes.
func (f *flow) step(tb testing.TB) {
	f.reply.Reset()
	f.state.Decide(&f.cmd, tenPercent{}, &f.reply)
	if f.reply.Event.Kind == 0 {
		tb.Fatalf("order %d: code %d", f.n, f.reply.Code)
	}
	f.reply.Event.Seq = f.state.Seq + 1
	if err := f.state.Apply(&f.reply.Event); err != nil {
		tb.Fatal(err)
	}
	f.record = f.reply.Event.Append(f.record[:0])
}

// TestOrderIsSmall: what an order writes is what a sale of a million of them has
// to write, and to read again after a crash.
func TestOrderIsSmall(t *testing.T) {
	f := newFlow(t)
	f.place(t)
	if n := len(f.record); n > 180 {
		t.Errorf("an order with a code, an attribute and one rule takes %d bytes", n)
	}
}

// TestPlaceDoesNotAllocate: deciding, applying and encoding an order allocates
// nothing of its own. The growth of the deal's tables is spread over the orders
// that fill them, some allocations in 10,000: AllocsPerRun rounds its average
// down, so they are no failure, while one allocation an order is.
func TestPlaceDoesNotAllocate(t *testing.T) {
	f := newFlow(t)
	for range 20_000 {
		f.place(t)
	}
	if n := testing.AllocsPerRun(10_000, func() { f.place(t) }); n != 0 {
		t.Errorf("%v allocations an order", n)
	}
	allocs := map[string]func(){
		"quote": func() {
			f.reply.Reset()
			f.cmd.Kind = deal.Quote
			f.state.Decide(&f.cmd, tenPercent{}, &f.reply)
			f.cmd.Kind = deal.Place
		},
		"replay of a key": func() {
			f.reply.Reset()
			if f.state.Decide(&f.cmd, tenPercent{}, &f.reply); !f.reply.Replayed {
				t.Fatalf("code %d", f.reply.Code)
			}
		},
	}
	var c deal.Command
	var order uint64
	allocs["confirm"] = func() {
		order++
		c.Reset()
		c.Kind, c.At, c.Order, c.Ref = deal.Confirm, f.cmd.At, 1+order, tenPercentReason
		f.reply.Reset()
		f.state.Decide(&c, nil, &f.reply)
		f.reply.Event.Seq = f.state.Seq + 1
		if err := f.state.Apply(&f.reply.Event); err != nil {
			t.Fatal(err)
		}
		f.state.Settled(&f.reply)
		f.record = f.reply.Event.Append(f.record[:0])
	}
	for name, run := range allocs {
		if n := testing.AllocsPerRun(1000, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkPlace is the whole work of the domain on one order: decide with a
// rule, apply, encode.
func BenchmarkPlace(b *testing.B) {
	f := newFlow(b)
	b.ReportAllocs()
	for b.Loop() {
		f.place(b)
	}
	b.ReportMetric(float64(len(f.record)), "record-B")
}

// BenchmarkReplay is what recovery costs the domain: decode and apply.
func BenchmarkReplay(b *testing.B) {
	const orders = 1_000_000
	journal := make([]byte, 0, 160*orders)
	f := newFlow(b)
	created := *f.cmd.Spec
	for range orders {
		f.place(b)
		journal = binary.AppendUvarint(journal, uint64(len(f.record)))
		journal = append(journal, f.record...)
	}
	for b.Loop() {
		s := deal.NewState()
		e := deal.Event{Kind: deal.DealCreated, Seq: 1, At: dayOne, Spec: &created}
		if err := s.Apply(&e); err != nil {
			b.Fatal(err)
		}
		for rest := journal; len(rest) > 0; {
			n, at := binary.Uvarint(rest)
			if err := e.Decode(rest[at : at+int(n)]); err != nil {
				b.Fatal(err)
			}
			rest = rest[at+int(n):]
			e.Seq = s.Seq + 1
			if err := s.Apply(&e); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/orders, "ns/order")
}

// BenchmarkSnapshot and BenchmarkRestore say what leaving memory and coming
// back costs an order.
func BenchmarkSnapshot(b *testing.B) {
	f := newFlow(b)
	for range 1_000_000 {
		f.place(b)
	}
	snapshot := f.state.AppendSnapshot(nil)
	for b.Loop() {
		snapshot = f.state.AppendSnapshot(snapshot[:0])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/order")
	b.ReportMetric(float64(len(snapshot))/1e6, "B/order")
}

func BenchmarkRestore(b *testing.B) {
	f := newFlow(b)
	for range 1_000_000 {
		f.place(b)
	}
	snapshot := f.state.AppendSnapshot(nil)
	for b.Loop() {
		if err := deal.NewState().Restore(snapshot); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/order")
}
