package gateway

import (
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/runtime/cluster"
)

// pair is a cluster of this node and one that never answers.
type pair struct{}

func (pair) Topology() *cluster.Topology {
	return &cluster.Topology{Members: []cluster.Member{{ID: "1", Address: "here:1", HTTP: "here:80"}, {ID: "2", Address: "there:1", Leaving: true}}}
}

func (pair) Links() []cluster.Link {
	return []cluster.Link{{Member: "2", Skew: 600 * time.Millisecond, Trip: time.Millisecond, RequestsSent: 6, BatchesSent: 2}}
}

// Owner implements actors.Peers.
func (pair) Owner([]byte) (string, bool) { return "1", true }

// Others implements actors.Peers.
func (pair) Others(dst []string) []string { return append(dst, "2") }

// Send implements actors.Peers.
func (pair) Send(_ string, _ []byte, _ int64, done cluster.Done) {
	done.Replied(nil, cluster.ErrUnknown)
}

func TestClusterShowsAllMembers(t *testing.T) {
	drained := 0
	h := newHouse(t, func(c *Config, n *actors.Config) {
		c.Cluster, c.Drain, n.Peers, n.Member = pair{}, func() { drained++ }, pair{}, "here:1"
	})
	h.tick()
	admin := func(method, path string) answer { return h.send(request{method: method, path: path, admin: true}) }
	admin("GET", "/api/v1/admin/cluster").want(200).has(map[string]any{
		"members.0.member": "here:1", "members.0.self": true, "members.0.status": "ready", "members.0.http": "here:80",
		"members.1.member": "there:1", "members.1.self": false, "members.1.status": "leaving",
		"members.1.link.skew_ms": 600, "members.1.link.requests_per_batch": 3,
	})
	admin("POST", "/api/v1/admin/drain?member=nowhere:1").refused(notFound)
	admin("POST", "/api/v1/admin/drain?member=there:1").refused(unavailable)
	if admin("POST", "/api/v1/admin/drain?member=here:1").want(202); drained != 1 {
		t.Errorf("drained %d times", drained)
	}
}

func TestANodeOnItsOwnDrainsNoOther(t *testing.T) {
	h := newHouse(t, nil)
	h.send(request{method: "POST", path: "/api/v1/admin/drain?member=there:1", admin: true}).refused(notFound)
}
