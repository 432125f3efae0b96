package main

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
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

// TestSale runs a short sale against a server that holds more each time it is asked.
func TestSale(t *testing.T) {
	var out bytes.Buffer
	const length, rate = 2 * time.Second, 100
	s := &soak{length: length, rate: rate, connections: 4, out: &out, server: startServer(t)}
	clock := clockd.NewManual(0)
	s.clock = clock.Clock()
	if err := s.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A slow machine creates the deals of the first sale until little of the length is left, and
	// sales that end a hair early are followed by tiny ones. Without a pace there are many more.
	paced := int(rate * length.Seconds())
	if all := s.orders + s.refused; all < paced/20 || all > 5*paced || s.refused != all/10 {
		t.Errorf("%d orders, %d refused", s.orders, s.refused)
	}
	for range 5 {
		s.sample(t.Context())
	}
	if len(s.seconds) != 5 || s.samples[0][4] != 5 || s.samples[2][4] != 5 || s.samples[len(figures)-1][0] <= 0 || s.samples[len(figures)-1][1] != 0 {
		t.Errorf("sampled %v, %v", s.seconds, s.samples)
	}
	if !strings.Contains(out.String(), fmt.Sprintf("%d orders  resident memory, MiB 5.0  heap", s.orders)) {
		t.Errorf("%s", &out)
	}
	if err := s.report(); err == nil || !strings.Contains(err.Error(), "goroutines grew by") {
		t.Errorf("what grows passes: %v", err)
	}
	s.server.Kill()
	s.sample(t.Context())
	if err := s.report(); err == nil || !strings.Contains(err.Error(), "/metrics") {
		t.Errorf("a sample that failed is not told: %v", err)
	}
}

// startServer starts this binary as the server: see TestMain.
func startServer(t *testing.T) *lab.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := lab.Serve(t.Context(), self, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestMain makes this test's binary a server when it is started as one. It refuses each
// tenth order, and holds one unit more of everything each time that it is asked.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "serve" {
		os.Exit(m.Run())
	}
	var orders, asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/metrics":
			n := asked.Add(1)
			fmt.Fprintln(w, "# metrics")
			for _, f := range figures[:len(figures)-1] {
				fmt.Fprintf(w, "%s %d\n", f.metric, n*int64(f.unit))
			}
		case strings.HasSuffix(r.URL.Path, "/close"):
		case r.URL.Path == "/api/v1/orders" && orders.Add(1)%10 == 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	addr := strings.TrimPrefix(server.URL, "http://")
	fmt.Printf("listening on %s, admin on %s, for a test\n", addr, addr)
	select {} // until it is killed
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
