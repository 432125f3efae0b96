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
	"sync/atomic"
)

//go:embed orders.lua
var ordersLua []byte

// load is what wrk found.
type load struct {
	requests int
	seconds  float64
	p50, p99 float64 // ms
}

func (l load) rate() float64 { return float64(l.requests) / l.seconds }

// wrkTimeout is beyond the longest wait that is expected. An answer that takes
// longer is counted, but is missing in wrk's quantiles; by its own default of two
// seconds that would be most answers of the incident.
const wrkTimeout = "15s"

// wrkRuns counts the runs of wrk: each has idempotency keys of its own.
var wrkRuns atomic.Int64

// wrk posts orders to addr. Any answer but 2xx is an error: the figures are of
// accepted orders.
func (s *session) wrk(ctx context.Context, addr string, threads, connections, seconds, deals int) (load, error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return load{}, fmt.Errorf("wrk is missing (Debian: apt-get install wrk): %w", err)
	}
	script := filepath.Join(s.dir, "orders.lua")
	if err := os.WriteFile(script, ordersLua, 0o600); err != nil {
		return load{}, err
	}
	out, err := exec.CommandContext(ctx, "wrk",
		"-t"+strconv.Itoa(threads), "-c"+strconv.Itoa(connections), fmt.Sprintf("-d%ds", seconds), "--timeout", wrkTimeout,
		"-s", script, "http://"+addr+"/api/v1/order", "--", strconv.Itoa(deals), fmt.Sprintf("r%d", wrkRuns.Add(1)),
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
	var requests, micros, failed, p50, p99 int64
	if _, err := fmt.Sscan(line, &requests, &micros, &failed, &p50, &p99); err != nil {
		return load{}, fmt.Errorf("wrk: result %q: %w", line, err)
	}
	if failed > 0 || requests == 0 || micros == 0 {
		return load{}, fmt.Errorf("wrk: %d of %d orders were not accepted:\n%s", failed, requests, out)
	}
	return load{int(requests), float64(micros) / 1e6, float64(p50) / 1e3, float64(p99) / 1e3}, nil
}
