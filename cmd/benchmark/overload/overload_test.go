//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary stand in for the server with the constant reply.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "constant" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestRecovered(t *testing.T) {
	r := newRecorder(0, time.Minute)
	// The P99 of each window, in ms; a burst ends in the third.
	for _, ms := range []int64{5, 5, 400, 300, 7, 300, 7, 6, 5, 5} {
		w := newHistogram()
		if err := w.RecordValue(ms * 1000); err != nil {
			t.Fatal(err)
		}
		r.windows = append(r.windows, w)
	}
	end := 2*window + window/2
	if took, ok := r.recovered(end, 7.5); !ok || took != 6*window-end {
		t.Errorf("recovered after %v, %v", took, ok)
	}
	if took, ok := r.recovered(end, 4); ok {
		t.Errorf("recovered after %v to what never was", took)
	}
	if p99 := r.between(0, 2*window); p99 < 4.9 || p99 > 5.1 {
		t.Errorf("P99 before is %v ms", p99)
	}
	if p99 := r.between(2*window, 3*window); p99 < 390 {
		t.Errorf("P99 in the burst is %v ms", p99)
	}
}

func TestObserve(t *testing.T) {
	r := newRecorder(0, time.Minute)
	r.observe(201, 5*time.Millisecond, nil)
	r.observe(503, time.Millisecond, []byte(`{"title":"x","code":"overloaded"}`))
	r.observe(503, time.Millisecond, []byte(`{"title":"x","code":"overloaded"}`))
	r.observe(429, time.Millisecond, []byte(`{}`))
	r.observe(0, time.Second, nil)
	late := newRecorder(0, 0)
	late.observe(201, time.Second, nil)
	early := newRecorder(time.Hour, 2*time.Hour)
	early.observe(201, time.Second, nil)
	if early.accepted() != 1 || early.inTime != 0 || early.latency.TotalCount() != 0 {
		t.Error("an answer counts before it should")
	}
	if late.accepted() != 1 || late.inTime != 0 {
		t.Errorf("%d accepted, %d in time", late.accepted(), late.inTime)
	}
	if r.accepted() != 1 || r.inTime != 1 || r.refusals() != "1 (429 ), 2 (503 overloaded)" {
		t.Errorf("%d accepted, refused %s", r.accepted(), r.refusals())
	}
}

// TestSession runs everything but some ways to be slow, as short and as small as it
// can be.
func TestSession(t *testing.T) {
	all := slownesses
	defer func() { slownesses = all }()
	slownesses = slownesses[4:]
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "performance.md")
	cmd := newCommand()
	cmd.SetArgs([]string{"--seconds", "1", "--warmup", "1", "--lead", "0s", "--connections", "0.02", "--page", path})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| 10× | 80 |", "| as fast as the answers come | 80 |", "A burst of 5× the capacity", "as others, 8,", "| half-closed in the middle of the body |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, args := range [][]string{{"--seconds", "0"}, {"--warmup", "0"}, {"--rounds", "0"}, {"--lead", "-1s"}, {"--connections", "0"}, {"x"}} {
		cmd := newCommand()
		cmd.SetArgs(args)
		cmd.SilenceErrors = true
		cmd.SetOut(new(bytes.Buffer))
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// TestResults: figures are the median round's, counts are those of all.
func TestResults(t *testing.T) {
	var rs results
	for _, accepted := range []int{9, 1, 2} {
		r := newRecorder(0, time.Second)
		for range accepted {
			r.observe(201, time.Duration(accepted)*time.Millisecond, nil)
			r.observe(503, 0, []byte(`{"code":"overloaded"}`))
		}
		r.summary.failed, r.summary.unsent = 1, 10
		rs = append(rs, r)
	}
	if got := rs.median((*recorder).goodput); got != 2 {
		t.Errorf("goodput %v", got)
	}
	if got := rs.quantile(99); got < 1.9 || got > 2.1 {
		t.Errorf("P99 is %v ms", got)
	}
	if rs.refusals() != "12 (503 overloaded)" || rs.failed() != 3 || rs.unsent() != "30" {
		t.Errorf("refused %s, %d failed, %s unsent", rs.refusals(), rs.failed(), rs.unsent())
	}
	rs[1].summary.late = 4
	if rs.unsent() != "30 (4: load late)" {
		t.Error(rs.unsent())
	}
}

// TestRatio: what fewer than three rounds say of their noise is not told.
func TestRatio(t *testing.T) {
	for want, rounds := range map[string][]float64{"0.50": {0.5}, "0.60 (0.50 - 0.70)": {0.7, 0.5}, "0.50 ±0.00": {0.5, 0.5, 0.5}} {
		if got := ratio(rounds); got != want {
			t.Errorf("%v: %q, want %q", rounds, got, want)
		}
	}
}
