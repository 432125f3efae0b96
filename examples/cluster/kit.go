package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// plan is what to do.
type plan struct {
	nodes   int
	deals   int
	perDeal int     // shoppers
	rate    float64 // questions a second of all shoppers together
	seed    uint64
	slowest int    // questions to tell of, of each row
	binary  string // doorbuster; "" builds it
	from    string // a revision of this repository that everything begins as, to be upgraded; "" = none
	spaces  bool   // each host has a network namespace
	standby bool   // PostgreSQL has one
	pinned  bool   // each node has one processor, in turn; it takes spaces
	direct  bool   // nodes reach PostgreSQL and etcd without links
	keep    bool   // the folder with the logs, also if all went well
}

func (p *plan) validate() error {
	if p.nodes < 1 || p.nodes > nodesMost || p.deals < kindsOfDeals || p.perDeal < 1 || p.rate <= 0 {
		return fmt.Errorf("want 1 to %d nodes, at least %d deals, a shopper for each and a rate", nodesMost, kindsOfDeals)
	}
	return nil
}

const nodesMost = 5

// kit is a cluster that can be broken.
type kit struct {
	plan
	dir      string
	before   string // the binary of plan.from
	out      io.Writer
	clock    *clockd.Clock
	ground   *ground
	links    *links
	common   setting // of the nodes
	database *database
	etcd     *etcd

	mu      sync.Mutex // guards serving
	serving []*node    // that the balancer knows of; the slice is never changed in place
	nodes   []*node    // all that were ever made
}

// newKit starts everything. The caller must close it, also after an error.
func newKit(ctx context.Context, p plan, out io.Writer) (k *kit, err error) {
	k = &kit{plan: p, out: out}
	if err := p.validate(); err != nil {
		return k, err
	}
	if k.dir, err = os.MkdirTemp("", "doorbuster-cluster-"); err != nil {
		return k, err
	}
	if k.clock, err = clockd.New(clockd.Config{}); err != nil {
		return k, err
	}
	k.clock.Start()
	if k.ground, err = newGround(ctx, p.spaces); err != nil {
		return k, err
	}
	k.links = newLinks(k.ground)
	if k.binary == "" {
		if k.binary, err = build(ctx, k.dir); err != nil {
			return k, err
		}
	}
	if k.from != "" {
		if k.before, err = buildRevision(ctx, k.dir, k.from); err != nil {
			return k, err
		}
	}
	k.common = setting{binary: cmp.Or(k.before, k.binary), dir: k.dir, alone: p.nodes == 1, direct: p.direct, connections: p.deals*p.perDeal + 1}
	if err := k.startServices(ctx); err != nil {
		return k, err
	}
	return k, k.startNodes(ctx)
}

// build builds the product.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "doorbuster")
	return binary, command(ctx, "go", "build", "-o", binary, "github.com/doorbuster/doorbuster/cmd/doorbuster")
}

// buildRevision builds the product as it was at another revision of the repository
// that this program was started in. Of what it is made of, the cache has all but its own
// packages.
func buildRevision(ctx context.Context, dir, revision string) (string, error) {
	root, err := git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	source := filepath.Join(dir, "source")
	archive, binary := source+".tar", filepath.Join(dir, "doorbuster-before")
	if err := os.Mkdir(source, 0o755); err != nil {
		return "", err
	}
	for _, step := range [][]string{
		{"git", "-C", root, "archive", "--output", archive, revision},
		{"tar", "-x", "-f", archive, "-C", source},
		{"go", "build", "-C", source, "-pgo=off", "-o", binary, "./cmd/doorbuster"},
	} {
		if err := command(ctx, step[0], step[1:]...); err != nil {
			return "", err
		}
	}
	return binary, nil
}

// versionBefore is the newest release before this commit or, as long as there is none, the
// commit before. An error says that there is no history to take either from.
func versionBefore(ctx context.Context) (revision string, err error) {
	if at, err := git(ctx, "rev-parse", "--show-prefix"); err != nil || at != "examples/cluster/" {
		return "", fmt.Errorf("this is not the repository's own folder, but %q of one: %w", at, err)
	}
	before, err := git(ctx, "rev-parse", "--verify", "HEAD~1^{commit}")
	if err != nil {
		return "", err
	}
	if tag, err := git(ctx, "describe", "--tags", "--abbrev=0", before); err == nil {
		return tag, nil
	}
	return before, nil
}

// git returns what it says.
func git(ctx context.Context, args ...string) (string, error) {
	said, err := exec.CommandContext(ctx, "git", args...).Output()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = fmt.Errorf("git %s: %s", args[0], bytes.TrimSpace(ended.Stderr))
	}
	return strings.TrimSpace(string(said)), err
}

func (k *kit) startServices(ctx context.Context) error {
	at, err := k.ground.host(ctx, "postgres", postgresAt)
	if err != nil {
		return err
	}
	if k.database, err = startDatabase(at, k.dir, k.standby); err != nil {
		return err
	}
	if err := k.migrate(ctx, k.common.binary); err != nil {
		return err
	}
	if at, err = k.ground.host(ctx, "etcd", etcdAt); err != nil || k.common.alone {
		return err
	}
	k.etcd, err = startEtcd(ctx, at, k.dir)
	return err
}

// migrate brings the schema to what a binary needs.
func (k *kit) migrate(ctx context.Context, binary string) error {
	return command(ctx, binary, "migrate", "--postgres", databaseURL(k.database.addrs()))
}

func (k *kit) startNodes(ctx context.Context) error {
	if k.ground.spaces { // where nobody is on loopback, callers need keys and nodes certificates
		if err := k.secure(ctx); err != nil {
			return err
		}
	}
	for range k.plan.nodes {
		n, err := k.prepare(ctx)
		if err != nil {
			return err
		}
		if err := k.join(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// secure makes an operator's key.
func (k *kit) secure(ctx context.Context) error {
	said, err := exec.CommandContext(ctx, k.common.binary, "keys", "create", "--role", "operator", "--postgres", databaseURL(k.database.addrs())).Output()
	if err != nil {
		return fmt.Errorf("keys create: %w", err)
	}
	k.common.token = strings.TrimSpace(string(said))
	if !k.common.alone {
		k.common.certs = filepath.Join(k.dir, "certs")
		for number := range namesMost {
			k.common.names = append(k.common.names, nodeName(number))
		}
	}
	return nil
}

// prepare makes another node that is not started yet.
func (k *kit) prepare(ctx context.Context) (*node, error) {
	number := len(k.nodes)
	name := nodeName(number)
	h, err := k.ground.host(ctx, name, firstNodeAt+number)
	if err != nil {
		return nil, err
	}
	if k.common.certs != "" {
		if err := command(ctx, k.binary, "keys", "node-cert", "--dir", k.common.certs, "--name", name, "--host", h.ip); err != nil {
			return nil, err
		}
	}
	n, err := newNode(h, &k.common, k.links, k.database, k.etcd)
	if err == nil {
		if n.begin = n.launch; k.pinned {
			n.begin = func() error { return errors.Join(pin(number), n.launch()) }
		}
		k.nodes = append(k.nodes, n)
	}
	return n, err
}

// namesMost bounds the nodes that may ever join.
const namesMost = 100

func nodeName(number int) string { return "node-" + strconv.Itoa(number+1) }

// join starts a node and tells the balancer of it.
func (k *kit) join(ctx context.Context, n *node) error {
	if err := n.start(ctx); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.serving, n) {
		k.serving = append(slices.Clone(k.serving), n)
	}
	return nil
}

// forget tells the balancer of a node's end.
func (k *kit) forget(n *node) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.serving = slices.DeleteFunc(slices.Clone(k.serving), func(other *node) bool { return other == n })
}

// balanced is the nodes that the balancer knows of.
func (k *kit) balanced() []*node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.serving
}

func (k *kit) sleep(ctx context.Context, d time.Duration) error {
	return clockd.SleepUntil(ctx, clockd.Mono()+int64(d))
}

// close ends everything. The logs stay if failed, or if that is the plan.
func (k *kit) close(failed bool) error {
	for _, n := range k.nodes {
		n.kill()
		n.api.Close()
	}
	if k.links != nil {
		k.links.close()
	}
	if k.etcd != nil {
		k.etcd.kill()
	}
	if k.database != nil {
		k.database.close()
	}
	if k.clock != nil {
		k.clock.Close()
	}
	if k.dir == "" {
		return nil
	}
	if failed || k.keep {
		fmt.Fprintln(k.out, "logs are in", k.dir)
		return nil
	}
	return errors.Join(os.RemoveAll(k.dir))
}
