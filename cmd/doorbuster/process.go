package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// gcPercent lets the heap grow to five times what lives in it, unless GOGC says
// otherwise: orders allocate next to nothing, so a collection finds little, and each
// one shows in their P99.
const gcPercent = 400

// processors is how many there are, unless GOMAXPROCS says otherwise.
var processors = runtime.GOMAXPROCS(0)

// spareProcessors are what Go is told of beyond them. A thread that comes back from
// the sync of a group finds its place taken when there is much to do, and would wait
// behind all that is ready to run, with a few hundred orders behind it. With one place
// more the kernel lets it go on at once.
const spareProcessors = 1

// tuneProcess sets what a server wants of Go and of the system for its whole process.
func tuneProcess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors + spareProcessors)
	}
}
