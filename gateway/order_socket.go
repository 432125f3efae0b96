package gateway

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// transferMax bounds what one call copies, bytes: until it returns, Go can stop nobody.
const transferMax = 64 << 10

// send and receive are the system calls of these names, which wait for no packet here and move what
// they can of p. They cost
// less than write and read, which the kernel has to lead to a socket first, and Go's scheduler is
// not told of them: it would take the processor from a loop whose call is a little longer.

func send(fd int, p []byte) (int, error) {
	return transfer(unix.SYS_SENDTO, fd, p, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func receive(fd int, p []byte) (int, error) {
	return transfer(unix.SYS_RECVFROM, fd, p, unix.MSG_DONTWAIT)
}

func transfer(call uintptr, fd int, p []byte, flags uintptr) (int, error) {
	p = p[:min(len(p), transferMax)]
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
