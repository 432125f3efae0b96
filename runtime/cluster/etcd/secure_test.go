package etcd_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd/etcdtest"
	"github.com/doorbuster/doorbuster/runtime/cluster/mtls"
)

// A server that asks for certificates and passwords takes a member that has both, and
// nobody else.
func TestSecured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := func(name string) mtls.Files {
		f, err := mtls.Issue(dir, name, []string{"127.0.0.1"}, time.Now(), false)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	of, own := files("etcd"), files("node")
	server := etcdtest.Start(t, "--client-cert-auth", "--trusted-ca-file", of.CA, "--cert-file", of.Cert, "--key-file", of.Key)
	authority, err := os.ReadFile(of.CA)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(own.Cert, own.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	known := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Endpoint}, TLS: known, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := admin.UserAdd(ctx, "root", "secret")
	_, err2 := admin.UserGrantRole(ctx, "root", "root")
	_, err3 := admin.AuthEnable(ctx)
	if err := firstOf(err1, err2, err3, admin.Close()); err != nil {
		t.Fatal(err)
	}

	for name, test := range map[string]struct {
		cfg  etcd.Config
		good bool
	}{
		"both":           {etcd.Config{TLS: known, Username: "root", Password: "secret"}, true},
		"no password":    {etcd.Config{TLS: known}, false},
		"another":        {etcd.Config{TLS: known, Username: "root", Password: "guess"}, false},
		"no certificate": {etcd.Config{TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, Username: "root", Password: "secret"}, false},
	} {
		test.cfg.Endpoints = []string{server.Endpoint}
		patience := 5 * time.Second // some are refused without a word
		if test.good {
			patience = time.Minute
		}
		if err := join(ctx, test.cfg, patience); (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// join makes a member, renews its lease and looks for it.
func join(ctx context.Context, cfg etcd.Config, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := etcd.New(cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Join(ctx, cluster.Member{ID: "1", Address: "one:1"}, time.Minute); err != nil {
		return err
	}
	if err := r.Renew(ctx); err != nil {
		return err
	}
	if members, err := r.Members(ctx); err != nil || len(members) != 1 {
		return firstOf(err, os.ErrNotExist)
	}
	return r.Leave(ctx)
}
