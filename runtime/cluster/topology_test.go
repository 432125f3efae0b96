package cluster

import (
	"fmt"
	"testing"
)

func topologyOf(addresses ...string) *Topology {
	members := make([]Member, len(addresses))
	for i, address := range addresses {
		members[i] = Member{ID: fmt.Sprintf("%03d", i), Address: address}
	}
	return newTopology(1, members, "")
}

// Nodes of different releases place the same keys on the same members.
func TestOwnersOfRecord(t *testing.T) {
	topology := topologyOf("node-1:7000", "node-2:7000", "node-3:7000")
	got := ""
	for i := range 24 {
		got += fmt.Sprint(topology.Owner(fmt.Appendf(nil, "deal-%d", i)))
	}
	if want := "211211002111200012000020"; got != want {
		t.Errorf("the owners are %s, they were %s", got, want)
	}
}

func TestOwnersAreEven(t *testing.T) {
	const keys, members = 10_000, 5
	topology := topologyOf("node-1:7000", "node-2:7000", "node-3:7000", "node-4:7000", "node-5:7000")
	var owned [members]int
	for i := range keys {
		owned[topology.Owner(fmt.Appendf(nil, "deal-%d", i))]++
	}
	for i, n := range owned {
		// Five standard deviations of a fair draw are 200.
		if n < keys/members-200 || n > keys/members+200 {
			t.Errorf("%s owns %d of %d", topology.Members[i].Address, n, keys)
		}
	}
}

// A member that comes moves keys to itself only, and one that leaves its own only.
func TestOwnersStay(t *testing.T) {
	three := topologyOf("node-1:7000", "node-2:7000", "node-3:7000")
	four := topologyOf("node-1:7000", "node-2:7000", "node-3:7000", "node-4:7000")
	leaving := topologyOf("node-1:7000", "node-2:7000", "node-3:7000", "node-4:7000")
	leaving.Members[3].Leaving = true
	moved := 0
	for i := range 1000 {
		key := fmt.Appendf(nil, "deal-%d", i)
		before, after := three.Owner(key), four.Owner(key)
		if after != before {
			moved++
			if after != 3 {
				t.Fatalf("%s moved from %d to %d when node-4 came", key, before, after)
			}
		}
		if back := leaving.Owner(key); back != before {
			t.Fatalf("%s belongs to %d while node-4 leaves, and to %d without it", key, back, before)
		}
	}
	if moved < 150 || moved > 350 {
		t.Errorf("%d of 1000 keys moved to the fourth member", moved)
	}
}

func TestNobodyOwns(t *testing.T) {
	leaving := topologyOf("node-1:7000")
	leaving.Members[0].Leaving = true
	for _, topology := range []*Topology{topologyOf(), leaving} {
		if owner := topology.Owner([]byte("deal")); owner != -1 {
			t.Errorf("the deal belongs to %d of %v", owner, topology.Members)
		}
	}
}

func TestOwnerDoesNotAllocate(t *testing.T) {
	topology, key := topologyOf("node-1:7000", "node-2:7000", "node-3:7000"), []byte("deal-1")
	if n := testing.AllocsPerRun(100, func() { topology.Owner(key) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Of several lives at one address the last one counts, in whatever order they come.
func TestNewestLife(t *testing.T) {
	members := []Member{{ID: "3", Address: "a:1"}, {ID: "1", Address: "a:1"}, {ID: "2", Address: "b:1"}}
	topology := newTopology(1, members, "1")
	if len(topology.Members) != 2 || topology.Members[0].ID != "2" || topology.Members[1].ID != "3" {
		t.Errorf("the members are %v", topology.Members)
	}
	if topology.Self != -1 {
		t.Error("an earlier life is a member")
	}
	if now := newTopology(1, members, "3"); now.Self != 1 {
		t.Errorf("self is %d", now.Self)
	}
}

func BenchmarkOwner(b *testing.B) {
	topology, key := topologyOf("node-1:7000", "node-2:7000", "node-3:7000"), []byte("deal-1")
	for b.Loop() {
		topology.Owner(key)
	}
}
