package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// shiftedClock replaces the vDSO's clock_gettime(clock, *timespec) in a process: it
// asks the kernel, and adds to CLOCK_REALTIME the seconds that stand behind it. There
// is no namespace for that clock, and a Go program uses no C library that could be
// told to lie.
var shiftedClock = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228 (clock_gettime)
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi (0 is CLOCK_REALTIME)
	0x75, 0x0a, // jne to ret
	0x48, 0x8b, 0x15, 0x04, 0x00, 0x00, 0x00, // mov rdx, [rip+4]
	0x48, 0x01, 0x16, // add [rsi], rdx
	0xc3, // ret
}

// stepClock moves the wall clock of one process, and of no other, by whole seconds
// from what the machine shows. 0 moves it back.
func stepClock(ctx context.Context, pid int, by time.Duration) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("clock steps are written for amd64")
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	mem, err := os.OpenFile(filepath.Join(proc, "mem"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }() // nothing is buffered
	from, to, err := vdso(proc)
	if err != nil {
		return err
	}
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, from); err != nil {
		return fmt.Errorf("vDSO: %w", err)
	}
	at, err := clockGettime(image)
	if err != nil {
		return err
	}
	code := binary.LittleEndian.AppendUint64(bytes.Clone(shiftedClock), uint64(int64(by/time.Second)))
	return errors.Join(whileOutside(ctx, pid, proc, from, to, func() error {
		_, err := mem.WriteAt(code, from+at)
		return err
	}))
}

// vdso returns where the kernel's code lies in a process.
func vdso(proc string) (from, to int64, err error) {
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, fmt.Errorf("%s has no vDSO", proc)
}

func clockGettime(image []byte) (at int64, err error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, symbol := range symbols {
		if symbol.Name == "__vdso_clock_gettime" {
			return int64(symbol.Value), nil
		}
	}
	return 0, errors.New("the vDSO has no clock_gettime")
}

// whileOutside stops the process at a moment at which none of its threads runs code
// between two addresses, and calls fn.
func whileOutside(ctx context.Context, pid int, proc string, from, to int64, fn func() error) error {
	const tries = 1000
	for range tries {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		inside, err := threadInside(ctx, proc, from, to)
		if err == nil && !inside {
			err = fn()
		}
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT))
		if err != nil || !inside {
			return err
		}
	}
	return fmt.Errorf("a thread of process %d is always in the vDSO", pid)
}

// threadInside waits until all threads of a stopped process have stopped.
func threadInside(ctx context.Context, proc string, from, to int64) (bool, error) {
	threads, err := filepath.Glob(filepath.Join(proc, "task", "*", "syscall"))
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		// "running", or "-1 <stack pointer> <program counter>", or these behind the
		// number and the arguments of a system call.
		text := "running"
		for text == "running" {
			b, err := os.ReadFile(thread)
			if errors.Is(err, os.ErrNotExist) {
				break // the thread has ended
			}
			if err != nil {
				return false, err
			}
			if text = strings.TrimSpace(string(b)); text == "running" {
				if err := clockd.SleepUntil(ctx, clockd.Mono()+int64(time.Millisecond)); err != nil {
					return false, err
				}
			}
		}
		fields := strings.Fields(text)
		counter, err := strconv.ParseInt(fields[len(fields)-1], 0, 64)
		if text != "running" && (err != nil || from <= counter && counter < to) {
			return true, nil
		}
	}
	return false, nil
}
