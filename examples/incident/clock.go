package main

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

var clockChapter = chapter{
	number: 4, title: "The clock", file: "clock.go",
	prose: `
Every step of an order asked for the time by itself, ten times in all. That is slow, and it is
wrong: one decision was made at two times. An order was let in because the deal was still open,
and stamped, a few lines further down, at a time when it was over. The ledger then held an order
that was placed after the end of its deal, and nobody could say which of the two was true.

As it is, an order gets one stamp when it comes in, and everything about it is decided at that
time. The stamp is a load of an atomic pointer that one goroutine renews each millisecond, so it
is up to a tick old, for all steps alike.`,
	run: runClock,
}

// decided is what the clock has a say in.
type decided struct {
	accepted, early   bool
	placedAt, expires int64 // Unix ns as it was, Unix ms as it is
	quotaDay          int64
	groupOpen         bool
	auditedAt         int64
	took              int64 // ns
}

const reservation = 15 * time.Minute

// ── As it was ──────────────────────────────────────────────────────────────

type timedDeal struct {
	starts, ends, earlyUntil, groupUntil time.Time
	now                                  func() time.Time // time.Now; a test turns the hands
}

func newTimedDeal() *timedDeal {
	now := time.Now()
	return &timedDeal{
		starts: now.Add(-time.Hour), ends: now.Add(time.Hour),
		earlyUntil: now.Add(time.Minute), groupUntil: now.Add(time.Hour), now: time.Now,
	}
}

func (d *timedDeal) decide() (o decided) {
	received := d.now()           // 1: for the log
	if d.now().Before(d.starts) { // 2
		return o
	}
	if !d.now().Before(d.ends) { // 3: is the deal still open? …
		return o
	}
	o.accepted = true
	o.early = d.now().Before(d.earlyUntil)       // 4: the early price
	o.quotaDay = d.now().Unix() / 86400          // 5: today's quota
	o.groupOpen = d.now().Before(d.groupUntil)   // 6
	o.placedAt = d.now().UnixNano()              // 7: … and when was it placed?
	o.expires = d.now().Add(reservation).Unix()  // 8
	o.auditedAt = d.now().UnixMilli()            // 9
	o.took = d.now().Sub(received).Nanoseconds() // 10
	return o
}

// contradicts says whether an accepted order is stamped after its deal's end.
func (d *timedDeal) contradicts(o decided) bool { return o.accepted && o.placedAt >= d.ends.UnixNano() }

// ── As it is ───────────────────────────────────────────────────────────────

type stampedDeal struct {
	starts, ends, earlyUntil, groupUntil int64 // Unix ms
}

func newStampedDeal(now clockd.Snapshot) *stampedDeal {
	return &stampedDeal{
		starts: now.Wall - time.Hour.Milliseconds(), ends: now.Wall + time.Hour.Milliseconds(),
		earlyUntil: now.Wall + time.Minute.Milliseconds(), groupUntil: now.Wall + time.Hour.Milliseconds(),
	}
}

// decide knows one time and cannot learn another. How long the order took is
// not a decision: the edge measures it, once.
func (d *stampedDeal) decide(at clockd.Snapshot) (o decided) {
	if at.Wall < d.starts || at.Wall >= d.ends {
		return o
	}
	o.accepted = true
	o.early = at.Wall < d.earlyUntil
	o.quotaDay = at.Wall / (24 * time.Hour).Milliseconds()
	o.groupOpen = at.Wall < d.groupUntil
	o.placedAt = at.Wall // the very time that was before ends above
	o.expires = at.Wall + reservation.Milliseconds()
	o.auditedAt = at.Wall
	return o
}

func (d *stampedDeal) contradicts(o decided) bool { return o.accepted && o.placedAt >= d.ends }

// ── The comparison ─────────────────────────────────────────────────────────

// Deals last one millisecond each here, so that every order is one of a deal's
// last millisecond.
const shortDeal = time.Millisecond

func (s *session) clockPair() pair {
	return pair{
		title: "an order",
		columns: []column{
			{"ns/order", "%.1f"}, {"deals that ended", "%.0f"}, {"with an order stamped after the end", "%.0f"}, {"such orders in a million", "%.1f"},
		},
		sides: []side{
			{"ten readings", func(context.Context) (figures, error) {
				d := newTimedDeal()
				cost := decideOften(s.length/2, func() bool { return d.decide().accepted })
				ended, wrong, orders := lastMilliseconds(s.length/2,
					func() { d.ends = d.now().Add(shortDeal) },
					func() (bool, bool) { o := d.decide(); return o.accepted, d.contradicts(o) })
				return figures{cost, float64(ended), float64(wrong), float64(wrong) / float64(orders) * 1e6}, nil
			}},
			{"one stamp", func(context.Context) (figures, error) {
				d := newStampedDeal(s.clock.Now())
				cost := decideOften(s.length/2, func() bool { return d.decide(s.clock.Now()).accepted })
				ended, wrong, orders := lastMilliseconds(s.length/2,
					func() { d.ends = s.clock.Now().Wall + shortDeal.Milliseconds() },
					func() (bool, bool) { o := d.decide(s.clock.Now()); return o.accepted, d.contradicts(o) })
				return figures{cost, float64(ended), float64(wrong), float64(wrong) / float64(orders) * 1e6}, nil
			}},
		},
	}
}

// decideOften returns the ns that an order takes while its deal is open.
func decideOften(length time.Duration, accept func() bool) float64 {
	const between = 1000 // orders between two looks at the clock
	begin := clockd.Mono()
	orders := 0
	for clockd.Mono()-begin < int64(length) {
		for range between {
			if !accept() {
				panic("incident: an open deal refused an order")
			}
		}
		orders += between
	}
	return float64(clockd.Mono()-begin) / float64(orders)
}

// lastMilliseconds opens one short deal after the other and orders from each
// until it refuses. It counts the deals that ended with a contradiction.
func lastMilliseconds(length time.Duration, open func(), decide func() (accepted, contradiction bool)) (ended, wrong, orders int) {
	begin := clockd.Mono()
	for clockd.Mono()-begin < int64(length) {
		open()
		contradicted := false
		for accepted := true; accepted; orders++ {
			var contradiction bool
			accepted, contradiction = decide()
			contradicted = contradicted || contradiction
		}
		ended++
		if contradicted {
			wrong++
		}
	}
	return ended, wrong, orders
}

func runClock(ctx context.Context, s *session) (string, error) {
	r, err := s.measure(ctx, s.rounds, s.clockPair())
	if err != nil {
		return "", err
	}
	plot, err := s.plot("clock", "Chapter 4: ns an order spent on asking for the time and deciding by it", r.bars(0))
	was := r.medians[0]
	return fmt.Sprintf("%d rounds of each side, %v each: one half with a deal that stays open, one half with\n"+
		"deals of a millisecond, one after the other, by the machine's own clock.\n", s.rounds, s.length) + r.markdown() + plot +
		fmt.Sprintf("\nOf %.0f deals, %.0f ended with an order that was let in and is stamped after the end. With one stamp that\n"+
			"cannot be written down. `TestClockDoubleRead` turns the hands of a clock between the two readings.\n", was[1], was[2]), err
}
