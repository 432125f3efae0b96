package lab

import (
	"testing"
	"time"
)

func TestParseLoad(t *testing.T) {
	l, err := parseLoad("Running 1s test\nresult 5000 2000000 0 3 1500 9000 12000\n")
	want := Load{Requests: 5000, Late: 3, Elapsed: 2 * time.Second, P50: 1500 * time.Microsecond, P99: 9 * time.Millisecond, P999: 12 * time.Millisecond}
	if err != nil || l != want || l.Rate() != 2500 {
		t.Errorf("%+v, %v", l, err)
	}
	for _, out := range []string{
		"",
		"result 5 6",
		"result 5000 2000000 1 0 1500 9000 12000", // one order was refused
		"result 0 2000000 0 0 0 0 0",
	} {
		if l, err := parseLoad(out); err == nil {
			t.Errorf("%q gave %+v", out, l)
		}
	}
}

func TestParseCPU(t *testing.T) {
	own, children, err := parseCPU("42 (a name) with) S 1 1 1 0 -1 4194560 100 0 0 0 150 50 20 10 20 0 9")
	if err != nil || own != 2*time.Second || children != 300*time.Millisecond {
		t.Errorf("%v, %v, %v", own, children, err)
	}
	for _, stat := range []string{"", "42 (x) S 1", "42 (x) S 1 1 1 0 -1 4194560 100 0 0 0 many 50 0 0 20"} {
		if _, _, err := parseCPU(stat); err == nil {
			t.Errorf("%q: no error", stat)
		}
	}
}

func TestParseNumber(t *testing.T) {
	if n, err := parseNumber("# HELP x_total\nx_total 1.5e+06\n", "\nx_total "); n != 1_500_000 || err != nil {
		t.Error(n, err)
	}
	for _, text := range []string{"", "x many\n"} {
		if _, err := parseNumber(text, "x "); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestProcessThatDoesNotServe(t *testing.T) {
	if p, err := Start(t.Context(), "echo", "hello"); err == nil {
		p.Kill()
		t.Error("echo passed for a server")
	}
}
