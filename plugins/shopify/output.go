package shopify

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// A function answers with operations (the Discount Function API) or with discounts
// (the Product and the Order Discount API before it). pricing turns either into
// minor units off one order, which is a cart of one line.
type pricing struct {
	d        *document
	in       *abi.Input
	line     []byte // id of the cart line
	variant  []byte // id of its product variant
	exponent int

	left  int64 // of the order, to pay
	total int64 // discount so far
	label []byte
}

var errOutput = fmt.Errorf("%w: Shopify function", abi.ErrBadOutput)

func badOutput(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errOutput, fmt.Sprintf(format, args...))
}

// strategies say which of an operation's candidates count.
type strategy uint8

const (
	first strategy = iota
	maximum
	all
)

// price reads the answer whole.
func (p *pricing) price() (abi.Output, error) {
	if len(p.d.nodes) == 0 || p.d.nodes[0].kind != object {
		return abi.Output{}, badOutput("the output is no object")
	}
	p.left = p.in.Subtotal - p.in.DiscountSoFar
	var err error
	switch operations, discounts := p.d.present(0, "operations"), p.d.present(0, "discounts"); {
	case operations >= 0:
		err = p.operations(operations)
	case discounts >= 0:
		err = p.discounts(0, discounts)
	default:
		err = badOutput("the output has neither operations nor discounts")
	}
	if err != nil || p.total == 0 {
		return abi.Output{}, err
	}
	return abi.Output{Outcome: abi.OutcomeDiscount, Discount: p.total, Label: p.label}, nil
}

// operations applies the product discounts, then the order discounts to what they
// leave, whatever the order they stand in. Accepting or rejecting codes changes no
// price.
func (p *pricing) operations(at int) error {
	for _, name := range []string{"productDiscountsAdd", "orderDiscountsAdd"} {
		var err error
		if !p.d.elements(at, func(operation int) bool {
			if add := p.d.present(operation, name); add >= 0 {
				err = p.candidates(add, "selectionStrategy", "candidates")
			} else {
				err = p.known(operation)
			}
			return err == nil
		}) {
			return errors.Join(err, mustList(p.d, at, "operations"))
		}
	}
	return nil
}

// known refuses an operation that is none of a discount function's.
func (p *pricing) known(operation int) error {
	for _, name := range knownOperations {
		if p.d.present(operation, name) >= 0 {
			return nil
		}
	}
	return badOutput("an operation is none of %s", strings.Join(knownOperations, ", "))
}

var knownOperations = []string{
	"productDiscountsAdd", "orderDiscountsAdd", "deliveryDiscountsAdd", "enteredDiscountCodesAccept", "enteredDiscountCodesReject",
}

func mustList(d *document, at int, name string) error {
	if at < 0 || d.nodes[at].kind != array {
		return badOutput("%s is no list", name)
	}
	return nil
}

func (p *pricing) discounts(root, at int) error {
	if err := mustList(p.d, at, "discounts"); err != nil {
		return err
	}
	if p.d.nodes[at].n == 0 {
		return nil
	}
	return p.candidates(root, "discountApplicationStrategy", "discounts")
}

func (p *pricing) strategy(at int) (strategy, error) {
	switch name := string(p.d.str(at)); name {
	case "FIRST":
		return first, nil
	case "MAXIMUM":
		return maximum, nil
	case "ALL":
		return all, nil
	default:
		return 0, badOutput("the strategy %q is none of FIRST, MAXIMUM, ALL", name)
	}
}

// candidates applies one operation's candidates by its strategy. Every candidate
// is read, so that a bad one is a fault wherever it stands.
func (p *pricing) candidates(at int, strategyName, listName string) error {
	choice, err := p.strategy(p.d.get(at, strategyName))
	if err != nil {
		return err
	}
	list := p.d.get(at, listName)
	best, bestAt, done := int64(0), -1, false
	ok := p.d.elements(list, func(candidate int) bool {
		var amount int64
		var applies bool
		if amount, applies, err = p.candidate(candidate); err != nil || !applies {
			return err == nil
		}
		switch {
		case choice == all:
			p.apply(amount, candidate)
		case choice == first && !done, choice == maximum && amount > best:
			best, bestAt, done = amount, candidate, true
		}
		return true
	})
	if !ok {
		return errors.Join(err, mustList(p.d, list, listName))
	}
	if bestAt >= 0 {
		p.apply(best, bestAt)
	}
	return nil
}

// apply takes an amount off the order, at most what is left of it.
func (p *pricing) apply(amount int64, candidate int) {
	amount = min(amount, p.left)
	p.left -= amount
	p.total += amount
	if message := p.d.str(p.d.get(candidate, "message")); amount > 0 && len(p.label) == 0 {
		p.label = shortened(message)
	}
}

// shortened cuts a message to what a label may be.
func shortened(message []byte) []byte {
	if len(message) > abi.LabelBytesMax {
		end := abi.LabelBytesMax
		for end > 0 && !utf8.RuneStart(message[end]) {
			end--
		}
		message = message[:end]
	}
	if !utf8.Valid(message) {
		return nil
	}
	return message
}

// candidate returns what a candidate takes off the order, and whether it has a
// target in it and its conditions hold.
func (p *pricing) candidate(at int) (amount int64, applies bool, err error) {
	units, order, err := p.targets(p.d.get(at, "targets"))
	if err != nil {
		return 0, false, err
	}
	holds, err := p.conditions(p.d.present(at, "conditions"))
	if err != nil {
		return 0, false, err
	}
	base := int64(units) * p.in.UnitPrice
	if order {
		base = p.left
	}
	amount, err = p.value(p.d.get(at, "value"), base, units, order)
	return amount, (order || units > 0) && holds, err
}

// targets returns how many units of the line a candidate is for, or whether it is
// for the whole order. Targets of one kind that name the line are one, of the sum of
// their units.
func (p *pricing) targets(list int) (units uint32, order bool, err error) {
	var ofLine, ofVariant uint32
	if !p.d.elements(list, func(target int) bool {
		line, variant, subtotal := p.d.present(target, "cartLine"), p.d.present(target, "productVariant"), p.d.present(target, "orderSubtotal")
		switch {
		case subtotal >= 0:
			order = order || !p.excluded(subtotal)
		case line >= 0:
			err = p.addUnits(&ofLine, line, p.line)
		case variant >= 0:
			err = p.addUnits(&ofVariant, variant, p.variant)
		default:
			err = badOutput("a target is none of cartLine, productVariant, orderSubtotal")
		}
		return err == nil
	}) {
		return 0, false, errors.Join(err, mustList(p.d, list, "targets"))
	}
	return max(ofLine, ofVariant), order, nil
}

// addUnits adds the units of a target that names the line, at most all that there
// are. A target without a quantity is for all of them.
func (p *pricing) addUnits(units *uint32, target int, id []byte) error {
	n := float64(p.in.Quantity)
	if quantity := p.d.present(target, "quantity"); quantity >= 0 {
		n = p.d.nodes[quantity].number // 0 of what is no number
		if !(n > 0) || n != math.Trunc(n) {
			return badOutput("the quantity of a target is not a whole number above 0")
		}
	}
	if string(p.d.str(p.d.get(target, "id"))) == string(id) {
		*units = uint32(min(float64(*units)+n, float64(p.in.Quantity)))
	}
	return nil
}

// excluded says whether a target or a condition leaves the line out.
func (p *pricing) excluded(at int) bool {
	return p.lists(p.d.present(at, "excludedCartLineIds"), p.line) || p.lists(p.d.present(at, "excludedVariantIds"), p.variant)
}

func (p *pricing) lists(ids int, id []byte) bool {
	found := false
	p.d.elements(ids, func(at int) bool {
		found = found || string(p.d.str(at)) == string(id)
		return true
	})
	return found
}

// value returns what a percentage or an amount of money takes off base: at least
// nothing and at most all of it.
func (p *pricing) value(at int, base int64, units uint32, order bool) (int64, error) {
	percentage, fixed := p.d.present(at, "percentage"), p.d.present(at, "fixedAmount")
	if percentage >= 0 {
		v, ok := p.d.decimalOf(p.d.get(percentage, "value"))
		if !ok || v.times(1_000_000, 0) > 100_000_000 {
			return 0, badOutput("a percentage is not a number from 0 to 100")
		}
		return min(v.times(uint64(base), 2), base), nil
	}
	if fixed < 0 {
		return 0, badOutput("a value is neither a percentage nor a fixedAmount")
	}
	v, ok := p.d.decimalOf(p.d.get(fixed, "amount"))
	if !ok {
		return 0, badOutput("a fixed amount is not a number from 0 on")
	}
	times := uint64(1)
	if each := p.d.present(fixed, "appliesToEachItem"); each >= 0 && !order && p.d.nodes[each].n != 0 {
		times = uint64(units)
	}
	return min(v.times(times, -p.exponent), base), nil
}

// conditions says whether all conditions hold, of the order as it was before any
// discount of this function.
func (p *pricing) conditions(list int) (holds bool, err error) {
	if list < 0 {
		return true, nil
	}
	holds = true
	if !p.d.elements(list, func(condition int) bool {
		var ok bool
		ok, err = p.condition(condition)
		holds = holds && ok
		return err == nil
	}) {
		return false, errors.Join(err, mustList(p.d, list, "conditions"))
	}
	return holds, nil
}

func (p *pricing) condition(at int) (bool, error) {
	for _, name := range []string{"cartLineMinimumQuantity", "productMinimumQuantity"} {
		if c := p.d.present(at, name); c >= 0 {
			minimum := p.d.get(c, "minimumQuantity")
			if minimum < 0 || p.d.nodes[minimum].kind != number {
				return false, badOutput("%s has no minimumQuantity", name)
			}
			return p.named(c) && float64(p.in.Quantity) >= p.d.nodes[minimum].number, nil
		}
	}
	for _, name := range []string{"cartLineMinimumSubtotal", "productMinimumSubtotal"} {
		if c := p.d.present(at, name); c >= 0 {
			return p.reaches(c, p.named(c))
		}
	}
	if c := p.d.present(at, "orderMinimumSubtotal"); c >= 0 {
		return p.reaches(c, !p.excluded(c))
	}
	return false, badOutput("an unknown condition")
}

// named says whether a condition's ids name the line.
func (p *pricing) named(condition int) bool {
	ids := p.d.present(condition, "ids")
	return p.lists(ids, p.line) || p.lists(ids, p.variant)
}

// reaches says whether the subtotal, nothing when the line does not count, is at
// least the condition's.
func (p *pricing) reaches(condition int, counts bool) (bool, error) {
	v, ok := p.d.decimalOf(p.d.get(condition, "minimumAmount"))
	if !ok {
		return false, badOutput("a minimumAmount is not a number from 0 on")
	}
	subtotal := int64(0)
	if counts {
		subtotal = p.in.Subtotal
	}
	return subtotal >= v.times(1, -p.exponent), nil
}
