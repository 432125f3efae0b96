package admit

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync"
	"time"
)

const (
	// ClientsMax bounds LimiterConfig.Clients: 64 MiB of slots.
	ClientsMax = 1 << 22
	// BurstMax bounds LimiterConfig.Burst.
	BurstMax = 1_000_000

	ways        = 4             // slots that one client may be in
	shards      = 64            // locks
	clientsStep = ways * shards // LimiterConfig.Clients is rounded up to a multiple
)

// LimiterConfig sets what one client may do.
type LimiterConfig struct {
	// PerSecond is how many requests a client may make in the long run:
	// between one an hour and 1,000,000.
	PerSecond float64
	// Burst is how many it may make at once after a rest: 1 … BurstMax.
	Burst int
	// Clients is how many active clients are told apart: 1 … ClientsMax,
	// rounded up to a multiple of 256. Each costs 16 bytes, from the start.
	Clients int
}

func (c LimiterConfig) validate() error {
	switch {
	// Written so that NaN fails too.
	case !(c.PerSecond >= 1.0/3600 && c.PerSecond <= 1_000_000):
		return fmt.Errorf("admit: %v requests a second, want 1/3600 to 1,000,000", c.PerSecond)
	case c.Burst < 1 || c.Burst > BurstMax:
		return fmt.Errorf("admit: a burst of %d, want 1 to %d", c.Burst, BurstMax)
	case c.Clients < 1 || c.Clients > ClientsMax:
		return fmt.Errorf("admit: %d clients, want 1 to %d", c.Clients, ClientsMax)
	case float64(c.Burst)/c.PerSecond > maxWindow.Seconds():
		return errors.New("admit: a client would need over a year to regain its burst")
	}
	return nil
}

const maxWindow = 365 * 24 * time.Hour

// Limiter is a token bucket for each client, in a fixed amount of memory. Its
// methods may be called concurrently.
//
// A bucket is one number, the time at which it will be full again (the generic
// cell rate algorithm), so a client at rest needs no memory at all: its slot
// looks like an empty one. Clients live in a set-associative table by a keyed
// hash; only when all four slots of a set are of active clients, the one that
// is nearest to full loses its debt, so that a flood of invented clients costs
// their inventor more than it costs the others. golang.org/x/time/rate has no
// such bound: it needs a map beside it, and something to prune that map.
type Limiter struct {
	interval int64 // ns in which one token comes back
	burst    int64 // tokens
	policy   string
	seed     maphash.Seed
	shards   [shards]shard
}

type shard struct {
	mu    sync.Mutex // guards slots
	slots []slot     // sets of ways slots each
	_     [32]byte   // a cache line of its own
}

type slot struct {
	client uint64 // hash
	full   int64  // Mono ns at which the bucket is full again
}

// NewLimiter allocates the table.
func NewLimiter(cfg LimiterConfig) (*Limiter, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Limiter{
		interval: int64(float64(time.Second) / cfg.PerSecond),
		burst:    int64(cfg.Burst),
		seed:     maphash.MakeSeed(),
	}
	window := wholeSeconds(time.Duration(l.interval * l.burst))
	l.policy = fmt.Sprintf(`"client";q=%d;w=%d`, cfg.Burst, window)
	for i := range l.shards {
		l.shards[i].slots = make([]slot, (cfg.Clients+clientsStep-1)/clientsStep*ways)
	}
	return l, nil
}

// Decision is the answer to one request, and what its headers say.
type Decision struct {
	OK        bool
	Remaining int           // requests that the client may still make at once
	Reset     time.Duration // until the client has its whole burst again
	Retry     time.Duration // until its next request can be allowed; 0 if now
}

// Allow takes a token from the client's bucket, if there is one. now is Mono
// ns. The client is any name that cannot be chosen freely: a key's id, a user,
// an address.
func (l *Limiter) Allow(client []byte, now int64) Decision {
	return l.Ask(client, now, true)
}

// Ask is Allow, or, without take, says what Allow would and takes nothing.
func (l *Limiter) Ask(client []byte, now int64, take bool) Decision {
	hash := maphash.Bytes(l.seed, client)
	s := &l.shards[hash%shards]
	s.mu.Lock()
	defer s.mu.Unlock()

	slot := s.find(hash)
	debt := max(slot.full-now, 0)
	ok := debt <= l.interval*(l.burst-1)
	if ok && take {
		debt += l.interval
		slot.client, slot.full = hash, now+debt
	}
	return Decision{
		OK:        ok,
		Remaining: int(l.burst - (debt+l.interval-1)/l.interval),
		Reset:     time.Duration(debt),
		Retry:     time.Duration(max(0, debt-l.interval*(l.burst-1))),
	}
}

// find returns the client's slot, or the one that it may take over, as an
// empty bucket of its own: the one in its set that is nearest to full.
func (s *shard) find(hash uint64) *slot {
	sets := uint64(len(s.slots) / ways)
	set := s.slots[hash/shards%sets*ways:][:ways]
	oldest := &set[0]
	for i := range set {
		if set[i].client == hash {
			return &set[i]
		}
		if set[i].full < oldest.full {
			oldest = &set[i]
		}
	}
	*oldest = slot{client: hash}
	return oldest
}

// Policy returns the value of the RateLimit-Policy header: the burst as the
// quota q, in a window of w seconds.
func (l *Limiter) Policy() string { return l.policy }

// AppendRateLimit appends the value of the RateLimit header: r requests
// remain, and the quota is whole again in t seconds.
func (d Decision) AppendRateLimit(dst []byte) []byte {
	dst = append(dst, `"client";r=`...)
	dst = strconv.AppendInt(dst, int64(d.Remaining), 10)
	dst = append(dst, ";t="...)
	return strconv.AppendInt(dst, int64(wholeSeconds(d.Reset)), 10)
}
