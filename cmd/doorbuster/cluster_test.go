package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/runtime/cluster/etcd/etcdtest"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
)

const (
	clusterNodes = 3
	clusterDeals = 24 // so that no node goes without
	// answersWithin is how long a deal may be silent whose node was killed.
	answersWithin = 5 * time.Second
)

// TestCluster runs three nodes as operators do, with etcd and PostgreSQL, and orders
// through all of them for the same deals, while one is killed and another one is stopped.
// Every order that was acknowledged is there at the end.
func TestCluster(t *testing.T) {
	database, registry := pgtest.Start(t), etcdtest.Start(t)
	var nodes [clusterNodes]*live
	for i := range nodes {
		advertise, err := freeAddress(t.Context())
		must(t, err)
		nodes[i] = startWith(t, "doorbuster", append(serveArgs(t.TempDir()),
			"--postgres", database.URL("postgres"), "--migrate", "--cluster", "--advertise", advertise, "--etcd", registry.Endpoint, "--drain-notice", "100ms"))
	}
	for i := range clusterDeals {
		createClusterDeal(t, nodes[i%clusterNodes].addr, dealOf(i))
	}
	waitMembers(t, nodes[0], clusterNodes)

	c := &crowd{t: t, acked: make(map[string]string)}
	for _, n := range nodes {
		c.nodes = append(c.nodes, n.addr)
	}
	c.start(8)
	c.more(200)

	c.without(nodes[0].addr)
	must(t, nodes[0].kill())
	begin := time.Now()
	for i := range clusterDeals {
		c.place(dealOf(i), "after", "kill")
	}
	took := time.Since(begin)
	if took > answersWithin {
		t.Errorf("all deals answered only %v after their node was killed", took)
	}
	c.more(100)

	c.without(nodes[1].addr)
	slowBefore := c.failed.Load()
	must(t, nodes[1].signal())
	must(t, nodes[1].cmd.Wait())
	c.more(100)
	if n := c.failed.Load() - slowBefore; n > 0 {
		t.Errorf("%d orders failed while a node left", n)
	}
	c.end()
	waitMembers(t, nodes[2], 1)
	for id, user := range c.acked {
		status, body, err := request(t.Context(), []string{"GET", "http://" + nodes[2].addr + "/api/v1/orders/" + id})
		if err != nil || status != http.StatusOK || !bytes.Contains([]byte(body), []byte(`"`+user+`"`)) {
			t.Errorf("order %s of %s is lost: %d %s %v", id, user, status, body, err)
		}
	}
	t.Logf("%d orders acknowledged, 0 lost; %d tries failed; all deals answered %v after the kill", len(c.acked), c.failed.Load(), took.Round(time.Millisecond))

	drain := []string{"cluster", "drain", membersOf(t, nodes[2])[0].Member, "--admin", nodes[2].admin}
	var said bytes.Buffer
	if code := run(drain, &said, &said); code != 0 {
		t.Errorf("drain: %s", &said)
	}
	must(t, nodes[2].cmd.Wait())
}

func dealOf(i int) string { return fmt.Sprintf("flash-%d", i) }

func createClusterDeal(t *testing.T, addr, id string) {
	t.Helper()
	status, body, err := request(t.Context(), []string{
		"POST", "http://" + addr + "/api/v1/deals",
		`{"deal_id":"` + id + `","merchant_id":"acme","title":"Lychee","currency":"CNY","unit_price":9900,"stock":1000000}`,
	})
	if err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s %v", status, body, err)
	}
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
		if time.Since(begin) > 20*time.Second {
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
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		c.mu.Lock()
		addr := c.nodes[(len(c.acked)+len(key))%len(c.nodes)]
		c.mu.Unlock()
		status, answer, err := request(context.WithoutCancel(c.t.Context()), []string{"POST", "http://" + addr + "/api/v1/orders", body, "Idempotency-Key: " + user + "-" + id + "-" + key})
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
	c.t.Errorf("no node answers for %s", id)
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
}

// more waits until so many more orders are acknowledged.
func (c *crowd) more(n int) {
	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.acked)
	}
	for goal, begin := count()+n, time.Now(); count() < goal; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			c.t.Fatalf("%d of %d orders", count(), goal)
		}
	}
}

func (c *crowd) end() {
	c.stop.Store(true)
	c.wait.Wait()
}
