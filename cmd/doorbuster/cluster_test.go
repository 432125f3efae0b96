package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd/etcdtest"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

const (
	clusterNodes = 3
	clusterDeals = 24 // so that no node goes without
	// answersWithin is how long deals may be silent whose node was killed: on a busy
	// machine. Alone it takes a lease.
	answersWithin = patience
)

// TestCluster runs three nodes as operators do, with etcd and PostgreSQL, and orders
// through all of them for the same deals, while one is killed and another one is stopped.
// Every order that was acknowledged is there at the end.
func TestCluster(t *testing.T) {
	database, registry := pgtest.Start(t), etcdtest.Start(t)
	var nodes [clusterNodes]*live
	for i := range nodes {
		advertise, err := porttest.Address()
		must(t, err)
		nodes[i] = startWith(t, "doorbuster", append(serveArgs(t.TempDir()),
			"--postgres", database.URL("postgres"), "--migrate", "--cluster", "--advertise", advertise, "--etcd", registry.Endpoint, "--drain-notice", "100ms"))
	}
	for i := range clusterDeals {
		createClusterDeal(t, nodes[i%clusterNodes].addr, dealOf(i))
	}
	waitMembers(t, nodes[0], clusterNodes)

	c := &crowd{t: t, at: make(map[string]int), acked: make(map[string]string)}
	t.Cleanup(c.end) // whatever ends the test
	for _, n := range nodes {
		c.nodes = append(c.nodes, n.addr)
	}
	c.start(8)
	c.more(200)

	must(t, nodes[0].kill())
	begin := time.Now()
	c.without(nodes[0].addr)
	for i := range clusterDeals {
		c.place(dealOf(i), "after", "kill")
	}
	took := time.Since(begin)
	if took > answersWithin {
		t.Errorf("all deals answered only %v after their node was killed", took)
	}
	c.more(100)

	c.without(nodes[1].addr)
	slowBefore, paused := c.failed.Load(), watchPauses()
	must(t, nodes[1].signal())
	must(t, nodes[1].cmd.Wait())
	c.more(100)
	// A node that does not run for a part of its lease, or a database that does not, fails
	// orders for that.
	if n, pause := c.failed.Load()-slowBefore, paused(); n > 0 && pause < pauseMost {
		t.Errorf("%d orders failed while a node left", n)
	} else if n > 0 {
		t.Logf("%d orders failed while a node left, on a machine that stood still for %v", n, pause)
	}
	c.end()
	waitMembers(t, nodes[2], 1)
	for id, user := range c.acked {
		status, body, err := request(t.Context(), []string{"GET", "http://" + nodes[2].addr + "/api/v1/orders/" + id})
		for begin := time.Now(); err == nil && (status == 503 || status == 504) && time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
			status, body, err = request(t.Context(), []string{"GET", "http://" + nodes[2].addr + "/api/v1/orders/" + id})
		}
		if err != nil || status != http.StatusOK || !bytes.Contains([]byte(body), []byte(`"`+user+`"`)) {
			t.Errorf("order %s of %s is lost: %d %s %v", id, user, status, body, err)
		}
	}
	t.Logf("%d orders acknowledged, 0 lost; %d tries failed; all deals answered %v after the kill", len(c.acked), c.failed.Load(), took.Round(time.Millisecond))

	var owners bytes.Buffer // of a deal that all of them may have had
	if code := run([]string{"journal", "epochs", dealOf(0), "--postgres", database.URL("postgres"), "--json"}, &owners, &owners); code != 0 {
		t.Errorf("epochs: %s", &owners)
	}
	var epochs []opening
	must(t, json.Unmarshal(owners.Bytes(), &epochs))
	if n := len(epochs); n == 0 || epochs[0].First != 1 || epochs[n-1].By != membersOf(t, nodes[2])[0].Member || epochs[n-1].At.IsZero() {
		t.Errorf("the last node has the deal, and its epochs are %s", &owners)
	}

	drain := []string{"cluster", "drain", membersOf(t, nodes[2])[0].Member, "--admin", nodes[2].admin}
	var said bytes.Buffer
	if code := run(drain, &said, &said); code != 0 {
		t.Errorf("drain: %s", &said)
	}
	must(t, nodes[2].cmd.Wait())
}

// TestNoMemberIsNotReady: a node that is not among the members any more, because another
// one has taken its address, gets no traffic.
func TestNoMemberIsNotReady(t *testing.T) {
	database, registry := pgtest.Start(t), etcdtest.Start(t)
	advertise, err := porttest.Address()
	must(t, err)
	node := startWith(t, "doorbuster", append(serveArgs(t.TempDir()),
		"--postgres", database.URL("postgres"), "--migrate", "--cluster", "--advertise", advertise, "--etcd", registry.Endpoint, "--drain-notice", "0s"))
	becomes := func(status int, detail string) {
		t.Helper()
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			got, body, err := request(t.Context(), []string{"GET", "http://" + node.admin + "/readyz"})
			must(t, err)
			if got == status && strings.Contains(body, detail) {
				return
			}
			if time.Since(begin) > patience {
				t.Fatalf("/readyz: %d %s, want %d", got, body, status)
			}
		}
	}
	becomes(http.StatusOK, "")
	other, err := etcd.New(etcd.Config{Endpoints: []string{registry.Endpoint}})
	must(t, err)
	must(t, other.Join(t.Context(), cluster.Member{ID: "later", Address: advertise}, time.Minute))
	becomes(http.StatusServiceUnavailable, "not a member")
	must(t, other.Close())
	must(t, node.signal())
	must(t, node.cmd.Wait())
}

// pauseMost is for how long a machine may stand still and still be judged.
const pauseMost = 250 * time.Millisecond

// watchPauses watches how long this machine keeps a goroutine from running that only wants to
// look at the time. What it returns ends that and says how long it was at most.
func watchPauses() (end func() time.Duration) {
	stop, longest := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		const every = 5 * time.Millisecond
		most, last := time.Duration(0), time.Now()
		for tick := time.NewTicker(every); ; {
			select {
			case <-stop:
				tick.Stop()
				longest <- most
				return
			case <-tick.C:
				now := time.Now()
				most, last = max(most, now.Sub(last)-every), now
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-longest
	}
}

func dealOf(i int) string { return fmt.Sprintf("flash-%d", i) }

func createClusterDeal(t *testing.T, addr, id string) {
	t.Helper()
	for try := range 5 { // on a busy machine the first may be late
		status, body, err := request(t.Context(), []string{
			"POST", "http://" + addr + "/api/v1/deals",
			`{"deal_id":"` + id + `","merchant_id":"acme","title":"Lychee","currency":"CNY","unit_price":9900,"stock":1000000}`,
		})
		switch {
		case err == nil && (status == http.StatusCreated || try > 0 && status == http.StatusConflict):
			return
		case err != nil || status/100 != 5:
			t.Fatalf("%d %s %v", status, body, err)
		}
	}
	t.Fatalf("%s cannot be made", id)
}

type clusterMember struct {
	Member, Status string
	Self           bool
	Deals          int
}

// membersOf asks a node as operators do.
func membersOf(t *testing.T, n *live) []clusterMember {
	t.Helper()
	var out, problems bytes.Buffer
	if code := run([]string{"cluster", "status", "--json", "--admin", n.admin}, &out, &problems); code != 0 {
		t.Fatalf("cluster status: %s", &problems)
	}
	var reply struct{ Members []clusterMember }
	must(t, json.Unmarshal(out.Bytes(), &reply))
	return reply.Members
}

// waitMembers waits until n nodes share the deals.
func waitMembers(t *testing.T, node *live, n int) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		members := membersOf(t, node)
		deals, ready := 0, 0
		for _, m := range members {
			if deals += m.Deals; m.Status == "ready" && m.Deals > 0 {
				ready++
			}
		}
		if len(members) == n && ready == n && deals == clusterDeals {
			return
		}
		if time.Since(begin) > patience {
			t.Fatalf("the members are %+v", members)
		}
	}
}

// crowd is shoppers who order through all nodes, and try again on the next one with the
// same key when they get no answer.
type crowd struct {
	t      *testing.T
	stop   atomic.Bool
	wait   sync.WaitGroup
	failed atomic.Int64 // tries

	mu    sync.Mutex // guards the rest
	nodes []string
	at    map[string]int    // node → shoppers who wait for its answer
	acked map[string]string // order id → user
}

func (c *crowd) start(shoppers int) {
	for s := range shoppers {
		c.wait.Go(func() {
			for i := 0; !c.stop.Load(); i++ {
				c.place(dealOf((s+i)%clusterDeals), fmt.Sprint("u", s), fmt.Sprint("k", i))
			}
		})
	}
}

// place returns when the order is acknowledged.
func (c *crowd) place(id, user, key string) {
	body := fmt.Sprintf(`{"deal_id":%q,"user_id":%q,"quantity":1}`, id, user)
	for begin := time.Now(); time.Since(begin) < answersWithin && !c.stop.Load(); {
		c.mu.Lock()
		addr := c.nodes[(len(c.acked)+len(key))%len(c.nodes)]
		c.at[addr]++
		c.mu.Unlock()
		status, answer, err := request(context.WithoutCancel(c.t.Context()), []string{"POST", "http://" + addr + "/api/v1/orders", body, "Idempotency-Key: " + user + "-" + id + "-" + key})
		c.mu.Lock()
		c.at[addr]--
		c.mu.Unlock()
		var order struct {
			OrderID string `json:"order_id"`
		}
		if err == nil && status == http.StatusCreated {
			err = json.Unmarshal([]byte(answer), &order)
		}
		if err == nil && order.OrderID != "" {
			c.mu.Lock()
			c.acked[order.OrderID] = user
			c.mu.Unlock()
			return
		}
		c.failed.Add(1)
		if err == nil && status/100 != 5 {
			c.t.Errorf("order: %d %s", status, answer)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !c.stop.Load() {
		c.t.Errorf("no node answers for %s", id)
	}
}

// without takes a node off the list, and returns when no shopper is at it any more.
func (c *crowd) without(addr string) {
	c.mu.Lock()
	for i, n := range c.nodes {
		if n == addr {
			c.nodes = append(append([]string(nil), c.nodes[:i]...), c.nodes[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	for begin := time.Now(); c.waiting(addr); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			c.t.Fatalf("shoppers still wait for %s", addr)
		}
	}
}

func (c *crowd) waiting(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[addr] > 0
}

// more waits until so many more orders are acknowledged.
func (c *crowd) more(n int) {
	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.acked)
	}
	for goal, begin := count()+n, time.Now(); count() < goal; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			c.t.Fatalf("%d of %d orders", count(), goal)
		}
	}
}

func (c *crowd) end() {
	c.stop.Store(true)
	c.wait.Wait()
}
