package shopify

import (
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

func inputOf(t testing.TB, b Bundle, in *abi.Input) string {
	t.Helper()
	s, err := b.settings()
	if err != nil {
		t.Fatal(err)
	}
	var w inputWriter
	var d document
	w.start(&d, s, *in)
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

func TestBadQueries(t *testing.T) {
	for _, query := range []string{
		"{cart{lines}}", "{presentmentCurrencyRate{a}}", "{cart{...F}}", "{a:cart{cost{totalAmount{amount}}} a:discount{discountClasses}}",
		"{cart @skip(if:true){lines{id}}}", "fragment A on Cart{...A} query{cart{...A}}", `{cart{attribute(name:"x"){value}}}`,
		"{cart{lines{id}}} {cart{lines{id}}}", strings.Repeat("{cart", 100), "{" + strings.Repeat("a:presentmentCurrencyRate ", 1_500) + "}",
	} {
		if _, err := (&Bundle{Query: query}).settings(); err == nil {
			t.Errorf("%.80s is taken", query)
		}
	}
}
