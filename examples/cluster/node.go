package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	httpPort    = 8080
	adminPort   = 9090
	clusterPort = 7000

	// lease is how long a node that is not heard of stays a member.
	lease = 3 * time.Second
	// patienceOne is how long a shopper waits for one answer: longer than a node makes
	// anybody wait.
	patienceOne = 6 * time.Second
)

// node is a doorbuster server on a host of its own.
type node struct {
	host   *host
	dir    string // its data, and its log
	binary string // that it runs
	args   []string
	api    *client.Client
	token  string

	// What it reaches PostgreSQL and etcd by; none if it does so directly.
	database, registry []*link

	begin func() error // starts cmd, on a thread of the host's
	cmd   *exec.Cmd
	ended chan error // the process's end, once
	life  atomic.Pointer[life]
	ready atomic.Bool // as the balancer sees it
}

// life is that of one process.
type life struct {
	over atomic.Bool // it has ended, or been told to
}

// isOver says whether the process has ended or been told to; there may have been none.
func (l *life) isOver() bool { return l == nil || l.over.Load() }

// setting is what all nodes have in common.
type setting struct {
	binary      string
	dir         string
	token       string   // an operator's key; "" on loopback
	alone       bool     // one node, no cluster
	direct      bool     // it has no links
	connections int      // of the shoppers, to each node
	certs       string   // folder of the nodes' certificates; "" on loopback
	names       []string // of all nodes that have one
}

// newNode prepares a node. Its links are of its own, so that they can be broken alone.
func newNode(h *host, s *setting, l *links, d *database, e *etcd) (*node, error) {
	n := &node{host: h, dir: filepath.Join(s.dir, h.name), binary: s.binary, token: s.token}
	if err := os.MkdirAll(filepath.Join(n.dir, "data"), 0o755); err != nil {
		return nil, err
	}
	var servers, registry []string
	var err error
	if n.database, servers, err = l.toAll(h.name+" to PostgreSQL", d.addrs(), s.direct); err != nil {
		return nil, err
	}
	n.args = []string{
		"serve", "--listen", h.addr(httpPort), "--admin", h.addr(adminPort), "--data", filepath.Join(n.dir, "data"),
		"--postgres", databaseURL(servers),
	}
	if !s.alone {
		if n.registry, registry, err = l.toAll(h.name+" to etcd", []string{e.host.addr(etcdPort)}, s.direct); err != nil {
			return nil, err
		}
		n.args = append(n.args, "--cluster", "--advertise", h.addr(clusterPort), "--provider", "etcd", "--etcd", "http://"+registry[0])
	}
	if s.certs != "" {
		n.args = append(n.args,
			"--cluster-tls-ca", filepath.Join(s.certs, "ca.pem"),
			"--cluster-tls-cert", filepath.Join(s.certs, h.name+".pem"),
			"--cluster-tls-key", filepath.Join(s.certs, h.name+"-key.pem"),
			"--cluster-names", strings.Join(s.names, ","))
	}
	n.api, err = client.New(client.Config{Addr: h.addr(httpPort), Token: s.token, Connections: s.connections, Timeout: patienceOne})
	return n, err
}

// start returns when the node is ready.
func (n *node) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()        // the process has its own
	n.cmd = exec.Command(n.binary, n.args...) //nolint:noctx // ended by kill or leave
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.host.run(n.begin); err != nil {
		return err
	}
	n.ended = make(chan error, 1)
	begun := &life{}
	n.life.Store(begun)
	go func(cmd *exec.Cmd, ended chan<- error) {
		err := cmd.Wait()
		begun.over.Store(true)
		ended <- err
	}(n.cmd, n.ended)
	n.api.Close() // connections to the process before
	err = until(ctx, n.host.name+" is ready", func() bool { return n.isReady(ctx) || n.gone() })
	if err == nil && n.gone() {
		err = errors.New("it ended")
	}
	if err != nil {
		return fmt.Errorf("%s did not start, see %s: %w", n.host.name, log.Name(), err)
	}
	n.ready.Store(true)
	return nil
}

func (n *node) launch() error { return n.cmd.Start() }

func (n *node) isReady(ctx context.Context) bool {
	_, err := get(ctx, "http://"+n.host.addr(adminPort)+"/readyz")
	return err == nil
}

// gone says whether the process has ended by itself.
func (n *node) gone() bool { return len(n.ended) > 0 }

// kill ends the node as a crash would.
func (n *node) kill() {
	if n.cmd == nil || n.ended == nil {
		return
	}
	n.life.Load().over.Store(true)
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.ended                //nolint:errcheck // says that it was killed
	n.ended = nil
}

// leave ends the node in good order: its exit code says whether it was one.
func (n *node) leave(ctx context.Context) error {
	n.life.Load().over.Store(true)
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := until(ctx, n.host.name+" has left", n.gone); err != nil {
		return err
	}
	err := <-n.ended
	n.ended = nil
	if err != nil {
		return fmt.Errorf("%s left with %w", n.host.name, err)
	}
	return nil
}
