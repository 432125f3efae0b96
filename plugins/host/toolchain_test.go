package host_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// TestGoToolchain runs what Go's own compiler makes: 2 MB with a runtime, which
// starts by WASI, grows its memory and keeps state wherever it can.
func TestGoToolchain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guest.wasm")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-o", path, "./testdata/goguest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := compile(t, host.Config{Instances: 1}, wasm)
	var first abi.Verdict
	for n := range 3 {
		v, trace := evaluate(p, order)
		if v.Fault != abi.FaultNone || v.Discount != 990 || string(trace.Logs) != "evaluation 1 of 1 at 1790000000123\n" {
			t.Fatalf("%v %d %q %v", v.Fault, v.Discount, trace.Logs, trace.Err)
		}
		if n > 0 && v.Fuel != first.Fuel {
			t.Fatalf("%d units, then %d", first.Fuel, v.Fuel)
		}
		first = v
	}
	t.Logf("%d bytes, %d units", len(wasm), first.Fuel)
}
