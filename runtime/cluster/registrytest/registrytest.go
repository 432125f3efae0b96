// Package registrytest is what a cluster.Registry must do, shown on real nodes that
// are linked on loopback.
package registrytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// Patience is how long a test waits for what must happen.
const Patience = time.Minute

// TTL is the lease of a node here unless the test wants another: the shortest there is.
// A node that stands still for a quarter of it may lose it.
const TTL = time.Second

// Lasting is the lease of a node that must not lose it, however busy the machine is.
const Lasting = 12 * time.Second

// Lasts gives a node that lease.
func Lasts(c *cluster.Config) { c.TTL = Lasting }

// ghostly is long enough for a busy machine to see who is there for no longer.
const ghostly = 5 * time.Second

// Node is a member that answers with its address, and remembers what it was told.
type Node struct {
	*cluster.Cluster
	Address string

	mu     sync.Mutex
	told   chan struct{} // closed with the next news
	lost   int
	errors []error
}

// Address returns one on loopback that is free.
func Address(t testing.TB) string {
	t.Helper()
	address, err := porttest.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Start starts a node that ends with the test.
func Start(t testing.TB, address string, r cluster.Registry, change ...func(*cluster.Config)) *Node {
	t.Helper()
	n := New(t, address, r, change...)
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := n.Start(ctx, n); err != nil {
		t.Fatal(err)
	}
	return n
}

// New is Start without the start.
func New(t testing.TB, address string, r cluster.Registry, change ...func(*cluster.Config)) *Node {
	t.Helper()
	n := &Node{Address: address, told: make(chan struct{})}
	said := &record{}
	cfg := cluster.Config{
		Registry: r, Clock: Clock(t), Advertise: address, TTL: TTL,
		Version: "v1", HTTP: "http", Admin: "admin", Logger: slog.New(slog.NewTextHandler(said, nil)),
	}
	for _, fn := range change {
		fn(&cfg)
	}
	var err error
	n.Cluster, err = cluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Logf("%s: closing: %v", address, err) // what it leaves may be gone
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", address, said)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, err := range n.errors {
			t.Errorf("%s: %v", address, err)
		}
	})
	return n
}

// record keeps what a node logs: Proto.Actor goes on to do so when the test has ended.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (r *record) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(line)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// Clock returns a clock that ticks until the test ends.
func Clock(t testing.TB) *clockd.Clock {
	t.Helper()
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Start()
	t.Cleanup(clock.Close)
	return clock
}

// Serve implements cluster.Handler.
func (n *Node) Serve(_ string, _ []byte, _ int64, reply func([]byte)) { reply([]byte(n.Address)) }

// Changed implements cluster.Handler.
func (n *Node) Changed(t *cluster.Topology) {
	n.note(func() {
		if now := n.Topology(); now != t {
			n.errors = append(n.errors, fmt.Errorf("told of topology %d while %d is current", t.Version, now.Version))
		}
	})
}

// Lost implements cluster.Handler.
func (n *Node) Lost() {
	n.note(func() {
		n.lost++
		if n.Topology().Self >= 0 {
			n.errors = append(n.errors, errors.New("lost, and still in the topology"))
		}
	})
}

func (n *Node) note(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
	close(n.told)
	n.told = make(chan struct{})
}

// Losses returns how often the node was Lost.
func (n *Node) Losses() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// ID returns the node's id, "" while it is no member.
func (n *Node) ID() string {
	topology := n.Topology()
	if topology.Self < 0 {
		return ""
	}
	return topology.Members[topology.Self].ID
}

// Await waits until the node's view of the world is as wanted.
func (n *Node) Await(t testing.TB, what string, wanted func(*cluster.Topology) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	for {
		n.mu.Lock()
		told := n.told
		n.mu.Unlock()
		if wanted(n.Topology()) {
			return
		}
		select {
		case <-told:
		case <-ctx.Done():
			t.Fatalf("%s never saw %s, but %+v", n.Address, what, n.Topology().Members)
		}
	}
}

// Sees waits until the members are those of the addresses.
func (n *Node) Sees(t testing.TB, addresses ...string) {
	t.Helper()
	wanted := slices.Sorted(slices.Values(addresses))
	n.Await(t, fmt.Sprint(wanted), func(topology *cluster.Topology) bool {
		var got []string
		for _, m := range topology.Members {
			got = append(got, m.Address)
		}
		slices.Sort(got)
		return slices.Equal(got, wanted)
	})
}

// Ask sends a request to a member and returns its answer, or an error after a second: a
// link may break, above all one that is being made.
func (n *Node) Ask(member, question string) (string, error) {
	answer := make(waiting, 1)
	n.Send(member, []byte(question), clockd.Mono()+int64(time.Second), answer)
	got := <-answer
	return got.body, got.err
}

type answer struct {
	body string
	err  error
}

type waiting chan answer

// Replied implements cluster.Done.
func (w waiting) Replied(body []byte, err error) { w <- answer{string(body), err} }

// Run shows that nodes whose registries come from open, in one cluster, are members of
// it. open is told the addresses of all nodes.
func Run(t *testing.T, open func(t testing.TB, all []string) cluster.Registry) {
	const nodes = 5
	addresses := make([]string, nodes)
	for i := range addresses {
		addresses[i] = Address(t)
	}
	members := make([]*Node, nodes)
	var starting sync.WaitGroup
	for i, address := range addresses {
		members[i] = New(t, address, open(t, addresses), Lasts)
		starting.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			if err := members[i].Start(ctx, members[i]); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	for _, n := range members {
		n.Sees(t, addresses...)
	}
	agree(t, members)
	reach(t, members)

	leaver := members[0]
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := leaver.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range members {
		n.Await(t, "the leaving member", func(topology *cluster.Topology) bool {
			return slices.ContainsFunc(topology.Members, func(m cluster.Member) bool { return m.Address == leaver.Address && m.Leaving })
		})
	}
	agree(t, members)
	reach(t, members)
	if err := leaver.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range members[1:] {
		n.Sees(t, addresses[1:]...)
	}

	// It comes back to the same address as somebody else.
	before := members[1].Topology()
	back := Start(t, leaver.Address, open(t, addresses), Lasts)
	members[1].Sees(t, addresses...)
	for _, m := range before.Members {
		if m.ID == back.ID() {
			t.Errorf("%s came back under its old id", back.Address)
		}
	}
	for _, n := range members {
		if n.Losses() > 0 {
			t.Errorf("%s was lost in a cluster without faults", n.Address)
		}
	}
}

// agree checks that all members name the same owners, none of them one that leaves.
func agree(t *testing.T, members []*Node) {
	t.Helper()
	for i := range 1000 {
		key := fmt.Appendf(nil, "deal-%d", i)
		want := ""
		for _, n := range members {
			topology := n.Topology()
			owner := topology.Members[topology.Owner(key)]
			if owner.Leaving {
				t.Fatalf("%s belongs to %s, which leaves", key, owner.Address)
			}
			if want == "" {
				want = owner.ID
			}
			if owner.ID != want {
				t.Fatalf("%s belongs to %s or to %s", key, want, owner.ID)
			}
		}
	}
}

// reach checks that everybody answers everybody, in the end: a link may break.
func reach(t *testing.T, members []*Node) {
	t.Helper()
	for _, n := range members {
		for _, m := range n.Topology().Members {
			if m.Address == n.Address {
				continue
			}
			for end := clockd.Mono() + int64(Patience); ; {
				got, err := n.Ask(m.ID, "who are you")
				if got == m.Address {
					break
				}
				if err == nil || clockd.Mono() > end {
					t.Fatalf("%s asked %s and got %q, %v", n.Address, m.Address, got, err)
				}
			}
		}
	}
}

// Records shows that a registry keeps records: that a member which is silent is gone
// for everybody after its lease, and that of two at one address the newer one counts.
// ghost is a registry whose members nobody renews.
func Records(t *testing.T, open func(t testing.TB) cluster.Registry) {
	witness := Start(t, Address(t), open(t), Lasts)
	ghost, address := open(t), Address(t)
	t.Cleanup(func() {
		if err := ghost.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := ghost.Join(t.Context(), cluster.Member{ID: "000000000001-00000000", Address: address}, ghostly); err != nil {
		t.Fatal(err)
	}
	witness.Sees(t, witness.Address, address)
	newer := Start(t, address, open(t), Lasts)
	witness.Await(t, "the newer member", func(topology *cluster.Topology) bool {
		return len(topology.Members) == 2 && slices.ContainsFunc(topology.Members, func(m cluster.Member) bool { return m.ID == newer.ID() })
	})
	err := ghost.Renew(t.Context())
	for end := clockd.Mono() + int64(Patience); err == nil && clockd.Mono() < end; {
		_ = clockd.SleepUntil(t.Context(), clockd.Mono()+int64(2*ghostly)) // it is silent
		err = ghost.Renew(t.Context())
	}
	if !errors.Is(err, cluster.ErrLost) {
		t.Errorf("a silent member renewed its lease: %v", err)
	}
	if err := ghost.Update(t.Context(), cluster.Member{ID: "000000000001-00000000", Address: address}); !errors.Is(err, cluster.ErrLost) {
		t.Errorf("a silent member wrote its record: %v", err)
	}
	if err := ghost.Leave(t.Context()); err != nil {
		t.Errorf("leaving without a record: %v", err)
	}
	if witness.Losses()+newer.Losses() > 0 {
		t.Error("a member was lost with somebody else's lease")
	}
}
