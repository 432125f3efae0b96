package actors

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/guard"
	"github.com/doorbuster/doorbuster/runtime/guard/redistest"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// BenchmarkPlace is an order from the caller to the disk and back, without
// HTTP: 400 callers, one hot deal or a thousand, on a real file or in memory.
func BenchmarkPlace(b *testing.B) {
	for _, deals := range []int{1, 1000} {
		b.Run(fmt.Sprintf("memory/deals=%d", deals), func(b *testing.B) { benchmarkPlace(b, journaltest.NewMemory(), deals, "") })
		b.Run(fmt.Sprintf("synced/deals=%d", deals), func(b *testing.B) { benchmarkSynced(b, deals, "") })
	}
}

// BenchmarkPlaceGuarded is BenchmarkPlace on a real file, with and without a stock guard
// whose Redis is on the same machine.
func BenchmarkPlaceGuarded(b *testing.B) {
	for _, deals := range []int{1, 1000} {
		b.Run(fmt.Sprintf("without/deals=%d", deals), func(b *testing.B) { benchmarkSynced(b, deals, "") })
		b.Run(fmt.Sprintf("with/deals=%d", deals), func(b *testing.B) { benchmarkSynced(b, deals, redistest.Start(b).URL()) })
	}
}

func benchmarkSynced(b *testing.B, deals int, redis string) {
	store, err := embedded.Open(embedded.Config{Dir: b.TempDir(), Now: clockd.Mono, Wall: func() int64 { return start }, Fatal: func(err error) { b.Error(err) }})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	benchmarkPlace(b, store, deals, redis)
}

// benchmarkPlace has a stock guard if redis is not "".
func benchmarkPlace(b *testing.B, store journal.Store, deals int, redis string) {
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		b.Fatal(err)
	}
	clock.Start()
	defer clock.Close()
	var witness Guard
	if redis != "" {
		g, err := guard.New(guard.Config{URL: redis, Clock: clock, Logger: discard})
		if err != nil {
			b.Fatal(err)
		}
		defer func() {
			st := g.Stats()
			if st.Refused > 0 {
				b.Errorf("the guard refuses what is right: %+v", st)
			}
			b.ReportMetric(100*float64(st.Aside)/float64(st.Asked+st.Aside), "%aside")
		}()
		defer g.Close()
		witness = g
	}
	var groups, events atomic.Int64
	node, err := NewNode(b.Context(), store, clock, Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { b.Error(err) },
		Guard:   witness,
		Observe: func(g journal.Group) { groups.Add(1); events.Add(int64(g.Events)) },
	})
	if err != nil {
		b.Fatal(err)
	}
	defer node.Close()
	ids := make([][]byte, deals)
	for i := range ids {
		ids[i] = fmt.Appendf(nil, "d-%d", i)
		spec := &deal.Spec{
			ID: string(ids[i]), Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'},
			UnitPrice: 9900, Stock: deal.MaxStock, ReserveTTL: deal.DefaultTTL, Rules: []string{"tiered"},
		}
		call(b, node, ids[i], func(r *Request) { r.Cmd.Kind, r.Cmd.Spec = deal.Create, spec })
	}
	const callers = 400
	groups.Store(0)
	events.Store(0)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				call(b, node, ids[i%int64(deals)], func(r *Request) {
					r.Body = strconv.AppendInt(append(r.Body[:0], "user-"...), i%100_000, 10)
					split := len(r.Body)
					r.Body = strconv.AppendInt(append(r.Body, "key-0123456789-"...), i, 10)
					r.Cmd.Kind, r.Cmd.User, r.Cmd.Key, r.Cmd.Quantity = deal.Place, r.Body[:split], r.Body[split:], 1
				})
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
	b.ReportMetric(float64(events.Load())/float64(max(1, groups.Load())), "orders/sync")
}

func call(b *testing.B, n *Node, id []byte, fill func(*Request)) {
	r, err := n.Acquire(own.ClassNew)
	if err != nil {
		b.Error(err)
		return
	}
	r.Deal = id
	fill(r)
	if err := n.Call(r); err != nil || r.Reply.Code != deal.OK {
		b.Errorf("%v, code %d", err, r.Reply.Code)
	}
	n.Release(r)
}
