//go:build owncheck

package own

import (
	"fmt"
	"reflect"
	"runtime/debug"
	"sync"
	"unsafe"
)

// checked says whether misuse is traced and freed objects are poisoned.
const checked = true

const (
	poisonByte = 0xdb
	poisonText = "own: read after Put"
)

// trace is where a Put was made.
type trace struct {
	mu    sync.Mutex // guards stack: the misuse that reads it races with its owner
	stack string
}

func (t *trace) record() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stack = string(debug.Stack())
}

func (t *trace) report() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("\nthis call:\n%s\nlast Put:\n%s", debug.Stack(), t.stack)
}

// poison overwrites the numbers, texts and buffers of x, to the full capacity
// of its byte slices, so that a late reader gets nonsense at once and the race
// detector sees it. Pointers, maps, channels and functions stay as they are.
func poison[T any](x *T) {
	leaves(reflect.ValueOf(x).Elem(), func(v reflect.Value) {
		if v.Kind() == reflect.String {
			v.SetString(poisonText)
			return
		}
		for i := range memory(v) {
			memory(v)[i] = poisonByte
		}
	})
}

// unpoison panics if anybody has written to x since it was poisoned, then
// makes it fit for use again.
func unpoison[T any](x *T, c *Cell, reset func(*T)) {
	leaves(reflect.ValueOf(x).Elem(), func(v reflect.Value) {
		if !isPoison(v) {
			panic(fmt.Sprintf("own: seat %d was written to after its Put%s", c.seat, c.freed.report()))
		}
	})
	reset(x)
}

func isPoison(v reflect.Value) bool {
	if v.Kind() == reflect.String {
		return v.String() == poisonText
	}
	for _, b := range memory(v) {
		if b != poisonByte {
			return false
		}
	}
	return true
}

var cellType = reflect.TypeFor[Cell]()

// leaves visits the numbers, strings and byte slices inside v, each settable
// even in an unexported field; a byte slice is cut to its full capacity.
func leaves(v reflect.Value, visit func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			if f.Type() != cellType {
				leaves(reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem(), visit)
			}
		}
	case reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			visit(v.Slice(0, v.Len()))
			return
		}
		for i := range v.Len() {
			leaves(v.Index(i), visit)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			visit(v.Slice(0, v.Cap()))
		}
	case reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		visit(v)
	}
}

// memory is the bytes of a number, or those behind a byte slice.
func memory(v reflect.Value) []byte {
	if v.Kind() == reflect.Slice {
		return v.Bytes()
	}
	return unsafe.Slice((*byte)(v.Addr().UnsafePointer()), v.Type().Size())
}
