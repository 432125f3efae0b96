package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab/labtest"
)

// TestMain lets the test binary stand in for A, which is the binary run again.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "constant" {
		main()
		return
	}
	os.Exit(m.Run())
}

func round(requests int, p99 time.Duration) sample {
	return sample{
		load:  lab.Load{Requests: requests, Elapsed: time.Second, P99: p99},
		usage: lab.Usage{CPU: time.Second, Written: int64(requests) * 300, Mallocs: int64(requests) * 2},
	}
}

func TestTable(t *testing.T) {
	a := result{name: "A", samples: []sample{round(1000, 10*time.Millisecond), round(3000, 10*time.Millisecond), round(2000, 10*time.Millisecond)}}
	b := result{name: "B", samples: []sample{round(800, 20*time.Millisecond), round(1500, 20*time.Millisecond), round(1800, 30*time.Millisecond)}}
	a.samples[2].usage.Mallocs = 0
	a.samples[1].usage.Mallocs = 0
	expect := func(wants ...string) {
		t.Helper()
		text := table([]result{a, b})
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in\n%s", want, text)
			}
		}
	}
	// Three rounds do not say how uncertain their median is.
	expect("| A | 2000 (1000 - 3000) | 1.00 |", "| not counted | 300 |",
		"| B | 1500 (800 - 1800) | 0.80 | 0.0 | 20.0 | 2.00 |", "| 2.00 | 300 |")
	for range 2 {
		a.samples = append(a.samples, round(2000, 10*time.Millisecond))
		b.samples = append(b.samples, round(1600, 20*time.Millisecond))
	}
	expect("| A | 2000 (1000 - 3000) | 1.00 ±0.00 |", "| B | 1600 (800 - 1800) | 0.80 ±0.00 | 0.0 | 20.0 | 2.00 ±0.00 |")
	b.samples[4] = round(1000, 40*time.Millisecond)
	expect("| B | 1500 (800 - 1800) | 0.80 ±0.21 | 0.0 | 20.0 | 2.00 ±0.70 |")
}

// TestPublish: a page and a record are of five rounds at least, and say what "of A" is.
func TestPublish(t *testing.T) {
	a, b := result{name: "A"}, result{name: "B"}
	for range roundsLeast {
		a.samples = append(a.samples, round(2000, 10*time.Millisecond))
		b.samples = append(b.samples, round(1600, 20*time.Millisecond))
	}
	var out bytes.Buffer
	session := &bench{Turns: lab.NewTurns(roundsLeast, 10), out: &out, page: filepath.Join(t.TempDir(), "performance.md"), recordTo: filepath.Join(t.TempDir(), "speed.json")}
	if err := errors.Join(session.validate(), session.publish([]result{a, b}, "Recovery in no time.\n")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(session.page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the rounds' ratios, with the half of its 95 % interval: it is not the quotient", "| B | 1600 (1600 - 1600) | 0.80 ±0.00 |", "Recovery in no time."} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if _, err := os.Stat(session.recordTo); err != nil {
		t.Error(err)
	}
	for _, few := range []bench{{page: session.page}, {recordTo: session.recordTo}, {gate: session.recordTo}} {
		few.Turns = lab.NewTurns(roundsLeast-1, 10)
		if err := few.validate(); err == nil || !strings.Contains(err.Error(), "--rounds of at least 5") {
			t.Errorf("%+v: %v", few, err)
		}
	}
}

func TestGate(t *testing.T) {
	results := func(requests ...int) []result {
		a, b := result{name: "A"}, result{name: "B"}
		for _, n := range requests {
			a.samples = append(a.samples, round(1000, 10*time.Millisecond))
			b.samples = append(b.samples, round(n, 15*time.Millisecond))
		}
		return []result{a, b}
	}
	bench := &bench{Turns: lab.NewTurns(3, 10)}
	before := bench.record(results(780, 800, 820))
	if rate := before.Ratios[0]; rate.Median != 0.8 || rate.Noise < 0.022 || rate.Noise > 0.023 {
		t.Errorf("recorded %+v", rate)
	}
	for _, tc := range []struct {
		now  []result
		good bool
	}{
		{results(770, 790, 790), true},
		{results(780, 800, 300), false},                              // too restless
		{results(780, 800, 800, 810, 800, 790, 800, 800, 300), true}, // one round that was disturbed
		{results(760, 760, 750, 770, 760, 760, 760, 760, 300), false},
		{results(990, 990, 990), true},
		{results(740, 750, 750), false},
		{results(300, 800, 900), false}, // too restless
	} {
		if err := gate(new(bytes.Buffer), bench.record(tc.now), before); (err == nil) != tc.good {
			t.Errorf("%+v: %v", bench.record(tc.now).Ratios[0], err)
		}
	}
	slow := results(800, 800, 800)
	for i := range slow[1].samples {
		slow[1].samples[i].load.P99 = 20 * time.Millisecond
	}
	if err := gate(new(bytes.Buffer), bench.record(slow), before); err == nil {
		t.Error("a longer P99 passes")
	}
	if err := gate(new(bytes.Buffer), bench.record(slow), recorded{}); err == nil {
		t.Error("what is not recorded passes")
	}
	bench.recordTo = filepath.Join(t.TempDir(), "speed.json")
	for _, tc := range []struct {
		now  []result
		good bool
	}{
		{results(300, 800, 900), false}, // too restless
		{results(780, 800, 820), true},
	} {
		err := bench.judge(tc.now)
		if _, missing := os.Stat(bench.recordTo); (err == nil) != tc.good || (missing == nil) != tc.good {
			t.Errorf("recorded: %v; %v", missing == nil, err)
		}
	}
}

// TestSession runs a whole session, as short as it can be, with wrk itself.
func TestSession(t *testing.T) {
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Fatal("wrk is missing: go tool task tools")
	}
	var out bytes.Buffer
	labtest.Session(t, func(seconds string) error {
		out.Reset()
		cmd := newCommand()
		cmd.SetArgs([]string{"--rounds", "1", "--seconds", seconds, "--warmup", seconds, "--connections", "8", "--recovery", "100"})
		cmd.SetOut(&out)
		return cmd.ExecuteContext(t.Context())
	})
	for _, want := range []string{"| A: constant reply |", "| B: one hot deal |", "| C: 1,000 deals |", "Recovery after kill -9", "the rounds' ratios: it is not the quotient"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "±") {
		t.Errorf("one round is certain of itself:\n%s", out.String())
	}
}

func TestSessionRefusesNonsense(t *testing.T) {
	for _, args := range [][]string{{"--rounds", "0"}, {"--seconds", "0"}, {"--warmup", "0"}, {"--recovery", "-1"}, {"--gate", "nowhere.json"}, {"--rounds", "4", "--record", "nowhere/speed.json"}, {"a"}} {
		cmd := newCommand()
		cmd.SetArgs(args)
		cmd.SilenceErrors = true
		cmd.SetOut(new(bytes.Buffer))
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
