package shopify

import (
	"context"
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
			i.Pay(gas.CallUnits)
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
	errOutOfBounds = errors.New("a pointer is out of bounds")
	errNoText      = errors.New("a number is that of no text")
	errWild        = errors.New("a store beyond the memory that the function has")
	errRegion      = errors.New("the provider's memory, of 1 MiB here, is full")
)

// At is host.Memory's: a range of the function's memory or of the region.
func (i *instance) At(address, n uint32) []byte {
	end := uint64(address) + uint64(n)
	if end > i.size.Get()<<wasmPageShift && (address < arena.RegionAt() || end > uint64(arena.RegionEnd())) {
		return nil
	}
	return i.memory[address:end:end]
}

// Mark is host.Memory's.
func (i *instance) Mark(address, n uint32) { arena.Mark(i.memory, address, n) }

// payMarks pays for putting back what the evaluation wrote, and says whether all of it was
// written to memory that the function had asked for.
func (i *instance) payMarks() error {
	pages, allowed := arena.Marked(i.memory, uint32(i.size.Get()))
	switch left := i.Take(uint64(pages) * gas.ArenaPageUnits); {
	case left < 0:
		return errInstructions
	case !allowed:
		return errWild
	}
	return nil
}

// payText pays for n bytes that are copied.
func (i *instance) payText(n uint32) { i.Pay(uint64(n) / gas.BytesPerUnit) }

// give writes the input into memory. A range that is out of bounds is an error.
func (i *instance) give(address uint32, b []byte) error {
	to := i.At(address, uint32(len(b)))
	if to == nil {
		return errOutOfBounds
	}
	i.Mark(address, uint32(len(b)))
	copy(to, b)
	return nil
}

// read returns a range that the function passes to the host, which pays for it. One
// that is out of bounds traps.
func (i *instance) read(address, n uint64) []byte {
	b := i.At(uint32(address), uint32(n))
	if b == nil {
		panic(errOutOfBounds)
	}
	i.payText(uint32(n))
	return b
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
