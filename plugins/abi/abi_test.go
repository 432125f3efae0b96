package abi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// TestLayout reads the encoding by the numbers of ABI.md, not by the package's
// own constants.
func TestLayout(t *testing.T) {
	in := goldenInputs["input_full"].input()
	b, err := in.Append(make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	b = b[8:]
	le := binary.LittleEndian
	text := func(at int) string {
		offset, n := le.Uint32(b[at:]), le.Uint32(b[at+4:])
		return string(b[offset : offset+n])
	}
	for name, ok := range map[string]bool{
		"aligned":          len(b)%8 == 0,
		"size":             int(le.Uint32(b)) == len(b),
		"abi":              le.Uint16(b[4:]) == 1,
		"flags":            le.Uint16(b[6:]) == in.Flags,
		"now":              int64(le.Uint64(b[8:])) == in.Now,
		"unit_price":       int64(le.Uint64(b[16:])) == in.UnitPrice,
		"subtotal":         int64(le.Uint64(b[24:])) == in.Subtotal,
		"discount_so_far":  int64(le.Uint64(b[32:])) == in.DiscountSoFar,
		"quantity":         le.Uint32(b[40:]) == in.Quantity,
		"user_quantity":    le.Uint32(b[44:]) == in.UserQuantity,
		"available":        int64(le.Uint64(b[48:])) == in.Available,
		"stock":            int64(le.Uint64(b[56:])) == in.Stock,
		"starts_at":        int64(le.Uint64(b[64:])) == in.StartsAt,
		"ends_at":          int64(le.Uint64(b[72:])) == in.EndsAt,
		"group_size":       le.Uint32(b[80:]) == in.GroupSize,
		"group_members":    le.Uint32(b[84:]) == in.GroupMembers,
		"currency":         string(b[88:92]) == "JPY\x00",
		"reserved":         le.Uint32(b[92:]) == 0,
		"deal_id":          text(96) == "deal/面",
		"user_id":          text(104) == "ユーザー",
		"codes":            le.Uint32(b[116:]) == 3 && text(int(le.Uint32(b[112:]))) == "SAVE10",
		"attributes":       le.Uint32(b[124:]) == 2 && text(int(le.Uint32(b[120:]))+8) == "gold",
		"deal attributes":  le.Uint32(b[132:]) == 1 && text(int(le.Uint32(b[128:]))+8) == "LY-25",
		"arrays 8-aligned": le.Uint32(b[112:])%8 == 0 && le.Uint32(b[120:])%8 == 0 && le.Uint32(b[128:])%8 == 0,
	} {
		if !ok {
			t.Errorf("%s is not where ABI.md says", name)
		}
	}
}

func TestAppendBound(t *testing.T) {
	fits := abi.Input{DealID: make([]byte, abi.InputBytesMax-136)}
	if b, err := fits.Append(nil); err != nil || len(b) != abi.InputBytesMax {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	long := make([]byte, abi.InputBytesMax)
	for name, in := range map[string]abi.Input{
		"one byte":       {DealID: make([]byte, abi.InputBytesMax-135)},
		"user":           {UserID: long},
		"code":           {Codes: [][]byte{long, long}},
		"many codes":     {Codes: make([][]byte, abi.InputBytesMax+1)},
		"attribute":      {Attributes: []abi.KV{{Key: long}, {Value: long}}},
		"deal attribute": {DealAttributes: []abi.KV{{Value: long}, {}}},
	} {
		dst := []byte{1, 2, 3}
		if got, err := in.Append(dst); !errors.Is(err, abi.ErrInputTooLarge) || !bytes.Equal(got, dst) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	in := goldenInputs["input_full"].input()
	memory := goldenOutputs()["output_discount"].memory
	buf := make([]byte, 0, abi.InputBytesMax)
	var verdict abi.Verdict
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := in.Append(buf[:0]); err != nil {
			t.Fatal(err)
		}
		if err := verdict.DecodeOutput(memory, 16<<32|32, 9900); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations", allocs)
	}
}

// TestVerdictOwnsItsTexts: the guest's memory is reset right after the call.
func TestVerdictOwnsItsTexts(t *testing.T) {
	memory := bytes.Clone(goldenOutputs()["output_discount_final"].memory)
	var verdict abi.Verdict
	if err := verdict.DecodeOutput(memory, 16<<32|32, 9900); err != nil {
		t.Fatal(err)
	}
	label, reason := string(verdict.Label), string(verdict.Reason)
	clear(memory)
	if string(verdict.Label) != label || string(verdict.Reason) != reason {
		t.Fatalf("%q %q", verdict.Label, verdict.Reason)
	}
	verdict.Fault, verdict.Fuel = abi.FaultTrap, 1
	verdict.Reset()
	if verdict.Label != nil || verdict.Discount != 0 || verdict.Fault != abi.FaultNone || verdict.Fuel != 0 {
		t.Fatalf("%+v", verdict)
	}
}

func TestDecodeInputRefuses(t *testing.T) {
	in := goldenInputs["input_full"].input()
	good, err := in.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for name, spoil := range map[string]func(b []byte) []byte{
		"short":          func(b []byte) []byte { return b[:135] },
		"size too small": func(b []byte) []byte { le.PutUint32(b, 8); return b },
		"size too large": func(b []byte) []byte { le.PutUint32(b, uint32(len(b)+1)); return b },
		"over 8 KiB":     func(b []byte) []byte { le.PutUint32(b, 8200); return append(b, make([]byte, 8200)...) },
		"abi 2":          func(b []byte) []byte { b[4] = 2; return b },
		"text outside":   func(b []byte) []byte { le.PutUint32(b[100:], 1<<31); return b },
		"codes outside":  func(b []byte) []byte { le.PutUint32(b[116:], 1<<32-1); return b },
		"attrs outside":  func(b []byte) []byte { le.PutUint32(b[128:], uint32(len(b)-8)); return b },
		"not UTF-8":      func(b []byte) []byte { b[le.Uint32(b[96:])] = 0xff; return b },
	} {
		if _, err := abi.DecodeInput(spoil(bytes.Clone(good))); !errors.Is(err, abi.ErrBadInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDecodeInputAcceptsMore: later versions of the ABI only append.
func TestDecodeInputAcceptsMore(t *testing.T) {
	in := goldenInputs["input_plain"].input()
	b, err := in.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, make([]byte, 64)...)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	if _, err := abi.DecodeInput(b); err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	names := map[string]bool{}
	for o := range abi.Outcome(4) {
		names[o.String()] = true
	}
	for f := range abi.Fault(6) {
		names[f.String()] = true
	}
	for _, want := range []string{"none", "discount", "reject", "unknown", "out_of_fuel", "trap", "bad_output", "rule_init"} {
		if !names[want] {
			t.Errorf("no %q", want)
		}
	}
}

func FuzzDecodeInput(f *testing.F) {
	for _, twin := range goldenInputs {
		in := twin.input()
		b, err := in.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := abi.DecodeInput(b)
		if err != nil {
			return
		}
		// Refs may share bytes, so the canonical encoding can be longer.
		canonical, err := in.Append(nil)
		if err != nil {
			return
		}
		again, err := abi.DecodeInput(canonical)
		if err != nil {
			t.Fatal(err)
		}
		if b2, err := again.Append(nil); err != nil || !bytes.Equal(canonical, b2) {
			t.Fatalf("not canonical (%v)", err)
		}
	})
}

func FuzzDecodeOutput(f *testing.F) {
	for _, v := range goldenOutputs() {
		f.Add(v.memory, uint64(v.twin.Address)<<32|uint64(v.twin.Length), v.twin.Payable)
	}
	f.Fuzz(func(t *testing.T, memory []byte, result uint64, payable int64) {
		var out abi.Verdict
		err := out.DecodeOutput(memory, result, payable)
		if err == nil && (out.Discount < 0 || out.Discount > max(payable, 0) || len(out.Label) > abi.LabelBytesMax || len(out.Reason) > abi.ReasonBytesMax || !utf8.Valid(out.Label)) {
			t.Fatalf("%+v", out.Output)
		}
	})
}

// TestLabelsAreUTF8: a byte that is none is found wherever it stands.
func TestLabelsAreUTF8(t *testing.T) {
	for n := 1; n <= 40; n++ {
		for at := range n {
			label := bytes.Repeat([]byte("l"), n)
			label[at] = 0xff
			memory := encoded(1, 0, 0, 1, string(label), "")
			var v abi.Verdict
			if err := v.DecodeOutput(memory, 16<<32|32, 9900); !errors.Is(err, abi.ErrBadOutput) || v.Label != nil {
				t.Fatalf("%q: %v", label, err)
			}
		}
	}
}
