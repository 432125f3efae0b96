package obs

import (
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/own"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func scrape(m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	m := NewMetrics()
	orders := m.Route("POST", "/api/v1/orders")
	orders.Observe(201, 3*time.Millisecond)
	orders.Observe(201, 30*time.Millisecond)
	orders.Observe(409, time.Millisecond)
	sold := m.Outcome("sold_out")
	sold.Inc()
	m.JournalBatch(100, 12_000, 150*time.Microsecond)
	m.Clock(func() clockd.Stats {
		return clockd.Stats{Ticks: 7, Lag: time.Second, LagMax: 2 * time.Second, Offset: -time.Hour}
	})
	m.Pool("request", func() own.Stats {
		return own.Stats{Seats: 10, InUse: 3, Got: 50, Refused: 2, Abandoned: 1}
	})
	m.Gauge("mailbox_depth", "Messages that wait for an actor.", nil, func() float64 { return 12 })
	m.Counter("rule_faults_total", "Rule calls that failed.", Labels{"fault": "trap"}, func() float64 { return 4 })

	m.Log(newLog(t, LogConfig{Out: io.Discard}))

	got := scrape(m)
	for _, line := range []string{
		`http_request_duration_seconds_bucket{method="POST",route="/api/v1/orders",status="2xx",le="0.005"} 1`,
		`http_request_duration_seconds_count{method="POST",route="/api/v1/orders",status="2xx"} 2`,
		`http_request_duration_seconds_count{method="POST",route="/api/v1/orders",status="4xx"} 1`,
		`doorbuster_orders_total{outcome="sold_out"} 1`,
		`doorbuster_journal_batch_events_bucket{le="64"} 0`,
		`doorbuster_journal_batch_events_bucket{le="128"} 1`,
		`doorbuster_journal_bytes_total 12000`,
		`doorbuster_journal_sync_seconds_bucket{le="0.0002"} 1`,
		`doorbuster_clock_ticks_total 7`,
		`doorbuster_clock_lag_seconds 1`,
		`doorbuster_clock_lag_max_seconds 2`,
		`doorbuster_clock_offset_seconds -3600`,
		`doorbuster_pool_seats{pool="request"} 10`,
		`doorbuster_pool_in_use{pool="request"} 3`,
		`doorbuster_pool_gets_total{pool="request"} 50`,
		`doorbuster_pool_refused_total{pool="request"} 2`,
		`doorbuster_pool_abandoned_total{pool="request"} 1`,
		`doorbuster_log_lines_dropped_total 0`,
		`doorbuster_mailbox_depth 12`,
		`doorbuster_rule_faults_total{fault="trap"} 4`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	for _, name := range []string{"go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(got, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
	if strings.Contains(got, `status="5xx"`) {
		t.Error("a class of status that never occurred is exposed")
	}
}

func TestObserveFromManyGoroutines(t *testing.T) {
	m := NewMetrics()
	r := m.Route("GET", "/livez")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for status := 100; status < 600; status += 100 {
				r.Observe(status, time.Millisecond)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(scrape(m), `_count{method="GET",route="/livez",status="`); n != 5 {
		t.Fatalf("%d classes, want 5", n)
	}
	if n := strings.Count(scrape(m), `"} 8`+"\n"); n < 5 {
		t.Fatalf("%d series count 8, want the 5 classes", n)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	m := NewMetrics()
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	for range RoutesMax + 1 {
		m.Route("GET", "/")
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	m := NewMetrics()
	r, c := m.Route("POST", "/api/v1/orders"), m.Outcome("reserved")
	if n := testing.AllocsPerRun(1000, func() { r.Observe(201, time.Millisecond); c.Inc() }); n != 0 {
		t.Fatalf("%v allocations a request", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	r := NewMetrics().Route("POST", "/api/v1/orders")
	b.ReportAllocs()
	for b.Loop() {
		r.Observe(201, 3*time.Millisecond)
	}
}

func BenchmarkObserveParallel(b *testing.B) {
	r := NewMetrics().Route("POST", "/api/v1/orders")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Observe(201, 3*time.Millisecond)
		}
	})
}
