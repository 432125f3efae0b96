package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// TestHeapAsksForHugePages looks for the kernel's own note, "hg", on memory that the heap
// grows into after the start.
func TestHeapAsksForHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no huge pages to ask for")
	}
	reserveHugePages()
	grown := make([]byte, 16<<20)
	if flags := flagsOf(t, uintptr(unsafe.Pointer(&grown[len(grown)/2]))); !slices.Contains(flags, "hg") {
		t.Fatalf("the heap's memory has the flags %v", flags)
	}
	runtime.KeepAlive(grown)
}

// flagsOf returns what /proc/self/smaps notes of the memory at an address.
func flagsOf(t *testing.T, address uintptr) []string {
	t.Helper()
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	inside := false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= address && address < to
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("%x is not mapped", address)
	return nil
}
