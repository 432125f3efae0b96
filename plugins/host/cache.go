package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
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

	waiting   chan *child   // for another module
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
	c := &cache{folder: filepath.Join(root, wazeroVersion()), config: config, waiting: make(chan *child, CompilersMax), wait: CompileWait}
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

// makeAt is make with a priority, by a child that waits for a module, or else a new one.
// The limits of a child are for all of its modules together, so none is to blame for the
// end of one that had another before: a new child finds out.
func (c *cache) makeAt(ctx context.Context, p priority, key string, wasm []byte) error {
	if used := c.take(p); used != nil && len(wasm) > goesOnMax {
		used.end()
	} else if used != nil {
		if err := c.makeBy(ctx, used, key, wasm); !errors.Is(err, errEnded) {
			return err
		}
	}
	fresh, err := c.begin(p)
	if err != nil {
		return err
	}
	if err = c.makeBy(ctx, fresh, key, wasm); errors.Is(err, errEnded) {
		return c.childFault(fresh)
	}
	return err
}

// take returns a child of this priority that waits for a module, nil if there is none, and
// ends those of the other.
func (c *cache) take(p priority) *child {
	for {
		select {
		case waiting := <-c.waiting:
			if waiting.priority == p {
				return waiting
			}
			waiting.end()
		default:
			return nil
		}
	}
}

// makeBy is make by this child, which then waits for another module, or has ended.
func (c *cache) makeBy(ctx context.Context, by *child, key string, wasm []byte) error {
	err := by.compile(ctx, c.wait, wasm)
	refused := errors.As(err, new(*gas.Error))
	if err == nil {
		err = c.adopt(key, by.scratch)
	}
	if err != nil && !refused {
		by.end()
		return err
	}
	c.waiting <- by // there is room: who begins a child has found none waiting, and CompilersMax may
	return err
}

// end ends the children that wait for a module. None may be at work.
func (c *cache) end() {
	for len(c.waiting) > 0 {
		(<-c.waiting).end()
	}
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
