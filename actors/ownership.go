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
//	handOver   its activation takes nothing more, finishes what is under way, writes a
//	           snapshot, and ends; what waits looks for the deal anew
//	opWake     the new owner is told, so that what is due there happens in time
//	claim      before an activation opens its stream, all other nodes are asked to let
//	           go of the deal, so that two rarely have it at once
//	Open       the stream's new epoch refuses what an old owner may still write
//
// The last step alone makes it safe. The others make it quick: nobody is fenced off in
// the middle of its work, and the next owner replays little.

const (
	gatherFor    = time.Millisecond       // claims that come together go in one message
	releaseWait  = time.Second            // then a node that does not answer is not waited for
	handedAtOnce = 32                     // deals on their way at the same time
	settleAgain  = 5 * time.Second        // after a change: what was on its way has arrived
	checkEvery   = time.Second            // of what the store knows of newer epochs
	takeBack     = 1000                   // ms after which a lost deal that is still due here is looked at
	lookUpWait   = 100 * time.Millisecond // between tries to ask a store that does not answer
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
func (n *Node) entry(id string) (*entry, error) {
	e := n.directory.find([]byte(id))
	if e == nil && n.cfg.Peers != nil {
		if err := n.discover(id); err != nil {
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
func (n *Node) discover(id string) error {
	if n.directory.find([]byte(id)) != nil {
		return nil
	}
	ctx, cancel := n.patience(n.ctx)
	defer cancel()
	leave, err := n.enter(ctx, n.directory.shardOf(id))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
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
	c, first := n.cluster.claims.join(a.entry.id)
	if first {
		_ = n.clock.Sleep(n.ctx, gatherFor)
		n.cluster.claims.close(c)
		n.askAll(n.cfg.Peers.Others(nil), encodeDeals(opRelease, c.ids), releaseWait)
		close(c.done)
	}
	<-c.done
	a.taken.Store(true)
	return n.owns(a.entry.id)
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
func (n *Node) serveRelease(fields []byte) ([]byte, error) {
	ids, err := readDeals(fields)
	if err != nil {
		return appendOutcome(nil, outcomeMalformed), nil
	}
	var leaving []*activation
	for _, id := range ids {
		if a := n.letGo(id); a != nil {
			leaving = append(leaving, a)
		}
	}
	n.awaitAll(n.ctx, leaving)
	return appendOutcome(nil, outcomeAnswered), nil
}

// letGo hands a deal over, and returns the activation that is on its way out.
func (n *Node) letGo(id string) *activation {
	e := n.directory.find([]byte(id))
	if e == nil {
		return nil
	}
	a := e.active.Load()
	switch {
	case a == nil:
		return nil
	case a.taken.Load():
		a.mailbox.PostUserMessage(handOver{})
		return a
	case !n.owns(id):
		a.abandon(errAgain)
	}
	// It asks for the deal itself: who opens the stream last has it.
	return nil
}

func (n *Node) awaitAll(ctx context.Context, leaving []*activation) {
	for _, a := range leaving {
		select {
		case <-a.gone:
		case <-ctx.Done():
		}
	}
}

// serveWake takes up deals that were handed over: what they owe the lists, and what is
// due, happens within a second.
func (n *Node) serveWake(fields []byte) ([]byte, error) {
	ids, err := readDeals(fields)
	if err != nil {
		return appendOutcome(nil, outcomeMalformed), nil
	}
	for _, id := range ids {
		if e, err := n.entry(id); err == nil {
			n.views.touch(e)
		}
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
	h := &lastWrite{a: a}
	if a.state.Spec != nil && a.state.Seq >= a.snapshot+snapshotAfter {
		h.seq, h.snapshot = a.state.Seq, a.state.AppendSnapshot(nil)
	}
	h.Stream, h.Done = a.entry.id, h // behind its own stream's writes, wherever they queue
	a.commit(&h.Write, 0, a.state.Available)
}

// lastWrite is a barrier behind all that an activation has written.
type lastWrite struct {
	journal.Write
	a        *activation
	seq      uint64
	snapshot []byte // as of seq, nil if it is not worth it
}

// Committed implements journal.Completer.
func (h *lastWrite) Committed(*journal.Write) {
	a, n := h.a, h.a.node
	a.moved.Store(true)
	if a.failed.Swap(true) {
		return
	}
	n.background(func() {
		if h.snapshot != nil {
			if err := a.put(h.snapshot, h.seq); err != nil {
				n.cfg.Logger.Warn("snapshot failed: the next replay is longer", "deal_id", a.entry.id, "error", err)
			}
		}
		n.store.Release(a.entry.id, a.epoch)
		n.wheel.Remove(a.entry.id)
		n.cluster.handedOver.Add(1)
		a.soldOut.Store(nil)
		a.free()
	})
}

// abandon ends an activation at once and unsaved, because the deal is served elsewhere,
// or may be. What was under way is for the journal to judge; what waits looks for the
// deal anew.
func (a *activation) abandon(why error) {
	a.moved.Store(true)
	if a.failed.Swap(true) {
		return
	}
	n := a.node
	n.cfg.Logger.Debug("a deal's activation gives way", "deal_id", a.entry.id, "reason", why)
	n.setDue(a.entry.id, n.clock.Now().Wall+takeBack) // if it still is ours then
	a.end()
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
		if stop(); changed || err != nil {
			stop = n.clock.AfterFunc(settleAgain, func() { again <- struct{}{} })
		}
	}
}

// HandOver returns when no deal is active here that belongs to another node, or ctx has
// ended. The deals go in groups, each with a snapshot.
func (n *Node) HandOver(ctx context.Context) error {
	begin, count := clockd.Mono(), 0
	defer func() {
		if count > 0 {
			n.cfg.Logger.Info("deals were handed over", "deals", count, "took", time.Duration(clockd.Mono()-begin))
		}
	}()
	for n.ctx.Err() == nil {
		others := n.active.list(func(a *activation) bool {
			member, self := n.cfg.Peers.Owner([]byte(a.entry.id))
			return !self && member != ""
		})
		if len(others) == 0 {
			return nil
		}
		for group := range slices.Chunk(others, handedAtOnce) {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("hand-over: %w", err)
			}
			n.handOverGroup(ctx, group)
			count += len(group)
		}
	}
	return nil
}

func (n *Node) handOverGroup(ctx context.Context, group []*activation) {
	var leaving []*activation
	for _, a := range group {
		if out := n.letGo(a.entry.id); out != nil {
			leaving = append(leaving, out)
		}
	}
	n.awaitAll(ctx, leaving)
	news := make(map[string][]string) // by new owner
	for _, a := range leaving {
		if member, self := n.cfg.Peers.Owner([]byte(a.entry.id)); member != "" && !self {
			news[member] = append(news[member], a.entry.id)
		}
	}
	for member, ids := range news {
		n.askAll([]string{member}, encodeDeals(opWake, ids), catchUpWait)
	}
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
	for _, id := range newer {
		i := slices.IndexFunc(owned, func(o journal.Ownership) bool { return o.Stream == id })
		e := n.directory.find([]byte(id))
		if e == nil || i < 0 {
			continue
		}
		// Another activation here may be what is newer.
		if a := e.active.Load(); a != nil && a.loaded.Load() && a.epoch == owned[i].Epoch {
			a.abandon(journal.ErrFenced)
		}
	}
	return err
}
