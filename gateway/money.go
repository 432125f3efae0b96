package gateway

import (
	"slices"
	"strconv"
)

// Amounts are minor units everywhere but in sentences for people.

// ISO 4217 gives most currencies two digits behind the point. These have another
// number of them.
var (
	noDigits    = []string{"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"}
	threeDigits = []string{"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}
	fourDigits  = []string{"CLF", "UYW"}
)

// minorDigits is how many digits of an amount stand behind the point.
func minorDigits(currency string) int {
	switch {
	case slices.Contains(noDigits, currency):
		return 0
	case slices.Contains(threeDigits, currency):
		return 3
	case slices.Contains(fourDigits, currency):
		return 4
	}
	return 2
}

// moneyText writes an amount as people do: 99.00 CNY, −0.05 EUR, 1200 JPY.
func moneyText(amount int64, currency string) string {
	sign, digits := "", minorDigits(currency)
	text := strconv.FormatInt(amount, 10)
	if amount < 0 {
		sign, text = "\u2212", text[1:]
	}
	for len(text) <= digits {
		text = "0" + text
	}
	if whole := len(text) - digits; digits > 0 {
		text = text[:whole] + "." + text[whole:]
	}
	return sign + text + " " + currency
}
