package abi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// The golden vectors are what every SDK tests against, in any language: each
// *.bin has a JSON twin that says what the bytes mean.
var update = flag.Bool("update", false, "write the golden vectors anew")

// inputTwin is the JSON twin of input_*.bin. Texts are strings there, so that
// a person can read them.
type inputTwin struct {
	Flags          uint16      `json:"flags"`
	Now            int64       `json:"now"`
	UnitPrice      int64       `json:"unit_price"`
	Subtotal       int64       `json:"subtotal"`
	DiscountSoFar  int64       `json:"discount_so_far"`
	Quantity       uint32      `json:"quantity"`
	UserQuantity   uint32      `json:"user_quantity"`
	Available      int64       `json:"available"`
	Stock          int64       `json:"stock"`
	StartsAt       int64       `json:"starts_at"`
	EndsAt         int64       `json:"ends_at"`
	GroupSize      uint32      `json:"group_size"`
	GroupMembers   uint32      `json:"group_members"`
	Currency       string      `json:"currency"`
	DealID         string      `json:"deal_id"`
	UserID         string      `json:"user_id"`
	Codes          []string    `json:"codes"`
	Attributes     [][2]string `json:"attributes"`
	DealAttributes [][2]string `json:"deal_attributes"`
}

func (t inputTwin) input() abi.Input {
	in := abi.Input{
		Flags: t.Flags, Now: t.Now, UnitPrice: t.UnitPrice, Subtotal: t.Subtotal, DiscountSoFar: t.DiscountSoFar,
		Quantity: t.Quantity, UserQuantity: t.UserQuantity, Available: t.Available, Stock: t.Stock,
		StartsAt: t.StartsAt, EndsAt: t.EndsAt, GroupSize: t.GroupSize, GroupMembers: t.GroupMembers,
		DealID: []byte(t.DealID), UserID: []byte(t.UserID),
		Attributes: kvs(t.Attributes), DealAttributes: kvs(t.DealAttributes),
	}
	copy(in.Currency[:], t.Currency)
	for _, c := range t.Codes {
		in.Codes = append(in.Codes, []byte(c))
	}
	return in
}

func kvs(pairs [][2]string) (list []abi.KV) {
	for _, p := range pairs {
		list = append(list, abi.KV{Key: []byte(p[0]), Value: []byte(p[1])})
	}
	return list
}

var goldenInputs = map[string]inputTwin{
	"input_minimal": {Currency: "CNY", Quantity: 1},
	"input_plain": {
		Flags: abi.FlagFirstOrder, Now: 1_790_000_000_000, UnitPrice: 9900, Subtotal: 19800, Quantity: 2,
		Available: 99, Stock: 100, StartsAt: 1_789_999_999_000, EndsAt: 1_790_000_600_000,
		Currency: "CNY", DealID: "d-flash", UserID: "u-1",
	},
	"input_full": {
		Flags: abi.FlagJoinsGroup | abi.FlagQuote, Now: 1_790_000_000_001, UnitPrice: 7900, Subtotal: 23700,
		DiscountSoFar: 2370, Quantity: 3, UserQuantity: 1, Available: 1 << 40, Stock: 1 << 41,
		StartsAt: 1, GroupSize: 3, GroupMembers: 2, Currency: "JPY", DealID: "deal/面", UserID: "ユーザー",
		Codes:          []string{"SAVE10", "", "ÜMLAUT"},
		Attributes:     [][2]string{{"member", "gold"}, {"note", ""}},
		DealAttributes: [][2]string{{"sku", "LY-25"}},
	},
	"input_extremes": {
		Flags: 15, Now: 1<<63 - 1, UnitPrice: 1<<63 - 1, Subtotal: 1<<63 - 1, DiscountSoFar: 1<<63 - 1,
		Quantity: 1<<32 - 1, UserQuantity: 1<<32 - 1, Available: 1<<63 - 1, Stock: 1<<63 - 1, StartsAt: -1 << 63,
		EndsAt: 1<<63 - 1, GroupSize: 1<<32 - 1, GroupMembers: 1<<32 - 1, Currency: "XXX",
		DealID: strings.Repeat("d", 4000), UserID: strings.Repeat("u", 4056),
	},
}

// outputTwin is the JSON twin of output_*.bin: the bin is the guest's memory
// from address 0, result what rule_evaluate returned. OK false means that a
// host must answer bad_output.
type outputTwin struct {
	Address  uint32 `json:"address"`
	Length   uint32 `json:"length"`
	Payable  int64  `json:"payable"`
	OK       bool   `json:"ok"`
	Outcome  string `json:"outcome,omitempty"`
	Final    bool   `json:"final,omitempty"`
	Discount int64  `json:"discount,omitempty"`
	Label    string `json:"label,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// goldenOutput is a twin and the memory it describes.
type goldenOutput struct {
	memory []byte
	twin   outputTwin
}

// encoded lays an output at 16 and its texts behind it.
func encoded(outcome, flags uint16, reserved uint32, discount int64, label, reason string) []byte {
	m := make([]byte, 48, 256)
	b := m[16:]
	b[0], b[1], b[2], b[3] = byte(outcome), byte(outcome>>8), byte(flags), byte(flags>>8)
	put32 := func(at int, v uint32) {
		for i := range 4 {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	put32(4, reserved)
	put32(8, uint32(discount))
	put32(12, uint32(uint64(discount)>>32))
	put32(16, 48)
	put32(20, uint32(len(label)))
	put32(24, uint32(48+len(label)))
	put32(28, uint32(len(reason)))
	return append(append(m, label...), reason...)
}

func goldenOutputs() map[string]goldenOutput {
	at16 := outputTwin{Address: 16, Length: 32, Payable: 9900}
	bad := func(m []byte) goldenOutput { return goldenOutput{m, at16} }
	good := func(m []byte, outcome string, final bool, discount int64, label, reason string) goldenOutput {
		t := at16
		t.OK, t.Outcome, t.Final, t.Discount, t.Label, t.Reason = true, outcome, final, discount, label, reason
		return goldenOutput{m, t}
	}
	outside := bad(encoded(0, 0, 0, 0, "", ""))
	outside.twin.Address = 17
	wraps := bad(encoded(0, 0, 0, 0, "", ""))
	wraps.twin.Address, wraps.twin.Length = 1<<32-16, 32
	short := bad(encoded(0, 0, 0, 0, "", ""))
	short.twin.Length = 31
	labelOutside := encoded(1, 0, 0, 1, "label", "")
	labelOutside = labelOutside[:len(labelOutside)-1]
	longest, longestReason := strings.Repeat("é", 64), strings.Repeat("r", 64)
	return map[string]goldenOutput{
		"output_none":            good(encoded(0, 0, 0, 0, "", ""), "none", false, 0, "", ""),
		"output_none_leftover":   good(encoded(0, 0, 0, 7, "", ""), "none", false, 0, "", ""),
		"output_discount":        good(encoded(1, 0, 0, 990, "10% off from 1", "tier_1"), "discount", false, 990, "10% off from 1", "tier_1"),
		"output_discount_final":  good(encoded(1, 1, 0, 9900, longest, longestReason), "discount", true, 9900, longest, longestReason),
		"output_reject":          good(encoded(2, 0, 0, 0, "Not in your region", "region"), "reject", false, 0, "Not in your region", "region"),
		"output_bad_negative":    bad(encoded(1, 0, 0, -1, "", "")),
		"output_bad_too_much":    bad(encoded(1, 0, 0, 9901, "", "")),
		"output_bad_outcome":     bad(encoded(3, 0, 0, 0, "", "")),
		"output_bad_flags":       bad(encoded(0, 2, 0, 0, "", "")),
		"output_bad_reserved":    bad(encoded(0, 0, 1, 0, "", "")),
		"output_bad_utf8":        bad(encoded(1, 0, 0, 1, "\xff", "")),
		"output_bad_label_size":  bad(encoded(1, 0, 0, 1, strings.Repeat("l", 129), "")),
		"output_bad_label_place": bad(labelOutside),
		"output_bad_reason":      bad(encoded(2, 0, 0, 0, "", "No")),
		"output_bad_reason_size": bad(encoded(2, 0, 0, 0, "", strings.Repeat("r", 65))),
		"output_bad_place":       outside,
		"output_bad_wraps":       wraps,
		"output_bad_short":       short,
	}
}

// golden returns what the file holds, after writing want to it with -update.
func golden(t *testing.T, name string, want []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func goldenJSON[T any](t *testing.T, name string, want T) (got T) {
	t.Helper()
	encoded, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(golden(t, name, append(encoded, '\n')), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestGoldenInputs(t *testing.T) {
	for name, want := range goldenInputs {
		t.Run(name, func(t *testing.T) {
			in := want.input()
			b, err := in.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(golden(t, name+".bin", b), b) {
				t.Fatal("the encoding differs from the golden vector")
			}
			if twin := goldenJSON(t, name+".json", want); !reflect.DeepEqual(twin.input(), in) {
				t.Fatalf("the JSON twin differs: %+v", twin)
			}
			decoded, err := abi.DecodeInput(b)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decoded.Append(nil)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("decode then encode differs (%v)", err)
			}
		})
	}
}

func TestGoldenOutputs(t *testing.T) {
	for name, vector := range goldenOutputs() {
		t.Run(name, func(t *testing.T) {
			memory := golden(t, name+".bin", vector.memory)
			want := goldenJSON(t, name+".json", vector.twin)
			if !bytes.Equal(memory, vector.memory) || want != vector.twin {
				t.Fatal("the golden vector differs from the one generated here")
			}
			var out abi.Verdict
			err := out.DecodeOutput(memory, uint64(want.Address)<<32|uint64(want.Length), want.Payable)
			got := outputTwin{Address: want.Address, Length: want.Length, Payable: want.Payable, OK: err == nil}
			if got.OK {
				got.Outcome, got.Final, got.Discount = out.Outcome.String(), out.Final, out.Discount
				got.Label, got.Reason = string(out.Label), string(out.Reason)
			}
			if got != want {
				t.Fatalf("got %+v (%v), want %+v", got, err, want)
			}
		})
	}
}
