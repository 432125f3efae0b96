package bench

import (
	"math"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRecorder: what all connections saw comes together, and only accepted orders have
// a latency.
func TestRecorder(t *testing.T) {
	r := newRecorder("title", 0)
	var connections sync.WaitGroup
	for conn := range 10 {
		connections.Go(func() {
			for i := range 100 {
				r.observe(conn, 201, time.Duration(conn*100+i+1)*time.Millisecond, nil) // 1 ms … 1 s
				r.observe(conn, 409, time.Microsecond, nil)
			}
		})
	}
	connections.Wait()
	r.observe(0, 0, time.Hour, nil)
	if r.accepted() != 1000 || r.statuses() != "0: 1, 201: 1000, 409: 1000" {
		t.Errorf("%d accepted, %s", r.accepted(), r.statuses())
	}
	for q, want := range map[float64]float64{50: 500, 90: 900, 99: 990, 99.9: 999, 100: 1000} {
		if got := r.quantile(q); math.Abs(got-want) > want/1000+0.001 {
			t.Errorf("P%v is %v ms, not %v", q, got, want)
		}
	}
	r.observe(0, 201, time.Hour, nil)
	if got := r.quantile(100); math.Abs(got-latencyMax.Seconds()*1000) > got/1000 {
		t.Errorf("an hour is recorded as %v ms", got)
	}
}

// TestPoints: a percentile that fewer than ten orders are beyond is no point of a plot.
func TestPoints(t *testing.T) {
	for _, orders := range []int{0, 10, 1000, 100_000} {
		r := &result{recorder: newRecorder("title", orders)}
		for i := range orders {
			r.observe(0, 201, time.Duration(i+1)*time.Microsecond, nil)
		}
		points := r.points()
		for i, p := range points {
			beyond := float64(orders) * (1 - p.Percentile/100)
			if i > 0 && (beyond < 9.99 || p.Percentile <= points[i-1].Percentile || p.Millis < points[i-1].Millis) {
				t.Errorf("%d orders: point %d is %+v, behind %+v", orders, i, p, points[i-1])
			}
		}
		if most := points[len(points)-1].Percentile; orders >= 1000 && float64(orders)*(1-most/100) > 20 {
			t.Errorf("%d orders: no points beyond P%v", orders, most)
		}
	}
}

// TestTable: what was not measured is said to be so, and failures stand beside refusals.
func TestTable(t *testing.T) {
	r := &result{recorder: newRecorder("title", 0), deals: 7, rate: 12.4, capacity: 24.8}
	r.observe(0, 201, 2*time.Millisecond, nil)
	r.observe(0, 503, time.Millisecond, nil)
	r.summary.Answered, r.summary.Failed = 2, 3
	text := table([]*result{r, {recorder: newRecorder("title", 0), deals: 8}})
	for _, want := range []string{"| 7 | 25 | 12 | 1 | 4 | 2.00 | 2.00 |", "| 8 | not measured | 0 | 0 | 0 | 0.00 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
