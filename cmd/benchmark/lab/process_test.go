package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/gateway/client"
)

// TestMain makes this test's binary a server when it is started as one. At /args it
// tells how it was, at /burn it uses some CPU.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "serve" {
		os.Exit(m.Run())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/args", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Args[1:]) })
	mux.HandleFunc("/burn", func(http.ResponseWriter, *http.Request) {
		for begin := used(); used()-begin < 100*time.Millisecond; {
		}
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# HELP go_memstats_mallocs_total x\ngo_memstats_mallocs_total 1.5e+06\nx_total 7\n")
	})
	mux.HandleFunc("/debug/pprof/profile", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("seconds") == "0" {
			http.Error(w, "no time", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "a profile")
	})
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	addr := strings.TrimPrefix(httptest.NewServer(mux).URL, "http://")
	fmt.Printf("listening on %s, admin on %s, for a test\nand more\n", addr, addr)
	<-terminated
	if slices.Contains(os.Args, "--stubborn") {
		os.Exit(3)
	}
	os.Exit(0)
}

// used is the processor time of this process, which others may keep waiting for it.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func serve(t *testing.T, more ...string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Serve(t.Context(), self, "folder", more...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestServe(t *testing.T) {
	p := serve(t, "--passivate-after", "5s")
	text, err := Get(t.Context(), "http://"+p.Listen+"/args")
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(args, " "); got != "serve --log-level warn --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data folder --passivate-after 5s" {
		t.Errorf("started as %s", got)
	}
	if p.Admin != p.Listen || !strings.HasSuffix(p.Banner, ", for a test") {
		t.Errorf("%+v", p)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := Get(t.Context(), "http://"+p.Listen+"/args"); err == nil {
		t.Error("serves after its end")
	}
}

// TestStopSaysHowItEnded: a server that fails at its end is a failed measurement.
func TestStopSaysHowItEnded(t *testing.T) {
	var exit *exec.ExitError
	if err := serve(t, "--stubborn").Stop(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
	p := serve(t)
	p.Kill()
	if _, err := p.Usage(t.Context()); err == nil {
		t.Error("who was killed uses something")
	}
}

func TestUsage(t *testing.T) {
	p := serve(t)
	defer p.Kill()
	before, err := p.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Get(t.Context(), "http://"+p.Listen+"/burn"); err != nil {
		t.Fatal(err)
	}
	after, err := p.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if used := after.Minus(before); used.CPU < 20*time.Millisecond || used.CPU > 2*time.Second || used.Mallocs != 0 || after.Mallocs != 1_500_000 {
		t.Errorf("%+v, then %+v", before, after)
	}
	p.Admin = ""
	if u, err := p.Usage(t.Context()); err != nil || u.Mallocs != 0 || u.CPU == 0 {
		t.Errorf("without metrics: %+v %v", u, err)
	}
}

func TestMetrics(t *testing.T) {
	p := serve(t)
	defer p.Kill()
	if got, err := p.Metrics(t.Context(), "x_total", "go_memstats_mallocs_total"); err != nil || !slices.Equal(got, []float64{7, 1_500_000}) {
		t.Errorf("%v %v", got, err)
	}
	if got, err := p.Metrics(t.Context(), "y_total"); err == nil {
		t.Errorf("there is no y_total: %v", got)
	}
}

func TestProfile(t *testing.T) {
	p := serve(t)
	defer p.Kill()
	path := filepath.Join(t.TempDir(), "cpu.pprof")
	if err := p.Profile(t.Context(), path, 0); err == nil || !strings.Contains(err.Error(), "no time") {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a refusal was kept as a profile")
	}
	if err := p.Profile(t.Context(), path, 1); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "a profile" {
		t.Errorf("%v %q", err, text)
	}
}

// TestOrders: each deal is created and closed once, and no order is like another.
func TestOrders(t *testing.T) {
	var mu sync.Mutex // guards seen
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var deal struct {
			ID    string `json:"deal_id"`
			Stock int
			Rules []string
		}
		if err := json.NewDecoder(r.Body).Decode(&deal); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen[fmt.Sprintf("%s %s %d %s", r.URL.Path, deal.ID, deal.Stock, deal.Rules)]++
		if r.URL.Path == "/api/v1/deals" {
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer server.Close()
	to := client.Config{Addr: strings.TrimPrefix(server.URL, "http://")}
	o := Orders{Deals: 40, Prefix: "x-", Run: "r1"}
	if err := errors.Join(o.Create(t.Context(), to, "tiered"), o.Close(t.Context(), to)); err != nil {
		t.Fatal(err)
	}
	for i := range o.Deals {
		created, closed := fmt.Sprintf("/api/v1/deals x-%d %d [tiered]", i, Stock), fmt.Sprintf("/api/v1/deals/x-%d/close  0 []", i)
		if seen[created] != 1 || seen[closed] != 1 || len(seen) != 2*o.Deals {
			t.Fatalf("deal %d: %v", i, seen)
		}
	}
	keys, deals := map[string]bool{}, map[string]int{}
	for i := range 400 {
		body, key := o.Next(i, nil, nil)
		var order struct {
			Deal     string `json:"deal_id"`
			User     string `json:"user_id"`
			Quantity int
			Codes    []string
		}
		if err := json.Unmarshal(body, &order); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if order.Quantity < 1 || order.Quantity > 3 || order.User == "" || (len(order.Codes) > 0) != (i%10 == 0) {
			t.Errorf("%s", body)
		}
		keys[string(key)] = true
		deals[order.Deal]++
	}
	if len(keys) != 400 || len(deals) != 40 || deals["x-39"] != 10 {
		t.Errorf("%d keys, deals %v", len(keys), deals)
	}
}

// TestOrdersRefused: a deal that is not there spoils a measurement, and is told.
func TestOrdersRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the disk is full", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	to := client.Config{Addr: strings.TrimPrefix(server.URL, "http://")}
	for name, do := range map[string]func(context.Context) error{
		"create": func(ctx context.Context) error { return Orders{Deals: 3}.Create(ctx, to) },
		"close":  func(ctx context.Context) error { return Orders{Deals: 3}.Close(ctx, to) },
	} {
		if err := do(t.Context()); err == nil || !strings.Contains(err.Error(), "503: the disk is full") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWrk: wrk is told what was asked for, no two runs share their keys, and a failure
// is told with what wrk said.
func TestWrk(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := NewWrk(dir, 2, 8, "/x"); err == nil || !strings.Contains(err.Error(), "apt-get install wrk") {
		t.Errorf("without wrk: %v", err)
	}
	script := "#!/bin/sh\necho \"$@\" >>" + dir + "/args\n" +
		"[ \"$3\" = -d9s ] && { echo no room >&2; exit 1; }\necho result 50 1000000 0 0 100 200 300\n"
	if err := os.WriteFile(filepath.Join(dir, "wrk"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := NewWrk(dir, 2, 8, "/x")
	if err != nil || w.String() != "wrk -t2 -c8" {
		t.Fatal(w, err)
	}
	for range 2 {
		if l, err := w.Run(t.Context(), "127.0.0.1:9", 3, 2*time.Second); err != nil || l.Rate() != 50 || l.P99 != 200*time.Microsecond {
			t.Errorf("%+v %v", l, err)
		}
	}
	if _, err := w.Run(t.Context(), "127.0.0.1:9", 3, 9*time.Second); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		t.Fatal(err)
	}
	runs := strings.Split(string(text), "\n")
	if want := "-t2 -c8 -d2s --timeout 15s -s " + dir + "/orders.lua http://127.0.0.1:9/x -- 3 r"; !strings.HasPrefix(runs[0], want) || runs[0] == runs[1] {
		t.Errorf("%q", runs)
	}
}

func TestCommand(t *testing.T) {
	cmd := Command("measure", "Measure", func(_ context.Context, out io.Writer) error {
		_, err := io.WriteString(out, "42")
		return err
	})
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(nil)
	if err := cmd.ExecuteContext(t.Context()); err != nil || out.String() != "42" {
		t.Errorf("%v %q", err, &out)
	}
	cmd.SetArgs([]string{"more"})
	if err := cmd.ExecuteContext(t.Context()); err == nil {
		t.Error("takes an argument")
	}
}
