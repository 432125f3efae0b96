package host

import (
	"math"
	"os"
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
