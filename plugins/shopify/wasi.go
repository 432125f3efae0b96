package shopify

import "encoding/binary"

// WASI's error numbers.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoFault   = 21
	errnoInval   = 28
	errnoNosys   = 52
	errnoSpipe   = 70
)

// wasiAnswers are the WASI functions that do something. All the others answer
// errnoNosys.
var wasiAnswers = map[string]func(*instance, []uint64) uint32{
	"args_sizes_get":      (*instance).noStrings,
	"args_get":            (*instance).succeed,
	"environ_sizes_get":   (*instance).noStrings,
	"environ_get":         (*instance).succeed,
	"clock_res_get":       (*instance).clockResolution,
	"clock_time_get":      (*instance).clockTime,
	"random_get":          (*instance).randomGet,
	"sched_yield":         (*instance).succeed,
	"proc_exit":           (*instance).procExit,
	"fd_read":             (*instance).fdRead,
	"fd_write":            (*instance).fdWrite,
	"fd_fdstat_get":       (*instance).fdStat,
	"fd_fdstat_set_flags": (*instance).succeed,
	"fd_seek":             (*instance).fdSeek,
	"fd_close":            (*instance).fdClose,
	"fd_prestat_get":      (*instance).badDescriptor,
	"fd_prestat_dir_name": (*instance).badDescriptor,
}

func wasiAnswer(name string) answer {
	a, ok := wasiAnswers[name]
	if !ok {
		a = func(*instance, []uint64) uint32 { return errnoNosys }
	}
	return func(i *instance, stack []uint64) {
		errno := a(i, stack)
		if len(stack) > 0 {
			stack[0] = uint64(errno)
		}
	}
}

func (i *instance) succeed([]uint64) uint32 { return errnoSuccess }

func (i *instance) badDescriptor([]uint64) uint32 { return errnoBadf }

// fdSeek: the standard streams are pipes.
func (i *instance) fdSeek(stack []uint64) uint32 {
	if uint32(stack[0]) > 2 {
		return errnoBadf
	}
	return errnoSpipe
}

func (i *instance) fdClose(stack []uint64) uint32 {
	if uint32(stack[0]) > 2 {
		return errnoBadf
	}
	return errnoSuccess
}

func (i *instance) procExit(stack []uint64) uint32 {
	code := uint32(stack[0])
	i.exit = &code
	panic(errExit)
}

// noStrings: no arguments, no environment.
func (i *instance) noStrings(stack []uint64) uint32 {
	if errno := i.put32(uint32(stack[0]), 0); errno != errnoSuccess {
		return errno
	}
	return i.put32(uint32(stack[1]), 0)
}

// clockTime: every clock stands at the order's stamp.
func (i *instance) clockTime(stack []uint64) uint32 {
	return i.put64(uint32(stack[2]), uint64(i.now)*1_000_000)
}

func (i *instance) clockResolution(stack []uint64) uint32 {
	return i.put64(uint32(stack[1]), 1_000_000)
}

// randomGet writes the next bytes of a fixed stream (splitmix64).
func (i *instance) randomGet(stack []uint64) uint32 {
	n := uint32(stack[1])
	i.pay(uint64(n))
	b := i.writable(uint32(stack[0]), n)
	if b == nil {
		return errnoFault
	}
	var word [8]byte
	for len(b) > 0 {
		i.random += 0x9e3779b97f4a7c15
		z := i.random
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		b = b[copy(b, word[:]):]
	}
	return errnoSuccess
}

// Layout of WASI's structures.
const (
	iovecBytes  = 8
	iovecsMax   = 1_024
	fdstatBytes = 24

	filetypeCharacter = 2
	rightRead         = 1 << 1
	rightWrite        = 1 << 6
)

// vectors calls fn for the ranges of an array of vectors until it returns false.
func (i *instance) vectors(iovs, n uint32, fn func(address, n uint32) uint32) uint32 {
	if n > iovecsMax {
		return errnoInval
	}
	i.pay(uint64(n))
	list := i.bytesAt(iovs, n*iovecBytes)
	if list == nil {
		return errnoFault
	}
	for ; len(list) > 0; list = list[iovecBytes:] {
		if errno := fn(binary.LittleEndian.Uint32(list), binary.LittleEndian.Uint32(list[4:])); errno != errnoSuccess {
			return errno
		}
	}
	return errnoSuccess
}

// fdRead: descriptor 0 is the input.
func (i *instance) fdRead(stack []uint64) uint32 {
	if uint32(stack[0]) != 0 {
		return errnoBadf
	}
	read := uint32(0)
	errno := i.vectors(uint32(stack[1]), uint32(stack[2]), func(address, n uint32) uint32 {
		if i.bytesAt(address, n) == nil {
			return errnoFault
		}
		n = min(n, uint32(len(i.stdin)))
		i.pay(uint64(n) / 8)
		copy(i.writable(address, n), i.stdin)
		i.stdin = i.stdin[n:]
		read += n
		return errnoSuccess
	})
	if errno != errnoSuccess {
		return errno
	}
	return i.put32(uint32(stack[3]), read)
}

// fdWrite: descriptor 1 is the output, 2 the log.
func (i *instance) fdWrite(stack []uint64) uint32 {
	fd, written := uint32(stack[0]), uint32(0)
	if fd != 1 && fd != 2 {
		return errnoBadf
	}
	errno := i.vectors(uint32(stack[1]), uint32(stack[2]), func(address, n uint32) uint32 {
		text := i.bytesAt(address, n)
		if text == nil {
			return errnoFault
		}
		i.pay(uint64(n) / 8)
		written += n
		if fd == 2 {
			i.log.add(text)
			return errnoSuccess
		}
		if len(i.stdout)+len(text) > OutputBytesMax {
			panic(errOutputSize)
		}
		i.stdout = append(i.stdout, text...)
		return errnoSuccess
	})
	if errno != errnoSuccess {
		return errno
	}
	return i.put32(uint32(stack[3]), written)
}

// fdStat: descriptors 0, 1 and 2 are a terminal's.
func (i *instance) fdStat(stack []uint64) uint32 {
	fd := uint32(stack[0])
	if fd > 2 {
		return errnoBadf
	}
	b := i.writable(uint32(stack[1]), fdstatBytes)
	if b == nil {
		return errnoFault
	}
	clear(b)
	b[0] = filetypeCharacter
	rights := uint64(rightWrite)
	if fd == 0 {
		rights = rightRead
	}
	binary.LittleEndian.PutUint64(b[8:], rights)
	return errnoSuccess
}
