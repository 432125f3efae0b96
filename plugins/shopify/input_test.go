package shopify

import (
	"fmt"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/host"
)

func inputOf(t testing.TB, b Bundle, in *abi.Input) string {
	t.Helper()
	s, err := b.settings()
	if err != nil {
		t.Fatal(err)
	}
	var w inputWriter
	var d document
	w.start(&d, s, *in, InstructionsMax)
	w.write()
	return string(d.appendJSON(nil, 0))
}

func TestInput(t *testing.T) {
	in := order()
	in.DiscountSoFar = 97
	in.Flags = abi.FlagFirstOrder
	in.Codes = [][]byte{[]byte("HALF"), []byte("MORE")}
	in.Attributes = []abi.KV{{Key: []byte("customer_tags"), Value: []byte("vip, gold")}, {Key: []byte("gift"), Value: []byte("yes")}, {Key: []byte("region"), Value: []byte("CA-QC")}}
	in.DealAttributes = []abi.KV{
		{Key: []byte("tags"), Value: []byte("shoe,new")},
		{Key: []byte("product_id"), Value: []byte("77")},
		{Key: []byte("title"), Value: []byte("Sneaker \"1\"")},
		{Key: []byte("custom.sizes"), Value: []byte(`{"eu":[44]}`)},
		{Key: []byte("care"), Value: []byte("wash")},
	}
	configuration := []byte(`{"tags":["vip"],"percentage":10}`)
	for _, c := range []struct{ name, query, want string }{
		{
			"money", `{cart{lines{quantity cost{amountPerQuantity{amount currencyCode} totalAmount{amount}}}}}`,
			`{"cart":{"lines":[{"quantity":3,"cost":{"amountPerQuantity":{"amount":"19.99","currencyCode":"CNY"},"totalAmount":{"amount":"59.0"}}}]}}`,
		},
		{
			"names", `query($tags:[String!]=["x"],$other:[String!]=["gold"]){c:cart{b:buyerIdentity{customer{a:hasAnyTag(tags:$tags) n:hasAnyTag(tags:["none"]) hasTags(tags:$other){tag hasTag} numberOfOrders}}}}`,
			`{"c":{"b":{"customer":{"a":true,"n":false,"hasTags":[{"tag":"gold","hasTag":true}],"numberOfOrders":0}}}}`,
		},
		{
			"fragments", `{cart{lines{merchandise{__typename ...V ...on CustomProduct{title} ...on HasMetafields{id}}}}} fragment V on ProductVariant{product{id title hasAnyTag(tags:["new"])}}`,
			`{"cart":{"lines":[{"merchandise":{"__typename":"ProductVariant","product":{"id":"gid://shopify/Product/77","title":"Sneaker \"1\"","hasAnyTag":true},"id":"gid://shopify/ProductVariant/sneaker"}}]}}`,
		},
		{"fields that meet", `{cart{lines{id}} cart{lines{quantity}}}`, `{"cart":{"lines":[{"id":"gid://shopify/CartLine/1","quantity":3}]}}`},
		{
			"attributes", `{cart{gift:attribute(key:"gift"){key value} none:attribute(key:"none"){value}}}`,
			`{"cart":{"gift":{"key":"gift","value":"yes"},"none":null}}`,
		},
		{
			"metafields", `{discount{metafield(namespace:"$app:x",key:"function-configuration"){value jsonValue type}} cart{lines{merchandise{...on ProductVariant{s:metafield(namespace:"custom",key:"sizes"){jsonValue} care:metafield(key:"care"){value type} no:metafield(key:"no"){value}}}}}}`,
			`{"discount":{"metafield":{"value":"{\"tags\":[\"vip\"],\"percentage\":10}","jsonValue":{"tags":["vip"],"percentage":10},"type":"json"}},"cart":{"lines":[{"merchandise":{"s":{"jsonValue":{"eu":[44]}},"care":{"value":"wash","type":"single_line_text_field"},"no":null}}]}}`,
		},
		{
			"a time that has come", `{shop{localTime{a:dateTimeAfter(dateTime:"2026-11-18T11:06:40") b:timeAfter(time:"11:06:40") c:dateTimeAfter(dateTime:"2026-11-18T11:06:41") d:timeBefore(time:"11:06:40") e:timeAfter(time:"11:06:41")}}}`,
			`{"shop":{"localTime":{"a":true,"b":true,"c":false,"d":false,"e":false}}}`,
		},
		{
			"the cart's own", `{cart{deliverableLines{__typename id ...D} m:metafield(namespace:"$app",key:"gift"){value} none:metafield(key:"none"){value} ...on HasMetafields{h:metafield(key:"gift"){type}}}} fragment D on DeliverableCartLine{quantity}`,
			`{"cart":{"deliverableLines":[{"__typename":"DeliverableCartLine","id":"gid://shopify/CartLine/1","quantity":3}],"m":{"value":"yes"},"none":null,"h":{"type":"single_line_text_field"}}}`,
		},
		{
			"codes that can be rejected", `{enteredDiscountCodes{code rejectable} cart{retailLocation{id} lines{parentRelationship{parent{id}}}}}`,
			`{"enteredDiscountCodes":[{"code":"HALF","rejectable":true},{"code":"MORE","rejectable":true}],"cart":{"retailLocation":null,"lines":[{"parentRelationship":null}]}}`,
		},
		{
			"the rest", `{enteredDiscountCodes triggeringDiscountCode presentmentCurrencyRate localization{country{isoCode} language{isoCode}} discount{discountClasses} cart{deliveryGroups{id deliveryAddress{zip}} cost{subtotalAmount{amount} totalTaxAmount{amount}}} shop{localTime{date a:dateTimeAfter(dateTime:"2020-01-01T00:00:00") b:timeBetween(startTime:"00:00:00",endTime:"23:59:59")}}}`,
			`{"enteredDiscountCodes":["HALF","MORE"],"triggeringDiscountCode":"HALF","presentmentCurrencyRate":"1.0","localization":{"country":{"isoCode":"CA"},"language":{"isoCode":"EN"}},"discount":{"discountClasses":["PRODUCT","ORDER"]},"cart":{"deliveryGroups":[],"cost":{"subtotalAmount":{"amount":"59.97"},"totalTaxAmount":null}},"shop":{"localTime":{"date":"2026-11-18","a":true,"b":true}}}`,
		},
	} {
		if got := inputOf(t, Bundle{Configuration: configuration, Query: c.query}, in); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	all := inputOf(t, Bundle{}, in)
	for _, part := range []string{`"cart":{`, `"merchandise":{"__typename":"ProductVariant"`, `"discountNode":{"metafield":null}`, `"quantity":3`, `"discountClasses":["PRODUCT","ORDER"]`} {
		if !strings.Contains(all, part) {
			t.Errorf("the whole input lacks %s: %s", part, all)
		}
	}
}

// TestStoredQueries: a function that was uploaded before queries had a revision is told what
// it always was, so that the orders that it priced cost the same again.
func TestStoredQueries(t *testing.T) {
	module := (&Bundle{Configuration: []byte("{}")}).Wrap(nil)
	module = gas.AppendCustom(append([]byte("\x00asm\x01\x00\x00\x00"), module...), sectionQuery, []byte(
		`{shop{localTime{a:dateTimeAfter(dateTime:"2026-11-18T11:06:40") b:timeAfter(time:"11:06:40")}} cart{deliverableLines{__typename ...on DeliverableCartLine{id}} ...on HasMetafields{metafield(key:"gift"){value}}}}`))
	outline := gas.Read(module)
	b, _ := unwrap(module, &outline)
	want := `{"shop":{"localTime":{"a":false,"b":false}},"cart":{"deliverableLines":[{"__typename":"CartLine"}]}}`
	if got := inputOf(t, b, order()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	module = b.Wrap(module)
	outline = gas.Read(module)
	b, _ = unwrap(module, &outline)
	if got := inputOf(t, b, order()); got == want || !strings.HasPrefix(got, `{"shop":{"localTime":{"a":true,"b":true}}`) {
		t.Errorf("uploaded again: %s", got)
	}
}

// spreads is a query that selects nothing, breadth^depth times.
func spreads(breadth, depth int) string {
	query := "{cart{...F0}}"
	for n := range depth {
		query += fmt.Sprintf(" fragment F%d on Cart{%s}", n, strings.Repeat(fmt.Sprintf("...F%d ", n+1), breadth))
	}
	return query + fmt.Sprintf(" fragment F%d on Nothing{x}", depth)
}

func TestBadQueries(t *testing.T) {
	for _, query := range []string{
		spreads(4, 20), fmt.Sprintf(`{cart{buyerIdentity{customer{hasAnyTag(tags:[%s])}}}}`, strings.Repeat(`"x"`, queryListMax+1)),
		"{cart{lines}}", "{presentmentCurrencyRate{a}}", "{cart{...F}}", "{a:cart{cost{totalAmount{amount}}} a:discount{discountClasses}}",
		"{cart @skip(if:true){lines{id}}}", "fragment A on Cart{...A} query{cart{...A}}", `{cart{attribute(name:"x"){value}}}`,
		"{cart{lines{id}}} {cart{lines{id}}}", strings.Repeat("{cart", 100), "{" + strings.Repeat("a:presentmentCurrencyRate ", 1_500) + "}",
	} {
		if _, err := (&Bundle{Query: query}).settings(); err == nil {
			t.Errorf("%.80s is taken", query)
		}
	}
	if _, err := (&Bundle{Query: spreads(2, 6)}).settings(); err != nil {
		t.Error(err)
	}
}

// TestLongLists: names are looked up in long lists at the function's expense, and no
// longer than it can pay.
func TestLongLists(t *testing.T) {
	names := strings.Repeat(`"x"`, queryListMax)
	query := "{cart{lines{merchandise{...on ProductVariant{product{a:hasAnyTag(tags:[%[1]s]) b:hasTags(tags:[%[1]s]){hasTag} c:inAnyCollection(ids:[%[1]s])}}}}}}"
	p := compile(t, newEngine(t, host.Config{Instances: 1}), wasi("", writeAnswer), Bundle{Query: fmt.Sprintf(query, names)})
	in := order()
	short, trace := evaluate(t, p, in)
	if short.Fault != abi.FaultNone {
		t.Fatal(trace.Err)
	}
	in.DealAttributes = []abi.KV{{Key: []byte("tags"), Value: []byte(strings.Repeat("y,", 500))}}
	long, trace := evaluate(t, p, in)
	if want := short.Fuel + 2*queryListMax*1000*unitsPerByte; long.Fault != abi.FaultNone || long.Fuel < want {
		t.Errorf("%d units, want at least %d (%v)", long.Fuel, want, trace.Err)
	}
	in.DealAttributes[0].Value = []byte(strings.Repeat("y,", 3_500))
	out, _ := evaluate(t, p, in)
	if i := p.slots[0].instance; out.Fault != abi.FaultOutOfFuel || i.inputs.spent > InstructionsMax+queryListMax*7_000*unitsPerByte {
		t.Errorf("%s after %d units", out.Fault, i.inputs.spent)
	}
}
