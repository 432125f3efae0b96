//go:build linux

package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

const (
	// window is how finely the course of a load is looked at.
	window     = 200 * time.Millisecond
	windowsMax = 1 << 15
	latencyMax = time.Minute
)

// recorder takes the answers of one load.
type recorder struct {
	lead    time.Duration // that does not count
	length  time.Duration // in which orders are sent, the lead included
	begin   int64
	rate    float64 // asked for, orders/s; 0 = as fast as the answers come
	summary summary
	used    time.Duration // on a processor by the server
	spent   time.Duration // the same by the load

	mu      sync.Mutex // guards everything below
	latency *hdrhistogram.Histogram
	all     int64                     // accepted
	inTime  int                       // of them, behind the lead and within length
	windows []*hdrhistogram.Histogram // of accepted orders, by when they were answered
	refused map[string]int            // by code
}

func newRecorder(lead, length time.Duration) *recorder {
	return &recorder{begin: clockd.Mono(), lead: lead, length: length, latency: newHistogram(), refused: make(map[string]int)}
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, latencyMax.Microseconds(), 2) }

// observe is for load.
func (r *recorder) observe(status int, latency time.Duration, body []byte) {
	now := time.Duration(clockd.Mono() - r.begin)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case status == 201:
		r.all++
		if now < r.lead {
			return
		}
		micros := min(latency, latencyMax).Microseconds()
		_ = r.latency.RecordValue(micros) // in range, as the next
		if now <= r.length {
			r.inTime++
		}
		i := min(int(now/window), windowsMax-1)
		for len(r.windows) <= i {
			r.windows = append(r.windows, newHistogram())
		}
		_ = r.windows[i].RecordValue(micros)
	case status != 0: // no answer: the summary counts it
		r.refused[fmt.Sprintf("%d %s", status, codeOf(body))]++
	}
}

// codeOf finds the code in a problem.
func codeOf(body []byte) string {
	_, rest, _ := bytes.Cut(body, []byte(`"code":"`))
	code, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(code)
}

func (r *recorder) accepted() int64 { return r.all }

// goodput is of the time in which orders were sent: who is held back beyond it holds
// up no one.
func (r *recorder) goodput() float64 { return float64(r.inTime) / (r.length - r.lead).Seconds() }

// cpu is the µs of processor that an accepted order took, with all that was refused
// beside it.
func (r *recorder) cpu() float64 { return float64(r.used.Microseconds()) / float64(r.accepted()) }

// loadCPU is what the load itself took, likewise.
func (r *recorder) loadCPU() float64 { return float64(r.spent.Microseconds()) / float64(r.accepted()) }

// quantile is in ms.
func (r *recorder) quantile(q float64) float64 { return float64(r.latency.ValueAtQuantile(q)) / 1000 }

// sent is the orders a second that were answered, or should have been.
func (r *recorder) sent() float64 {
	return float64(r.summary.answered+r.summary.failed) / r.length.Seconds()
}

// refusals lists the refused orders by status and code.
func (r *recorder) refusals() string { return results{r}.refusals() }

// between returns the P99 in ms of what was answered in the windows that lie
// wholly between two moments of the load.
func (r *recorder) between(from, to time.Duration) float64 {
	all := newHistogram()
	for i, w := range r.windows {
		if at := time.Duration(i) * window; at >= from && at+window <= to {
			all.Merge(w)
		}
	}
	return float64(all.ValueAtQuantile(99)) / 1000
}

// recovered returns how long after a moment the first of recoveryWindows began
// whose P99 is at most limit, in ms.
func (r *recorder) recovered(after time.Duration, limit float64) (time.Duration, bool) {
	normal := 0
	for i, w := range r.windows {
		at := time.Duration(i) * window
		if at+window <= after {
			continue
		}
		if w.TotalCount() > 0 && float64(w.ValueAtQuantile(99))/1000 <= limit {
			normal++
		} else {
			normal = 0
		}
		if normal == recoveryWindows {
			return max(0, at-(recoveryWindows-1)*window-after), true
		}
	}
	return 0, false
}

// results are those of one load, a round each.
type results []*recorder

// median is that of a figure of the rounds.
func (rs results) median(figure func(*recorder) float64) float64 {
	values := make([]float64, len(rs))
	for i, r := range rs {
		values[i] = figure(r)
	}
	return page.Median(values)
}

// quantile is the median of the rounds' in ms.
func (rs results) quantile(q float64) float64 {
	return rs.median(func(r *recorder) float64 { return r.quantile(q) })
}

// refusals lists the refused orders of all rounds by status and code.
func (rs results) refusals() string {
	refused := make(map[string]int)
	for _, r := range rs {
		for code, n := range r.refused {
			refused[code] += n
		}
	}
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(refused)) {
		parts = append(parts, fmt.Sprintf("%d (%s)", refused[code], code))
	}
	if parts == nil {
		return "0"
	}
	return strings.Join(parts, ", ")
}

// failed is how many orders of all rounds were not answered.
func (rs results) failed() (n int) {
	for _, r := range rs {
		n += r.summary.failed
	}
	return n
}

// unsent is how many orders of all rounds were not sent, and of how many that is the load's
// own doing: no connection was short, but its goroutine did not run.
func (rs results) unsent() string {
	unsent, late := 0, 0
	for _, r := range rs {
		unsent += r.summary.unsent
		late += r.summary.late
	}
	if late > 0 {
		return fmt.Sprintf("%d (%d: load late)", unsent, late)
	}
	return strconv.Itoa(unsent)
}

// ratio is the median of the rounds' ratios, with the half of its 95 % interval. Of fewer than
// noiseRounds that says nothing: they are all named.
func ratio(rounds []float64) string {
	text := fmt.Sprintf("%.2f", page.Median(rounds))
	switch {
	case len(rounds) >= noiseRounds:
		return text + fmt.Sprintf(" ±%.2f", page.Notch(rounds))
	case len(rounds) > 1:
		return text + fmt.Sprintf(" (%.2f - %.2f)", slices.Min(rounds), slices.Max(rounds))
	}
	return text
}

// noiseRounds is how many rounds tell how uncertain their median is, at least.
const noiseRounds = 3
