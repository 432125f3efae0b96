package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	l := fit([]float64{0, 1, 2, 3}, []float64{1, 3, 5, 7})
	if math.Abs(l.slope-2) > 1e-9 || math.Abs(l.at(10)-21) > 1e-9 {
		t.Errorf("%+v", l)
	}
}

// filled is a run with samples of each figure: base, and more each time.
func filled(more float64) *soak {
	s := &soak{length: 1000, rate: 1, samples: make([][]float64, len(figures)), out: new(bytes.Buffer)}
	for i := range 20 {
		s.seconds = append(s.seconds, float64(i))
		for f := range figures {
			s.samples[f] = append(s.samples[f], 100+more*float64(i)+float64(i%2))
		}
	}
	return s
}

func TestReport(t *testing.T) {
	s := filled(0)
	s.page = filepath.Join(t.TempDir(), "reliability.md")
	if err := s.report(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(s.page)
	if err != nil || !strings.Contains(string(text), "| goroutines | 100.5 |") || !strings.Contains(string(text), "reliability/soak.svg") {
		t.Errorf("%v in\n%s", err, text)
	}
	err = filled(8).report()
	for _, f := range figures {
		if err == nil || !strings.Contains(err.Error(), f.name+" grew by") {
			t.Errorf("%s grows unseen: %v", f.name, err)
		}
	}
	if err := (&soak{}).report(); err == nil {
		t.Error("a run without samples passes")
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"--for", "1s"}, {"--rate", "0"}, {"a"}} {
		cmd := newCommand()
		cmd.SetArgs(args)
		cmd.SilenceErrors = true
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
