package gateway

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/runtime/obs"
)

// exchange sends one request on a connection and reads its answer.
func exchange(t *testing.T, conn net.Conn, text string) answer {
	t.Helper()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err := io.WriteString(conn, text)
	must(t, err)
	return readAnswer(t, conn)
}

func readAnswer(t *testing.T, conn net.Conn) answer {
	t.Helper()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.Close { // where net/http keeps Connection: close
		resp.Header.Set("Connection", "close")
	}
	return answer{t, resp.StatusCode, resp.Header, body}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp4", addr)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Before there is a server every probe is answered at once, and a connection
// that was opened then serves on.
func TestFrontBeforeTheServer(t *testing.T) {
	metrics := obs.NewMetrics()
	front, err := NewFront(FrontConfig{Metrics: metrics, Logger: slog.New(slog.DiscardHandler), Open: true})
	must(t, err)
	house := &house{t: t}
	addr, admin := house.listen(front.Serve), house.listen(front.ServeAdmin)
	t.Cleanup(front.stop)
	early := dial(t, addr)

	for _, test := range []struct {
		step     Step
		done, of int
		want     string
		metric   string
	}{
		{StepProcess, 0, 0, "the process is starting", `starting{step="process"} 1`},
		{StepJournal, 0, 0, "recovering: the journal is being opened", `starting{step="journal"} 1`},
		{StepRules, 0, 0, "recovering: the rules are being loaded", `starting{step="rules"} 1`},
		{StepRules, 1, 2, "recovering: 1 of 2 versions of rules loaded", `starting_parts_done{step="rules"} 1`},
		{StepDeals, 0, 1, "recovering: 0 of 1 deal replayed", `starting_parts{step="deals"} 1`},
		{StepDeals, 3, 7, "recovering: 3 of 7 deals replayed", `starting_parts_done{step="deals"} 3`},
	} {
		front.Wait(test.step, test.done, test.of)
		no := exchange(t, dial(t, addr), "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").refused(unavailable)
		if no.field("detail") != test.want {
			t.Errorf("%s, want %s", no.body, test.want)
		}
		got := exchange(t, dial(t, admin), "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n").want(200)
		if !strings.Contains(string(got.body), "\ndoorbuster_"+test.metric+"\n") || strings.Count(string(got.body), "\ndoorbuster_starting{") != int(stepCount) || got.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %v %s", test.want, got.header, got.body)
		}
	}
	for _, where := range []string{addr, admin} {
		conn := dial(t, where)
		exchange(t, conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").want(200)
		for _, path := range []string{"/readyz", "/metrics", "/nowhere", "/api/v1/deals/d"} {
			if where == admin && path == "/metrics" {
				continue
			}
			got := exchange(t, conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n").refused(unavailable)
			if got.header.Get("Retry-After") == "" || got.field("detail") != "recovering: 3 of 7 deals replayed" {
				t.Errorf("%s: %v %s", path, got.header, got.body)
			}
		}
	}
	exchange(t, dial(t, admin), "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").refused(unavailable)
	exchange(t, early, "POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").refused(unavailable)
	exchange(t, dial(t, addr), "POST http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n").refused(invalidRequest)
	large := " HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat(" ", bodyPrefetched)
	for _, got := range []answer{
		exchange(t, dial(t, addr), "POST /api/v1/orders"+large).refused(unavailable), exchange(t, dial(t, admin), "GET /metrics"+large).refused(unavailable),
	} {
		if got.header.Get("Connection") != "close" {
			t.Error("what follows a body that was not read may be taken for a request")
		}
	}

	newHouse(t, func(c *Config, _ *actors.Config) { c.Metrics, c.Front = metrics, front })
	exchange(t, early, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").want(200)
	if got := exchange(t, dial(t, admin), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").want(200); !strings.Contains(string(got.body), "\ndoorbuster_starting{step=\"deals\"} 0\n") {
		t.Errorf("%s", got.body)
	}
	for _, path := range []string{"/metrics", "/debug/pprof/symbol"} {
		exchange(t, dial(t, admin), "GET "+path+large+strings.Repeat(" ", 20000-bodyPrefetched)).refused(bodyTooLarge)
	}
	exchange(t, early, "GET /api/v1/deals/d HTTP/1.1\r\nHost: x\r\n\r\n").refused(dealNotFound)
}

// A connection beyond the bound gets an answer that any client can read.
func TestTooManyConnections(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Connections = 2 })
	first, second := dial(t, h.addr), dial(t, h.addr)
	for _, conn := range []net.Conn{first, second} {
		exchange(t, conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").want(200)
	}
	no := readAnswer(t, dial(t, h.addr)).refused(overloaded)
	if no.header.Get("Content-Type") != "application/problem+json" || no.header.Get("Retry-After") == "" || no.header.Get("Connection") != "close" || !json.Valid(no.body) {
		t.Errorf("%v %s", no.header, no.body)
	}
	must(t, first.Close())
	until(t, "the room of a connection that was closed", func() bool {
		conn := dial(t, h.addr)
		_, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		must(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err == nil && resp.StatusCode == 200 && resp.Body.Close() == nil
	})
	exchange(t, second, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").want(200)
}
