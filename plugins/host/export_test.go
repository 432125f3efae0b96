package host

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"time"
)

// Made is how many instances a program has.
func (p *Program) Made() int { return int(p.made.Load()) }

// Compiling is how many compilations are under way.
func (e *Engine) Compiling() int { return len(e.compiling) }

// SetWait replaces CompileWait.
func (e *Engine) SetWait(d time.Duration) { e.cache.wait = d }

// TakeIdle is what a child does to become idle.
func TakeIdle() error { return idle.take() }

// SetBusy has an idle child got no processor of late, or enough.
func (e *Engine) SetBusy(busy bool) {
	e.cache.busyUntil.Store(0)
	if busy {
		e.cache.busyUntil.Store(math.MaxInt64)
	}
}

// AnotherComes is how a child waits for a module.
func AnotherComes(in *os.File, within time.Duration) bool { return anotherComes(in, within) }

// DataBytes and KeepsMore are how it finds what it keeps meanwhile.
func DataBytes() (uint64, error)  { return dataBytes() }
func KeepsMore(bytes uint64) bool { return keepsMore(bytes) }

// DecodeRefusal is how a child's verdict is read.
func DecodeRefusal(said []byte) (refusal, err error) { return decodeRefusal(said) }

// RenameCode gives the code of the only module of a cache another name.
func RenameCode(cache string) error {
	codes, err1 := filepath.Glob(filepath.Join(cache, "*", "wazero-*", "*"))
	notes, err2 := filepath.Glob(filepath.Join(cache, "*", "[0-9a-f]*"))
	if err := errors.Join(err1, err2); err != nil || len(codes) != 1 || len(notes) != 1 {
		return errors.Join(err, errors.New("there is not one module"))
	}
	module, shell, _, err := readNote(notes[0])
	if err != nil {
		return err
	}
	another := filepath.Join(filepath.Dir(codes[0]), "another")
	name, err := filepath.Rel(filepath.Dir(notes[0]), another)
	return errors.Join(err, os.Rename(codes[0], another), writeNote(notes[0], name, another, module.Encode(), shell))
}

// ScratchFor makes a folder for a child of a cache, in memory if there is room.
func ScratchFor(folder string, room uint64) (string, *os.File, error) {
	c := cache{folder: folder}
	return c.scratch(room)
}

// Machines says whether an error tells of the machine.
func Machines(err error) error { return machines(err) }

// SweepMemory is what a start does with what killed servers left.
func SweepMemory() { sweepMemory() }

// Scratch are the folders of children that compile for a cache.
func Scratch(folder string) []string {
	c := cache{folder: filepath.Join(folder, generation())}
	disk, _ := filepath.Glob(filepath.Join(c.folder, scratchPrefix+"*"))
	memory, _ := filepath.Glob(filepath.Join(inMemory, c.memoryName()+"*"))
	return append(disk, memory...)
}
