package exchange

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

// tiers, from the highest quantity down: the first that fits is the one.
var tiers = []struct {
	from          uint32
	basisPoints   int64
	label, reason string
}{
	{5, 2_000, "20% off from 5", "tier_5"},
	{3, 1_500, "15% off from 3", "tier_3"},
	{1, 1_000, "10% off from 1", "tier_1"},
}

// Tiered is the rule of examples/rules, in Go without a host: a percentage off what
// is payable, in minor units, that grows with the quantity. It returns what it takes
// off and the texts, which are empty when it takes off nothing.
func Tiered(payable int64, quantity uint32) (discount int64, label, reason string) {
	for _, t := range tiers {
		if quantity >= t.from {
			return int64(doorbuster.Money(payable).ShareDown(t.basisPoints)), t.label, t.reason
		}
	}
	return 0, "", ""
}
