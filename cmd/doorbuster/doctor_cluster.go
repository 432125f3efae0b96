package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd"
	"github.com/doorbuster/doorbuster/runtime/cluster/k8s"
	"github.com/doorbuster/doorbuster/runtime/cluster/mtls"
)

const (
	// certGood is how long a certificate should be good for at least.
	certGood = 30 * 24 * time.Hour
	// askMax is how long a server of the registry, or a resolver, may take.
	askMax = 3 * time.Second
)

// clusterChecks are those of a node that is one of several.
func clusterChecks(cfg config.Config) []check {
	list := []check{{"advertise", func(ctx context.Context, c config.Config) finding { return checkAdvertise(ctx, c.Advertise) }}}
	if cfg.ClusterTLSCA != "" {
		list = append(list, check{"node certificate", checkNodeCert})
	}
	switch cfg.Provider {
	case config.ProviderK8s:
		list = append(list, check{"leases", checkLeases})
	case config.ProviderStatic:
		for _, peer := range names(cfg.Peers) {
			list = append(list, check{"peer", func(ctx context.Context, _ config.Config) finding { return checkResolves(ctx, peer) }})
		}
	default:
		for _, url := range names(cfg.Etcd) {
			list = append(list, check{"etcd", func(ctx context.Context, c config.Config) finding { return checkEtcd(ctx, c, url) }})
		}
	}
	return list
}

// checkAdvertise looks whether the address is one, and this machine's.
func checkAdvertise(ctx context.Context, address string) finding {
	if f := checkResolves(ctx, address); f.grade != good {
		return f
	}
	return checkPort(ctx, address)
}

func checkResolves(ctx context.Context, address string) finding {
	const advice = "name an address that every node resolves"
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return failed(err, advice)
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return failed(err, advice)
	}
	return finding{seen: fmt.Sprintf("%s is %s", address, found[0])}
}

// checkNodeCert looks at this node's certificate as the other nodes would.
func checkNodeCert(_ context.Context, cfg config.Config) finding {
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		return failed(err, "")
	}
	own, err := mtls.Load(mtls.Config{
		CA: cfg.ClusterTLSCA, Cert: cfg.ClusterTLSCert, Key: cfg.ClusterTLSKey, Names: names(cfg.ClusterNames), Clock: clock,
	})
	if err != nil {
		return failed(err, "")
	}
	until, err := own.Check()
	if err != nil {
		return failed(err, "the other nodes would refuse it: doorbuster keys node-cert makes another, --cluster-names says which names are nodes'")
	}
	left := until.Sub(time.UnixMilli(clock.Now().Wall))
	f := finding{seen: fmt.Sprintf("%s is good until %s", cfg.ClusterTLSCert, until.UTC().Format(time.RFC3339))}
	if left < certGood {
		f.grade, f.advice = poor, "renew it: time left is "+count(int64(left/(24*time.Hour)), "day")
	}
	return f
}

// checkEtcd asks one server for the members, as a node would.
func checkEtcd(ctx context.Context, cfg config.Config, url string) finding {
	c, err := etcdConfig(&cfg)
	if err != nil {
		return failed(err, "")
	}
	c.Endpoints = []string{url}
	registry, err := etcd.New(c)
	if err != nil {
		return failed(fmt.Errorf("%s: %w", url, err), "")
	}
	defer func() { _ = registry.Close() }()
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	members, err := registry.Members(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return failed(fmt.Errorf("%s does not answer", url), "start it, or see whether its address and certificates are right")
	}
	if err != nil {
		return failed(fmt.Errorf("%s: %w", url, err), "")
	}
	return finding{seen: fmt.Sprintf("%s answers and knows %s", url, count(len(members), "member"))}
}

// checkLeases asks Kubernetes for the members, as a node would.
func checkLeases(ctx context.Context, _ config.Config) finding {
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		return failed(err, "")
	}
	registry, err := k8s.New(k8s.Config{Clock: clock})
	if err != nil {
		return failed(err, "run it in a pod that may see to Leases")
	}
	defer func() { _ = registry.Close() }()
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	members, err := registry.Members(ctx)
	if err != nil {
		return failed(err, "let the pod's service account see to Leases of its namespace")
	}
	return finding{seen: "Kubernetes answers and knows " + count(members, "member")}
}
