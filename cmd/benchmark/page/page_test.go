package page

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteSection(t *testing.T) {
	const begin, end = "<!-- written by x -->\n", "<!-- end of what x writes -->\n"
	page := filepath.Join(t.TempDir(), "page.md")
	for _, step := range []struct{ before, section, want string }{
		{"", "one\n", begin + "one\n" + end},
		{"# Speed\n" + begin + "one\n" + end + "more\n", "two\n", "# Speed\n" + begin + "two\n" + end + "more\n"},
		{"<!-- written by y -->\n", "two\n", "<!-- written by y -->\n" + begin + "two\n" + end},
	} {
		if step.before != "" {
			if err := os.WriteFile(page, []byte(step.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := WriteSection(page, "x", step.section); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(page); string(got) != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
	if err := os.WriteFile(page, []byte(begin), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteSection(page, "x", "x"); err == nil {
		t.Error("a page without the end of the section was overwritten")
	}
}

func TestWritePlot(t *testing.T) {
	page := filepath.Join(t.TempDir(), "speed.md")
	text, err := WritePlot(page, "p", "Speed", []byte("<svg/>"))
	if err != nil || text != "\n![Speed](speed/p.svg)\n" {
		t.Errorf("%q, %v", text, err)
	}
	if svg, err := os.ReadFile(filepath.Join(filepath.Dir(page), "speed", "p.svg")); string(svg) != "<svg/>" {
		t.Errorf("%q, %v", svg, err)
	}
}

func TestBars(t *testing.T) {
	svg := parsed(t)(Bars("A < B", Group{Label: "g", Bars: []Bar{{"half", 5, "5"}, {"whole", 10, "10"}}}))
	for _, want := range []string{`width="210.0" height="18" fill="#b5483a"`, `width="420.0" height="18" fill="#2f6f8f"`, "A &lt; B"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is not in\n%s", want, svg)
		}
	}
	parsed(t)(Bars("nothing", Group{Bars: []Bar{{}}}))
}

func TestPercentiles(t *testing.T) {
	svg := parsed(t)(Percentiles("latency", []Point{{0, 0}, {90, 5}, {99, 15}, {99.9, 20}, {100, 20}}))
	// 20 ms is the top, 0 the bottom, and three nines the whole width.
	for _, want := range []string{`points="70.0,300.0 286.7,240.0 503.3,120.0 720.0,60.0 720.0,60.0 "`, ">P99.9<", ">P90<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is not in\n%s", want, svg)
		}
	}
}

func TestTraces(t *testing.T) {
	svg := parsed(t)(Traces("a soak", Trace{Label: "memory, MiB", X: []float64{0, 1, 2}, Y: []float64{10, 12, 11}, From: 10.5, To: 11.5}))
	for _, want := range []string{"a soak", "memory, MiB", ">20<", "220.0,69.0 470.0,62.0 720.0,65.5"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is not in\n%s", want, svg)
		}
	}
	if _, err := Traces("", Trace{Label: "nothing"}); err == nil {
		t.Error("a trace without values is drawn")
	}
}

func parsed(t *testing.T) func([]byte, error) string {
	t.Helper()
	return func(svg []byte, err error) string {
		t.Helper()
		if err == nil {
			err = xml.Unmarshal(svg, new(struct{}))
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(svg)
	}
}

func TestMachine(t *testing.T) {
	if m := Machine(); !strings.Contains(m, "cores, go") || strings.HasPrefix(m, " ") {
		t.Error(m)
	}
}
