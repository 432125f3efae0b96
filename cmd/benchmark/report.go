package main

import (
	"fmt"
	"strings"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

// sample is one contestant's round.
type sample struct {
	load  lab.Load
	usage lab.Usage
}

// The figures of a sample.
func (s sample) rate() float64                  { return s.load.Rate() }
func (s sample) p50() float64                   { return page.Millis(s.load.P50) }
func (s sample) p99() float64                   { return page.Millis(s.load.P99) }
func (s sample) p999() float64                  { return page.Millis(s.load.P999) }
func (s sample) cpuMicros() float64             { return s.perOrder(float64(s.usage.CPU.Microseconds())) }
func (s sample) allocs() float64                { return s.perOrder(float64(s.usage.Mallocs)) }
func (s sample) written() float64               { return s.perOrder(float64(s.usage.Written)) }
func (s sample) perOrder(total float64) float64 { return total / float64(s.load.Requests) }

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
	return page.Median(values)
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
// are compared to, round by round.
func table(results []result) string {
	var out strings.Builder
	out.WriteString("| | orders/s (lowest - highest) | of A | P50 ms | P99 ms | of A | P99.9 ms | CPU µs/order | allocations/order | bytes written/order |\n")
	out.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		low, high := r.spread()
		fmt.Fprintf(&out, "| %s | %.0f (%.0f - %.0f) | %s | %.1f | %.1f | %s | %.1f | %.1f | %s | %.0f |\n",
			r.name, r.median(sample.rate), low, high, r.of(results[0], sample.rate),
			r.median(sample.p50), r.median(sample.p99), r.of(results[0], sample.p99), r.median(sample.p999),
			r.median(sample.cpuMicros), known(r.median(sample.allocs)), r.median(sample.written))
	}
	return out.String()
}

// of renders a figure as a multiple of A's, and how uncertain it is if that is known.
func (r result) of(a result, figure func(sample) float64) string {
	multiple := ratioOf(r, a, "", figure)
	if len(r.samples) < roundsLeast {
		return fmt.Sprintf("%.2f", multiple.Median)
	}
	return fmt.Sprintf("%.2f ±%.2f", multiple.Median, multiple.Median*multiple.Noise)
}

func known(figure float64) string {
	if figure == 0 {
		return "not counted"
	}
	return fmt.Sprintf("%.2f", figure)
}
