package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

const (
	combinedBasisPoints = 2_500 // of the subtotal
	combinedMax         = 4_000 // basis points of the subtotal, with the rules before
)

// combinedCap takes off a percentage, and stops where all discounts together
// reach the cap. It stands last in a deal's list of rules.
func combinedCap(in *doorbuster.Input) doorbuster.Output {
	room := in.Subtotal.ShareDown(combinedMax) - in.DiscountSoFar
	if room <= 0 {
		return doorbuster.Output{Reason: "cap_reached", Final: true}
	}
	share := in.Subtotal.ShareDown(combinedBasisPoints)
	out := in.Discount(share, "25% off", "within_cap")
	if share > room {
		out = in.Discount(room, "25% off, at most 40% in all", "combined_cap")
	}
	out.Final = share >= room
	return out
}
