package host_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/host"
)

const (
	// compileRule makes this binary a compiler, as the server's own hidden command does.
	compileRule = "compile-rule"
	// compileBoxed makes it one in a sandbox.
	compileBoxed = "compile-rule-boxed"
	// compileOnce makes it one that dies of its second module.
	compileOnce = "compile-rule-once"
	// takeIdle makes it a process that does nothing but become idle.
	takeIdle = "take-idle"
)

func init() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case compileBoxed:
		runtime.LockOSThread() // no_new_privs is a thread's, and TSYNC the others'
		if err := noSchedSetattr(); err != nil {
			panic(err)
		}
		runtime.UnlockOSThread()
	case takeIdle:
		if err := host.TakeIdle(); err != nil {
			panic(err)
		}
		fmt.Println()
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	case compileOnce:
		os.Exit(host.CompileChild(os.Args[2:], firstModule(), os.Stdout))
	case compileRule:
	default:
		return
	}
	os.Exit(host.CompileChild(os.Args[2:], os.Stdin, os.Stdout))
}

// firstModule passes on the first module that comes. With the next the process dies.
func firstModule() *os.File {
	in, modules, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	go func() {
		size := make([]byte, 4)
		var err error
		for range 2 { // a policy, and the module
			if err == nil {
				_, err = io.ReadFull(os.Stdin, size)
			}
			if err == nil {
				_, err = modules.Write(size)
			}
			if err == nil {
				_, err = io.CopyN(modules, os.Stdin, int64(binary.LittleEndian.Uint32(size)))
			}
		}
		if err == nil {
			_, err = io.ReadFull(os.Stdin, size)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(7)
	}()
	return in
}

// withChild is an engine's configuration whose compiler is a process.
func withChild(cache string) host.Config {
	return host.Config{Instances: 1, Compiler: []string{"/proc/self/exe", compileRule}, Cache: cache}
}

// files returns what a folder holds, at any depth.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func discountOf(t *testing.T, p *host.Program) int64 {
	t.Helper()
	v, trace := evaluate(p, order)
	if v.Fault != abi.FaultNone {
		t.Fatal(v.Fault, trace.Err)
	}
	return v.Discount
}

// TestChildCompiles: a child compiles once; afterwards its code is loaded, as long
// as it is there and whole.
func TestChildCompiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "left-by-another-version"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rule := gastest.Rule(discount("i64.const 990")).Encode()
	t.Chdir(filepath.Dir(dir)) // a relative folder does as well
	if got := discountOf(t, compile(t, withChild(filepath.Base(dir)), rule)); got != 990 {
		t.Fatal(got)
	}
	made := files(t, dir)
	if len(made) != 2 { // the code and the note
		t.Fatalf("%q", made)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(made[0]), "compiling-1"), 0o700); err != nil { // as a killed child leaves it
		t.Fatal(err)
	}
	// A command that cannot compile shows that nothing has to be compiled.
	noCompiler := withChild(dir)
	noCompiler.Compiler = []string{"/bin/false"}
	if got := discountOf(t, compile(t, noCompiler, rule)); got != 990 {
		t.Fatal(got)
	}
	for _, harm := range []func(path string) error{
		os.Remove,
		func(path string) error { return os.WriteFile(path, []byte("no code"), 0o600) },
		func(path string) error { return os.Truncate(path, 100) },
		func(path string) error { // where a function begins
			b, err := os.ReadFile(path)
			if err == nil {
				b[20] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		},
		func(path string) error {
			b, err := os.ReadFile(path)
			if err == nil {
				b[len(b)/2] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		},
	} {
		for _, path := range made {
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			if got := discountOf(t, compile(t, withChild(dir), rule)); got != 990 {
				t.Fatal(got)
			}
		}
	}
	if again := files(t, dir); !slices.Equal(again, made) {
		t.Fatalf("%q, then %q", made, again)
	}
}

// counting has a compiler note each of its processes in a file, and returns that file's
// content: their priorities, one on a line.
func counting(t *testing.T, config *host.Config, compiler string) (begun func() string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "begun")
	config.Compiler = []string{"/bin/sh", "-c", "echo $4 >>" + file + "; exec " + self + ` "$0" "$@"`, compiler}
	return func() string {
		as, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		return string(as)
	}
}

// compiles has an engine compile a rule of its own.
func compiles(t *testing.T, e *host.Engine, off int64) {
	t.Helper()
	p, err := e.Compile(t.Context(), gastest.Rule(discount(fmt.Sprintf("i64.const %d", off))).Encode(), nil)
	if err != nil || discountOf(t, p) != off {
		t.Fatal(err)
	}
}

// TestChildGoesOn: one process compiles module after module, those that are refused too,
// and ends with the engine. Nothing of it stays.
func TestChildGoesOn(t *testing.T) {
	config := withChild(t.TempDir())
	begun := counting(t, &config, compileRule)
	e, err := host.New(config)
	if err != nil {
		t.Fatal(err)
	}
	e.SetBusy(true) // or a busy machine has it begun again
	for off := range int64(3) {
		compiles(t, e, off)
		if got := refusal(t, e, ruleOf("i32.const 0", nil), nil); !strings.Contains(got, "code section") {
			t.Error(got)
		}
	}
	if as := begun(); as != "nice\n" {
		t.Errorf("begun: %q", as)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if children := childIDs(t); len(children) != 0 {
		t.Errorf("the engine is closed, and children are left: %q", children)
	}
	if left := host.Scratch(config.Cache); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestChildDies: the end of a process that waits for a module costs nobody an upload.
func TestChildDies(t *testing.T) {
	config := withChild(t.TempDir())
	begun := counting(t, &config, compileRule)
	e := engine(t, config)
	e.SetBusy(true) // or a busy machine has it begun again
	for off := range int64(3) {
		compiles(t, e, off)
		for _, child := range childIDs(t) {
			id, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(id, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if as := begun(); as != "nice\nnice\nnice\n" {
		t.Errorf("begun: %q", as)
	}
}

// TestUsedChildFails: a process that dies of a module after another is not what judges the
// module: a new one compiles it.
func TestUsedChildFails(t *testing.T) {
	config := withChild(t.TempDir())
	begun := counting(t, &config, compileOnce)
	e := engine(t, config)
	e.SetBusy(true) // or a busy machine has it begun again
	for off := range int64(3) {
		compiles(t, e, off)
	}
	if as := begun(); as != "nice\nnice\nnice\n" {
		t.Errorf("begun: %q", as)
	}
}

// TestUsedChildLimits: once it has compiled a module, a process may take 2 s of processor
// time in all.
func TestUsedChildLimits(t *testing.T) {
	e := engine(t, withChild(t.TempDir()))
	e.SetBusy(true)
	compiles(t, e, 1)
	children := childIDs(t)
	if len(children) != 1 {
		t.Fatalf("%q", children)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	want := regexp.MustCompile(`Max cpu time +2 +21 `)
	for lowered := false; !lowered; { // it answers first
		limits, err := os.ReadFile("/proc/" + children[0] + "/limits")
		if err = errors.Join(err, ctx.Err()); err != nil {
			t.Fatalf("%v: %s", err, limits)
		}
		lowered = want.Match(limits)
	}
}

// TestKeepsMore: what a process keeps is found, and more of it ends its waiting.
func TestKeepsMore(t *testing.T) {
	const more = 256 << 20
	data, err := host.DataBytes()
	if err != nil {
		t.Fatal(err)
	}
	if host.KeepsMore(data + more) {
		t.Error("a process that keeps nothing keeps too much")
	}
	memory, err := unix.Mmap(-1, 0, 2*more, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	if !host.KeepsMore(data + more) {
		t.Error("a process that keeps so much keeps not too much")
	}
	if err := unix.Munmap(memory); err != nil {
		t.Error(err)
	}
}

// TestChildKeepsLittle: a process that had to take much memory does not keep it.
func TestChildKeepsLittle(t *testing.T) {
	config := withChild(t.TempDir())
	config.CompileMemory = 64 << 20
	begun := counting(t, &config, compileRule)
	e := engine(t, config)
	e.SetBusy(true) // or a busy machine has it begun again
	large := ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs = append(m.Funcs, blocksAndLocals(500)) })
	if _, err := e.Compile(t.Context(), large, nil); err != nil {
		t.Fatal(err)
	}
	compiles(t, e, 1)
	if as := begun(); as != "nice\nnice\n" {
		t.Errorf("begun: %q", as)
	}
}

// TestLargeModuleBegins: a large module has a process of its own, whoever waits for one.
func TestLargeModuleBegins(t *testing.T) {
	config := withChild(t.TempDir())
	begun := counting(t, &config, compileRule)
	e := engine(t, config)
	e.SetBusy(true) // or a busy machine has it begun again
	compiles(t, e, 1)
	large := ruleOf(gastest.Result, func(m *gastest.Module) {
		m.MemoryMin = 8
		m.Data = append(m.Data, gastest.Data{At: 64 << 10, Bytes: strings.Repeat("x", 300<<10)})
	})
	if _, err := e.Compile(t.Context(), large, nil); err != nil {
		t.Fatal(err)
	}
	if as := begun(); as != "nice\nnice\n" {
		t.Errorf("begun: %q", as)
	}
	if children := childIDs(t); len(children) != 1 {
		t.Errorf("%q are there", children)
	}
}

// TestAnotherComes: a child waits for a module for so long, or until nobody can send one.
func TestAnotherComes(t *testing.T) {
	in, modules, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if host.AnotherComes(in, time.Millisecond) {
		t.Error("a module came that nobody sent")
	}
	if _, err := modules.Write(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if !host.AnotherComes(in, time.Hour) {
		t.Error("a module came, and nobody heard")
	}
	_, err = in.Read(make([]byte, 1))
	if err := errors.Join(err, modules.Close()); err != nil {
		t.Fatal(err)
	}
	if host.AnotherComes(in, time.Hour) {
		t.Error("a module came from nobody")
	}
}

// TestPriorityOfWaiting: no child compiles with a priority that a module is not to have,
// and one that waits with the other makes room.
func TestPriorityOfWaiting(t *testing.T) {
	config := withChild(t.TempDir())
	begun := counting(t, &config, compileRule)
	e := engine(t, config)
	for off, busy := range []bool{true, false, true} {
		e.SetBusy(busy)
		compiles(t, e, int64(off))
		if children := childIDs(t); len(children) != 1 {
			t.Errorf("%q are there", children)
		}
	}
	if as := begun(); !strings.HasPrefix(as, "nice\nidle\nnice\n") { // the idle one may have been starved
		t.Errorf("begun: %q", as)
	}
}

// ruleOf returns a rule with some of it changed.
func ruleOf(evaluate string, change func(*gastest.Module)) []byte {
	m := gastest.Rule(evaluate)
	if change != nil {
		change(m)
	}
	return m.Encode()
}

// blocksAndLocals is a function that keeps a compiler busy: n blocks that mix n
// locals.
func blocksAndLocals(n int) gastest.Func {
	code := strings.Builder{}
	for i := range n {
		fmt.Fprintf(&code, "local.get %d if void local.get %d local.set %d end ", i, i, (i*7)%n)
	}
	return gastest.Func{Locals: slices.Repeat([]byte{gastest.I32}, n), Code: code.String()}
}

// blocksAlone is a function of n blocks and one local.
func blocksAlone(n int) gastest.Func {
	return gastest.Func{Locals: []byte{gastest.I32}, Code: strings.Repeat("local.get 0 if void local.get 0 local.set 0 end ", n)}
}

// TestCompileBombs: what compiling takes is bounded by limits that the compiler
// cannot get around, and costs only the module, whether it is a process's first or not.
func TestCompileBombs(t *testing.T) {
	bomb := ruleOf(gastest.Result, func(m *gastest.Module) {
		m.Funcs = append(m.Funcs, slices.Repeat([]gastest.Func{blocksAndLocals(720)}, 7)...) // as much as is judged to be harmless
		m.Funcs = append(m.Funcs, slices.Repeat([]gastest.Func{blocksAlone(10_000)}, 24)...)
	})
	for name, c := range map[string]struct {
		limit func(*host.Config)
		want  string
	}{
		"time":   {func(c *host.Config) { c.CompileCPU = time.Second }, "more than 1s of processor time"},
		"memory": {func(c *host.Config) { c.CompileMemory = 24 << 20 }, "more than 24 MiB of memory"},
	} {
		t.Run(name, func(t *testing.T) {
			config := withChild(t.TempDir())
			c.limit(&config)
			e := engine(t, config)
			e.SetWait(time.Hour) // on a busy machine a second of processor time takes long
			for first := range int64(2) {
				before := files(t, config.Cache)
				_, err := e.Compile(t.Context(), bomb, nil)
				var faults *gas.Error
				if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("%v, want %q", err, c.want)
				}
				if left := files(t, config.Cache); !slices.Equal(left, before) {
					t.Fatalf("left behind: %q", left)
				}
				p, err := e.Compile(t.Context(), gastest.Rule(discount(fmt.Sprintf("i64.const %d", first))).Encode(), nil)
				if err != nil || discountOf(t, p) != first {
					t.Fatal("another module does not compile", err)
				}
			}
		})
	}
}

func TestChildRefuses(t *testing.T) {
	config := withChild(t.TempDir())
	e := engine(t, config)
	for name, c := range map[string]struct {
		wasm []byte
		want string
	}{
		"ill-typed": {ruleOf("i32.const 0", nil), "code section"},
		"bad start": {ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[gastest.FuncBuffer].Code = "unreachable" }), "init section"},
	} {
		var faults *gas.Error
		if _, err := e.Compile(t.Context(), c.wasm, nil); !errors.As(err, &faults) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left := files(t, config.Cache); len(left) != 0 {
			t.Errorf("%s: code of a refused module stays: %q", name, left)
		}
	}
}

// TestChildFails: what is wrong with the compiler is not the module's fault.
func TestChildFails(t *testing.T) {
	rule := gastest.Rule(gastest.Result).Encode()
	for _, command := range [][]string{{"/no/such/program"}, {"/bin/true"}, {"/bin/false"}, {"/bin/echo"}} {
		config := withChild(t.TempDir())
		config.Compiler = command
		_, err := engine(t, config).Compile(t.Context(), rule, nil)
		if faults := (*gas.Error)(nil); !errors.Is(err, host.ErrNotCompiled) || errors.As(err, &faults) {
			t.Errorf("%q: %v", command, err)
		}
	}
	for _, arguments := range [][]string{nil, {"folder"}, {"folder", "1", "1"}, {"folder", "bytes", "1", "nice"}, {"folder", "1", "s", "nice"}} {
		if code := host.CompileChild(arguments, os.Stdin, os.Stdout); code != 2 {
			t.Errorf("%q: exit code %d", arguments, code)
		}
	}
}

// TestCompilerRests: a compiler stands still now and then while the process is busy, and
// never otherwise. It goes on behind each rest, and to the next module.
func TestCompilerRests(t *testing.T) {
	for _, busy := range []bool{true, false} {
		config := withChild(t.TempDir())
		config.Busy = func() bool { return busy }
		e := engine(t, config)
		compiles(t, e, 7)
		compiles(t, e, 8)

		begun := filepath.Join(t.TempDir(), "begun")
		config = withChild(t.TempDir())
		config.Busy = func() bool { return busy }
		config.Compiler = []string{"/bin/sh", "-c", "echo $$ >" + begun + "; exec sleep 600"}
		e = engine(t, config)
		ctx, cancel := context.WithCancel(t.Context())
		var compiling sync.WaitGroup
		compiling.Go(func() { _, _ = e.Compile(ctx, gastest.Rule(gastest.Result).Encode(), nil) })
		// One look sees a rest, or not; all of these miss them only if there are none.
		if rested := slices.ContainsFunc(make([]int, 200), func(int) bool { return standsStill(begun) }); rested != busy {
			t.Errorf("busy %t, rests %t", busy, rested)
		}
		cancel()
		compiling.Wait()
	}
}

// standsStill says, a moment later, whether the process is stopped that a file names, if
// it is there by now and has not ended.
func standsStill(file string) bool {
	time.Sleep(5 * time.Millisecond)
	id, err := os.ReadFile(file)
	if err != nil || len(id) == 0 {
		return false
	}
	status, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(id)), "status"))
	return err == nil && bytes.Contains(status, []byte("\nState:\tT"))
}

// TestNoThreads: a machine without another thread is not the module's fault.
func TestNoThreads(t *testing.T) {
	config := withChild(t.TempDir())
	config.Compiler = []string{"/bin/sh", "-c", "echo 'runtime: failed to create new OS thread (have 5 already; errno=11)' >&2; exit 2"}
	_, err := engine(t, config).Compile(t.Context(), gastest.Rule(gastest.Result).Encode(), nil)
	if faults := (*gas.Error)(nil); !errors.Is(err, host.ErrNotCompiled) || errors.As(err, &faults) {
		t.Error(err)
	}
}

// TestOutOfMemory: a compiler that gets no more memory has reached its own limit, which is
// the module's fault, unless the machine has not as much as that.
func TestOutOfMemory(t *testing.T) {
	const more = 1 << 56 // than any machine gives a process
	for memory, machine := range map[uint64]bool{host.CompileMemoryDefault: false, more: true} {
		config := withChild(t.TempDir())
		config.CompileMemory = memory
		config.Compiler = []string{"/bin/sh", "-c", "echo 'fatal error: runtime: out of memory' >&2; exit 2"}
		_, err := engine(t, config).Compile(t.Context(), gastest.Rule(gastest.Result).Encode(), nil)
		if faults := (*gas.Error)(nil); errors.As(err, &faults) == machine || errors.Is(err, host.ErrNotCompiled) != machine {
			t.Errorf("%d bytes: %v", memory, err)
		}
	}
}

// TestLateCompiler: one that gets enough not to be starved at each look, and is not done
// in time, has a share of its own in the second try; then the machine is to blame.
func TestLateCompiler(t *testing.T) {
	t.Parallel() // it sleeps
	config := withChild(t.TempDir())
	begun := filepath.Join(t.TempDir(), "begun")
	config.Compiler = []string{"/bin/sh", "-c", "echo $3 >>" + begun + "; exec sleep 600"}
	e := engine(t, config)
	e.SetWait(host.CompilePatience * 3 / 4) // before the first look
	_, err := e.Compile(t.Context(), gastest.Rule(gastest.Result).Encode(), nil)
	if faults := (*gas.Error)(nil); !errors.Is(err, host.ErrNotCompiled) || errors.As(err, &faults) {
		t.Error(err)
	}
	if as, err := os.ReadFile(begun); err != nil || string(as) != "idle\nnice\n" {
		t.Errorf("%q %v", as, err)
	}
}

// TestChildJudges: the child's verdict is the one of package gas, with all the faults, and
// what cannot be printed is quoted.
func TestChildJudges(t *testing.T) {
	e := engine(t, withChild(t.TempDir()))
	many := gastest.Rule("call 99 call 98"+gastest.Result).WithImport("\x1b[2J", "system", 0)
	for name, wasm := range map[string][]byte{
		"no module":   []byte("#!/bin/sh"),
		"nothing":     nil,
		"only a head": []byte("\x00asm\x01\x00\x00\x00"),
		"many faults": many.Encode(),
		"counted ones": ruleOf(strings.Repeat("call 9999 ", 1000), func(m *gastest.Module) {
			m.Funcs = append(m.Funcs, slices.Repeat([]gastest.Func{{Code: "call 9999"}}, 2*gas.FaultsMax)...)
		}),
		"too large": make([]byte, gas.ModuleBytesMax+1),
		"grows": ruleOf(gastest.Result, func(m *gastest.Module) {
			m.Funcs = append(m.Funcs, slices.Repeat([]gastest.Func{{Type: gastest.TypeI32, Code: "raw " + strings.Repeat("20002000360000", 35_000) + " i32.const 0"}}, 16)...)
		}),
	} {
		_, want := gas.Rewrite(wasm)
		_, err := e.Compile(t.Context(), wasm, nil)
		var wanted, got *gas.Error
		if !errors.As(want, &wanted) || !errors.As(err, &got) || !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	faults, err := host.DecodeRefusal([]byte(`{"Faults":[{"Section":"a\u001b","Offset":1,"Reason":"b\nc"}]}`))
	if err != nil || faults.Error() != `"a\x1b" section, offset 1: "b\nc"` {
		t.Errorf("%q %v", faults, err)
	}
	for _, said := range []string{"", "{}", "null", "[]", `{"Faults":[` + strings.Repeat("{},", gas.FaultsMax) + "{}]}"} {
		if faults, err := host.DecodeRefusal([]byte(said)); err == nil {
			t.Errorf("%q is %v", said[:min(len(said), 20)], faults)
		}
	}
}

// TestLoadsNeverCompile: code that is not there when it is loaded is compiled by a child
// and not by this process, which has no more than the shell of it.
func TestLoadsNeverCompile(t *testing.T) {
	config := withChild(t.TempDir())
	begun := counting(t, &config, compileRule)
	const off = 7
	for first := range 2 {
		e, err := host.New(config)
		if err != nil {
			t.Fatal(err)
		}
		e.SetBusy(true) // or a busy machine has it begun again
		compiles(t, e, off)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if first == 0 { // the code is there, and not by the name that wazero looks for
			if err := host.RenameCode(config.Cache); err != nil {
				t.Fatal(err)
			}
		}
	}
	if as := begun(); as != "nice\nnice\n" {
		t.Errorf("begun: %q", as)
	}
}

// TestLoadsDoNotWait: while all compilers are busy with bombs, what has been compiled
// before is there at once.
func TestLoadsDoNotWait(t *testing.T) {
	dir := t.TempDir()
	rule := gastest.Rule(discount("i64.const 990")).Encode()
	compile(t, withChild(dir), rule)
	busy := withChild(dir)
	busy.Compiler = []string{"/bin/sh", "-c", "exec sleep 600"}
	e := engine(t, busy)
	ctx, stop := context.WithCancel(t.Context())
	var bombs sync.WaitGroup
	for n := range host.CompilersMax {
		bombs.Go(func() {
			if _, err := e.Compile(ctx, gastest.Rule(discount(fmt.Sprintf("i64.const %d", n))).Encode(), nil); err == nil {
				t.Error("compiled by sleep")
			}
		})
	}
	for e.Compiling() < host.CompilersMax {
		runtime.Gosched()
	}
	p, err := e.Compile(ctx, rule, nil)
	stop()
	bombs.Wait()
	if err != nil || discountOf(t, p) != 990 {
		t.Fatal(err)
	}
}

// TestAbandoned: the code of a program that is not kept goes, unless it was there.
func TestAbandoned(t *testing.T) {
	config := withChild(t.TempDir())
	e := engine(t, config)
	for _, c := range []struct {
		end  func(*host.Program) error
		left int
	}{{(*host.Program).Abandon, 0}, {(*host.Program).Close, 2}, {(*host.Program).Abandon, 2}} {
		p, err := e.Compile(t.Context(), gastest.Rule(gastest.Result).Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.end(p); err != nil {
			t.Fatal(err)
		}
		if left := files(t, config.Cache); len(left) != c.left {
			t.Errorf("%q are left, want %d", left, c.left)
		}
	}
}

// TestRefusedTogether: uploads at one time of a module that fails when it starts are
// all refused, whoever removes its code, and nothing stays.
func TestRefusedTogether(t *testing.T) {
	config := withChild(t.TempDir())
	e := engine(t, config)
	bad := ruleOf(gastest.Result, func(m *gastest.Module) { m.Funcs[gastest.FuncBuffer].Code = "unreachable" })
	var uploads sync.WaitGroup
	for range 4 {
		uploads.Go(func() {
			for range 5 {
				if got := refusal(t, e, bad, nil); !strings.Contains(got, "init section") {
					t.Error(got)
				}
			}
		})
	}
	uploads.Wait()
	if left := files(t, config.Cache); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestLoadedTogether: uploads at one time of a module whose code is on disk and that
// nobody has loaded all get one that runs.
func TestLoadedTogether(t *testing.T) {
	e := engine(t, withChild(t.TempDir()))
	wasm := gastest.Rule("unreachable").Encode()
	upload := func() {
		p, err := e.Compile(t.Context(), wasm, nil)
		if err != nil {
			t.Error(err)
			return
		}
		var v abi.Verdict
		if p.Evaluate(&abi.Input{Subtotal: 1}, abi.FuelDefault, &v, nil); v.Fault != abi.FaultTrap {
			t.Error(v.Fault)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	upload() // compiles it
	var uploads sync.WaitGroup
	for range 4 {
		uploads.Go(func() {
			for range 300 {
				upload()
			}
		})
	}
	uploads.Wait()
}

// TestBeginsIdle: a compiler takes no processor that an order wants before it can see to
// that itself.
func TestBeginsIdle(t *testing.T) {
	config := withChild(t.TempDir())
	config.Compiler = []string{"/bin/sh", "-c", "exec sleep 600"}
	e := engine(t, config)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan error, 1)
	go func() {
		_, err := e.Compile(ctx, gastest.Rule(gastest.Result).Encode(), nil)
		done <- err
	}()
	for idle, others := 0, 0; idle != 1 || others != 0; idle, others = childThreads(t) {
		if ctx.Err() != nil {
			t.Fatalf("%d threads are idle, %d are not", idle, others)
		}
	}
	stop()
	<-done
}

// TestTakesIdle: a process makes all the threads idle that it had before.
func TestTakesIdle(t *testing.T) {
	child := exec.CommandContext(t.Context(), "/proc/self/exe", takeIdle)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has done so
		t.Error(err)
	}
	if idle, others := childThreads(t); idle < 2 || others != 0 {
		t.Errorf("%d threads are idle, %d are not", idle, others)
	}
	if err := errors.Join(in.Close(), child.Wait()); err != nil {
		t.Fatal(err)
	}
}

// TestNoIdle: where a sandbox knows no sched_setattr, compilers are nice.
func TestNoIdle(t *testing.T) {
	config := withChild(t.TempDir())
	config.Compiler[1] = compileBoxed
	p, err := engine(t, config).Compile(t.Context(), gastest.Rule(discount("i64.const 990")).Encode(), nil)
	if err != nil || discountOf(t, p) != 990 {
		t.Fatal(err)
	}
}

// noSchedSetattr has all threads of this process find no such system call.
func noSchedSetattr() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SCHED_SETATTR, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0); !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("the filter does not hold: %w", err)
	}
	return nil
}

// childThreads counts the threads of this process's children, those that the kernel
// runs when no other wants to, and others.
func childThreads(t *testing.T) (idle, others int) {
	t.Helper()
	const fieldPolicy = 41 - 3 // of those behind the name, in proc(5)
	for _, child := range childIDs(t) {
		stats, _ := filepath.Glob("/proc/" + child + "/task/*/stat")
		for _, path := range stats {
			stat, _ := os.ReadFile(path)
			_, behind, _ := strings.Cut(string(stat), ") ")
			switch fields := strings.Fields(behind); {
			case len(fields) <= fieldPolicy: // it has ended
			case fields[fieldPolicy] == strconv.Itoa(unix.SCHED_IDLE):
				idle++
			default:
				others++
			}
		}
	}
	return idle, others
}

// childIDs returns the process ids of this process's children.
func childIDs(t *testing.T) (ids []string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		children, _ := os.ReadFile(list) // the thread may have ended
		ids = append(ids, strings.Fields(string(children))...)
	}
	return ids
}

// TestStarvedCompiler: a compilation that orders leave no processor to is begun again
// with a share of its own, and costs nobody an upload. The next one has it at once.
func TestStarvedCompiler(t *testing.T) {
	t.Parallel() // it sleeps
	config := withChild(t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The idle one sleeps, which is all that one without a processor can do.
	begun := filepath.Join(t.TempDir(), "begun")
	config.Compiler = []string{"/bin/sh", "-c", "echo $4 >>" + begun + "; [ $4 = idle ] && exec sleep 600; exec " + self + ` "$0" "$@"`, compileRule}
	e := engine(t, config)
	for off := range int64(2) {
		compiles(t, e, off)
	}
	if as, err := os.ReadFile(begun); err != nil || string(as) != "idle\nnice\n" {
		t.Errorf("%q %v", as, err)
	}
	if left := host.Scratch(config.Cache); len(left) != 1 { // the one that waits
		t.Fatalf("%q", left)
	}
}

// TestScratch: where memory has too little room for what children write, they write to the disk.
// What a killed server left in memory goes with the next start of any, and nothing else.
func TestScratch(t *testing.T) {
	folder := t.TempDir()
	onDisk, held, err := host.ScratchFor(folder, math.MaxUint64)
	if err != nil || held != nil || filepath.Dir(onDisk) != folder {
		t.Errorf("%s, %v, %v: not in %s", onDisk, held, err, folder)
	}
	inMemory, held, err := host.ScratchFor(folder, 0)
	if err != nil {
		t.Fatal(err)
	}
	if held == nil {
		const probe = "/dev/shm/doorbuster-probe"
		if err := os.Mkdir(probe, 0o700); err == nil {
			t.Errorf("%s, but %s can be made", inMemory, probe)
			_ = os.Remove(probe)
		}
		return
	}
	anothers := inMemory + "-another"
	if err := os.Symlink(folder, anothers); err != nil {
		t.Fatal(err)
	}
	host.SweepMemory()
	if _, err := os.Stat(inMemory); err != nil {
		t.Error("a folder that is in use is gone")
	}
	if _, err := os.Lstat(anothers); err != nil {
		t.Error("what no child made is gone")
	}
	if err := errors.Join(os.Remove(anothers), held.Close()); err != nil {
		t.Error(err)
	}
	host.SweepMemory()
	if _, err := os.Stat(inMemory); err == nil {
		t.Error("the folder of a server that ended stays")
	}
}

// TestMemoryFills: where there is no room left in memory while a child works there, another
// works on the disk.
func TestMemoryFills(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, fails := range map[string]string{"at once": "", "with its module": "head -c 5 >/dev/null;"} {
		config := withChild(t.TempDir())
		config.Compiler = []string{"/bin/sh", "-c", `case "$1" in /dev/shm/*) ` + fails + ` echo "write: no space left on device" >&2; exit 2;; esac; exec ` + self + ` "$0" "$@"`, compileRule}
		e := engine(t, config)
		e.SetBusy(true) // or a busy machine has it begun again
		compiles(t, e, 7)
		if left := host.Scratch(config.Cache); len(left) != 1 || strings.HasPrefix(left[0], "/dev/shm") {
			t.Errorf("%s: %q", name, left)
		}
	}
	// On the disk it is the machine's failure, and nothing is tried for ever.
	config := withChild(t.TempDir())
	config.Compiler = []string{"/bin/sh", "-c", `echo "write: no space left on device" >&2; exit 2`}
	e := engine(t, config)
	e.SetBusy(true)
	if _, err := e.Compile(t.Context(), gastest.Rule(gastest.Result).Encode(), nil); !errors.Is(err, host.ErrNotCompiled) || !strings.Contains(err.Error(), "no space") {
		t.Error(err)
	}
}

// TestShortOfFiles: code that cannot be read because the machine has too little of something is
// not taken for damaged.
func TestShortOfFiles(t *testing.T) {
	config := withChild(t.TempDir())
	made, err := engine(t, config).CompileModule(t.Context(), gas.Rules(), gastest.Rule(discount("i64.const 7")).Encode())
	if err != nil {
		t.Fatal(err)
	}
	config.Compiler = []string{"/bin/false"}
	e := engine(t, config)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	made.Discard() // finds nothing, and so removes nothing
	_, err = e.Compile(t.Context(), gastest.Rule(discount("i64.const 7")).Encode(), nil)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, host.ErrNotCompiled) || !errors.Is(err, syscall.EMFILE) {
		t.Error(err)
	}
	compiles(t, e, 7)
	for _, short := range []error{
		&os.PathError{Op: "open", Err: syscall.ENFILE},
		errors.Join(errors.New("harmed"), syscall.ENOMEM),
		fmt.Errorf("compilationcache: error mmapping executable (len=1): %v", syscall.ENOMEM), // as wazero does
	} {
		if err := host.Machines(short); !errors.Is(err, host.ErrNotCompiled) || !strings.Contains(err.Error(), short.Error()) {
			t.Errorf("%v: %v", short, err)
		}
	}
	for _, harm := range []error{nil, io.ErrUnexpectedEOF, &os.PathError{Op: "read", Err: syscall.EIO}, os.ErrNotExist} {
		if err := host.Machines(harm); err != nil {
			t.Errorf("%v: %v", harm, err)
		}
	}
}

// TestSourcesShareNoCode: two modules that are rewritten to the same have code of their own,
// which goes without the other's.
func TestSourcesShareNoCode(t *testing.T) {
	config := withChild(t.TempDir())
	e := engine(t, config)
	first := gastest.Rule(discount("i64.const 7")).Encode()
	second := gas.AppendCustom(bytes.Clone(first), "note", []byte("the same code"))
	if _, err := e.Compile(t.Context(), first, nil); err != nil {
		t.Fatal(err)
	}
	p, err := e.Compile(t.Context(), second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if codes := codeFiles(t, config.Cache); len(codes) != 2 {
		t.Errorf("code: %q", codes)
	}
	p.Abandon()
	if codes := codeFiles(t, config.Cache); len(codes) != 1 {
		t.Errorf("code: %q", codes)
	}
}

// codeFiles are the files of code in a cache.
func codeFiles(t *testing.T, cache string) []string {
	t.Helper()
	codes, err := filepath.Glob(filepath.Join(cache, "*", "wazero-*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return codes
}
