// Package admit decides who has to come back later, before any work is done.
//
// The room of the node as a whole is runtime/own's slab of seats. Here is what
// remains: a Gate bounds what is in flight at one deal, a Limiter bounds how
// often one client may ask, and RetryAfter spreads the returns of those who
// were turned away, so that they do not all come back in the same second.
//
// Nothing here blocks, allocates or reads a clock.
package admit

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Gate counts what is in flight at one place. The zero value is empty. It does
// not hold its limit, because a node has a gate for each of 100,000 deals and
// one limit for all of them.
type Gate struct{ inFlight atomic.Int32 }

// Enter counts the caller in, unless limit are in flight already. To keep room
// for confirm and cancel, give new work a lower limit than them.
func (g *Gate) Enter(limit int) bool {
	for {
		n := g.inFlight.Load()
		if int(n) >= limit {
			return false
		}
		if g.inFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Leave counts the caller out, once for each Enter that returned true.
func (g *Gate) Leave() {
	if g.inFlight.Add(-1) < 0 {
		panic("admit: Leave without Enter")
	}
}

// InFlight returns how many have entered and not left.
func (g *Gate) InFlight() int { return int(g.inFlight.Load()) }

// RetryAfter returns a Retry-After header's value: whole seconds, at least 1,
// not before least has passed, and evenly spread over spread after that.
func RetryAfter(least, spread time.Duration) int {
	wait := least + time.Duration(rand.Int64N(max(int64(spread), 0)+1))
	return max(1, wholeSeconds(wait))
}

// wholeSeconds rounds up: who comes back early is turned away again.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
