package cluster

import (
	"time"

	"github.com/doorbuster/doorbuster/runtime/cluster/batch"
)

// pulse tells whether a peer hears us and we it, and how its clock differs from ours.
type pulse struct {
	due     bool   // a ping leaves with the next batch
	pings   uint64 // that have left
	ponged  uint64 // the newest that the peer has answered
	quiet   int    // rounds since
	marks   [pulseMemory]mark
	samples [pulseMemory]sample
	taken   int // samples

	asked   uint64 // the peer's newest ping, 0 if it was answered
	askedAt int64  // Unix ms
}

// pulseMemory is how many pings are remembered, and how many samples count.
const pulseMemory = 8

// mark is when a ping left.
type mark struct {
	ping       uint64
	mono, wall int64
}

// sample is what one ping and its answer tell.
type sample struct{ trip, skew time.Duration }

// beat is the next batch's part, nil if there is nothing to say.
func (p *pulse) beat(mono, wall int64) *batch.Pulse {
	if !p.due && p.asked == 0 {
		return nil
	}
	b := &batch.Pulse{Pong: p.asked, Received: p.askedAt, Sent: wall}
	if p.due {
		p.pings++
		p.marks[p.pings%pulseMemory] = mark{p.pings, mono, wall}
		b.Ping = p.pings
	}
	p.due, p.asked = false, 0
	return b
}

// heard reads the peer's part, and says whether it asks for an answer.
func (p *pulse) heard(b *batch.Pulse, mono, wall int64) bool {
	if b == nil {
		return false
	}
	if m := p.marks[b.Pong%pulseMemory]; b.Pong > p.ponged && m.ping == b.Pong {
		p.ponged, p.quiet = b.Pong, 0
		// RFC 5905, 8: what the peer's clock shows beyond ours, if both ways took equally long.
		p.samples[p.taken%pulseMemory] = sample{
			// The peer's part of it is in whole ms, and may seem longer than the whole.
			trip: max(0, time.Duration(mono-m.mono)-time.Duration(b.Sent-b.Received)*time.Millisecond),
			skew: time.Duration(b.Received-m.wall+b.Sent-wall) * time.Millisecond / 2,
		}
		p.taken++
	}
	if b.Ping == 0 {
		return false
	}
	p.asked, p.askedAt = b.Ping, wall
	return true
}

// best is the sample that waited least on its way: its skew is the least wrong.
func (p *pulse) best() (s sample, ok bool) {
	for i, other := range p.samples[:min(p.taken, pulseMemory)] {
		if i == 0 || other.trip < s.trip {
			s = other
		}
	}
	return s, p.taken > 0
}
