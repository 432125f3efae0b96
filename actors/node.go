package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// Config tunes a Node. Zero values take the defaults.
type Config struct {
	// Rules runs the deals' promotion rules. Required.
	Rules deal.Rules
	// Logger takes what operators should know. Required.
	Logger *slog.Logger
	// Fatal is told when the journal can no longer be trusted; it should end
	// the process. Required.
	Fatal func(error)
	// Observe is told of each group that was made durable, on the
	// committer's goroutine. Optional.
	Observe func(journal.Group)
	// Listed is told of each deal with new events, after they are in the lists: at
	// most about once a second for each, and again after a restart for those that
	// were not in the lists before it. It must not block. Optional.
	Listed func(deal.View)
	// Recovering is told how many deals have been replayed, of how many that
	// must be before the first order. Optional.
	Recovering func(done, deals int)

	// InFlightMax bounds the requests that are under way at once, 16 to
	// own.SeatsMax (1024). A fifth of it is kept for requests that finish what
	// was begun.
	InFlightMax int
	// DealInFlightMax bounds those of a single deal (512).
	DealInFlightMax int
	// ActiveMax bounds the deals that are in memory at once (65,536).
	ActiveMax int
	// RequestTimeout is how long a caller waits for an answer (5 s).
	RequestTimeout time.Duration
	// PassivateAfter is how long a deal stays in memory unused (5 min).
	PassivateAfter time.Duration
	// RuleFaultsMax is for how many users a rule may fault within RuleFaultsWindow of
	// a deal's orders before it is switched off for that deal (20 in 10 s).
	RuleFaultsMax    int
	RuleFaultsWindow time.Duration
	// Workers is the number of goroutines that run actors (GOMAXPROCS).
	Workers int

	// Guard looks at each write before the journal does; nil: nobody does.
	Guard Guard

	// Peers are the other nodes; nil: there are none, and every deal is this node's.
	// With them, Tables and streams are shared by all.
	Peers Peers
	// Member tells the clock marks of nodes apart that share tables: the same after a
	// restart. Required with Peers.
	Member string
	// Prepare makes rules known that a deal is about to use, in case another node has
	// stored them a moment ago. It may wait for the store. Optional, with Peers only.
	Prepare func(ctx context.Context, merchant string, rules []string)
	// Leave is called when another node asks this one to leave and end. It must not
	// block. Optional.
	Leave func()

	// Driver runs the node's work instead of goroutines of its own. Optional.
	Driver Driver
	// System is where the node's actors live, from NewSystem; nil makes one.
	// Nodes that follow one another in a process may share it.
	System *actor.ActorSystem
}

// Driver decides where and when a node works, so that a simulator can run all
// of it on one goroutine. What it is handed must be run once, in any order; a
// node whose driver stops is a process that was killed, and is not closed. Its
// caller commits with Node.CommitGroup, and asks with Post and Poll: whatever
// else waits for an answer would wait for ever.
type Driver interface {
	actor.Dispatcher // turns of actors
	// Go runs work that may wait for the journal, but for nothing else.
	Go(work func())
}

func (c *Config) validate() error {
	if c.Rules == nil || c.Logger == nil || c.Fatal == nil {
		return errors.New("actors: Rules, Logger and Fatal are required")
	}
	if c.Peers != nil && (c.Member == "" || c.Driver != nil) {
		return errors.New("actors: Peers need a Member, and no Driver")
	}
	if c.Guard != nil && c.Driver != nil {
		return errors.New("actors: a Guard works on goroutines of its own, which a Driver has not")
	}
	if c.Peers == nil {
		c.Prepare = nil
	}
	if c.Leave == nil {
		c.Leave = func() {}
	}
	setDefault(&c.InFlightMax, 1024)
	setDefault(&c.DealInFlightMax, 512)
	setDefault(&c.ActiveMax, 1<<16)
	setDefault(&c.RequestTimeout, 5*time.Second)
	setDefault(&c.PassivateAfter, 5*time.Minute)
	setDefault(&c.RuleFaultsMax, 20)
	setDefault(&c.RuleFaultsWindow, 10*time.Second)
	setDefault(&c.Workers, runtime.GOMAXPROCS(0))
	if c.InFlightMax < 16 || c.InFlightMax > own.SeatsMax {
		return fmt.Errorf("actors: InFlightMax %d is not in 16 … %d", c.InFlightMax, own.SeatsMax)
	}
	if c.DealInFlightMax < 1 || c.ActiveMax < 1 || c.RequestTimeout < 0 || c.PassivateAfter < 0 ||
		c.RuleFaultsMax < 1 || c.RuleFaultsWindow < 0 || c.Workers < 1 {
		return errors.New("actors: a bound is negative")
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Node runs the deals of one process. All methods may be called concurrently.
type Node struct {
	cfg        Config
	store      journal.Store
	clock      *clockd.Clock
	pool       *own.Pool[Request]
	committer  *journal.Committer
	workers    *workers         // nil if a Driver stands in for them
	dispatcher actor.Dispatcher // of the deals
	upkeep     actor.Dispatcher // of the rest, which must not wait behind the deals
	system     *actor.ActorSystem
	ticks      *actor.PID // the clock actor
	janitor    *actor.PID
	wheel      *clockd.Wheel
	directory  directory
	active     activeSet
	views      lists
	spare      pendings
	turns      turns      // beside spare, which each turn writes to as well
	cluster    neighbours // unused without Peers

	ctx       context.Context // of everything that the node does in the background
	cancel    context.CancelFunc
	errands   errands
	loadSlots []chan struct{} // by shard
	crowds    []admit.Gate    // likewise: the requests that wait; nil if there is one
	replayed  atomic.Uint64
	recovery  Recovery
	readOnly  atomic.Bool   // as the store said last
	evicted   atomic.Uint64 // tick of the last eviction
	evicting  chore
	rulesOff  atomic.Uint64
	leftOut   atomic.Uint64 // orders, from lists
	stage     atomic.Uint32 // serving, draining or closed
}

// Stages of a node.
const (
	serving uint32 = iota
	draining
	closed
)

// Recovery is what the start of a node found.
type Recovery struct {
	Deals  int
	Events uint64 // replayed
	Took   time.Duration
}

// NewNode recovers the deals in the store and begins to serve them. The store
// and the clock are the caller's to close, after the node.
func NewNode(ctx context.Context, store journal.Store, clock *clockd.Clock, cfg Config) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	begin := clockd.Mono()
	pool, err := own.New(own.Config{Seats: cfg.InFlightMax, Reserve: cfg.InFlightMax / 5}, requestCell, resetRequest)
	if err != nil {
		return nil, err
	}
	committer, err := journal.NewCommitter(store, journal.Config{Now: clockd.Mono, Observe: cfg.Observe, Fatal: cfg.Fatal})
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, store: store, clock: clock, pool: pool, committer: committer,
		system:    cfg.System,
		wheel:     clockd.NewWheel(),
		directory: newDirectory(),
		active:    activeSet{most: cfg.ActiveMax},
		spare:     pendings{most: cfg.InFlightMax},
	}
	n.share(store)
	n.errands.none.L = &n.errands.mu
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.cluster.init()
	if n.system == nil {
		n.system = NewSystem(cfg.Logger)
	}
	n.startWork()
	if err := n.recover(ctx); err != nil {
		n.Close()
		return nil, err
	}
	n.recovery = Recovery{Deals: n.directory.deals.Size(), Events: n.replayed.Load(), Took: time.Duration(clockd.Mono() - begin)}
	n.startJanitor()
	if cfg.Peers != nil {
		n.errands.begin(n.settle)
	}
	return n, nil
}

// startWork begins to run what the node has to do.
func (n *Node) startWork() {
	if n.cfg.Driver != nil {
		n.dispatcher, n.upkeep = n.cfg.Driver, n.cfg.Driver
		return
	}
	n.workers = newWorkers(n.cfg.Workers)
	n.dispatcher, n.upkeep = n.workers, actor.NewDefaultDispatcher(upkeepThroughput)
	n.committer.Start()
	if n.cfg.Guard != nil {
		n.cfg.Guard.Start(n.committer.Submit)
	}
}

// upkeepThroughput is how many ticks the janitor may take in one go.
const upkeepThroughput = 16

// background runs work that may wait for the journal, outside the actors' turns.
func (n *Node) background(work func()) {
	if n.cfg.Driver != nil {
		n.cfg.Driver.Go(work)
		return
	}
	n.errands.begin(work)
}

// CommitGroup makes what has gathered durable, answers who waits for it and
// returns the number of writes. It is for the caller of a node with a Driver.
func (n *Node) CommitGroup() int { return n.committer.Step() }

// warnings keeps back what Proto.Actor says of its ordinary life.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

// NewSystem configures Proto.Actor. Its dead letters are not news here:
// a closed mailbox answers for what reaches it, and a message that finds no
// mailbox at all is a wake-up that came too late.
func NewSystem(logger *slog.Logger) *actor.ActorSystem {
	return actor.NewActorSystemWithConfig(actor.Configure(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(warnings{logger.Handler()}) }),
		actor.WithDeadLetterThrottleInterval(time.Millisecond),
		actor.WithDeadLetterThrottleCount(1),
		actor.WithDeadLetterRequestLogging(false),
	))
}

// Recovery returns what the start of the node found.
func (n *Node) Recovery() Recovery { return n.recovery }

// Now returns the clock's current snapshot.
func (n *Node) Now() clockd.Snapshot { return n.clock.Now() }

// Acquire takes a free request, stamped with the present. own.ClassPriority is
// for what finishes something: Confirm, Cancel, Refund, and the merchant's
// brake. ErrOverloaded, ErrDraining.
func (n *Node) Acquire(class own.Class) (*Request, error) {
	if n.stage.Load() != serving {
		return nil, ErrDraining
	}
	return n.Admit(class)
}

// Admit is Acquire for what was begun before a drain: it may have waited since, for a
// body or for a deal on its way, and is finished. ErrOverloaded, and ErrDraining once the
// node is closed.
func (n *Node) Admit(class own.Class) (*Request, error) {
	if n.stage.Load() == closed {
		return nil, ErrDraining
	}
	r, ok := n.pool.Get(class)
	if !ok {
		return nil, ErrOverloaded
	}
	r.Cmd.At = n.clock.Now().Wall
	return r, nil
}

// Release puts a request back that the caller owns.
func (n *Node) Release(r *Request) { n.pool.Put(r) }

// Call brings r to its deal and waits until the answer is durable. On nil the
// decision is in r.Reply. After ErrDeadline r is no longer the caller's; after
// any other result it is, and must be released.
func (n *Node) Call(r *Request) error { return n.call(r, n.deadline()) }

// CallWithin is Call for no longer than ctx lasts.
func (n *Node) CallWithin(ctx context.Context, r *Request) error { return n.call(r, n.deadlineOf(ctx)) }

func (n *Node) call(r *Request, deadline int64) error {
	if n.cfg.Peers != nil {
		return n.callAnywhere(r, deadline)
	}
	for {
		a, err := n.send(r, deadline)
		if err != nil {
			return err
		}
		if again, err := n.receive(r, r.Wait()); !again {
			return err
		}
		if !n.awaitGone(a, deadline) {
			return fmt.Errorf("%w: it did not leave memory in time", ErrUnavailable)
		}
	}
}

// awaitGone waits until an activation has left, or the deadline has passed.
func (n *Node) awaitGone(a *activation, deadline int64) bool {
	late := make(chan struct{})
	defer n.clock.AfterFunc(time.Duration(deadline-n.clock.Now().Mono), func() { close(late) })()
	select {
	case <-a.gone:
		return true
	case <-late:
		return false
	}
}

// Post is the first half of Call, for a caller that must not block: it sends r
// and returns. After nil, r is the caller's again once Poll says so.
func (n *Node) Post(r *Request) error {
	_, err := n.send(r, n.deadline())
	return err
}

// ErrLeaving means that a request has met its deal on its way out of memory.
var ErrLeaving = errors.New("actors: the deal is leaving memory")

// Poll is the second half: whether r has been answered, and if so, as Call. After ErrLeaving
// CallAgain has the answer.
func (n *Node) Poll(r *Request) (answered bool, err error) {
	outcome, ended := r.TryWait()
	if !ended {
		return false, nil
	}
	again, err := n.receive(r, outcome)
	if again {
		err = ErrLeaving
	}
	return true, err
}

// CallAgain is Call behind a Post, within the same deadline.
func (n *Node) CallAgain(r *Request) error {
	r.WakeBy(nil)
	return n.call(r, r.Deadline())
}

// Gather begins a number of Posts: the deals take their turns when Run is called, by the same
// caller, on its goroutine, and what they write is committed together.
func (n *Node) Gather() {
	if n.workers != nil {
		n.workers.Gather()
		n.committer.Hold()
	}
}

// Run ends what Gather has begun.
func (n *Node) Run() {
	if n.workers != nil {
		n.workers.Run()
		n.committer.Release()
	}
}

func (n *Node) deadline() int64 { return n.clock.Now().Mono + int64(n.cfg.RequestTimeout) }

// Patience bounds what is done for one request that needs several answers: each is given
// the time that those before it have left. A simulation knows no other time than its own.
func (n *Node) Patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return n.within(ctx, n.cfg.RequestTimeout)
}

func (n *Node) within(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if n.cfg.Driver != nil {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, most)
}

// part is Patience for what a request can do without: it leaves half of the time.
func (n *Node) part(ctx context.Context) (context.Context, context.CancelFunc) {
	return n.within(ctx, time.Duration(n.deadlineOf(ctx)-n.clock.Now().Mono)/2)
}

// until bounds what is done for a request by its deadline.
func (n *Node) until(ctx context.Context, deadline int64) (context.Context, context.CancelFunc) {
	return n.within(ctx, time.Duration(deadline-n.clock.Now().Mono))
}

// deadlineOf is the deadline of a request that is begun now and is to be over with ctx.
func (n *Node) deadlineOf(ctx context.Context) int64 {
	most := n.cfg.RequestTimeout
	if left, ends := clockd.Left(ctx); ends && n.cfg.Driver == nil {
		most = min(most, left)
	}
	return n.clock.Now().Mono + int64(most)
}

// send hands r to its deal's activation.
func (n *Node) send(r *Request, deadline int64) (*activation, error) {
	a, err := n.owner(r)
	if err != nil {
		return nil, err
	}
	if !a.waiting.Enter(room(r, n.cfg.DealInFlightMax)) {
		return nil, ErrOverloaded
	}
	if !n.enterShard(r, a.entry.shard) {
		a.waiting.Leave()
		return nil, errShardCrowded
	}
	r.Send(deadline)
	a.mailbox.PostUserMessage(r)
	return a, nil
}

// receive takes r back, unless it was abandoned. again: it reached an activation
// on its way out, and looks for the next one.
func (n *Node) receive(r *Request, outcome own.Outcome) (again bool, err error) {
	if outcome == own.Abandoned {
		return false, ErrDeadline
	}
	switch r.err {
	case errAgain: //nolint:errorlint // set by this package, never wrapped
		r.err = nil
		return true, nil
	case ErrDeadline:
		n.Release(r)
		return false, ErrDeadline
	}
	return false, r.err
}

// room is how many requests of at most so many may be in flight for r to join them:
// a fifth is kept for those that finish what was begun.
func room(r *Request, most int) int {
	if finishes(r.Cmd.Kind) {
		return most
	}
	return most - most/5
}

// owner returns the activation of the request's deal.
func (n *Node) owner(r *Request) (*activation, error) {
	for creates := r.Cmd.Kind == deal.Create; ; {
		e := n.directory.find(r.Deal)
		isNew := e == nil
		if isNew {
			if !creates {
				return nil, ErrDealNotFound
			}
			if n.readOnly.Load() {
				return nil, ErrReadOnly
			}
			if e = n.directory.add(string(r.Deal)); e == nil {
				return nil, ErrDealExists
			}
		}
		a, err := n.activate(e)
		if creates && errors.Is(err, ErrDealNotFound) {
			continue // a create that failed has just taken its entry along
		}
		if isNew && err != nil {
			n.directory.remove(e)
		}
		return a, err
	}
}

// setDue tells the wheel when a deal next needs a turn; 0 = never.
func (n *Node) setDue(id string, at int64) {
	if at == 0 {
		n.wheel.Remove(id)
		return
	}
	n.wheel.Set(id, at)
}

func (n *Node) takePending(a *activation) *pending {
	p := n.spare.take()
	p.owner, p.before = a, a.state.Available
	return p
}

func (n *Node) putPending(p *pending) {
	clear(p.requests)
	if cap(p.Data) > pendingKept {
		p.Data, p.groups = nil, nil // there is a group for each event, at most
	}
	clear(p.saves)
	*p = pending{
		requests: p.requests[:0], groups: p.groups[:0], placed: p.placed[:0], saves: p.saves[:0],
		Write: journal.Write{Data: p.Data[:0]},
	}
	n.spare.put(p)
}

// turns counts those of all deals, and how long the first message of each had waited.
type turns struct {
	taken  atomic.Uint64
	waited atomic.Int64 // ns
}

func (t *turns) add(waited int64) {
	t.taken.Add(1)
	t.waited.Add(waited)
}

// pendings keeps what waits to be used again, at most so many. The last that came goes
// first: its memory is still in the processor's cache.
type pendings struct {
	most int
	mu   sync.Mutex
	free []*pending
}

func (s *pendings) take() *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.free) - 1
	if last < 0 {
		return new(pending)
	}
	p := s.free[last]
	s.free = s.free[:last]
	return p
}

func (s *pendings) put(p *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < s.most {
		s.free = append(s.free, p)
	}
}

// Drain ends the intake and waits, until ctx ends, for what is in flight. Then
// every active deal writes a snapshot, so that the next start replays little. ErrInFlight;
// any other error is of a snapshot or a list, and costs the next start time.
func (n *Node) Drain(ctx context.Context) error {
	n.stage.CompareAndSwap(serving, draining)
	for n.pool.Stats().InUse > 0 {
		if n.clock.Sleep(ctx, 5*time.Millisecond) != nil {
			return fmt.Errorf("%w: %d of them: %w", ErrInFlight, n.pool.Stats().InUse, context.Cause(ctx))
		}
	}
	return n.Snapshot(ctx)
}

// Draining says whether Drain has begun.
func (n *Node) Draining() bool { return n.stage.Load() != serving }

// Close ends the node. Requests in flight are answered with ErrUnavailable or
// what the journal still grants them; call Drain first.
func (n *Node) Close() {
	n.stage.Store(closed)
	n.stopJanitor()
	if n.cfg.Guard != nil {
		n.cfg.Guard.Close()
	}
	n.committer.Close()
	n.cancel()
	n.errands.wait()
	for _, a := range n.active.list(func(*activation) bool { return true }) {
		a.close()
	}
	n.errands.wait()
	n.lastMark()
	if n.cfg.System == nil {
		n.system.Shutdown()
	}
	if n.workers != nil {
		n.workers.close()
	}
	n.errands.wait() // what the last turns began
}
