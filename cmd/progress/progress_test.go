package progress

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// lines hands on what is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// counting counts how often it was asked.
func counting() func() (int, string) {
	asked := 0
	return func() (int, string) {
		asked++
		return asked, fmt.Sprintf("%d done", asked)
	}
}

// TestPlain: a log gets a line every ten seconds and the last state, and nothing that
// only a terminal understands.
func TestPlain(t *testing.T) {
	clock := clockd.NewManual(0)
	out := make(lines)
	end := Show(out, clock.Clock(), 100, counting())
	for line, waited := 1, time.Duration(0); line <= 3; {
		select {
		case text := <-out:
			if text != fmt.Sprintf("%d done\n", line) || waited < time.Duration(line)*plainEvery {
				t.Errorf("%q after %v", text, waited)
			}
			line++
		default:
			clock.Advance(time.Second)
			waited += time.Second
		}
	}
	ended := make(chan struct{})
	go func() {
		end()
		close(ended)
	}()
	if text := <-out; text != "4 done\n" {
		t.Errorf("ends with %q", text)
	}
	<-ended
}

// TestTerminal: the line is drawn over itself, and left standing at the end.
func TestTerminal(t *testing.T) {
	for total, want := range map[int]string{10: "10% |", 0: "1 done"} {
		var out bytes.Buffer
		show(&out, clockd.NewManual(0).Clock(), true, total, counting())()
		if text := out.String(); !strings.HasPrefix(text, "\r") || !strings.Contains(text, "1 done") || !strings.Contains(text, want) ||
			strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
			t.Errorf("of %d: %q", total, text)
		}
	}
}

func TestWhatIsATerminal(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if !Terminal(terminal) || Terminal(file) || Terminal(null) || Terminal(new(bytes.Buffer)) {
		t.Errorf("terminal %v, file %v, null %v, buffer %v", Terminal(terminal), Terminal(file), Terminal(null), Terminal(new(bytes.Buffer)))
	}
}
