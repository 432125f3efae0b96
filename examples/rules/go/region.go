package main

import (
	"strings"

	doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"
)

// region rejects orders to the places that the deal's attribute "not_in" lists:
// countries ("US") and subdivisions ("CA-QC"). The order's attribute "region" is
// where it goes to.
func region(in *doorbuster.Input) doorbuster.Output {
	blocked, _ := in.DealAttributes.Get("not_in")
	to, _ := in.Attributes.Get("region")
	to = strings.Trim(to, " ")
	for entry := range doorbuster.List(blocked) {
		if to == "" {
			return doorbuster.Reject("Please say where to deliver", "region_missing")
		}
		if covers(entry, to) {
			return doorbuster.Reject("Not sold in your region", "region_blocked")
		}
	}
	return doorbuster.Nothing()
}

// covers says whether place is the region or lies in it.
func covers(region, place string) bool {
	if !doorbuster.HasPrefixFold(place, region) {
		return false
	}
	return len(place) == len(region) || place[len(region)] == '-'
}
