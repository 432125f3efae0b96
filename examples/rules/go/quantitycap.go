package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

const quantityMax = 5

// quantityCap rejects an order with which a customer would hold more than
// quantityMax units of the deal.
func quantityCap(in *doorbuster.Input) doorbuster.Output {
	if uint64(in.UserQuantity)+uint64(in.Quantity) > quantityMax {
		return doorbuster.Reject("At most 5 for each customer", "quantity_cap")
	}
	return doorbuster.Nothing()
}
