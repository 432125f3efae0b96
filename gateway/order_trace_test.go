package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/runtime/trace"
)

// tracedHouse has a tracer, and returns what its collector was sent.
func tracedHouse(t *testing.T, cfg trace.Config) (h *house, sent func() string) {
	t.Helper()
	var mu sync.Mutex // guards all
	var all bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&all, r.Body)
	}))
	t.Cleanup(collector.Close)
	var tracer *trace.Tracer
	h = newHouse(t, func(c *Config, _ *actors.Config) {
		cfg.Endpoint, cfg.Clock, cfg.Logger = collector.URL, c.Clock, c.Logger
		var err error
		tracer, err = trace.New(context.Background(), cfg)
		must(t, err)
		c.Tracer = tracer
	})
	t.Cleanup(func() { must(t, tracer.Close(context.Background())) })
	return h, func() string {
		must(t, tracer.Close(context.Background()))
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}

// A traced order shows where its time went, from the gateway to the journal; one
// that is not watched leaves no trace.
func TestTrace(t *testing.T) {
	h, sent := tracedHouse(t, trace.Config{Trust: true})
	h.deal("d", `,"rules":["tiered"]`)
	order := func(key, traceparent string) answer {
		return h.send(request{
			method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""),
			header: map[string]string{"Idempotency-Key": key, "Traceparent": traceparent},
		})
	}
	id := order("watched", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").want(201).header.Get("X-Request-Id")
	other := order("not-watched", "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-00").want(201).header.Get("X-Request-Id")
	got := sent()
	for _, want := range []string{"POST /api/v1/orders", "mailbox", "decide", "rules", "journal commit", "reserved", id, "\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the trace", want)
		}
	}
	if strings.Contains(got, other) {
		t.Error("an order was traced that nobody watches")
	}
}

// What never reached the deal, and what failed, is traced as far as it came.
func TestTraceOfWhatWasRefused(t *testing.T) {
	h, sent := tracedHouse(t, trace.Config{Sample: 1})
	h.order("nowhere", "u", 1).refused(dealNotFound)
	h.post("/api/v1/orders", `{"x":1}`).refused(unknownField)
	got := sent()
	for _, want := range []string{"deal_not_found", "unknown_field"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the trace", want)
		}
	}
	if strings.Contains(got, "journal commit") {
		t.Error("a trace of what never was")
	}
}
