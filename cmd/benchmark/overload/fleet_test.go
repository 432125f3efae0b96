//go:build linux

package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

func numbered(i int, body, key []byte) (b, k []byte) {
	return append(body, `{"n":1}`...), strconv.AppendInt(key, int64(i), 10)
}

// fleetOf returns connections to a server that is gone after the test, as they are.
func fleetOf(t *testing.T, connections int, h http.HandlerFunc) *fleet {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	f, err := dial(strings.TrimPrefix(server.URL, "http://"), connections)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// TestFleet: each order is sent once, as HTTP that other servers read as well, and each answer
// is told.
func TestFleet(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]int)
	f := fleetOf(t, 7, func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		body := make([]byte, 16)
		n, _ := r.Body.Read(body)
		if r.URL.Path != "/api/v1/orders" || string(body[:n]) != `{"n":1}` {
			t.Errorf("%s asked for %s: %q", key, r.URL, body[:n])
		}
		mu.Lock()
		seen[key]++
		mu.Unlock()
		w.Header().Set("Content-Length", "3000")
		if strings.HasSuffix(key, "3") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(strings.Repeat("x", 3000)))
	})
	statuses := make(map[int]int)
	sum, err := f.run(t.Context(), load{orders: 100, next: numbered, observe: func(status int, latency time.Duration, body []byte) {
		statuses[status]++
		if len(body) != 3000 || latency <= 0 {
			t.Errorf("%d bytes after %v", len(body), latency)
		}
	}})
	if err != nil || sum != (summary{answered: 100}) || statuses[200] != 90 || statuses[503] != 10 {
		t.Errorf("%+v, %v, %v", sum, statuses, err)
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("%s was sent %d times", key, n)
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d orders came", len(seen))
	}
}

// TestFleetInPieces: an answer may come byte by byte.
func TestFleetInPieces(t *testing.T) {
	f := fleetOf(t, 1, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		for _, c := range []byte("piece") {
			_, _ = w.Write([]byte{c})
			_ = http.NewResponseController(w).Flush()
			time.Sleep(2 * time.Millisecond) // or the kernel makes one piece of them
		}
	})
	var bodies []string
	sum, err := f.run(t.Context(), load{orders: 2, next: numbered, observe: func(_ int, _ time.Duration, body []byte) {
		bodies = append(bodies, string(body))
	}})
	if err != nil || sum.answered != 2 || len(bodies) != 2 || bodies[0] != "piece" || bodies[1] != "piece" {
		t.Errorf("%+v, %q, %v", sum, bodies, err)
	}
}

// TestFleetLosesConnections: what a server closes without an answer has failed, and others
// are sent on a new connection.
func TestFleetLosesConnections(t *testing.T) {
	f := fleetOf(t, 2, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") == "4" {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Connection", "close") // after an answer, too
	})
	sum, err := f.run(t.Context(), load{orders: 20, next: numbered})
	if err != nil || sum.failed < 1 || sum.answered+sum.failed != 20 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestFleetGivesUp: when the server is gone a load ends with an error.
func TestFleetGivesUp(t *testing.T) {
	var asked atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	f := fleetOf(t, 1, func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	})
	if sum, err := f.run(ctx, load{orders: 10 * failuresMax, next: numbered}); err == nil || sum.failed != failuresMax || asked.Load() < failuresMax || asked.Load() > failuresMax+1 { // one is on its way
		t.Errorf("%+v, %d asked, %v", sum, asked.Load(), err)
	}
	cancel()
	if _, err := f.run(ctx, load{orders: 1, next: numbered}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, l := range []load{{next: numbered}, {orders: 1}, {orders: 1, rate: -1, next: numbered}} {
		if _, err := f.run(t.Context(), l); err == nil {
			t.Errorf("%+v: no error", l)
		}
	}
	if _, err := dial("nowhere", 1); err == nil {
		t.Error("dialled nowhere")
	}
}

// TestFleetOnSchedule: orders are due at their rate whatever the answers do, and those that
// find no connection in time are not sent, each counted once.
func TestFleetOnSchedule(t *testing.T) {
	f := fleetOf(t, 1, func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Millisecond) })
	begin := clockd.Mono()
	sum, err := f.run(t.Context(), load{length: 200 * time.Millisecond, rate: 10_000, patience: time.Millisecond, next: numbered})
	if took := time.Duration(clockd.Mono() - begin); err != nil || took < 200*time.Millisecond {
		t.Errorf("ended after %v, %v", took, err)
	}
	if all := sum.answered + sum.failed + sum.unsent; all != 2000 || sum.answered == 0 || sum.answered > 11 {
		t.Errorf("%+v", sum)
	}
}

// TestSkip: those whose shoppers have gone are counted, and nobody else.
func TestSkip(t *testing.T) {
	for _, c := range []struct {
		late  time.Duration
		load  load
		next  int
		first int
		own   int           // of those that are left out
		seen  time.Duration // when the load looked before
	}{
		{late: 100 * time.Millisecond, load: load{length: time.Second}, first: 10, next: 90, seen: 99 * time.Millisecond}, // 10 ms of patience
		{late: 100 * time.Millisecond, load: load{orders: 50}, first: 10, next: 50, seen: 9 * time.Millisecond, own: 40},  // it looked at nothing since
		{late: 100 * time.Millisecond, load: load{length: time.Second}, first: 10, next: 90, seen: 49 * time.Millisecond, own: 40},
		{late: 2 * time.Second, load: load{length: time.Second}, first: 10, next: 1000, seen: time.Second},
		{late: 0, load: load{length: time.Second}, first: 10, next: 11, seen: time.Second}, // one at least
	} {
		c.load.rate, c.load.patience = 1000, 10*time.Millisecond
		s := &sending{load: &c.load, next: c.first, looked: int64(c.seen)}
		s.skip(int64(c.late))
		if s.next != c.next || s.sum.unsent != c.next-c.first || s.sum.late != c.own {
			t.Errorf("%+v: next is %d, %d unsent, %d of them by itself", c, s.next, s.sum.unsent, s.sum.late)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	const whole = "HTTP/1.1 201 Created\r\nX: y\r\nContent-Length: 2\r\n\r\nok"
	for n := range len(whole) {
		if _, _, done, err := parseAnswer([]byte(whole[:n])); done || err != nil {
			t.Errorf("%q: %v, %v", whole[:n], done, err)
		}
	}
	if status, body, done, err := parseAnswer([]byte(whole)); status != 201 || string(body) != "ok" || !done || err != nil {
		t.Errorf("%d, %q, %v, %v", status, body, done, err)
	}
	for _, text := range []string{
		"HTTP\r\n\r\n", "HTTP/1.1 abc No\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", whole + "more",
	} {
		if _, _, _, err := parseAnswer([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
