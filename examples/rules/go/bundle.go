package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

const bundleAmount doorbuster.Money = 1_200 // for each unit

// bundle makes the deal cheaper together with the product that its attribute
// "bundle" names. The order's attribute "cart" lists what else is being bought.
func bundle(in *doorbuster.Input) doorbuster.Output {
	with, _ := in.DealAttributes.Get("bundle")
	cart, _ := in.Attributes.Get("cart")
	for product := range doorbuster.List(cart) {
		if product == with {
			return in.Discount(bundleAmount.Times(in.Quantity), "Bundle price", "bundle")
		}
	}
	return doorbuster.Nothing()
}
