package deal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// TestFormat: the bytes of FORMAT.md's example are those of the code. They
// are on disk somewhere: they change only with a new version.
func TestFormat(t *testing.T) {
	s, c, r := NewState(), &Command{At: 1000}, &Reply{}
	var got [][]byte
	step := func() {
		s.Decide(c, exampleRule{}, r)
		r.Event.Seq = s.Seq + 1
		if err := s.Apply(&r.Event); err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Event.Append(nil))
	}
	c.Kind = Create
	c.Spec = &Spec{
		ID: "d1", Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 9900, Stock: 10,
		StartsAt: 1000, ReserveTTL: DefaultTTL, Rules: []string{"ten"}, Attributes: []abi.KV{{Key: []byte("sku"), Value: []byte("L")}},
	}
	step()
	c.Kind, c.At, c.User, c.Key, c.Quantity, c.Codes = Place, 1005, []byte("ann"), []byte("k1"), 2, [][]byte{[]byte("VIP")}
	r.Reset()
	step()
	if asked := xxhash.Sum64([]byte("\x00\x00\x02\x01\x03VIP\x00")); r.Event.Placed.Fingerprint != asked {
		t.Errorf("the fingerprint is %x, not %x", r.Event.Placed.Fingerprint, asked)
	}
	title := "Mango"
	*c = Command{Kind: Change, At: 1010, Patch: &Patch{Title: &title, StockAdd: 5}}
	r.Reset()
	step()
	v := s.View()
	got = append(got, s.AppendSnapshot(nil), v.AppendView(nil))

	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(doc), "```hex\n")[1:]
	if len(blocks) != len(got) {
		t.Fatalf("%d examples, not %d", len(blocks), len(got))
	}
	for i, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		var digits strings.Builder
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		want, err := hex.DecodeString(digits.String())
		if err != nil || !bytes.Equal(want, got[i]) {
			t.Errorf("example %d: the code says\n%x\nand FORMAT.md\n%x (%v)", i+1, got[i], want, err)
		}
	}
}

type exampleRule struct{}

func (exampleRule) Evaluate(_, _ string, in *abi.Input, out *abi.Verdict) {
	out.Reset()
	out.Version, out.House, out.SHA256 = 3, true, sha256.Sum256([]byte("ten"))
	out.Fuel, out.Digest = 210, 0x0102030405060708
	out.SetOutput(abi.Output{Outcome: abi.OutcomeDiscount, Discount: in.Subtotal / 10, Label: []byte("10% off")})
}
