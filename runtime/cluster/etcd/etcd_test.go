package etcd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/cluster/clustertest"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd/etcdtest"
	"github.com/doorbuster/doorbuster/runtime/cluster/registrytest"
	"github.com/doorbuster/doorbuster/runtime/proctest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEndpoint) != "" {
		child()
		return
	}
	clustertest.Tolerate()
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, endpoint string) cluster.Registry {
	t.Helper()
	r, err := etcd.New(etcd.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMembers(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	registrytest.Run(t, func(t testing.TB, _ []string) cluster.Registry { return open(t, server.Endpoint) })
}

func TestRecords(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	registrytest.Records(t, func(t testing.TB) cluster.Registry { return open(t, server.Endpoint) })
}

// ttl is the lease of the nodes that start starts: one that stands still for a quarter of
// it while etcd is away may lose it.
const ttl = registrytest.Lasting

// start starts nodes that see each other.
func start(t *testing.T, endpoint string, nodes int) (members []*registrytest.Node, addresses []string) {
	t.Helper()
	for range nodes {
		addresses = append(addresses, registrytest.Address(t))
	}
	for _, address := range addresses {
		members = append(members, registrytest.Start(t, address, open(t, endpoint), registrytest.Lasts))
	}
	for _, n := range members {
		n.Sees(t, addresses...)
	}
	return members, addresses
}

func client(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// An etcd that restarts gives every lease its full time again: nothing happens.
func TestRestart(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	members, addresses := start(t, server.Endpoint, 3)
	before := members[0].Topology()
	server.Kill(t)
	time.Sleep(ttl + ttl/3) // in which the nodes are alone
	for _, n := range members {
		if n.ID() == "" || n.Losses() > 0 || !n.Awake() {
			t.Errorf("%s gave up its membership while etcd was away", n.Address)
		}
	}
	if members[0].Topology() != before {
		t.Error("the topology changed while nobody could tell")
	}
	server.Up(t)
	late := registrytest.Start(t, registrytest.Address(t), open(t, server.Endpoint))
	for _, n := range members {
		n.Sees(t, append(addresses, late.Address)...)
		if n.Losses() > 0 {
			t.Errorf("%s lost a lease that lasted", n.Address)
		}
	}
}

// An etcd that stood still may have ended all leases. Each node is then Lost, or has
// renewed in time, and in the end everybody sees everybody.
func TestFrozenEtcd(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	members, addresses := start(t, server.Endpoint, 3)
	server.Freeze(t)
	time.Sleep(ttl + ttl/3) // in which the nodes are alone
	ids := map[string]string{}
	for _, n := range members {
		ids[n.Address] = n.ID()
		if n.ID() == "" || n.Losses() > 0 {
			t.Errorf("%s gave up its membership while etcd stood still", n.Address)
		}
	}
	server.Thaw(t)
	late := registrytest.Start(t, registrytest.Address(t), open(t, server.Endpoint))
	for _, n := range members {
		n.Sees(t, append(addresses, late.Address)...)
		// It may be about to hear of its loss.
		n.Await(t, "its old id, or a loss", func(*cluster.Topology) bool { return (n.ID() == ids[n.Address]) == (n.Losses() == 0) })
	}
}

func TestLeaseRevoked(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	members, addresses := start(t, server.Endpoint, 2)
	victim, other := members[0], members[1]
	etc, id := client(t, server.Endpoint), victim.ID()
	record, err := etc.Get(t.Context(), "/doorbuster/members/"+id)
	if err != nil || len(record.Kvs) != 1 {
		t.Fatal(record, err)
	}
	revoked := time.Now()
	if _, err := etc.Revoke(t.Context(), clientv3.LeaseID(record.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	victim.Await(t, "its loss", func(*cluster.Topology) bool { return victim.Losses() == 1 })
	t.Logf("lost %v after its lease was revoked", time.Since(revoked))
	victim.Await(t, "a new id", func(*cluster.Topology) bool { return victim.ID() != "" && victim.ID() != id })
	other.Await(t, "the new id", func(topology *cluster.Topology) bool {
		return len(topology.Members) == 2 && (topology.Members[0].ID == victim.ID() || topology.Members[1].ID == victim.ID())
	})
	victim.Sees(t, addresses...)
	if other.Losses() > 0 {
		t.Error("the other one was lost as well")
	}
}

// A node that leaves stays on its way out in its next life.
func TestLeavingIsRemembered(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	members, _ := start(t, server.Endpoint, 2)
	victim := members[0]
	if err := victim.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, server.Endpoint).Delete(t.Context(), "/doorbuster/members/"+victim.ID()); err != nil {
		t.Fatal(err)
	}
	victim.Await(t, "its next life", func(*cluster.Topology) bool { return victim.Losses() == 1 && victim.ID() != "" })
	if topology := victim.Topology(); !topology.Members[topology.Self].Leaving {
		t.Error("it came back to stay")
	}
}

// A watcher that was cut off, and finds that what it missed was compacted away, says
// so; the next one begins with the list.
func TestCompaction(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	cable := newCable(t, strings.TrimPrefix(server.Endpoint, "http://"))
	watcher, writer := open(t, "http://"+cable.address), open(t, server.Endpoint)
	t.Cleanup(func() { watcher.Close(); writer.Close() })
	views := make(chan []cluster.Member, 16)
	ended := make(chan error)
	watch := func(ctx context.Context) {
		ended <- watcher.Watch(ctx, func(members []cluster.Member) { views <- members })
	}
	go watch(t.Context())
	if first := <-views; len(first) != 0 {
		t.Fatalf("an empty cluster has members: %v", first)
	}
	cable.cut()
	for _, id := range []string{"1", "2"} {
		if err := writer.Join(t.Context(), cluster.Member{ID: id, Address: "address-" + id}, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	etc := client(t, server.Endpoint)
	now, err := etc.Get(t.Context(), "nothing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := etc.Compact(t.Context(), now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	cable.mend()
	if err := <-ended; !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("the watch ended with %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go watch(ctx)
	if members := <-views; len(members) != 2 {
		t.Errorf("after the compaction there are %v", members)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
}

// cable is a TCP proxy that can be cut.
type cable struct {
	address string
	mu      sync.Mutex
	whole   bool
	ends    []net.Conn
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{address: l.Addr().String(), whole: true}
	var lines sync.WaitGroup
	lines.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil || !c.plug(near, far) {
				near.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				lines.Go(func() { io.Copy(way[0], way[1]); way[0].Close() })
			}
		}
	})
	t.Cleanup(func() { l.Close(); c.cut(); lines.Wait() })
	return c
}

func (c *cable) plug(near, far net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.whole {
		far.Close()
		return false
	}
	c.ends = append(c.ends, near, far)
	return true
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = false
	for _, end := range c.ends {
		end.Close()
	}
	c.ends = nil
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = true
}

// The child is a node in a process of its own, which says on its standard output what
// happens to it: "member <id>", "lost", and "served <question>".
const (
	childEndpoint = "DOORBUSTER_TEST_ETCD"
	childAddress  = "DOORBUSTER_TEST_ADDRESS"
)

type childNode struct{ *cluster.Cluster }

func (n *childNode) Serve(_ string, question []byte, _ int64, reply func([]byte)) {
	fmt.Println("served", string(question))
	reply(nil)
}
func (*childNode) Lost() { fmt.Println("lost") }
func (*childNode) Changed(topology *cluster.Topology) {
	if topology.Self >= 0 {
		fmt.Println("member", topology.Members[topology.Self].ID)
	}
}

func child() {
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		panic(err)
	}
	clock.Start()
	registry, err := etcd.New(etcd.Config{Endpoints: []string{os.Getenv(childEndpoint)}})
	if err != nil {
		panic(err)
	}
	n := &childNode{}
	n.Cluster, err = cluster.New(cluster.Config{Registry: registry, Clock: clock, Advertise: os.Getenv(childAddress), TTL: registrytest.TTL})
	if err != nil {
		panic(err)
	}
	if err := n.Start(context.Background(), n); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	if err := n.Close(); err != nil {
		panic(err)
	}
}

type process struct {
	*exec.Cmd
	address string
	stdin   io.Closer
	lines   chan string
}

func startChild(t *testing.T, endpoint string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0]), address: registrytest.Address(t), lines: make(chan string, 1024)}
	p.Env = append(os.Environ(), childEndpoint+"="+endpoint, childAddress+"="+p.address)
	p.Stderr = os.Stderr
	stdin, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		for said := bufio.NewScanner(stdout); said.Scan(); {
			p.lines <- said.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended
		for range p.lines {
		}
		<-read
		_ = p.Wait()
	})
	return p
}

// idAt is the id of the member at an address, "" if there is none.
func idAt(n *registrytest.Node, address string) string {
	for _, m := range n.Topology().Members {
		if m.Address == address {
			return m.ID
		}
	}
	return ""
}

// hears returns the next line that begins with what is wanted, and how many of another
// kind came before it.
func (p *process) hears(t *testing.T, wanted, other string) (line string, others int) {
	t.Helper()
	deadline := time.After(registrytest.Patience)
	for {
		select {
		case line, ok := <-p.lines:
			switch {
			case !ok:
				t.Fatalf("the child ended before it said %q", wanted)
			case strings.HasPrefix(line, wanted):
				return line, others
			case line == other:
				others++
			}
		case <-deadline:
			t.Fatalf("the child never said %q", wanted)
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	members, addresses := start(t, server.Endpoint, 1)
	p := startChild(t, server.Endpoint)
	members[0].Sees(t, append(addresses, p.address)...)
	killed := time.Now()
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	members[0].Sees(t, addresses...)
	t.Logf("gone %v after it was killed, with a lease of %v", time.Since(killed), registrytest.TTL)
}

// A process that stands still beyond its lease finds out before it serves anybody.
func TestFrozenNode(t *testing.T) {
	t.Parallel()
	for name, reachable := range map[string]bool{"with etcd": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t)
			members, addresses := start(t, server.Endpoint, 1)
			p := startChild(t, server.Endpoint)
			first, _ := p.hears(t, "member", "")
			members[0].Sees(t, append(addresses, p.address)...)
			for end := clockd.Mono() + int64(registrytest.Patience); ; {
				_, err := members[0].Ask(idAt(members[0], p.address), "early")
				if err == nil {
					break
				}
				if clockd.Mono() > end {
					t.Fatal(err)
				}
			}

			proctest.Stop(t, p.Process.Pid)
			if !reachable {
				server.Kill(t)
			}
			for stopped := time.Now(); time.Since(stopped) < 2*registrytest.TTL; {
				members[0].Ask(idAt(members[0], p.address), "late") // waits at its door, or is answered with an error
			}
			resumed := time.Now()
			if err := p.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if _, served := p.hears(t, "lost", "served late"); served > 0 {
				t.Errorf("it served %d requests before it knew", served)
			}
			t.Logf("lost %v after it ran again", time.Since(resumed))
			if !reachable {
				server.Up(t)
			}
			again, _ := p.hears(t, "member", "")
			if again == first {
				t.Errorf("it came back under the same id: %s", again)
			}
			members[0].Sees(t, append(addresses, p.address)...)
		})
	}
}
