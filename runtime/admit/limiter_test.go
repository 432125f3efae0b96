package admit

import (
	"fmt"
	"math"
	"testing"
	"time"
)

func newLimiter(t testing.TB, cfg LimiterConfig) *Limiter {
	t.Helper()
	l, err := NewLimiter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLimiterConfigIsValidated(t *testing.T) {
	for _, cfg := range []LimiterConfig{
		{PerSecond: 0, Burst: 1, Clients: 1},
		{PerSecond: math.NaN(), Burst: 1, Clients: 1},
		{PerSecond: 2e6, Burst: 1, Clients: 1},
		{PerSecond: 1, Burst: 0, Clients: 1},
		{PerSecond: 1, Burst: BurstMax + 1, Clients: 1},
		{PerSecond: 1, Burst: 1, Clients: 0},
		{PerSecond: 1, Burst: 1, Clients: ClientsMax + 1},
		{PerSecond: 1.0 / 3600, Burst: BurstMax, Clients: 1},
	} {
		if _, err := NewLimiter(cfg); err == nil {
			t.Errorf("NewLimiter(%+v) succeeded", cfg)
		}
	}
}

// TestBucket plays one client: 2 requests a second, 3 at once.
func TestBucket(t *testing.T) {
	l := newLimiter(t, LimiterConfig{PerSecond: 2, Burst: 3, Clients: 10})
	if got, want := l.Policy(), `"client";q=3;w=2`; got != want {
		t.Errorf("policy = %s, want %s", got, want)
	}
	for _, s := range []struct {
		at      time.Duration
		ok      bool
		retry   time.Duration
		headers string
	}{
		{0, true, 0, `"client";r=2;t=1`},
		{0, true, 0, `"client";r=1;t=1`},
		{0, true, 500 * time.Millisecond, `"client";r=0;t=2`},
		{0, false, 500 * time.Millisecond, `"client";r=0;t=2`},
		{499 * time.Millisecond, false, time.Millisecond, `"client";r=0;t=2`},
		{500 * time.Millisecond, true, 500 * time.Millisecond, `"client";r=0;t=2`},
		{time.Second, true, 500 * time.Millisecond, `"client";r=0;t=2`},
		{time.Hour, true, 0, `"client";r=2;t=1`},
	} {
		d := l.Allow([]byte("u-7"), 1+int64(s.at))
		if headers := string(d.AppendRateLimit(nil)); d.OK != s.ok || d.Retry != s.retry || headers != s.headers {
			t.Errorf("at %v: %+v, %s; want %+v", s.at, d, headers, s)
		}
	}
}

func TestLongRunRate(t *testing.T) {
	l := newLimiter(t, LimiterConfig{PerSecond: 100, Burst: 10, Clients: 10})
	allowed := 0
	for ms := range int64(10_000) {
		if l.Allow([]byte("greedy"), ms*int64(time.Millisecond)).OK {
			allowed++
		}
	}
	if allowed < 1000 || allowed > 1010 {
		t.Fatalf("%d of 10,000 in 10 s, want 1,000 and a burst of 10", allowed)
	}
}

// TestFloodOfClients checks that memory stays as it is, that an innocent
// client is never turned away, and that a greedy one gains next to nothing
// from as many invented clients as the table has slots.
func TestFloodOfClients(t *testing.T) {
	const clients = 1 << 12
	l := newLimiter(t, LimiterConfig{PerSecond: 1, Burst: 5, Clients: clients})
	now := int64(time.Second)
	for range 5 {
		l.Allow([]byte("greedy"), now)
	}
	var allowed int
	for i := range clients {
		if !l.Allow(fmt.Appendf(nil, "invented-%d", i), now).OK {
			t.Fatal("a client was turned away at its first request")
		}
		if l.Allow([]byte("greedy"), now).OK {
			allowed++
		}
	}
	if allowed > 0 {
		t.Errorf("the greedy client got %d more through", allowed)
	}
	slots := 0
	for i := range l.shards {
		slots += len(l.shards[i].slots)
	}
	if slots != clients {
		t.Errorf("%d slots, want %d", slots, clients)
	}
}

func TestAllowDoesNotAllocate(t *testing.T) {
	l := newLimiter(t, LimiterConfig{PerSecond: 1, Burst: 5, Clients: 1000})
	client, header := []byte("u-7"), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(1000, func() { header = l.Allow(client, 1).AppendRateLimit(header[:0]) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	l := newLimiter(b, LimiterConfig{PerSecond: 100, Burst: 10, Clients: 1 << 16})
	names := make([][]byte, 1<<14)
	for i := range names {
		names[i] = fmt.Appendf(nil, "u-%d", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Allow(names[i%len(names)], int64(i)*1000)
	}
}
