package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// sample is one contestant's round.
type sample struct {
	load  load
	usage usage
}

// The figures of a sample.
func (s sample) rate() float64                  { return s.load.rate() }
func (s sample) p50() float64                   { return millis(s.load.p50) }
func (s sample) p99() float64                   { return millis(s.load.p99) }
func (s sample) p999() float64                  { return millis(s.load.p999) }
func (s sample) cpuMicros() float64             { return s.perOrder(float64(s.usage.cpu.Microseconds())) }
func (s sample) allocs() float64                { return s.perOrder(float64(s.usage.mallocs)) }
func (s sample) written() float64               { return s.perOrder(float64(s.usage.written)) }
func (s sample) perOrder(total float64) float64 { return total / float64(s.load.requests) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// result is all rounds of one contestant.
type result struct {
	name    string
	samples []sample
}

// median returns the middle value of a figure over the rounds.
func (r result) median(figure func(sample) float64) float64 {
	values := make([]float64, len(r.samples))
	for i, s := range r.samples {
		values[i] = figure(s)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

// spread returns the lowest and the highest orders/s.
func (r result) spread() (low, high float64) {
	low, high = r.samples[0].rate(), r.samples[0].rate()
	for _, s := range r.samples {
		low, high = min(low, s.rate()), max(high, s.rate())
	}
	return low, high
}

// table renders the medians as Markdown; the first result is what the others
// are compared to.
func table(results []result) string {
	var out strings.Builder
	out.WriteString("| | orders/s (lowest - highest) | of A | P50 ms | P99 ms | of A | P99.9 ms | CPU µs/order | allocations/order | bytes written/order |\n")
	out.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	a := results[0]
	for _, r := range results {
		low, high := r.spread()
		fmt.Fprintf(&out, "| %s | %.0f (%.0f - %.0f) | %.2f | %.1f | %.1f | %.2f | %.1f | %.1f | %s | %.0f |\n",
			r.name, r.median(sample.rate), low, high, r.median(sample.rate)/a.median(sample.rate),
			r.median(sample.p50), r.median(sample.p99), r.median(sample.p99)/a.median(sample.p99), r.median(sample.p999),
			r.median(sample.cpuMicros), known(r.median(sample.allocs)), r.median(sample.written))
	}
	return out.String()
}

func known(figure float64) string {
	if figure == 0 {
		return "not counted"
	}
	return fmt.Sprintf("%.2f", figure)
}

// The generated part of the page stands between these two lines.
const (
	sectionBegin = "<!-- written by go tool task bench -->\n"
	sectionEnd   = "<!-- end of what go tool task bench writes -->\n"
)

// writeSection replaces the generated part of a page, or appends it.
func writeSection(path, section string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, rest, found := strings.Cut(string(old), sectionBegin)
	_, after, closed := strings.Cut(rest, sectionEnd)
	if found && !closed {
		return fmt.Errorf("%s: the line %q is missing", path, strings.TrimSpace(sectionEnd))
	}
	page := before + sectionBegin + section + sectionEnd + after
	return os.WriteFile(path, []byte(page), 0o644)
}
