package gateway

import (
	"slices"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/runtime/cluster"
)

// Cluster is what operators may know of the other nodes.
type Cluster interface {
	Topology() *cluster.Topology
	Links() []cluster.Link
}

// clusterReply is who serves which deals.
type clusterReply struct {
	Members []memberReply `json:"members"`
}

// memberReply is one node. Epochs are those of the deals that it has in memory: a
// deal's rises with each owner it gets.
type memberReply struct {
	Member      string     `json:"member"` // the address by which other nodes reach it
	ID          string     `json:"id,omitempty"`
	Version     string     `json:"version,omitempty"`
	HTTP        string     `json:"http,omitempty"`
	Admin       string     `json:"admin,omitempty"`
	Self        bool       `json:"self"`
	Status      string     `json:"status"`
	Detail      string     `json:"detail,omitempty"`
	Deals       int        `json:"deals"`
	DealsActive int        `json:"deals_active"`
	Waiting     int        `json:"waiting"`
	HandedOver  uint64     `json:"handed_over"`
	Epochs      epochReply `json:"epochs"`
	ClockLagMs  float64    `json:"clock_lag_ms"`
	Time        instant    `json:"time"`
	Link        *linkReply `json:"link,omitempty"`
}

type epochReply struct {
	Lowest  uint64 `json:"lowest"`
	Highest uint64 `json:"highest"`
}

// linkReply is how this node reaches another.
type linkReply struct {
	InFlight         int     `json:"in_flight"`
	TripMs           float64 `json:"trip_ms"`
	SkewMs           float64 `json:"skew_ms"`
	Breaks           uint64  `json:"breaks"`
	RequestsPerBatch float64 `json:"requests_per_batch"`
}

// cluster shows the members: a node on its own is its only one.
func (s *Server) cluster(c *call) error {
	if s.cfg.Cluster == nil {
		self := memberReply{Member: s.cfg.Member, Self: true}
		self.fill(s.node.Status())
		return c.reply(fasthttp.StatusOK, clusterReply{[]memberReply{self}})
	}
	return c.reply(fasthttp.StatusOK, clusterReply{s.members()})
}

// members asks all of them.
func (s *Server) members() []memberReply {
	t, statuses := s.cfg.Cluster.Topology(), s.node.Statuses()
	all := make([]memberReply, len(t.Members))
	for i, m := range t.Members {
		r := &all[i]
		*r = memberReply{Member: m.Address, ID: m.ID, Version: m.Version, HTTP: m.HTTP, Admin: m.Admin, Self: i == t.Self}
		if r.Self {
			r.fill(s.node.Status())
		} else if at := slices.IndexFunc(statuses, func(st actors.MemberStatus) bool { return st.Member == m.ID }); at >= 0 {
			r.fill(statuses[at])
		} else {
			r.Status, r.Detail = "unreachable", "it has only just joined"
		}
		if m.Leaving {
			r.Status = "leaving"
		}
	}
	for _, l := range s.cfg.Cluster.Links() {
		if i := slices.IndexFunc(all, func(r memberReply) bool { return r.ID == l.Member }); i >= 0 {
			all[i].Link = &linkReply{
				InFlight: l.InFlight, TripMs: float64(l.Trip.Microseconds()) / 1000, SkewMs: float64(l.Skew.Microseconds()) / 1000,
				Breaks: l.Breaks, RequestsPerBatch: float64(l.RequestsSent) / float64(max(1, l.BatchesSent)),
			}
		}
	}
	return all
}

// fill takes over what a node has said of itself.
func (r *memberReply) fill(st actors.MemberStatus) {
	r.Status = "ready"
	switch {
	case st.Err != nil:
		r.Status, r.Detail = "unreachable", st.Err.Error()
	case st.Draining:
		r.Status = "draining"
	case st.ReadOnly:
		r.Status = "read_only"
	}
	r.Deals, r.DealsActive, r.Waiting, r.HandedOver = st.Deals, st.Active, st.Waiting, st.HandedOver
	r.Epochs = epochReply{st.EpochLowest, st.EpochHighest}
	r.ClockLagMs, r.Time = float64(st.ClockLag.Microseconds())/1000, instant(st.Wall)
}

// drainMember asks a member, by its address or its id, to hand its deals over and to end.
func (s *Server) drainMember(member string) error {
	if s.cfg.Cluster == nil {
		return refuse(notFound, "this node is on its own")
	}
	t := s.cfg.Cluster.Topology()
	i := slices.IndexFunc(t.Members, func(m cluster.Member) bool { return m.ID == member || m.Address == member })
	switch {
	case i < 0:
		return refuse(notFound, "the cluster has no such member")
	case i == t.Self:
		s.drainOne.Do(s.cfg.Drain)
		return nil
	}
	return s.node.AskToLeave(t.Members[i].ID)
}
