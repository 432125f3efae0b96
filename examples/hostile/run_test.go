package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestRun: the program prints a line for each module.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run(&out, []string{"endless loop", "huge table", "memory kept"}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 4 {
		t.Errorf("%d lines", lines)
	}
	for _, want := range []string{"endless loop ", "out_of_fuel", "refused: table section", " none"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
}
