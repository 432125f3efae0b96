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
// lasts. What is judged are its last evaluations on a node, the node's window: once those
// that are there make it certain that the full window is outside of the bounds, or the
// average discount of a sample of them is outside, the candidate is tripped. From that
// moment on it sees no order; a goroutine then writes the rollback down, which ends the
// candidate on all nodes.
//
// The members of a cluster share one window of WindowOrders, in equal parts: each judges
// by itself, at once, and a candidate that begins to misbehave on all of them sees no more
// orders than on one. If the evaluations of all the parts together are outside of the
// bounds, those of one part are, but for what allowed lets pass in small parts.
//
// A canary's faults and rejections cost a shopper nothing, so that anybody could repeat
// an order that the candidate rejects until it is given up. They count once a user and
// window. So does whatever the candidate answers to what costs nothing without it: quotes,
// and orders that the stable version gave no price. A shadow's other orders were placed.

// Bounds of comparisons.
const (
	// WindowOrders is how many of the candidate's evaluations are judged together, in the
	// whole cluster. A fifth of the 200 orders that a candidate may misbehave for is left
	// for those that other processors evaluate while it trips.
	WindowOrders = 160
	// SampleOrders is the fewest orders that an average discount is taken of, or half of
	// a node's window where that is less.
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

	stable, candidate        arm
	compared, differ, missed atomic.Uint64 // of a shadow's orders

	mu     sync.Mutex // guards what follows
	window window
	last   []Difference
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

// share is the part of WindowOrders that each of so many members judges by: two at least,
// since one may go wrong, so that the bound holds for up to 100 members.
func share(members int) int { return max(2, WindowOrders/max(1, members)) }

// window is the last evaluations of a candidate on this node.
type window struct {
	ring        [WindowOrders]judged
	next, count int // of ring: where the next one goes, and how many there are before it

	faults, rejections, points int // of these
}

// judged is an evaluation of a window.
type judged struct {
	user   uint32 // the low bits of the name's hash
	result result
}

// result is what a verdict takes off, in points, or why it takes off nothing.
type result uint16

const (
	resultFault     result = 1<<16 - 1
	resultRejection result = 1<<16 - 2 // the most that a discount can be is 10,000
)

func resultOf(in *abi.Input, v *abi.Verdict) result {
	switch {
	case v.Fault != abi.FaultNone:
		return resultFault
	case v.Outcome == abi.OutcomeReject:
		return resultRejection
	}
	return result(points(in, v.Discount))
}

// add makes an evaluation the newest of the last size ones.
func (w *window) add(j judged, size int) {
	for ; w.count >= size; w.count-- {
		w.sum(w.at(w.count).result, -1)
	}
	w.ring[w.next] = j
	w.next = (w.next + 1) % len(w.ring)
	w.count++
	w.sum(j.result, 1)
}

// at returns the nth newest evaluation, n from 1 to count.
func (w *window) at(n int) *judged { return &w.ring[(w.next-n+len(w.ring))%len(w.ring)] }

func (w *window) sum(r result, n int) {
	switch r {
	case resultFault:
		w.faults += n
	case resultRejection:
		w.rejections += n
	default:
		w.points += n * int(r)
	}
}

// has says whether an evaluation for the user came to the result or to one behind it.
func (w *window) has(user uint32, least result) bool {
	for n := range w.count {
		if j := w.at(n + 1); j.user == user && j.result >= least {
			return true
		}
	}
	return false
}

// outside says in words how a window of so many evaluations leaves the bounds, "" when it
// does not.
func (w *window) outside(b *Bounds, size int) string {
	priced := w.count - w.faults - w.rejections
	switch {
	case w.faults > allowed(b.FaultMax, size):
		return fmt.Sprintf("%d of %d orders faulted; at most %d %% may", w.faults, w.count, b.FaultMax)
	case w.rejections > allowed(b.RejectMax, size):
		return fmt.Sprintf("%d of %d orders were rejected; at most %d %% may be", w.rejections, w.count, b.RejectMax)
	case priced < min(SampleOrders, (size+1)/2):
	case w.points > b.DiscountMax*100*priced, w.points < b.DiscountMin*100*priced:
		average := w.points / priced
		return fmt.Sprintf("%d.%02d %% off on average of %d orders; %d to %d %% may be", average/100, average%100, priced, b.DiscountMin, b.DiscountMax)
	}
	return ""
}

// allowed is the part of a window, in per cent, that may go wrong: one evaluation at least
// if any may, or in a large cluster a single user would end a candidate.
func allowed(percent, size int) int {
	if percent == 0 {
		return 0
	}
	return max(1, percent*size/100)
}

// judge adds one of the candidate's evaluations to the window of a node that is one of so
// many members. free says that without the candidate the shopper would not have placed an
// order. It returns why the candidate has to go, once, and "" otherwise.
func (c *comparison) judge(in *abi.Input, v *abi.Verdict, free bool, members int) string {
	c.candidate.add(in, v)
	j, size := judged{uint32(xxhash.Sum64(in.UserID)), resultOf(in, v)}, share(members)
	c.mu.Lock()
	defer c.mu.Unlock()
	if free && c.window.has(j.user, 0) || c.mode == ModeCanary && j.result >= resultRejection && c.window.has(j.user, resultRejection) {
		return ""
	}
	c.window.add(j, size)
	why := c.window.outside(&c.bounds, size)
	if why == "" || c.tripped.Swap(true) {
		return ""
	}
	return why
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

// priced says whether the order got a price.
func (a *Answer) priced() bool { return a.Fault == abi.FaultNone && a.Outcome != abi.OutcomeReject }

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
