package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

const (
	// roundsLeast is how many rounds say how uncertain their median is: of fewer the
	// middle half is no more than one or two, and one round would be certain.
	roundsLeast = 5
	// noiseMost is how uncertain a session may leave a ratio. Beyond it the session
	// tells nothing, and the gate neither passes nor is recorded.
	noiseMost = 0.10
	// slack is what a ratio may be worse by however quiet the sessions were: two builds
	// of the same code lie so far apart.
	slack = 0.03
)

// ratio is one figure of a contestant, as a multiple of A's in the same round.
type ratio struct {
	Name   string  `json:"name"`
	Figure string  `json:"figure"` // rate or p99
	Median float64 `json:"median"`
	Noise  float64 `json:"noise"` // how uncertain the median is, as a share of it
}

// recorded is a session that others are held against.
type recorded struct {
	Machine string  `json:"machine"`
	Rounds  int     `json:"rounds"`
	Seconds int     `json:"seconds"`
	Ratios  []ratio `json:"ratios"`
}

func (b *bench) record(results []result) recorded {
	r := recorded{Machine: page.Machine(), Rounds: b.Rounds, Seconds: b.Seconds}
	for _, contestant := range results[1:] {
		r.Ratios = append(r.Ratios,
			ratioOf(contestant, results[0], "rate", sample.rate), ratioOf(contestant, results[0], "p99", sample.p99))
	}
	return r
}

// ratioOf compares round by round: the contestants of a round follow one another, and
// the machine treats them alike.
func ratioOf(r, a result, name string, figure func(sample) float64) ratio {
	each := make([]float64, len(r.samples))
	for i, s := range r.samples {
		each[i] = figure(s) / figure(a.samples[i])
	}
	middle := page.Median(each)
	return ratio{Name: r.name, Figure: name, Median: middle, Noise: page.Notch(each) / middle}
}

// gate compares a session with the recorded one. A ratio fails when it is worse by more
// than chance explains: the root of the sum of the squares of what each session leaves
// uncertain, since the two are independent, and the slack at least. With the bounds
// above that is at most 14 %.
func gate(out io.Writer, now, before recorded) error {
	faults := now.restless()
	for _, r := range now.Ratios {
		if r.Noise > noiseMost {
			continue
		}
		old, found := before.find(r)
		if !found {
			faults = append(faults, fmt.Errorf("%s: no %s is recorded", r.Name, r.Figure))
			continue
		}
		noise := max(slack, math.Hypot(r.Noise, old.Noise))
		change := r.Median/old.Median - 1
		fmt.Fprintf(out, "%-18s %-4s %.2f of A's, recorded %.2f: %+.0f %%, noise ±%.0f %%\n", r.Name, r.Figure, r.Median, old.Median, 100*change, 100*noise)
		worse := change
		if r.Figure == "rate" {
			worse = -change
		}
		if worse > noise {
			faults = append(faults, fmt.Errorf("%s: %s is %.2f of A's, recorded %.2f, noise %.0f %%", r.Name, r.Figure, r.Median, old.Median, 100*noise))
		}
	}
	return errors.Join(faults...)
}

// restless says which ratios are too uncertain.
func (r *recorded) restless() (faults []error) {
	for _, each := range r.Ratios {
		if each.Noise > noiseMost {
			faults = append(faults, fmt.Errorf("%s: the median of %s is uncertain by %.0f %%, more than %.0f %%: the machine is too restless to tell, or the rounds are too few",
				each.Name, each.Figure, 100*each.Noise, 100*noiseMost))
		}
	}
	return faults
}

func (r *recorded) find(like ratio) (ratio, bool) {
	for _, old := range r.Ratios {
		if old.Name == like.Name && old.Figure == like.Figure {
			return old, true
		}
	}
	return ratio{}, false
}

// judge holds the results against the recorded ones, or records them.
func (b *bench) judge(results []result) error {
	now := b.record(results)
	if b.recordTo != "" {
		if faults := now.restless(); faults != nil {
			return errors.Join(faults...)
		}
		text, err := json.MarshalIndent(now, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.recordTo, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if b.gate == "" {
		return nil
	}
	fmt.Fprintf(b.out, "\nagainst %s, recorded on %s\n", b.gate, b.before.Machine)
	return gate(b.out, now, b.before)
}

// readRecorded reads what the results will be held against, before they take minutes.
func (b *bench) readRecorded() error {
	if b.gate == "" {
		return nil
	}
	text, err := os.ReadFile(b.gate)
	if err != nil {
		return fmt.Errorf("%w (--record writes one)", err)
	}
	if err := json.Unmarshal(text, &b.before); err != nil {
		return fmt.Errorf("%s: %w", b.gate, err)
	}
	return nil
}
