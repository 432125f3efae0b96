package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

// codes is what each code gives: basis points of what is left to pay, or an
// amount from a minimum subtotal on.
var codes = []struct {
	code            string
	basisPoints     int64
	amount, minimum doorbuster.Money
	final           bool
	label, reason   string
}{
	{code: "VIP", basisPoints: 2_000, final: true, label: "Code VIP", reason: "code_vip"},
	{code: "SAVE10", basisPoints: 1_000, label: "Code SAVE10", reason: "code_save10"},
	{code: "MINUS500", amount: 500, minimum: 2_000, label: "Code MINUS500", reason: "code_minus500"},
}

// code gives what the first known code of the order gives.
func code(in *doorbuster.Input) doorbuster.Output {
	for _, given := range in.Codes {
		for _, c := range codes {
			if !doorbuster.EqualFold(given, c.code) {
				continue
			}
			if in.Subtotal < c.minimum {
				return doorbuster.Output{Reason: "code_minimum"}
			}
			out := in.Discount(c.amount+in.Payable().ShareDown(c.basisPoints), c.label, c.reason)
			out.Final = c.final
			return out
		}
	}
	return doorbuster.Nothing()
}
