package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/runtime/yield"
)

// cache is a folder of compiled code. wazero names and reads the files of code;
// beside them stands a note for each module, named by a digest of the module and of the
// policy that it was judged by. The note says which file is the code, which is no other
// note's, and holds the shell that wazero loads it by: see gas.Module.Shell.
//
//	<folder>/<generation>/<sha256>   the note
//	<folder>/<generation>/wazero-…/… the code
//
// A file that is lost or damaged, or whose code is for another kind of CPU, is made again.
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

// These begin the names of children's own folders, on the disk and in memory.
const (
	scratchPrefix = "compiling-"
	memoryPrefix  = "doorbuster-" + scratchPrefix
)

// inMemory is a file system without a disk, where there is one.
const inMemory = "/dev/shm"

// memoryName begins the names of children's own folders in memory, for this cache.
func (c *cache) memoryName() string {
	sum := sha256.Sum256([]byte(c.folder))
	return memoryPrefix + hex.EncodeToString(sum[:8]) + "-"
}

// scratchRoom is the room, in bytes, that has to be left in memory for children to work
// there: twice what all of them may write. A container often has 64 MB in all.
const scratchRoom = 2 * CompilersMax * (CompiledMax + noteMax)

// scratch makes a folder for a child: in memory if there is so much room, in bytes. Files that
// a child writes to the disk, with nothing but what orders leave of the processor, hold up the
// syncs of orders' journal. A folder in memory is held: see sweepMemory.
func (c *cache) scratch(room uint64) (folder string, held *os.File, err error) {
	var memory syscall.Statfs_t
	if syscall.Statfs(inMemory, &memory) == nil && memory.Bavail*uint64(memory.Bsize) >= room {
		if folder, err = os.MkdirTemp(inMemory, c.memoryName()); err == nil {
			if held, err = hold(folder); err == nil {
				return folder, held, nil
			}
			_ = os.Remove(folder) // a start of any server of this user does, too
		}
	}
	folder, err = os.MkdirTemp(c.folder, scratchPrefix)
	return folder, nil, err
}

// hold locks a folder of this user's for as long as the file is open, unless somebody has it.
func hold(folder string) (*os.File, error) {
	held, err := os.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var is, at syscall.Stat_t
	err = errors.Join(syscall.Fstat(int(held.Fd()), &is), syscall.Flock(int(held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.Lstat(folder, &at))
	if err == nil && (int(is.Uid) != os.Geteuid() || is.Ino != at.Ino) {
		err = os.ErrPermission
	}
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return held, nil
}

// sweepMemory removes what children left in memory whose server was killed, whichever of this
// user's it was: nothing else frees it before the machine starts anew. The lock of a server
// ends with it. What is another user's stays, and stops nobody.
func sweepMemory() {
	left, _ := filepath.Glob(filepath.Join(inMemory, memoryPrefix+"*")) // the pattern is fine
	for _, folder := range left {
		if held, err := hold(folder); err == nil {
			_, _ = os.RemoveAll(folder), held.Close() // the next start tries again
		}
	}
}

// move moves a file, between file systems too, and leaves nothing half done.
func (c *cache) move(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // it was read
	half, err := os.CreateTemp(c.folder, scratchPrefix)
	if err != nil {
		return err
	}
	_, err = io.Copy(half, source)
	err = errors.Join(err, half.Close())
	if err == nil {
		err = os.Rename(half.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(half.Name()))
	}
	return os.Remove(from)
}

// openCache opens the folder, and removes what other generations, and children that were
// killed, left there.
func openCache(config *Config) (*cache, error) {
	root, err := filepath.Abs(config.Cache) // a child runs in a folder of its own
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	c := &cache{folder: filepath.Join(root, generation()), config: config, waiting: make(chan *child, CompilersMax), wait: CompileWait}
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
	sweepMemory()
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

// generation names the folder of all that can be used together: what another wazero, another
// layout of notes or another rewriter has left there is removed at the start.
func generation() string {
	return fmt.Sprintf("%s-%d-%s", wazeroVersion(), noteLayout, gas.Revision()[:16])
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

// cacheKey names what a child makes of a module.
func cacheKey(policy, wasm []byte) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %s", len(policy), policy)
	yield.Write(sum, wasm)
	return hex.EncodeToString(sum.Sum(nil))
}

func (c *cache) note(key string) string { return filepath.Join(c.folder, key) }

// A note begins with the file that is the code, in so many bytes, zeros behind it. Then come
// the checksum of that file, the module as gas encodes it, behind its length, and the shell.
// The checksum of all of this ends the note. Checksums are CRC-32C, and like the length
// uint32 in little-endian order.
const (
	noteLayout    = 1
	noteNameBytes = 256
	noteHead      = noteNameBytes + 4 + 4
	noteMax       = noteHead + 4<<20 + gas.RewrittenMax + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeNote writes the note of a module whose code is in a file, which is called code in the
// cache.
func writeNote(path, code, file string, module, shell []byte) error {
	if len(code) > noteNameBytes {
		return fmt.Errorf("host: a file called %q", code)
	}
	sum, err := sumOf(file)
	if err != nil {
		return err
	}
	note := append([]byte(code), make([]byte, noteNameBytes-len(code))...)
	note = binary.LittleEndian.AppendUint32(note, sum)
	note = binary.LittleEndian.AppendUint32(note, uint32(len(module)))
	note = append(append(note, module...), shell...)
	note = binary.LittleEndian.AppendUint32(note, crc32.Checksum(note, castagnoli))
	return os.WriteFile(path, note, 0o600)
}

// sumOf returns the checksum of a file.
func sumOf(path string) (uint32, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }() // it was read
	sum := crc32.New(castagnoli)
	_, err = io.CopyBuffer(struct{ io.Writer }{sum}, yield.Reader{From: file}, make([]byte, yield.PieceBytes))
	return sum.Sum32(), err
}

// errHarmed: what is in the cache is not as it was written. Nothing there is synced, and
// wazero's own checksum leaves out where each function begins.
var errHarmed = errors.New("host: compiled code has come to harm")

// read returns what a note says of a module, and its shell, if the code is whole.
func (c *cache) read(key string) (*gas.Module, []byte, error) {
	module, shell, sum, err := readNote(c.note(key))
	if err != nil {
		return nil, nil, err
	}
	code, err := c.code(key)
	if err != nil {
		return nil, nil, err
	}
	if is, err := sumOf(code); err != nil || is != sum {
		return nil, nil, errors.Join(errHarmed, err)
	}
	return module, shell, nil
}

// readNote returns what a note says of a module, its shell, and the checksum of its code.
func readNote(path string) (*gas.Module, []byte, uint32, error) {
	note, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("host: %w", err)
	}
	if len(note) < noteHead+4 || len(note) > noteMax {
		return nil, nil, 0, errHarmed
	}
	note, sum := note[:len(note)-4], binary.LittleEndian.Uint32(note[len(note)-4:])
	said, n := note[noteHead:], binary.LittleEndian.Uint32(note[noteHead-4:])
	if crc32.Checksum(note, castagnoli) != sum || int(n) > len(said) {
		return nil, nil, 0, errHarmed
	}
	module, err := gas.DecodeModule(said[:n])
	if err != nil {
		return nil, nil, 0, fmt.Errorf("host: %w", err)
	}
	return module, said[n:], binary.LittleEndian.Uint32(note[noteNameBytes:]), nil
}

// code returns the file that a note names, "" when there is none. An error is the machine's.
func (c *cache) code(key string) (string, error) {
	note, err := os.Open(c.note(key))
	if err != nil {
		return "", machines(err)
	}
	defer func() { _ = note.Close() }() // it was read
	var name [noteNameBytes]byte
	if _, err := io.ReadFull(note, name[:]); err != nil {
		return "", machines(err)
	}
	code := string(bytes.TrimRight(name[:], "\x00"))
	if !filepath.IsLocal(code) {
		return "", nil
	}
	return filepath.Join(c.folder, code), nil
}

// has says whether a module's code is in the folder. An error is the machine's.
func (c *cache) has(key string) (bool, error) {
	code, err := c.code(key)
	if code == "" || err != nil {
		return false, err
	}
	file, err := os.Stat(code)
	return err == nil && file.Mode().IsRegular(), machines(err)
}

// machines returns an error with ErrNotCompiled if it tells of what this machine has too
// little of just now, and not of a file, else nil. A file that cannot be read (EIO) is made
// again.
func machines(err error) error {
	for _, short := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EAGAIN} {
		// wazero keeps the words of an error and not the error where it maps code.
		if err != nil && (errors.Is(err, short) || strings.HasSuffix(err.Error(), ": "+short.Error())) {
			return fmt.Errorf("%w: %w", ErrNotCompiled, err)
		}
	}
	return nil
}

// forget removes a module's code, but for what the machine is too short of something to find:
// without its note nobody would, and it may be whole.
func (c *cache) forget(key string) {
	c.files.Lock()
	defer c.files.Unlock()
	code, err := c.code(key)
	if err != nil {
		return
	}
	if code != "" {
		_ = os.Remove(code)
	}
	_ = os.Remove(c.note(key))
}

// ErrNotCompiled says that this machine could not compile a module just now, whatever the module
// is like. Another try may do.
var ErrNotCompiled = errors.New("host: the module could not be compiled now")

// make has a child compile a module. What a child says about the module, and what it
// takes to compile it, is a *gas.Error; all else is ErrNotCompiled.
func (c *cache) make(ctx context.Context, key string, policy, wasm []byte) error {
	err := c.makeSomehow(ctx, key, policy, wasm)
	if err == nil || errors.As(err, new(*gas.Error)) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotCompiled, err)
}

// makeSomehow is make. A machine that is too busy to compile for nothing pays for it: no
// upload fails because many orders come.
func (c *cache) makeSomehow(ctx context.Context, key string, policy, wasm []byte) error {
	if clockd.Mono() >= c.busyUntil.Load() {
		err := c.makeAt(ctx, idle, key, policy, wasm)
		if !errors.Is(err, errStarved) {
			return err
		}
		c.busyUntil.Store(clockd.Mono() + int64(CompileBusy))
	}
	return c.makeAt(ctx, nice, key, policy, wasm)
}

// makeAt is make with a priority, by a child that waits for a module, or else a new one.
// The limits of a child are for all of its modules together, so none is to blame for the
// end of one that had another before: a new child finds out.
func (c *cache) makeAt(ctx context.Context, p priority, key string, policy, wasm []byte) error {
	if used := c.take(p); used != nil {
		if err := c.makeBy(ctx, used, key, policy, wasm); !errors.Is(err, errEnded) {
			return err
		}
	}
	room := uint64(scratchRoom)
	for {
		fresh, err := c.begin(p, room)
		if err != nil {
			return err
		}
		if err = c.makeBy(ctx, fresh, key, policy, wasm); !errors.Is(err, errEnded) {
			return err
		}
		if !fresh.filled() {
			return c.childFault(fresh)
		}
		room = math.MaxUint64 // on the disk, then
	}
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
func (c *cache) makeBy(ctx context.Context, by *child, key string, policy, wasm []byte) error {
	err := by.compile(ctx, c.wait, policy, wasm)
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

// adopt moves the one file of code that a child made to its place, then the note of it.
func (c *cache) adopt(key, scratch string) error {
	note := filepath.Join(scratch, childNote)
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
	place := filepath.Join(c.folder, name)
	err = errors.Join(
		os.MkdirAll(filepath.Dir(place), 0o700),
		c.move(made[0], place),
		c.move(note, c.note(key)),
	)
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	return nil
}
