package host

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
)

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
	switch {
	case module != "wasi_snapshot_preview1":
		return func(ctx context.Context, stack []uint64) {
			i := called(ctx)
			i.log.add(i.At(uint32(stack[0]), uint32(stack[1])))
			i.log.add(newline)
		}
	case name == "proc_exit":
		return func(ctx context.Context, _ []uint64) {
			called(ctx)
			panic(errExit)
		}
	}
	return func(ctx context.Context, stack []uint64) {
		SetErrno(stack, called(ctx).WASI(name, stack))
	}
}

// called returns the instance that calls an import, which has paid for the call.
func called(ctx context.Context) *instance {
	i := ctx.Value(instanceKey{}).(*instance)
	i.Pay(gas.CallUnits)
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

// At is Memory's.
func (i *instance) At(address, n uint32) []byte {
	b, _ := i.memory.Read(address, n)
	return b
}

// Mark is Memory's.
func (i *instance) Mark(address, n uint32) {
	pages, dirty := i.program.module.Pages, i.dirty()
	before := pages.Price(dirty)
	pages.Mark(&dirty, address, n)
	i.Pay(pages.Price(dirty) - before)
	i.setDirty(dirty)
}
