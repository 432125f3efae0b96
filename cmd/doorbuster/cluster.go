package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/gateway"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd"
	"github.com/doorbuster/doorbuster/runtime/cluster/k8s"
	"github.com/doorbuster/doorbuster/runtime/cluster/mtls"
)

// leaveShare is the part of the drain's time that a node may take to tell the others
// that it leaves: if nobody can be told, it drains like a node on its own.
const leaveShare = 2

// newCluster makes the server a node that is no member yet.
func (s *server) newCluster() (err error) {
	cfg := cluster.Config{
		Clock: s.clock, Logger: s.log.Logger, Advertise: s.cfg.Advertise,
		Version: version(), HTTP: s.public.Addr().String(), Admin: s.admin.Addr().String(),
	}
	if s.cfg.ClusterTLSCA != "" {
		cfg.TLS, err = mtls.Load(mtls.Config{
			CA: s.cfg.ClusterTLSCA, Cert: s.cfg.ClusterTLSCert, Key: s.cfg.ClusterTLSKey,
			Names: names(s.cfg.ClusterNames), Clock: s.clock, Logger: s.log.Logger,
		})
		if err != nil {
			return err
		}
	}
	if cfg.Registry, err = s.registry(); err != nil {
		return err
	}
	s.cluster, err = cluster.New(cfg)
	return err
}

// registry is where the members are written down.
func (s *server) registry() (cluster.Registry, error) {
	switch s.cfg.Provider {
	case config.ProviderK8s:
		return k8s.New(k8s.Config{Clock: s.clock, Logger: s.log.Logger})
	case config.ProviderStatic:
		return cluster.Static(names(s.cfg.Peers)...), nil
	default:
		c, err := etcdConfig(&s.cfg)
		if err != nil {
			return nil, err
		}
		c.Logger = s.log.Logger
		return etcd.New(c)
	}
}

// etcdConfig is how to reach etcd. The client's certificate is read for each connection,
// so that it may be renewed under a running node.
func etcdConfig(cfg *config.Config) (etcd.Config, error) {
	c := etcd.Config{Endpoints: names(cfg.Etcd), Username: cfg.EtcdUser, Password: cfg.EtcdPassword}
	if !slices.ContainsFunc(c.Endpoints, func(url string) bool { return strings.HasPrefix(url, "https:") }) {
		return c, nil
	}
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.EtcdCA != "" {
		text, err := os.ReadFile(cfg.EtcdCA)
		if err != nil {
			return c, err
		}
		if c.TLS.RootCAs = x509.NewCertPool(); !c.TLS.RootCAs.AppendCertsFromPEM(text) {
			return c, fmt.Errorf("%s holds no certificate", cfg.EtcdCA)
		}
	}
	if cfg.EtcdCert != "" {
		read := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.EtcdCert, cfg.EtcdKey)
			return &cert, err
		}
		if _, err := read(); err != nil {
			return c, err
		}
		c.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return read() }
	}
	return c, nil
}

// clusterView is what the edge shows of the cluster, nil if there is none.
func (s *server) clusterView() gateway.Cluster {
	if s.cluster == nil {
		return nil // not a nil of its type
	}
	return s.cluster
}

// joinCluster makes the node a member. It returns when it is one.
func (s *server) joinCluster(ctx context.Context) error {
	return s.cluster.Start(ctx, handler{s.node, s.hooks.Rescan})
}

// findRules gets to know rules that another node has stored. One that is not there, or
// cannot be read, shows when an order needs it.
func (s *server) findRules(ctx context.Context, merchant string, rules []string) {
	for _, rule := range rules {
		if _, err := s.rules.Rule(ctx, merchant, rule); err != nil && !errors.Is(err, plugins.ErrRuleNotFound) {
			s.log.Warn("a rule cannot be read", "merchant_id", merchant, "rule", rule, "error", err)
		}
	}
}

// handler is a node that tells webhooks when deals have moved.
type handler struct {
	*actors.Node
	moved func()
}

// Changed implements cluster.Handler.
func (h handler) Changed(t *cluster.Topology) {
	h.Node.Changed(t)
	h.moved()
}

// peers is what actors sees of the cluster.
type peers struct{ *cluster.Cluster }

var _ actors.Peers = peers{}

// Owner implements actors.Peers. A process that has just stood still for longer than
// its lease knows nothing before it has looked again.
func (p peers) Owner(deal []byte) (member string, self bool) {
	t := p.Topology()
	i := t.Owner(deal)
	if i < 0 || !p.Awake() {
		return "", false
	}
	return t.Members[i].ID, i == t.Self
}

// Others implements actors.Peers.
func (p peers) Others(dst []string) []string {
	t := p.Topology()
	for i := range t.Members {
		if i != t.Self {
			dst = append(dst, t.Members[i].ID)
		}
	}
	return dst
}

var (
	errNoMember  = errors.New("the node is not a member of the cluster")
	errLeaving   = errors.New("the node leaves the cluster")
	errUnsettled = errors.New("the node looks which deals are its own")
	errDeaf      = errors.New("the journal does not answer")
)

// memberReady says why a node should get no traffic, nil if it should.
func (s *server) memberReady() error {
	switch {
	case s.cluster == nil:
		return nil
	case s.leaving.Load():
		return errLeaving
	case s.cluster.Topology().Self < 0:
		return errNoMember
	case !s.node.Settled():
		return errUnsettled
	case s.deaf():
		return errDeaf
	}
	return nil
}

// leaveCluster hands this node's deals to the others, who answer for them from then on.
// The node itself goes on to forward what still comes until notice ends.
func (s *server) leaveCluster(ctx, notice context.Context) {
	s.leaving.Store(true)
	if len(peers{s.cluster}.Others(nil)) == 0 {
		return
	}
	some, cancel := s.deadline(s.cfg.DrainTimeout / leaveShare)
	defer cancel()
	if err := s.cluster.Leave(some); err != nil {
		s.log.Warn("the other nodes cannot be told: this one ends as if it were on its own", "error", err)
		return
	}
	if err := s.node.HandOver(ctx); err != nil {
		s.log.Warn("not all deals could be handed over", "error", err)
		return
	}
	select {
	case <-notice.Done():
	case <-ctx.Done():
	}
}

// skew is how far the wall clock of another member is from this one's, at most.
func (s *server) skew() (most time.Duration) {
	if s.cluster == nil {
		return 0
	}
	for _, d := range s.cluster.Skew() {
		most = max(most, d.Abs())
	}
	return most
}

// topology is the cluster's. A node on its own is its only member.
func (s *server) topology() *cluster.Topology {
	if s.cluster == nil {
		return &cluster.Topology{Members: make([]cluster.Member, 1)}
	}
	return s.cluster.Topology()
}

// members is how many there are. It does not allocate.
func (s *server) members() int {
	if s.cluster == nil {
		return 1
	}
	return len(s.cluster.Topology().Members)
}

func (s *server) links() []cluster.Link {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Links()
}

// observeCluster registers what a node counts as one of several.
func (s *server) observeCluster() {
	m := s.metrics
	m.Gauge("cluster_members", "Members of the cluster, as this node knows them.", nil, func() float64 { return float64(len(s.topology().Members)) })
	m.Gauge("cluster_member", "1 while this node is a member of the cluster, or on its own.", nil, func() float64 {
		if s.topology().Self < 0 {
			return 0
		}
		return 1
	})
	m.Gauge("cluster_skew_seconds", "Seconds between this node's wall clock and that of the member that is farthest from it.", nil, func() float64 { return s.skew().Seconds() })
	m.Counter("cluster_requests_sent_total", "Requests that this node has sent to the owners of deals on other nodes.", nil, func() float64 { return float64(s.node.Stats().Asked) })
	m.Counter("cluster_requests_served_total", "Requests of other nodes that this node has served.", nil, func() float64 { return float64(s.node.Stats().Served) })
	m.Counter("deals_handed_over_total", "Deals that this node has handed to others.", nil, func() float64 { return float64(s.node.Stats().HandedOver) })
	sum := func(figure func(cluster.Link) float64) func() float64 {
		return func() (total float64) {
			for _, l := range s.links() {
				total += figure(l)
			}
			return total
		}
	}
	sent := sum(func(l cluster.Link) float64 { return float64(l.RequestsSent) })
	batches := sum(func(l cluster.Link) float64 { return float64(l.BatchesSent) })
	m.Gauge("cluster_in_flight", "Requests that other nodes have not answered yet.", nil, sum(func(l cluster.Link) float64 { return float64(l.InFlight) }))
	m.Gauge("cluster_batches_sent", "Batches that were sent to other nodes, over the links as they are now.", nil, batches)
	m.Gauge("cluster_requests_per_batch", "Requests that went together, on average over the links as they are now.", nil,
		func() float64 { return sent() / max(1, batches()) })
}
