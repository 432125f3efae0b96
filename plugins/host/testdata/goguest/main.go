// Command goguest is a rule that Go's own toolchain builds: a tenth off, logged,
// with state that must not outlive an evaluation.
package main

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"
)

var (
	buffer  []byte
	output  [32]byte
	counter int
	seen    = map[int]string{}
)

//go:wasmexport doorbuster_abi_v1
func marker() {}

//go:wasmexport rule_buffer
func ruleBuffer(size uint32) uint32 {
	buffer = make([]byte, size)
	return address(&buffer[0])
}

//go:wasmexport rule_evaluate
func evaluate(size uint32) uint64 {
	counter++
	seen[counter] = string(buffer[:size])
	subtotal := binary.LittleEndian.Uint64(buffer[24:])
	binary.LittleEndian.PutUint16(output[:], 1)
	binary.LittleEndian.PutUint64(output[8:], subtotal/10)
	fmt.Println("evaluation", counter, "of", len(seen), "at", time.Now().UnixMilli())
	return uint64(address(&output[0]))<<32 | uint64(len(output))
}

func address(b *byte) uint32 { return uint32(uintptr(unsafe.Pointer(b))) }

func main() {}
