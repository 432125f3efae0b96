package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// A deal that keeps failing is suspended, so that it cannot take the node
// down with it: after restartsMax faults within restartWindow it answers
// ErrUnavailable for suspension.
const (
	restartsMax   = 3
	restartWindow = 10_000 // ms
	suspension    = 30_000 // ms
	// wakeRetry is when a deal gets its next turn after a failure: past the end
	// of a suspension.
	wakeRetry = 2 * suspension // ms
)

type restarts struct {
	since int64 // Unix ms of the first fault in the window
	count int
	until int64 // suspended until then
}

// fault counts an activation that ended in a failure at now.
func (e *entry) fault(now int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.restarts == nil || now-e.restarts.since > restartWindow {
		e.restarts = &restarts{since: now}
	}
	if e.restarts.count++; e.restarts.count >= restartsMax {
		e.restarts.until = now + suspension
	}
}

// activate returns the deal's activation, and begins a new one if it has
// none. The activation may still be loading; messages wait for it.
func (n *Node) activate(e *entry) (*activation, error) {
	if a := e.active.Load(); a != nil {
		return a, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if a := e.active.Load(); a != nil {
		return a, nil
	}
	if e.removed {
		return nil, ErrDealNotFound
	}
	if !n.owns(e.id) {
		return nil, errAgain
	}
	if e.restarts != nil && n.clock.Now().Wall < e.restarts.until {
		return nil, fmt.Errorf("%w: suspended after repeated failures", ErrUnavailable)
	}
	a := &activation{
		node: n, entry: e, board: newBoard(), tried: make(chan struct{}), given: make(chan struct{}, 1),
		state: deal.NewState(),
	}
	a.lastUsed.Store(n.clock.Now().Wall)
	a.mailbox = newMailbox(a.bounce, n.clock)
	a.pid = n.system.Root.Spawn(actor.PropsFromProducer(
		func() actor.Actor { return a },
		actor.WithMailbox(func() actor.Mailbox { return a.mailbox }),
		actor.WithDispatcher(n.dispatcher),
	))
	if !n.active.add(a) {
		n.system.Root.Stop(a.pid)
		n.evict()
		return nil, fmt.Errorf("%w: %d deals are active", ErrOverloaded, n.cfg.ActiveMax)
	}
	e.active.Store(a)
	n.background(a.load)
	return a, nil
}

// awakeInTime is awake for somebody who waits no longer than for any request.
func (n *Node) awakeInTime(ctx context.Context, e *entry) (*activation, error) {
	if a := e.active.Load(); a != nil && a.loaded.Load() {
		return n.awake(ctx, e) // which will hardly wait
	}
	ctx, cancel := n.Patience(ctx)
	defer cancel()
	return n.awake(ctx, e)
}

// awake returns the deal's activation once its state is loaded. ErrUnavailable, and
// errAgain if another node may have it; either with journal.ErrUnreachable if the
// journal did not answer.
func (n *Node) awake(ctx context.Context, e *entry) (*activation, error) {
	for {
		a, err := n.activate(e)
		if err != nil {
			return nil, err
		}
		if err := a.await(ctx); err != nil {
			return nil, err
		}
		if a.failed.Load() {
			return nil, a.why(ctx)
		}
		select {
		case <-a.gone: // passivated meanwhile
		default:
			return a, nil
		}
	}
}

// load returns once the deal's state is loaded, or cannot be. It never runs in
// an actor's turn, so that a long replay holds up no other deal.
func (a *activation) load() {
	a.loading.Do(func() {
		defer close(a.tried)
		a.node.load(a)
	})
}

// await returns once the state is loaded, or cannot be.
func (a *activation) await(ctx context.Context) error {
	if a.node.cfg.Driver != nil { // it may have put off the load, and nobody else runs
		a.load()
	}
	select {
	case <-a.tried:
		return nil
	default:
	}
	select {
	case <-a.tried:
		return nil
	case <-a.gone: // before its turn came
		return nil
	case <-ctx.Done():
		if a.queued.Load() {
			return errCrowded
		}
		return fmt.Errorf("%w: it is still being loaded", ErrUnavailable)
	}
}

// why says how an activation that failed came to that. It waits for one that moves, whose
// snapshot may take its time.
func (a *activation) why(ctx context.Context) error {
	if !a.moved.Load() {
		return ErrUnavailable
	}
	select {
	case <-a.gone:
	case <-ctx.Done():
		return fmt.Errorf("%w: it is on its way to another node", ErrUnavailable)
	}
	switch err := a.refusal(); {
	case err != nil:
		return err
	case a.unreachable.Load():
		return fmt.Errorf("%w: %w", errAgain, journal.ErrUnreachable)
	default:
		return errAgain
	}
}

var (
	// errCutOff: the journal did not answer, and no other node could know better. Nothing
	// was asked of the deal.
	errCutOff = fmt.Errorf("%w: %w", ErrUnavailable, journal.ErrUnreachable)
	// errCrowded: as many deals as may are being loaded, and have been for too long.
	errCrowded = fmt.Errorf("%w: too many deals are being loaded", ErrOverloaded)
)

// refusal is what whoever waits for an activation that was abandoned is told at once, lest
// those who want what one server keeps take the places of all others. nil: they look for
// the deal again.
func (a *activation) refusal() error {
	switch {
	case a.queued.Load():
		return errCrowded
	case a.unreachable.Load() && a.node.cfg.Peers == nil:
		return errCutOff
	default:
		return nil
	}
}

// share divides what may wait for the journal among the servers that keep it, so that
// none holds up what is another's.
func (n *Node) share(store journal.Store) {
	shards := 1
	if several, ok := store.(journal.Sharded); ok {
		shards, n.directory.shard = len(several.Shards()), several.Shard
	}
	n.views = newLists(n, shards)
	for range shards {
		n.loadSlots = append(n.loadSlots, make(chan struct{}, 2*n.cfg.Workers))
	}
	if shards > 1 {
		n.crowds = make([]admit.Gate, shards)
	}
}

// errShardCrowded: as many requests wait for one of several servers as may.
var errShardCrowded = fmt.Errorf("%w at one of the journal's servers", ErrOverloaded)

// enterShard counts a request in at the server of its deal. Of several, one that answers
// nothing gets half of the places, and leaves the rest to the others.
func (n *Node) enterShard(r *Request, shard uint16) bool {
	return n.crowds == nil || n.crowds[shard].Enter(room(r, n.cfg.InFlightMax/2))
}

func (n *Node) leaveShard(shard uint16) {
	if n.crowds != nil {
		n.crowds[shard].Leave()
	}
}

// enter waits for a place among those who read a shard, and returns how to leave it.
// errCrowded.
func (n *Node) enter(ctx context.Context, shard uint16) (leave func(), err error) {
	select {
	case n.loadSlots[shard] <- struct{}{}:
		return func() { <-n.loadSlots[shard] }, nil
	case <-ctx.Done():
		return nil, errCrowded
	}
}

// load takes the deal's stream over, restores its state and lets the messages
// in. loadSlots bounds how many do at once.
func (n *Node) load(a *activation) {
	if n.cfg.Peers != nil && !n.claim(a) {
		a.abandon(errAgain)
		return
	}
	defer func() {
		a.loaded.Store(true)
		a.forget()
	}()
	a.queued.Store(true)
	leave, err := n.enterToLoad(a.entry.shard)
	if err == nil {
		defer leave()
		a.queued.Store(false)
	}
	if a.failed.Load() || !n.owns(a.entry.id) { // it moved while it waited
		err = errAgain
	}
	if err != nil {
		a.abandon(err)
		return
	}
	err = n.restore(a)
	away := errors.Is(err, journal.ErrUnreachable)
	switch {
	case err == nil:
	case away || n.cfg.Peers != nil && !isDamage(err): // a store that does not answer now
		if n.cfg.Peers != nil { // who waits asks again, and again
			_ = n.clock.Sleep(n.ctx, lookUpWait)
		}
		a.unreachable.Store(away)
		a.abandon(err)
		return
	default:
		a.fail(fmt.Errorf("load: %w", err))
		return
	}
	now := n.clock.Now().Wall
	a.mu.Lock()
	a.committed, a.expiry = a.state.View(), a.state.NextExpiry()
	a.status = a.committed.Status(now)
	a.mu.Unlock()
	if spec := a.state.Spec; spec != nil {
		if n.cfg.Prepare != nil {
			n.cfg.Prepare(n.ctx, spec.Merchant, spec.Rules)
		}
		n.views.touch(a.entry) // an owner in between may have written to it
	}
	if a.due = a.state.NextDue(now); a.due != 0 {
		n.setDue(a.entry.id, a.due)
	}
	a.mailbox.open()
}

// enterToLoad is enter for an activation. It gives up while those who wait for the deal
// can still be told why.
func (n *Node) enterToLoad(shard uint16) (leave func(), err error) {
	ctx, cancel := n.within(n.ctx, n.cfg.RequestTimeout*9/10)
	defer cancel()
	return n.enter(ctx, shard)
}

func (n *Node) restore(a *activation) error {
	head, err := n.store.Open(n.ctx, a.entry.id)
	if err != nil {
		return err
	}
	a.epoch = head.Epoch
	a.snapshot, err = n.replay(a.entry.id, a.state, head)
	if err == nil && a.state.Seq != head.Seq {
		err = fmt.Errorf("%w: replay ended at event %d of %d", journal.ErrCorrupt, a.state.Seq, head.Seq)
	}
	return err
}

// isDamage says whether another try would fail in the same way.
func isDamage(err error) bool {
	return errors.Is(err, journal.ErrCorrupt) || errors.Is(err, deal.ErrMalformed) || errors.Is(err, deal.ErrInvariant)
}

// replay brings an empty state to the end of its stream, which is at head: the newest
// snapshot, then every event after it. It returns the seq of the snapshot.
func (n *Node) replay(stream string, s *deal.State, head journal.Head) (snapshot uint64, err error) {
	if head.SnapshotSeq > 0 {
		if snapshot, err = n.restoreSnapshot(stream, s); err != nil {
			return 0, err
		}
	}
	if s.Seq == head.Seq { // a server need not be asked for nothing
		return snapshot, nil
	}
	var e deal.Event
	err = n.store.Read(n.ctx, stream, s.Seq, func(je journal.Event) error {
		if err := e.Decode(je.Data); err != nil {
			return fmt.Errorf("event %d: %w", je.Seq, err)
		}
		e.Seq = je.Seq
		if plantForgetKey {
			e.Placed.Key = fmt.Append(nil, e.Seq)
		}
		n.replayed.Add(1)
		return s.Apply(&e)
	})
	return snapshot, err
}

// restoreSnapshot restores the newest snapshot and returns its seq, 0 if there is none.
func (n *Node) restoreSnapshot(stream string, s *deal.State) (seq uint64, err error) {
	seq, data, err := n.store.Snapshot(n.ctx, stream)
	if errors.Is(err, journal.ErrNotFound) {
		return 0, nil
	}
	if err == nil {
		err = s.Restore(data)
	}
	return seq, err
}

// recover finds every deal in the journal. Those whose lists are behind their
// stream, because the process ended without a drain, are replayed now, so
// that the time it takes is known before the first order; the others stay on
// disk until they are asked for.
func (n *Node) recover(ctx context.Context) error {
	behind, err := n.survey(ctx)
	if err != nil {
		return err
	}
	for i, e := range behind {
		if n.cfg.Recovering != nil {
			n.cfg.Recovering(i, len(behind))
		}
		// A deal that cannot be loaded has said so in the log; the others serve.
		if _, err := n.awake(ctx, e); err != nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, errAgain) {
			n.report("recovery", err)
		}
	}
	// Neither a full disk nor a damaged deal keeps the node from serving: what
	// the lists lack is tried again with the next pass.
	n.report("lists", n.views.catchUp(ctx))
	return ctx.Err()
}

// survey gets to know every deal in the journal. Of this node's, it notes which are due,
// and returns those whose lists are behind, which the next pass of the lists takes up.
func (n *Node) survey(ctx context.Context) (behind []*entry, err error) {
	listed := make(map[string]dealRow)
	var damage error // the first; what a row had to say is in its deal's stream, too
	err = n.store.Tables().Scan(ctx, tableDeals, "", "", func(key string, value []byte) error {
		if !n.owns(key) {
			return nil
		}
		row, err := decodeDealRow(value)
		if err != nil {
			damage = cmp.Or(damage, fmt.Errorf("deal %s: %w", key, err))
			return nil
		}
		row.view = deal.View{}
		listed[key] = row
		return nil
	})
	if isDamage(err) {
		damage, err = err, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recover the list of deals: %w", err)
	}
	if damage != nil {
		n.report("the list of deals, of which the damaged part is derived anew", damage)
	}
	err = n.store.Streams(ctx, "", func(stream string, head journal.Head) error {
		if head.Seq == 0 { // opened by a create that came to nothing
			return nil
		}
		e := n.directory.add(stream)
		if e == nil {
			n.report("recovery", fmt.Errorf("deal %s: %w", stream, ErrDealExists))
			return nil
		}
		if !n.owns(stream) || e.active.Load() != nil { // which sees to itself
			return nil
		}
		row := listed[stream]
		if row.seq != head.Seq {
			behind = append(behind, e)
			n.views.touch(e)
		} else if row.due != 0 {
			n.setDue(stream, row.due)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("recover the deals: %w", err)
	}
	return behind, nil
}
