package trace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/clockd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector is an OTLP/HTTP collector that keeps what it is sent.
type collector struct {
	*httptest.Server
	mu   sync.Mutex // guards sent
	sent bytes.Buffer
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.URL.Path != "/v1/traces" {
			t.Errorf("sent to %s", r.URL.Path)
		}
		_, _ = io.Copy(&c.sent, r.Body)
	}))
	t.Cleanup(c.Close)
	return c
}

func newTracer(t *testing.T, cfg Config) *Tracer {
	t.Helper()
	cfg.Clock, cfg.Logger = clockd.NewManual(1_800_000_000_000).Clock(), slog.New(slog.DiscardHandler)
	tracer, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Close(context.Background()) })
	return tracer
}

const (
	sampledParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	skippedParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

func TestRecord(t *testing.T) {
	c := newCollector(t)
	tracer := newTracer(t, Config{Endpoint: c.URL, Trust: true, Version: "v9"})
	parent, watch := tracer.Begin([]byte(sampledParent))
	if !watch {
		t.Fatal("the caller wants a trace, and there is none")
	}
	tracer.Record(parent, &Span{
		Name: "order", Begin: 10, End: 50, Attributes: []Attribute{{"doorbuster.deal_id", "d-7"}}, Failed: "overloaded",
		Steps: []Span{{Name: "decided", Begin: 20, End: 30}, {Name: "never reached", Begin: 0}},
	})
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := c.sent.String()
	id := trace.SpanContextFromContext(parent).TraceID()
	for _, want := range []string{"order", "decided", "doorbuster.deal_id", "d-7", "overloaded", "service.version", "v9", string(id[:])} {
		if !strings.Contains(sent, want) {
			t.Errorf("%q was not sent", want)
		}
	}
	if strings.Contains(sent, "never reached") {
		t.Error("a step that was not reached was sent")
	}
}

func TestBegin(t *testing.T) {
	for _, test := range []struct {
		sample float64
		trust  bool
		parent string
		want   bool
	}{
		{0, false, "", false},
		{1, false, "", true},
		{0, false, sampledParent, false}, // nobody's word is taken
		{1, false, skippedParent, true},
		{0, true, sampledParent, true},
		{1, true, skippedParent, false},
		{1, true, "", true},
		{0, true, "00-00000000000000000000000000000000-00f067aa0ba902b7-01", false},
		{0, true, strings.Repeat("x", 54) + "1", false},
		{0, true, "1", false},
	} {
		tracer := newTracer(t, Config{Endpoint: "http://127.0.0.1:1", Sample: test.sample, Trust: test.trust})
		if _, watch := tracer.Begin([]byte(test.parent)); watch != test.want {
			t.Errorf("%+v: %v", test, watch)
		}
	}
	var none *Tracer
	if _, watch := none.Begin([]byte(sampledParent)); watch || none.Close(t.Context()) != nil {
		t.Error("no tracer watched")
	}
}

func TestNotToWatchCostsNothing(t *testing.T) {
	tracer := newTracer(t, Config{Endpoint: "http://127.0.0.1:1", Sample: 1e-9, Trust: true})
	skipped := []byte(skippedParent)
	if n := testing.AllocsPerRun(1000, func() { tracer.Begin(nil); tracer.Begin(skipped) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConfigIsChecked(t *testing.T) {
	clock, logger := clockd.NewManual(1).Clock(), slog.New(slog.DiscardHandler)
	for _, cfg := range []Config{
		{Endpoint: "", Clock: clock, Logger: logger},
		{Endpoint: "127.0.0.1:4318", Clock: clock, Logger: logger},
		{Endpoint: "ftp://x", Clock: clock, Logger: logger},
		{Endpoint: "http://x/?k=v", Clock: clock, Logger: logger},
		{Endpoint: "http://x", Sample: 2, Clock: clock, Logger: logger},
		{Endpoint: "http://x"},
	} {
		if _, err := New(t.Context(), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// TestLossesAreOneLineAMinute: a collector that is down fills no log.
func TestLossesAreOneLineAMinute(t *testing.T) {
	manual := clockd.NewManual(1)
	var out bytes.Buffer
	cfg := Config{Endpoint: "http://127.0.0.1:1", Clock: manual.Clock(), Logger: slog.New(slog.NewTextHandler(&out, nil))}
	tracer, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tracer.Close(context.Background()) }()
	for range 3 * 60 {
		otel.Handle(errors.New("refused"))
		manual.Advance(time.Second)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "failures=1 ") || !strings.Contains(lines[1], "failures=60 ") || !strings.Contains(lines[2], "error=refused") {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}
