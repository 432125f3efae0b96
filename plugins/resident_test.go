package plugins_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// residentMax is what 1,000 rule versions may take in memory, all of them ready to
// price orders.
const residentMax = 500 << 20

// TestThousandVersionsFit: each has its code, an instance with a memory of 128 KiB,
// as C and AssemblyScript make them, and a copy of that memory.
func TestThousandVersionsFit(t *testing.T) {
	r := open(t, journaltest.NewMemory().Tables())
	before := resident(t)
	for n := range residentVersions {
		m := gastest.Rule(fmt.Sprintf("i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 i64.const %d i64.store 3 8", n) + gastest.Result)
		m.MemoryMin = 2
		for range 40 { // 4 KB of code that nobody calls
			m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: fmt.Sprintf("local.get 0 i32.const %d i32.add i32.load 0 0 local.tee 0 i32.const 64 i32.mul i32.const 7 i32.xor local.get 0 i32.add i32.const %d i32.mul local.set 0 i32.const 128 local.get 0 i32.store 0 0 local.get 0 i32.const 11 i32.shl local.get 0 i32.sub i32.const 5 i32.add local.set 0 i32.const 256 local.get 0 i32.store 0 0 local.get 0", n, n)})
		}
		upload(t, r, "acme", fmt.Sprintf("r-%d", n), m.Encode())
	}
	if n := r.Loaded(); n != residentVersions+1 {
		t.Fatalf("%d versions are loaded", n)
	}
	took := resident(t) - before
	t.Logf("%d versions take %d MiB", residentVersions, took>>20)
	if took > residentMax {
		t.Errorf("%d versions take %d MiB, at most %d", residentVersions, took>>20, residentMax>>20)
	}
	last := residentVersions - 1
	expect(t, r, "acme", fmt.Sprintf("r-%d", last), int64(last), 1)
}

// resident is the memory that this process has, in bytes, once nothing is garbage.
func resident(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	debug.FreeOSMemory() // what finalizers held
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
