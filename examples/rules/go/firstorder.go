package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

const (
	firstOrderBasisPoints                  = 1_500
	firstOrderMax         doorbuster.Money = 5_000
)

// firstOrder takes a percentage off a user's first order, up to a cap.
func firstOrder(in *doorbuster.Input) doorbuster.Output {
	if !in.FirstOrder {
		return doorbuster.Nothing()
	}
	return in.Discount(min(in.Payable().ShareDown(firstOrderBasisPoints), firstOrderMax), "15% off your first order", "first_order")
}
