// Package mtls is the credentials with which the nodes of a cluster speak to each
// other: TLS 1.3, both sides verified.
//
// A node is who its certificate says it is: the other side must show one that chains
// up to the authority and carries a DNS name of the allow-list. By which address it was
// reached proves nothing (addresses come from the registry, and move), so it is not
// compared with the certificate.
//
// Files are read again when they change, so certificates can be renewed under a running
// node: connections that are made from then on use the new ones. While what is there
// cannot be used (half of it was replaced, say), the last that could be is.
package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/doorbuster/doorbuster/clockd"
)

const (
	// fileMax bounds each file.
	fileMax = 1 << 20
	// lookEvery bounds how often the files are looked at.
	lookEvery = time.Second
)

// Config says who this node is, and whom it speaks to. All but Logger is required.
type Config struct {
	CA    string        // file of the authority's certificates, PEM
	Cert  string        // file of this node's certificate and what is between, PEM
	Key   string        // file of its private key, PEM
	Names []string      // of the nodes: the other side's certificate has one of them
	Clock *clockd.Clock // bounds how often the files are looked at
	// Logger is told of handshakes that fail, and of files that cannot be used.
	Logger *slog.Logger
}

// Credentials are a node's, as they are in its files now. All methods may be called
// concurrently.
type Credentials struct {
	cfg Config

	mu     sync.Mutex // guards what follows
	files  [3]stamp
	looked int64 // Mono
	now    pair
}

// pair is what a handshake needs.
type pair struct {
	own         tls.Certificate
	authorities *x509.CertPool
}

// stamp is how a file is seen to have changed.
type stamp struct {
	modified time.Time
	size     int64
}

// Load reads the files, which must be good.
func Load(cfg Config) (*Credentials, error) {
	if cfg.CA == "" || cfg.Cert == "" || cfg.Key == "" || cfg.Clock == nil {
		return nil, errors.New("mtls: the files of the authority, of the certificate and of its key are required")
	}
	if len(cfg.Names) == 0 {
		return nil, errors.New("mtls: the names of the nodes are required: without them everybody who has a certificate of the authority is one")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Credentials{cfg: cfg, looked: cfg.Clock.Now().Mono}
	var err error
	if c.files, err = c.look(); err != nil {
		return nil, err
	}
	if c.now, err = c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// current is what the files hold, or held when they were good last.
func (c *Credentials) current() pair {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Clock.Now().Mono
	if now-c.looked < int64(lookEvery) {
		return c.now
	}
	c.looked = now
	files, err := c.look()
	if err == nil && files == c.files {
		return c.now
	}
	var fresh pair
	if err == nil {
		fresh, err = c.read()
	}
	if err != nil {
		c.cfg.Logger.Error("mtls: the new certificates cannot be used, the old ones are", slog.Any("error", err))
		return c.now
	}
	c.cfg.Logger.Info("mtls: certificates read again", slog.Time("expires", fresh.own.Leaf.NotAfter))
	c.files, c.now = files, fresh
	return c.now
}

func (c *Credentials) look() (stamps [3]stamp, err error) {
	for i, name := range []string{c.cfg.CA, c.cfg.Cert, c.cfg.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, fmt.Errorf("mtls: %w", err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

func (c *Credentials) read() (p pair, err error) {
	authority, err := readFile(c.cfg.CA)
	if err != nil {
		return p, err
	}
	p.authorities = x509.NewCertPool()
	if !p.authorities.AppendCertsFromPEM(authority) {
		return p, fmt.Errorf("mtls: %s holds no certificate", c.cfg.CA)
	}
	cert, err := readFile(c.cfg.Cert)
	if err != nil {
		return p, err
	}
	key, err := readFile(c.cfg.Key)
	if err != nil {
		return p, err
	}
	if p.own, err = tls.X509KeyPair(cert, key); err != nil {
		return p, fmt.Errorf("mtls: %s and %s: %w", c.cfg.Cert, c.cfg.Key, err)
	}
	return p, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("mtls: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err == nil && len(text) > fileMax {
		err = errors.New("too large")
	}
	if err != nil {
		return nil, fmt.Errorf("mtls: %s: %w", name, err)
	}
	return text, nil
}

// config is for one handshake: the other side must show a certificate for usage.
func (c *Credentials) config(usage x509.ExtKeyUsage) *tls.Config {
	now := c.current()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{now.own},
		ClientAuth:   tls.RequireAnyClientCert,
		// The chain is verified below, and the name instead of the address.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return c.verify(state.PeerCertificates, now.authorities, usage)
		},
		// One that is resumed would not be verified against the files of its day.
		SessionTicketsDisabled: true,
	}
}

// Check says whether the other nodes would take this one's certificate, as both sides of a
// connection, and until when.
func (c *Credentials) Check() (until time.Time, err error) {
	now := c.current()
	chain := make([]*x509.Certificate, len(now.own.Certificate))
	for i, der := range now.own.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return until, fmt.Errorf("mtls: %s: %w", c.cfg.Cert, err)
		}
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := c.verify(chain, now.authorities, usage); err != nil {
			return until, err
		}
	}
	return chain[0].NotAfter, nil
}

func (c *Credentials) verify(chain []*x509.Certificate, authorities *x509.CertPool, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("mtls: the other side shows no certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	options := x509.VerifyOptions{Roots: authorities, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}
	if _, err := chain[0].Verify(options); err != nil {
		return fmt.Errorf("mtls: %w", err)
	}
	for _, name := range chain[0].DNSNames {
		if slices.ContainsFunc(c.cfg.Names, func(allowed string) bool { return strings.EqualFold(allowed, name) }) {
			return nil
		}
	}
	return fmt.Errorf("mtls: the certificate is %q's, which is not on the list of nodes", chain[0].DNSNames)
}

// Transport returns the credentials as gRPC wants them, for both sides.
func (c *Credentials) Transport() credentials.TransportCredentials {
	return transport{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13}), c}
}

// transport makes each handshake with the files of its moment.
type transport struct {
	credentials.TransportCredentials // only for what is not below: what the protocol is called
	owner                            *Credentials
}

// ClientHandshake implements credentials.TransportCredentials.
func (t transport) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := credentials.NewTLS(t.owner.config(x509.ExtKeyUsageServerAuth)).ClientHandshake(ctx, authority, raw)
	t.note(raw, err)
	return conn, info, err
}

// ServerHandshake implements credentials.TransportCredentials.
func (t transport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := credentials.NewTLS(t.owner.config(x509.ExtKeyUsageClientAuth)).ServerHandshake(raw)
	t.note(raw, err)
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (t transport) Clone() credentials.TransportCredentials { return t }

func (t transport) note(raw net.Conn, err error) {
	if err != nil {
		t.owner.cfg.Logger.Warn("mtls: no connection", slog.String("remote", raw.RemoteAddr().String()), slog.Any("error", err))
	}
}
