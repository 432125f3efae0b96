// Command panics is a rule that panics, by the order's quantity in another way.
package main

import (
	"errors"

	doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"
)

func init() { doorbuster.Register(evaluate) }

func main() {}

func evaluate(in *doorbuster.Input) doorbuster.Output {
	var missing *doorbuster.Input
	switch in.Quantity {
	case 1:
		panic("no tier for " + in.Currency)
	case 2:
		panic(errors.New("an error of its own"))
	case 3:
		_ = in.Codes[in.Quantity]
	case 4:
		missing.Quantity++
	case 5:
		_ = in.Quantity / in.UserQuantity
	case 6:
		panic(6)
	}
	return in.Discount(10, "", "")
}
