package shopify

import (
	"bytes"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// inputWriter writes what a function is told about an order into a document. The
// order is a cart of one line; docs/shopify.md says where each field comes from.
type inputWriter struct {
	d        *document
	in       abi.Input
	settings *settings
	exponent int

	// budget is the fuel that there is, and spent what writing takes of it besides its
	// result, such as looking a name up in a long list.
	budget, spent uint64

	// What the object that is being written is about.
	amount    int64
	attribute abi.KV
	code      []byte
	meta      metafield
	member    string
	isMember  bool

	line, variant, product []byte // ids, also for reading the answer
	scratch                []byte
	parsed                 document
}

// metafield is a text, and its value when it is JSON.
type metafield struct {
	value []byte
	json  *document // nil: the value is text
}

// definition is a field of a type: of names the type of an object's fields.
type definition struct {
	of    string
	write func(*inputWriter, *field)
}

const lineID = "gid://shopify/CartLine/1"

// start begins a document for an order whose evaluation has the given fuel.
func (w *inputWriter) start(d *document, s *settings, in abi.Input, fuel uint64) {
	w.d, w.settings, w.in, w.exponent = d, s, in, exponentOf(in.Currency)
	w.budget, w.spent = fuel, 0
	w.line = append(w.line[:0], lineID...)
	w.variant = globalID(w.variant, "ProductVariant", w.orDeal("variant_id"))
	w.product = globalID(w.product, "Product", w.orDeal("product_id"))
}

func (w *inputWriter) write() {
	w.d.reset()
	at := w.d.open(object)
	w.fields(w.settings.query)
	w.d.close(at)
}

func (w *inputWriter) fields(list []*field) {
	for _, f := range list {
		if w.tooLarge() || w.spent > w.budget {
			return
		}
		w.d.string(f.key)
		f.write(w, f)
	}
}

// tooLarge says that the input is beyond its bound in any encoding: what is not
// written then is not missed.
func (w *inputWriter) tooLarge() bool { return len(w.d.text)+len(w.d.nodes) > InputBytesMax }

func (w *inputWriter) object(f *field) {
	at := w.d.open(object)
	w.fields(f.sub)
	w.d.close(at)
}

// globalID makes an id of Shopify's form, unless id has it.
func globalID(b []byte, typeName string, id []byte) []byte {
	if bytes.HasPrefix(id, []byte("gid://")) {
		return append(b[:0], id...)
	}
	return append(append(append(append(b[:0], "gid://shopify/"...), typeName...), '/'), id...)
}

// deal returns an attribute of the deal, of the order attribute returns one; nil
// when there is none.
func (w *inputWriter) deal(key string) []byte  { return find(w.in.DealAttributes, key) }
func (w *inputWriter) order(key string) []byte { return find(w.in.Attributes, key) }

func (w *inputWriter) orDeal(key string) []byte {
	if v := w.deal(key); v != nil {
		return v
	}
	return w.in.DealID
}

func find(list []abi.KV, key string) []byte {
	for i := range list {
		if string(list[i].Key) == key {
			return list[i].Value
		}
	}
	return nil
}

func (w *inputWriter) optional(v []byte) {
	if v == nil {
		w.d.null()
		return
	}
	w.d.bytes(v)
}

// Ways to write a field.

func writeNull(w *inputWriter, _ *field) { w.d.null() }

func writeEmpty(w *inputWriter, _ *field) { w.d.close(w.d.open(array)) }

func writeObject(w *inputWriter, f *field) { w.object(f) }

func constant(s string) func(*inputWriter, *field) {
	return func(w *inputWriter, _ *field) { w.d.string(s) }
}

func flag(v bool) func(*inputWriter, *field) {
	return func(w *inputWriter, _ *field) { w.d.bool(v) }
}

func value(of func(*inputWriter) []byte) func(*inputWriter, *field) {
	return func(w *inputWriter, _ *field) { w.optional(of(w)) }
}

func money(of func(*abi.Input) int64) definition {
	return definition{"MoneyV2", func(w *inputWriter, f *field) {
		w.amount = of(&w.in)
		w.object(f)
	}}
}

// listOf writes an array of one object.
func listOf(w *inputWriter, f *field) {
	at := w.d.open(array)
	w.object(f)
	w.d.close(at)
}

// enteredCode is the type of a code, which is a text where the query selects no
// fields, as versions of the API before 2026 have it.
const enteredCode = "EnteredDiscountCode"

func writeCodes(w *inputWriter, f *field) {
	at := w.d.open(array)
	for _, w.code = range w.in.Codes {
		if len(f.sub) == 0 {
			w.d.bytes(w.code)
			continue
		}
		w.object(f)
	}
	w.d.close(at)
}

// attributeField is cart.attribute(key:) and line.attribute(key:).
var attributeField = definition{"Attribute", func(w *inputWriter, f *field) {
	v := w.order(f.argument)
	if v == nil {
		w.d.null()
		return
	}
	w.attribute = abi.KV{Key: []byte(f.argument), Value: v}
	w.object(f)
}}

// configured is the metafield of the discount, the discount node and the shop: the
// merchant's configuration, whatever it is called.
var configured = definition{"Metafield", func(w *inputWriter, f *field) {
	if len(w.settings.configuration.value) == 0 {
		w.d.null()
		return
	}
	w.meta = w.settings.configuration
	w.object(f)
}}

// attributed is the metafield of something that attributes tell about: the one
// called "namespace.key", or else "key".
func attributed(list func(*inputWriter) []abi.KV) definition {
	return definition{"Metafield", func(w *inputWriter, f *field) {
		w.scratch = append(append(append(w.scratch[:0], f.namespace...), '.'), f.argument...)
		v := find(list(w), string(w.scratch))
		if v == nil {
			v = find(list(w), f.argument)
		}
		if v == nil {
			w.d.null()
			return
		}
		w.meta = metafield{value: v}
		if len(v) > 0 && (v[0] == '{' || v[0] == '[') {
			w.spent += uint64(len(v)) * unitsPerByte
			if w.parsed.readJSON(v) == nil {
				w.meta.json = &w.parsed
			}
		}
		w.object(f)
	}}
}

// unitsPerByte is what one byte of a text costs that is taken apart.
const unitsPerByte = 8

// has says whether a list in an attribute, separated by commas, has an entry.
func (w *inputWriter) has(list []byte, entry string) bool {
	w.spent += uint64(len(list)) * unitsPerByte
	for one := range bytes.SplitSeq(list, []byte{','}) {
		if one = bytes.TrimSpace(one); string(one) == entry && len(one) > 0 {
			return true
		}
	}
	return false
}

// anyOf and eachOf answer whether something has tags, or is in collections.
func anyOf(list func(*inputWriter) []byte) definition {
	return definition{write: func(w *inputWriter, f *field) {
		for _, entry := range f.list {
			if w.has(list(w), entry) {
				w.d.bool(true)
				return
			}
		}
		w.d.bool(false)
	}}
}

func eachOf(of string, list func(*inputWriter) []byte) definition {
	return definition{of, func(w *inputWriter, f *field) {
		at := w.d.open(array)
		for _, entry := range f.list {
			w.member, w.isMember = entry, w.has(list(w), entry)
			w.object(f)
		}
		w.d.close(at)
	}}
}

var member = definition{write: func(w *inputWriter, _ *field) { w.d.string(w.member) }}

var isMember = definition{write: func(w *inputWriter, _ *field) { w.d.bool(w.isMember) }}

func tags(w *inputWriter) []byte         { return w.deal("tags") }
func collections(w *inputWriter) []byte  { return w.deal("collections") }
func customerTags(w *inputWriter) []byte { return w.order("customer_tags") }

// local compares the order's stamp, in UTC, with the arguments. Layouts of equal
// length compare as text.
func local(layout string, holds func(w *inputWriter, now, from, to string) bool) definition {
	return definition{write: func(w *inputWriter, f *field) {
		var b [32]byte
		now := string(time.UnixMilli(w.in.Now).UTC().AppendFormat(b[:0], layout))
		w.d.bool(holds(w, now, f.from, f.to))
	}}
}

const (
	dateTimeLayout = "2006-01-02T15:04:05"
	timeLayout     = "15:04:05"
)

// after holds from the second on that it names, but see revision.
func after(w *inputWriter, now, from, _ string) bool {
	return now > from || now == from && !w.settings.stored
}

func before(_ *inputWriter, now, from, _ string) bool   { return now < from }
func between(_ *inputWriter, now, from, to string) bool { return now >= from && now <= to }

var localTime = map[string]definition{
	"date": {write: func(w *inputWriter, _ *field) {
		w.scratch = time.UnixMilli(w.in.Now).UTC().AppendFormat(w.scratch[:0], time.DateOnly)
		w.d.bytes(w.scratch)
	}},
	"dateTimeAfter":   local(dateTimeLayout, after),
	"dateTimeBefore":  local(dateTimeLayout, before),
	"dateTimeBetween": local(dateTimeLayout, between),
	"timeAfter":       local(timeLayout, after),
	"timeBefore":      local(timeLayout, before),
	"timeBetween":     local(timeLayout, between),
}

// country is the first part of the order's region (ISO 3166-2), ZZ is Shopify's
// name of an unknown one.
func country(w *inputWriter, _ *field) {
	code, _, _ := bytes.Cut(w.order("region"), []byte{'-'})
	if len(code) != 2 {
		code = []byte("ZZ")
	}
	w.d.bytes(code)
}

func id(typeName string, of func(*inputWriter) []byte) definition {
	return definition{write: func(w *inputWriter, _ *field) {
		w.scratch = globalID(w.scratch, typeName, of(w))
		w.d.bytes(w.scratch)
	}}
}

func subtotal(in *abi.Input) int64 { return in.Subtotal }
func left(in *abi.Input) int64     { return in.Subtotal - in.DiscountSoFar }

// deliverableLine is the type of cart.deliverableLines. It has fewer fields at Shopify than
// a cart's line.
const deliverableLine = "DeliverableCartLine"

var cartLine = map[string]definition{
	"attribute":             attributeField,
	"cost":                  {"CartLineCost", writeObject},
	"id":                    {write: constant(lineID)},
	"merchandise":           {"ProductVariant", writeObject},
	"parentRelationship":    {"CartLineParentRelationship", writeNull},
	"quantity":              {write: func(w *inputWriter, _ *field) { w.d.number(float64(w.in.Quantity)) }},
	"sellingPlanAllocation": {"SellingPlanAllocation", writeNull},
}

// types is what an input query can ask for. A type that is missing here is one
// whose fields are always null or in a list that is always empty.
var types = map[string]map[string]definition{
	"Input": {
		"cart":                    {"Cart", writeObject},
		"discount":                {"Discount", writeObject},
		"discountNode":            {"DiscountNode", writeObject},
		"enteredDiscountCodes":    {enteredCode, writeCodes},
		"fetchResult":             {"HttpResponse", writeNull},
		"localization":            {"Localization", writeObject},
		"presentmentCurrencyRate": {write: constant("1.0")},
		"shop":                    {"Shop", writeObject},
		"triggeringDiscountCode": {write: func(w *inputWriter, _ *field) {
			if len(w.in.Codes) == 0 {
				w.d.null()
				return
			}
			w.d.bytes(w.in.Codes[0])
		}},
	},
	enteredCode: {
		"code":       {write: value(func(w *inputWriter) []byte { return w.code })},
		"rejectable": {write: flag(true)},
	},
	"Cart": {
		"attribute":        attributeField,
		"buyerIdentity":    {"BuyerIdentity", writeObject},
		"cost":             {"CartCost", writeObject},
		"deliverableLines": {deliverableLine, listOf},
		"deliveryGroups":   {"CartDeliveryGroup", writeEmpty},
		"lines":            {"CartLine", listOf},
		"localizedFields":  {"LocalizedField", writeEmpty},
		"metafield":        attributed(func(w *inputWriter) []abi.KV { return w.in.Attributes }),
		"retailLocation":   {"Location", writeNull},
	},
	"CartCost": {
		"subtotalAmount":  money(subtotal),
		"totalAmount":     money(left),
		"totalDutyAmount": {"MoneyV2", writeNull},
		"totalTaxAmount":  {"MoneyV2", writeNull},
	},
	"CartLine":      cartLine,
	deliverableLine: cartLine,
	"CartLineCost": {
		"amountPerQuantity":          money(func(in *abi.Input) int64 { return in.UnitPrice }),
		"compareAtAmountPerQuantity": {"MoneyV2", writeNull},
		"subtotalAmount":             money(subtotal),
		"totalAmount":                money(left),
	},
	"MoneyV2": {
		"amount": {write: func(w *inputWriter, _ *field) {
			w.scratch = appendAmount(w.scratch[:0], w.amount, w.exponent)
			w.d.bytes(w.scratch)
		}},
		"currencyCode": {write: func(w *inputWriter, _ *field) { w.d.bytes(w.in.Currency[:]) }},
	},
	"Attribute": {
		"key":   {write: value(func(w *inputWriter) []byte { return w.attribute.Key })},
		"value": {write: value(func(w *inputWriter) []byte { return w.attribute.Value })},
	},
	"BuyerIdentity": {
		"customer":          {"Customer", writeObject},
		"email":             {write: value(func(w *inputWriter) []byte { return w.order("email") })},
		"isAuthenticated":   {write: flag(true)},
		"phone":             {write: writeNull},
		"purchasingCompany": {"PurchasingCompany", writeNull},
	},
	"Customer": {
		"amountSpent": money(func(*abi.Input) int64 { return 0 }),
		"displayName": {write: value(func(w *inputWriter) []byte { return w.in.UserID })},
		"email":       {write: value(func(w *inputWriter) []byte { return w.order("email") })},
		"firstName":   {write: writeNull},
		"hasAnyTag":   anyOf(customerTags),
		"hasTags":     eachOf("HasTagResponse", customerTags),
		"id":          id("Customer", func(w *inputWriter) []byte { return w.in.UserID }),
		"lastName":    {write: writeNull},
		"metafield":   attributed(func(w *inputWriter) []abi.KV { return w.in.Attributes }),
		"numberOfOrders": {write: func(w *inputWriter, _ *field) {
			if w.in.Flags&abi.FlagFirstOrder != 0 {
				w.d.number(0)
				return
			}
			w.d.number(1)
		}},
	},
	"ProductVariant": {
		"id":               {write: value(func(w *inputWriter) []byte { return w.variant })},
		"metafield":        attributed(func(w *inputWriter) []abi.KV { return w.in.DealAttributes }),
		"product":          {"Product", writeObject},
		"requiresShipping": {write: flag(true)},
		"sku":              {write: value(func(w *inputWriter) []byte { return w.deal("sku") })},
		"title":            {write: value(func(w *inputWriter) []byte { return w.orDeal("variant_title") })},
		"weight":           {write: writeNull},
		"weightUnit":       {write: constant("KILOGRAMS")},
	},
	"Product": {
		"handle":          {write: value(func(w *inputWriter) []byte { return w.orDeal("handle") })},
		"hasAnyTag":       anyOf(tags),
		"hasTags":         eachOf("HasTagResponse", tags),
		"id":              {write: value(func(w *inputWriter) []byte { return w.product })},
		"inAnyCollection": anyOf(collections),
		"inCollections":   eachOf("CollectionMembership", collections),
		"isGiftCard":      {write: flag(false)},
		"metafield":       attributed(func(w *inputWriter) []abi.KV { return w.in.DealAttributes }),
		"productType":     {write: value(func(w *inputWriter) []byte { return w.deal("product_type") })},
		"title":           {write: value(func(w *inputWriter) []byte { return w.orDeal("title") })},
		"vendor":          {write: value(func(w *inputWriter) []byte { return w.deal("vendor") })},
	},
	"Discount": {
		"discountClasses": {write: func(w *inputWriter, _ *field) {
			at := w.d.open(array)
			for _, class := range w.settings.classes {
				w.d.string(class)
			}
			w.d.close(at)
		}},
		"metafield": configured,
	},
	"DiscountNode":         {"metafield": configured},
	"HasTagResponse":       {"hasTag": isMember, "tag": member},
	"CollectionMembership": {"collectionId": member, "isMember": isMember},
	"Localization": {
		"country":  {"Country", writeObject},
		"language": {"Language", writeObject},
		"market":   {"Market", writeObject},
	},
	"Country":  {"isoCode": {write: country}},
	"Language": {"isoCode": {write: language}},
	"Market": {
		"handle":    {write: constant("doorbuster")},
		"id":        {write: constant("gid://shopify/Market/1")},
		"metafield": {"Metafield", writeNull},
		"regions":   {"MarketRegion", writeEmpty},
	},
	"Shop": {
		"localTime": {"LocalTime", writeObject},
		"metafield": configured,
	},
	"LocalTime": localTime,
	"Metafield": {
		"jsonValue": {write: func(w *inputWriter, _ *field) {
			if w.meta.json != nil {
				w.d.append(w.meta.json)
				return
			}
			w.d.bytes(w.meta.value)
		}},
		"type": {write: func(w *inputWriter, _ *field) {
			if w.meta.json != nil {
				w.d.string("json")
				return
			}
			w.d.string("single_line_text_field")
		}},
		"value": {write: value(func(w *inputWriter) []byte { return w.meta.value })},
	},
}

func language(w *inputWriter, _ *field) {
	code := w.order("language")
	if code == nil {
		w.d.string("EN")
		return
	}
	w.d.string(strings.ToUpper(string(code)))
}
