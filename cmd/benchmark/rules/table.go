package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

// conditions says how the figures came about.
func (s *session) conditions(busy string) string {
	return fmt.Sprintf("## What a rule costs\n`%s -- --rounds %d --slice %v --order-rounds %d --seconds %d`, on %s;\n"+
		"load of the machine before: %s. All take turns, so that the ratios mean something where the figures do not.\n\n"+
		"The rule `tiered` prices one order, in %d rounds of %v for each contestant, medians. Each gets the whole input of the rule ABI in\n"+
		"its own encoding, and gives outcome, discount, label and reason back. The code: `cmd/benchmark/rules`.\n\n",
		task, s.rounds, s.slice, s.orderRounds, s.seconds, page.Machine(), busy, s.rounds, s.slice)
}

// evaluations renders the contestants.
func evaluations(all []*contestant) string {
	var out strings.Builder
	out.WriteString("| | rule in | ns (lowest - highest) | of the first | allocations | between orders, and a bound |\n|---|---|---|---|---|---|\n")
	time := func(f figures) float64 { return f.nanoseconds }
	for _, c := range all {
		if c.missing != nil {
			fmt.Fprintf(&out, "| %s | %s | not measured: %v | | | %s |\n", c.name, c.language, c.missing, c.notes)
			continue
		}
		ns := sorted(c.rounds, time)
		ratio := "-"
		if all[0].missing == nil {
			ratio = fmt.Sprintf("%.3g", page.Median(ns)/page.Median(sorted(all[0].rounds, time)))
		}
		fmt.Fprintf(&out, "| %s | %s | %.0f (%.0f - %.0f) | %s | %.0f | %s |\n", c.name, c.language, page.Median(ns), ns[0], ns[len(ns)-1], ratio,
			page.Median(sorted(c.rounds, func(f figures) float64 { return f.allocations })), c.notes)
	}
	return out.String()
}

func sorted[T any](rounds []T, figure func(T) float64) []float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = figure(r)
	}
	slices.Sort(values)
	return values
}
