package host

import (
	"bytes"
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/runtime/yield"
)

// mappedMin is the size from which on a memory comes from the system and not from Go's
// heap: there 16 MiB are cleared, whatever of them is used, and bring a collection
// nearer. Smaller ones do without two calls of the system.
const mappedMin = 1 << 20

// mapped is the memory of one instance, taken from the system when it is a large one:
// what is not touched costs nothing, and growth moves nothing.
type mapped struct {
	bytes  []byte // as many as the memory may ever have
	onHeap bool
}

// Context returns what the module is to be instantiated with. When that fails, Free
// must follow; else closing the instance frees its memory.
func (m *mapped) Context(ctx context.Context, module wazero.CompiledModule) context.Context {
	for _, memory := range module.ExportedMemories() {
		if memory.Min()<<wasmPageShift >= mappedMin {
			return experimental.WithMemoryAllocator(ctx, m)
		}
	}
	return ctx
}

// Allocate is wazero's. It must not fail: where the system has no more, Go's heap has,
// or says so in its own way.
func (m *mapped) Allocate(_, most uint64) experimental.LinearMemory {
	var err error
	m.bytes, err = unix.Mmap(-1, 0, int(most), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if m.onHeap = err != nil; m.onHeap {
		m.bytes = make([]byte, most)
	}
	return m
}

// Reallocate is wazero's.
func (m *mapped) Reallocate(size uint64) []byte { return m.bytes[:size:size] }

// Free gives the memory back, which nobody may look at any more.
func (m *mapped) Free() {
	if len(m.bytes) > 0 && !m.onHeap {
		_ = unix.Munmap(m.bytes) // it is a mapping
	}
	m.bytes = nil
}

// copyOf fills m with a copy of a memory and returns that. What is zero there is not
// touched here. It goes by pieces: the kernel brings the pages of 16 MiB in 4 ms, and Go's
// runtime cannot stop a goroutine in the middle of a copy.
func (m *mapped) copyOf(memory []byte) []byte {
	if len(memory) < mappedMin {
		return bytes.Clone(memory)
	}
	m.Allocate(0, uint64(len(memory)))
	yield.Pieces(len(memory), func(from, to int) bool {
		if piece := memory[from:to]; !bytes.Equal(piece, zeros[:len(piece)]) {
			copy(m.bytes[from:], piece)
		}
		return true
	})
	return m.bytes
}

var zeros [yield.PieceBytes]byte
