package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// A deal moves when the members change.
//
//	Changed    the node that has it sees that it is another's
//	handOver   its activation takes nothing more, finishes what is under way, and ends,
//	           with a snapshot if there is much to replay; what waits looks for the deal anew
//	opWake     the new owner is told, so that it need not ask, and that what is due there
//	           happens in time
//	claim      before an activation opens its stream, and unless it was told, all other
//	           nodes are asked to let go of the deal, so that two rarely have it at once
//	Open       the stream's new epoch refuses what an old owner may still write
//
// The last step alone makes it safe. The others make it quick: nobody is fenced off in
// the middle of its work, and the next owner replays little.

const (
	gatherFor    = time.Millisecond       // claims that come together go in one message
	releaseWait  = time.Second            // then a node that does not answer is not waited for
	handedAtOnce = 32                     // deals on their way at the same time
	givenLately  = 5 * time.Second        // after its owner has let go, a deal is asked for again
	settleAgain  = 5 * time.Second        // after a change: what was on its way has arrived
	checkEvery   = time.Second            // of what the store knows of newer epochs
	takeBack     = 1000                   // ms after which a lost deal that is still due here is looked at
	lookUpWait   = 100 * time.Millisecond // between tries to ask a store that does not answer

	// replayedAtOnce is how many events a deal's next owner replays sooner than this one
	// writes a snapshot, for which everybody would have to wait.
	replayedAtOnce = 1024
)

// owns says whether a deal belongs to this node.
func (n *Node) owns(id string) bool {
	if n.cfg.Peers == nil {
		return true
	}
	_, self := n.cfg.Peers.Owner([]byte(id))
	return self
}

// entry returns a deal's entry in the directory. ErrDealNotFound.
func (n *Node) entry(ctx context.Context, id string) (*entry, error) {
	e := n.directory.find([]byte(id))
	if e == nil && n.cfg.Peers != nil {
		if err := n.discover(ctx, id); err != nil {
			return nil, err
		}
		e = n.directory.find([]byte(id))
	}
	if e == nil {
		return nil, ErrDealNotFound
	}
	return e, nil
}

// discover makes a deal known that another node has created. ErrDealNotFound.
func (n *Node) discover(ctx context.Context, id string) error {
	if n.directory.find([]byte(id)) != nil {
		return nil
	}
	ctx, cancel := n.Patience(ctx)
	defer cancel()
	leave, err := n.enter(ctx, n.directory.shardOf(id))
	if err != nil {
		return err
	}
	defer leave()
	head, err := n.store.Head(ctx, id)
	switch {
	case errors.Is(err, journal.ErrNotFound), err == nil && head.Seq == 0:
		return ErrDealNotFound
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return n.know(id)
}

func (n *Node) know(id string) error {
	if n.directory.add(id) == nil {
		return fmt.Errorf("deal %s: %w", id, ErrDealExists)
	}
	return nil
}

// Learn tells the node of a stream that another node has begun, and, with "", that
// there may be any number of them. It does not block.
func (n *Node) Learn(stream string) {
	if stream == "" {
		n.resettle()
		return
	}
	if err := n.know(stream); err != nil {
		n.report("a new deal", err)
	}
}

// claims are the deals that this node is about to take up.
type claims struct {
	mu   sync.Mutex // guards next
	next *claim     // gathers
}

// claim is a message to all other nodes.
type claim struct {
	ids  []string
	done chan struct{} // closed when they have let go, or are not waited for
}

// claim returns when no other node has the deal any more, as far as can be known, and
// says whether it still is this one's.
func (n *Node) claim(a *activation) bool {
	if at := a.entry.givenAt.Swap(0); at == 0 || n.clock.Now().Mono-at > int64(givenLately) {
		c, first := n.cluster.claims.join(a.entry.id)
		if first {
			n.background(func() { n.askFor(c) })
		}
		select {
		case <-c.done:
		case <-a.given: // whoever else is asked and silent has not had it
		}
	}
	a.taken.Store(true)
	return n.owns(a.entry.id)
}

// askFor sends a claim once it has gathered.
func (n *Node) askFor(c *claim) {
	defer close(c.done)
	_ = n.clock.Sleep(n.ctx, gatherFor)
	n.cluster.claims.close(c)
	n.askAll(n.cfg.Peers.Others(nil), encodeDeals(opRelease, c.ids), releaseWait)
}

// join adds a deal to the claim that gathers. first: the caller sends it.
func (s *claims) join(id string) (c *claim, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first = s.next == nil; first {
		s.next = &claim{done: make(chan struct{})}
	}
	c = s.next
	if c.ids = append(c.ids, id); len(c.ids) == dealsMax {
		s.next = nil
	}
	return c, first
}

func (s *claims) close(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == c {
		s.next = nil
	}
}

// serveRelease ends this node's activations of another's deals.
func (n *Node) serveRelease(ctx context.Context, fields []byte) ([]byte, error) {
	ids, err := readDeals(fields)
	if err != nil {
		return appendOutcome(nil, outcomeMalformed), nil
	}
	n.letGoAll(ctx, ids)
	return appendOutcome(nil, outcomeAnswered), nil
}

// letGoAll hands deals over, and returns when they have left or ctx has ended.
func (n *Node) letGoAll(ctx context.Context, ids []string) {
	var leaving []*activation
	for _, id := range ids {
		if a := n.letGo(id); a != nil {
			leaving = append(leaving, a)
		}
	}
	for _, a := range leaving {
		select {
		case <-a.gone:
		case <-ctx.Done():
		}
	}
}

// letGo hands a deal over, and returns the activation that is on its way out.
func (n *Node) letGo(id string) *activation {
	e := n.directory.find([]byte(id))
	if e == nil {
		return nil
	}
	e.givenAt.Store(0) // whoever asks for it has it from now on
	a := e.active.Load()
	switch {
	case a == nil:
		return nil
	case !n.owns(id) && (!a.taken.Load() || a.queued.Load()): // it has opened nothing
		a.abandon(errAgain)
		return nil
	case !a.taken.Load(): // it asks for the deal itself: who opens the stream last has it
		return nil
	default:
		a.mailbox.PostUserMessage(handOver{})
		return a
	}
}

// serveWake takes up deals that were handed over: what they owe the lists, and what is
// due, happens within a second.
func (n *Node) serveWake(_ context.Context, fields []byte) ([]byte, error) {
	ids, err := readDeals(fields)
	if err != nil {
		return appendOutcome(nil, outcomeMalformed), nil
	}
	ctx, cancel := n.Patience(n.ctx) // nobody waits for an answer
	defer cancel()
	for _, id := range ids {
		e, err := n.entry(ctx, id)
		if err != nil {
			continue
		}
		if a := e.active.Load(); a == nil {
			e.givenAt.Store(n.clock.Now().Mono)
		} else {
			select {
			case a.given <- struct{}{}:
			default:
			}
		}
		n.views.touch(e)
	}
	return appendOutcome(nil, outcomeAnswered), nil
}

// handOver ends the activation, in its turn: it takes nothing more, and leaves once all
// that it has decided is on disk.
func (a *activation) handOver() {
	if a.failed.Load() {
		return
	}
	a.mu.Lock()
	a.leaving = true
	a.mu.Unlock()
	for _, msg := range a.mailbox.close() {
		a.bounce(msg)
	}
	d := &departure{}
	if a.state.Spec != nil && a.state.Seq >= a.snapshot+replayedAtOnce {
		d.seq, d.snapshot = a.state.Seq, a.state.AppendSnapshot(nil)
	}
	a.departs.Store(d)
	if a.uncommitted.Load() == 0 {
		a.depart(d)
	}
}

// departure is an activation's, which leaves when its last write is on disk.
type departure struct {
	seq      uint64
	snapshot []byte // as of seq, nil if it is not worth it
}

// depart lets go of the deal, unless it has failed on its way out. It may be called twice.
func (a *activation) depart(d *departure) {
	if a.failed.Load() {
		return
	}
	a.moved.Store(true)
	if a.failed.Swap(true) {
		return
	}
	n := a.node
	n.background(func() {
		if d.snapshot != nil {
			if err := a.put(d.snapshot, d.seq); err != nil {
				n.cfg.Logger.Warn("snapshot failed: the next replay is longer", "deal_id", a.entry.id, "error", err)
			}
		}
		n.store.Release(a.entry.id, a.epoch)
		n.wheel.Remove(a.entry.id)
		n.cluster.handedOver.Add(1)
		a.soldOut.Store(nil)
		n.tellOwner(a.entry.id)
		a.free()
	})
}

// tellOwner tells the owner of a deal that this node has let go of it. It waits for
// nothing: who does not hear it asks.
func (n *Node) tellOwner(id string) {
	if member, self := n.cfg.Peers.Owner([]byte(id)); member != "" && !self {
		deadline := n.clock.Now().Mono + int64(givenLately)
		n.cfg.Peers.Send(member, encodeDeals(opWake, []string{id}), deadline, notice{})
	}
}

// notice is a message whose answer nobody waits for.
type notice struct{}

// Replied implements cluster.Done.
func (notice) Replied([]byte, error) {}

// abandon ends an activation at once and unsaved, because the deal is served elsewhere,
// or may be. What was under way is for the journal to judge; what waits looks for the
// deal anew.
func (a *activation) abandon(why error) {
	a.queued.Store(errors.Is(why, errCrowded))
	a.moved.Store(true)
	if a.failed.Swap(true) {
		return
	}
	n := a.node
	n.cfg.Logger.Debug("a deal's activation gives way", "deal_id", a.entry.id, "reason", why)
	n.setDue(a.entry.id, n.clock.Now().Wall+takeBack) // if it still is ours then
	a.forget()
	a.end()
}

// forget lets the store forget a deal that was abandoned. Whoever comes last does: abandon,
// the end of its load, or that of its last write.
func (a *activation) forget() {
	if a.failed.Load() && a.moved.Load() && a.loaded.Load() && a.uncommitted.Load() == 0 {
		a.node.store.Release(a.entry.id, a.epoch)
	}
}

// Changed implements cluster.Handler: settle looks who owns what.
func (n *Node) Changed(*cluster.Topology) { n.resettle() }

func (n *Node) resettle() {
	select {
	case n.cluster.changed <- struct{}{}:
	default:
	}
}

var errLease = errors.New("actors: this node is no member any more")

// Lost implements cluster.Handler.
func (n *Node) Lost() {
	for _, a := range n.active.list(func(*activation) bool { return true }) {
		a.abandon(errLease)
	}
}

// settle follows the members, until the node is closed: it hands over what is no longer
// this node's, and looks for what has become so. It looks twice, because what others
// hand over may still be on its way the first time, and again if the store did not answer.
func (n *Node) settle() {
	again := make(chan struct{}, 1)
	stop := func() {}
	defer func() { stop() }()
	for {
		changed := false
		select {
		case <-n.cluster.changed:
			changed = true
		case <-again:
		case <-n.ctx.Done():
			return
		}
		n.report("hand-over", n.HandOver(n.ctx))
		_, err := n.survey(n.ctx)
		n.report("a look at all deals", err)
		n.cluster.settled.Store(n.cluster.settled.Load() || err == nil)
		if stop(); changed || err != nil {
			stop = n.clock.AfterFunc(settleAgain, func() { again <- struct{}{} })
		}
	}
}

// Settled says whether the node knows which deals are its own: it has looked through all
// of them since it became a member.
func (n *Node) Settled() bool { return n.cfg.Peers == nil || n.cluster.settled.Load() }

// HandOver returns when no deal is active here that belongs to another node, or ctx has
// ended. The deals go in groups.
func (n *Node) HandOver(ctx context.Context) error {
	select {
	case n.cluster.handing <- struct{}{}: // what another caller is at need not be done, or told, twice
		defer func() { <-n.cluster.handing }()
	case <-ctx.Done():
		return fmt.Errorf("hand-over: %w", context.Cause(ctx))
	}
	begin, count := clockd.Mono(), 0
	defer func() {
		if count > 0 {
			n.cfg.Logger.Info("deals were handed over", "deals", count, "took", time.Duration(clockd.Mono()-begin))
		}
	}()
	for n.ctx.Err() == nil {
		var ids []string
		for _, a := range n.active.list(func(a *activation) bool {
			member, self := n.cfg.Peers.Owner([]byte(a.entry.id))
			return !self && member != ""
		}) {
			ids = append(ids, a.entry.id)
		}
		if len(ids) == 0 {
			return nil
		}
		for group := range slices.Chunk(ids, handedAtOnce) {
			if ctx.Err() != nil {
				return fmt.Errorf("hand-over: %w", context.Cause(ctx))
			}
			n.letGoAll(ctx, group)
			count += len(group)
		}
	}
	return nil
}

// checkOwnership ends the activations of deals that have a newer owner.
func (n *Node) checkOwnership() error {
	var owned []journal.Ownership
	for _, a := range n.active.list(func(a *activation) bool { return a.loaded.Load() && !a.failed.Load() }) {
		owned = append(owned, journal.Ownership{Stream: a.entry.id, Epoch: a.epoch})
	}
	if len(owned) == 0 {
		return nil
	}
	newer, err := n.store.Superseded(n.ctx, nil, owned)
	if len(newer) == 0 {
		return err
	}
	asked := make(map[string]uint64, len(owned)) // the epoch of each
	for _, o := range owned {
		asked[o.Stream] = o.Epoch
	}
	for _, id := range newer {
		e := n.directory.find([]byte(id))
		if e == nil {
			continue
		}
		// Another activation here may be what is newer.
		if a := e.active.Load(); a != nil && a.loaded.Load() && a.epoch == asked[id] {
			a.abandon(journal.ErrFenced)
		}
	}
	return err
}
