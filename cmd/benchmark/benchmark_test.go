package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary stand in for A, which is the binary run again.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "constant" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestParseLoad(t *testing.T) {
	l, err := parseLoad("Running 1s test\nresult 5000 2000000 0 1500 9000 12000\n")
	if err != nil || l.rate() != 2500 || l.p50 != 1500*time.Microsecond || l.p99 != 9*time.Millisecond || l.p999 != 12*time.Millisecond {
		t.Errorf("%+v, %v", l, err)
	}
	for _, out := range []string{
		"",
		"result 5 6",
		"result 5000 2000000 1 1500 9000 12000", // one order was refused
		"result 0 2000000 0 0 0 0",
	} {
		if l, err := parseLoad(out); err == nil {
			t.Errorf("%q gave %+v", out, l)
		}
	}
}

func TestParseCPU(t *testing.T) {
	cpu, err := parseCPU("42 (a name) with) S 1 1 1 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9")
	if err != nil || cpu != 2*time.Second {
		t.Errorf("%v, %v", cpu, err)
	}
	for _, stat := range []string{"", "42 (x) S 1", "42 (x) S 1 1 1 0 -1 4194560 100 0 0 0 many 50 0 0"} {
		if _, err := parseCPU(stat); err == nil {
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

func round(requests int, p99 time.Duration) sample {
	return sample{
		load:  load{requests: requests, elapsed: time.Second, p99: p99},
		usage: usage{cpu: time.Second, written: int64(requests) * 300, mallocs: int64(requests) * 2},
	}
}

func TestTable(t *testing.T) {
	a := result{name: "A", samples: []sample{round(1000, 10*time.Millisecond), round(3000, 10*time.Millisecond), round(2000, 10*time.Millisecond)}}
	b := result{name: "B", samples: []sample{round(1000, 20*time.Millisecond), round(2000, 20*time.Millisecond)}}
	a.samples[2].usage.mallocs = 0
	a.samples[1].usage.mallocs = 0
	text := table([]result{a, b})
	for _, want := range []string{
		"| A | 2000 (1000 - 3000) | 1.00 |", "| not counted | 300 |",
		"| B | 1500 (1000 - 2000) | 0.75 | 0.0 | 20.0 | 2.00 |", "| 2.00 | 300 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestWriteSection(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	for _, step := range []struct{ before, section, want string }{
		{"", "one\n", sectionBegin + "one\n" + sectionEnd},
		{"# Speed\n" + sectionBegin + "one\n" + sectionEnd + "more\n", "two\n", "# Speed\n" + sectionBegin + "two\n" + sectionEnd + "more\n"},
	} {
		if step.before != "" {
			if err := os.WriteFile(page, []byte(step.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := writeSection(page, step.section); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(page); string(got) != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
	if err := os.WriteFile(page, []byte(sectionBegin), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeSection(page, "x"); err == nil {
		t.Error("a page without the end of the section was overwritten")
	}
}

// TestSession runs a whole session, as short as it can be, with wrk itself.
func TestSession(t *testing.T) {
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Fatal("wrk is missing: go tool task tools")
	}
	var out bytes.Buffer
	page := filepath.Join(t.TempDir(), "performance.md")
	cmd := newCommand()
	cmd.SetArgs([]string{"--rounds", "1", "--seconds", "1", "--warmup", "1", "--connections", "8", "--recovery", "100", "--page", page})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| A: constant reply |", "| B: one hot deal |", "| C: 1,000 deals |", "Recovery after kill -9"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestSessionRefusesNonsense(t *testing.T) {
	for _, args := range [][]string{{"--rounds", "0"}, {"--seconds", "0"}, {"--warmup", "0"}, {"--recovery", "-1"}, {"a"}} {
		cmd := newCommand()
		cmd.SetArgs(args)
		cmd.SilenceErrors = true
		cmd.SetOut(new(bytes.Buffer))
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestProcessThatDoesNotServe(t *testing.T) {
	if p, err := startProcess(t.Context(), "echo", "hello"); err == nil {
		p.kill()
		t.Error("echo passed for a server")
	}
}
