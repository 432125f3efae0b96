package gastest_test

import (
	"encoding/hex"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// TestEncode compares with bytes written by hand from the WebAssembly
// specification.
func TestEncode(t *testing.T) {
	m := &gastest.Module{
		Types:    []gastest.Type{{Params: []byte{gastest.I32}, Results: []byte{gastest.I64}}},
		Imports:  []gastest.Import{{Module: "m", Name: "n"}},
		Funcs:    []gastest.Func{{Locals: []byte{gastest.F32}, Code: "i64.const -1"}},
		TableMin: 1, TableMax: 200,
		MemoryMin: 1,
		Globals:   []gastest.Global{{Type: gastest.F64, Mutable: true, Init: "f64.const 1"}, {Type: gastest.I32, Init: "i32.const 64"}},
		Exports:   []gastest.Export{{Name: "f", Index: 1}},
		Start:     1,
		Elems:     []int{1},
		Data:      []gastest.Data{{At: 2, Bytes: "a"}, {At: -1, Bytes: "b"}},
		Custom:    map[string]string{"c": "d"},
	}
	want := "0061736d01000000" +
		"0003016364" + // custom
		"01060160017f017e" +
		"020701016d016e0000" +
		"03020100" +
		"040601700101c801" +
		"0503010001" +
		"06" + "13" + "02" + "7c0144000000000000f03f0b" + "7f0041c0000b" +
		"070501016600" + "01" +
		"080101" +
		"0907010041000b0101" +
		"0c0102" +
		"0a08" + "01" + "06" + "01017d" + "427f0b" +
		"0b0a02" + "0041020b0161" + "010162"
	if got := hex.EncodeToString(m.Encode()); got != want {
		t.Fatalf("\n%s, want\n%s", got, want)
	}
}

func TestAsm(t *testing.T) {
	for code, want := range map[string]string{
		"":                               "",
		"block i32 block void block 3":   "027f0240" + "0203",
		"i32.const 0x40 i64.const -65":   "41c000" + "42bf7f",
		"f32.const nan f64.const -2":     "430000c07f" + "4400000000000000c0",
		"v128.store64_lane 0 300 1":      "fd5b00ac0201",
		"raw 00ff br_table2 0 1 128 end": "00ff" + "0e0200018001" + "0b",
	} {
		if got := hex.EncodeToString(gastest.Asm(code)); got != want {
			t.Errorf("%q: %s, want %s", code, got, want)
		}
	}
	for _, code := range []string{"no.such", "br x", "f32.const x", "raw zz"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was assembled", code)
				}
			}()
			gastest.Asm(code)
		}()
	}
}

func TestRule(t *testing.T) {
	m := gastest.Rule(gastest.Result).WithImport("m", "n", gastest.TypeLog)
	if m.Exports[0].Index != 0 || m.Exports[3].Index != gastest.FuncEvaluate+1 || len(m.Types) != gastest.RuleTypes || len(m.Funcs) != gastest.RuleFuncs {
		t.Fatalf("%+v", m)
	}
}
