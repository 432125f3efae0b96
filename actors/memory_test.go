package actors

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
)

// What a deal may cost in memory. An idle one is an entry in the directory and,
// if it will end by itself, a deadline in the wheel.
const (
	idleBytesMax   = 200
	activeBytesMax = 8 << 10 // with one order in it
)

func TestDealMemory(t *testing.T) {
	idle, active := dealMemory(t, 10_000, 500)
	t.Logf("%d bytes an idle deal, %d an active one", idle, active)
	if idle > idleBytesMax {
		t.Errorf("an idle deal takes %d bytes, the bound is %d", idle, idleBytesMax)
	}
	if active > activeBytesMax {
		t.Errorf("an active deal takes %d bytes, the bound is %d", active, activeBytesMax)
	}
}

// BenchmarkDealMemory is the size that the design asks for: 100,000 deals, of
// which 1,000 are active.
func BenchmarkDealMemory(b *testing.B) {
	for b.Loop() {
		idle, active := dealMemory(b, 100_000, 1000)
		b.ReportMetric(float64(idle), "B/idle-deal")
		b.ReportMetric(float64(active), "B/active-deal")
	}
	b.ReportMetric(0, "ns/op")
}

// dealMemory creates deals, lets them go idle, then places an order in some,
// and returns the bytes of heap that one of each kind takes.
func dealMemory(t testing.TB, deals, active int) (idleBytes, activeBytes int64) {
	clock := clockd.NewManual(start)
	store, err := embedded.Open(embedded.Config{Dir: t.TempDir(), Now: clockd.Mono, Wall: func() int64 { return start }, Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, clock: clock, cfg: Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) },
		PassivateAfter: time.Second, RequestTimeout: time.Hour,
	}}
	if h.node, err = NewNode(t.Context(), store, clock.Clock(), h.cfg); err != nil {
		t.Fatal(err)
	}
	const round = 20_000
	for first := 0; first < deals; first += round {
		h.inParallel(min(round, deals-first), func(i int) {
			h.create(fmt.Sprint("deal-", first+i), func(s *deal.Spec) { s.EndsAt = start + 3_600_000 })
		})
		clock.Advance(2 * time.Second)
		h.eventually("the deals leave memory", func() bool { return h.node.Stats().Active == 0 })
	}
	idle := heap()
	h.inParallel(active, func(i int) {
		if a := h.place(fmt.Sprint("deal-", i), "user-1", "key-1", 1); a.code != deal.OK || a.err != nil {
			t.Errorf("%v, %+v", a.err, a)
		}
	})
	activeBytes = (heap() - idle) / int64(active)
	h.node.Close()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	// What the node keeps of deals that are not in memory is what goes with it.
	with := heap()
	h.node.directory, h.node.wheel = directory{}, nil
	idleBytes = (with - heap()) / int64(deals)
	runtime.KeepAlive(h)
	return idleBytes, activeBytes
}

// inParallel calls fn with 0 … n-1, on as many goroutines as the node takes.
func (h *house) inParallel(n int, fn func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				fn(int(i))
			}
		})
	}
	wg.Wait()
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLargeBatchesAreNotKept: what a batch with many events needed does not stay for the
// small ones after it.
func TestLargeBatchesAreNotKept(t *testing.T) {
	h := newHouse(t, nil)
	p := &pending{groups: make([]groupChange, 5000)}
	p.Data = make([]byte, pendingKept+1)
	h.node.putPending(p)
	if p.Data != nil || p.groups != nil {
		t.Errorf("%d bytes and %d groups are kept", cap(p.Data), cap(p.groups))
	}
}
