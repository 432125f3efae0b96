package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/gas"
)

// child is a compiler's process, seen from the server. It compiles one module at a time
// for one caller, who has it to themselves.
type child struct {
	priority priority
	busy     func() bool // see Config.Busy
	scratch  string      // its folder, where it leaves the code of a module; goes with it
	held     *os.File    // its folder again, locked, or nil: see sweepMemory
	modules  *os.File    // to it
	answers  *os.File    // from it
	command  *exec.Cmd
	report   head          // what it says of its end, to be read then
	ended    chan struct{} // closed when it has ended
}

// Bounds, in bytes, on what a child says of its end, and of a module.
const (
	reportMax = 4 << 10
	answerMax = 4 << 20
)

// begin starts a child, which works in memory if there is so much room, in bytes.
func (c *cache) begin(p priority, room uint64) (*child, error) {
	scratch, held, err := c.scratch(room)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	started := &child{priority: p, busy: c.config.Busy, scratch: scratch, held: held, report: head{max: reportMax}, ended: make(chan struct{})}
	if err := started.start(c.config); err != nil {
		started.clear()
		return nil, fmt.Errorf("host: the compiler did not run: %w", err)
	}
	if p == idle {
		// It does so itself, but starting a process of this size takes 9 ms. What goes
		// wrong here goes wrong there too, and is told.
		_ = makeIdle(started.command.Process.Pid)
	}
	go started.wait()
	return started, nil
}

// start starts the process, with a pipe to it and one from it.
func (w *child) start(config *Config) (err error) {
	in, modules, err := os.Pipe()
	if err != nil {
		return err
	}
	answers, out, err := os.Pipe()
	if err != nil {
		return errors.Join(err, in.Close(), modules.Close())
	}
	w.modules, w.answers = modules, answers
	w.command = exec.Command(config.Compiler[0], config.Compiler[1:]...)
	w.command.Args = append(w.command.Args, w.scratch, strconv.FormatUint(config.CompileMemory, 10),
		strconv.Itoa(int(config.CompileCPU.Seconds())), string(w.priority))
	w.command.Env = []string{"GOMAXPROCS=1"} // the other processors are for orders
	w.command.Dir = w.scratch
	w.command.Stdin, w.command.Stdout, w.command.Stderr = in, out, &w.report
	// It must not outlive the server, and stands back behind orders as a group.
	w.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = w.command.Start()
	_, _ = in.Close(), out.Close() // the process has its own
	if err != nil {
		err = errors.Join(err, modules.Close(), answers.Close())
	}
	return err
}

// wait waits for the child's end, which may come while its last module's code is still in
// its folder.
func (w *child) wait() {
	_ = w.command.Wait() // command.ProcessState says how
	_ = w.modules.Close()
	close(w.ended)
}

// end ends the child, if it has not ended, and removes what is left of it.
func (w *child) end() {
	_ = w.command.Process.Kill()
	<-w.ended
	_ = w.answers.Close()
	w.clear()
}

// clear removes its folder.
func (w *child) clear() {
	_ = os.RemoveAll(w.scratch) // the next start of the server tries again
	if w.held != nil {
		_ = w.held.Close() // it was locked
	}
}

// errEnded: the child ended before it had answered.
var errEnded = errors.New("host: the compiler ended")

// compile has the child compile a module, whose code is in its folder then. A *gas.Error
// is its refusal; after another error it is of no more use. It ends an idle one that gets
// too little of a processor, or so little that it is not done in time, with errStarved.
func (w *child) compile(ctx context.Context, most time.Duration, policy, wasm []byte) error {
	late := errLate
	if w.priority == idle {
		late = errStarved
	}
	ctx, cancel := context.WithTimeoutCause(ctx, most, late)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if w.priority == idle {
		go watchIdle(ctx, w.command.Process.Pid, end)
		defer w.rests(ctx)()
	}
	over := context.AfterFunc(ctx, w.end)
	refusal, err := w.ask(policy, wasm)
	switch {
	case over() && err == nil:
		return refusal
	case errors.Is(context.Cause(ctx), errStarved):
		return errStarved
	case ctx.Err() != nil:
		return fmt.Errorf("host: the compiler was ended: %w", context.Cause(ctx))
	}
	return errEnded
}

// ask sends a module and its policy, and waits for what the child says of it, see
// frameSize.
func (w *child) ask(policy, wasm []byte) (refusal, err error) {
	for _, frame := range [][]byte{policy, wasm} {
		var size [frameSize]byte
		binary.LittleEndian.PutUint32(size[:], uint32(len(frame)))
		if _, err := w.modules.Write(size[:]); err != nil {
			return nil, err
		}
		if _, err := w.modules.Write(frame); err != nil {
			return nil, err
		}
	}
	said, err := readFrame(w.answers, answerMax)
	if err != nil || len(said) == 0 {
		return nil, err
	}
	return decodeRefusal(said)
}

// decodeRefusal reads the faults that a child found. What no terminal or log should get is
// quoted: the child has worked on what a stranger wrote.
func decodeRefusal(said []byte) (refusal, err error) {
	var faults gas.Error
	if err := json.Unmarshal(said, &faults); err != nil {
		return nil, fmt.Errorf("host: the compiler's answer: %w", err)
	}
	if len(faults.Faults) == 0 || len(faults.Faults) > gas.FaultsMax {
		return nil, fmt.Errorf("host: the compiler found %d faults", len(faults.Faults))
	}
	for i := range faults.Faults {
		for _, text := range []*string{&faults.Faults[i].Section, &faults.Faults[i].Reason} {
			if strings.ContainsFunc(*text, func(r rune) bool { return !strconv.IsPrint(r) }) {
				*text = strconv.Quote(*text)
			}
		}
	}
	return &faults, nil
}

var (
	// errStarved: an idle child got less than its share, or than it took in CompileWait.
	errStarved = errors.New("host: the machine is too busy to compile for nothing")
	// errLate: so did one that has a share of its own.
	errLate = errors.New("host: the machine is too busy to compile")
)

// watchIdle ends a child's context with errStarved when the child has got less than
// 1/CompileShare of a processor since the call. It looks every CompilePatience until the
// context ends.
func watchIdle(ctx context.Context, pid int, end context.CancelCauseFunc) {
	begin := clockd.Mono()
	before, _ := processorTime(pid)
	for clockd.SleepUntil(ctx, clockd.Mono()+int64(CompilePatience)) == nil {
		used, err := processorTime(pid)
		if err == nil && int64(used-before) < (clockd.Mono()-begin)/CompileShare {
			end(errStarved)
		}
	}
}

// rests has the child stand still for CompilePiece after each such time of work while this
// process is busy, until ctx ends or end is called. After that the child works again.
func (w *child) rests(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var resting sync.WaitGroup
	resting.Go(func() {
		for clockd.SleepUntil(ctx, clockd.Mono()+int64(CompilePiece)) == nil {
			if !w.busy() {
				continue
			}
			_ = w.command.Process.Signal(syscall.SIGSTOP) // or it has ended
			_ = clockd.SleepUntil(ctx, clockd.Mono()+int64(CompilePiece))
			_ = w.command.Process.Signal(syscall.SIGCONT)
		}
	})
	return func() {
		cancel()
		resting.Wait()
	}
}

// outOfMemory is how a child of Go ends when it gets no more, from the heap or a mapping
// for code, and a thread's stack, by Go's runtime (ENOMEM; EAGAIN is the machine's) or C's.
var outOfMemory = []string{"out of memory", "cannot allocate memory", "errno=12)", "pthread_create failed"}

// childFault says why a child ended with its first module.
func (c *cache) childFault(ended *child) error {
	report := ended.report.String()
	var status syscall.WaitStatus
	if state := ended.command.ProcessState; state != nil {
		status, _ = state.Sys().(syscall.WaitStatus)
	}
	switch {
	case status.Exited() && status.ExitStatus() == exitRefused:
		return refused("code", "%q", report)
	case status.Signaled() && status.Signal() == syscall.SIGXCPU:
		return refused("code", "compiling it takes more than %s of processor time", c.config.CompileCPU)
	case slices.ContainsFunc(outOfMemory, func(words string) bool { return strings.Contains(report, words) }):
		if err := spare(c.config.CompileMemory); err != nil {
			return fmt.Errorf("host: the machine has not the memory to compile: %w", err)
		}
		return refused("code", "compiling it takes more than %d MiB of memory", c.config.CompileMemory>>20)
	}
	first, _, _ := strings.Cut(report, "\n")
	return fmt.Errorf("host: the compiler failed: %s: %q", ended.command.ProcessState, first)
}

// spare says why the machine would give a process fewer bytes than these. The system
// words it alike when a child gets no more, whether its own limit is reached, the
// machine's (vm.overcommit_memory) or the one of whoever started the server (ulimit -v).
// A child that had all that it may have has just given as much back; one that had less
// has not.
func spare(bytes uint64) error {
	memory, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	return unix.Munmap(memory)
}

// filled says whether a child ended because there was no room left in memory, where it worked:
// others use that folder, too.
func (w *child) filled() bool {
	return w.held != nil && strings.Contains(w.report.String(), syscall.ENOSPC.Error())
}

// head keeps the first bytes that are written to it.
type head struct {
	bytes.Buffer
	max int
}

func (h *head) Write(b []byte) (int, error) {
	_, _ = h.Buffer.Write(b[:min(len(b), h.max-h.Len())])
	return len(b), nil
}
