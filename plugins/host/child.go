package host

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/plugins/gas"
)

// exitRefused is the exit code of a child whose compiler gave up. One that has used up its
// processor time ends by SIGXCPU. Every other code, and every other signal, says that the
// child itself came to an end.
const exitRefused = 3

// frameSize is the bytes of a size, a uint32 in little-endian order. A policy and a module
// come to a child, each behind its size, and what is wrong with the module goes back behind
// its own: a gas.Error as JSON, or nothing.
const frameSize = 4

// policyMax bounds a policy, in bytes: the imports of one module, as JSON.
const policyMax = 4 << 20

// childNote is the file in a child's folder that becomes the note of a module.
const childNote = "note"

// CompileChild is the whole of a compiler's process (Config.Compiler). It limits itself,
// judges, rewrites and compiles the modules that it reads from in, one after the other, and
// answers each on out. It returns the exit code, 0 when no module comes for CompilerRest. Its
// arguments are the folder for the code, the memory that it may take, in bytes, the
// processor time, in seconds, and its priority. Its limits are for all the modules
// together, so what it does not survive is only the module's fault if that was the first.
//
// Nothing else may run in the process: its limits are for good.
func CompileChild(arguments []string, in, out *os.File) int {
	if len(arguments) != 4 {
		return fails("want a folder, bytes, seconds and a priority")
	}
	memory, err1 := strconv.ParseUint(arguments[1], 10, 64)
	seconds, err2 := strconv.ParseUint(arguments[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return fails(err)
	}
	data, err := dataBytes()
	if err != nil {
		return fails(err)
	}
	// Memory counts from what the process has already: a runtime's own, or what a race
	// detector set aside.
	if err := limitChild(data+memory, seconds, priority(arguments[3])); err != nil {
		return fails(err)
	}
	debug.SetMemoryLimit(int64(memory - memory/4))
	for used := false; anotherComes(in, CompilerRest); used = true {
		policy, wasm, err := readModule(in)
		if err != nil {
			return fails(err)
		}
		module, fault := policy.Rewrite(wasm)
		if module != nil {
			if used && module.Size > goesOnMax {
				break // its sender begins another process
			}
			fault, err = compileInto(arguments[0], module, cacheKey(policy.Encode(), wasm))
		}
		if errors.Is(fault, errGaveUp) {
			fmt.Fprint(os.Stderr, fault)
			return exitRefused
		}
		if err == nil {
			err = answer(out, fault)
		}
		if err == nil {
			err = limit(syscall.RLIMIT_CPU, min(seconds, compilerCPU), seconds+1)
		}
		if err != nil {
			return fails(err)
		}
		if keepsMore(data + memory/keptPart) {
			break
		}
	}
	return 0
}

// fails is the exit code of a child that cannot do its work, and says why.
func fails(why any) int {
	fmt.Fprintln(os.Stderr, why)
	return 2
}

// anotherComes says whether a module comes within so long, before the sender's end.
func anotherComes(in *os.File, within time.Duration) bool {
	wait := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(wait, int(within.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && wait[0].Revents&unix.POLLIN != 0
		}
	}
}

// keepsMore says whether this process has more private memory than so many bytes.
func keepsMore(bytes uint64) bool {
	now, err := dataBytes()
	return err != nil || now > bytes
}

func readModule(in io.Reader) (*gas.Policy, []byte, error) {
	encoded, err := readFrame(in, policyMax)
	if err != nil {
		return nil, nil, err
	}
	policy, err := gas.DecodePolicy(encoded)
	if err != nil {
		return nil, nil, err
	}
	wasm, err := readFrame(in, math.MaxUint32) // gas has a bound, and says so
	return policy, wasm, err
}

// readFrame reads what comes behind its size.
func readFrame(in io.Reader, most uint32) ([]byte, error) {
	var size [frameSize]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return nil, fmt.Errorf("reading a size: %w", err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > most {
		return nil, fmt.Errorf("%d bytes come, at most %d", n, most)
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(in, frame)
	return frame, err
}

// answer says what is wrong with a module.
func answer(out io.Writer, fault error) (err error) {
	var said []byte
	var faults *gas.Error
	switch {
	case errors.As(fault, &faults):
		if said, err = json.Marshal(faults); err != nil {
			return err
		}
	case fault != nil:
		return fault
	}
	_, err = out.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(said))), said...))
	return err
}

// compileInto leaves a module's code and its note in the folder. fault is what is wrong with
// the module. wazero gives the file of code the name that it looks for when it loads the
// module's shell: nobody but wazero knows that name, so it compiles the shell too.
func compileInto(folder string, module *gas.Module, key string) (fault, err error) {
	shell, err := module.Shell(key)
	if err != nil {
		return nil, err
	}
	parts := [...][]byte{module.Wasm, shell}
	var made [len(parts)]string
	for i, wasm := range parts {
		own := filepath.Join(folder, strconv.Itoa(i))
		if err := os.RemoveAll(own); err != nil {
			return nil, err
		}
		if fault, err := compileOne(own, wasm); fault != nil || err != nil {
			return fault, errors.Join(err, os.RemoveAll(own))
		}
		files, err := filepath.Glob(filepath.Join(own, "wazero-*", "*"))
		if err != nil || len(files) != 1 {
			return nil, errors.Join(err, fmt.Errorf("compiling made %d files", len(files)))
		}
		made[i] = files[0]
	}
	name, err := filepath.Rel(filepath.Join(folder, "1"), made[1])
	if err != nil {
		return nil, err
	}
	place := filepath.Join(folder, name)
	return nil, errors.Join(
		os.MkdirAll(filepath.Dir(place), 0o700),
		os.Rename(made[0], place),
		writeNote(filepath.Join(folder, childNote), name, place, module.Encode(), shell),
		os.RemoveAll(filepath.Join(folder, "0")),
		os.RemoveAll(filepath.Join(folder, "1")),
	)
}

// compileOne leaves the code of one module in a folder.
func compileOne(folder string, wasm []byte) (fault, err error) {
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(folder)
	if err != nil {
		return nil, err
	}
	r := wazero.NewRuntimeWithConfig(ctx, runtimeConfig(false, cache))
	_, fault = compileModule(ctx, r, wasm)
	for _, disk := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS} {
		if errors.Is(fault, disk) {
			fault, err = nil, fault // which is not the module's
		}
	}
	if fault != nil && !errors.Is(fault, errGaveUp) {
		reason := fault.Error()
		fault = refused("code", "%q", reason[:min(len(reason), reportMax)])
	}
	return fault, errors.Join(err, r.Close(ctx), cache.Close(ctx))
}

// limitChild sets the limits of this process. Processor time has a soft limit, whose
// signal says why the process ended: how much was used tells nobody, because the system
// counts it by ticks for the limit, and otherwise exactly.
func limitChild(data, seconds uint64, p priority) error {
	return errors.Join(
		endBy(syscall.SIGXCPU),
		limit(syscall.RLIMIT_DATA, data, data),
		limit(syscall.RLIMIT_CPU, seconds, seconds+1),
		limit(syscall.RLIMIT_FSIZE, CompiledMax, CompiledMax),
		limit(syscall.RLIMIT_CORE, 0, 0),
		p.take(),
	)
}

func limit(resource int, soft, hard uint64) error {
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: soft, Max: hard})
}

// endBy has a signal end this process, which Go's runtime would live through. To be told
// of it by os/signal takes another thread, for which there may be no memory.
func endBy(s syscall.Signal) error {
	// A struct sigaction without handler, flags and mask.
	var byDefault [8]uint64
	//nolint:gosec // the kernel reads it
	_, _, err := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
	if err != 0 {
		return err
	}
	return nil
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
