package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/gas"
)

// cache is a folder of compiled code. wazero names and reads the files of code;
// beside them stands a note for each rewritten module, named by its SHA-256, that
// says which file is its code.
//
//	<folder>/<wazero's version>/<sha256>   the note
//	<folder>/<wazero's version>/wazero-…/… the code
//
// A file that is lost or damaged is made again. Code for another kind of CPU is
// not found by wazero, which then compiles in this process what a child has
// compiled within its limits before.
type cache struct {
	folder string
	config *Config
	engine wazero.CompilationCache

	// files is held to remove code, and shared to load it: what was there when wazero
	// began to look for it is there when it finds it.
	files sync.RWMutex

	wait      time.Duration // CompileWait
	busyUntil atomic.Int64  // Mono; an idle child has got no processor of late
}

// scratchPrefix begins the names of children's own folders.
const scratchPrefix = "compiling-"

// openCache opens the folder, and removes what other versions of wazero, and
// children that were killed, left there.
func openCache(config *Config) (*cache, error) {
	root, err := filepath.Abs(config.Cache) // a child runs in a folder of its own
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	c := &cache{folder: filepath.Join(root, wazeroVersion()), config: config, wait: CompileWait}
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() != filepath.Base(c.folder) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(root, entry.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(c.folder, scratchPrefix+"*"))
	for _, scratch := range left { // by a process that was killed
		err = errors.Join(err, os.RemoveAll(scratch))
	}
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if c.engine, err = wazero.NewCompilationCacheWithDir(c.folder); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	return c, nil
}

func wazeroVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/tetratelabs/wazero" && dep.Version != "" {
				return dep.Version
			}
		}
	}
	return "unknown"
}

// cacheKey names a rewritten module.
func cacheKey(wasm []byte) string {
	sum := sha256.Sum256(wasm)
	return hex.EncodeToString(sum[:])
}

func (c *cache) note(key string) string { return filepath.Join(c.folder, key) }

// code returns the file that a note names, "" when there is none.
func (c *cache) code(key string) string {
	name, err := os.ReadFile(c.note(key))
	if err != nil || !filepath.IsLocal(string(name)) {
		return ""
	}
	return filepath.Join(c.folder, string(name))
}

// has says whether a module's code is in the folder.
func (c *cache) has(key string) bool {
	code := c.code(key)
	if code == "" {
		return false
	}
	_, err := os.Stat(code)
	return err == nil
}

// forget removes a module's code.
func (c *cache) forget(key string) {
	c.files.Lock()
	defer c.files.Unlock()
	if code := c.code(key); code != "" {
		_ = os.Remove(code)
	}
	_ = os.Remove(c.note(key))
}

// ErrNotCompiled says that this machine could not compile a module just now, whatever the module
// is like. Another try may do.
var ErrNotCompiled = errors.New("host: the module could not be compiled now")

// make has a child compile a module. What a child says about the module, and what it
// takes to compile it, is a *gas.Error; all else is ErrNotCompiled.
func (c *cache) make(ctx context.Context, key string, wasm []byte) error {
	err := c.makeSomehow(ctx, key, wasm)
	if err == nil || errors.As(err, new(*gas.Error)) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotCompiled, err)
}

// makeSomehow is make. A machine that is too busy to compile for nothing pays for it: no
// upload fails because many orders come.
func (c *cache) makeSomehow(ctx context.Context, key string, wasm []byte) error {
	if clockd.Mono() >= c.busyUntil.Load() {
		err := c.makeAt(ctx, idle, key, wasm)
		if !errors.Is(err, errStarved) {
			return err
		}
		c.busyUntil.Store(clockd.Mono() + int64(CompileBusy))
	}
	return c.makeAt(ctx, nice, key, wasm)
}

// makeAt is make with a priority. The child has a folder of its own.
func (c *cache) makeAt(ctx context.Context, p priority, key string, wasm []byte) error {
	scratch, err := os.MkdirTemp(c.folder, scratchPrefix)
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }() // the next start tries again
	if err := c.compile(ctx, p, scratch, wasm); err != nil {
		return err
	}
	return c.adopt(key, scratch)
}

// adopt moves the one file that a child made to its place, then notes it.
func (c *cache) adopt(key, scratch string) error {
	made, err := filepath.Glob(filepath.Join(scratch, "wazero-*", "*"))
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if len(made) != 1 {
		return fmt.Errorf("host: the compiler left %d files of code", len(made))
	}
	name, err := filepath.Rel(scratch, made[0])
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	place, note := filepath.Join(c.folder, name), filepath.Join(scratch, "note")
	err = errors.Join(
		os.MkdirAll(filepath.Dir(place), 0o700),
		os.Rename(made[0], place),
		os.WriteFile(note, []byte(name), 0o600),
		os.Rename(note, c.note(key)),
	)
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	return nil
}

// reportMax bounds what is read of a child's output.
const reportMax = 4 << 10

// compile runs a child. It ends an idle one that gets too little of a processor, or so
// little that it is not done in time, with errStarved.
func (c *cache) compile(ctx context.Context, p priority, scratch string, wasm []byte) error {
	late := errLate
	if p == idle {
		late = errStarved
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.wait, late)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	child := exec.CommandContext(ctx, c.config.Compiler[0], c.config.Compiler[1:]...)
	child.Args = append(child.Args, scratch, strconv.FormatUint(c.config.CompileMemory, 10),
		strconv.Itoa(int(c.config.CompileCPU.Seconds())), string(p))
	child.Env = []string{"GOMAXPROCS=1"} // the other processors are for orders
	child.Dir = scratch
	child.Stdin = bytes.NewReader(wasm)
	report := &head{max: reportMax}
	child.Stdout, child.Stderr = report, report
	// It must not outlive the server, and stands back behind orders as a group.
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err := child.Start()
	if err == nil {
		if p == idle {
			// It does so itself, but starting a process of this size takes 9 ms. What goes
			// wrong here goes wrong there too, and is told.
			_ = makeIdle(child.Process.Pid)
			go watchIdle(ctx, child.Process.Pid, end)
		}
		err = child.Wait()
	}
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(context.Cause(ctx), errStarved):
		return errStarved
	case ctx.Err() != nil:
		return fmt.Errorf("host: the compiler was ended: %w", context.Cause(ctx))
	case !errors.As(err, &exit):
		return fmt.Errorf("host: the compiler did not run: %w", err)
	}
	return c.childFault(exit, report.String())
}

var (
	// errStarved: an idle child got less than its share, or than it took in CompileWait.
	errStarved = errors.New("host: the machine is too busy to compile for nothing")
	// errLate: so did one that has a share of its own.
	errLate = errors.New("host: the machine is too busy to compile")
)

// watchIdle ends a child's context with errStarved when the child has got less than
// 1/CompileShare of a processor since it began. It looks every CompilePatience until the
// context ends.
func watchIdle(ctx context.Context, pid int, end context.CancelCauseFunc) {
	begin := clockd.Mono()
	for clockd.SleepUntil(ctx, clockd.Mono()+int64(CompilePatience)) == nil {
		used, err := processorTime(pid)
		if err == nil && int64(used) < (clockd.Mono()-begin)/CompileShare {
			end(errStarved)
		}
	}
}

// outOfMemory is how a child of Go ends when it gets no more, from the heap or a mapping
// for code, and a thread's stack, by Go's runtime (ENOMEM; EAGAIN is the machine's) or C's.
var outOfMemory = []string{"out of memory", "cannot allocate memory", "errno=12)", "pthread_create failed"}

// childFault says why a child failed.
func (c *cache) childFault(exit *exec.ExitError, report string) error {
	used := exit.UserTime() + exit.SystemTime()
	switch {
	case exit.ExitCode() == exitRefused:
		return refused("code", "%q", report)
	case used >= c.config.CompileCPU*9/10:
		return refused("code", "compiling it takes more than %s of processor time", c.config.CompileCPU)
	case slices.ContainsFunc(outOfMemory, func(words string) bool { return strings.Contains(report, words) }):
		return refused("code", "compiling it takes more than %d MiB of memory", c.config.CompileMemory>>20)
	}
	first, _, _ := strings.Cut(report, "\n")
	return fmt.Errorf("host: the compiler failed: %w: %q", exit, first)
}

// head keeps the first bytes that are written to it.
type head struct {
	bytes.Buffer
	max int
}

func (h *head) Write(b []byte) (int, error) {
	_, _ = h.Buffer.Write(b[:min(len(b), h.max-h.Len())])
	return len(b), nil
}
