package shopify

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// priceOf prices an answer for an order of three units at unitPrice.
func priceOf(t testing.TB, answer, currency string, unitPrice, soFar int64) (abi.Output, error) {
	t.Helper()
	var d document
	if err := d.readJSON([]byte(answer)); err != nil {
		t.Fatal(err)
	}
	in := &abi.Input{UnitPrice: unitPrice, Quantity: 3, Subtotal: 3 * unitPrice, DiscountSoFar: soFar, Currency: code(currency)}
	p := pricing{d: &d, in: in, line: []byte(lineID), variant: []byte("gid://shopify/ProductVariant/v"), exponent: exponentOf(in.Currency)}
	return p.price()
}

const (
	onLine    = `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/1"}}]`
	onOther   = `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/2"}}]`
	onOrder   = `"targets":[{"orderSubtotal":{"excludedCartLineIds":[]}}]`
	onNoOrder = `"targets":[{"orderSubtotal":{"excludedCartLineIds":["gid://shopify/CartLine/1"]}}]`
)

func product(strategy, candidates string) string {
	return `{"productDiscountsAdd":{"selectionStrategy":"` + strategy + `","candidates":[` + candidates + `]}}`
}

func orderDiscount(strategy, candidates string) string {
	return `{"orderDiscountsAdd":{"selectionStrategy":"` + strategy + `","candidates":[` + candidates + `]}}`
}

func operations(list string) string { return `{"operations":[` + list + `]}` }

func percent(value, target string) string {
	return `{"message":"` + value + `","value":{"percentage":{"value":` + value + `}},` + target + `}`
}

func fixed(amount, each, target string) string {
	return `{"value":{"fixedAmount":{"amount":` + amount + `,"appliesToEachItem":` + each + `}},` + target + `}`
}

func TestPrices(t *testing.T) {
	for _, c := range []struct {
		name, answer, currency string
		unitPrice, soFar, want int64
	}{
		{"nothing", operations(""), "CNY", 100, 0, 0},
		{"a percentage", operations(product("FIRST", percent("20", onLine))), "CNY", 100, 0, 60},
		{"a percentage as text", operations(product("FIRST", `{"value":{"percentage":{"value":"12.5"}},`+onLine+`}`)), "CNY", 100, 0, 38},
		{"a half is rounded away from zero", operations(product("FIRST", percent("50", onLine))), "CNY", 1, 0, 2},
		{"less than a half is not", operations(product("FIRST", percent("16.666", onLine))), "CNY", 1, 0, 0},
		{"some units", operations(product("FIRST", percent("50", `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":2}}]`))), "CNY", 100, 0, 100},
		{"more units than there are", operations(product("FIRST", percent("50", `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":9}}]`))), "CNY", 100, 0, 150},
		{"a line that is named twice", operations(product("FIRST", percent("50", `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":1}},{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":1}}]`))), "CNY", 100, 0, 100},
		{"a line that is named twice, once whole", operations(product("FIRST", percent("50", `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":1}},{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":null}}]`))), "CNY", 100, 0, 150},
		{"another line", operations(product("FIRST", percent("50", onOther))), "CNY", 100, 0, 0},
		{"an amount, two digits", operations(product("FIRST", fixed(`"1.005"`, "false", onLine))), "CNY", 1000, 0, 101},
		{"an amount, no digits", operations(product("FIRST", fixed("100.5", "false", onLine))), "JPY", 1000, 0, 101},
		{"an amount, three digits", operations(product("FIRST", fixed(`"1.2345"`, "false", onLine))), "BHD", 1000, 0, 1235},
		{"an amount for each", operations(product("FIRST", fixed(`"0.335"`, "true", onLine))), "CNY", 1000, 0, 101},
		{"an amount above the line", operations(product("FIRST", fixed("99999999", "true", onLine))), "CNY", 100, 0, 300},
		{"an amount above everything", operations(product("FIRST", fixed(`"99999999999999999"`, "true", onLine))), "CNY", 100, 0, 300},
		{"what is left bounds it", operations(product("FIRST", percent("90", onLine))), "CNY", 100, 250, 50},
		{"the first that applies", operations(product("FIRST", percent("50", onOther)+","+percent("10", onLine)+","+percent("90", onLine))), "CNY", 100, 0, 30},
		{"the most", operations(product("MAXIMUM", percent("10", onLine)+","+percent("90", onLine)+","+percent("20", onLine))), "CNY", 100, 0, 270},
		{"all", operations(product("ALL", percent("10", onLine)+","+percent("20", onLine)+","+percent("99", onOther))), "CNY", 100, 0, 90},
		{"all of more than there is", operations(product("ALL", percent("80", onLine)+","+percent("80", onLine))), "CNY", 100, 0, 300},
		{"off the order", operations(orderDiscount("FIRST", percent("10", onOrder))), "CNY", 100, 100, 20},
		{"off an order that excludes the line", operations(orderDiscount("FIRST", percent("10", onNoOrder))), "CNY", 100, 0, 0},
		{"products before the order, which gets what is left", operations(orderDiscount("FIRST", percent("10", onOrder)) + "," + product("FIRST", percent("20", onLine))), "CNY", 100, 0, 60 + 24},
		{"a code accepted", operations(`{"enteredDiscountCodesAccept":{"codes":[{"code":"A"}]}}`), "CNY", 100, 0, 0},
		{"a code rejected", operations(`{"enteredDiscountCodesReject":{"codes":[{"code":"A"}],"message":"not with this"}}`), "CNY", 100, 0, 0},
		{"a condition that holds", operations(orderDiscount("FIRST", percent("10", onOrder+`,"conditions":[{"orderMinimumSubtotal":{"minimumAmount":"3.00","excludedCartLineIds":[]}}]`))), "CNY", 100, 0, 30},
		{"a condition that does not", operations(orderDiscount("FIRST", percent("10", onOrder+`,"conditions":[{"orderMinimumSubtotal":{"minimumAmount":"3.01","excludedCartLineIds":[]}}]`))), "CNY", 100, 0, 0},
		{"units that are enough", operations(orderDiscount("FIRST", percent("10", onOrder+`,"conditions":[{"cartLineMinimumQuantity":{"minimumQuantity":3,"ids":["gid://shopify/CartLine/1"]}}]`))), "CNY", 100, 0, 30},
		{"units of another line", operations(orderDiscount("FIRST", percent("10", onOrder+`,"conditions":[{"cartLineMinimumQuantity":{"minimumQuantity":3,"ids":["gid://shopify/CartLine/2"]}}]`))), "CNY", 100, 0, 0},
		{"a line's subtotal", operations(orderDiscount("FIRST", percent("10", onOrder+`,"conditions":[{"cartLineMinimumSubtotal":{"minimumAmount":4,"ids":["gid://shopify/CartLine/1"]}}]`))), "CNY", 100, 0, 0},
		{"the API before", `{"discountApplicationStrategy":"MAXIMUM","discounts":[{"targets":[{"productVariant":{"id":"gid://shopify/ProductVariant/v","quantity":1}}],"value":{"percentage":{"value":"10.0"}}},{"targets":[{"orderSubtotal":{"excludedVariantIds":[]}}],"value":{"fixedAmount":{"amount":"0.5"}}}]}`, "CNY", 100, 0, 50},
		{"the API before, nothing", `{"discountApplicationStrategy":"FIRST","discounts":[]}`, "CNY", 100, 0, 0},
		{"an order for nothing", operations(product("FIRST", percent("100", onLine))), "CNY", 0, 0, 0},
	} {
		out, err := priceOf(t, c.answer, c.currency, c.unitPrice, c.soFar)
		if err != nil || out.Discount != c.want || (out.Outcome == abi.OutcomeDiscount) != (c.want > 0) {
			t.Errorf("%s: %+v, %v, want %d", c.name, out, err, c.want)
		}
	}
}

func TestBadAnswers(t *testing.T) {
	for _, answer := range []string{
		`[]`, `{}`, `{"operations":{}}`, `{"operations":[{"cartTransform":{}}]}`,
		operations(`{"productDiscountsAdd":{"selectionStrategy":"BEST","candidates":[]}}`),
		operations(`{"productDiscountsAdd":{"selectionStrategy":"FIRST"}}`),
		operations(product("FIRST", `{"value":{"percentage":{"value":10}}}`)),
		operations(product("FIRST", `{"targets":[{"shelf":{}}],"value":{"percentage":{"value":10}}}`)),
		operations(product("FIRST", `{`+onLine+`}`)),
		operations(product("FIRST", percent("1", `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":0}}]`))),
		operations(product("FIRST", percent("1", `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/2","quantity":1.5}}]`))),
		operations(product("FIRST", percent("1", `"targets":[{"cartLine":{"id":"gid://shopify/CartLine/1","quantity":"1"}}]`))),
		operations(product("FIRST", percent("101", onLine))),
		operations(product("FIRST", percent("-1", onLine))),
		operations(product("FIRST", percent("1", onLine)+","+percent("1e20", onOther))), // the second does not count, and is read all the same
		operations(product("FIRST", fixed("-5", "false", onLine))),
		operations(product("FIRST", fixed(`"five"`, "false", onLine))),
		operations(product("FIRST", percent("1", onLine+`,"conditions":[{}]`))),
		operations(product("FIRST", percent("1", onLine+`,"conditions":[{"cartLineMinimumQuantity":{"ids":[]}}]`))),
		`{"discounts":[{}]}`,
	} {
		if out, err := priceOf(t, answer, "CNY", 100, 0); !errors.Is(err, abi.ErrBadOutput) || out.Discount != 0 {
			t.Errorf("%s: %+v, %v", answer, out, err)
		}
	}
}

// TestLabel: a rune of three bytes lies across the label's end.
func TestLabel(t *testing.T) {
	long := `{"value":{"percentage":{"value":10}},"message":"` + strings.Repeat("折", 70) + `",` + onLine + `}`
	out, err := priceOf(t, operations(product("FIRST", long)), "CNY", 100, 0)
	if err != nil || len(out.Label) != abi.LabelBytesMax-2 {
		t.Errorf("%d bytes, %v", len(out.Label), err)
	}
}

func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{0, "CNY", "0.0"},
		{1, "CNY", "0.01"},
		{10, "CNY", "0.1"},
		{1999, "CNY", "19.99"},
		{2000, "CNY", "20.0"},
		{1999, "JPY", "1999.0"},
		{1005, "BHD", "1.005"},
		{1, "CLF", "0.0001"},
		{-5, "EUR", "-0.05"},
		{1e12, "EUR", "10000000000.0"},
	} {
		if got := string(appendAmount(nil, c.minor, exponentOf(code(c.currency)))); got != c.want {
			t.Errorf("%d %s: %s, want %s", c.minor, c.currency, got, c.want)
		}
	}
}

func TestDecimals(t *testing.T) {
	for _, c := range []struct {
		text  string
		n     uint64
		shift int
		want  int64
	}{
		{"0", 5, 0, 0},
		{"1.5", 1, 0, 2},
		{"2.5", 1, 0, 3},
		{"2.4999999999999999", 1, 0, 2},
		{"33.333333333333336", 300, 2, 100},
		{"1e3", 1, 0, 1000},
		{"15e-1", 1, 0, 2},
		{".5", 1, 0, 1},
		{"5.", 1, 0, 5},
		{"9.99999999999999999999999", 1, 0, 10},
		{"99999999999999999", math.MaxUint64, 0, math.MaxInt64},
		{"99999999999999999", 1, -30, math.MaxInt64},
		{"100", math.MaxInt64, 2, math.MaxInt64},
	} {
		v, ok := parseDecimal([]byte(c.text))
		if got := v.times(c.n, c.shift); !ok || got != c.want {
			t.Errorf("%s × %d / 10^%d: %d, %v, want %d", c.text, c.n, c.shift, got, ok, c.want)
		}
	}
	for _, text := range []string{"", ".", "-1", "+1", "1e", "e5", "1e400", "1.2.3", "1 ", "0x1", "NaN", "999999999999999999999", "1e18e1"} {
		if v, ok := parseDecimal([]byte(text)); ok {
			t.Errorf("%q is %+v", text, v)
		}
	}
}
