package cluster

import (
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"

	"github.com/doorbuster/doorbuster/runtime/cluster/batch"
)

const (
	// BodyMax bounds the body of a request and of an answer, in bytes.
	BodyMax = 1 << 20
	// A parcel takes no further body once it holds parcelBytes, so that a batch is at
	// most parcelBytes + BodyMax of bodies.
	parcelBytes = 256 << 10
	// parcelEntries bounds the requests of a batch, and its replies, likewise.
	parcelEntries = 4096
	// gatheredMax bounds the bodies that have gathered for one peer. Requests may fill
	// half of it, so that answers find room beside them.
	gatheredMax = 16 << 20
)

// outcomes of a request, on the wire.
const (
	outcomeServed uint32 = iota
	outcomeRefused
	outcomeUnknown
	outcomeTooLarge
)

// peer is one other member: what is in flight to it, what has gathered for it, and how
// well it is heard.
type peer struct {
	links  *links
	member string
	pid    *actor.PID

	mu       sync.Mutex // guards what follows; held for some instructions and the copy of a body
	flight   inFlight
	gathered []*parcel // not yet taken by Proto.Actor's writer, oldest first
	bytes    int       // of bodies in them
	last     shape
	posted   bool // the writer has been told to come for what has gathered
	serving  int  // requests of the peer that the Handler has not answered
	out, in  session
	missing  uint64 // session of the peer in which a batch is missing, 0 if none is
	ended    bool   // takes nothing any more
	known    bool   // it was in a topology
	leaving  bool   // and is about to end, it said there
	pulse    pulse
	counts   Link // what Links shows, Member and the gauges apart
}

// session is a row of batches without a gap, in one direction.
type session struct{ number, sequence uint64 }

// parcel is what travels, or will travel, in one batch.
type parcel struct {
	requests  batch.Requests
	deadlines []int64 // of the requests
	replies   batch.Replies
	bytes     int // of bodies
}

// shape is how large a parcel became. The next one is made like it.
type shape struct{ requests, requestBytes, replies, replyBytes int }

func newPeer(l *links, member, address string) *peer {
	p := &peer{links: l, member: member, pid: actor.NewPID(address, wellKnown)}
	p.flight.limit = l.cfg.InFlight
	p.out.number = l.sessions.Add(1)
	return p
}

// send is Cluster.Send.
func (p *peer) send(body []byte, deadline int64, done Done) {
	if post, err := p.gather(body, deadline, done); err != nil {
		done.Replied(nil, err)
	} else if post {
		p.links.post(p.pid, p)
	}
}

// gather takes a request into the parcel and says whether the writer must be told.
func (p *peer) gather(body []byte, deadline int64, done Done) (post bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return false, ErrUnknown
	case len(body) > BodyMax:
		return false, ErrTooLarge
	case p.bytes+len(body) > gatheredMax/2:
		return false, ErrBusy
	}
	id, ok := p.flight.add(done, deadline)
	if !ok {
		return false, ErrBusy
	}
	g := p.parcel()
	g.requests.Ids = append(g.requests.Ids, id)
	g.requests.Sizes = append(g.requests.Sizes, uint32(len(body)))
	g.requests.Bodies = append(g.requests.Bodies, body...)
	g.deadlines = append(g.deadlines, deadline)
	g.bytes += len(body)
	p.bytes += len(body)
	return p.mustPost(), nil
}

// answer takes the reply to a request of the peer into the parcel.
func (p *peer) answer(s *served, outcome uint32, body []byte) {
	if p.gatherReply(s, outcome, body) {
		p.links.post(p.pid, p)
	}
}

func (p *peer) gatherReply(s *served, outcome uint32, body []byte) (post bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.begun {
		p.serving--
	}
	if p.ended || s.session != p.in.number {
		return false // the peer has given it up
	}
	switch {
	case len(body) > BodyMax:
		outcome, body = outcomeTooLarge, nil
	case p.bytes+len(body) > gatheredMax:
		outcome, body = outcomeUnknown, nil
	}
	g := p.parcel()
	g.replies.Ids = append(g.replies.Ids, s.id)
	g.replies.Outcomes = append(g.replies.Outcomes, outcome)
	g.replies.Sizes = append(g.replies.Sizes, uint32(len(body)))
	g.replies.Bodies = append(g.replies.Bodies, body...)
	g.bytes += len(body)
	p.bytes += len(body)
	return p.mustPost()
}

// parcel is the one that takes the next body.
func (p *peer) parcel() *parcel {
	if n := len(p.gathered); n > 0 && !p.gathered[n-1].full() {
		return p.gathered[n-1]
	}
	g := &parcel{}
	if n := p.last.requests; n > 0 {
		g.requests.Ids, g.requests.Sizes, g.deadlines = make([]uint64, 0, n), make([]uint32, 0, n), make([]int64, 0, n)
		g.requests.Bodies = make([]byte, 0, p.last.requestBytes)
	}
	if n := p.last.replies; n > 0 {
		g.replies.Ids, g.replies.Sizes, g.replies.Outcomes = make([]uint64, 0, n), make([]uint32, 0, n), make([]uint32, 0, n)
		g.replies.Bodies = make([]byte, 0, p.last.replyBytes)
	}
	p.gathered = append(p.gathered, g)
	return g
}

func (g *parcel) full() bool {
	return g.bytes >= parcelBytes || max(len(g.requests.Ids), len(g.replies.Ids)) >= parcelEntries
}

// mustPost says whether the writer has to be told, and that it will be.
func (p *peer) mustPost() bool {
	post := !p.posted
	p.posted = true
	return post
}

// Serialize is called by Proto.Actor's writer when it is about to send what it was
// told of: only now does the batch leave, with all that gathered while the one before
// was being sent.
func (p *peer) Serialize() (remote.RootSerialized, error) {
	b, more := p.take()
	if more {
		p.links.post(p.pid, p)
	}
	return outgoing{b}, nil
}

// take makes the next batch, and says whether more is waiting behind it.
func (p *peer) take() (b *batch.Batch, more bool) {
	now := p.links.cfg.Clock.Now()
	b = p.links.speak()
	b.To = p.member
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.sequence++
	b.Session, b.Sequence, b.Missing, b.Renewed = p.out.number, p.out.sequence, p.missing, p.counts.Breaks > 0
	b.Pulse = p.pulse.beat(now.Mono, now.Wall)
	p.counts.BatchesSent++
	if len(p.gathered) > 0 {
		g := p.gathered[0]
		p.gathered[0] = nil
		p.gathered = p.gathered[1:]
		p.bytes -= g.bytes
		p.last = shape{len(g.requests.Ids), len(g.requests.Bodies), len(g.replies.Ids), len(g.replies.Bodies)}
		p.counts.RequestsSent += uint64(len(g.requests.Ids))
		g.fill(b, now.Mono)
	}
	p.posted = len(p.gathered) > 0
	return b, p.posted
}

// fill puts a parcel into the batch it travels in.
func (g *parcel) fill(b *batch.Batch, now int64) {
	if n := len(g.deadlines); n > 0 {
		g.requests.Left = make([]uint32, n)
		for i, at := range g.deadlines {
			g.requests.Left[i] = uint32(min(max((at-now)/int64(time.Millisecond), 0), 1<<32-1))
		}
		b.Requests = &g.requests
	}
	if len(g.replies.Ids) > 0 {
		b.Replies = &g.replies
	}
}

// receive reads a batch of the peer. A ping is answered last: who hears that answer
// may go, knowing that all before it has been read.
func (p *peer) receive(b *batch.Batch) {
	now := p.links.cfg.Clock.Now()
	valid := wellFormed(b)
	p.mu.Lock()
	read, ended := p.follow(b, valid)
	p.mu.Unlock()
	fail(ended, ErrUnknown)
	if !read {
		return
	}
	if b.Replies != nil {
		p.replied(b.Replies)
	}
	if b.Requests != nil {
		p.serve(b.Session, b.Requests, now.Mono)
	}
	p.mu.Lock()
	post := p.pulse.heard(b.Pulse, now.Mono, now.Wall) && p.mustPost()
	p.mu.Unlock()
	if post {
		p.links.post(p.pid, p)
	}
}

// follow says whether a batch is the next, and what ends because others are missing.
// One that is older than what has come is read as little as one that came before.
func (p *peer) follow(b *batch.Batch, valid bool) (read bool, ended []Done) {
	if p.ended || b.Session < p.in.number || b.Session == p.in.number && b.Sequence <= p.in.sequence {
		return false, nil
	}
	p.counts.BatchesReceived++
	// A peer that broke with us before we heard of it had perhaps answered us.
	renewed := b.Session > p.in.number && (p.in.number != 0 || b.Renewed)
	if b.Session > p.in.number {
		p.in, p.missing = session{number: b.Session}, 0
	}
	gap := b.Sequence != p.in.sequence+1 || !valid
	p.in.sequence = b.Sequence
	if gap {
		p.missing = b.Session
	}
	switch {
	case b.Missing == p.out.number: // the requests, or answers to the peer's
		ended = p.restart()
	case gap, renewed: // the answers
		ended = p.flight.takeAll()
	}
	return valid, ended
}

// wellFormed says whether the columns of a batch fit together.
func wellFormed(b *batch.Batch) bool {
	if r := b.Requests; r != nil && (len(r.Left) != len(r.Ids) || !fits(r.Ids, r.Sizes, r.Bodies)) {
		return false
	}
	if r := b.Replies; r != nil && (len(r.Outcomes) != len(r.Ids) || !fits(r.Ids, r.Sizes, r.Bodies)) {
		return false
	}
	return b.Session > 0 && b.Sequence > 0
}

func fits(ids []uint64, sizes []uint32, bodies []byte) bool {
	sum := 0
	for _, n := range sizes {
		sum += int(n)
	}
	return len(sizes) == len(ids) && sum == len(bodies)
}

// replied tells those who wait what became of their requests.
func (p *peer) replied(r *batch.Replies) {
	bodies := r.Bodies
	for i, id := range r.Ids {
		body := bodies[:r.Sizes[i]:r.Sizes[i]]
		bodies = bodies[r.Sizes[i]:]
		p.mu.Lock()
		done := p.flight.take(id)
		p.mu.Unlock()
		if done == nil {
			continue // it ended before
		}
		switch r.Outcomes[i] {
		case outcomeServed:
			done.Replied(body, nil)
		case outcomeRefused:
			done.Replied(nil, ErrBusy)
		case outcomeTooLarge:
			done.Replied(nil, ErrTooLarge)
		default:
			done.Replied(nil, ErrUnknown)
		}
	}
}

// served is a request of the peer that the Handler has.
type served struct {
	peer     *peer
	id       uint64
	session  uint64
	begun    bool // it counts as being served
	answered atomic.Bool
}

// serve hands the requests of a batch to the Handler. Those whose time is over are
// dropped: the sender's sweep answers them.
func (p *peer) serve(number uint64, r *batch.Requests, now int64) {
	awake := p.links.awake()
	requests := make([]served, len(r.Ids))
	bodies := r.Bodies
	for i := range requests {
		body := bodies[:r.Sizes[i]:r.Sizes[i]]
		bodies = bodies[r.Sizes[i]:]
		if r.Left[i] == 0 {
			continue
		}
		s := &requests[i]
		s.peer, s.id, s.session = p, r.Ids[i], number
		if !awake || !p.begin(s) {
			p.answer(s, outcomeRefused, nil)
			continue
		}
		s.run(body, now+int64(r.Left[i])*int64(time.Millisecond))
	}
}

// begin counts a request as being served, if the peer has not too many of them here.
// It may have more than are in flight: it gave up those whose time is over.
func (p *peer) begin(s *served) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.serving >= 2*p.flight.limit {
		return false
	}
	p.serving++
	p.counts.RequestsServed++
	s.begun = true
	return true
}

// run calls the Handler. A panic there is the end of this request, and of no other.
func (s *served) run(body []byte, deadline int64) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		s.peer.links.cfg.Logger.Error("cluster: a request panicked", slog.Any("panic", fault), slog.String("stack", string(debug.Stack())))
		if s.answered.CompareAndSwap(false, true) {
			s.peer.answer(s, outcomeUnknown, nil)
		}
	}()
	s.peer.links.handler.Serve(s.peer.member, body, deadline, s.reply)
}

func (s *served) reply(body []byte) {
	if !s.answered.CompareAndSwap(false, true) {
		panic("cluster: a request was answered twice")
	}
	s.peer.answer(s, outcomeServed, body)
}

// broke ends what is in flight, since the link broke.
func (p *peer) broke() {
	p.mu.Lock()
	ended := p.restart()
	p.mu.Unlock()
	fail(ended, ErrUnknown)
}

// restart begins a new session, from which the peer sees that what it waits for is lost.
func (p *peer) restart() []Done {
	p.out = session{number: p.links.sessions.Add(1)}
	p.gathered, p.bytes, p.posted = nil, 0, false
	p.counts.Breaks++
	return p.flight.takeAll()
}

// end ends what is in flight for good.
func (p *peer) end() {
	p.mu.Lock()
	p.ended = true
	ended := p.restart()
	p.mu.Unlock()
	fail(ended, ErrUnknown)
}

// expire ends the requests whose time is over.
func (p *peer) expire(now int64) {
	p.mu.Lock()
	ended := p.flight.takeDue(now, nil)
	p.mu.Unlock()
	fail(ended, ErrExpired)
}

// round pings the peer, and says for how many rounds nothing has been heard of it.
func (p *peer) round() (quiet int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulse.due = true
	p.pulse.quiet++
	p.posted = true
	return p.pulse.quiet
}

func fail(ended []Done, err error) {
	for _, done := range ended {
		done.Replied(nil, err)
	}
}

// join notes what a topology says of the peer.
func (p *peer) join(m *Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.leaving = true, m.Leaving
}

// missed says whether the peer's silence is anything but the end that it announced.
func (p *peer) missed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.leaving
}

func (p *peer) inTopology() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known
}

// word is a moment of what is said to a peer.
type word struct{ ping, breaks uint64 }

// lastWord is when the last of what has gathered by now is said.
func (p *peer) lastWord() word {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulse.due = true
	return word{p.pulse.pings + 1, p.counts.Breaks}
}

// has says whether the peer has got a word, or never will.
func (p *peer) has(w word) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pulse.ponged >= w.ping && len(p.gathered) == 0 || p.counts.Breaks != w.breaks || p.pulse.quiet > 2
}

func (p *peer) link() Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	shown := p.counts
	best, _ := p.pulse.best()
	shown.Member, shown.InFlight, shown.Serving = p.member, p.flight.len(), p.serving
	shown.Trip, shown.Skew = best.trip, best.skew
	shown.Quiet = time.Duration(p.pulse.quiet) * roundEvery
	return shown
}
