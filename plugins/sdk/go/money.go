package doorbuster

import "math"

// Money is an amount in minor units of the order's currency.
type Money int64

// whole is 100 % in basis points.
const whole = 10_000

// ShareDown returns basisPoints / 10,000 of the amount, rounded down: the
// merchant never gives more than the percentage. The amount is not negative and
// basisPoints are 0 … 10,000; no product overflows.
func (m Money) ShareDown(basisPoints int64) Money {
	share, _ := m.share(basisPoints)
	return share
}

// ShareHalfEven is ShareDown rounded to the nearest unit, halves to the even one.
func (m Money) ShareHalfEven(basisPoints int64) Money {
	share, rest := m.share(basisPoints)
	if rest > whole/2 || rest == whole/2 && share%2 == 1 {
		share++
	}
	return share
}

// ShareUp is ShareDown rounded up.
func (m Money) ShareUp(basisPoints int64) Money {
	share, rest := m.share(basisPoints)
	if rest > 0 {
		share++
	}
	return share
}

// share returns the share rounded down and the rest of the division.
func (m Money) share(basisPoints int64) (share Money, rest int64) {
	if m < 0 || basisPoints < 0 || basisPoints > whole {
		panic("doorbuster: a share is 0 to 10,000 basis points of an amount that is not negative")
	}
	low := int64(m) % whole * basisPoints
	return m/whole*Money(basisPoints) + Money(low/whole), low % whole
}

// Times returns the amount n times. What does not fit is the largest amount: a
// discount is bounded by what is left to pay anyway. The amount is not negative.
func (m Money) Times(n uint32) Money {
	if n != 0 && m > math.MaxInt64/Money(n) {
		return math.MaxInt64
	}
	return m * Money(n)
}
