package main

import (
	"strconv"

	doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"
)

const (
	payUnits  = 3
	freeUnits = 2
)

// buyXGetY gives the last units of every set of payUnits + freeUnits for free.
// Of the units beyond the last whole set, those beyond payUnits are free.
func buyXGetY(in *doorbuster.Input) doorbuster.Output {
	sets, rest := in.Quantity/(payUnits+freeUnits), in.Quantity%(payUnits+freeUnits)
	free := sets * freeUnits
	if rest > payUnits {
		free += rest - payUnits
	}
	if free == 0 {
		return doorbuster.Nothing()
	}
	label := "Buy 3, get 2: " + strconv.Itoa(int(free)) + " free"
	return in.Discount(in.UnitPrice.Times(free), label, "free_units")
}
