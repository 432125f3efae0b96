package actors

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The hot path.
//
//	Receive    a batch of messages, everything that had gathered
//	  Due        events that the passing of time owes the deal come first
//	  serve      one request: decide → apply → encode
//	  submit     one journal write for the batch, or none
//	Committed  the write is on disk: publish, then answer each request
//
// The actor does not wait for the disk: it decides the next batch on the state
// that the last one left, while the committer makes the last one durable.
// Nothing here allocates once its buffers have grown.

// activation is a deal in memory. The state belongs to the actor's turns; the
// fields that others read are atomic or guarded by mu.
type activation struct {
	node    *Node
	entry   *entry
	mailbox *mailbox
	pid     *actor.PID
	loading sync.Once     // its load runs once, on whichever goroutine needs it first
	tried   chan struct{} // closed when the state is loaded, or cannot be
	given   chan struct{} // holds a token if another node has said that it has let go of the deal
	board                 // the committed view and its watchers

	state    *deal.State
	epoch    uint64
	snapshot uint64 // seq that the newest snapshot includes
	owed     deal.Event
	event    []byte // scratch for one encoded event
	due      int64  // what the wheel was last told, 0 once it has told us
	keys     *keyFilter
	faults   ruleFaults
	place    int // in the node's activeSet

	lastUsed    atomic.Int64 // Unix ms of the last batch with a request
	waiting     admit.Gate   // requests sent and not yet answered
	uncommitted atomic.Int32 // writes submitted and not yet committed
	loaded      atomic.Bool  // the state is loaded, or cannot be
	failed      atomic.Bool  // ahead of the truth; on its way out
	moved       atomic.Bool  // failed only in that another node serves the deal, or may
	unreachable atomic.Bool  // moved only in that the journal did not answer
	queued      atomic.Bool  // waits for its turn to be loaded; moved only in that it did not come
	taken       atomic.Bool  // the other nodes have let go of the deal
	freed       atomic.Bool  // the deal's next activation has room
	soldOut     atomic.Pointer[keyFilter]
	departs     atomic.Pointer[departure] // set once the deal leaves for another node

	expiry int64       // when it next owes an expiry, as of committed; guarded by board.mu
	fresh  freshOrders // committed, and not yet in the lists; guarded by board.mu

	listed uint64 // events up to this one are in the lists, 0 = unknown; the pass of the views has it
	untold bool   // Config.Listed has not been told of rows that may be there; the same
	row    []byte // as the lists have it, nil = unknown; the same, and with Peers only
}

// pending is one write under way with everybody who waits for it.
type pending struct {
	journal.Write
	owner    *activation
	requests []*Request
	before   int64     // units that were available before the write
	view     deal.View // the deal after the write
	status   deal.Status
	expiry   int64 // when it next owes an expiry
	soldOut  *keyFilter
	groups   []groupChange
	placed   []byte // its orders, for the lists; as freshOrders has them
	grows    bool   // holds an event that a full disk refuses
	saves    []save // snapshots to write once the batch is on disk
	snapshot []byte // the state after the batch, if saves asked for it
}

// pendingKept bounds the buffers of a pending that waits for reuse, in bytes of events.
const pendingKept = 64 << 10

// Messages of the node to an activation.
type (
	wake     struct{}                   // something is due
	leave    struct{ idleFor int64 }    // leave memory if idle for so many ms
	save     struct{ done func(error) } // write a snapshot; done is told how it went
	handOver struct{}                   // leave memory for another node's sake
)

// Receive implements actor.Actor.
func (a *activation) Receive(ctx actor.Context) {
	if b, ok := ctx.Message().(*batch); ok {
		a.receive(b.msgs, b.since)
	}
}

func (a *activation) receive(msgs []any, since int64) {
	p := a.node.takePending(a)
	served := 0
	defer func() {
		if fault := recover(); fault != nil {
			a.crash(p, msgs[served:], fmt.Errorf("%v\n%s", fault, debug.Stack()))
		}
	}()
	now := a.node.clock.Now()
	a.node.turns.add(now.Mono - since)
	for !plantKeepHold && a.state.Due(now.Wall, &a.owed) {
		if err := a.apply(p, &a.owed); err != nil {
			a.crash(p, msgs, err)
			return
		}
		p = a.roomy(p, now.Wall)
	}
	var leaving *leave
	moving := false
	for _, msg := range msgs {
		served++
		switch m := msg.(type) {
		case *Request:
			a.lastUsed.Store(now.Wall)
			if err := a.serve(p, m, now.Mono); err != nil {
				a.crash(p, msgs[served:], err)
				return
			}
			p = a.roomy(p, now.Wall)
		case save:
			p.saves = append(p.saves, m)
		case leave:
			leaving = &m
		case handOver:
			moving = true
		case wake:
			a.due = 0 // the wheel has forgotten it
		}
	}
	a.submit(p, now.Wall)
	switch {
	case moving:
		a.handOver()
	case leaving != nil:
		a.passivate(now.Wall, leaving.idleFor)
	}
}

// serve decides one request and applies what comes of it. An error means that
// the state can no longer be trusted.
func (a *activation) serve(p *pending, r *Request, mono int64) error {
	p.requests = append(p.requests, r)
	if mono >= r.Deadline() {
		r.err = ErrDeadline // nobody waits: better not begun than done unseen
		return nil
	}
	if a.held(r) {
		r.err = ErrUnavailable
		return nil
	}
	reply, rules := &r.Reply, a.node.cfg.Rules
	if r.Course != nil {
		r.Course.Begun = clockd.Mono()
		rules = r.Course.rules(rules)
	}
	a.state.Decide(&r.Cmd, rules, reply)
	if reply.Event.Kind != 0 && a.node.readOnly.Load() && r.takesRoom() {
		r.err = ErrReadOnly // what changes nothing is answered: a refusal, a key's first answer again
		return nil
	}
	if reply.Event.Kind != 0 {
		if err := a.apply(p, &reply.Event); err != nil {
			return err
		}
		a.state.Settled(reply)
		p.grows = p.grows || r.takesRoom()
	}
	r.View = a.state.View()
	if err := a.watchRules(p, r); err != nil {
		return err
	}
	if r.Course != nil {
		r.Course.Decided = clockd.Mono()
	}
	return nil
}

// roomy returns a pending that has room for any event: p, or, when p is half
// full, another one behind it.
func (a *activation) roomy(p *pending, now int64) *pending {
	if len(p.Data) < journal.WriteMax/2 {
		return p
	}
	a.submit(p, now)
	return a.node.takePending(a)
}

func (a *activation) apply(p *pending, e *deal.Event) error {
	e.Seq = a.state.Seq + 1
	if err := a.state.Apply(e); err != nil {
		return err
	}
	if p.Count == 0 {
		p.Seq = e.Seq
	}
	a.event = e.Append(a.event[:0])
	p.Data = journal.AppendEvent(p.Data, a.event)
	p.Count++
	if e.Kind == deal.OrderPlaced {
		p.placed = appendPlaced(p.placed, e.Seq, e.Placed.User)
	}
	if group, ok := a.state.GroupOf(e); ok {
		p.groups = append(p.groups, groupChange{e.Seq, group})
	}
	return nil
}

// submit sends the batch on its way to the disk. A batch that decided nothing
// new is answered at once if everything it may have seen is on disk already;
// otherwise it queues behind that as an empty write.
func (a *activation) submit(p *pending, now int64) {
	p.view = a.state.View()
	p.status = p.view.Status(now)
	p.soldOut = a.soldOutFilter(p.status)
	p.expiry = a.state.NextExpiry()
	if due := a.state.NextDue(now); due != a.due {
		a.due = due
		a.node.setDue(a.entry.id, due)
	}
	if len(p.saves) > 0 {
		p.snapshot = a.state.AppendSnapshot(nil)
	}
	if p.Count == 0 && a.uncommitted.Load() == 0 {
		a.finish(p, a.settle(p, nil))
		return
	}
	p.Stream, p.Epoch, p.Done = a.entry.id, a.epoch, p
	p.Urgent = !p.grows
	a.uncommitted.Add(1)
	if plantAckEarly {
		a.answerAll(p, nil)
	}
	a.commit(&p.Write, p.before-p.view.Available, p.view.Available)
	if plantReuseEarly {
		a.node.putPending(p)
	}
}

// Committed implements journal.Completer: it runs on the committer's
// goroutine, after the sync.
func (p *pending) Committed(w *journal.Write) {
	a := p.owner
	if w.Err != nil {
		a.fail(w.Err)
	}
	err := a.settle(p, w.Err)
	last := a.uncommitted.Add(-1) == 0 // whoever reads 0 sees what was published, or failed
	a.finish(p, err)
	if !last {
		return
	}
	a.forget()
	if d := a.departs.Load(); d != nil {
		a.depart(d)
	}
}

// settle makes what p brought visible and returns what its requests are told.
// What was only read, from an activation that has failed since, may have been
// ahead of the truth.
func (a *activation) settle(p *pending, err error) error {
	if err == nil && (p.Count > 0 || !a.failed.Load()) {
		a.publish(p)
		return nil
	}
	if a.moved.Load() && (err == nil || errors.Is(err, journal.ErrFenced)) { // nothing of p was kept
		return errAgain
	}
	// What was due may not have reached the disk, whatever this activation has
	// told the wheel since.
	a.node.setDue(a.entry.id, a.node.clock.Now().Wall+wakeRetry)
	if errors.Is(err, journal.ErrReadOnly) {
		return ErrReadOnly
	}
	return ErrUnavailable
}

// finish answers everybody who waited for p and puts p back.
func (a *activation) finish(p *pending, err error) {
	a.answerAll(p, err)
	if len(p.saves) > 0 { // not inside save, whose arguments live on the heap
		a.save(p, err)
	}
	a.node.putPending(p)
}

func (a *activation) answerAll(p *pending, err error) {
	for _, r := range p.requests {
		a.answer(r, err)
	}
	clear(p.requests)
	p.requests = p.requests[:0]
}

// answer hands a request back to its caller, or to the pool when the caller
// has gone.
func (a *activation) answer(r *Request, err error) {
	if err != nil {
		r.err = err
	}
	if r.Course != nil {
		r.Course.Answered = clockd.Mono()
	}
	a.waiting.Leave()
	a.node.leaveShard(a.entry.shard)
	if r.back != nil {
		a.node.answerPeer(r)
		return
	}
	if !r.Complete() {
		a.node.pool.Put(r)
	}
}

// crash ends an activation whose state cannot be trusted: nothing that this
// batch decided is written, and all of it is answered with ErrUnavailable.
func (a *activation) crash(p *pending, rest []any, err error) {
	a.fail(err)
	for _, msg := range rest {
		switch m := msg.(type) {
		case *Request:
			p.requests = append(p.requests, m)
		case save:
			p.saves = append(p.saves, m)
		}
	}
	a.finish(p, ErrUnavailable)
}

// fail takes the activation out of service. It may be called more than once,
// by the actor and by the committer.
func (a *activation) fail(err error) {
	if a.node.cfg.Peers != nil && errors.Is(err, journal.ErrFenced) {
		a.abandon(err)
		return
	}
	if a.failed.Swap(true) {
		return
	}
	n, now := a.node, a.node.clock.Now().Wall
	n.cfg.Logger.Error("deal activation ended", "deal_id", a.entry.id, "epoch", a.epoch, "error", err)
	if errors.Is(err, journal.ErrReadOnly) {
		n.readOnly.Store(true) // the disk's fault: from here on nothing is decided that it refuses
	} else {
		a.entry.fault(now)
	}
	n.setDue(a.entry.id, now+wakeRetry)
	a.end()
}

// end lets go of what waits, which looks for the next activation.
func (a *activation) end() {
	a.soldOut.Store(nil)
	for _, msg := range a.mailbox.close() {
		a.bounce(msg)
	}
	a.free()
}

// bounce returns a message that reached a closed mailbox. A request goes back
// to its caller, who looks for the deal's next activation if that may do better.
func (a *activation) bounce(msg any) {
	switch m := msg.(type) {
	case *Request:
		err := a.refusal()
		if err == nil {
			err = errAgain
		}
		a.answer(m, err)
	case save:
		if a.failed.Load() && !a.moved.Load() {
			m.done(ErrUnavailable)
			return
		}
		m.done(nil) // on its way out of memory, where it writes one if that is worth it
	case wake:
		if !a.failed.Load() { // on its way out of memory: what is due is for the next activation
			a.node.setDue(a.entry.id, a.node.clock.Now().Wall)
		}
	}
}
