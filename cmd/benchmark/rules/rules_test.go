package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// TestSession: every contestant is built, prices the order as the rule says, and has
// its line. What is missing here is missing for the benchmark.
func TestSession(t *testing.T) {
	t.Chdir(".") // back again at the end
	var out bytes.Buffer
	s := &session{rounds: 2, slice: time.Millisecond, seconds: 1, warmup: 1, root: "../../..", out: &out}
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, c := range contestants() {
		if !strings.Contains(text, "\n| "+c.name+" | "+c.language+" | ") {
			t.Errorf("%s in %s has no line", c.name, c.language)
		}
	}
	if strings.Contains(text, "not measured") {
		t.Error(text)
	}
}

// generous takes off a unit too much.
type generous struct{ native }

func (g *generous) price(ctx context.Context, in *abi.Input, out *abi.Verdict) error {
	err := g.native.price(ctx, in, out)
	out.Discount++
	return err
}

func TestCheckRefusesAnotherRule(t *testing.T) {
	if err := check(t.Context(), &native{}); err != nil {
		t.Fatal(err)
	}
	if check(t.Context(), &generous{}) == nil {
		t.Error("a unit too much passes")
	}
}

func TestTable(t *testing.T) {
	all := contestants()[:3]
	all[0].rounds = []figures{{100, 0}, {400, 0}, {200, 0}}
	all[1].rounds = []figures{{500, 2}, {300, 2}}
	all[2].missing = context.Canceled
	got := evaluations(all)
	for _, want := range []string{"| C | 200 (100 - 400) | 1 | 0 |", "| Rust | 400 (300 - 500) | 2 | 2 |", "| AssemblyScript | not measured: context canceled |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestFourKilobytes(t *testing.T) {
	a, b := fourKilobytes(1), fourKilobytes(2)
	if len(a) < 4000 || len(a) > 4500 || bytes.Equal(a, b) {
		t.Errorf("%d and %d bytes, the same: %v", len(a), len(b), bytes.Equal(a, b))
	}
}

func TestRefused(t *testing.T) {
	for _, s := range []*session{{}, {rounds: 1, slice: time.Second, seconds: 1}, {rounds: 1, slice: time.Second, seconds: 1, warmup: 1, uploads: -1}} {
		if s.run(t.Context()) == nil {
			t.Errorf("%+v runs", s)
		}
	}
}
