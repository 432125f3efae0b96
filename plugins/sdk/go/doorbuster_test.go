package doorbuster_test

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	doorbuster "github.com/doorbuster/doorbuster/plugins/sdk/go"
	"github.com/doorbuster/doorbuster/plugins/sdk/go/rulestest"
)

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func TestShares(t *testing.T) {
	var file struct {
		Cases []struct {
			Amount      doorbuster.Money
			BasisPoints int64 `json:"basis_points"`
			Down        doorbuster.Money
			HalfEven    doorbuster.Money `json:"half_even"`
			Up          doorbuster.Money
		}
	}
	readJSON(t, "../rules/vectors/money.json", &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range file.Cases {
		down, even, up := c.Amount.ShareDown(c.BasisPoints), c.Amount.ShareHalfEven(c.BasisPoints), c.Amount.ShareUp(c.BasisPoints)
		if down != c.Down || even != c.HalfEven || up != c.Up {
			t.Errorf("%+v: %d %d %d", c, down, even, up)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		amount doorbuster.Money
		n      uint32
		want   doorbuster.Money
	}{
		{0, 0, 0},
		{99, 0, 0},
		{99, 3, 297},
		{math.MaxInt64, 1, math.MaxInt64},
		{math.MaxInt64 / 2, 2, math.MaxInt64 - 1},
		{math.MaxInt64/2 + 1, 2, math.MaxInt64},
		{math.MaxInt64, math.MaxUint32, math.MaxInt64},
	} {
		if got := c.amount.Times(c.n); got != c.want {
			t.Errorf("%d × %d = %d", c.amount, c.n, got)
		}
	}
}

// TestDecode: the bytes of every vector mean what its JSON says.
func TestDecode(t *testing.T) {
	files, err := filepath.Glob("../rules/vectors/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var decoded doorbuster.Input // used again, as a module does
	seen := 0
	for _, path := range files {
		var file struct {
			Cases []struct {
				Name, Encoded string
				Input         json.RawMessage
			}
		}
		readJSON(t, path, &file)
		for _, c := range file.Cases {
			if c.Encoded == "" {
				continue // money.json
			}
			encoded, err := hex.DecodeString(c.Encoded)
			if err != nil {
				t.Fatal(err)
			}
			want, err := rulestest.Decode(c.Input)
			if err != nil {
				t.Fatal(err)
			}
			decoded.Decode(encoded)
			if len(decoded.Codes) == 0 {
				decoded.Codes = nil
			}
			for _, list := range []*doorbuster.Attributes{&decoded.Attributes, &decoded.DealAttributes} {
				if len(*list) == 0 {
					*list = nil
				}
			}
			if len(want.Codes) == 0 {
				want.Codes = nil
			}
			if !reflect.DeepEqual(&decoded, want) {
				t.Errorf("%s: %s:\ngot  %+v\nwant %+v", path, c.Name, decoded, *want)
			}
			seen++
		}
	}
	if seen < 12*8 {
		t.Fatalf("%d vectors", seen)
	}
}

// TestDecodeGolden reads the golden input of the ABI, where every field has a
// value of its own.
func TestDecodeGolden(t *testing.T) {
	encoded, err := os.ReadFile("../../abi/testdata/input_full.bin")
	if err != nil {
		t.Fatal(err)
	}
	var in doorbuster.Input
	in.Decode(encoded)
	if in.FirstOrder || in.OpensGroup || !in.JoinsGroup || !in.Quote || in.Now != 1790000000001 || in.UnitPrice != 7900 ||
		in.Subtotal != 23700 || in.DiscountSoFar != 2370 || in.Payable() != 21330 || in.Quantity != 3 || in.UserQuantity != 1 ||
		in.Available != 1<<40 || in.Stock != 1<<41 || in.StartsAt != 1 || in.EndsAt != 0 || in.GroupSize != 3 || in.GroupMembers != 2 ||
		in.Currency != "JPY" || in.DealID != "deal/面" || in.UserID != "ユーザー" || !slices.Equal(in.Codes, []string{"SAVE10", "", "ÜMLAUT"}) {
		t.Errorf("%+v", in)
	}
	if v, ok := in.Attributes.Get("member"); v != "gold" || !ok {
		t.Errorf("member is %q, %v", v, ok)
	}
	if v, ok := in.Attributes.Get("note"); v != "" || !ok {
		t.Errorf("note is %q, %v", v, ok)
	}
	if v, ok := in.Attributes.Get("Member"); v != "" || ok {
		t.Errorf("Member is %q, %v", v, ok)
	}
	if v, ok := in.DealAttributes.Get("sku"); v != "LY-25" || !ok {
		t.Errorf("sku is %q, %v", v, ok)
	}
}

func TestDiscountIsBounded(t *testing.T) {
	in := &doorbuster.Input{Subtotal: 1000, DiscountSoFar: 400}
	for amount, want := range map[doorbuster.Money]doorbuster.Money{-1: 0, 0: 0, 599: 599, 600: 600, 601: 600, math.MaxInt64: 600} {
		if out := in.Discount(amount, "l", "r"); out.Discount != want || out.Outcome != doorbuster.OutcomeDiscount || out.Label != "l" || out.Reason != "r" || out.Final {
			t.Errorf("%d: %+v", amount, out)
		}
	}
}

func TestTexts(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil, " ,, ": nil, "a": {"a"}, " a b , c,": {"a b", "c"}, "a\t,b": {"a\t", "b"},
	} {
		if got := slices.Collect(doorbuster.List(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
	for range doorbuster.List("a,b") {
		break // the sequence has to notice
	}
	for _, c := range []struct {
		a, b          string
		equal, prefix bool
	}{
		{"", "", true, true},
		{"vip", "VIP", true, true},
		{"VIP2", "vip", false, true},
		{"vi", "VIP", false, false},
		{"[", "{", false, false},
		{"ß", "SS", false, false},
		{"É", "é", false, false},
	} {
		if doorbuster.EqualFold(c.a, c.b) != c.equal || doorbuster.HasPrefixFold(c.a, c.b) != c.prefix {
			t.Errorf("%+v", c)
		}
	}
}

func TestMisuse(t *testing.T) {
	for name, misuse := range map[string]func(){
		"a negative amount":    func() { doorbuster.Money(-1).ShareDown(1) },
		"more than the amount": func() { doorbuster.Money(1).ShareUp(10_001) },
		"no rule":              func() { doorbuster.Register(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			misuse()
		}()
	}
}
