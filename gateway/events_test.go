package gateway

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors"
)

// follower reads a deal's event stream.
type follower struct {
	t      *testing.T
	resp   *http.Response
	r      *bufio.Reader
	cancel context.CancelFunc
}

func (h *house) follow(t *testing.T, dealID, lastID string) *follower {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+h.addr+"/api/v1/deals/"+dealID+"/events", http.NoBody)
	must(t, err)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	if h.token != "" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	resp, err := h.client.Do(req)
	must(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	f := &follower{t, resp, bufio.NewReader(resp.Body), cancel}
	if first := f.block(); first != "retry: 2000" {
		t.Fatalf("the stream begins with %q", first)
	}
	return f
}

// block reads up to the next empty line.
func (f *follower) block() string {
	f.t.Helper()
	var lines []string
	for {
		line, err := f.r.ReadString('\n')
		must(f.t, err)
		if line == "\n" {
			return strings.Join(lines, "\n")
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
}

// want reads one event and checks it.
func (f *follower) want(id, event string, parts ...string) {
	f.t.Helper()
	got := f.block()
	head := "event: " + event + "\ndata: {"
	if id != "" {
		head = "id: " + id + "\n" + head
	}
	if !strings.HasPrefix(got, head) {
		f.t.Fatalf("got %q, want %q", got, head)
	}
	for _, part := range parts {
		if !strings.Contains(got, part) {
			f.t.Fatalf("no %s in %q", part, got)
		}
	}
}

func TestDealEvents(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":2,"group":{"size":2,"window_s":600,"unit_price":1}`)
	f := h.follow(t, "d", "")
	f.want("", "stock", `"deal_id":"d"`, `"available":2`, `"reserved":0`)
	f.want("1", "status", `"status":"live"`)
	id := h.order("d", "u", 1).want(201).text("order_id")
	f.want("2", "stock", `"seq":2`, `"available":1`, `"reserved":1`)
	h.post("/api/v1/orders/"+id+"/confirm", "").want(200)
	f.want("3", "stock", `"sold":1`)
	h.post("/api/v1/orders", orderBody("d", "u", 1, `,"group":{"open":true}`)).want(201)
	f.want("", "group", `"group_id":"d-g4"`, `"members":1`, `"forming"`)
	f.want("", "stock", `"available":0`)
	f.want("4", "status", `"status":"sold_out"`)

	again := h.follow(t, "d", "3") // a client that lost its connection
	again.want("", "group", `"group_id":"d-g4"`)
	again.want("", "stock", `"available":0`)
	again.want("4", "status", `"status":"sold_out"`)
	h.post("/api/v1/deals/d/close", "").want(200)
	again.want("5", "status", `"status":"ended"`)

	h.send(request{method: "HEAD", path: "/api/v1/deals/d/events"}).want(200)
	h.send(request{method: "GET", path: "/api/v1/deals/d/events", header: map[string]string{"Last-Event-ID": "x"}}).refused(invalidRequest)
}

func TestEventHeartbeat(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	f := h.follow(t, "d", "")
	f.want("", "stock")
	f.want("1", "status")
	beat := make(chan string, 1)
	go func() { beat <- f.block() }()
	until(t, "a heartbeat", func() bool { // the stream may not wait for it yet when the clock moves
		h.clock.Advance(heartbeat / 100) // too little to look like a reader that is slow
		return len(beat) == 1
	})
	if got := <-beat; got != ":" {
		t.Fatalf("got %q", got)
	}
}

func TestEventStreamsAreBounded(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Streams = 1 })
	h.deal("d", "")
	f := h.follow(t, "d", "")
	f.want("", "stock")
	h.get("/api/v1/deals/d/events").refused(overloaded)
	f.cancel()
	until(t, "the client's end to be noticed", func() bool {
		h.clock.Advance(heartbeat)
		return !h.server.streams.full(trusted)
	})
	h.follow(t, "d", "")
}

// A reader that does not read is cut off.
func TestSlowReader(t *testing.T) {
	client, server := net.Pipe() // without buffers
	defer client.Close()
	h := newHouse(t, nil)
	w := &eventWriter{conn: server, raw: server, clock: h.clock.Clock(), buf: []byte("x")}
	ended := make(chan error)
	go func() { ended <- w.flush() }()
	until(t, "the write to give up", func() bool {
		h.clock.Advance(slowReaderMax)
		select {
		case err := <-ended:
			if err != errSlowReader {
				t.Errorf("flush: %v", err)
			}
			return true
		default:
			return false
		}
	})
}

func TestShutdownEndsStreams(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	f := h.follow(t, "d", "")
	f.want("", "stock")
	f.want("1", "status")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, h.server.Shutdown(ctx))
	if rest, err := f.r.ReadString(0); err == nil || rest != "" {
		t.Errorf("after the shutdown came %q, %v", rest, err)
	}
}

// A stream that stays behind sees the newest state, not every state.
func TestEventsAreConflated(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", `,"stock":1000`)
	w, err := h.node.Watch("d", 0)
	must(t, err)
	defer w.Close()
	for i := range 20 {
		h.order("d", fmt.Sprintf("u-%d", i), 1).want(201)
	}
	updates, err := w.Next(nil)
	must(t, err)
	var b []byte
	for i := range updates {
		b = appendUpdate(b, &updates[i], i == len(updates)-1)
	}
	if n := strings.Count(string(b), "event: stock"); n != 1 || !strings.Contains(string(b), `"available":980`) {
		t.Errorf("%d stock events in %s", n, b)
	}
}
