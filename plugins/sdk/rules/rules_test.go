package rules_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

var update = flag.Bool("update", false, "write the encoded inputs and the tables of vectors/ anew")

func vectorFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("vectors/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, path := range files {
		if filepath.Base(path) != "money.json" {
			list = append(list, path)
		}
	}
	if len(list) != 12 {
		t.Fatalf("%d rules have vectors, not 12", len(list))
	}
	return list
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGenerated: what is generated is what its source says.
func TestGenerated(t *testing.T) {
	for _, path := range vectorFiles(t) {
		f, err := rules.Decode(read(t, path))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if f.Rule != strings.TrimSuffix(filepath.Base(path), ".json") || len(f.Cases) < 8 {
			t.Errorf("%s: rule %q with %d cases", path, f.Rule, len(f.Cases))
		}
		if err := f.Encode(); err != nil {
			t.Fatal(err)
		}
		document, err1 := f.JSON()
		table, err2 := f.Table()
		if err1 != nil || err2 != nil {
			t.Fatal(path, err1, err2)
		}
		check(t, path, document)
		check(t, strings.TrimSuffix(path, ".json")+".tsv", table)
	}
	check(t, "vectors/money.tsv", moneyTable(t))
}

func check(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read(t, path), want) {
		t.Errorf("%s is not what its source makes: go generate ./plugins/sdk/rules", path)
	}
}

// moneyTable is money.json for programs that read no JSON, and checks it by
// arithmetic that cannot overflow.
func moneyTable(t *testing.T) []byte {
	t.Helper()
	var file struct {
		Cases []struct {
			Amount      int64 `json:"amount"`
			BasisPoints int64 `json:"basis_points"`
			Down        int64 `json:"down"`
			HalfEven    int64 `json:"half_even"`
			Up          int64 `json:"up"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(read(t, "vectors/money.json"), &file); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, c := range file.Cases {
		product := new(big.Int).Mul(big.NewInt(c.Amount), big.NewInt(c.BasisPoints))
		quotient, rest := new(big.Int).DivMod(product, big.NewInt(10_000), new(big.Int))
		down, up, even := quotient.Int64(), quotient.Int64(), quotient.Int64()
		if rest.Sign() > 0 {
			up++
		}
		if r := rest.Int64(); r > 5_000 || r == 5_000 && even%2 == 1 {
			even++
		}
		if c.Down != down || c.HalfEven != even || c.Up != up {
			t.Errorf("money.json: %+v, should be %d %d %d", c, down, even, up)
		}
		fmt.Fprintf(&b, "%d\t%d\t%d\t%d\t%d\n", c.Amount, c.BasisPoints, c.Down, c.HalfEven, c.Up)
	}
	return b.Bytes()
}

func TestDecodeRefuses(t *testing.T) {
	for name, document := range map[string]string{
		"no JSON":         `{`,
		"no cases":        `{"rule":"x","cases":[]}`,
		"unknown field":   `{"rule":"x","cases":[],"more":1}`,
		"no name":         `{"rule":"x","cases":[{"input":{}}]}`,
		"a tab":           `{"rule":"x","cases":[{"name":"a\tb","input":{}}]}`,
		"the same name":   `{"rule":"x","cases":[{"name":"a","input":{}},{"name":"a","input":{}}]}`,
		"misspelt field":  `{"rule":"x","cases":[{"name":"a","input":{"quantiy":1}}]}`,
		"quantity 0":      `{"rule":"x","cases":[{"name":"a","input":{"order":{"quantity":0}}}]}`,
		"price too large": `{"rule":"x","cases":[{"name":"a","input":{"deal":{"unit_price":1000000000001}}}]}`,
		"not a time":      `{"rule":"x","cases":[{"name":"a","input":{"now":"yesterday"}}]}`,
	} {
		if _, err := rules.Decode([]byte(document)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	f, err := rules.Decode([]byte(`{"rule":"x","cases":[{"name":"a","input":{},"expect":{"outcome":"maybe"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Table(); err == nil {
		t.Error("outcome maybe: accepted")
	}
}
