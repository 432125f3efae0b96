package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

// stockSteps are shares of the stock that are left, and what comes off then.
var stockSteps = []struct {
	left, off     int64 // basis points
	label, reason string
}{
	{8_000, 3_000, "Early bird: 30% off", "stock_80"},
	{5_000, 2_000, "Early bird: 20% off", "stock_50"},
	{2_000, 1_000, "Early bird: 10% off", "stock_20"},
}

// stockPrice takes off the more, the more of the stock is left.
func stockPrice(in *doorbuster.Input) doorbuster.Output {
	if in.Stock <= 0 {
		return doorbuster.Nothing()
	}
	for _, s := range stockSteps {
		// Units are counted like money here: a share of them, rounded up.
		if in.Available >= int64(doorbuster.Money(in.Stock).ShareUp(s.left)) {
			return in.Discount(in.Payable().ShareDown(s.off), s.label, s.reason)
		}
	}
	return doorbuster.Nothing()
}
