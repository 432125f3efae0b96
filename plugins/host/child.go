package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/tetratelabs/wazero"

	"github.com/doorbuster/doorbuster/plugins/gas"
)

// exitRefused is the exit code of a child whose module cannot be compiled. Every
// other code but 0 says that the child itself came to an end.
const exitRefused = 3

// CompileChild is the whole of a compiler's process (Config.Compiler). It limits
// itself, compiles the rewritten module that it reads from in, and returns the exit
// code. Its arguments are the folder for the code, the memory that it may take, in
// bytes, the processor time, in seconds, and its priority. What is wrong with the module
// goes to out.
//
// Nothing else may run in the process: its limits are for good.
func CompileChild(arguments []string, in io.Reader, out io.Writer) int {
	if len(arguments) != 4 {
		fmt.Fprintln(out, "want a folder, bytes, seconds and a priority")
		return 2
	}
	memory, err1 := strconv.ParseUint(arguments[1], 10, 64)
	seconds, err2 := strconv.ParseUint(arguments[2], 10, 64)
	err := errors.Join(err1, err2)
	if err == nil {
		err = limitChild(memory, seconds, priority(arguments[3]))
	}
	if err != nil {
		fmt.Fprintln(out, err)
		return 2
	}
	wasm, err := io.ReadAll(io.LimitReader(in, gas.RewrittenMax+1))
	if err != nil || len(wasm) > gas.RewrittenMax {
		fmt.Fprintln(out, "reading the module:", err, len(wasm))
		return 2
	}
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(arguments[0])
	if err != nil {
		fmt.Fprintln(out, err)
		return 2
	}
	r := wazero.NewRuntimeWithConfig(ctx, runtimeConfig(false, cache))
	if _, err := compileHere(ctx, r, wasm); err != nil {
		fmt.Fprint(out, err)
		return exitRefused
	}
	return 0
}

// limitChild sets the limits of this process. Memory counts from what it has
// already: a runtime's own, or what a race detector set aside.
func limitChild(memory, seconds uint64, p priority) error {
	data, err := dataBytes()
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(int64(memory - memory/4))
	for _, limit := range []struct {
		resource int
		value    uint64
	}{
		{syscall.RLIMIT_DATA, data + memory},
		{syscall.RLIMIT_CPU, seconds},
		{syscall.RLIMIT_FSIZE, CompiledMax},
		{syscall.RLIMIT_CORE, 0},
	} {
		// Soft and hard alike: Go's runtime lives through the signal of a soft limit.
		both := syscall.Rlimit{Cur: limit.value, Max: limit.value}
		err = errors.Join(err, syscall.Setrlimit(limit.resource, &both))
	}
	return errors.Join(err, p.take())
}

// dataBytes is the private memory that this process may write to.
func dataBytes() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if kilobytes, ok := strings.CutPrefix(line, "VmData:"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(kilobytes), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmData in /proc/self/status")
}
