package actors

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// Peers are the other nodes. Where they say that a deal belongs is where to begin
// looking for it, and no more: nodes may disagree, and what keeps two of them from
// selling the same unit is the epoch of the deal's stream alone.
type Peers interface {
	// Owner returns whom a deal belongs to, and whether that is this node. "" and
	// false: nobody, now. It neither waits nor allocates.
	Owner(deal []byte) (member string, self bool)
	// Others appends all members but this one to dst.
	Others(dst []string) []string
	// Send carries a message to a member until deadline (clockd.Mono). It copies body
	// before it returns, and tells done exactly once what became of it.
	Send(member string, body []byte, deadline int64, done cluster.Done)
}

var _ cluster.Handler = (*Node)(nil)

// neighbours is what a node with Peers keeps.
type neighbours struct {
	specs     specs
	claims    claims
	followers followers
	changed   chan struct{} // holds a token if the members have changed
	handing   chan struct{} // holds a token while deals are handed over
	settled   atomic.Bool   // settle has looked at the deals as one of the members

	catching sync.Mutex   // held by the one who asks for lists
	caught   atomic.Int64 // rounds of asking that have begun

	asked, served, handedOver atomic.Uint64
}

func (c *neighbours) init() {
	c.specs = newSpecs()
	c.followers.byDeal = make(map[string]*follower)
	c.changed, c.handing = make(chan struct{}, 1), make(chan struct{}, 1)
}

// How long a request waits before it looks again for a deal that is on its way: not at
// all at first, since a deal that has just left memory is there again at once.
const (
	lookAgainFirst = 2 * time.Millisecond
	lookAgainMost  = 50 * time.Millisecond
)

var (
	// errUnknown: the link broke, and nobody here knows whether the other node did it.
	errUnknown = errors.New("actors: the outcome is unknown")
	// errBusy: the other node takes no more now. One that has just stood still says so
	// too, for some milliseconds.
	errBusy = fmt.Errorf("%w at another node", ErrOverloaded)
)

// busyMost is the longest pause after which another node that is busy is asked again.
const busyMost = 16 * time.Millisecond

// callAnywhere is Call for a deal that may be anybody's. It follows the deal until it
// is answered or the deadline has passed.
func (n *Node) callAnywhere(r *Request, deadline int64) error {
	unknown := false // what became of an earlier try
	for wait := time.Duration(0); ; wait = min(max(2*wait, lookAgainFirst), lookAgainMost) {
		if wait > 0 && !n.pause(wait, deadline) {
			break
		}
		r.Reply.Reset()
		err := errAgain
		switch member, self := n.cfg.Peers.Owner(r.Deal); {
		case self:
			err = n.callHere(r, deadline)
		case member != "":
			err = n.callThere(r, member, deadline)
		}
		if err == nil && r.Reply.Code == deal.OrderNotFound {
			err = n.deny(r, deadline)
		}
		switch {
		case err == nil, err == ErrDeadline: //nolint:errorlint // r is gone exactly with that one
			return err
		case errors.Is(err, errUnknown):
			unknown = true
			if !repeatable(r.Cmd.Kind) {
				n.Release(r)
				return ErrDeadline
			}
		case errors.Is(err, errAgain), errors.Is(err, errBusy) && wait < busyMost:
		case unknown: // a refusal of the second try says nothing about the first
			n.Release(r)
			return ErrDeadline
		default:
			return err
		}
	}
	if unknown {
		n.Release(r)
		return ErrDeadline
	}
	return fmt.Errorf("%w: it found no owner in time", ErrUnavailable)
}

// deny returns nil if there is no such order as r's deal has said. An owner that has been
// superseded and does not know it yet has never heard of one that is in the journal; what
// else it refuses or shows was true a moment ago, but that never was. errAgain if it is
// there, ErrUnavailable if the journal does not say.
func (n *Node) deny(r *Request, deadline int64) error {
	ctx, cancel := n.until(n.ctx, deadline)
	defer cancel()
	err := n.loadOrder(ctx, &deal.Spec{ID: string(r.Deal)}, r.Cmd.Order, &Order{})
	switch {
	case err == nil:
		return errAgain
	case errors.Is(err, ErrOrderNotFound):
		return nil
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// repeatable says whether a command that may have been done can be sent again: what was
// done twice is seen to be the same by its key, or by where it leaves the deal.
func repeatable(k deal.CommandKind) bool { return !changesTerms(k) }

// pause waits, unless the deadline passes before.
func (n *Node) pause(wait time.Duration, deadline int64) bool {
	left := time.Duration(deadline - n.clock.Now().Mono)
	return left > wait && n.clock.Sleep(n.ctx, wait) == nil
}

// callHere is one try with this node's activation.
func (n *Node) callHere(r *Request, deadline int64) error {
	a, err := n.sendPatiently(r, deadline)
	if err != nil {
		return err
	}
	again, err := n.receive(r, r.Wait())
	if again {
		n.awaitGone(a, deadline)
		return errAgain
	}
	return err
}

// callThere is one try with another node.
func (n *Node) callThere(r *Request, member string, deadline int64) error {
	if refused := n.refuseTerms(r); refused {
		return nil
	}
	n.cluster.asked.Add(1)
	r.node, r.wire = n, appendCommand(r.wire[:0], r)
	r.Send(deadline)
	n.cfg.Peers.Send(member, r.wire, deadline, (*asking)(r))
	if r.Wait() == own.Abandoned {
		return ErrDeadline
	}
	err := n.peerError(member, r.err)
	r.err = nil
	if err == nil {
		var fields []byte
		if fields, err = answerFields(r.wire); err == nil {
			err = readReply(fields, r, &n.cluster.specs)
		}
	}
	switch {
	case err == ErrDeadline: //nolint:errorlint // as in receive
		n.Release(r)
	case errors.Is(err, errMessage), errors.Is(err, deal.ErrMalformed):
		n.cfg.Logger.Error("a node's answer cannot be read", "member", member, "error", err)
		return errUnknown
	}
	return err
}

// refuseTerms answers what no deal could accept, and no message could carry.
func (n *Node) refuseTerms(r *Request) bool {
	var faults []deal.FieldError
	switch r.Cmd.Kind {
	case deal.Create:
		faults = r.Cmd.Spec.Validate()
	case deal.Change:
		faults = r.Cmd.Patch.Validate()
	default:
	}
	if len(faults) > 0 {
		r.Reply.Code, r.Reply.Detail = deal.DealInvalid, faults[0].Error()
	}
	return len(faults) > 0
}

// peerError says what a broken exchange is to the caller.
func (n *Node) peerError(member string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrBusy):
		return errBusy
	case errors.Is(err, cluster.ErrExpired):
		return ErrDeadline
	default:
		n.cfg.Logger.Debug("a request broke off", "member", member, "error", err)
		return errUnknown
	}
}

// asking is a request that another node has.
type asking Request

// Replied implements cluster.Done.
func (q *asking) Replied(body []byte, err error) {
	r := (*Request)(q)
	n := r.node
	r.wire, r.err = append(r.wire[:0], body...), err
	if !r.Complete() {
		n.pool.Put(r)
	}
}

// Serve implements cluster.Handler.
func (n *Node) Serve(_ string, body []byte, deadline int64, reply func([]byte)) {
	if len(body) < messageRoom || body[1] == 0 {
		reply(appendOutcome(nil, outcomeMalformed))
		return
	}
	n.cluster.served.Add(1)
	o, fields := op(body[0]), body[messageRoom:]
	if o == opCommand {
		n.serveCommand(fields, deadline, reply)
		return
	}
	serve := services[o]
	if serve == nil {
		reply(appendOutcome(nil, outcomeUnsupported))
		return
	}
	n.background(func() {
		ctx, cancel := n.until(n.ctx, deadline)
		defer cancel()
		answer, err := n.serve(ctx, serve, fields)
		if err != nil {
			answer = appendOutcome(nil, outcomeOf(err))
		}
		reply(answer)
	})
}

// service answers a message of one kind; it may wait for as long as who asks does.
type service func(n *Node, ctx context.Context, fields []byte) ([]byte, error)

// serve calls a service. A panic is the end of this question, and not of the node: who
// asked may ask another one.
func (n *Node) serve(ctx context.Context, s service, fields []byte) (answer []byte, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			n.tellPanic(fault)
			err = ErrUnavailable
		}
	}()
	return s(n, ctx, fields)
}

func (n *Node) tellPanic(fault any) {
	n.cfg.Logger.Error("a message of another node panicked", "panic", fault, "stack", string(debug.Stack()))
}

// services answer everything but commands.
var services = [256]service{
	opView: (*Node).serveView, opWatch: (*Node).serveWatch, opRelease: (*Node).serveRelease, opWake: (*Node).serveWake,
	opCatchUp: (*Node).serveCatchUp, opName: (*Node).serveName, opStatus: (*Node).serveStatus, opDrain: (*Node).serveDrain,
}

// serveCommand takes a command of another node to its deal, if that is here. It is
// answered by answerPeer.
func (n *Node) serveCommand(fields []byte, deadline int64, reply func([]byte)) {
	class := own.ClassNew
	if len(fields) > 0 && finishes(deal.CommandKind(fields[0])) {
		class = own.ClassPriority
	}
	r, ok := n.pool.Get(class)
	if !ok {
		reply(appendOutcome(nil, outcomeOverloaded))
		return
	}
	r.back = reply
	defer n.giveUp(r)
	if err := readCommand(fields, r); err != nil {
		n.respond(r, outcomeMalformed)
		return
	}
	if _, self := n.cfg.Peers.Owner(r.Deal); !self {
		n.respond(r, outcomeMoved)
		return
	}
	r.Cmd.At = n.clock.Now().Wall
	if r.Cmd.Kind == deal.Place {
		if spec := n.SoldOut(r.Deal, r.Cmd.User, r.Cmd.Key); spec != nil {
			r.Reply.Code, r.View.Spec = deal.SoldOut, spec
			n.respond(r, outcomeAnswered)
			return
		}
	}
	if changesTerms(r.Cmd.Kind) {
		n.background(func() { n.takeUp(r, deadline) })
		return
	}
	switch _, err := n.send(r, deadline); {
	case err == nil:
	case errors.Is(err, ErrDealNotFound):
		n.background(func() { n.takeUp(r, deadline) })
	default:
		n.respond(r, outcomeOf(err))
	}
}

// giveUp is deferred by whoever has a command of another node until it is sent: after a
// panic it answers that nothing was begun, and frees r.
func (n *Node) giveUp(r *Request) {
	if fault := recover(); fault != nil {
		n.tellPanic(fault)
		n.respond(r, outcomeUnavailable)
	}
}

// takeUp is the end of serveCommand for what may have to wait for the store.
func (n *Node) takeUp(r *Request, deadline int64) {
	defer n.giveUp(r)
	if _, err := n.sendPatiently(r, deadline); err != nil {
		n.respond(r, outcomeOf(err))
	}
}

// sendPatiently is send that gets to know what other nodes have stored a moment ago.
func (n *Node) sendPatiently(r *Request, deadline int64) (*activation, error) {
	if changesTerms(r.Cmd.Kind) {
		n.prepare(r, deadline)
	}
	a, err := n.send(r, deadline)
	if errors.Is(err, ErrDealNotFound) && r.Cmd.Kind != deal.Create {
		ctx, cancel := n.until(n.ctx, deadline)
		defer cancel()
		if err = n.discover(ctx, string(r.Deal)); err == nil {
			a, err = n.send(r, deadline)
		}
	}
	return a, err
}

func changesTerms(k deal.CommandKind) bool { return k == deal.Create || k == deal.Change }

// prepare makes the rules known that a deal is about to use.
func (n *Node) prepare(r *Request, deadline int64) {
	ctx, cancel := n.until(n.ctx, deadline)
	defer cancel()
	switch {
	case n.cfg.Prepare == nil:
	case r.Cmd.Kind == deal.Create:
		n.cfg.Prepare(ctx, r.Cmd.Spec.Merchant, r.Cmd.Spec.Rules)
	case r.Cmd.Patch.Rules != nil:
		if v, err := n.viewHere(ctx, string(r.Deal)); err == nil {
			n.cfg.Prepare(ctx, v.Spec.Merchant, *r.Cmd.Patch.Rules)
		}
	}
}

// finishes says whether a command ends what was begun: it has room kept for it.
func finishes(k deal.CommandKind) bool {
	switch k {
	case deal.Confirm, deal.Cancel, deal.Refund, deal.Pause, deal.Resume, deal.Close:
		return true
	default:
		return false
	}
}

// answerPeer ends a command of another node: r is sent, and done.
func (n *Node) answerPeer(r *Request) {
	r.Complete()
	r.TryWait() // nobody else does
	n.respond(r, outcomeOf(r.err))
}

// respond sends an answer back and frees r.
func (n *Node) respond(r *Request, o outcome) {
	if o == outcomeAnswered {
		r.Body = appendReply(r.Body[:0], r)
	} else {
		r.Body = appendOutcome(r.Body[:0], o)
	}
	r.back(r.Body)
	n.pool.Put(r)
}

// said is what a member answered.
type said struct {
	member string
	fields []byte
	err    error
}

// question is a message that somebody waits for.
type question struct {
	node    *Node
	member  string
	answers chan<- said
}

// Replied implements cluster.Done.
func (q *question) Replied(body []byte, err error) {
	a := said{member: q.member, err: q.node.peerError(q.member, err)}
	if a.err == nil {
		a.fields, a.err = answerFields(append([]byte(nil), body...))
	}
	q.answers <- a
}

// ask sends a message to a member and returns the fields of its answer. It waits no
// longer than wait.
func (n *Node) ask(member string, body []byte, wait time.Duration) ([]byte, error) {
	a := n.askAll([]string{member}, body, wait)
	if len(a) == 0 {
		return nil, ErrDeadline
	}
	return a[0].fields, a[0].err
}

// askAll sends a message to members and returns what they have answered after wait.
func (n *Node) askAll(members []string, body []byte, wait time.Duration) (got []said) {
	answers := make(chan said, len(members))
	deadline := n.clock.Now().Mono + int64(wait)
	for _, m := range members {
		n.cfg.Peers.Send(m, body, deadline, &question{n, m, answers})
	}
	late := make(chan struct{})
	defer n.clock.AfterFunc(wait, func() { close(late) })()
	for range members {
		select {
		case a := <-answers:
			got = append(got, a)
		case <-late:
			return got
		case <-n.ctx.Done():
			return got
		}
	}
	return got
}

// atOwner runs here if a deal is this node's, and there if it is another's, and again
// while it moves.
func (n *Node) atOwner(ctx context.Context, dealID string, here func() error, there func(member string, wait time.Duration) error) error {
	deadline := n.deadlineOf(ctx)
	for wait := time.Duration(0); ; wait = min(max(2*wait, lookAgainFirst), lookAgainMost) {
		if wait > 0 && !n.pause(wait, deadline) {
			return fmt.Errorf("%w: it found no owner in time", ErrUnavailable)
		}
		err := errAgain
		switch member, self := n.cfg.Peers.Owner([]byte(dealID)); {
		case self:
			err = here()
		case member != "":
			err = there(member, time.Duration(deadline-n.clock.Now().Mono))
		}
		if !errors.Is(err, errAgain) && !errors.Is(err, errUnknown) {
			return err
		}
	}
}

// viewAnywhere is Deal for a deal that may be anybody's.
func (n *Node) viewAnywhere(ctx context.Context, id string) (v deal.View, err error) {
	ctx, cancel := n.Patience(ctx)
	defer cancel()
	err = n.atOwner(ctx, id, func() (err error) {
		v, err = n.viewHere(ctx, id)
		return err
	}, func(member string, wait time.Duration) error {
		fields, err := n.ask(member, appendText(appendOp(nil, opView), id), wait)
		if err != nil {
			return err
		}
		return readView(&fieldReader{b: fields}, &v, []byte(id), &n.cluster.specs)
	})
	return v, err
}

func (n *Node) serveView(ctx context.Context, fields []byte) ([]byte, error) {
	f := fieldReader{b: fields}
	id := f.id()
	if err := f.end(); err != nil {
		return appendOutcome(nil, outcomeMalformed), nil
	}
	if _, self := n.cfg.Peers.Owner(id); !self {
		return nil, errAgain
	}
	v, err := n.viewHere(ctx, string(id))
	if err != nil {
		return nil, err
	}
	return appendView(appendOutcome(nil, outcomeAnswered), &v), nil
}

// nameWait bounds how long the others are asked for a name.
const nameWait = 500 * time.Millisecond

// idAnywhere is DealID for a deal that may be anybody's.
func (n *Node) idAnywhere(ctx context.Context, name []byte) (string, error) {
	ctx, cancel := n.Patience(ctx)
	defer cancel()
	err := n.discover(ctx, string(name))
	if err == nil {
		return string(name), nil
	}
	if !errors.Is(err, ErrDealNotFound) || len(name) < deal.MaxNameLen {
		return "", err
	}
	others := n.cfg.Peers.Others(nil)
	silent := len(others)
	for _, a := range n.askAll(others, appendText(appendOp(nil, opName), name), min(nameWait, time.Duration(n.deadlineOf(ctx)-n.clock.Now().Mono))) {
		if a.err != nil {
			continue
		}
		silent--
		f := fieldReader{b: a.fields}
		if id := f.text(deal.MaxIDLen); len(id) > 0 {
			n.directory.add(string(id))
			return string(id), nil
		}
	}
	if silent > 0 { // one of them may know
		err = fmt.Errorf("%w: %d nodes do not say whether they know the deal", ErrUnavailable, silent)
	}
	return "", err
}

func (n *Node) serveName(_ context.Context, fields []byte) ([]byte, error) {
	f := fieldReader{b: fields}
	id := ""
	if e := n.directory.findNamed(f.text(deal.MaxIDLen)); e != nil {
		id = e.id
	}
	return appendText(appendOutcome(nil, outcomeAnswered), id), nil
}

// catchUpWait bounds how long a list waits for what other nodes have not derived yet.
const catchUpWait = 200 * time.Millisecond

// catchUpAnywhere brings the lists to what was committed on any node when it began.
// Who asks while others do waits for the round after theirs, together with all who do.
func (n *Node) catchUpAnywhere() {
	begun := n.cluster.caught.Load()
	n.cluster.catching.Lock()
	defer n.cluster.catching.Unlock()
	if n.cluster.caught.Load() > begun {
		return
	}
	n.cluster.caught.Add(1)
	n.askAll(n.cfg.Peers.Others(nil), appendOp(nil, opCatchUp), catchUpWait)
}

func (n *Node) serveCatchUp(context.Context, []byte) ([]byte, error) {
	ctx, cancel := n.Patience(n.ctx) // what it brings about is there for the next who asks
	defer cancel()
	return appendOutcome(nil, outcomeAnswered), n.views.catchUp(ctx)
}
