package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

//go:embed orders.lua
var ordersLua []byte

// WrkTimeout is beyond the longest wait that is expected. An answer that takes
// longer is missing in wrk's quantiles; by its own default of two seconds those
// would be most answers of a server that is in trouble.
const WrkTimeout = 15 * time.Second

// wrkRuns counts the runs of wrk: each has idempotency keys of its own.
var wrkRuns atomic.Int64

// ErrNoAnswers means that a run of wrk ended before the first answer: it was too short for
// this server on this machine.
var ErrNoAnswers = errors.New("wrk: nothing was answered in time")

// Wrk posts orders that differ in deal, user, quantity and code, as fast as the
// answers come.
type Wrk struct {
	Threads     int
	Connections int
	Path        string // of the orders

	script string
}

// NewWrk writes the script into dir. An error says that wrk is missing.
func NewWrk(dir string, threads, connections int, path string) (*Wrk, error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return nil, fmt.Errorf("wrk is missing (Debian: apt-get install wrk): %w", err)
	}
	script := filepath.Join(dir, "orders.lua")
	return &Wrk{Threads: threads, Connections: connections, Path: path, script: script}, os.WriteFile(script, ordersLua, 0o600)
}

// String is the command, for who wants to repeat it.
func (w *Wrk) String() string { return fmt.Sprintf("wrk -t%d -c%d", w.Threads, w.Connections) }

// Load is what one run of wrk found.
type Load struct {
	Requests       int // answered
	Late           int // of them after WrkTimeout
	Elapsed        time.Duration
	P50, P99, P999 time.Duration
}

// Rate is the answers a second.
func (l Load) Rate() float64 { return float64(l.Requests) / l.Elapsed.Seconds() }

// Run loads the server at addr for whole seconds with orders for deals d-0 … An
// answer other than 2xx is an error: the figures are of accepted orders only.
// ErrNoAnswers.
func (w *Wrk) Run(ctx context.Context, addr string, deals int, length time.Duration) (Load, error) {
	out, err := exec.CommandContext(ctx, "wrk",
		"-t"+strconv.Itoa(w.Threads), "-c"+strconv.Itoa(w.Connections), fmt.Sprintf("-d%ds", int(length.Seconds())),
		"--timeout", WrkTimeout.String(), "-s", w.script,
		"http://"+addr+w.Path, "--", strconv.Itoa(deals), fmt.Sprintf("r%d", wrkRuns.Add(1)),
	).CombinedOutput()
	if err != nil {
		return Load{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return parseLoad(string(out))
}

// parseLoad reads the line that orders.lua writes at the end.
func parseLoad(out string) (Load, error) {
	_, line, found := strings.Cut(out, "result ")
	if !found {
		return Load{}, errors.New("wrk: no result in its output:\n" + out)
	}
	var l Load
	var micros, failed, p50, p99, p999 int64
	if _, err := fmt.Sscan(line, &l.Requests, &micros, &failed, &l.Late, &p50, &p99, &p999); err != nil {
		return Load{}, fmt.Errorf("wrk: result %q: %w", line, err)
	}
	if failed == 0 && l.Requests == 0 {
		return Load{}, ErrNoAnswers
	}
	if failed > 0 || micros == 0 {
		return Load{}, fmt.Errorf("wrk: %d of %d orders were not accepted:\n%s", failed, l.Requests, out)
	}
	l.Elapsed = time.Duration(micros) * time.Microsecond
	l.P50, l.P99, l.P999 = time.Duration(p50)*time.Microsecond, time.Duration(p99)*time.Microsecond, time.Duration(p999)*time.Microsecond
	return l, nil
}
