package doorbuster

import (
	"encoding/binary"
	"unsafe"
)

// What the module exports. The memory that an evaluation needs is here before
// the first one: growing it later would cost each evaluation a new instance.
var (
	buffer [inputBytesMax]byte
	answer [outputBytes]byte
	input  = Input{
		Codes:          make([]string, 0, 16),
		Attributes:     make(Attributes, 0, 16),
		DealAttributes: make(Attributes, 0, 16),
	}
)

//go:wasmexport doorbuster_abi_v1
func abiV1() {}

//go:wasmexport rule_buffer
func ruleBuffer(size uint32) uint32 {
	if registered == nil || size > inputBytesMax {
		panic("doorbuster: no rule is registered, or the host is of another age")
	}
	rehearse()
	return uint32(uintptr(unsafe.Pointer(&buffer)))
}

//go:wasmexport rule_evaluate
func ruleEvaluate(size uint32) uint64 {
	defer trap()
	input.Decode(buffer[:size])
	out := registered(&input)
	le := binary.LittleEndian
	le.PutUint16(answer[0:], uint16(out.Outcome))
	if out.Final {
		le.PutUint16(answer[2:], 1)
	}
	le.PutUint64(answer[8:], uint64(out.Discount))
	putText(answer[16:], out.Label)
	putText(answer[24:], out.Reason)
	return uint64(uintptr(unsafe.Pointer(&answer)))<<32 | outputBytes
}

func putText(at []byte, s string) {
	binary.LittleEndian.PutUint32(at, uint32(uintptr(unsafe.Pointer(unsafe.StringData(s)))))
	binary.LittleEndian.PutUint32(at[4:], uint32(len(s)))
}

// trap ends an evaluation that panics, with the panic in its log. Go's runtime would print
// the goroutine's stack too, which takes more fuel than a rule has.
func trap() {
	cause := recover()
	if cause == nil {
		return
	}
	switch cause := cause.(type) {
	case string:
		println("panic:", cause)
	case error:
		println("panic:", cause.Error())
	default:
		println("panic: with neither a text nor an error")
	}
	exit(panicked)
}

//go:wasmimport wasi_snapshot_preview1 proc_exit
func exit(code uint32)

const panicked = 2 // as Go's runtime exits

// rehearse panics while there is fuel enough: what Go's runtime allocates at its first
// panic would be the end of an evaluation.
func rehearse() {
	defer func() { message = recover().(error).Error() }()
	_ = buffer[inputBytesMax+len(message)]
}

var message string // of the rehearsal; escapes, as a panic's does
