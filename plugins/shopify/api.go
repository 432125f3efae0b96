package shopify

import (
	"encoding/binary"
	"math"
)

// The Shopify Function API. A module imports it under the names that its compiler
// leaves, with pointers into its own memory, or trampolined, under those that
// Shopify's build tool puts in their place: there, what passes is a pointer into a
// provider's memory, to and from which the module copies. That memory is the arena's
// region here, and a pointer into it an address of the function's own memory.
//
// Version 1 has a context as the first argument of everything, and a call that makes
// it and one that ends the output. The context is always 1: there is one.
const (
	apiV1     = "shopify_function_v1"
	apiV2     = "shopify_function_v2"
	apiPrefix = "shopify_function_"
)

// apiFunctions are the API's functions as version 2 has them.
var apiFunctions = []struct {
	name, params, results string
	answer                answer
}{
	{"input_get", "", i64, func(i *instance, stack []uint64) { stack[0] = i.input.box(0) }},
	{"input_get_val_len", i64, i32, func(i *instance, stack []uint64) { stack[0] = uint64(i.input.length(stack[0])) }},
	{"input_get_obj_prop", i64 + i32 + i32, i64, (*instance).inputProperty},
	{"input_get_interned_obj_prop", i64 + i32, i64, (*instance).inputInterned},
	{"input_get_at_index", i64 + i32, i64, func(i *instance, stack []uint64) { i.inputElement(stack, false) }},
	{"input_get_obj_key_at_index", i64 + i32, i64, func(i *instance, stack []uint64) { i.inputElement(stack, true) }},
	{"output_new_bool", i32, i32, (*instance).outputBool},
	{"output_new_null", "", i32, (*instance).outputNull},
	{"output_new_i32", i32, i32, func(i *instance, stack []uint64) { i.outputNumber(stack, float64(int32(uint32(stack[0])))) }},
	{"output_new_f64", f64, i32, func(i *instance, stack []uint64) { i.outputNumber(stack, math.Float64frombits(stack[0])) }},
	{"output_new_interned_utf8_str", i32, i32, (*instance).outputInterned},
	{"output_new_object", i32, i32, func(i *instance, stack []uint64) { i.outputBegin(stack, object) }},
	{"output_finish_object", "", i32, func(i *instance, stack []uint64) { stack[0] = uint64(i.output.finish(object)) }},
	{"output_new_array", i32, i32, func(i *instance, stack []uint64) { i.outputBegin(stack, array) }},
	{"output_finish_array", "", i32, func(i *instance, stack []uint64) { stack[0] = uint64(i.output.finish(array)) }},
}

// apiPointers are those with pointers into the function's own memory, and
// apiTrampolines what stands for them when they were replaced.
var apiPointers = []struct {
	name, params, results string
	answer                answer
}{
	{"input_read_utf8_str", i32 + i32 + i32, "", (*instance).inputRead},
	{"output_new_utf8_str", i32 + i32, i32, (*instance).outputText},
	{"intern_utf8_str", i32 + i32, i32, (*instance).intern},
	{"log_new_utf8_str", i32 + i32, "", (*instance).logText},
}

var apiTrampolines = []struct {
	name, params, results string
	answer                answer
}{
	{"input_get_utf8_str_addr", i32, i32, (*instance).inputAddress},
	{"output_new_utf8_str", i32, i64, (*instance).outputRoom},
	{"intern_utf8_str", i32, i64, (*instance).internRoom},
	{"log_new_utf8_str", i32, i32, (*instance).logRoom},
}

func offerAPI() {
	for _, f := range apiFunctions {
		for _, inner := range []string{"", "_"} {
			offer(apiV2, inner+apiPrefix+f.name, f.params, f.results, f.answer)
			offer(apiV1, inner+apiPrefix+f.name, i32+f.params, f.results, withContext(f.answer))
		}
	}
	for _, f := range apiPointers {
		offer(apiV2, apiPrefix+f.name, f.params, f.results, f.answer)
		offer(apiV1, apiPrefix+f.name, i32+f.params, f.results, withContext(f.answer))
	}
	for _, f := range apiTrampolines {
		offer(apiV2, "_"+apiPrefix+f.name, f.params, f.results, f.answer)
		offer(apiV1, "_"+apiPrefix+f.name, i32+f.params, f.results, withContext(f.answer))
	}
	offer(apiV2, "_"+apiPrefix+"alloc", i32, i32, func(i *instance, stack []uint64) { stack[0] = uint64(i.room(uint32(stack[0]))) })
	offer(apiV1, apiPrefix+"realloc", i32+i32+i32+i32, i32, func(i *instance, stack []uint64) { stack[0] = uint64(i.room(uint32(stack[3]))) })
	for _, inner := range []string{"", "_"} {
		offer(apiV1, inner+apiPrefix+"context_new", "", i32, func(_ *instance, stack []uint64) { stack[0] = 1 })
		offer(apiV1, inner+apiPrefix+"output_finalize", i32, i32, (*instance).outputFinalize)
	}
}

// withContext is an answer behind a context, which it drops.
func withContext(a answer) answer {
	return func(i *instance, stack []uint64) {
		copy(i.arguments[:], stack[1:])
		a(i, i.arguments[:])
		stack[0] = i.arguments[0]
	}
}

// apiState is what one evaluation has put into the region and given numbers to.
type apiState struct {
	next      uint32 // free place of the region
	interned  []span
	pending   []pending
	finalised bool
}

type span struct{ address, n uint32 }

// pending is a text whose bytes the function copies into the region after the host
// said where to.
type pending struct {
	span
	node int // of the output, -1: the log
}

func (s *apiState) reset() {
	s.next, s.finalised = arena.RegionAt(), false
	s.interned, s.pending = s.interned[:0], s.pending[:0]
}

// offer makes the input ready. A trampolined function copies its texts from the
// region.
func (s *apiState) offer(i *instance) error {
	s.reset()
	if i.program.trampolined {
		return i.give(i.room(uint32(len(i.input.text))), i.input.text)
	}
	return nil
}

// collect returns the output. What was never finished is none.
func (s *apiState) collect(i *instance) (*document, error) {
	if !i.output.done {
		return nil, badOutput("the function wrote no output, or did not finish it")
	}
	if i.program.usesContext && !s.finalised {
		return nil, badOutput("the function did not finalise its output")
	}
	return &i.output.d, nil
}

// settle takes the texts that the function copied into the region.
func (s *apiState) settle(i *instance) {
	for _, p := range s.pending {
		text := i.memory[p.address : p.address+p.n]
		if p.node < 0 {
			i.log.add(text)
		} else {
			copy(i.output.d.str(p.node), text)
		}
	}
}

// room takes bytes of the region. A function that needs more than there are traps.
func (i *instance) room(n uint32) uint32 {
	s := &i.api
	if n > arena.RegionEnd()-s.next {
		panic(errRegion)
	}
	s.next += n
	return s.next - n
}

func (i *instance) inputProperty(stack []uint64) {
	i.lookUp(stack, i.read(stack[1], stack[2]))
}

// unitsPerStep is what one step of a search through the input costs.
const unitsPerStep = 8

func (i *instance) lookUp(stack []uint64, name []byte) {
	before := i.input.steps
	stack[0] = i.input.property(stack[0], name)
	i.Pay((i.input.steps - before) * unitsPerStep)
}

func (i *instance) inputInterned(stack []uint64) {
	i.lookUp(stack, i.internedText(stack[1]))
}

func (i *instance) inputElement(stack []uint64, keys bool) {
	before := i.input.steps
	stack[0] = i.input.element(stack[0], uint32(stack[1]), keys)
	i.Pay((i.input.steps - before) * unitsPerStep)
}

// inputRead copies a text, which the place in its value names, or as much of it as
// the function wants.
func (i *instance) inputRead(stack []uint64) {
	text := i.inputText(uint32(stack[0]))
	address, n := uint32(stack[1]), uint32(stack[2])
	if i.At(address, n) == nil {
		panic(errOutOfBounds)
	}
	n = min(n, uint32(len(text)))
	i.payText(n)
	copy(i.Writable(address, n), text)
}

func (i *instance) inputText(place uint32) []byte {
	at := i.input.unboxed(place)
	if at < 0 || i.input.nodes[at].kind != text {
		panic(errNoText)
	}
	return i.input.str(at)
}

func (i *instance) inputAddress(stack []uint64) {
	i.inputText(uint32(stack[0]))
	stack[0] = uint64(arena.RegionAt() + i.input.nodes[uint32(stack[0])-1].at)
}

func (i *instance) outputBool(stack []uint64) {
	result := i.output.scalar(false, 1)
	if result == writeOK {
		i.output.d.bool(uint32(stack[0]) != 0)
	}
	i.written(stack, result)
}

func (i *instance) outputNull(stack []uint64) {
	result := i.output.scalar(false, 1)
	if result == writeOK {
		i.output.d.null()
	}
	i.written(stack, result)
}

func (i *instance) outputNumber(stack []uint64, v float64) {
	var b [9]byte
	result := i.output.scalar(false, len(appendMessagePackNumber(b[:0], v)))
	if result == writeOK {
		i.output.d.number(v)
	}
	i.written(stack, result)
}

func (i *instance) outputBegin(stack []uint64, k kind) {
	i.written(stack, i.output.begin(k, uint32(stack[0])))
}

func (i *instance) outputInterned(stack []uint64) {
	i.writeText(stack, i.internedText(stack[0]))
}

func (i *instance) outputText(stack []uint64) {
	i.writeText(stack, i.read(stack[0], stack[1]))
}

func (i *instance) writeText(stack []uint64, s []byte) {
	result := i.output.scalar(true, textBytes(len(s)))
	if result == writeOK && i.output.bytes <= OutputBytesMax {
		i.output.d.bytes(s)
	}
	i.written(stack, result)
}

func textBytes(n int) int {
	var b [5]byte
	return n + len(appendLength(b[:0], uint32(n), 0, 31, mpStr8, true))
}

// outputRoom says where in the region the function is to copy a text. When the text
// cannot come here it copies all the same.
func (i *instance) outputRoom(stack []uint64) {
	n := uint32(stack[0])
	result := i.output.scalar(true, textBytes(int(n)))
	i.written(stack, result)
	place := i.room(n)
	if result == writeOK {
		at := len(i.output.d.nodes)
		i.output.d.add(node{kind: text, n: n, at: uint32(len(i.output.d.text))})
		i.output.d.text = append(i.output.d.text, make([]byte, n)...)
		i.api.pending = append(i.api.pending, pending{span{place, n}, at})
	}
	stack[0] = uint64(result)<<32 | uint64(place)
}

// written ends a call that wrote: too much ends the evaluation.
func (i *instance) written(stack []uint64, result uint32) {
	if i.output.bytes > OutputBytesMax {
		panic(errOutputSize)
	}
	stack[0] = uint64(result)
}

func (i *instance) outputFinalize(stack []uint64) {
	result := uint64(writeNotFinished)
	if i.output.done {
		result, i.api.finalised = writeOK, true
	}
	stack[0] = result
}

// intern keeps a text under a new number, in the region.
func (i *instance) intern(stack []uint64) {
	s := i.read(stack[0], stack[1])
	place := i.room(uint32(len(s)))
	copy(i.Writable(place, uint32(len(s))), s)
	stack[0] = i.keep(place, uint32(len(s)))
}

func (i *instance) internRoom(stack []uint64) {
	n := uint32(stack[0])
	place := i.room(n)
	stack[0] = i.keep(place, n)<<32 | uint64(place)
}

func (i *instance) keep(address, n uint32) uint64 {
	s := &i.api
	s.interned = append(s.interned, span{address, n})
	return uint64(len(s.interned) - 1)
}

func (i *instance) internedText(id uint64) []byte {
	if id = uint64(uint32(id)); id >= uint64(len(i.api.interned)) {
		panic(errNoText)
	}
	s := i.api.interned[id]
	return i.read(uint64(s.address), uint64(s.n))
}

func (i *instance) logText(stack []uint64) { i.log.add(i.read(stack[0], stack[1])) }

// logRoom says where the function is to copy the end of a text: five numbers, the
// bytes to leave out, and the places and lengths of two parts.
func (i *instance) logRoom(stack []uint64) {
	n := uint32(stack[0])
	kept := min(n, LogBytesMax)
	i.log.dropped += int(n - kept)
	numbers, place := i.room(20), i.room(kept)
	b := i.Writable(numbers, 20)
	for k, v := range []uint32{n - kept, place, kept, place, 0} {
		binary.LittleEndian.PutUint32(b[4*k:], v)
	}
	i.api.pending = append(i.api.pending, pending{span{place, kept}, -1})
	stack[0] = uint64(numbers)
}
