package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials"

	"github.com/doorbuster/doorbuster/clockd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func issue(t *testing.T, dir, name string, now time.Time) Files {
	t.Helper()
	files, err := Issue(dir, name, []string{"127.0.0.1", "localhost"}, now, true)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func load(t *testing.T, clock *clockd.Clock, files Files, names ...string) *Credentials {
	t.Helper()
	c, err := Load(Config{CA: files.CA, Cert: files.Cert, Key: files.Key, Names: names, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shake lets two nodes shake hands, and returns what each says of it and whom the
// client saw.
func shake(t *testing.T, client, server *Credentials) (seen string, atClient, atServer error) {
	t.Helper()
	return shakeAs(t, server, func(conn net.Conn) (tls.ConnectionState, error) {
		_, info, err := client.Transport().ClientHandshake(context.Background(), "anything:1", conn)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		return info.(credentials.TLSInfo).State, nil
	})
}

func shakeAs(t *testing.T, server *Credentials, client func(net.Conn) (tls.ConnectionState, error)) (seen string, atClient, atServer error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			_, _, err = server.Transport().ServerHandshake(conn)
		}
		served <- err
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	state, atClient := client(conn)
	if atClient == nil {
		seen = state.PeerCertificates[0].Subject.CommonName
		if state.Version != tls.VersionTLS13 {
			t.Errorf("TLS version %x", state.Version)
		}
	}
	return seen, atClient, <-served
}

func TestHandshake(t *testing.T) {
	clock := clockd.NewManual(0).Clock()
	now := time.Now()
	dir, other := t.TempDir(), t.TempDir()
	a, b := issue(t, dir, "a", now), issue(t, dir, "b", now)
	foreign := issue(t, other, "a", now)
	expired := issue(t, dir, "old", now.Add(-2*nodeLife))
	mixed := Files{CA: a.CA, Cert: foreign.Cert, Key: foreign.Key}
	for name, c := range map[string]struct {
		client, server *Credentials
		atClient       string // what goes wrong there, "" if nothing does
		atServer       string
	}{
		"both known":            {client: load(t, clock, a, "a", "B"), server: load(t, clock, b, "A")},
		"server not listed":     {client: load(t, clock, a, "a"), server: load(t, clock, b, "a"), atClient: "not on the list"},
		"client not listed":     {client: load(t, clock, a, "b"), server: load(t, clock, b, "b"), atServer: "not on the list"},
		"server of another CA":  {client: load(t, clock, a, "a"), server: load(t, clock, mixed, "a"), atClient: "unknown authority"},
		"client of another CA":  {client: load(t, clock, mixed, "b"), server: load(t, clock, b, "a"), atServer: "unknown authority"},
		"server of another day": {client: load(t, clock, a, "old"), server: load(t, clock, expired, "a"), atClient: "expired"},
		"client of another day": {client: load(t, clock, expired, "b"), server: load(t, clock, b, "old"), atServer: "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			_, atClient, atServer := shake(t, c.client, c.server)
			if !says(atClient, c.atClient) {
				t.Errorf("the client says %v, want %q", atClient, c.atClient)
			}
			if c.atClient == "" && !says(atServer, c.atServer) {
				t.Errorf("the server says %v, want %q", atServer, c.atServer)
			}
		})
	}
}

func says(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

func TestClientsThatAreNoNodes(t *testing.T) {
	clock := clockd.NewManual(0).Clock()
	files := issue(t, t.TempDir(), "a", time.Now())
	server := load(t, clock, files, "a")
	own, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*tls.Config{
		"no certificate": {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
		"TLS 1.2":        {InsecureSkipVerify: true, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, atServer := shakeAs(t, server, func(conn net.Conn) (tls.ConnectionState, error) {
				client := tls.Client(conn, c)
				return client.ConnectionState(), errors.Join(client.Handshake(), errors.New("whatever it thinks"))
			})
			if atServer == nil {
				t.Error("the server takes it")
			}
		})
	}
}

func TestReload(t *testing.T) {
	manual := clockd.NewManual(0)
	now := time.Now()
	dir := t.TempDir()
	files := issue(t, dir, "a", now)
	a, b := load(t, manual.Clock(), files, "a", "b"), load(t, manual.Clock(), issue(t, dir, "b", now), "a", "b")
	serial := func() string {
		t.Helper()
		if seen, atClient, atServer := shake(t, b, a); atClient != nil || atServer != nil || seen != "a" {
			t.Fatal(seen, atClient, atServer)
		}
		return a.current().own.Leaf.SerialNumber.String()
	}
	first := serial()
	issue(t, dir, "a", now)
	if serial() != first {
		t.Error("read again before it was time to look")
	}
	manual.Advance(lookEvery)
	second := serial()
	if second == first {
		t.Error("not read again")
	}
	// A key that does not fit, a file that is gone: what was good goes on.
	if err := os.WriteFile(files.Key, []byte("half of a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	manual.Advance(lookEvery)
	if serial() != second {
		t.Error("read what cannot be used")
	}
	if err := os.Remove(files.Cert); err != nil {
		t.Fatal(err)
	}
	manual.Advance(lookEvery)
	if serial() != second {
		t.Error("forgot what was good")
	}
	issue(t, dir, "a", now)
	manual.Advance(lookEvery)
	if serial() == second {
		t.Error("not read again after it was unusable")
	}
	// Another authority: the old nodes are strangers from the next handshake on.
	elsewhere := t.TempDir()
	issue(t, elsewhere, "a", now)
	for _, name := range []string{CAFile, "a.pem", "a-key.pem"} {
		text, err := os.ReadFile(filepath.Join(elsewhere, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.current()
	manual.Advance(lookEvery)
	a.current()
	b.looked = manual.Clock().Now().Mono // b has not looked
	if _, atClient, _ := shake(t, b, a); atClient == nil {
		t.Error("a node of the old authority trusts one of the new")
	}
}

func TestLoadRefuses(t *testing.T) {
	clock := clockd.NewManual(0).Clock()
	dir := t.TempDir()
	files, other := issue(t, dir, "a", time.Now()), issue(t, dir, "b", time.Now())
	empty := filepath.Join(dir, "empty")
	large := filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.WriteFile(large, make([]byte, fileMax+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	good := Config{CA: files.CA, Cert: files.Cert, Key: files.Key, Names: []string{"a"}, Clock: clock}
	for name, change := range map[string]func(*Config){
		"no names":       func(c *Config) { c.Names = nil },
		"no CA":          func(c *Config) { c.CA = "" },
		"no clock":       func(c *Config) { c.Clock = nil },
		"empty CA":       func(c *Config) { c.CA = empty },
		"large CA":       func(c *Config) { c.CA = large },
		"missing CA":     func(c *Config) { c.CA = filepath.Join(dir, "nothing") },
		"another's key":  func(c *Config) { c.Key = other.Key },
		"no certificate": func(c *Config) { c.Cert = empty },
	} {
		c := good
		change(&c)
		if _, err := Load(c); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	if _, err := Load(good); err != nil {
		t.Error(err)
	}
}

func TestIssue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	a := issue(t, dir, "a", time.Now())
	before, err := os.ReadFile(a.CA)
	if err != nil {
		t.Fatal(err)
	}
	b := issue(t, dir, "b", time.Now())
	after, err := os.ReadFile(b.CA)
	if err != nil || string(before) != string(after) {
		t.Error("the authority changed", err)
	}
	for _, secret := range []string{a.Key, filepath.Join(dir, caKeyFile)} {
		if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", secret, info.Mode(), err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "ca", "ca-key"} {
		if _, err := Issue(dir, name, nil, time.Now(), false); err == nil {
			t.Errorf("%q is a node's name", name)
		}
	}
	key, err := os.ReadFile(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(dir, "a", nil, time.Now(), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a node's files are there: %v", err)
	}
	if now, err := os.ReadFile(a.Key); err != nil || !bytes.Equal(now, key) {
		t.Error("they were replaced", err)
	}
	if _, err := Issue(dir, "a", nil, time.Now(), true); err != nil {
		t.Errorf("to be renewed: %v", err)
	}
	if err := os.Remove(b.CA); err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(dir, "d", nil, time.Now(), true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over the key of an authority: %v", err)
	}
	if err := os.WriteFile(b.CA, after, 0o600); err != nil {
		t.Fatal(err)
	}
	// Another authority's key is found out before anything is signed with it.
	issue(t, filepath.Join(dir, "x"), "a", time.Now())
	if err := os.Rename(filepath.Join(dir, "x", caKeyFile), filepath.Join(dir, caKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(dir, "c", nil, time.Now(), false); err == nil {
		t.Error("signed with a key that is not the authority's")
	}
}
