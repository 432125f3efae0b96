package host

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
)

// What a module can ask of its host. Every answer is a function of the
// evaluation's input. Work by size is paid for with the module's own fuel, and
// what an answer writes into memory is marked, so that reset finds it.

// WASI's error numbers.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoFault   = 21
	errnoInval   = 28
	errnoNosys   = 52
)

// wasiAnswers are the WASI functions that do something. All the others that a
// module may import answer errnoNosys, or errnoBadf where Go's and Rust's start
// code ends its search for open folders with it.
var wasiAnswers = map[string]func(*instance, []uint64) uint32{
	"args_sizes_get":      (*instance).noStrings,
	"args_get":            (*instance).succeed,
	"environ_sizes_get":   (*instance).noStrings,
	"environ_get":         (*instance).succeed,
	"clock_res_get":       (*instance).clockResolution,
	"clock_time_get":      (*instance).clockTime,
	"random_get":          (*instance).randomGet,
	"sched_yield":         (*instance).succeed,
	"poll_oneoff":         (*instance).poll,
	"proc_exit":           (*instance).exit,
	"fd_write":            (*instance).fdWrite,
	"fd_fdstat_get":       (*instance).fdStat,
	"fd_fdstat_set_flags": (*instance).succeed,
	"fd_prestat_get":      (*instance).badDescriptor,
	"fd_prestat_dir_name": (*instance).badDescriptor,
	"fd_close":            (*instance).badDescriptor,
	"fd_read":             (*instance).badDescriptor,
	"fd_seek":             (*instance).badDescriptor,
}

// instantiateImports makes the modules that guests import from.
func instantiateImports(ctx context.Context, r wazero.Runtime) error {
	modules := map[string]wazero.HostModuleBuilder{}
	gas.Importable(func(module, name string, params, results []byte) {
		builder, ok := modules[module]
		if !ok {
			builder = r.NewHostModuleBuilder(module)
			modules[module] = builder
		}
		builder.NewFunctionBuilder().WithGoFunction(importFunc(module, name), params, results).Export(name)
	})
	for name, builder := range modules {
		if _, err := builder.Instantiate(ctx); err != nil {
			return fmt.Errorf("host: imports of %s: %w", name, err)
		}
	}
	return nil
}

// importFunc returns the host's half of one import.
func importFunc(module, name string) api.GoFunc {
	if module != "wasi_snapshot_preview1" {
		return func(ctx context.Context, stack []uint64) {
			i := called(ctx)
			i.log.add(i.bytesAt(uint32(stack[0]), uint32(stack[1])))
			i.log.add(newline)
		}
	}
	answer, ok := wasiAnswers[name]
	if !ok {
		answer = (*instance).unsupported
	}
	return func(ctx context.Context, stack []uint64) {
		errno := answer(called(ctx), stack)
		if len(stack) > 0 { // sched_yield and proc_exit too have room for one
			stack[0] = uint64(errno)
		}
	}
}

// called returns the instance that calls an import, which has paid for the call.
func called(ctx context.Context) *instance {
	i := ctx.Value(instanceKey{}).(*instance)
	i.pay(gas.CallUnits)
	return i
}

// guestLog keeps the first bytes that an evaluation logs.
type guestLog struct {
	text    [abi.LogBytesMax]byte
	n       int
	dropped int
}

var newline = []byte{'\n'}

func (l *guestLog) add(text []byte) {
	kept := copy(l.text[l.n:], text)
	l.n += kept
	l.dropped += len(text) - kept
}

// pay takes fuel for what the host does, and ends the evaluation when there is
// not enough.
func (i *instance) pay(units uint64) {
	left := int64(i.fuel.Get()) - int64(units)
	i.fuel.Set(uint64(left))
	if left < 0 {
		panic(errOutOfFuel)
	}
}

// bytesAt returns a range of memory, or nil when it is out of bounds.
func (i *instance) bytesAt(address, n uint32) []byte {
	b, _ := i.memory.Read(address, n)
	return b
}

// writable returns a range of memory to write to, or nil when it is out of
// bounds, and pays for it and marks it as the module's own stores do.
func (i *instance) writable(address, n uint32) []byte {
	b := i.bytesAt(address, n)
	if b != nil {
		pages, dirty := i.program.module.Pages, i.dirty()
		before := pages.Price(dirty)
		pages.Mark(&dirty, address, n)
		i.pay(pages.Price(dirty) - before)
		i.setDirty(dirty)
	}
	return b
}

func (i *instance) put32(address, v uint32) uint32 {
	b := i.writable(address, 4)
	if b == nil {
		return errnoFault
	}
	binary.LittleEndian.PutUint32(b, v)
	return errnoSuccess
}

func (i *instance) put64(address uint32, v uint64) uint32 {
	b := i.writable(address, 8)
	if b == nil {
		return errnoFault
	}
	binary.LittleEndian.PutUint64(b, v)
	return errnoSuccess
}

func (i *instance) succeed([]uint64) uint32 { return errnoSuccess }

func (i *instance) unsupported([]uint64) uint32 { return errnoNosys }

func (i *instance) badDescriptor([]uint64) uint32 { return errnoBadf }

func (i *instance) exit([]uint64) uint32 { panic(errExit) }

// noStrings: no arguments, no environment.
func (i *instance) noStrings(stack []uint64) uint32 {
	if errno := i.put32(uint32(stack[0]), 0); errno != errnoSuccess {
		return errno
	}
	return i.put32(uint32(stack[1]), 0)
}

// clockTime: every clock stands at the order's stamp.
func (i *instance) clockTime(stack []uint64) uint32 {
	return i.put64(uint32(stack[2]), uint64(i.now)*1_000_000)
}

func (i *instance) clockResolution(stack []uint64) uint32 {
	return i.put64(uint32(stack[1]), 1_000_000)
}

// randomGet writes the next bytes of a fixed stream (splitmix64).
func (i *instance) randomGet(stack []uint64) uint32 {
	n := uint32(stack[1])
	i.pay(uint64(n))
	b := i.writable(uint32(stack[0]), n)
	if b == nil {
		return errnoFault
	}
	var word [8]byte
	for len(b) > 0 {
		i.random += 0x9e3779b97f4a7c15
		z := i.random
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		b = b[copy(b, word[:]):]
	}
	return errnoSuccess
}

// Layout of WASI's structures.
const (
	iovecBytes        = 8
	subscriptionBytes = 48
	eventBytes        = 32
	fdstatBytes       = 24
	filetypeCharacter = 2
	rightWrite        = 1 << 6
)

// fdWrite: descriptors 1 and 2 are the log.
func (i *instance) fdWrite(stack []uint64) uint32 {
	fd, iovs, n := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
	if fd != 1 && fd != 2 {
		return errnoBadf
	}
	i.pay(uint64(n))
	if uint64(n)*iovecBytes > uint64(i.memory.Size()) {
		return errnoFault
	}
	written := uint32(0)
	vectors := i.bytesAt(iovs, n*iovecBytes)
	if vectors == nil {
		return errnoFault
	}
	for ; len(vectors) > 0; vectors = vectors[iovecBytes:] {
		address, size := binary.LittleEndian.Uint32(vectors), binary.LittleEndian.Uint32(vectors[4:])
		text := i.bytesAt(address, size)
		if text == nil {
			return errnoFault
		}
		i.log.add(text)
		written += size
	}
	return i.put32(uint32(stack[3]), written)
}

// fdStat: descriptors 0, 1 and 2 are a terminal's.
func (i *instance) fdStat(stack []uint64) uint32 {
	if uint32(stack[0]) > 2 {
		return errnoBadf
	}
	b := i.writable(uint32(stack[1]), fdstatBytes)
	if b == nil {
		return errnoFault
	}
	clear(b)
	b[0] = filetypeCharacter
	binary.LittleEndian.PutUint64(b[8:], rightWrite)
	return errnoSuccess
}

// poll: every subscription is ready at once, since no time passes in an
// evaluation and nothing can be read. An event repeats its subscription's user
// data and kind.
func (i *instance) poll(stack []uint64) uint32 {
	in, out, n := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
	if n == 0 {
		return errnoInval
	}
	i.pay(uint64(n) * eventBytes)
	if uint64(n)*subscriptionBytes > uint64(i.memory.Size()) {
		return errnoFault
	}
	subscriptions, events := i.bytesAt(in, n*subscriptionBytes), i.writable(out, n*eventBytes)
	if subscriptions == nil || events == nil {
		return errnoFault
	}
	for range n {
		clear(events[:eventBytes])
		copy(events[:8], subscriptions[:8]) // user data
		events[10] = subscriptions[8]       // kind
		subscriptions, events = subscriptions[subscriptionBytes:], events[eventBytes:]
	}
	return i.put32(uint32(stack[3]), n)
}
