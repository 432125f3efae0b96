package cluster

import (
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Member is one node in one of its lives: a node that lost its lease comes back under
// another id. Ids sort by when they joined.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`           // host:port of the other members' requests
	Leaving bool   `json:"leaving,omitempty"` // owns nothing, and is about to go
	Version string `json:"version,omitempty"`
	HTTP    string `json:"http,omitempty"`  // where it serves shoppers, for people to read
	Admin   string `json:"admin,omitempty"` // where it serves operators
}

// Topology is the membership at one moment. It never changes once published.
type Topology struct {
	Version uint64   // rises by at least 1 with each topology of this process
	Members []Member // by ID; of those with the same address only the newest
	Self    int      // index in Members, or -1: this node is not a member, or no longer
	weights []uint64 // of the members' addresses
}

// newTopology takes the records of a registry as they are.
func newTopology(version uint64, members []Member, self string) *Topology {
	sorted := slices.Clone(members)
	slices.SortFunc(sorted, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	t := &Topology{Version: version, Self: -1}
	for i, m := range sorted {
		if slices.ContainsFunc(sorted[i+1:], func(later Member) bool { return later.Address == m.Address }) {
			continue // an earlier life
		}
		if m.ID == self {
			t.Self = len(t.Members)
		}
		t.Members = append(t.Members, m)
		t.weights = append(t.weights, xxhash.Sum64String(m.Address))
	}
	return t
}

// Owner returns the index in Members of the one that key belongs to, or -1 if nobody
// may own anything. All nodes with the same members agree.
func (t *Topology) Owner(key []byte) int {
	owner, most := -1, uint64(0)
	h := xxhash.Sum64(key)
	for i := range t.Members {
		if t.Members[i].Leaving {
			continue
		}
		if w := mix(h ^ t.weights[i]); owner < 0 || w > most {
			owner, most = i, w
		}
	}
	return owner
}

// addresses are the members', for people to read.
func (t *Topology) addresses() []string {
	all := make([]string, len(t.Members))
	for i, m := range t.Members {
		if all[i] = m.Address; m.Leaving {
			all[i] += " leaves"
		}
	}
	return all
}

// drops reports that a member which may own is not in the view.
func (t *Topology) drops(view []Member) bool {
	return slices.ContainsFunc(t.Members, func(m Member) bool {
		return !m.Leaving && !slices.ContainsFunc(view, func(v Member) bool { return v.Address == m.Address })
	})
}

// mix is the finalizer of SplitMix64, a permutation in which each input bit changes
// half of the output's.
// https://doi.org/10.1145/2714064.2660195
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
