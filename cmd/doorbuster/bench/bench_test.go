package bench

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this test's binary a server when the command starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		terminated := make(chan os.Signal, 1)
		signal.Notify(terminated, syscall.SIGTERM)
		server := httptest.NewServer(&shop{})
		fmt.Printf("listening on %s, for a test\n", strings.TrimPrefix(server.URL, "http://"))
		<-terminated
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// shop answers as the product does, and as fast as it is told to.
type shop struct {
	stallAt string        // the order, by its key, …
	stall   time.Duration // … that holds up all that come with it and later
	refuse  string        // the beginning of the keys of orders that get 409

	mu              sync.Mutex // held while the shop stalls; guards the fields below
	created, closed []string
	orders          map[string]int // by the beginning of the key
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := r.Header.Get("Idempotency-Key")
	deal, closes := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/v1/deals/"), "/close")
	switch {
	case r.URL.Path == "/api/v1/deals":
		s.created = append(s.created, r.Header.Get("Authorization"))
	case closes:
		s.closed = append(s.closed, deal)
		return
	case key == s.stallAt && key != "":
		time.Sleep(s.stall) // is what is measured
	case s.refuse != "" && strings.HasPrefix(key, s.refuse):
		w.WriteHeader(http.StatusConflict)
		return
	}
	if run, _, ok := strings.Cut(key, "-"); ok {
		if s.orders == nil {
			s.orders = make(map[string]int)
		}
		s.orders[run]++
	}
	w.WriteHeader(http.StatusCreated)
}

// open serves a shop until the test ends.
func open(t *testing.T, s *shop) (addr string) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// run runs the command and returns the rows of its table, by column.
func run(t *testing.T, args ...string) (rows []map[string]float64, printed string, err error) {
	t.Helper()
	var out, progress bytes.Buffer
	cmd := New()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&progress)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	var head []string
	for line := range strings.Lines(out.String()) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if head == nil {
			head = cells
			continue
		}
		row := make(map[string]float64)
		for i, cell := range cells {
			if n, err := strconv.ParseFloat(cell, 64); err == nil {
				row[head[i]] = n
			}
		}
		if len(row) > 0 {
			rows = append(rows, row)
		}
	}
	return rows, out.String() + progress.String(), err
}

// TestStallShows: while the server stalls orders become due, and each of them waits for
// what is left of the stall. A load that waited for its answers would have had one slow
// order of 200, which no percentile below 99.5 shows.
func TestStallShows(t *testing.T) {
	t.Parallel()
	const stall = 400 * time.Millisecond // 80 orders are due meanwhile, the last 20 % of them in its first 100 ms
	s := &shop{stallAt: "open-60", stall: stall}
	markdown := filepath.Join(t.TempDir(), "page.md")
	rows, printed, err := run(t, "--addr", open(t, s), "--token", "secret", "--rate", "200", "--seconds", "1", "--warmup", "1",
		"--connections", "4", "--deals", "3", "--page", markdown)
	if err != nil {
		t.Fatal(err)
	}
	row := rows[0]
	if row["deals"] != 3 || row["accepted"] != 200 || row["refused or failed"] != 0 || s.orders["open"] != 200 {
		t.Errorf("%v, the shop had %v", row, s.orders)
	}
	// Of 200 orders 60 waited 100 ms or more, 20 of them 300 ms.
	if row["P50 ms"] > row["P90 ms"] || row["P90 ms"] < 290 || row["P99 ms"] < 380 || row["max ms"] < 399 {
		t.Errorf("a stall of %v makes %v", stall, row)
	}
	if _, measured := row["capacity, orders/s"]; measured || s.orders["capacity"] > 0 {
		t.Errorf("the capacity was measured, and the rate given: %v", s.orders)
	}
	if want := slices.Repeat([]string{"Bearer secret"}, 3); !slices.Equal(s.created, want) || len(s.closed) != 3 {
		t.Errorf("created as %q, closed %q", s.created, s.closed)
	}
	if !regexp.MustCompile(`3 deals at 200 orders/s: +[0-9]+ accepted/s  P50 `).MatchString(printed) {
		t.Errorf("no progress in %q", printed)
	}
	checkPage(t, markdown)
}

// checkPage: the page has the command, the table and a plot that shows the stall.
func checkPage(t *testing.T, markdown string) {
	t.Helper()
	text, err := os.ReadFile(markdown)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"written by " + task, "`doorbuster bench --rate 200 --seconds 1 --warmup 1 --deals 3 --connections 4`",
		"| 3 | not measured | 200 | 200 | 0 |", "](page/latency-3.svg)",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if svg, err := os.ReadFile(filepath.Join(filepath.Dir(markdown), "page", "latency-3.svg")); err != nil || !bytes.Contains(svg, []byte("<polyline")) {
		t.Errorf("%v\n%s", err, svg)
	}
}

// TestShareOfTheCapacity: the rate is found on a server of the command's own, which is
// ended behind it.
func TestShareOfTheCapacity(t *testing.T) {
	t.Parallel()
	rows, _, err := run(t, "--share", "0.1", "--seconds", "1", "--warmup", "1", "--connections", "2")
	if err != nil {
		t.Fatal(err)
	}
	row := rows[0]
	if capacity := row["capacity, orders/s"]; capacity < 20 || math.Abs(row["load, orders/s"]-capacity/10) > 1 || math.Abs(row["accepted"]-row["load, orders/s"]) > 1 {
		t.Errorf("%v", row)
	}
}

// TestNothingAccepted: latencies of refusals are no result.
func TestNothingAccepted(t *testing.T) {
	t.Parallel()
	s := &shop{refuse: "warm"}
	_, printed, err := run(t, "--addr", open(t, s), "--rate", "50", "--warmup", "1")
	if err == nil || err.Error() != "no order was accepted; answers by status: 409: 50" || strings.Contains(printed, "|") {
		t.Errorf("%v, %q", err, printed)
	}
	if len(s.closed) != 1 {
		t.Errorf("closed %q", s.closed)
	}
	if _, _, err := run(t, "--addr", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range []string{
		"--share 0", "--share NaN", "--share 101", "--rate -1", "--rate NaN", "--rate 1000001", "--seconds 0", "--seconds 3601",
		"--warmup 0", "--deals 0", "--deals 1,100001", "--connections -1", "more",
	} {
		if rows, _, err := run(t, strings.Fields(args)...); err == nil {
			t.Errorf("%s: %v", args, rows)
		}
	}
	if err := (&bench{share: 1, seconds: 1, warmup: 1}).validate(); err == nil {
		t.Error("no number of deals passes")
	}
}
