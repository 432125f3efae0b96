package main

import doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"

// Milliseconds of the day, at the shop's distance from UTC.
const (
	hour             = 3_600_000
	day              = 24 * hour
	flashFrom        = 20 * hour
	flashTo          = 21 * hour
	flashUTC         = 8 * hour
	flashBasisPoints = 2_500
)

// flashHour takes off a percentage during one hour of every day.
func flashHour(in *doorbuster.Input) doorbuster.Output {
	if t := (in.Now + flashUTC) % day; t < flashFrom || t >= flashTo {
		return doorbuster.Nothing()
	}
	return in.Discount(in.Payable().ShareDown(flashBasisPoints), "Flash hour: 25% off", "flash_hour")
}
