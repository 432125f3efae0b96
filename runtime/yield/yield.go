// Package yield lets threads of this process that work for long share their processor
// with others.
//
// Go takes turns among goroutines; what the kernel sees is a thread that computes until
// its next tick, up to 4 ms. A thread that was woken for an order may be queued behind it
// though another processor is idle: on a machine that was busy of late Linux looks for
// none (select_idle_cpu in kernel/sched/fair.c). So work that is not an order's goes
// by pieces, and stands back after each.
package yield

import (
	"io"
	"syscall"
)

// PieceBytes is how much is copied, compared, hashed or read between two yields: 10 to
// 100 µs, the kernel's work on new pages included. A Go runtime that has to stop all
// goroutines waits for no longer either.
const PieceBytes = 64 << 10

// Thread lets a thread that waits for this one's processor have it, and takes less than
// a microsecond when none does. It is not runtime.Gosched, of which the kernel does not hear.
func Thread() { _, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) } // it always succeeds

// Pieces calls do with the parts of 0 to n, in order, and yields after each, until one
// returns false.
func Pieces(n int, do func(from, to int) bool) bool {
	for from := 0; from < n; from += PieceBytes {
		if !do(from, min(from+PieceBytes, n)) {
			return false
		}
		Thread()
	}
	return true
}

// Write writes all of b to w, which never fails: a hash.
func Write(w io.Writer, b []byte) {
	Pieces(len(b), func(from, to int) bool {
		_, _ = w.Write(b[from:to])
		return true
	})
}

// Reader reads from another by pieces.
type Reader struct{ From io.Reader }

// Read implements io.Reader.
func (r Reader) Read(p []byte) (int, error) {
	n, err := r.From.Read(p[:min(len(p), PieceBytes)])
	Thread()
	return n, err
}
