package admit

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Pacer bounds how many refusals a second are sent. To refuse costs little, but a
// caller who is refused at once asks again at once, and with thousands of them a
// server would do nothing but refuse. One that makes them wait for their refusal
// has its time for those whom it took on; what it does not read meanwhile waits in
// the network, which slows down the callers and nobody else.
//
// Its methods may be called concurrently.
type Pacer struct {
	interval int64 // ns between two refusals
	most     int64 // ns that one may be held back
	next     atomic.Int64
}

// NewPacer makes a pacer that lets perSecond refusals through. Those that would have to wait
// for longer than most wait for about as long, a fifth more or less by chance, because
// who is refused at one moment comes back at one moment. So the pace holds for as many
// callers as get a refusal in that time; each of more callers gets one every so often.
func NewPacer(perSecond int, most time.Duration) *Pacer {
	return &Pacer{interval: int64(time.Second) / int64(perSecond), most: int64(most)}
}

// Delay returns how long to wait with the next refusal. now is Mono ns.
func (p *Pacer) Delay(now int64) time.Duration {
	for {
		next := p.next.Load()
		at := max(next, now)
		if at > now+p.most {
			return time.Duration(p.most - p.most/5 + rand.Int64N(p.most*2/5+1))
		}
		if p.next.CompareAndSwap(next, at+p.interval) {
			return time.Duration(at - now)
		}
	}
}
