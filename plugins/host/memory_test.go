package host

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"

	"github.com/doorbuster/doorbuster/runtime/yield"
)

// mappedToWrite is how many bytes this process has mapped that it may write to. What Go
// keeps free for its heap, 64 MiB at a time, is not among them.
func mappedToWrite(t *testing.T) int {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident, shared, text, library, data int // pages
	if _, err := fmt.Sscan(string(statm), &size, &resident, &shared, &text, &library, &data); err != nil {
		t.Fatal(err)
	}
	return data * os.Getpagesize()
}

// TestLargeMemoryIsNotOnTheHeap: what a large memory takes is neither cleared nor
// collected by Go, and is given back when the program closes or does not come to life.
func TestLargeMemoryIsNotOnTheHeap(t *testing.T) {
	const rounds, memory = 20, gas.MemoryPagesMax << wasmPageShift
	e, err := New(Config{Instances: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	large := func(change func(*gastest.Module)) []byte {
		m := gastest.Rule("i32.const 16000000 i32.const 1 i32.store 0 0" + gastest.Result)
		m.MemoryMin = gas.MemoryPagesMax
		if change != nil {
			change(m)
		}
		return m.Encode()
	}
	good := large(nil)
	out := large(func(m *gastest.Module) {
		m.Data = []gastest.Data{{At: memory, Bytes: "x"}}
	})
	trap := large(func(m *gastest.Module) { m.Funcs[gastest.FuncBuffer].Code = "unreachable" })
	round := func() {
		p, err := e.Compile(t.Context(), good, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.grow(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		for _, bad := range [][]byte{out, trap} {
			if _, err := e.Compile(t.Context(), bad, nil); err == nil {
				t.Fatal("a bad module was taken")
			}
		}
	}
	round()
	var before, after runtime.MemStats
	mappedBefore := mappedToWrite(t)
	runtime.ReadMemStats(&before)
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	if heap := (after.TotalAlloc - before.TotalAlloc) / rounds; heap > memory/4 {
		t.Errorf("%d bytes of Go's heap for programs of %d bytes of memory", heap, memory)
	}
	if more := mappedToWrite(t) - mappedBefore; more > rounds*memory/2 {
		t.Errorf("%d bytes are still mapped after %d programs", more, rounds)
	}
}

// TestMappedCopy: a copy of a large memory is the same, whatever is zero in it.
func TestMappedCopy(t *testing.T) {
	for _, size := range []int{1 << wasmPageShift, mappedMin, 3*mappedMin + 1<<wasmPageShift} {
		memory := make([]byte, size)
		for _, at := range []int{0, yield.PieceBytes - 1, size/2 + 1, size - 1} {
			memory[at] = byte(at) | 1
		}
		var m mapped
		if got := m.copyOf(memory); string(got) != string(memory) {
			t.Errorf("a memory of %d bytes is not what it was", size)
		}
		m.Free()
		m.Free() // again does nothing
	}
}
