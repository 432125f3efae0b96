package reprice

import (
	"math"
	"math/bits"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
)

// Buckets is how many equal parts a histogram divides a price into: each is 5 %
// of the subtotal wide.
const Buckets = 20

// Summary is what a backtest comes to. Amounts are minor units; sums that do not
// fit an int64 stay at its largest value.
type Summary struct {
	Orders  uint64
	Changed uint64 // Cheaper + Dearer + Refused
	Cheaper uint64 // for the shopper
	Dearer  uint64
	Refused uint64

	Recorded  Sums // as the orders were placed
	Candidate Sums // without those that the candidate would have refused

	// What the candidate answered, where it ran.
	Ran     uint64
	None    uint64
	Gave    uint64 // a discount, be it 0
	Rejects uint64
	Faults  [abi.FaultRuleInit + 1]uint64 // by kind; FaultNone counts nothing
	fuel    *hdrhistogram.Histogram

	// Change counts orders by what the shopper would have paid more, in parts of
	// the subtotal: at Buckets no difference, at Buckets + n more than n − 1 and at
	// most n parts more, at Buckets − n the same less. Refused orders are not in it.
	Change [2*Buckets + 1]uint64
	// RecordedDiscount and CandidateDiscount count orders by their discount: at 0
	// none, at n more than n − 1 and at most n parts of the subtotal.
	RecordedDiscount, CandidateDiscount [Buckets + 1]uint64
}

// Sums are over all orders of a backtest.
type Sums struct{ Revenue, Discount int64 }

func (s *Sums) add(subtotal, discount int64) {
	s.Revenue = saturated(s.Revenue, subtotal-discount)
	s.Discount = saturated(s.Discount, discount)
}

func saturated(sum, amount int64) int64 {
	if amount > math.MaxInt64-sum {
		return math.MaxInt64
	}
	return sum + amount
}

func newSummary() *Summary { return &Summary{fuel: hdrhistogram.New(1, plugins.FuelMax, 3)} }

// Fuel returns a quantile (0 to 100) of the fuel that the candidate used, within
// a thousandth.
func (s *Summary) Fuel(quantile float64) uint64 { return uint64(s.fuel.ValueAtQuantile(quantile)) }

// FuelMax returns the most fuel that the candidate used.
func (s *Summary) FuelMax() uint64 { return uint64(s.fuel.Max()) }

// add counts one order. Not all of them are changes.
func (s *Summary) add(c *Change) {
	p := &c.Order.Placed
	subtotal := p.Subtotal()
	s.Orders++
	s.Recorded.add(subtotal, p.Discount)
	s.RecordedDiscount[parts(p.Discount, subtotal)]++
	if c.Candidate != nil {
		s.ran(c)
	}
	if c.Refused {
		s.Refused++
		s.Changed++
		return
	}
	s.Candidate.add(subtotal, c.Discount)
	s.CandidateDiscount[parts(c.Discount, subtotal)]++
	switch d := c.Difference(); {
	case d > 0:
		s.Dearer++
		s.Changed++
		s.Change[Buckets+parts(d, subtotal)]++
	case d < 0:
		s.Cheaper++
		s.Changed++
		s.Change[Buckets-parts(-d, subtotal)]++
	default:
		s.Change[Buckets]++
	}
}

func (s *Summary) ran(c *Change) {
	s.Ran++
	switch v := c.Candidate; {
	case v.Fault != abi.FaultNone:
		s.Faults[v.Fault]++
	case v.Outcome == abi.OutcomeReject:
		s.Rejects++
	case v.Outcome == abi.OutcomeDiscount:
		s.Gave++
	default:
		s.None++
	}
	_ = s.fuel.RecordValue(int64(c.Candidate.Fuel)) // within its bounds: no module has more
}

// parts returns how many parts of the whole an amount of 0 to whole is, rounded
// up.
func parts(amount, whole int64) int {
	if amount == 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(amount), Buckets)
	n, rest := bits.Div64(high, low, uint64(whole))
	if rest > 0 {
		n++
	}
	return int(n)
}
