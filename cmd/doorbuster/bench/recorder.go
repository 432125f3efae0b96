package bench

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway/client"
)

const latencyMax = 10 * time.Minute // what is later is recorded as that

// recorder takes the answers of one load. All connections share it: a recording
// takes a tenth of a microsecond, a request ten.
type recorder struct {
	title   string
	orders  int // that are to come; 0 = unknown
	begin   int64
	summary client.Summary

	mu      sync.Mutex // guards everything below
	latency *hdrhistogram.Histogram
	status  map[int]int
}

func newRecorder(title string, orders int) *recorder {
	return &recorder{
		title: title, orders: orders, begin: clockd.Mono(),
		latency: hdrhistogram.New(1, latencyMax.Microseconds(), 3), status: make(map[int]int),
	}
}

// observe is for client.Load. The latency is that of accepted orders: a refusal
// is quicker, and would flatter it.
func (r *recorder) observe(_, status int, latency time.Duration, _ []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status[status]++
	if status == 201 {
		_ = r.latency.RecordValue(min(latency, latencyMax).Microseconds()) // in range
	}
}

func (r *recorder) accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status[201]
}

// line describes the load so far.
func (r *recorder) line() (answered int, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.status {
		answered += n
	}
	seconds := time.Duration(clockd.Mono() - r.begin).Seconds()
	return answered, fmt.Sprintf("%s: %6.0f accepted/s  P50 %.1f ms  P99 %.1f ms  P99.9 %.1f ms  refused %d",
		r.title, float64(r.status[201])/seconds, r.quantile(50), r.quantile(99), r.quantile(99.9), answered-r.status[201])
}

// quantile is in ms.
func (r *recorder) quantile(q float64) float64 { return float64(r.latency.ValueAtQuantile(q)) / 1000 }

// statuses lists the answers by status; 0 is no answer.
func (r *recorder) statuses() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(r.status)) {
		parts = append(parts, strconv.Itoa(status)+": "+strconv.Itoa(r.status[status]))
	}
	return strings.Join(parts, ", ")
}

// result is what one load showed.
type result struct {
	*recorder
	deals    int
	capacity float64 // orders/s; 0 = was not measured
	rate     float64 // orders/s
}

// points are the percentiles that are worth a point: up to the one that a
// thousandth of the orders, or ten, are beyond.
func (r *result) points() []page.Point {
	points := []page.Point{{Percentile: 0, Millis: float64(r.latency.Min()) / 1000}}
	for left := 90.0; left > 0.001 && left/100*float64(r.latency.TotalCount()) >= 10; left *= 0.8 {
		points = append(points, page.Point{Percentile: 100 - left, Millis: r.quantile(100 - left)})
	}
	return points
}

// table shows the results as Markdown.
func table(results []*result) string {
	var out strings.Builder
	out.WriteString("| deals | capacity, orders/s | load, orders/s | accepted | refused or failed | P50 ms | P90 ms | P99 ms | P99.9 ms | P99.99 ms | max ms |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		capacity := "not measured"
		if r.capacity > 0 {
			capacity = fmt.Sprintf("%.0f", r.capacity)
		}
		fmt.Fprintf(&out, "| %d | %s | %.0f | %d | %d | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n",
			r.deals, capacity, r.rate, r.accepted(), r.summary.Answered+r.summary.Failed-r.accepted(),
			r.quantile(50), r.quantile(90), r.quantile(99), r.quantile(99.9), r.quantile(99.99), float64(r.latency.Max())/1000)
	}
	return out.String()
}
