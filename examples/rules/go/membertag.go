package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

// memberTag takes off a percentage by the customer's membership, which the shop
// puts into the order's attribute "member".
func memberTag(in *doorbuster.Input) doorbuster.Output {
	tag, _ := in.Attributes.Get("member")
	switch tag {
	case "gold":
		return in.Discount(in.Payable().ShareHalfEven(750), "Gold member: 7.5% off", "member_gold")
	case "silver":
		return in.Discount(in.Payable().ShareHalfEven(500), "Silver member: 5% off", "member_silver")
	case "bronze":
		return in.Discount(in.Payable().ShareHalfEven(250), "Bronze member: 2.5% off", "member_bronze")
	}
	return doorbuster.Nothing()
}
