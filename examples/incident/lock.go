package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

var lockChapter = chapter{
	number: 1, title: "The lock", file: "lock.go",
	prose: `
One mutex guarded the map of orders. What made it deadly was not the map but what came to
be done while it was held: first a line of log, then a write to the cache that "had to be
consistent". Every order waits for the slowest thing that any order does under the lock.
Sharding the mutex 1,024 ways, by deal, is the usual repair, and it is one as long as the
shoppers want different deals. In a flash sale they want the same one, so they meet in the
same shard.

With ownership, a deal belongs to one goroutine. It takes all orders that have gathered,
decides them in memory and hands them on; one writer logs, or tells the cache, for all of
them at once, and only then do their shoppers get their answers. An order still waits, but
behind one write, not behind everyone's. All three sides are net/http with encoding/json,
and an answer is given only when the line is logged or the cache has it.`,
	run: runLock,
}

// An order, its receipt and a deal are the same on all sides.
type (
	order struct {
		Deal     string `json:"deal_id"`
		User     string `json:"user_id"`
		Quantity int64  `json:"quantity"`
	}
	receipt struct {
		ID        string `json:"order_id"`
		Deal      string `json:"deal_id"`
		User      string `json:"user_id"`
		Total     int64  `json:"total"`
		Available int64  `json:"available"`
	}
	stall struct {
		id     string
		stock  int64
		price  int64
		orders map[string]receipt
	}
)

var (
	errSoldOut = errors.New("sold out")
	errNoDeal  = errors.New("no such deal")
)

// sell decides one order. Its caller sees to it that nobody else is in here.
func (d *stall) sell(o order) (receipt, error) {
	if o.Quantity < 1 || o.Quantity > d.stock {
		return receipt{}, errSoldOut
	}
	d.stock -= o.Quantity
	r := receipt{
		ID: d.id + "-" + strconv.Itoa(len(d.orders)+1), Deal: d.id, User: o.User,
		Total: o.Quantity * d.price, Available: d.stock,
	}
	d.orders[r.ID] = r
	return r, nil
}

// shop places orders; it returns when an order has been recorded.
type shop interface {
	place(o order) (receipt, error)
}

// recorder is what has to be done about orders once they are decided.
type recorder interface {
	record(receipts []receipt) error
}

// ── As it was ──────────────────────────────────────────────────────────────

// lockedShop has one mutex for everything.
type lockedShop struct {
	mu    sync.Mutex // guards deals and all in them
	deals map[string]*stall
	then  recorder
}

func (s *lockedShop) place(o order) (receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock() // and so the recording is done under the lock as well
	d, ok := s.deals[o.Deal]
	if !ok {
		return receipt{}, errNoDeal
	}
	r, err := d.sell(o) // in memory, and quick
	if err != nil {
		return receipt{}, err
	}
	// A log line, a cache, and whatever comes to be added here: nobody orders
	// anything meanwhile.
	return r, s.then.record([]receipt{r})
}

// ── The usual repair ───────────────────────────────────────────────────────

const shards = 1024

// shardedShop has a mutex for each shard of the deals. The stock of a deal must
// be counted in one place, so a deal is in one shard.
type shardedShop struct {
	shards [shards]lockedShop
}

func (s *shardedShop) place(o order) (receipt, error) {
	return s.shards[shardOf(o.Deal)].place(o)
}

func shardOf(deal string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(deal)) // a hash cannot fail
	return h.Sum32() % shards
}

// ── As it is ───────────────────────────────────────────────────────────────

// mailMax bounds the orders that wait for one deal, or for the writer.
const mailMax = 4096

// ownedShop has an owner for each deal and one writer for all of them. No lock.
type ownedShop struct {
	owners map[string]*owner // never changes
	ready  chan []*asked     // decided, not yet recorded
	then   recorder
}

// asked is an order on its way: shopper → owner → writer → shopper.
type asked struct {
	order   order
	receipt receipt
	err     error
	done    chan struct{}
}

type owner struct {
	stall *stall // only the owner's goroutine touches it
	mail  chan *asked
}

func (s *ownedShop) place(o order) (receipt, error) {
	d, ok := s.owners[o.Deal]
	if !ok {
		return receipt{}, errNoDeal
	}
	a := &asked{order: o, done: make(chan struct{})}
	d.mail <- a // from here on it is the owner's
	<-a.done    // now it is ours again, and recorded
	return a.receipt, a.err
}

// run is the owner's life: take what has gathered, decide it, hand it on. It
// does not wait for the record: the next orders are decided meanwhile.
func (d *owner) run(ready chan<- []*asked) {
	for first := range d.mail {
		batch := gather(first, d.mail)
		for _, a := range batch {
			a.receipt, a.err = d.stall.sell(a.order) // no lock: nobody else comes here
		}
		ready <- batch
	}
}

// write records what has gathered from all owners with one write, then answers.
func (s *ownedShop) write() {
	for first := range s.ready {
		s.settle(slices.Concat(gather(first, s.ready)...))
	}
}

func (s *ownedShop) settle(batch []*asked) {
	var receipts []receipt
	for _, a := range batch {
		if a.err == nil {
			receipts = append(receipts, a.receipt)
		}
	}
	err := s.then.record(receipts)
	for _, a := range batch {
		if a.err == nil {
			a.err = err
		}
		close(a.done)
	}
}

// gather returns first and all that has queued behind it.
func gather[T any](first T, queue <-chan T) []T {
	all := []T{first}
	for len(all) < mailMax {
		select {
		case next := <-queue:
			all = append(all, next)
		default:
			return all
		}
	}
	return all
}

// ── The comparison ─────────────────────────────────────────────────────────

// The shops by the names that the sides of the comparison have.
const (
	shopLocked  = "one mutex"
	shopSharded = "1,024 shards"
	shopOwned   = "ownership"
)

// openShop opens a shop with deals d-0 … and so much of each.
func openShop(kind string, deals int, stock int64, then recorder) (shop, error) {
	stalls := make(map[string]*stall, deals)
	for i := range deals {
		id := "d-" + strconv.Itoa(i)
		stalls[id] = &stall{id: id, stock: stock, price: 9900, orders: make(map[string]receipt)}
	}
	switch kind {
	case shopLocked:
		return &lockedShop{deals: stalls, then: then}, nil
	case shopSharded:
		s := new(shardedShop)
		for i := range s.shards {
			s.shards[i].then = then
			s.shards[i].deals = make(map[string]*stall)
		}
		for id, d := range stalls {
			s.shards[shardOf(id)].deals[id] = d
		}
		return s, nil
	case shopOwned:
		s := &ownedShop{owners: make(map[string]*owner, deals), ready: make(chan []*asked, mailMax), then: then}
		for id, d := range stalls {
			o := &owner{stall: d, mail: make(chan *asked, mailMax)}
			s.owners[id] = o
			go o.run(s.ready) // both end with the process
		}
		go s.write()
		return s, nil
	}
	return nil, fmt.Errorf("no such shop: %q", kind)
}

const stallStock = 1_000_000_000 // nothing sells out while it is measured

// lockRow is one setting in which the shops are compared.
type lockRow struct {
	title       string
	then        string // what is done about an order once it is decided
	deals       int
	connections int
	procs       int // GOMAXPROCS
}

var lockRows = []lockRow{
	{"only the map; one deal", thenNothing, 1, 400, 2},
	{"the same, GOMAXPROCS=8", thenNothing, 1, 400, 8},
	{"the same, GOMAXPROCS=32", thenNothing, 1, 400, 32},
	{"a line of log; one deal", thenLog, 1, 400, 2},
	{"a slow cache; one deal", thenCache, 1, 400, 2},
	{"the same, 2,000 connections", thenCache, 1, 2000, 2},
	{"a slow cache; 1,000 deals", thenCache, 1000, 400, 2},
}

// lockCacheDelay is how long the cache of this chapter takes.
const lockCacheDelay = 2 * time.Millisecond

func (s *session) lockPair(row lockRow) pair {
	p := pair{title: row.title, columns: []column{
		{"orders/s", "%.0f"},
		{"P50 ms", "%.1f"},
		{"P99 ms", "%.1f"},
		{"goroutines", "%.0f"},
		{"mutex ms/order", "%.3f"},
		{"block ms/order", "%.3f"},
	}}
	for _, kind := range []string{shopLocked, shopSharded, shopOwned} {
		p.sides = append(p.sides, side{kind, func(ctx context.Context) (figures, error) {
			l, r, err := s.shopRound(ctx, kind, row, lockCacheDelay, s.seconds)
			if err != nil {
				return nil, err
			}
			orders := float64(r.Orders)
			return figures{l.Rate(), page.Millis(l.P50), page.Millis(l.P99), float64(r.Goroutines), r.MutexSeconds * 1e3 / orders, r.BlockSeconds * 1e3 / orders}, nil
		}})
	}
	return p
}

// shopRound loads a fresh shop in a process of its own.
func (s *session) shopRound(ctx context.Context, kind string, row lockRow, delay time.Duration, seconds int) (lab.Load, shopReport, error) {
	var report shopReport
	c, err := s.startChild(ctx, row.procs, "orders", "--shop", kind, "--then", row.then,
		"--delay", delay.String(), "--deals", strconv.Itoa(row.deals), "--dir", s.dir)
	if err != nil {
		return lab.Load{}, report, err
	}
	l, err := s.wrk(ctx, c.listen, 2, row.connections, seconds, row.deals)
	return l, report, errors.Join(err, c.end(&report))
}

func runLock(ctx context.Context, s *session) (string, error) {
	var results []result
	var groups []page.Group
	var verdicts strings.Builder
	for _, row := range s.lockRows {
		r, err := s.measure(ctx, s.rounds, s.lockPair(row))
		if err != nil {
			return "", err
		}
		results = append(results, r)
		groups = append(groups, r.bars(0))
		verdicts.WriteString(lockVerdict(r))
	}
	plot, err := s.plot("lock", "Chapter 1: orders/s, by what is done once an order is decided", groups...)
	return fmt.Sprintf("`wrk -t2 -c400 -d%ds` on the same machine, %d rounds of each side; the profiles are on for all, and GOMAXPROCS\n"+
		"is 2 where a setting has no other. The slow cache takes %v and more. Profiles are of the stacks that place an order. The mutex profile charges each unlock\n"+
		"with the time of all who waited for it, also of those who go on waiting; the block profile has the waits\n"+
		"that ended, for a mutex or, with ownership, for the answer. Goroutines are the most there were:\n"+
		"net/http keeps two for a connection whose order is being placed. The settings follow each other in time, and\n"+
		"whatever else the machine does comes and goes: compare the sides of a setting, not one setting with another.\n", s.seconds, s.rounds, lockCacheDelay) +
		markdown(results) + plot + "\n" + verdicts.String(), err
}

// A ratio of throughput that is closer to 1 than this is called no difference.
const lockEffect = 1.25

// lockVerdict says what a setting showed, in words that follow the figures.
func lockVerdict(r result) string {
	locked, sharded, owned := r.medians[0][0], r.medians[1][0], r.medians[2][0]
	says := func(ratio float64) string {
		if ratio < lockEffect && ratio > 1/lockEffect {
			return fmt.Sprintf("no real difference (%.2f ×)", ratio)
		}
		return fmt.Sprintf("%.2f × the orders of the one mutex", ratio)
	}
	line := fmt.Sprintf("- *%s*: shards %s, ownership %s.", r.title, says(sharded/locked), says(owned/locked))
	if owned/locked < lockEffect {
		line += " This setting does not show the lock on this machine."
	}
	return line + "\n"
}
