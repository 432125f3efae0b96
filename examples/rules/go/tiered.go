package main

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

// tiered takes off a percentage that grows with the quantity.
func tiered(in *doorbuster.Input) doorbuster.Output {
	for _, t := range tiers {
		if in.Quantity >= t.from {
			return in.Discount(in.Payable().ShareDown(t.basisPoints), t.label, t.reason)
		}
	}
	return doorbuster.Nothing()
}
