// Package obs makes the process observable: metrics and logs. It is the only
// importer of the Prometheus client.
//
// What it promises to the order path: an observation is a few atomic
// operations on a series that was resolved at start-up, and a log line is
// formatted, offered to a bounded queue and forgotten. Neither ever waits for
// a scraper, a disk or a terminal. Label values are fixed when the program is
// wired; nothing that a client sends becomes one, but the categories that
// merchants give their deals, up to a bound.
package obs

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// Bounds on the number of series, so that a mistake in the wiring ends a test
// and not a Prometheus server.
const (
	RoutesMax   = 128 // (method, route) pairs; each up to 5 classes of status
	OutcomesMax = 64  // outcomes of an order
)

const namespace = "doorbuster"

// Metrics is a registry and what is observed as it happens. The methods that
// resolve series (Route, Outcome) and that register sources (Clock, Pool,
// Log, Gauge, Counter) are for start-up, on one goroutine; a duplicate panics.
// Sources are read at each scrape, on the scraper's goroutine.
type Metrics struct {
	registry      *prometheus.Registry
	requests      *prometheus.HistogramVec
	orders        *prometheus.CounterVec
	journalEvents prometheus.Histogram
	journalBytes  prometheus.Counter
	journalSync   prometheus.Histogram

	routes, outcomes int // resolved so far
}

// NewMetrics returns metrics that hold the Go runtime's and the process's own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_request_duration_seconds",
			Help:    "Seconds from the parsed request to its reply, by method, route and class of status.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"method", "route", "status"}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "orders_total",
			Help: "Answers to those who placed an order, by outcome: reserved is a new order, replayed a repeated Idempotency-Key that got its first answer again, anything else the code of the refusal.",
		}, []string{"outcome"}),
		journalEvents: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "journal_batch_events",
			Help:    "Events that one sync made durable (its _sum: all events, its _count: all syncs).",
			Buckets: prometheus.ExponentialBuckets(1, 2, 13),
		}),
		journalBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "journal_bytes_total",
			Help: "Bytes of events made durable, before the store's own overhead.",
		}),
		journalSync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "journal_sync_seconds",
			Help:    "Seconds that one batch took to be written and synced.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5},
		}),
	}
	m.registry.MustRegister(
		m.requests, m.orders, m.journalEvents, m.journalBytes, m.journalSync,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler serves the metrics in the format that the scraper asks for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Route observes the requests of one method and route template.
type Route struct {
	requests *prometheus.HistogramVec // curried with method and route
	byClass  [5]atomic.Pointer[prometheus.Observer]
}

var classes = [5]string{"1xx", "2xx", "3xx", "4xx", "5xx"}

// Route resolves the series of a route. The route is its template
// ("/api/v1/orders/{id}"), never a path.
func (m *Metrics) Route(method, route string) *Route {
	bound(&m.routes, RoutesMax, "routes")
	return &Route{requests: m.requests.MustCurryWith(prometheus.Labels{
		"method": method, "route": route,
	}).(*prometheus.HistogramVec)}
}

// Observe records a reply with an HTTP status of 100 … 599. A class shows up
// in the metrics with its first reply.
func (r *Route) Observe(status int, took time.Duration) {
	class := status/100 - 1
	observer := r.byClass[class].Load()
	if observer == nil {
		o := r.requests.WithLabelValues(classes[class])
		observer = &o
		r.byClass[class].Store(observer)
	}
	(*observer).Observe(took.Seconds())
}

// Count is one series of a counter.
type Count struct{ counter prometheus.Counter }

// Inc adds one.
func (c Count) Inc() { c.counter.Inc() }

// Outcome resolves the counter of orders with an outcome, such as "reserved"
// or "sold_out".
func (m *Metrics) Outcome(outcome string) Count {
	bound(&m.outcomes, OutcomesMax, "outcomes")
	return Count{m.orders.WithLabelValues(outcome)}
}

// JournalBatch records one durable batch.
func (m *Metrics) JournalBatch(events, bytes int, took time.Duration) {
	m.journalEvents.Observe(float64(events))
	m.journalBytes.Add(float64(bytes))
	m.journalSync.Observe(took.Seconds())
}

// Labels are a series's fixed labels.
type Labels map[string]string

// Gauge registers a value that is read at each scrape.
func (m *Metrics) Gauge(name, help string, labels Labels, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: name, Help: help, ConstLabels: prometheus.Labels(labels),
	}, read))
}

// Counter registers a count that is read at each scrape and never decreases.
func (m *Metrics) Counter(name, help string, labels Labels, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: namespace, Name: name, Help: help, ConstLabels: prometheus.Labels(labels),
	}, read))
}

// Clock registers how well the clock keeps time.
func (m *Metrics) Clock(stats func() clockd.Stats) {
	m.Counter("clock_ticks_total", "Ticks: how often the clock was read.", nil,
		func() float64 { return float64(stats().Ticks) })
	m.Gauge("clock_lag_seconds", "Seconds by which the next tick is late; grows while the clock stalls.", nil,
		func() float64 { return stats().Lag.Seconds() })
	m.Gauge("clock_lag_max_seconds", "The largest lag since the start, in seconds.", nil,
		func() float64 { return stats().LagMax.Seconds() })
	m.Gauge("clock_offset_seconds", "Seconds by which the system's wall clock is ahead of the one that orders are stamped with, which follows it slowly.", nil,
		func() float64 { return stats().Offset.Seconds() })
}

// Pool registers the ownership counters of a pool.
func (m *Metrics) Pool(name string, stats func() own.Stats) {
	pool := Labels{"pool": name}
	m.Gauge("pool_seats", "Objects in the pool: what may be in flight at once.", pool,
		func() float64 { return float64(stats().Seats) })
	m.Gauge("pool_in_use", "Objects of the pool that are in use now.", pool,
		func() float64 { return float64(stats().InUse) })
	m.Counter("pool_gets_total", "Objects that the pool has handed out.", pool,
		func() float64 { return float64(stats().Got) })
	m.Counter("pool_refused_total", "Requests that were refused because the pool had no object for them.", pool,
		func() float64 { return float64(stats().Refused) })
	m.Counter("pool_abandoned_total", "Requests whose handler gave up waiting at the deadline (504), and left its object to the journal.", pool,
		func() float64 { return float64(stats().Abandoned) })
}

// Log registers the count of lines that a log has lost.
func (m *Metrics) Log(l *Log) {
	m.Counter("log_lines_dropped_total", "Log lines that are lost: the queue was full, or they could not be written.", nil,
		func() float64 { return float64(l.Dropped()) })
}

func bound(n *int, most int, what string) {
	if *n++; *n > most {
		panic(fmt.Sprintf("obs: more than %d %s", most, what))
	}
}
