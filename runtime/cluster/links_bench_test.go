package cluster

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// crowd waits for many answers at once.
type crowd struct {
	sync.WaitGroup
	failed error // guarded by the link: its answers come on one goroutine
}

func (c *crowd) Replied(_ []byte, err error) {
	if err != nil {
		c.failed = err
	}
	c.Done()
}

// BenchmarkRequest asks one node of another, over loopback, in groups that are sent
// together: what one request costs, both ends, there and back.
func BenchmarkRequest(b *testing.B) {
	for _, group := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(group), func(b *testing.B) {
			from, to := pair(b)
			from.mustAsk(b, to.self().ID)
			body := make([]byte, 200)
			before := from.all()[0]
			c := &crowd{}
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += group {
				deadline := from.clock.Now().Mono + int64(time.Minute)
				n := min(group, b.N-done)
				c.Add(n)
				for range n {
					from.send("b", body, deadline, c)
				}
				c.Wait()
			}
			b.StopTimer()
			if c.failed != nil {
				b.Fatal(c.failed)
			}
			after := from.all()[0]
			b.ReportMetric(float64(after.RequestsSent-before.RequestsSent)/float64(after.BatchesSent-before.BatchesSent), "requests/batch")
		})
	}
}

// BenchmarkLoad keeps 1,024 requests in flight, as a busy node does: batches find their
// own size.
func BenchmarkLoad(b *testing.B) {
	from, to := pair(b)
	from.mustAsk(b, to.self().ID)
	before := from.all()[0]
	body := make([]byte, 200)
	seats := make(chan struct{}, 1024)
	done := seat(seats)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		seats <- struct{}{}
		from.send("b", body, from.clock.Now().Mono+int64(time.Minute), done)
	}
	for range cap(seats) {
		seats <- struct{}{}
	}
	b.StopTimer()
	after := from.all()[0]
	b.ReportMetric(float64(after.RequestsSent-before.RequestsSent)/float64(after.BatchesSent-before.BatchesSent), "requests/batch")
}

type seat chan struct{}

func (s seat) Replied([]byte, error) { <-s }
