package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"

	"github.com/asynkron/protoactor-go/actor"
	proto "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
)

// What Proto.Actor's cluster knows of ours: a provider, a lookup that finds the owner
// of an identity, and the event that tells of each topology. Its gossip, its list of
// members, its pub-sub and its own start stay off (RATIONALE.md says why). Ask Get for
// an owner each time: what its Request remembers is not told when keys move.

// newProto makes Proto.Actor's cluster object, over nothing yet.
func newProto(c *Cluster) *proto.Cluster {
	return proto.New(c.system, proto.Configure("doorbuster", provider{c}, lookup{c}, remote.Configure("", 0)))
}

// startProto does what Proto.Actor's StartMember does, without its panics, its sleep
// and its gossip.
func startProto(p *proto.Cluster, r *remote.Remote) error {
	p.Remote = r
	p.IdentityLookup = p.Config.IdentityLookup
	p.IdentityLookup.Setup(p, p.GetClusterKinds(), false)
	return p.Config.ClusterProvider.StartMember(p)
}

// provider is Proto.Actor's cluster.ClusterProvider: the membership, whatever its
// registry is.
type provider struct{ c *Cluster }

func (p provider) StartMember(*proto.Cluster) error {
	ctx, stop := context.WithCancel(context.Background())
	p.c.stop, p.c.ended = stop, make(chan struct{})
	go p.c.run(ctx)
	return nil
}

func (p provider) StartClient(*proto.Cluster) error {
	return errors.New("cluster: a node is always a member")
}

// Shutdown ends the membership. Without grace, or a registry that answers, the record
// stays until its lease ends.
func (p provider) Shutdown(graceful bool) error {
	if p.c.stop == nil {
		return nil // never started
	}
	p.c.stop()
	<-p.c.ended
	if !graceful || p.c.away.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.c.cfg.TTL/renewsPerTTL)
	defer cancel()
	if err := p.c.cfg.Registry.Leave(ctx); err != nil {
		p.c.cfg.Logger.Warn("cluster: the registry does not answer; this node is missed once its lease is over", slog.Any("error", err))
	}
	return nil
}

// lookup is Proto.Actor's cluster.IdentityLookup: an identity, of whatever kind, lives
// with the owner of its name.
type lookup struct{ c *Cluster }

// Get returns the actor that speaks for the identity's owner, nil if nobody owns it.
func (l lookup) Get(id *proto.ClusterIdentity) *actor.PID {
	t := l.c.Topology()
	owner := t.Owner([]byte(id.Identity))
	if owner < 0 {
		return nil
	}
	return actor.NewPID(t.Members[owner].Address, wellKnown)
}

// Nothing is kept that could be removed, set up or shut down.
func (lookup) RemovePid(*proto.ClusterIdentity, *actor.PID) {}
func (lookup) Setup(*proto.Cluster, []string, bool)         {}
func (lookup) Shutdown()                                    {}

// protoTopology tells how the members changed.
func protoTopology(old, t *Topology) *proto.ClusterTopology {
	return &proto.ClusterTopology{
		TopologyHash: t.Version, Members: protoMembers(t, nil),
		Joined: protoMembers(t, old), Left: protoMembers(old, t),
	}
}

// protoMembers are the members of t, without those of another topology.
func protoMembers(t, without *Topology) []*proto.Member {
	var members []*proto.Member
	for _, m := range t.Members {
		if without != nil && slices.ContainsFunc(without.Members, func(w Member) bool { return w.ID == m.ID }) {
			continue
		}
		host, port, _ := net.SplitHostPort(m.Address) // another node's mistake shows as an address that nobody answers
		n, _ := strconv.ParseInt(port, 10, 32)
		members = append(members, &proto.Member{Id: m.ID, Host: host, Port: int32(n)})
	}
	return members
}
