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

// noiseMost is how far a ratio may wander within one session. Beyond it the session
// tells nothing, and the gate neither passes nor is recorded.
const noiseMost = 0.25

// ratio is one figure of a contestant, as a multiple of A's in the same round.
type ratio struct {
	Name   string  `json:"name"`
	Figure string  `json:"figure"` // rate or p99
	Median float64 `json:"median"`
	Noise  float64 `json:"noise"` // how far a round was from the median at most, as a share of it
}

// recorded is a session that others are held against.
type recorded struct {
	Machine string  `json:"machine"`
	Rounds  int     `json:"rounds"`
	Seconds int     `json:"seconds"`
	Ratios  []ratio `json:"ratios"`
}

func (b *bench) record(results []result) recorded {
	r := recorded{Machine: page.Machine(), Rounds: b.rounds, Seconds: b.seconds}
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
	middle := median(each)
	noise := 0.0
	for _, value := range each {
		noise = max(noise, math.Abs(value-middle)/middle)
	}
	return ratio{Name: r.name, Figure: name, Median: middle, Noise: noise}
}

// gate compares a session with the recorded one. A ratio fails when it is worse by more
// than the noise of the two sessions together.
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
		noise := r.Noise + old.Noise
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

// restless says which ratios wandered too far.
func (r *recorded) restless() (faults []error) {
	for _, each := range r.Ratios {
		if each.Noise > noiseMost {
			faults = append(faults, fmt.Errorf("%s: %s wandered by %.0f %%, more than %.0f %%: the machine is too restless to tell",
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
