package plugins

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// A candidate is compared with the stable version for as long as their rollout
// lasts. Its evaluations are judged in windows of WindowOrders: once those of the
// present window make it certain that the window ends outside of the bounds, or
// the average discount of at least SampleOrders is outside, the candidate is
// tripped. From that moment on it sees no order; a goroutine then writes the
// rollback down. So a candidate that begins to misbehave sees less than two
// windows more. Each node judges the orders that it prices; a rollback by one ends the
// candidate on all.
//
// A canary's faults and rejections cost a shopper nothing, so that anybody could repeat
// an order that the candidate rejects until it is given up. They count once a user and
// window. A shadow sees orders that were paid for.

// Bounds of comparisons.
const (
	// WindowOrders is how many of the candidate's evaluations are judged together.
	WindowOrders = 100
	// SampleOrders is the fewest orders that an average discount is taken of.
	SampleOrders = 20
	// DifferencesKept is how many orders that differ are kept for the merchant to
	// look at: the last ones.
	DifferencesKept = 32
)

// comparison is a candidate beside the stable version. One pointer stands for one
// rollout: it ends with it.
type comparison struct {
	key     ruleKey
	mode    Mode
	share   uint64 // of users: 2^32 is all of them
	seed    uint64
	bounds  Bounds
	tripped atomic.Bool
	window  atomic.Uint64 // a window
	got     gotNothing    // in this window

	stable, candidate        arm
	compared, differ, missed atomic.Uint64 // of a shadow's orders

	mu   sync.Mutex // guards last
	last []Difference
}

func newComparison(key ruleKey, o *Rollout) *comparison {
	return &comparison{
		key: key, mode: o.Mode, bounds: o.Bounds,
		share: uint64(o.Percent) << 32 / 100, seed: xxhash.Sum64String(key.path()),
	}
}

// takes says whether the candidate sees a user's orders.
func (c *comparison) takes(user []byte) bool {
	if c == nil || c.tripped.Load() {
		return false
	}
	high, _ := bits.Mul64(xxhash.Sum64(user)^c.seed, 0x9e3779b97f4a7c15)
	return high&(1<<32-1) < c.share
}

// arm is what one side of a comparison did. The fields only rise.
type arm struct {
	orders, faults, rejections, points atomic.Uint64
}

// points is what a verdict takes off an order, in hundredths of a percent of its
// value.
func points(in *abi.Input, discount int64) uint64 {
	if in.Subtotal <= 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(discount), 10_000)
	q, _ := bits.Div64(high, low, uint64(in.Subtotal)) // discount <= subtotal
	return q
}

func (a *arm) add(in *abi.Input, v *abi.Verdict) {
	a.orders.Add(1)
	switch {
	case v.Fault != abi.FaultNone:
		a.faults.Add(1)
	case v.Outcome == abi.OutcomeReject:
		a.rejections.Add(1)
	default:
		a.points.Add(points(in, v.Discount))
	}
}

// window is the present window's orders, faults and rejections, in 8 bits each,
// and the points of its discounts in the others.
type window uint64

const (
	windowOrder     window = 1
	windowFault     window = 1 << 8
	windowRejection window = 1 << 16
	windowPoint     window = 1 << 24
)

func (w window) orders() int     { return int(w & 0xff) }
func (w window) faults() int     { return int(w >> 8 & 0xff) }
func (w window) rejections() int { return int(w >> 16 & 0xff) }
func (w window) points() int     { return int(w >> 24) }

func (w window) add(in *abi.Input, v *abi.Verdict) window {
	switch {
	case v.Fault != abi.FaultNone:
		w += windowFault
	case v.Outcome == abi.OutcomeReject:
		w += windowRejection
	default:
		w += window(points(in, v.Discount)) * windowPoint
	}
	return w + windowOrder
}

// outside says in words how the window leaves the bounds, "" when it does not.
func (w window) outside(b *Bounds) string {
	priced := w.orders() - w.faults() - w.rejections()
	switch {
	case w.faults() > b.FaultMax*WindowOrders/100:
		return fmt.Sprintf("%d of %d orders faulted; at most %d %% may", w.faults(), w.orders(), b.FaultMax)
	case w.rejections() > b.RejectMax*WindowOrders/100:
		return fmt.Sprintf("%d of %d orders were rejected; at most %d %% may be", w.rejections(), w.orders(), b.RejectMax)
	case priced < SampleOrders:
	case w.points() > b.DiscountMax*100*priced, w.points() < b.DiscountMin*100*priced:
		average := w.points() / priced
		return fmt.Sprintf("%d.%02d %% off on average of %d orders; %d to %d %% may be", average/100, average%100, priced, b.DiscountMin, b.DiscountMax)
	}
	return ""
}

// gotNothing is the users who had a fault or a rejection in a window, as bits of their
// names' hashes. At most WindowOrders bits are set, so that about one user in 40 at
// worst is taken for another, and does not count either.
type gotNothing [WindowOrders * 41 / 64]atomic.Uint64

// add returns whether the user is new.
func (g *gotNothing) add(user []byte) bool {
	at := xxhash.Sum64(user) % uint64(64*len(g))
	bit := uint64(1) << (at % 64)
	return g[at/64].Or(bit)&bit == 0
}

func (g *gotNothing) clear() {
	for i := range g {
		g[i].Store(0)
	}
}

// judge adds one of the candidate's evaluations. It returns why the candidate has
// to go, once, and "" otherwise.
func (c *comparison) judge(in *abi.Input, v *abi.Verdict) string {
	c.candidate.add(in, v)
	nothing := v.Fault != abi.FaultNone || v.Outcome == abi.OutcomeReject
	if c.mode == ModeCanary && nothing && !c.got.add(in.UserID) {
		return ""
	}
	for {
		old := c.window.Load()
		now := window(old).add(in, v)
		why := now.outside(&c.bounds)
		if now.orders() == WindowOrders {
			now = 0
		}
		if !c.window.CompareAndSwap(old, uint64(now)) {
			continue
		}
		if now == 0 {
			c.got.clear()
		}
		if why == "" || c.tripped.Swap(true) {
			return ""
		}
		return why
	}
}

// Difference is an order that the stable version and the candidate of a shadow
// price differently.
type Difference struct {
	At        int64 // the order's stamp, Unix ms
	Deal      string
	User      string
	Digest    uint64 // of the input
	Stable    Answer
	Candidate Answer
}

// Answer is a verdict in short.
type Answer struct {
	Outcome  abi.Outcome
	Fault    abi.Fault
	Discount int64
	Final    bool
}

func answerOf(v *abi.Verdict) Answer { return Answer{v.Outcome, v.Fault, v.Discount, v.Final} }

// note keeps a difference.
func (c *comparison) note(d *Difference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) == DifferencesKept {
		c.last = slices.Delete(c.last, 0, 1)
	}
	c.last = append(c.last, *d)
}

// Arm is one side of a comparison, in figures.
type Arm struct {
	Orders, Faults, Rejections uint64
	// DiscountPoints is the average discount in hundredths of a percent of an
	// order's value, over the orders that got a price.
	DiscountPoints uint64
}

func (a *arm) figures() Arm {
	f := Arm{Orders: a.orders.Load(), Faults: a.faults.Load(), Rejections: a.rejections.Load()}
	if priced := f.Orders - f.Faults - f.Rejections; int64(priced) > 0 {
		f.DiscountPoints = a.points.Load() / priced
	}
	return f
}

// Comparison is what is known about a candidate beside the stable version, since
// the rollout began or the node started.
type Comparison struct {
	Stable, Candidate Arm
	// Of a shadow: orders that both versions answered, of these those that they
	// answered differently, and orders that the shadow had no time for.
	Compared, Different, Missed uint64
	Differences                 []Difference // the last ones, oldest first
}

// Compare returns the figures of a rule's candidate, nil when there is none.
func (r *Registry) Compare(merchant, id string) (*Comparison, error) {
	found := r.lookup(merchant, id)
	if found == nil {
		return nil, fmt.Errorf("%w: %q", ErrRuleNotFound, id)
	}
	c := found.comparison
	if c == nil {
		return nil, nil //nolint:nilnil // no candidate is no error
	}
	compared := c.compared.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Comparison{
		Stable: c.stable.figures(), Candidate: c.candidate.figures(),
		Compared: compared, Different: c.differ.Load(), Missed: c.missed.Load(),
		Differences: slices.Clone(c.last),
	}, nil
}
