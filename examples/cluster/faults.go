package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// fault is something that happens to the cluster, and must cost no promise.
type fault struct {
	name string
	// hurt does it. What it returns makes it good again, after hold; nil: there is
	// nothing to make good.
	hurt func(ctx context.Context, k *kit) (mend func() error, err error)
	hold time.Duration
	// within is how soon every deal must answer again, counted from the beginning. 0: as
	// soon as that is made good.
	within time.Duration
	// spared is how long anybody may wait who asks for a deal that keeps its owner. 0: as
	// long as it takes.
	spared time.Duration
	// unnoticed: not one request may fail.
	unnoticed bool
	// pause is how long those may wait who ask while a deal moves, all but one in a
	// hundred. 0: as long as it takes.
	pause time.Duration
	needs need
}

// need is what a fault takes.
type need struct {
	spaces  bool // network namespaces
	nodes   int  // at least
	standby bool
	before  bool // a second version
}

// holdLong outlasts a lease and the time that it takes the others to notice.
const holdLong = 2*lease + time.Second

const (
	// withinPromise is how soon every deal must answer after a node was killed.
	withinPromise = 5 * time.Second
	// sparedPromise tells who waits for a node that was killed, which takes its lease, from
	// who asks one that is gone and then another.
	sparedPromise = lease / 2
	// pausePromise is how long adding a node may hold up those who ask for a deal that
	// moves there.
	pausePromise = 250 * time.Millisecond
	pauseAt      = 0.99
)

// upgrade is the fault that brings nodes of another version to this one.
const upgrade = "rolling upgrade from the version before, back, and again"

// faults are in the order in which they are played.
var faults = []fault{
	// First, so that this version's nodes meet all others.
	{name: upgrade, hurt: rollingUpgrade, unnoticed: true, needs: need{nodes: 2, before: true}},
	{name: "none", hurt: nothing, hold: 3 * time.Second, unnoticed: true},
	{name: "kill -9 a node", hurt: killNode, hold: holdLong, within: withinPromise, spared: sparedPromise, needs: need{nodes: 2}},
	{name: "SIGSTOP the owner for twice the lease, then SIGCONT", hurt: freezeNode, hold: 2 * lease, needs: need{nodes: 2}},
	{name: "full partition of a node", hurt: partition, hold: holdLong, needs: need{spaces: true, nodes: 2}},
	{name: "one-way partition: a node hears nobody but PostgreSQL", hurt: deaf, hold: holdLong, needs: need{spaces: true, nodes: 2}},
	{name: "bridge: two nodes see only the third", hurt: bridged, hold: holdLong, needs: need{spaces: true, nodes: 3}},
	{name: "flapping: a node is cut off every other second", hurt: flap, hold: 2 * lease, needs: need{spaces: true, nodes: 2}},
	{name: "etcd lost and back", hurt: loseEtcd, hold: holdLong, unnoticed: true, needs: need{nodes: 2}},
	{name: "PostgreSQL crashes and starts again", hurt: restartDatabase},
	{name: "connections to PostgreSQL cut in mid-commit", hurt: cutCommits, hold: 2 * time.Second},
	{name: "PostgreSQL fails over to its standby", hurt: promote, needs: need{standby: true}},
	{name: "a node joins", hurt: joinNode, hold: 4 * time.Second, unnoticed: true, pause: pausePromise, needs: need{nodes: 2}},
	{name: "a node leaves", hurt: leaveNode, hold: 2 * time.Second, unnoticed: true, needs: need{nodes: 2}},
	{name: "rolling restart of all", hurt: rollingRestart, unnoticed: true, needs: need{nodes: 2}},
	{name: "clock steps by an hour, forth and back, on one node", hurt: stepClocks, unnoticed: true},
	{name: "disk full on one node", hurt: fillDisk, hold: 3 * time.Second, unnoticed: true, needs: need{spaces: true}},
	{name: "200 ms to everybody from one node", hurt: slowNode, hold: 4 * time.Second, needs: need{spaces: true}},
}

// possible says why a fault cannot be played, or "".
func (f *fault) possible(p *plan) string {
	switch {
	case f.needs.spaces && !p.spaces:
		return "it takes network namespaces"
	case p.nodes < f.needs.nodes:
		return fmt.Sprintf("it takes %d nodes", f.needs.nodes)
	case f.needs.standby && !p.standby:
		return "it takes a standby"
	case f.needs.before && p.from == "":
		return "it takes --from, the revision of another version"
	}
	return ""
}

func nothing(context.Context, *kit) (mend func() error, err error) { return nil, nil }

// victim is the node that faults of one node happen to.
func (k *kit) victim() *node { return k.balanced()[0] }

func killNode(ctx context.Context, k *kit) (mend func() error, err error) {
	n := k.victim()
	n.kill()
	return func() error { return n.start(ctx) }, nil
}

func freezeNode(_ context.Context, k *kit) (mend func() error, err error) {
	n := k.victim()
	return func() error { return cont(n.cmd) }, stop(n.cmd)
}

// others are the addresses of all nodes but one.
func (k *kit) others(n *node) (ips []string) {
	for _, other := range k.balanced() {
		if other != n {
			ips = append(ips, other.host.ip)
		}
	}
	return ips
}

// partition leaves a node nobody but the shoppers.
func partition(ctx context.Context, k *kit) (mend func() error, err error) {
	n := k.victim()
	all := append(k.others(n), k.ground.ip(linksAt))
	return func() error { return n.host.heal(ctx) }, n.host.cut(ctx, all, all)
}

// deaf is a node whose lease ends without its knowing, and that can still write.
func deaf(ctx context.Context, k *kit) (mend func() error, err error) {
	n := k.victim()
	if err := n.host.cut(ctx, k.others(n), nil); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(n.host.heal(ctx), each(n.registry, (*link).mend)) }, each(n.registry, (*link).silence)
}

func bridged(ctx context.Context, k *kit) (mend func() error, err error) {
	nodes := k.balanced()
	a, b := nodes[1].host, nodes[2].host
	return func() error { return a.heal(ctx) }, a.cut(ctx, []string{b.ip}, []string{b.ip})
}

// flap cuts the connections of a node to its peers and to etcd; PostgreSQL stays.
func flap(ctx context.Context, k *kit) (mend func() error, err error) {
	n := k.victim()
	const times = 4
	for range times {
		err := errors.Join(each(n.registry, (*link).silence), n.host.cut(ctx, k.others(n), k.others(n)), k.sleep(ctx, time.Second),
			each(n.registry, (*link).mend), n.host.heal(ctx), k.sleep(ctx, time.Second))
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func loseEtcd(ctx context.Context, k *kit) (mend func() error, err error) {
	k.etcd.kill()
	return func() error { return k.etcd.start(ctx) }, nil
}

func restartDatabase(_ context.Context, k *kit) (mend func() error, err error) {
	return nil, errors.Join(k.database.crash(), k.database.start())
}

func promote(_ context.Context, k *kit) (mend func() error, err error) {
	return nil, k.database.promote()
}

func cutCommits(_ context.Context, k *kit) (mend func() error, err error) {
	return k.eachLink((*link).mend), k.eachLink((*link).breaks)()
}

// eachLink does something to the way of each node to PostgreSQL.
func (k *kit) eachLink(do func(*link) error) func() error {
	return func() (err error) {
		for _, n := range k.balanced() {
			err = errors.Join(err, each(n.database, do))
		}
		return err
	}
}

func joinNode(ctx context.Context, k *kit) (mend func() error, err error) {
	n, err := k.prepare(ctx)
	if err != nil {
		return nil, err
	}
	return func() error {
		err := n.leave(ctx)
		k.forget(n)
		return err
	}, k.join(ctx, n)
}

func leaveNode(ctx context.Context, k *kit) (mend func() error, err error) {
	n := k.victim()
	return func() error { return n.start(ctx) }, n.leave(ctx)
}

func rollingRestart(ctx context.Context, k *kit) (mend func() error, err error) {
	for _, n := range k.balanced() {
		if err := errors.Join(n.leave(ctx), n.start(ctx)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// rollingUpgrade brings the schema up to date while all nodes are of the version before, and
// then gives them this version, node by node, the one before, and this one again.
func rollingUpgrade(ctx context.Context, k *kit) (mend func() error, err error) {
	if err := k.migrate(ctx, k.binary); err != nil {
		return nil, err
	}
	return nil, k.rollEach([]string{k.binary, k.before, k.binary}, func(n *node) error {
		return errors.Join(n.leave(ctx), n.start(ctx))
	})
}

// rollEach gives all nodes one binary after the other, node by node.
func (k *kit) rollEach(binaries []string, restart func(*node) error) error {
	for _, binary := range binaries {
		for _, n := range k.balanced() {
			n.binary = binary
			if err := restart(n); err != nil {
				return fmt.Errorf("%s as %s: %w", n.host.name, filepath.Base(binary), err)
			}
		}
	}
	return nil
}

func stepClocks(ctx context.Context, k *kit) (mend func() error, err error) {
	pid := k.victim().cmd.Process.Pid
	for _, by := range []time.Duration{time.Hour, -time.Hour, 0} {
		if err := errors.Join(stepClock(ctx, pid, by), k.sleep(ctx, 2*time.Second)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// fillDisk puts a full file system where the node has its data.
func fillDisk(_ context.Context, k *kit) (mend func() error, err error) {
	data := filepath.Join(k.victim().dir, "data")
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=64k"); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	err = os.WriteFile(filepath.Join(data, "full"), make([]byte, 128<<10), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, fmt.Errorf("the disk is not full: %w", err)
	}
	return func() error { return syscall.Unmount(data, syscall.MNT_DETACH) }, nil
}

// slowNode puts links between a node and everybody, and makes them slow.
func slowNode(ctx context.Context, k *kit) (mend func() error, err error) {
	n := k.victim()
	turned := make(map[string]string)
	slowed := slices.Concat(n.database, n.registry)
	for _, other := range k.balanced() {
		if other == n {
			continue
		}
		addr := other.host.addr(clusterPort)
		carried, err := k.links.to(n.host.name+" to "+other.host.name, addr)
		if err != nil {
			return nil, err
		}
		turned[addr] = carried.Listen
		slowed = append(slowed, carried)
	}
	if err := each(slowed, (*link).slow); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(each(slowed, (*link).mend), n.host.heal(ctx)) }, n.host.turn(ctx, turned)
}
