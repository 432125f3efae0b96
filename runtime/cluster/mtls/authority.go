package mtls

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	// CAFile and its key are what Issue makes in a folder beside the nodes' files.
	CAFile    = "ca.pem"
	caKeyFile = "ca-key.pem"

	authorityLife = 10 * 365 * 24 * time.Hour
	nodeLife      = 365 * 24 * time.Hour
	// backdated is how far the clocks of the nodes may be behind the one that issues.
	backdated = 5 * time.Minute
)

// nodeName is what may be both a DNS name and a file's.
var nodeName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)

// Files are where Issue put a node's certificate and key.
type Files struct{ CA, Cert, Key string }

// Issue makes a certificate for the node of a name, good for a year from now, in
// dir/name.pem and dir/name-key.pem. hosts are put into it as addresses or DNS names.
// What is there is an error that matches fs.ErrExist, unless the node's files are to be
// renewed. If dir holds no authority, Issue makes one first: a private one, for a test or
// a small installation, whose key stands there for whoever can read the folder. It never
// replaces one, nor what is left of one.
func Issue(dir, name string, hosts []string, now time.Time, renew bool) (Files, error) {
	files := Files{CA: filepath.Join(dir, CAFile), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
	if !nodeName.MatchString(name) || files.CA == files.Cert || strings.HasSuffix(name, "-key") {
		return Files{}, fmt.Errorf("mtls: %q cannot be a node's name, which is letters, digits, dots and dashes, and whose file is nobody else's", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Files{}, err
	}
	if !renew {
		if err := absent(files.Cert, files.Key); err != nil {
			return Files{}, err
		}
	}
	ca, caKey, err := openAuthority(dir, now)
	if err != nil {
		return Files{}, err
	}
	cert := template(name, now, nodeLife)
	cert.DNSNames = []string{name}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else if host != name {
			cert.DNSNames = append(cert.DNSNames, host)
		}
	}
	cert.KeyUsage = x509.KeyUsageDigitalSignature
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return files, sign(cert, ca, caKey, files.Cert, files.Key)
}

// absent refuses to go on over files that are there.
func absent(files ...string) error {
	for _, file := range files {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mtls: %s: %w", file, cmp.Or(err, fs.ErrExist))
		}
	}
	return nil
}

// openAuthority returns the folder's authority, and makes it if there is none.
func openAuthority(dir string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certFile, keyFile := filepath.Join(dir, CAFile), filepath.Join(dir, caKeyFile)
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		if err := absent(keyFile); err != nil {
			return nil, nil, err
		}
		ca := template("Doorbuster private CA", now, authorityLife)
		ca.IsCA, ca.BasicConstraintsValid, ca.MaxPathLenZero = true, true, true
		ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		if err := sign(ca, nil, nil, certFile, keyFile); err != nil {
			return nil, nil, err
		}
	}
	certDER, err := readPEM(certFile)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("mtls: %s: %w", certFile, err)
	}
	keyDER, err := readPEM(keyFile)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("mtls: %s: %w", keyFile, err)
	}
	own, ok := key.(*ecdsa.PrivateKey)
	if !ok || !own.PublicKey.Equal(ca.PublicKey) {
		return nil, nil, fmt.Errorf("mtls: %s is not the key of %s", keyFile, certFile)
	}
	return ca, own, nil
}

func template(name string, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdated),
		NotAfter:  now.Add(life),
	}
}

// sign makes a key and has its certificate signed, by itself if ca is nil. The key is
// written first: a certificate without it would be of no use to anybody.
func sign(cert, ca *x509.Certificate, caKey *ecdsa.PrivateKey, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if ca == nil {
		ca, caKey = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(keyFile, "PRIVATE KEY", keyDER, 0o600); err != nil {
		return err
	}
	return writePEM(certFile, "CERTIFICATE", der, 0o644)
}

// writePEM replaces a file as a whole: a running node may read it at any moment.
func writePEM(name, kind string, der []byte, mode fs.FileMode) error {
	fresh := name + ".new"
	if err := os.WriteFile(fresh, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return os.Rename(fresh, name)
}

func readPEM(name string) ([]byte, error) {
	text, err := readFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("mtls: %s holds no PEM", name)
	}
	return block.Bytes, nil
}
