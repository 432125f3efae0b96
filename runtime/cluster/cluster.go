package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	proto "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster/mtls"
)

var (
	// ErrUnknown says that the link broke or the member went away after a request was
	// taken: it may have been served or not.
	ErrUnknown = errors.New("cluster: the outcome is unknown")
	// ErrBusy says that too much is in flight to that member: nothing was sent.
	ErrBusy = errors.New("cluster: too many requests in flight to that member")
	// ErrExpired says that the deadline passed: the request may have been served or not.
	ErrExpired = errors.New("cluster: the deadline passed")
	// ErrLost is a Registry's word that the lease is over.
	ErrLost = errors.New("cluster: the lease is lost")
)

// Handler is this node, as the other members see it.
type Handler interface {
	// Serve answers a request of another member, whose id is from. It must not block.
	// reply is called exactly once, on any goroutine; until then body is the handler's
	// to read. deadline is a clockd.Mono of this process.
	Serve(from string, body []byte, deadline int64, reply func(body []byte))
	// Changed is told of each new topology, and Lost that the lease is gone: what this
	// node owned it owns no more, and must end unsaved. Both are called in order on one
	// goroutine and must not block; the topology without this node is current before
	// Lost is called, and Changed with it follows.
	Changed(t *Topology)
	Lost()
}

// Done is told what became of a request, once, on any goroutine. body is valid during
// the call only. err is nil, ErrUnknown, ErrBusy or ErrExpired.
type Done interface {
	Replied(body []byte, err error)
}

// Registry is where the members are written down. Its methods return when ctx ends.
// Join, Update, Renew and Leave are called by one goroutine at a time, Watch beside
// them.
type Registry interface {
	// Join writes a member down for ttl.
	Join(ctx context.Context, m Member, ttl time.Duration) error
	// Update replaces the record of the member that joined last.
	Update(ctx context.Context, m Member) error
	// Renew makes the lease last for ttl from now. ErrLost says that it is over or that
	// the record is gone; any other error says nothing about it.
	Renew(ctx context.Context) error
	// Leave removes the record, if it is there.
	Leave(ctx context.Context) error
	// Watch tells of all the members, in any order, as they are now and then whenever
	// that changes, until ctx ends or it fails. It is called anew after it failed.
	Watch(ctx context.Context, changed func([]Member)) error
	// Close gives back what the registry holds.
	Close() error
}

// Config is what a node of a cluster is told. Registry, Clock and Advertise are
// required.
type Config struct {
	// Registry is where the members find each other. The cluster closes it.
	Registry Registry
	// Clock shows the time that is compared with the other members'. It must tick.
	Clock *clockd.Clock
	// Advertise is the host:port by which the other members reach this one. No two have
	// the same: a node that joins under the address of another takes its place.
	Advertise string
	// Listen is the host:port to listen on. Default Advertise.
	Listen string
	// Version, HTTP and Admin are shown in this node's record.
	Version, HTTP, Admin string
	// TTL is how long a member that is not heard of remains one: 1 s to 1 min. Default
	// TTLDefault.
	TTL time.Duration
	// TLS is how nodes know each other. Without it Advertise and Listen are on loopback.
	TLS *mtls.Credentials
	// InFlight is how many requests may be in flight to one member. Default
	// InFlightDefault.
	InFlight int
	// Logger may be nil.
	Logger *slog.Logger
}

// TTLDefault is how long a lease lasts unless the configuration says otherwise.
const TTLDefault = 3 * time.Second

func (c *Config) validate() error {
	c.Listen = cmp.Or(c.Listen, c.Advertise)
	c.TTL = cmp.Or(c.TTL, TTLDefault)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Registry == nil || c.Clock == nil || c.Advertise == "":
		return errors.New("cluster: Registry, Clock and Advertise are required")
	case c.TTL < time.Second || c.TTL > time.Minute:
		return fmt.Errorf("cluster: TTL is %v, it must be 1 s to 1 min", c.TTL)
	}
	return c.validateLinks()
}

// Cluster is this node's part in the cluster. Its methods may be called concurrently.
type Cluster struct {
	cfg     Config
	system  *actor.ActorSystem
	proto   *proto.Cluster // Proto.Actor's view of the same
	links   transport
	handler Handler

	self     atomic.Pointer[Member] // as it was last written down, or is about to be
	born     int64                  // run's: Unix ms in self's id
	leaving  atomic.Bool            // self is to be marked so
	marked   chan struct{}          // cap 1: leaving has changed
	unmarked chan error             // cap 1: why that cannot be written down
	away     atomic.Bool            // the registry has not answered the last time
	leaseEnd atomic.Int64           // Mono until which the lease surely lasts
	beat     atomic.Int64           // Mono at which follow was last seen awake
	topology atomic.Pointer[Topology]

	stop    context.CancelFunc // of run
	ended   chan struct{}      // closed when run has
	closing sync.Once

	mu      sync.Mutex
	next    chan struct{} // guarded by mu: closed with the next topology
	problem error         // guarded by mu: why the last attempt to join failed
}

// transport carries requests between the members.
type transport interface {
	// start listens and serves h from now on. It sets up Proto.Actor's remote, and ends
	// when close is called.
	start(h Handler) (*remote.Remote, error)
	// changed is told of each topology before the Handler is: what is in flight to a
	// member that is gone ends as ErrUnknown, what comes for another id than this
	// node's is not served.
	changed(t *Topology)
	// send is Cluster.Send.
	send(member string, body []byte, deadline int64, done Done)
	// ping asks who answers at an address, whoever that is.
	ping(ctx context.Context, address string) (Member, error)
	// skew is Cluster.Skew.
	skew() map[string]time.Duration
	// all is Cluster.Links.
	all() []Link
	close() error
}

// New makes a node that is no member yet.
func New(cfg Config) (*Cluster, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, marked: make(chan struct{}, 1), unmarked: make(chan error, 1), next: make(chan struct{})}
	c.self.Store(&Member{})
	c.topology.Store(newTopology(0, nil, ""))
	c.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(ordinary{cfg.Logger.Handler()})
	}))
	c.links = newLinks(&c.cfg, c.system, func() Member { return *c.self.Load() }, c.Awake)
	if s, ok := cfg.Registry.(*StaticRegistry); ok {
		s.bind(c.links.ping, cfg.Clock)
	}
	c.proto = newProto(c)
	return c, nil
}

// Start listens, joins and returns as soon as this node knows itself to be a member.
// If it is not when ctx ends, it is closed.
func (c *Cluster) Start(ctx context.Context, h Handler) error {
	c.handler = h
	r, err := c.links.start(h)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	if err := startProto(c.proto, r); err != nil {
		return errors.Join(err, c.Close())
	}
	if err := c.await(ctx, func(t *Topology) bool { return t.Self >= 0 }); err != nil {
		c.mu.Lock()
		err = fmt.Errorf("cluster: joining: %w", cmp.Or(c.problem, err))
		c.mu.Unlock()
		return errors.Join(err, c.Close())
	}
	return nil
}

// await returns when a topology is as wanted, or with ctx's error.
func (c *Cluster) await(ctx context.Context, wanted func(*Topology) bool) error {
	for {
		c.mu.Lock()
		next := c.next
		c.mu.Unlock()
		if wanted(c.Topology()) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Leave marks this node as leaving, in this life and in later ones: it owns nothing
// any more, and goes on to answer and to ask. It returns when the registry has said
// so to this node, with an error when the registry does not answer for the second time,
// or with ctx's; then it is still being tried.
func (c *Cluster) Leave(ctx context.Context) error {
	c.leaving.Store(true)
	select {
	case c.marked <- struct{}{}:
	default:
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-c.unmarked:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	if c.await(ctx, func(t *Topology) bool { return t.Self < 0 || t.Members[t.Self].Leaving }) != nil {
		return fmt.Errorf("cluster: leaving: %w", context.Cause(ctx))
	}
	return nil
}

// Close ends the membership and all links. What is in flight ends as ErrUnknown. The
// Handler is not called any more when it has returned.
func (c *Cluster) Close() error {
	var err error
	c.closing.Do(func() {
		err = errors.Join(c.proto.Config.ClusterProvider.Shutdown(true), c.links.close(), c.cfg.Registry.Close())
		c.system.Shutdown()
	})
	return err
}

// Send carries a request to a member, and tells done what became of it, which may be
// before Send returns. body is copied before that. deadline is a clockd.Mono.
func (c *Cluster) Send(member string, body []byte, deadline int64, done Done) {
	c.links.send(member, body, deadline, done)
}

// Skew returns for each member by how much its wall clock is ahead of ours.
func (c *Cluster) Skew() map[string]time.Duration { return c.links.skew() }

// Links shows how the links to the other members are.
func (c *Cluster) Links() []Link { return c.links.all() }

// Topology returns the members as this node knows them now: never nil.
func (c *Cluster) Topology() *Topology { return c.topology.Load() }

// ordinary lowers what Proto.Actor says to debug. It calls each attempt to reach a node
// that is away an error, ten of them a second; what operators should know of that is
// said once, by this package.
type ordinary struct{ to slog.Handler }

// Enabled implements slog.Handler.
func (o ordinary) Enabled(ctx context.Context, _ slog.Level) bool {
	return o.to.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (o ordinary) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return o.to.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (o ordinary) WithAttrs(attrs []slog.Attr) slog.Handler { return ordinary{o.to.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (o ordinary) WithGroup(name string) slog.Handler { return ordinary{o.to.WithGroup(name)} }
