package shopify

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/doorbuster/doorbuster/plugins/host"
)

// FuzzBoundary calls imports one after the other with any arguments. Whatever a
// function passes, the host answers or ends the evaluation: it never fails itself, and
// afterwards everything is as it was.
func FuzzBoundary(f *testing.F) {
	call := func(name int, arguments ...uint64) []byte {
		b := []byte{byte(name)}
		for n := range 4 {
			v := uint64(0)
			if n < len(arguments) {
				v = arguments[n]
			}
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		return b
	}
	for name := range len(imports) {
		f.Add(slices.Concat(call(name, 1, 2, 3, 4), call(name, math.MaxUint32, math.MaxUint32, math.MaxUint32), call(name, 0, 0x9fffff, 0xffffffff, 0)))
		f.Add(slices.Concat(call(name, boxMask|tagObject<<boxTagShift|1, 1<<16, 5), call(name, uint64(arena.RegionAt()), uint64(arena.RegionEnd()-arena.RegionAt())), call(name, uint64(arena.RegionEnd()))))
	}
	p := compile(f, newEngine(f, host.Config{Instances: 1}), build(f, "trampolined.wat"), Bundle{})
	keys := slices.SortedFunc(maps.Keys(imports), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	i := p.slots[0].instance
	empty := make([]byte, len(i.memory)-int(arena.RegionAt()))
	f.Fuzz(func(t *testing.T, calls []byte) {
		i.inputs.start(&i.input, p.settings, *order(), InstructionsMax)
		i.inputs.write()
		i.Fuel.Set(InstructionsMax)
		if err := i.api.offer(i); err != nil {
			t.Fatal(err)
		}
		i.stdin = []byte("some input")
		for ; len(calls) >= 33; calls = calls[33:] {
			key := keys[int(calls[0])%len(keys)]
			stack := make([]uint64, max(len(imports[key].Params), len(imports[key].Results)))
			for n := range min(4, len(stack)) {
				stack[n] = binary.LittleEndian.Uint64(calls[1+8*n:])
				if imports[key].Params != "" && n < len(imports[key].Params) && imports[key].Params[n] == i32[0] {
					stack[n] = uint64(uint32(stack[n])) // as the engine passes it
				}
			}
			if !survives(t, i, key, stack) {
				break
			}
		}
		if len(i.stdout) > OutputBytesMax || len(i.output.d.text) > OutputBytesMax || i.log.n > LogBytesMax {
			t.Error("more was kept than may be")
		}
		i.api.settle(i)
		if !i.reset() || !i.at(p.initial) {
			t.Fatal("the function's memory is not what it was")
		}
		if !bytes.Equal(i.memory[arena.RegionAt():], empty) {
			t.Fatal("the region is not empty")
		}
	})
}

// survives calls an import. It returns false when that ended the evaluation.
func survives(t *testing.T, i *instance, key [2]string, stack []uint64) (goesOn bool) {
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case runtime.Error:
			t.Errorf("%v(%x): %v", key, stack, fault)
		}
	}()
	answers[key](i, stack)
	return true
}
