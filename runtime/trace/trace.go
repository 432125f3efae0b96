// Package trace tells where the time of single orders goes, to an OpenTelemetry
// collector. It is the only importer of OpenTelemetry.
//
// What it promises to the order path: most orders are not watched, and whether one
// is costs a random number and no allocation. One that is watched takes down when
// it passed each step, and becomes spans only when it has been answered. Spans wait
// in a bounded queue, which drops them when the collector is slow: an order never
// waits for it.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/doorbuster/doorbuster/clockd"
)

const (
	queueMax  = 4096 // spans that wait for the collector
	exportMax = 512  // spans that are sent at once

	// lossesEvery is the least time between two log lines about traces that are lost.
	lossesEvery = time.Minute

	service = "doorbuster"
)

// Config says what is traced, and who is told.
type Config struct {
	Endpoint string  // URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318; no query
	Sample   float64 // share of the orders, 0 … 1
	// Trust believes a caller's traceparent: the order joins its trace, and is
	// watched exactly if the caller says so. For callers of one's own only: any
	// other could have every order watched.
	Trust   bool
	Version string // of the program
	Clock   *clockd.Clock
	Logger  *slog.Logger
}

// Tracer watches orders. Its methods may be called concurrently. A nil Tracer
// watches none.
type Tracer struct {
	cfg      Config
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// New makes a tracer. It does not wait for the collector.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	at, err := url.Parse(cfg.Endpoint)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" {
		return nil, errors.New("trace: Endpoint is not the URL of a collector") // which may hold a password
	}
	if at.RawQuery != "" || at.ForceQuery || at.Fragment != "" {
		return nil, errors.New("trace: Endpoint has a query, which is not sent to a collector")
	}
	if !(cfg.Sample >= 0 && cfg.Sample <= 1) { // so that NaN fails too
		return nil, fmt.Errorf("trace: a share of %v is not in [0, 1]", cfg.Sample)
	}
	if cfg.Clock == nil || cfg.Logger == nil {
		return nil, errors.New("trace: Clock and Logger are required")
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(at.JoinPath("v1", "traces").String()))
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	otel.SetErrorHandler(&losses{cfg: cfg})
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter, sdk.WithMaxQueueSize(queueMax), sdk.WithMaxExportBatchSize(exportMax)),
		sdk.WithSampler(sdk.AlwaysSample()), // Begin has decided
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", service), attribute.String("service.version", cfg.Version))),
	)
	return &Tracer{cfg: cfg, provider: provider, tracer: provider.Tracer("github.com/doorbuster/doorbuster")}, nil
}

// losses logs what keeps traces from the collector: the first failure at once, and those
// of a minute in one line.
type losses struct {
	cfg Config

	mu    sync.Mutex // guards what follows
	told  int64      // Mono of the last line, 0 = none was written
	since int        // failures after it
}

// Handle implements otel.ErrorHandler.
func (l *losses) Handle(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since++
	now := l.cfg.Clock.Now().Mono
	if l.told != 0 && now-l.told < int64(lossesEvery) {
		return
	}
	l.cfg.Logger.Warn("traces are lost", "failures", l.since, "error", err)
	l.told, l.since = now, 0
}

// Close sends what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Begin says whether to watch an order whose caller sent that traceparent, nil if
// it sent none, and what its spans belong to.
func (t *Tracer) Begin(traceparent []byte) (parent context.Context, watch bool) {
	if t == nil {
		return nil, false
	}
	if t.cfg.Trust && len(traceparent) > 0 {
		return joined(traceparent)
	}
	if t.cfg.Sample == 0 || rand.Float64() >= t.cfg.Sample {
		return nil, false
	}
	return context.Background(), true
}

// joined reads a traceparent of version 00. One that cannot be read is not watched.
func joined(traceparent []byte) (context.Context, bool) {
	const length, sampled = 55, 1
	if len(traceparent) != length || (traceparent[length-1]&sampled == 0) == (traceparent[length-1] < 'a') {
		return nil, false // not sampled: the last hexadecimal digit is even
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": string(traceparent)})
	return ctx, trace.SpanContextFromContext(ctx).IsSampled()
}

// Span is a step of an order. Its times are Mono ns; one without an End has not been
// reached, and is left out.
type Span struct {
	Name       string
	Begin, End int64
	Attributes []Attribute
	Failed     string // why, "" if it did not
	Steps      []Span // within it
}

// Attribute describes a span.
type Attribute struct{ Key, Value string }

// Record tells the collector of a watched order.
func (t *Tracer) Record(parent context.Context, s *Span) {
	now := t.cfg.Clock.Now()
	t.record(parent, s, trace.SpanKindServer, func(mono int64) time.Time {
		return time.UnixMilli(now.Wall).Add(time.Duration(mono - now.Mono))
	})
}

func (t *Tracer) record(parent context.Context, s *Span, kind trace.SpanKind, at func(int64) time.Time) {
	if s.End == 0 {
		return
	}
	attributes := make([]attribute.KeyValue, len(s.Attributes))
	for i, a := range s.Attributes {
		attributes[i] = attribute.String(a.Key, a.Value)
	}
	ctx, span := t.tracer.Start(parent, s.Name,
		trace.WithSpanKind(kind), trace.WithTimestamp(at(s.Begin)), trace.WithAttributes(attributes...))
	for i := range s.Steps {
		t.record(ctx, &s.Steps[i], trace.SpanKindInternal, at)
	}
	if s.Failed != "" {
		span.SetStatus(codes.Error, s.Failed)
	}
	span.End(trace.WithTimestamp(at(s.End)))
}
