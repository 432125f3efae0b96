package actors

import (
	"context"
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/doorbuster/doorbuster/actors/deal"
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
		node: n, entry: e, board: newBoard(), tried: make(chan struct{}),
		state: deal.NewState(),
	}
	a.lastUsed.Store(n.clock.Now().Wall)
	a.mailbox = newMailbox(a.bounce)
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

// awakeInTime is awake for somebody who waits as long as for any request.
func (n *Node) awakeInTime(e *entry) (*activation, error) {
	if a := e.active.Load(); a != nil && a.loaded.Load() {
		return n.awake(n.ctx, e) // which will hardly wait
	}
	ctx, cancel := n.patience(n.ctx)
	defer cancel()
	return n.awake(ctx, e)
}

// patience bounds what is done for somebody who waits. A simulation knows no other time
// than its own.
func (n *Node) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if n.cfg.Driver != nil {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, n.cfg.RequestTimeout)
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
			return nil, a.why()
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
	case <-ctx.Done():
		return fmt.Errorf("%w: it is still being loaded", ErrUnavailable)
	}
}

// why says how an activation that failed came to that.
func (a *activation) why() error {
	if !a.moved.Load() {
		return ErrUnavailable
	}
	<-a.gone
	switch {
	case a.cutOff():
		return errCutOff
	case a.unreachable.Load():
		return fmt.Errorf("%w: %w", errAgain, journal.ErrUnreachable)
	default:
		return errAgain
	}
}

// errCutOff: the journal did not answer, and no other node could know better. Nothing was
// asked of the deal.
var errCutOff = fmt.Errorf("%w: %w", ErrUnavailable, journal.ErrUnreachable)

// cutOff says whether the activation failed in that way. Whoever waits for it is told at
// once, lest those who want what one server keeps take the places of all others.
func (a *activation) cutOff() bool { return a.unreachable.Load() && a.node.cfg.Peers == nil }

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
}

// enter waits for a place among those who read a shard, and returns how to leave it.
func (n *Node) enter(ctx context.Context, shard uint16) (leave func(), err error) {
	select {
	case n.loadSlots[shard] <- struct{}{}:
		return func() { <-n.loadSlots[shard] }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: it has been busy for too long", journal.ErrUnreachable)
	}
}

// load takes the deal's stream over, restores its state and lets the messages
// in. loadSlots bounds how many do at once.
func (n *Node) load(a *activation) {
	if n.cfg.Peers != nil && !n.claim(a) {
		a.abandon(errAgain)
		return
	}
	defer a.loaded.Store(true)
	leave, err := n.enterToLoad(a.entry.shard)
	if err == nil {
		defer leave()
		err = n.restore(a)
	}
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

// enterToLoad is enter for an activation. On a disk of its own the node waits for as long
// as those before it take; of a server, no longer than anybody waits for the deal.
func (n *Node) enterToLoad(shard uint16) (leave func(), err error) {
	if n.cfg.Peers == nil {
		return n.enter(n.ctx, shard)
	}
	ctx, cancel := n.patience(n.ctx)
	defer cancel()
	return n.enter(ctx, shard)
}

func (n *Node) restore(a *activation) error {
	head, err := n.store.Open(n.ctx, a.entry.id)
	if err != nil {
		return err
	}
	a.epoch = head.Epoch
	a.snapshot, err = n.replay(a.entry.id, a.state)
	if err == nil && a.state.Seq != head.Seq {
		err = fmt.Errorf("%w: replay ended at event %d of %d", journal.ErrCorrupt, a.state.Seq, head.Seq)
	}
	return err
}

// isDamage says whether another try would fail in the same way.
func isDamage(err error) bool {
	return errors.Is(err, journal.ErrCorrupt) || errors.Is(err, deal.ErrMalformed) || errors.Is(err, deal.ErrInvariant)
}

// replay brings an empty state to the end of its stream: the newest snapshot,
// then every event after it. It returns the seq of the snapshot.
func (n *Node) replay(stream string, s *deal.State) (snapshot uint64, err error) {
	snapshot, data, err := n.store.Snapshot(n.ctx, stream)
	switch {
	case errors.Is(err, journal.ErrNotFound):
		snapshot = 0
	case err != nil:
		return 0, err
	default:
		if err := s.Restore(data); err != nil {
			return 0, err
		}
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
	err = n.store.Tables().Scan(ctx, tableDeals, "", "", func(key string, value []byte) error {
		if !n.owns(key) {
			return nil
		}
		row, err := decodeDealRow(value)
		row.view = deal.View{}
		listed[key] = row
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("recover the list of deals: %w", err)
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
