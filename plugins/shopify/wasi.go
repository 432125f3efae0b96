package shopify

import "github.com/doorbuster/doorbuster/plugins/host"

// wasiAnswers are the WASI functions that a function's standard streams and its exit
// code need: what is not among them is answered as for every guest.
var wasiAnswers = map[string]func(*instance, []uint64) host.Errno{
	"proc_exit": (*instance).procExit,
	"fd_read":   (*instance).fdRead,
	"fd_seek":   ofStreams(host.NoSeek),
	"fd_close":  ofStreams(host.Success),
}

func wasiAnswer(name string) answer {
	a, ok := wasiAnswers[name]
	if !ok {
		a = func(i *instance, stack []uint64) host.Errno { return i.WASI(name, stack) }
	}
	return func(i *instance, stack []uint64) { host.SetErrno(stack, a(i, stack)) }
}

// ofStreams answers for the standard streams, which are pipes.
func ofStreams(errno host.Errno) func(*instance, []uint64) host.Errno {
	return func(_ *instance, stack []uint64) host.Errno {
		if uint32(stack[0]) > 2 {
			return host.BadFile
		}
		return errno
	}
}

func (i *instance) procExit(stack []uint64) host.Errno {
	code := uint32(stack[0])
	i.exit = &code
	panic(errExit)
}

// fdRead: descriptor 0 is the input.
func (i *instance) fdRead(stack []uint64) host.Errno {
	if uint32(stack[0]) != 0 {
		return host.BadFile
	}
	read := uint32(0)
	errno := i.Vectors(uint32(stack[1]), uint32(stack[2]), func(address, n uint32) host.Errno {
		if i.At(address, n) == nil {
			return host.Fault
		}
		n = min(n, uint32(len(i.stdin)))
		i.payText(n)
		copy(i.Writable(address, n), i.stdin)
		i.stdin = i.stdin[n:]
		read += n
		return host.Success
	})
	if errno != host.Success {
		return errno
	}
	return i.Put32(uint32(stack[3]), read)
}

// write: descriptor 1 is the output, 2 the log.
func (i *instance) write(fd uint32, text []byte) {
	i.payText(uint32(len(text)))
	if fd == 2 {
		i.log.add(text)
		return
	}
	if len(i.stdout)+len(text) > OutputBytesMax {
		panic(errOutputSize)
	}
	i.stdout = append(i.stdout, text...)
}
