package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/trace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/own"
)

var poolChapter = chapter{
	number: 3, title: "The pool", file: "pool.go",
	prose: `
Orders came from a ` + "`sync.Pool`" + `. The handler handed its order to the billing worker, put it back
into the pool and went on, and the worker priced whatever was in it by the time it got there:
often the next shopper's order. Where Put did come last, nothing cleared the object, so that a
shopper without a coupon got the discount of the one before. Neither is seen by any test with
one order at a time.

And a sync.Pool is a cache that the collector empties. After a quiet moment with two
collections in it, the burst for which the pool was there finds nothing in it, and every order
allocates at once.

` + "`runtime/own`" + ` is a fixed slab of seats. A seat has one owner at a time, which moves with it: the
handler must wait for the worker before it can give the seat back, and giving it back resets
it. The collector has no say in it. The race detector sees the first of the two bugs at once;
it has to be asked.`,
	run: runPool,
}

// shopper is what an order is made from; the price that it must get is known.
type shopper struct {
	quantity, unitPrice, coupon int64 // coupon is 0 for most
}

func (s shopper) price() int64 { return s.quantity*s.unitPrice - s.coupon }

// shopperNumber returns shoppers that differ; one in four has a coupon.
func shopperNumber(n int) shopper {
	s := shopper{quantity: 1 + int64(n%7), unitPrice: 9900 + int64(n%13)}
	if n%4 == 0 {
		s.coupon = 500
	}
	return s
}

// ── As it was ──────────────────────────────────────────────────────────────

// pooledOrder is what goes from the handler to the billing worker.
type pooledOrder struct {
	quantity, unitPrice, discount int64
	_                             [4096]byte // the buffer of a request: what makes a miss dear
}

func (o *pooledOrder) price() int64 { return o.quantity*o.unitPrice - o.discount }

// bill is a message to the billing worker. The shopper is with it so that we
// can tell a wrong price; the worker does not look at it.
type bill[T any] struct {
	order   T
	shopper shopper
}

// earlyPut is the handler that puts the order back before its last use.
func earlyPut(pool *sync.Pool, s shopper, billing chan<- bill[*pooledOrder]) {
	o := pool.Get().(*pooledOrder)
	defer pool.Put(o) // "we are done with it": the billing worker is not
	o.quantity, o.unitPrice, o.discount = s.quantity, s.unitPrice, s.coupon
	billing <- bill[*pooledOrder]{o, s}
}

// latePut is the handler that lets the worker put it back, after the last use.
func latePut(pool *sync.Pool, s shopper, billing chan<- bill[*pooledOrder]) {
	o := pool.Get().(*pooledOrder)
	o.quantity, o.unitPrice = s.quantity, s.unitPrice
	if s.coupon > 0 { // "most have none": and then the last shopper's is still there
		o.discount = s.coupon
	}
	billing <- bill[*pooledOrder]{o, s}
}

// ── As it is ───────────────────────────────────────────────────────────────

// ownedOrder has a Cell that knows whose it is.
type ownedOrder struct {
	own.Cell
	pooledOrder
}

func newOwnPool(seats int) (*own.Pool[ownedOrder], error) {
	return own.New(own.Config{Seats: seats},
		func(o *ownedOrder) *own.Cell { return &o.Cell },
		func(o *ownedOrder) { o.quantity, o.unitPrice, o.discount = 0, 0, 0 }) // Put resets; the buffer may stay
}

// waitThenPut is the handler that cannot put the order back too early: it has
// sent it away, and gets it back from Wait.
func waitThenPut(pool *own.Pool[ownedOrder], s shopper, billing chan<- bill[*ownedOrder]) {
	o, ok := pool.Get(own.ClassNew)
	if !ok {
		panic("incident: there is a seat for each handler")
	}
	o.quantity, o.unitPrice = s.quantity, s.unitPrice
	if s.coupon > 0 {
		o.discount = s.coupon
	}
	o.Send(math.MaxInt64) // from here on it is the worker's
	billing <- bill[*ownedOrder]{o, s}
	o.Wait() // now it is ours again
	pool.Put(o)
}

// ── The comparison: prices ─────────────────────────────────────────────────

// Handlers at work at the same time, and how many bills the worker may be behind.
const (
	poolHandlers = 64
	billingQuiet = 0
	billingBusy  = 64
)

// wrongPrices lets handlers serve orders shoppers, all through one billing
// worker that may be behind, and counts the prices that are not the shopper's.
func wrongPrices[T any](orders, behind int, handle func(shopper, chan<- bill[T]), price func(T) int64) (wrong int) {
	billing := make(chan bill[T], behind)
	var handlers sync.WaitGroup
	for h := range poolHandlers {
		handlers.Go(func() {
			for n := h; n < orders; n += poolHandlers {
				handle(shopperNumber(n), billing)
			}
		})
	}
	go func() {
		handlers.Wait()
		close(billing)
	}()
	for b := range billing {
		if price(b.order) != b.shopper.price() {
			wrong++
		}
	}
	return wrong
}

func newPooledOrder() any { return new(pooledOrder) }

func wrongEarly(orders, behind int) int {
	pool := &sync.Pool{New: newPooledOrder}
	return wrongPrices(orders, behind,
		func(s shopper, billing chan<- bill[*pooledOrder]) { earlyPut(pool, s, billing) },
		(*pooledOrder).price)
}

func wrongLate(orders int) int {
	pool := &sync.Pool{New: newPooledOrder}
	return wrongPrices(orders, billingBusy,
		func(s shopper, billing chan<- bill[*pooledOrder]) { latePut(pool, s, billing) },
		func(o *pooledOrder) int64 {
			defer pool.Put(o)
			return o.price()
		})
}

func wrongOwned(orders int) (int, error) {
	pool, err := newOwnPool(poolHandlers)
	if err != nil {
		return 0, err
	}
	return wrongPrices(orders, billingBusy,
		func(s shopper, billing chan<- bill[*ownedOrder]) { waitThenPut(pool, s, billing) },
		func(o *ownedOrder) int64 {
			price := o.price()
			if !o.Complete() {
				panic("incident: no handler gives up here")
			}
			return price
		}), nil
}

func (s *session) pricesPair() pair {
	timed := func(count func() (int, error)) func(context.Context) (figures, error) {
		return func(context.Context) (figures, error) {
			begin := clockd.Mono()
			wrong, err := count()
			return figures{float64(wrong) / float64(s.orders) * 1e6, float64(clockd.Mono()-begin) / float64(s.orders)}, err
		}
	}
	return pair{
		title:   "prices",
		columns: []column{{"wrong in a million", "%.0f"}, {"ns/order", "%.0f"}},
		sides: []side{
			{"Put too early, worker at hand", timed(func() (int, error) { return wrongEarly(s.orders, billingQuiet), nil })},
			{"Put too early, worker behind", timed(func() (int, error) { return wrongEarly(s.orders, billingBusy), nil })},
			{"Put last, no reset", timed(func() (int, error) { return wrongLate(s.orders), nil })},
			{"runtime/own", timed(func() (int, error) { return wrongOwned(s.orders) })},
		},
	}
}

// ── The comparison: starvation ─────────────────────────────────────────────

const (
	starveOrders  = 400      // held at once in a burst
	starveGarbage = 12 << 20 // bytes that everything else allocates between two bursts
)

// starvation is what bursts of orders found in a pool.
type starvation struct {
	gets, empty int   // Gets, and those that found nothing
	slowest     int64 // ns that the Gets of one burst took
}

// bursts n times gets all orders of a burst at once and puts them back; then the rest
// of the server makes garbage, and with it collections.
func bursts[T any](n int, get func() T, put func(T), empty *atomic.Int64) (st starvation) {
	held := make([]T, starveOrders)
	for range n {
		begin := clockd.Mono()
		for i := range held {
			held[i] = get()
		}
		st.slowest = max(st.slowest, clockd.Mono()-begin)
		for _, o := range held {
			put(o)
		}
		garbage()
	}
	st.gets, st.empty = n*starveOrders, int(empty.Load())
	return st
}

var garbageSink atomic.Pointer[[]byte]

func garbage() {
	const piece = 64 << 10
	for range starveGarbage / piece {
		b := make([]byte, piece)
		garbageSink.Store(&b) // so that it is really allocated
	}
}

// starvePool is the sync.Pool. What finds it empty is told to the trace, if one
// is under way.
func starvePool(ctx context.Context, n int) starvation {
	var empty atomic.Int64
	pool := &sync.Pool{New: func() any {
		empty.Add(1)
		trace.Log(ctx, traceCategory, "empty")
		return new(pooledOrder)
	}}
	return bursts(n, func() *pooledOrder { return pool.Get().(*pooledOrder) }, func(o *pooledOrder) { pool.Put(o) }, &empty)
}

func starveOwn(n int) (starvation, error) {
	var empty atomic.Int64
	pool, err := newOwnPool(starveOrders)
	if err != nil {
		return starvation{}, err
	}
	return bursts(n, func() *ownedOrder {
		o, ok := pool.Get(own.ClassNew)
		if !ok {
			panic("incident: there is a seat for each order")
		}
		return o
	}, pool.Put, &empty), nil
}

func (s *session) starvationPair() pair {
	show := func(st starvation) figures {
		return figures{float64(st.empty) / float64(st.gets) * 100, float64(st.slowest) / 1e3}
	}
	return pair{
		title:   fmt.Sprintf("bursts of %d", starveOrders),
		columns: []column{{"Gets that allocate, %", "%.1f"}, {"slowest burst, µs", "%.0f"}},
		sides: []side{
			{"sync.Pool", func(ctx context.Context) (figures, error) { return show(starvePool(ctx, s.bursts)), nil }},
			{"runtime/own", func(context.Context) (figures, error) {
				st, err := starveOwn(s.bursts)
				return show(st), err
			}},
		},
	}
}

// ── The trace ──────────────────────────────────────────────────────────────

const traceCategory = "pool"

// tracePool runs the bursts on a sync.Pool under the execution tracer and
// returns what the trace shows.
func (s *session) tracePool(ctx context.Context) (t poolTrace, err error) {
	path := filepath.Join(s.dir, "pool.trace")
	file, err := os.Create(path)
	if err != nil {
		return t, err
	}
	if err := trace.Start(file); err != nil {
		return t, errors.Join(err, file.Close())
	}
	starvePool(ctx, s.bursts)
	trace.Stop()
	if err := file.Close(); err != nil {
		return t, err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "trace", "-d=parsed", path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return t, err
	}
	if err := cmd.Start(); err != nil {
		return t, err
	}
	t, err = parseTrace(out)
	_, drained := io.Copy(io.Discard, out)
	return t, errors.Join(err, drained, cmd.Wait())
}

// poolTrace is when Gets found the pool empty, and when collections began. ns.
type poolTrace struct{ empty, collections []int64 }

var (
	emptyEvent      = regexp.MustCompile(` Log Time=(\d+) .*Category="` + traceCategory + `"`)
	collectionEvent = regexp.MustCompile(` RangeBegin Time=(\d+) Name="GC concurrent mark phase"`)
)

// parseTrace reads the events as `go tool trace -d=parsed` writes them.
func parseTrace(in io.Reader) (t poolTrace, err error) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		for _, event := range []struct {
			form *regexp.Regexp
			to   *[]int64
		}{{emptyEvent, &t.empty}, {collectionEvent, &t.collections}} {
			if m := event.form.FindSubmatch(lines.Bytes()); m != nil {
				at, err := strconv.ParseInt(string(m[1]), 10, 64)
				if err != nil {
					return t, err
				}
				*event.to = append(*event.to, at)
			}
		}
	}
	if len(t.empty) == 0 {
		return t, errors.Join(errors.New("the trace shows nothing of the pool"), lines.Err())
	}
	return t, lines.Err()
}

// stretch returns the part of the trace between its first event and at most
// length later, as counts in columns and the collections as fractions.
func (t poolTrace) stretch(length int64, columns int) (counts []int, marks []float64, nanos int64) {
	begin := t.empty[0]
	nanos = max(1, min(length, t.empty[len(t.empty)-1]-begin))
	counts = make([]int, columns)
	for _, at := range t.empty {
		if column := (at - begin) * int64(columns) / (nanos + 1); column < int64(columns) {
			counts[column]++
		}
	}
	for _, at := range t.collections {
		if at >= begin && at <= begin+nanos {
			marks = append(marks, float64(at-begin)/float64(nanos))
		}
	}
	return counts, marks, nanos
}

// The plot shows the first traceShown of the trace.
const (
	traceShown   = 60e6 // ns
	traceColumns = 120
)

func runPool(ctx context.Context, s *session) (string, error) {
	prices, err := s.measure(ctx, s.rounds, s.pricesPair())
	if err != nil {
		return "", err
	}
	starved, err := s.measure(ctx, s.rounds, s.starvationPair())
	if err != nil {
		return "", err
	}
	events, err := s.tracePool(ctx)
	if err != nil {
		return "", err
	}
	bars, err := s.plot("pool", "Chapter 3: wrong prices in a million", prices.bars(0))
	if err != nil {
		return "", err
	}
	counts, marks, nanos := events.stretch(traceShown, traceColumns)
	line, err := s.timeline("pool-trace", "Chapter 3: a sync.Pool that starves, from its execution trace", float64(nanos)/1e6, counts, marks)
	return strings.Join([]string{
		fmt.Sprintf("%d rounds of each side, %d orders each, %d handlers, one billing worker.\n", s.rounds, s.orders, poolHandlers),
		prices.markdown(), bars,
		fmt.Sprintf("\nOne in four shoppers has a coupon. The first two sides differ only in whether the worker takes a bill at once or may\n"+
			"be up to %d behind. An order takes %.0f ns with Put too early and %.0f ns with ownership, where its handler waits\n"+
			"for the worker: that is what makes the price right.\n\n%d bursts of %d orders held at once, and %d MiB of other garbage between two bursts:\n",
			billingBusy, prices.medians[1][1], prices.medians[3][1], s.bursts, starveOrders, starveGarbage>>20),
		starved.markdown(), line,
		fmt.Sprintf("\nThe same bursts under `runtime/trace`, read with `go tool trace -d=parsed`: %d Gets found the pool empty, and %d\n"+
			"collections began.\n", len(events.empty), len(events.collections)),
	}, ""), err
}
