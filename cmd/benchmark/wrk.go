package main

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
	"time"
)

//go:embed orders.lua
var ordersLua []byte

// load is what one run of the load generator found.
type load struct {
	requests       int
	elapsed        time.Duration
	p50, p99, p999 time.Duration
}

func (l load) rate() float64 { return float64(l.requests) / l.elapsed.Seconds() }

// generator runs wrk.
type generator struct {
	script               string // path of orders.lua
	threads, connections int
	runs                 int // so far: each run has keys of its own
}

func newGenerator(dir string, threads, connections int) (*generator, error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return nil, fmt.Errorf("wrk is missing (Debian: apt-get install wrk): %w", err)
	}
	script := filepath.Join(dir, "orders.lua")
	return &generator{script: script, threads: threads, connections: connections}, os.WriteFile(script, ordersLua, 0o600)
}

// run posts orders to addr for some time, spread over a number of deals. An
// answer other than 2xx is an error: the figures are of accepted orders only.
func (g *generator) run(ctx context.Context, addr string, deals int, length time.Duration) (load, error) {
	g.runs++
	out, err := exec.CommandContext(ctx, "wrk",
		"-t"+strconv.Itoa(g.threads), "-c"+strconv.Itoa(g.connections), fmt.Sprintf("-d%ds", int(length.Seconds())), "--timeout", "10s",
		"-s", g.script, "http://"+addr+"/api/v1/orders", "--", strconv.Itoa(deals), "r"+strconv.Itoa(g.runs),
	).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return parseLoad(string(out))
}

// parseLoad reads the line that orders.lua writes at the end.
func parseLoad(out string) (load, error) {
	_, line, found := strings.Cut(out, "result ")
	if !found {
		return load{}, errors.New("wrk: no result in its output:\n" + out)
	}
	var l load
	var micros, errs, p50, p99, p999 int64
	if _, err := fmt.Sscan(line, &l.requests, &micros, &errs, &p50, &p99, &p999); err != nil {
		return load{}, fmt.Errorf("wrk: result %q: %w", line, err)
	}
	if errs > 0 || l.requests == 0 || micros == 0 {
		return load{}, fmt.Errorf("wrk: %d of %d requests were not accepted:\n%s", errs, l.requests, out)
	}
	l.elapsed = time.Duration(micros) * time.Microsecond
	l.p50, l.p99, l.p999 = time.Duration(p50)*time.Microsecond, time.Duration(p99)*time.Microsecond, time.Duration(p999)*time.Microsecond
	return l, nil
}
