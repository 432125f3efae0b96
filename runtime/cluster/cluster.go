package cluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	proto "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"

	"github.com/doorbuster/doorbuster/clockd"
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
	// Name keeps clusters apart that share a registry: 1-63 bytes of a-z, 0-9 and -.
	// Default "doorbuster".
	Name string
	// Registry is where the members find each other. The cluster closes it.
	Registry Registry
	// Clock shows the time that is compared with the other members'.
	Clock *clockd.Clock
	// Advertise is the host:port by which the other members reach this one. No two have
	// the same: a node that joins under the address of another takes its place.
	Advertise string
	// Listen is the host:port to listen on. Default Advertise.
	Listen string
	// Version, HTTP and Admin are shown in this node's record.
	Version, HTTP, Admin string
	// TTL is how long a member that is not heard of remains one: at least 1 s. Default 3 s.
	TTL time.Duration
	// Logger may be nil.
	Logger *slog.Logger
}

// TTLDefault is how long a lease lasts unless the configuration says otherwise.
const TTLDefault = 3 * time.Second

// Cluster is this node's part in the cluster. Its methods may be called concurrently.
type Cluster struct {
	cfg      Config
	system   *actor.ActorSystem
	proto    *proto.Cluster
	links    transport
	handler  Handler
	topology atomic.Pointer[Topology]
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
	close() error
}

// Send carries a request to a member, and tells done what became of it, which may be
// before Send returns. body is copied before that. deadline is a clockd.Mono.
func (c *Cluster) Send(member string, body []byte, deadline int64, done Done) {
	c.links.send(member, body, deadline, done)
}

// Skew returns for each member by how much its wall clock is ahead of ours.
func (c *Cluster) Skew() map[string]time.Duration { return c.links.skew() }

// Topology returns the members as this node knows them now: never nil.
func (c *Cluster) Topology() *Topology { return c.topology.Load() }

func (c *Config) withDefaults() Config {
	d := *c
	d.Name = cmp.Or(d.Name, "doorbuster")
	d.Listen = cmp.Or(d.Listen, d.Advertise)
	d.TTL = cmp.Or(d.TTL, TTLDefault)
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return d
}
