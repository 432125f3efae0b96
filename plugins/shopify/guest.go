package shopify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/gas"
)

// What a function can ask of its host. Every answer is a function of the order.
// Work by size is paid for with the function's own fuel, and what an answer writes
// into memory is marked, so that reset finds it.

// answer is the host's half of an import: arguments and results are on the stack.
type answer func(*instance, []uint64)

// Types, as encoded.
const (
	i32 = "\x7f"
	i64 = "\x7e"
	f64 = "\x7c"
)

// imports are all functions that a function or a provider may import.
var imports = map[[2]string]gas.Signature{}

var answers = map[[2]string]answer{}

func init() {
	gas.Importable(func(module, name string, params, results []byte) {
		if module == wasiModule {
			offer(module, name, string(params), string(results), wasiAnswer(name))
		}
	})
	offerAPI()
}

func offer(module, name, params, results string, a answer) {
	key := [2]string{module, name}
	imports[key] = gas.Signature{Params: params, Results: results}
	answers[key] = a
}

// prefix stands before the names of the modules that functions import from, which
// share an engine with what rules import from.
const prefix = "shopify:"

// instantiateImports makes the modules that functions import from.
func instantiateImports(ctx context.Context, r wazero.Runtime) error {
	builders := map[string]wazero.HostModuleBuilder{}
	for key, signature := range imports {
		if builders[key[0]] == nil {
			builders[key[0]] = r.NewHostModuleBuilder(prefix + key[0])
		}
		a := answers[key]
		fn := api.GoFunc(func(ctx context.Context, stack []uint64) {
			i := ctx.Value(instanceKey{}).(*instance)
			i.pay(gas.CallUnits)
			a(i, stack)
		})
		builders[key[0]].NewFunctionBuilder().WithGoFunction(fn, []byte(signature.Params), []byte(signature.Results)).Export(key[1])
	}
	for name, builder := range builders {
		if _, err := builder.Instantiate(ctx); err != nil {
			return fmt.Errorf("shopify: imports of %s: %w", name, err)
		}
	}
	return nil
}

var (
	errFuel        = errors.New("out of fuel")
	errOutOfBounds = errors.New("a pointer is out of bounds")
	errNoText      = errors.New("a number is that of no text")
	errRegion      = errors.New("the provider's memory, of 1 MiB here, is full")
)

// pay takes fuel for what the host does while the function calls it, and ends the
// evaluation when there is not enough.
func (i *instance) pay(units uint64) {
	if i.take(units) < 0 {
		panic(errFuel)
	}
}

// take takes fuel and returns what is left. Below 0, the function's first
// instruction ends the evaluation.
func (i *instance) take(units uint64) int64 {
	left := int64(i.fuel.Get()) - int64(units)
	i.fuel.Set(uint64(left))
	return left
}

// bytesAt returns a range of the function's memory or of the region, or nil when
// it is out of bounds.
func (i *instance) bytesAt(address, n uint32) []byte {
	end := uint64(address) + uint64(n)
	if end > i.size.Get()<<wasmPageShift && (address < arena.RegionAt() || end > uint64(arena.RegionEnd())) {
		return nil
	}
	return i.memory[address:end:end]
}

// writable returns a range to write to, or nil, and pays for it and marks it as the
// function's own stores do. What is written there costs by its size besides.
func (i *instance) writable(address, n uint32) []byte {
	b := i.bytesAt(address, n)
	if b != nil {
		i.pay(i.mark(address, n))
	}
	return b
}

// mark marks a range and returns what putting it back costs.
func (i *instance) mark(address, n uint32) uint64 {
	return uint64(arena.Mark(i.memory, address, n)) * gas.ArenaPageUnits
}

// give writes the input into memory. A range that is out of bounds is an error.
func (i *instance) give(address uint32, b []byte) error {
	to := i.bytesAt(address, uint32(len(b)))
	if to == nil {
		return errOutOfBounds
	}
	i.take(i.mark(address, uint32(len(b))))
	copy(to, b)
	return nil
}

// read returns a range that the function passes to the host, which pays for it. One
// that is out of bounds traps.
func (i *instance) read(address, n uint64) []byte {
	b := i.bytesAt(uint32(address), uint32(n))
	if b == nil {
		panic(errOutOfBounds)
	}
	i.pay(uint64(uint32(n)) / gas.BytesPerUnit)
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

// guestLog keeps the last bytes that an evaluation logs, as Shopify does.
type guestLog struct {
	text    [LogBytesMax]byte
	n       int
	dropped int
}

func (l *guestLog) add(text []byte) {
	if over := len(text) - LogBytesMax; over > 0 {
		l.dropped += over
		text = text[over:]
	}
	if over := l.n + len(text) - LogBytesMax; over > 0 {
		l.dropped += over
		l.n = copy(l.text[:], l.text[over:l.n])
	}
	l.n += copy(l.text[l.n:], text)
}
