package main

import (
	"math/rand/v2"
	"net"
	"testing"

	"github.com/doorbuster/doorbuster/gateway/client"
)

// TestOnlyTheDeadAreExcused: who asks a node that ends begins to wait anew at the next one.
// A node that lives and resets connections has made its shoppers wait.
func TestOnlyTheDeadAreExcused(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}()
	api, err := client.New(client.Config{Addr: listener.Addr().String(), Connections: 1, Timeout: patienceOne})
	must(t, err)
	defer api.Close()
	n, process := &node{host: &host{name: "node-1"}, api: api}, &life{}
	n.life.Store(process)
	s := &shopper{shop: &shop{nodes: func() []*node { return []*node{n} }}, rng: rand.New(rand.NewPCG(1, 1))}
	o := &op{what: look, deal: "d"}
	s.try(t.Context(), o)
	first := o.reached
	s.try(t.Context(), o)
	if first == 0 || o.reached != first || o.failures != 2 {
		t.Errorf("a node that lives is excused: %d, then %d, %d failures: %v", first, o.reached, o.failures, o.failure)
	}
	process.over.Store(true)
	s.try(t.Context(), o)
	if o.reached != 0 {
		t.Error("a node that is gone is not excused")
	}
}
