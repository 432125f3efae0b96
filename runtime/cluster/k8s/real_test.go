//go:build kubernetes

package k8s_test

// What the fake stands for: Kubernetes' own API server before a real etcd, asked by an
// account that may do what the manifests allow it. `go tool task cluster:kubernetes` compiles it.

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/cluster/etcd/etcdtest"
	"github.com/doorbuster/doorbuster/runtime/cluster/k8s"
	"github.com/doorbuster/doorbuster/runtime/cluster/registrytest"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// binary is the variable that names the API server's.
const binary = "KUBE_APISERVER"

// operator is the token of one who may do everything.
const operator = "an-operator"

// realServer is a kube-apiserver on loopback with the namespace "shop" in it.
type realServer struct {
	url    string
	dir    string // certificates, keys and tokens
	args   []string
	client *http.Client

	process *exec.Cmd
}

func startReal(t *testing.T) *realServer {
	t.Helper()
	address, err := porttest.Address()
	if err != nil {
		t.Fatal(err)
	}
	s := &realServer{url: "https://" + address, dir: t.TempDir(), client: &http.Client{
		Timeout:   registrytest.Patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, //nolint:gosec // its certificate comes later
	}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "accounts.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	s.write(t, "tokens.csv", []byte(operator+`,operator,operator,"system:masters"`))
	host, port, _ := strings.Cut(address, ":")
	s.args = []string{
		"--etcd-servers", etcdtest.Start(t).Endpoint, "--bind-address", host, "--secure-port", port, "--cert-dir", s.dir,
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", s.file("accounts.key"), "--service-account-signing-key-file", s.file("accounts.key"),
		"--token-auth-file", s.file("tokens.csv"), "--authorization-mode", "RBAC",
		"--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none",
	}
	s.up(t)
	t.Cleanup(func() { s.down(); s.client.CloseIdleConnections() })
	s.furnish(t)
	return s
}

func (s *realServer) file(name string) string { return filepath.Join(s.dir, name) }

func (s *realServer) write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(s.file(name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// up starts the server and waits until it is ready.
func (s *realServer) up(t *testing.T) {
	t.Helper()
	log, err := os.Create(s.file("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the server has its own
	s.process = exec.Command(os.Getenv(binary), s.args...)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		t.Fatalf("%s is to name a kube-apiserver: %v", binary, err)
	}
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if _, err := s.ask(http.MethodGet, "/readyz", "", nil); err == nil {
			return
		} else if time.Since(begin) > 4*registrytest.Patience {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("it is never ready: %v\n%s", err, said)
		}
	}
}

// down kills the server.
func (s *realServer) down() {
	_ = s.process.Process.Kill() // it may have ended before
	_ = s.process.Wait()
}

// ask makes an operator's request and returns the answer to it.
func (s *realServer) ask(method, path, form string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+operator)
	req.Header.Set("Content-Type", form)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: HTTP %d: %s", method, path, resp.StatusCode, said)
	}
	return said, err
}

// furnish makes the namespace, and in it the account of the manifests, and keeps a token of it.
func (s *realServer) furnish(t *testing.T) {
	t.Helper()
	manifest, err := os.ReadFile("../../../deploy/kubernetes/base/access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Kustomize says in which namespace an account is.
	placed := strings.ReplaceAll(string(manifest), "  - kind: ServiceAccount\n", "  - kind: ServiceAccount\n    namespace: shop\n")
	const yaml, core, rbac = "application/yaml", "/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1/namespaces/shop"
	account, access, _ := strings.Cut(placed, "---\n")
	role, binding, _ := strings.Cut(access, "---\n")
	for _, object := range []struct{ path, text string }{
		{core, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}`},
		{core + "/shop/serviceaccounts", account},
		{rbac + "/roles", role},
		{rbac + "/rolebindings", binding},
	} {
		if _, err := s.ask(http.MethodPost, object.path, yaml, []byte(object.text)); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := s.ask(http.MethodPost, core+"/shop/serviceaccounts/doorbuster/token", yaml,
		[]byte(`{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}`))
	var made struct{ Status struct{ Token string } }
	if err == nil {
		err = json.Unmarshal(answer, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "token", []byte(made.Status.Token))
}

func (s *realServer) in(t testing.TB, namespace string) *k8s.Registry {
	t.Helper()
	r, err := k8s.New(k8s.Config{
		Clock: registrytest.Clock(t), Server: s.url, Namespace: namespace,
		TokenFile: s.file("token"), CAFile: s.file("apiserver.crt"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *realServer) open(t testing.TB) cluster.Registry { return s.in(t, "shop") }

func TestRealMembers(t *testing.T) {
	s := startReal(t)
	registrytest.Run(t, func(t testing.TB, _ []string) cluster.Registry { return s.open(t) })
}

func TestRealRecords(t *testing.T) { registrytest.Records(t, startReal(t).open) }

// Its account reaches the Leases of its namespace, and nothing else.
func TestRealAccess(t *testing.T) {
	s := startReal(t)
	for namespace, allowed := range map[string]bool{"shop": true, "default": false} {
		r := s.in(t, namespace)
		if _, err := r.Members(t.Context()); (err == nil) != allowed {
			t.Errorf("%s: %v", namespace, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A server that is killed and comes back later than a lease has cost nobody their
// membership, and whose Lease is deleted begins another life.
func TestRealAway(t *testing.T) {
	s := startReal(t)
	var members []*registrytest.Node
	var addresses []string
	for range 3 {
		addresses = append(addresses, registrytest.Address(t))
		members = append(members, registrytest.Start(t, addresses[len(members)], s.open(t), registrytest.Lasts))
	}
	for _, n := range members {
		n.Sees(t, addresses...)
	}
	s.down()
	time.Sleep(ttl + ttl/4)
	s.up(t)
	late := registrytest.Start(t, registrytest.Address(t), s.open(t), registrytest.Lasts)
	addresses = append(addresses, late.Address)
	for _, n := range members {
		n.Sees(t, addresses...)
		if n.Losses() > 0 {
			t.Errorf("%s lost a lease that nobody could renew", n.Address)
		}
	}

	victim, id := members[0], members[0].ID()
	if _, err := s.ask(http.MethodDelete, leases+"/doorbuster-"+id, "", nil); err != nil {
		t.Fatal(err)
	}
	victim.Await(t, "its next life", func(*cluster.Topology) bool { return victim.Losses() == 1 && victim.ID() != "" && victim.ID() != id })
	members[1].Sees(t, addresses...)
}
