package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"

	"github.com/doorbuster/doorbuster/runtime/cluster/batch"
)

const (
	// batchVersion is what this release writes, and the latest that it reads.
	batchVersion = 1

	sweepEvery  = 10 * time.Millisecond  // ends what has expired
	roundEvery  = 250 * time.Millisecond // pings everybody
	quietRounds = 8                      // pings without an answer until a link counts as broken

	// strangersMax bounds the peers that speak to this node and are in no topology that
	// it knows: one that joins may be heard before it is heard of.
	strangersMax = 64
	// noticesMax bounds the messages of a round that belong to no peer.
	noticesMax = 256
	// partingMax is how long close waits until the peers have what was said to them.
	partingMax = time.Second
)

// InFlightDefault is how many requests may be in flight to one member.
const InFlightDefault = 8192

// ErrTooLarge says that the body of a request, or of its answer, is larger than
// BodyMax. In the second case it was served.
var ErrTooLarge = errors.New("cluster: too large a body")

// Link shows how the link to one member is.
type Link struct {
	Member          string
	InFlight        int           // our requests that it has not answered
	Serving         int           // its requests that we have not
	Trip            time.Duration // of a message there and back, at best, lately; 0: unknown
	Skew            time.Duration // its wall clock minus ours
	Quiet           time.Duration // for how long it has not answered our pings
	RequestsSent    uint64
	RequestsServed  uint64
	BatchesSent     uint64
	BatchesReceived uint64
	Breaks          uint64 // how often all that was in flight ended with the link
}

// links carry requests between the members, over Proto.Actor's remote.
//
//   - Send puts a request into the parcel that gathers for its peer, and tells
//     remote's writer to come for it, unless it has been told. The writer comes when
//     it has sent the batch before, so batches grow with the load and nobody waits for
//     a timer. Replies gather in the same way.
//   - At the other end the batch is read on the goroutine of its stream. Nothing queues
//     there: a node that cannot keep up holds the stream up, and what is meant for it
//     gathers at the senders, within bounds.
//   - Remote drops what is queued when a stream breaks and tells nobody. So batches are
//     numbered, and all that is in flight to a peer ends as ErrUnknown when one is
//     missing, when remote says that the stream broke, when the peer has not answered
//     a ping for quietRounds, when it says that it is another member by now, and when
//     it leaves the topology.
type links struct {
	cfg         *Config
	system      *actor.ActorSystem
	self        func() Member
	awake       func() bool
	handler     Handler
	remote      *remote.Remote
	unsubscribe func()             // from remote's events
	stop        context.CancelFunc // of the beat
	ended       chan struct{}      // closed when it has
	streams     streams
	sessions    atomic.Uint64
	notices     atomic.Int64 // that may still be sent in this round
	parting     time.Duration
	asks        asks

	mu    sync.Mutex                       // guards changes of peers
	peers atomic.Pointer[map[string]*peer] // by member; the map never changes once it is here

	gate   sync.RWMutex // held by those who use remote, and by close
	closed bool         // guarded by gate
}

// asks are the questions after members' names that wait for an answer.
type asks struct {
	sync.Mutex
	next    uint64
	waiting map[uint64]chan Member
}

func newLinks(cfg *Config, system *actor.ActorSystem, self func() Member, awake func() bool) *links {
	l := &links{
		cfg: cfg, system: system, self: self, awake: awake,
		ended: make(chan struct{}), asks: asks{waiting: map[uint64]chan Member{}}, parting: partingMax,
	}
	l.peers.Store(&map[string]*peer{})
	l.notices.Store(noticesMax)
	l.streams.clock = cfg.Clock
	return l
}

// validateLinks checks the part of the configuration that is about links.
func (c *Config) validateLinks() error {
	if c.InFlight == 0 {
		c.InFlight = InFlightDefault
	}
	if c.InFlight < 1 {
		return errors.New("cluster: InFlight is negative")
	}
	if !dialable(c.Advertise) {
		return fmt.Errorf("cluster: the other nodes cannot reach this one at %q: give host:port", c.Advertise)
	}
	for _, at := range []string{c.Advertise, c.Listen} {
		host, _, err := net.SplitHostPort(at)
		if err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
		if c.TLS == nil && !loopback(host) {
			return fmt.Errorf("cluster: without TLS, nodes speak to each other on loopback only, and %s is not: give certificates", at)
		}
	}
	return nil
}

// dialable says whether an address is a host and the number of a port, which gRPC takes
// for just that.
func dialable(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false
	}
	odd := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(".:-_", r)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number > 0 && !strings.ContainsFunc(host, odd)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (l *links) start(h Handler) (*remote.Remote, error) {
	l.handler = h
	if err := l.startRemote(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	go l.beat(ctx)
	return l.remote, nil
}

// beat sweeps and pings until ctx ends.
func (l *links) beat(ctx context.Context) {
	defer close(l.ended)
	for next := int64(0); l.cfg.Clock.Sleep(ctx, sweepEvery) == nil; {
		now := l.cfg.Clock.Now().Mono
		for _, p := range *l.peers.Load() {
			p.expire(now)
		}
		if now >= next { // a sweep measures nothing: it may take two ticks
			l.round()
			next = now + int64(roundEvery)
		}
	}
}

// round pings everybody, and gives up those that do not answer.
func (l *links) round() {
	l.notices.Store(noticesMax)
	for _, p := range *l.peers.Load() {
		quiet := p.round()
		if quiet%quietRounds == 0 {
			l.giveUp(p)
		}
		l.post(p.pid, p)
	}
}

// giveUp ends what is in flight to a peer that is not heard, and its connection, which
// may be one that no longer leads anywhere. If a later life of the node speaks from that
// address, it is that one's.
func (l *links) giveUp(p *peer) {
	p.broke()
	if !l.outlived(p.member, p.pid.Address) {
		l.streams.cut(p.pid.Address)
	}
	if !p.inTopology() {
		l.forget(p)
		return
	}
	if p.missed() {
		l.cfg.Logger.Warn("cluster: a member does not answer", slog.String("member", p.member), slog.String("address", p.pid.Address))
	}
}

// outlived says whether a later member speaks from the same address.
func (l *links) outlived(member, address string) bool {
	for id, p := range *l.peers.Load() {
		if p.pid.Address == address && id > member {
			return true
		}
	}
	return false
}

// broken is told by remote that its stream to an address is no more. The member there
// is told at once, over the next one: it may wait for what was lost.
func (l *links) broken(address string) {
	for _, p := range *l.peers.Load() {
		if p.pid.Address != address {
			continue
		}
		p.broke()
		if p.inTopology() {
			l.post(p.pid, p)
		}
	}
}

func (l *links) send(member string, body []byte, deadline int64, done Done) {
	p := (*l.peers.Load())[member]
	if p == nil {
		done.Replied(nil, ErrUnknown)
		return
	}
	p.send(body, deadline, done)
}

// changed makes the peers those of a topology, and of the strangers that spoke lately.
func (l *links) changed(t *Topology) {
	l.mu.Lock()
	old := *l.peers.Load()
	peers := make(map[string]*peer, len(t.Members))
	for i, m := range t.Members {
		if i == t.Self {
			continue
		}
		p := old[m.ID]
		if p == nil {
			p = newPeer(l, m.ID, m.Address)
		}
		p.join(&m)
		peers[m.ID] = p
	}
	var gone []*peer
	for id, p := range old {
		if peers[id] != nil {
			continue
		}
		if p.inTopology() {
			gone = append(gone, p)
		} else {
			peers[id] = p
		}
	}
	l.peers.Store(&peers)
	l.mu.Unlock()
	for _, p := range gone {
		p.end()
	}
}

// peerOf returns the peer that speaks from an address. One that is new here becomes
// known by that.
func (l *links) peerOf(member, address string) *peer {
	if p := (*l.peers.Load())[member]; p != nil {
		return p
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.peers.Load()
	if p := old[member]; p != nil {
		return p
	}
	strangers := 0
	for _, p := range old {
		if !p.inTopology() {
			strangers++
		}
	}
	if strangers >= strangersMax || member == "" || l.outlived(member, address) {
		return nil
	}
	p := newPeer(l, member, address)
	peers := maps.Clone(old)
	peers[member] = p
	l.peers.Store(&peers)
	return p
}

// forget drops a stranger.
func (l *links) forget(p *peer) {
	l.mu.Lock()
	peers := maps.Clone(*l.peers.Load())
	delete(peers, p.member)
	l.peers.Store(&peers)
	l.mu.Unlock()
	p.end()
}

// receive reads what came from another node.
func (l *links) receive(b *batch.Batch) {
	switch {
	case !dialable(b.Address): // it cannot be answered
	case b.Version > batchVersion:
		l.cfg.Logger.Warn("cluster: a batch of a later version", slog.String("from", b.From), slog.Uint64("version", uint64(b.Version)))
	case b.Ask != 0:
		l.tell(b)
	case b.Told != 0:
		l.told(b)
	case b.Stranger != "":
		if p := (*l.peers.Load())[b.Stranger]; p != nil {
			p.broke() // not for good: the topology says when it is gone
		}
	case b.To != l.self().ID:
		answer := l.speak()
		answer.Stranger = b.To
		l.notify(b.Address, answer)
	default:
		if p := l.peerOf(b.From, b.Address); p != nil {
			p.receive(b)
		}
	}
}

// speak begins a batch of this node.
func (l *links) speak() *batch.Batch {
	return &batch.Batch{Version: batchVersion, From: l.self().ID, Address: l.cfg.Advertise}
}

func (l *links) ping(ctx context.Context, address string) (Member, error) {
	answer := make(chan Member, 1)
	l.asks.Lock()
	l.asks.next++
	number := l.asks.next
	l.asks.waiting[number] = answer
	l.asks.Unlock()
	defer func() {
		l.asks.Lock()
		delete(l.asks.waiting, number)
		l.asks.Unlock()
	}()
	b := l.speak()
	b.Ask = number
	l.notify(address, b)
	select {
	case m := <-answer:
		return m, nil
	case <-ctx.Done():
		return Member{}, fmt.Errorf("cluster: %s does not answer: %w", address, ctx.Err())
	}
}

func (l *links) tell(b *batch.Batch) {
	self, err := json.Marshal(l.self())
	if err != nil {
		panic(err) // strings and a bool
	}
	answer := l.speak()
	answer.Told, answer.Member = b.Ask, self
	l.notify(b.Address, answer)
}

func (l *links) told(b *batch.Batch) {
	var m Member
	if json.Unmarshal(b.Member, &m) != nil {
		return
	}
	l.asks.Lock()
	answer := l.asks.waiting[b.Told]
	delete(l.asks.waiting, b.Told)
	l.asks.Unlock()
	if answer != nil {
		answer <- m
	}
}

// notify sends a batch that belongs to no peer, unless there were too many.
func (l *links) notify(address string, b *batch.Batch) {
	if l.notices.Add(-1) >= 0 {
		l.post(actor.NewPID(address, wellKnown), outgoing{b})
	}
}

func (l *links) skew() map[string]time.Duration {
	all := map[string]time.Duration{}
	for id, p := range *l.peers.Load() {
		p.mu.Lock()
		if best, ok := p.pulse.best(); ok {
			all[id] = best.skew
		}
		p.mu.Unlock()
	}
	return all
}

// all shows the links.
func (l *links) all() []Link {
	var all []Link
	for _, p := range *l.peers.Load() {
		all = append(all, p.link())
	}
	return all
}

func (l *links) close() error {
	l.part()
	l.gate.Lock()
	was := l.closed
	l.closed = true
	l.gate.Unlock()
	if was || l.remote == nil {
		return nil
	}
	l.stop()
	<-l.ended
	l.stopRemote()
	l.mu.Lock()
	peers := *l.peers.Swap(&map[string]*peer{})
	l.mu.Unlock()
	for _, p := range peers {
		p.end()
	}
	return nil
}

// part waits until those peers that hear us have what was said to them so far.
func (l *links) part() {
	ctx, cancel := context.WithCancel(context.Background())
	defer l.cfg.Clock.AfterFunc(l.parting, cancel)()
	defer cancel()
	for _, p := range *l.peers.Load() {
		for said := p.lastWord(); !p.has(said) && l.cfg.Clock.Sleep(ctx, sweepEvery) == nil; {
			l.post(p.pid, p)
		}
	}
}
