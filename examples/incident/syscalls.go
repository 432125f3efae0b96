package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
)

var syscallsChapter = chapter{
	number: 5, title: "The system calls", file: "syscalls.go",
	prose: `
To be safe, each order was written to the log and synced by itself. A sync takes as long for one
order as for a thousand, and while it runs nobody else can write.

Group commit is Doorbuster's own journal: while one sync is under way, the next group gathers by
itself, and is written and synced as one. Every shopper still waits for the sync that covers
their order. What is counted is every system call of the whole process, by strace; the speed is
of runs without strace.`,
	run: runSyscalls,
}

// journalWriters are the shoppers who wait for their order to be durable.
const journalWriters = 400

// record is an order on disk; its size is about that of a real one.
var orderRecord = []byte(`{"deal":"d-1","user":"u-0000000007","key":"r1-0-0000000001","quantity":2,"total":19800,"available":1000}` + "\n")

// orderLog makes orders durable: append returns when this one is.
type orderLog interface {
	append(writer int, record []byte) error
	close() error
}

// ── As it was ──────────────────────────────────────────────────────────────

type syncedLog struct {
	mu   sync.Mutex // one write and its sync at a time
	file *os.File
}

func (l *syncedLog) append(_ int, record []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(record); err != nil { // one system call
		return err
	}
	return l.file.Sync() // and another, which waits for the disk, as everybody now does
}

func (l *syncedLog) close() error { return l.file.Close() }

// ── As it is ───────────────────────────────────────────────────────────────

type groupLog struct {
	store     *embedded.Store
	committer *journal.Committer
	streams   []groupStream // one for each writer
}

// groupStream is a writer's own stream of events. It is its own completer.
type groupStream struct {
	write journal.Write
	done  chan struct{}
}

// append hands the order to the committer and waits for the sync that covers it.
func (l *groupLog) append(writer int, record []byte) error {
	s := &l.streams[writer]
	s.write.Seq++
	s.write.Data = journal.AppendEvent(s.write.Data[:0], record)
	l.committer.Submit(&s.write) // joins the group that is gathering
	<-s.done                     // the group is on disk
	return s.write.Err
}

// Committed implements journal.Completer.
func (s *groupStream) Committed(*journal.Write) { s.done <- struct{}{} }

func (l *groupLog) close() error {
	l.committer.Close()
	return l.store.Close()
}

// ── The comparison ─────────────────────────────────────────────────────────

// The logs by the names that the sides of the comparison have.
const (
	logSynced = "a write and a sync an order"
	logGroup  = "group commit"
)

func openLog(ctx context.Context, kind, dir string) (orderLog, error) {
	switch kind {
	case logSynced:
		f, err := os.OpenFile(filepath.Join(dir, "orders.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		return &syncedLog{file: f}, err
	case logGroup:
		return openGroupLog(ctx, dir)
	}
	return nil, fmt.Errorf("no such log: %q", kind)
}

func openGroupLog(ctx context.Context, dir string) (*groupLog, error) {
	store, err := embedded.Open(embedded.Config{
		Dir: dir, Now: clockd.Mono, Wall: func() int64 { return 0 }, Reserve: -1,
		Fatal: func(err error) { panic(err) }, // this process has nothing else to do
	})
	if err != nil {
		return nil, err
	}
	committer, err := journal.NewCommitter(store, journal.Config{Fatal: func(err error) { panic(err) }})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	l := &groupLog{store: store, committer: committer, streams: make([]groupStream, journalWriters)}
	for i := range l.streams {
		name := "d-" + strconv.Itoa(i)
		head, err := store.Open(ctx, name)
		if err != nil {
			return nil, errors.Join(err, store.Close())
		}
		s := &l.streams[i]
		s.done = make(chan struct{}, 1)
		s.write = journal.Write{Stream: name, Epoch: head.Epoch, Seq: head.Seq, Count: 1, Done: s}
	}
	committer.Start()
	return l, nil
}

// journalReport is what a log's process says at its end.
type journalReport struct {
	Orders  int64
	Seconds float64
}

// writeJournal is a log under its writers, in a process of its own.
func writeJournal(ctx context.Context, args []string, _ io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("journal", flag.ContinueOnError)
	kind := flags.String("log", logSynced, "")
	length := flags.Duration("length", time.Second, "")
	dir := flags.String("dir", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := openLog(ctx, *kind, *dir)
	if err != nil {
		return err
	}
	var orders atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, journalWriters)
	begin := clockd.Mono()
	for w := range journalWriters {
		wait.Go(func() {
			for errs[w] == nil && clockd.Mono()-begin < int64(*length) {
				errs[w] = l.append(w, orderRecord)
				orders.Add(1)
			}
		})
	}
	wait.Wait()
	report := journalReport{orders.Load(), time.Duration(clockd.Mono() - begin).Seconds()}
	return errors.Join(errors.Join(errs...), l.close(), json.NewEncoder(out).Encode(report))
}

func (s *session) syscallsPair() pair {
	p := pair{title: "an order", columns: []column{
		{"orders/s", "%.0f"}, {"writes/order", "%.3f"}, {"syncs/order", "%.3f"}, {"futexes/order", "%.3f"}, {"all system calls/order", "%.2f"},
	}}
	for _, kind := range []string{logSynced, logGroup} {
		p.sides = append(p.sides, side{kind, func(ctx context.Context) (figures, error) {
			free, err := s.journalRound(ctx, kind, "")
			if err != nil {
				return nil, err
			}
			counts := filepath.Join(s.dir, "strace")
			traced, err := s.journalRound(ctx, kind, counts)
			if err != nil {
				return nil, err
			}
			text, err := os.ReadFile(counts)
			if err != nil {
				return nil, err
			}
			calls, err := parseStrace(string(text))
			if err != nil {
				return nil, err
			}
			n := float64(traced.Orders)
			return figures{float64(free.Orders) / free.Seconds, calls.writes / n, calls.syncs / n, calls.futexes / n, calls.all / n}, nil
		}})
	}
	return p
}

// journalRound runs a log for half a round, under strace if its counts have a
// file to go to.
func (s *session) journalRound(ctx context.Context, kind, counts string) (r journalReport, err error) {
	dir, err := os.MkdirTemp(s.dir, "journal-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := []string{s.self, childWord, "journal", "--log", kind, "--length", (s.length / 2).String(), "--dir", dir}
	if counts != "" {
		if _, err := exec.LookPath("strace"); err != nil {
			return r, fmt.Errorf("strace is missing (Debian: apt-get install strace): %w", err)
		}
		args = append([]string{"strace", "-f", "-c", "-o", counts}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// calls are numbers of system calls.
type calls struct{ writes, syncs, futexes, all float64 }

// parseStrace reads the table of strace -c: "% time  seconds  usecs/call
// calls  errors  syscall", errors only where there are some.
func parseStrace(table string) (c calls, err error) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		n, err := strconv.ParseFloat(fields[3], 64)
		if err != nil {
			continue // the head, or a rule
		}
		switch fields[len(fields)-1] {
		case "write", "writev", "pwrite64", "pwritev":
			c.writes += n
		case "fsync", "fdatasync", "sync_file_range", "msync":
			c.syncs += n
		case "futex": // a thread goes to sleep, or wakes another
			c.futexes += n
		case "total":
			continue
		}
		c.all += n
	}
	if c.all == 0 {
		return c, fmt.Errorf("strace counted nothing:\n%s", table)
	}
	return c, nil
}

func runSyscalls(ctx context.Context, s *session) (string, error) {
	r, err := s.measure(ctx, s.rounds, s.syscallsPair())
	if err != nil {
		return "", err
	}
	speed, err := s.plot("syscalls", "Chapter 5: orders/s, every one synced", r.bars(0))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d writers who each wait for their order; %d rounds of each side, of which one half runs\n"+
		"free and one half under `strace -f -c`. The counts include the process's start and end.\n", journalWriters, s.rounds) + r.markdown() + speed +
		"\nUnder strace every call is slower, so groups grow a little differently than they do free.\n", nil
}
