package main

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/clockd"
)

// The orders of a thousand deals lie all over the heap and the store's tables. With pages
// of 4 KiB nearly each look at one costs the processor a walk through the page tables, in
// a virtual machine through two of them. Linux gives pages of 2 MiB to those who ask
// (transparent_hugepage "madvise", as most distributions set it), which Go does not.
// An operator who wants none of them sets "never".
const (
	// hugeMin is the size from which on memory is worth asking about, bytes.
	hugeMin = 4 << 20
	// hugeTick is how soon new memory is asked about. What was used before keeps its pages.
	hugeTick = 250 * time.Millisecond
	// heapRoomMax bounds the addresses that the heap gets at the start, bytes.
	heapRoomMax = 1 << 30
	// heapRoomShare is which part of the machine's memory they are at most: a system that
	// is strict about what it promises counts them.
	heapRoomShare = 8
)

// reserveHugePages lets the heap grow into addresses that have been asked about: it
// grows by so little at a time that the tick would come too late. They cost no memory
// until they are used.
func reserveHugePages() {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return
	}
	total := uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // narrower on other processors
	room := make([]byte, min(heapRoomMax, total/heapRoomShare))
	askForHugePages()
	runtime.KeepAlive(room)
	runtime.GC() // it must not count as what lives, of which the heap may grow to a multiple
}

// followGrowth asks for what the process has got since, until the clock is closed.
func followGrowth(clock *clockd.Clock) {
	for clock.Sleep(context.Background(), hugeTick) == nil {
		askForHugePages()
	}
}

// askForHugePages asks for all large anonymous memory that the process has. It fails
// where there are no huge pages, or none of them is free: then pages are small.
func askForHugePages() {
	self, err := procfs.Self()
	if err != nil {
		return
	}
	maps, err := self.ProcMaps()
	if err != nil {
		return
	}
	for _, m := range maps {
		if size := m.EndAddr - m.StartAddr; size >= hugeMin && m.Perms.Write && m.Perms.Private && m.Inode == 0 {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.StartAddr, size, unix.MADV_HUGEPAGE)
		}
	}
}
