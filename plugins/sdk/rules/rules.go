// Package rules holds the twelve rules that every SDK has, as a specification
// (README.md) and as vectors that all languages are tested against (vectors/).
//
// A vectors file is JSON that people write: named cases, each a sample input and
// the answer that the rule must give. Encode adds to each case the bytes that
// the rule gets, and Table tells the same to a test program that reads no JSON.
package rules

//go:generate go test -run TestGenerated -update .

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sample"
)

// CasesMax bounds the cases of one file.
const CasesMax = 10_000

// File is one rule's vectors.
type File struct {
	Rule  string `json:"rule"`
	Cases []Case `json:"cases"`
}

// Case is one sample and its answer.
type Case struct {
	Name    string          `json:"name"`
	Input   json.RawMessage `json:"input"`   // a sample.Order
	Encoded string          `json:"encoded"` // hexadecimal, what the rule gets for Input
	Expect  Expect          `json:"expect"`
}

// Expect is the answer that a rule must give.
type Expect struct {
	Outcome  string `json:"outcome"` // "none", "discount" or "reject"
	Discount int64  `json:"discount"`
	Label    string `json:"label"`
	Reason   string `json:"reason"`
	Final    bool   `json:"final"`
}

// Answer is an abi.Output in the words of a vectors file.
func Answer(out *abi.Output) Expect {
	return Expect{Outcome: out.Outcome.String(), Discount: out.Discount, Label: string(out.Label), Reason: string(out.Reason), Final: out.Final}
}

// Decode reads a vectors file and checks it: cases with different names and
// readable samples.
func Decode(document []byte) (*File, error) {
	f := &File{}
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, err
	}
	if len(f.Cases) == 0 || len(f.Cases) > CasesMax {
		return nil, fmt.Errorf("%d cases, 1 to %d are allowed", len(f.Cases), CasesMax)
	}
	seen := map[string]bool{}
	for i := range f.Cases {
		c := &f.Cases[i]
		if c.Name == "" || strings.ContainsAny(c.Name, "\t\n") || seen[c.Name] {
			return nil, fmt.Errorf("case %d: the name %q is empty, not one line, or taken", i, c.Name)
		}
		seen[c.Name] = true
		if _, err := c.Order(); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	return f, nil
}

// Order is what the rule is told in this case. A case without "now" has the
// stamp 0.
func (c *Case) Order() (*abi.Input, error) {
	o, err := sample.Decode(c.Input)
	if err != nil {
		return nil, err
	}
	return o.Input()
}

// Encode fills in what each case's Encoded must be.
func (f *File) Encode() error {
	for i := range f.Cases {
		c := &f.Cases[i]
		in, err := c.Order()
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		b, err := in.Append(nil)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		c.Encoded = hex.EncodeToString(b)
	}
	return nil
}

// JSON is the file as it is kept: one line for each part of a case.
func (f *File) JSON() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"rule\": %q, \"cases\": [\n", f.Rule)
	for i := range f.Cases {
		c := &f.Cases[i]
		name, err1 := plain(c.Name)
		input, err2 := plain(c.Input)
		expect, err3 := plain(c.Expect)
		for _, err := range []error{err1, err2, err3} {
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
		}
		fmt.Fprintf(&b, "  {\"name\": %s,\n   \"input\": %s,\n   \"expect\": %s,\n   \"encoded\": %q}", name, input, expect, c.Encoded)
		if i < len(f.Cases)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]}\n")
	return b.Bytes(), nil
}

// plain is compact JSON without the escapes that only HTML needs.
func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// Table is the file for programs that read no JSON: a line for each case, its
// fields separated by tabs: encoded, outcome (0, 1, 2 as in the ABI), discount,
// final (0, 1), reason, label, name.
func (f *File) Table() ([]byte, error) {
	var b bytes.Buffer
	for i := range f.Cases {
		c := &f.Cases[i]
		outcome, err := c.Expect.outcome()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		final := 0
		if c.Expect.Final {
			final = 1
		}
		fields := []string{
			c.Encoded, strconv.Itoa(int(outcome)), strconv.FormatInt(c.Expect.Discount, 10), strconv.Itoa(final),
			c.Expect.Reason, c.Expect.Label, c.Name,
		}
		b.WriteString(strings.Join(fields, "\t"))
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

func (e *Expect) outcome() (abi.Outcome, error) {
	for o := abi.OutcomeNone; o <= abi.OutcomeReject; o++ {
		if o.String() == e.Outcome {
			return o, nil
		}
	}
	return 0, fmt.Errorf("there is no outcome %q", e.Outcome)
}
