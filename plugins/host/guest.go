package host

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/tetratelabs/wazero/api"
)

// Guest is a running module as its imports see it: memory, fuel, and what WASI asks of
// a host. Every answer is a function of the evaluation's input. Work by size is paid
// for with the module's own fuel, and what an answer writes into memory is marked, so
// that reset finds it.
type Guest struct {
	Memory
	Fuel   api.MutableGlobal
	Now    int64  // every clock's time, Unix ms
	Random uint64 // state of the stream of random numbers
	// Input says whether descriptor 0 may be read.
	Input bool
	// Write takes what the module writes to descriptor 1 or 2.
	Write func(fd uint32, text []byte)
}

// Memory is a guest's memory.
type Memory interface {
	// At returns a range, or nil when it is out of bounds.
	At(address, n uint32) []byte
	// Mark pays for putting a range back, which is in bounds, and marks it, as the
	// module's own stores do.
	Mark(address, n uint32)
}

// Errno is one of WASI's error numbers.
type Errno uint32

// The error numbers that occur here.
const (
	Success Errno = 0
	BadFile Errno = 8
	Fault   Errno = 21
	Invalid Errno = 28
	NoSys   Errno = 52
	NoSeek  Errno = 70
)

// wasiAnswers are the WASI functions that do something for every kind of module. All
// the others that a module may import answer NoSys, or BadFile where Go's and
// Rust's start code ends its search for open folders with it.
var wasiAnswers = map[string]func(*Guest, []uint64) Errno{
	"args_sizes_get":      (*Guest).noStrings,
	"args_get":            succeed,
	"environ_sizes_get":   (*Guest).noStrings,
	"environ_get":         succeed,
	"clock_res_get":       (*Guest).clockResolution,
	"clock_time_get":      (*Guest).clockTime,
	"random_get":          (*Guest).randomGet,
	"sched_yield":         succeed,
	"poll_oneoff":         (*Guest).poll,
	"fd_write":            (*Guest).fdWrite,
	"fd_fdstat_get":       (*Guest).fdStat,
	"fd_fdstat_set_flags": succeed,
	"fd_prestat_get":      badFile,
	"fd_prestat_dir_name": badFile,
	"fd_close":            badFile,
	"fd_read":             badFile,
	"fd_seek":             badFile,
}

// WASI answers a call of a WASI function of preview 1.
func (g *Guest) WASI(name string, stack []uint64) Errno {
	if answer, ok := wasiAnswers[name]; ok {
		return answer(g, stack)
	}
	return NoSys
}

// SetErrno leaves the result of a WASI function on its stack. Those without
// parameters have room for it too.
func SetErrno(stack []uint64, errno Errno) {
	if len(stack) > 0 {
		stack[0] = uint64(errno)
	}
}

// ErrOutOfFuel ends an evaluation that cannot pay for what it asks of its host.
var ErrOutOfFuel = errors.New("out of fuel")

// Pay takes fuel for what the host does while the module calls it, and ends the
// evaluation when there is not enough.
func (g *Guest) Pay(units uint64) {
	if g.Take(units) < 0 {
		panic(ErrOutOfFuel)
	}
}

// Take takes fuel and returns what is left. Below 0, the module's next block ends the
// evaluation.
func (g *Guest) Take(units uint64) int64 {
	left := int64(g.Fuel.Get()) - int64(units)
	g.Fuel.Set(uint64(left))
	return left
}

// Writable returns a range to write to, or nil when it is out of bounds, and pays for
// it and marks it as the module's own stores do.
func (g *Guest) Writable(address, n uint32) []byte {
	b := g.At(address, n)
	if b != nil {
		g.Mark(address, n)
	}
	return b
}

// Put32 writes a number.
func (g *Guest) Put32(address, v uint32) Errno {
	b := g.Writable(address, 4)
	if b == nil {
		return Fault
	}
	binary.LittleEndian.PutUint32(b, v)
	return Success
}

func (g *Guest) put64(address uint32, v uint64) Errno {
	b := g.Writable(address, 8)
	if b == nil {
		return Fault
	}
	binary.LittleEndian.PutUint64(b, v)
	return Success
}

func succeed(*Guest, []uint64) Errno { return Success }

func badFile(*Guest, []uint64) Errno { return BadFile }

// noStrings: no arguments, no environment.
func (g *Guest) noStrings(stack []uint64) Errno {
	if errno := g.Put32(uint32(stack[0]), 0); errno != Success {
		return errno
	}
	return g.Put32(uint32(stack[1]), 0)
}

func (g *Guest) clockTime(stack []uint64) Errno {
	return g.put64(uint32(stack[2]), uint64(g.Now)*1_000_000)
}

func (g *Guest) clockResolution(stack []uint64) Errno {
	return g.put64(uint32(stack[1]), 1_000_000)
}

// randomGet writes the next bytes of a fixed stream (splitmix64).
func (g *Guest) randomGet(stack []uint64) Errno {
	n := uint32(stack[1])
	g.Pay(uint64(n))
	b := g.Writable(uint32(stack[0]), n)
	if b == nil {
		return Fault
	}
	var word [8]byte
	for len(b) > 0 {
		g.Random += 0x9e3779b97f4a7c15
		z := g.Random
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		b = b[copy(b, word[:]):]
	}
	return Success
}

// Layout of WASI's structures.
const (
	iovecBytes        = 8
	subscriptionBytes = 48
	eventBytes        = 32
	fdstatBytes       = 24
	filetypeCharacter = 2
	rightRead         = 1 << 1
	rightWrite        = 1 << 6
)

// list returns an array of n entries, or nil when it is out of bounds. The caller has
// paid for the entries.
func (g *Guest) list(address, n, entryBytes uint32) []byte {
	if bytes := uint64(n) * uint64(entryBytes); bytes <= math.MaxUint32 {
		return g.At(address, uint32(bytes))
	}
	return nil
}

// Vectors calls fn for the ranges of an array of vectors until it fails.
func (g *Guest) Vectors(iovs, n uint32, fn func(address, n uint32) Errno) Errno {
	g.Pay(uint64(n))
	vectors := g.list(iovs, n, iovecBytes)
	if vectors == nil {
		return Fault
	}
	for ; len(vectors) > 0; vectors = vectors[iovecBytes:] {
		if errno := fn(binary.LittleEndian.Uint32(vectors), binary.LittleEndian.Uint32(vectors[4:])); errno != Success {
			return errno
		}
	}
	return Success
}

// fdWrite: descriptors 1 and 2 are open.
func (g *Guest) fdWrite(stack []uint64) Errno {
	fd, written := uint32(stack[0]), uint32(0)
	if fd != 1 && fd != 2 {
		return BadFile
	}
	errno := g.Vectors(uint32(stack[1]), uint32(stack[2]), func(address, n uint32) Errno {
		text := g.At(address, n)
		if text == nil {
			return Fault
		}
		g.Write(fd, text)
		written += n
		return Success
	})
	if errno != Success {
		return errno
	}
	return g.Put32(uint32(stack[3]), written)
}

// fdStat: descriptors 0, 1 and 2 are a terminal's.
func (g *Guest) fdStat(stack []uint64) Errno {
	fd := uint32(stack[0])
	if fd > 2 {
		return BadFile
	}
	b := g.Writable(uint32(stack[1]), fdstatBytes)
	if b == nil {
		return Fault
	}
	rights := uint64(rightWrite)
	if fd == 0 && g.Input { // ABI v1 answers rules as if they could write to it
		rights = rightRead
	}
	clear(b)
	b[0] = filetypeCharacter
	binary.LittleEndian.PutUint64(b[8:], rights)
	return Success
}

// poll: every subscription is ready at once, since no time passes in an evaluation.
// An event repeats its subscription's user data and kind.
func (g *Guest) poll(stack []uint64) Errno {
	in, out, n := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
	if n == 0 {
		return Invalid
	}
	g.Pay(uint64(n) * eventBytes)
	subscriptions := g.list(in, n, subscriptionBytes)
	if subscriptions == nil {
		return Fault
	}
	events := g.Writable(out, n*eventBytes) // shorter than the subscriptions
	if events == nil {
		return Fault
	}
	for range n {
		clear(events[:eventBytes])
		copy(events[:8], subscriptions[:8]) // user data
		events[10] = subscriptions[8]       // kind
		subscriptions, events = subscriptions[subscriptionBytes:], events[eventBytes:]
	}
	return g.Put32(uint32(stack[3]), n)
}
