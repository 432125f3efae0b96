package shopify

import (
	"math"
	"math/bits"
	"strconv"
)

// exponents are the currencies whose minor unit is not a hundredth, by ISO 4217.
// A currency that is not known here has two digits.
var exponents = map[[3]byte]int{
	code("BIF"): 0, code("CLP"): 0, code("DJF"): 0, code("GNF"): 0, code("ISK"): 0, code("JPY"): 0,
	code("KMF"): 0, code("KRW"): 0, code("PYG"): 0, code("RWF"): 0, code("UGX"): 0, code("UYI"): 0,
	code("VND"): 0, code("VUV"): 0, code("XAF"): 0, code("XOF"): 0, code("XPF"): 0,
	code("BHD"): 3, code("IQD"): 3, code("JOD"): 3, code("KWD"): 3, code("LYD"): 3, code("OMR"): 3, code("TND"): 3,
	code("CLF"): 4, code("UYW"): 4,
}

func code(s string) [3]byte { return [3]byte([]byte(s)) }

func exponentOf(currency [3]byte) int {
	if e, ok := exponents[currency]; ok {
		return e
	}
	return 2
}

// appendAmount writes minor units as Shopify writes a Decimal: in units of the
// currency, with at least one digit behind the point.
func appendAmount(b []byte, minor int64, exponent int) []byte {
	if minor < 0 {
		b, minor = append(b, '-'), -minor
	}
	unit := int64(math.Pow10(exponent))
	b = append(strconv.AppendInt(b, minor/unit, 10), '.')
	rest := minor % unit
	for {
		unit = max(unit/10, 1)
		b = append(b, '0'+byte(rest/unit%10))
		if rest %= unit; rest == 0 {
			return b
		}
	}
}

// decimal is a number that is not negative: digits / 10^scale.
type decimal struct {
	digits uint64
	scale  int
}

// digitsMax bounds what a decimal keeps: digits behind the point that do not fit
// are cut off, far below any minor unit.
const digitsMax = 18

// decimalOf reads a Decimal: Shopify's scalar is a string, and JavaScript writes
// numbers.
func (d *document) decimalOf(at int) (decimal, bool) {
	if at < 0 {
		return decimal{}, false
	}
	if v := d.nodes[at]; v.kind == number {
		if !finite(v.number) || math.Abs(v.number) >= 1e15 {
			return decimal{}, false
		}
		var b [400]byte
		return parseDecimal(strconv.AppendFloat(b[:0], v.number, 'f', -1, 64))
	}
	return parseDecimal(d.str(at))
}

// parseDecimal reads digits, a point, digits and an exponent. A decimal that is
// negative or that has more than digitsMax digits before its point is none.
func parseDecimal(s []byte) (v decimal, ok bool) {
	point := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.' && !point:
			point = true
		case c == 'e' || c == 'E':
			exponent, err := strconv.Atoi(string(s[i+1:]))
			if err != nil || !ok || exponent < -digitsMax || exponent > digitsMax {
				return decimal{}, false
			}
			v.scale -= exponent
			return v.settled()
		case c < '0' || c > '9':
			return decimal{}, false
		case v.digits >= 1e17:
			if !point {
				return decimal{}, false
			}
		default:
			ok = true
			v.digits = v.digits*10 + uint64(c-'0')
			if point {
				v.scale++
			}
		}
	}
	return v, ok
}

// settled takes a negative scale into the digits.
func (v decimal) settled() (decimal, bool) {
	for ; v.scale < 0; v.scale++ {
		if v.digits >= 1e17 {
			return decimal{}, false
		}
		v.digits *= 10
	}
	return v, true
}

// times returns v × n / 10^shift, rounded to a whole number with halves away from
// zero: the one rounding of this package. What does not fit is math.MaxInt64.
func (v decimal) times(n uint64, shift int) int64 {
	shift += v.scale
	hi, lo := bits.Mul64(v.digits, n)
	for ; shift < 0; shift++ {
		over, high := bits.Mul64(hi, 10)
		carry, low := bits.Mul64(lo, 10)
		if over != 0 || high > math.MaxUint64-carry {
			return math.MaxInt64
		}
		hi, lo = high+carry, low
	}
	if shift == 0 {
		if hi != 0 || lo > math.MaxInt64 {
			return math.MaxInt64
		}
		return int64(lo)
	}
	// All but the last digit, then the last, which rounds. What is cut off before
	// cannot change which side of the half the last digit is on.
	for ; shift > 1; shift-- {
		hi, lo = divide(hi, lo)
	}
	last := hi%10*6 + lo%10 // 2^64 leaves 6
	hi, lo = divide(hi, lo)
	if last%10 >= 5 {
		lo++
	}
	if hi != 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}

// divide divides a number of 128 bits by 10.
func divide(hi, lo uint64) (uint64, uint64) {
	q, rest := hi/10, hi%10
	lo, _ = bits.Div64(rest, lo, 10)
	return q, lo
}
