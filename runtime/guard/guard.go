// Package guard asks a second witness before a write reaches the journal: a script on
// Redis that keeps, for each deal, its owner's epoch, how far its events have come and
// the units that are left.
//
// The witness can refuse and never authorise. Whatever it passes is still appended only
// if (stream, epoch, seq) are what the journal itself has, so a Redis that lies, forgets
// or is not there costs no order its correctness. What it adds is for the day on which
// the journal is wrong: restored from an old backup, promoted without its newest events,
// or two of them where there should be one. Then owners believe in a past that shoppers
// were told has passed, and the witness remembers.
//
// It stands between the actors and the committer as a stage of its own. Submit queues and
// returns; one goroutine takes what has gathered, asks for all of it in one round trip
// and passes the writes on, in order. Meanwhile actors decide and the committer makes the
// group before durable, so nobody waits but the write itself, and that for Patience at
// most: when Redis errs or is late the guard steps aside, passes everything on unasked
// and looks once in a while whether Redis is back. A strict guard refuses instead what
// takes stock, as long as that lasts.
//
// A refused write goes on to the committer under an epoch that is nobody's, and so is
// fenced there: its activation ends and the deal is read anew, which is all that can be
// done about an owner that is behind.
package guard

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

const (
	// Patience is how long a group of writes may wait for Redis.
	Patience = 5 * time.Millisecond
	// claimsMax bounds the writes of one round trip: some µs of Redis's time each, so
	// that a full one is answered well within Patience.
	claimsMax = 256
	// probeEvery is how often a Redis that was late is asked whether it is back.
	probeEvery = 250 * time.Millisecond
	// connectTimeout bounds a connection's first words.
	connectTimeout = time.Second
	// forgetAfter is when Redis forgets a deal that nobody writes to.
	forgetAfter = 30 * 24 * time.Hour
	// nobody is the epoch of refused writes: Open never returns it.
	nobody = 0

	prefix = "doorbuster:guard:" // of a deal's key
)

// Config tunes a Guard. Fields that are not marked optional are required.
type Config struct {
	URL    string // redis://, rediss:// or unix://
	Strict bool   // refuse what takes stock while Redis does not answer
	Clock  *clockd.Clock
	Logger *slog.Logger
	// Patience overrides the constant of that name; optional.
	Patience time.Duration
}

func (c *Config) validate() error {
	if c.Clock == nil || c.Logger == nil {
		return errors.New("guard: Clock and Logger are required")
	}
	c.Patience = cmp.Or(c.Patience, Patience)
	if c.Patience < 0 {
		return errors.New("guard: Patience is negative")
	}
	return CheckURL(c.URL)
}

// Stats count since the start.
type Stats struct {
	Asked   uint64 // writes that Redis was asked about in time
	Refused uint64 // of those
	Aside   uint64 // writes that went on unasked
	Held    uint64 // writes that a strict guard refused because nobody could be asked
	Up      bool   // Redis answers
}

// Guard is the stage. Its methods may be called concurrently.
type Guard struct {
	cfg    Config
	option rueidis.ClientOption
	script *rueidis.Lua
	next   func(*journal.Write)

	ctx    context.Context // of everything that waits for Redis
	cancel context.CancelFunc
	wake   chan struct{}  // holds a token if the queue may have turned non-empty
	stage  sync.WaitGroup // run
	probes sync.WaitGroup // at most one, while Redis is away

	client atomic.Pointer[rueidis.Client] // nil until the first connection
	up     atomic.Bool

	asked, refused, aside, held atomic.Uint64

	mu      sync.Mutex // guards queue, closed and started
	queue   []claim    // as long as admission lets writes be under way
	closed  bool
	started bool

	taken      []claim // swapped out of queue; the stage's own, as are the next two
	keys, args []string
}

// claim is a write and what the witness is told of it besides.
type claim struct {
	write       *journal.Write
	taken, left int64
	landed      uint64
}

//go:embed claim.lua
var claimLua string

// New connects to Redis. One that does not answer now is tried again later.
func New(cfg Config) (*Guard, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	option, err := clientOption(cfg.URL)
	if err != nil {
		return nil, err
	}
	g := &Guard{cfg: cfg, option: option, script: rueidis.NewLuaScript(claimLua), wake: make(chan struct{}, 1)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.up.Store(true)
	if err := g.connect(); err != nil {
		g.away(err)
	}
	return g, nil
}

// Start begins to pass writes on to next.
func (g *Guard) Start(next func(*journal.Write)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started || g.closed {
		panic("guard: started twice or after Close")
	}
	g.started, g.next = true, next
	g.stage.Go(g.run)
}

// Submit queues a write and returns at once. The write takes so many units of what is
// available, less than none if it gives some back, and leaves so many by the owner's own
// count; events up to landed are known to be on disk. After Close the write is passed on
// unasked, on the caller's goroutine.
func (g *Guard) Submit(w *journal.Write, taken, left int64, landed uint64) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		g.next(w)
		return
	}
	g.queue = append(g.queue, claim{w, taken, left, landed})
	first := len(g.queue) == 1
	g.mu.Unlock()
	if first {
		g.signal()
	}
}

func (g *Guard) signal() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Refusing says whether new orders had better not be decided: what they write would be
// refused.
func (g *Guard) Refusing() bool { return g.cfg.Strict && !g.up.Load() }

// Stats returns the counts.
func (g *Guard) Stats() Stats {
	return Stats{
		Asked: g.asked.Load(), Refused: g.refused.Load(), Aside: g.aside.Load(), Held: g.held.Load(), Up: g.up.Load(),
	}
}

func (g *Guard) run() {
	for range g.wake {
		for g.take() {
			for rest := g.taken; len(rest) > 0; {
				n := min(len(rest), claimsMax)
				g.pass(rest[:n])
				rest = rest[n:]
			}
		}
		g.mu.Lock()
		done := g.closed && len(g.queue) == 0
		g.mu.Unlock()
		if done {
			return
		}
	}
}

// take swaps the queue for the emptied slice of the last round.
func (g *Guard) take() bool {
	clear(g.taken)
	g.mu.Lock()
	g.taken, g.queue = g.queue, g.taken[:0]
	g.mu.Unlock()
	return len(g.taken) > 0
}

// pass asks about some writes and passes them on.
func (g *Guard) pass(claims []claim) {
	g.keys, g.args = g.keys[:0], append(g.args[:0], strconv.Itoa(int(forgetAfter/time.Second)))
	for _, c := range claims {
		if c.write.Count > 0 { // barriers claim nothing
			g.keys = append(g.keys, prefix+c.write.Stream)
			g.args = append(g.args,
				strconv.FormatUint(c.write.Epoch, 10), strconv.FormatUint(c.write.Seq, 10), strconv.Itoa(c.write.Count),
				strconv.FormatInt(c.taken, 10), strconv.FormatInt(c.left, 10), strconv.FormatUint(c.landed, 10))
		}
	}
	if len(g.keys) > 0 {
		letters, err := g.ask()
		if err != nil {
			g.unasked(claims)
		} else {
			g.judge(claims, letters)
		}
	}
	for _, c := range claims {
		g.next(c.write)
	}
}

var errAway = errors.New("guard: Redis is away")

// ask returns a letter for each key.
func (g *Guard) ask() (string, error) {
	if !g.up.Load() {
		return "", errAway
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.cfg.Patience)
	defer cancel()
	letters, err := g.script.Exec(ctx, *g.client.Load(), g.keys, g.args).ToString()
	if err == nil && len(letters) != len(g.keys) {
		err = fmt.Errorf("guard: %d answers to %d claims", len(letters), len(g.keys))
	}
	if err != nil {
		g.away(err)
	}
	return letters, err
}

// unasked lets writes go on, or, if the guard is strict, those that take no stock.
func (g *Guard) unasked(claims []claim) {
	for _, c := range claims {
		switch {
		case c.write.Count == 0:
		case g.cfg.Strict && c.taken > 0:
			c.write.Epoch = nobody
			g.held.Add(1)
		default:
			g.aside.Add(1)
		}
	}
}

// reasons are the letters that refuse.
var reasons = map[byte]string{
	'e': "a newer owner has written to the deal",
	's': "these events were claimed before",
	'l': "the journal lacks events of the deal that were on disk",
	'z': "more stock is taken than is left",
}

func (g *Guard) judge(claims []claim, letters string) {
	next := 0
	for _, c := range claims {
		if c.write.Count == 0 {
			continue
		}
		g.asked.Add(1)
		if why, no := reasons[letters[next]]; no {
			g.refused.Add(1)
			g.cfg.Logger.Error("the stock guard refuses a write", "deal_id", c.write.Stream,
				"epoch", c.write.Epoch, "seq", c.write.Seq, "taken", c.taken, "reason", why)
			c.write.Epoch = nobody
		}
		next++
	}
}

// away notes that Redis does not answer, and has it watched until it does again.
func (g *Guard) away(err error) {
	g.up.Store(false)
	g.cfg.Logger.Warn("the stock guard steps aside", "error", err, "strict", g.cfg.Strict)
	g.probes.Go(g.probe)
}

func (g *Guard) probe() {
	for g.cfg.Clock.Sleep(g.ctx, probeEvery) == nil {
		if err := g.connect(); err == nil {
			g.cfg.Logger.Info("the stock guard is back")
			g.up.Store(true)
			return
		}
	}
}

// connect returns nil if Redis answers in time.
func (g *Guard) connect() error {
	if g.client.Load() == nil {
		client, err := rueidis.NewClient(g.option)
		if err != nil {
			return err
		}
		g.client.Store(&client)
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.cfg.Patience)
	defer cancel()
	client := *g.client.Load()
	return client.Do(ctx, client.B().Ping().Build()).Error()
}

// Close passes on what is queued, and ends.
func (g *Guard) Close() {
	g.mu.Lock()
	again := g.closed
	g.closed = true
	g.mu.Unlock()
	if again {
		return
	}
	g.signal()
	g.stage.Wait()
	g.cancel()
	g.probes.Wait()
	if client := g.client.Load(); client != nil {
		(*client).Close()
	}
}

// CheckURL says what is wrong with an address of Redis.
func CheckURL(url string) error {
	_, err := clientOption(url)
	return err
}

// clientOption reads the address. One connection, so that Redis sees claims in the order
// in which they were made, also those that nobody waits for any more; and no retries: a
// claim that is made twice is refused.
func clientOption(url string) (rueidis.ClientOption, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil {
		return option, fmt.Errorf("guard: %w", err)
	}
	option.ForceSingleClient, option.PipelineMultiplex, option.AlwaysPipelining = true, -1, true
	option.DisableRetry, option.DisableCache, option.AlwaysRESP2 = true, true, true
	option.Dialer.Timeout, option.ConnWriteTimeout = connectTimeout, connectTimeout
	option.ClientName = "doorbuster"
	return option, nil
}
