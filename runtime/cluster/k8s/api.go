package k8s

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// account is where a pod finds who it is.
// https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	pingEvery   = 5 * time.Second // asks a connection that is silent whether it is there
	pingTimeout = 3 * time.Second
	complaint   = 512 // bytes of an error's body that are shown
)

// api speaks to Kubernetes' REST API about the Leases of a namespace.
type api struct {
	client    *http.Client
	leases    string // URL
	tokenFile string
}

func newAPI(cfg *Config) (api, error) {
	server := cmp.Or(cfg.Server, inCluster())
	if server == "" {
		return api{}, errors.New("this is no pod: Server is required")
	}
	namespace, err := cfg.Namespace, error(nil)
	if namespace == "" {
		namespace, err = readFile(filepath.Join(account, "namespace"))
	}
	if err != nil {
		return api{}, err
	}
	a := api{leases: strings.TrimSuffix(server, "/") + "/apis/coordination.k8s.io/v1/namespaces/" + url.PathEscape(namespace) + "/leases", tokenFile: cfg.TokenFile}
	caFile := cfg.CAFile
	if cfg.Server == "" {
		a.tokenFile = cmp.Or(a.tokenFile, filepath.Join(account, "token"))
		caFile = cmp.Or(caFile, filepath.Join(account, "ca.crt"))
	}
	roots, err := certificates(caFile)
	if err != nil {
		return api{}, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	a.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		Protocols:       protocols,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: pingEvery, PingTimeout: pingTimeout},
	}}
	return a, nil
}

// inCluster is the URL of the API as a pod is told it, or "".
func inCluster() string {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return ""
	}
	return "https://" + net.JoinHostPort(host, port)
}

// certificates reads a bundle; nil, the system's, if there is none.
func certificates(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // as crypto/tls has it
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

func readFile(file string) (string, error) {
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}

// send makes a request. The response has a status that says it went well.
func (a *api) send(ctx context.Context, method, name string, query url.Values, body io.Reader) (*http.Response, error) {
	target := a.leases
	if name != "" {
		target += "/" + url.PathEscape(name)
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if a.tokenFile != "" {
		token, err := readFile(a.tokenFile)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close() //nolint:errcheck // only its beginning is wanted
		said, _ := io.ReadAll(io.LimitReader(resp.Body, complaint))
		return nil, &statusError{status: resp.StatusCode, said: strings.TrimSpace(string(said))}
	}
	return resp, nil
}

// statusError is the API's refusal.
type statusError struct {
	status int
	said   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("HTTP %d: %s", e.status, e.said)
}

func isStatus(err error, status int) bool {
	refused, ok := errors.AsType[*statusError](err)
	return ok && refused.status == status
}
