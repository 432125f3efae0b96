package gas_test

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// TestRevisionHasAllSources: whatever changes what becomes of a module changes the revision.
func TestRevisionHasAllSources(t *testing.T) {
	var want []string
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := file.Name()
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "plant_") {
			want = append(want, name)
		}
	}
	if got := gas.Sources(); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	if a := gas.Revision(); len(a) != 64 {
		t.Error(a)
	}
}

// TestShell: a shell is small whatever the code is, another one for other code, and has all
// else of the module.
func TestShell(t *testing.T) {
	shell := func(name, code string) []byte {
		m, err := gas.Rewrite(gastest.Rule(code + gastest.Result).Encode())
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.Shell(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := gas.Read(s), gas.Read(m.Wasm); !reflect.DeepEqual(got.Imports, want.Imports) || !reflect.DeepEqual(got.Exports, want.Exports) {
			t.Errorf("%v, not %v", got, want)
		}
		return s
	}
	small, large, other := shell("a", ""), shell("a", strings.Repeat("nop ", 10_000)), shell("a", "nop")
	if len(small) != len(large) || bytes.Equal(small, other) || bytes.Equal(small, shell("b", "")) {
		t.Errorf("%d and %d bytes", len(small), len(large))
	}
	if _, err := (&gas.Module{Wasm: []byte("\x00asm\x01\x00\x00\x00\x0a\xff")}).Shell(""); err == nil {
		t.Error("a shell of no module")
	}
}

// TestEncodedModule: what is read is what was written, and what no module says of itself is
// refused.
func TestEncodedModule(t *testing.T) {
	r := gastest.Rule("i64.const 5 global.set 0 i32.const 4096 i32.const 1 i32.store 0 0"+gastest.Result).WithImport("doorbuster", "log", gastest.TypeLog)
	r.Globals = []gastest.Global{{Type: gastest.I64, Mutable: true, Init: "i64.const 0"}}
	m, err := gas.Rewrite(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	got, err := gas.DecodeModule(m.Encode())
	if err != nil {
		t.Fatal(err)
	}
	m.Wasm = nil
	if !reflect.DeepEqual(got, m) || len(m.Mutable) != 1 || len(m.Imports) != 1 {
		t.Errorf("%+v, not %+v", got, m)
	}
	if !m.Fits(4100) || m.Fits(4099) {
		t.Error("what is put back reaches elsewhere")
	}
	for _, wrong := range []string{
		``, `{}`, `{"Pages":{"Shift":13}}`, `{"Size":-1,"Pages":{"Shift":10}}`, `{"Size":99999999,"Pages":{"Shift":10}}`,
		`{"Pages":{"Shift":10},"Fixed":[8,4]}`, `{"Pages":{"Shift":10},"Fixed":[0,65]}`,
		`{"Pages":{"Shift":10},"Imports":[` + strings.Repeat(`"",`, gas.ImportsMax) + `""]}`,
		`{"Pages":{"Shift":10},"Mutable":[` + strings.Repeat(`"",`, gas.MutableMax) + `""]}`,
	} {
		if _, err := gas.DecodeModule([]byte(wrong)); err == nil {
			t.Errorf("%.80s is a module", wrong)
		}
	}
}

// TestEncodedPolicy: what is read is what was written, and the bytes do not depend on the
// order of a map.
func TestEncodedPolicy(t *testing.T) {
	for _, p := range []*gas.Policy{gas.Rules(), {
		Imports: map[[2]string]gas.Signature{{"a", "b"}: {Params: "\x7f", Results: "\x7b"}, {"a", "c"}: {}, {"ab", ""}: {}},
		Prefix:  "p:", Foreign: "owner", Linked: true, Arena: &gas.Arena{Bound: 4, Region: 1},
	}} {
		got, err := gas.DecodePolicy(p.Encode())
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if !bytes.Equal(got.Encode(), p.Encode()) {
				t.Errorf("%s, not %s", got.Encode(), p.Encode())
			}
		}
	}
	if _, err := gas.DecodePolicy([]byte("{")); err == nil {
		t.Error("half a policy")
	}
}
