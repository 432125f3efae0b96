package gateway

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	json "github.com/goccy/go-json"

	"github.com/doorbuster/doorbuster/actors/deal"
)

const (
	// tokenLenMax bounds a shopper's token in bytes.
	tokenLenMax = 4 << 10
	// tokensKept bounds each of the two generations of the cache of verified
	// tokens: 72 bytes an entry, plus the user's id.
	tokensKept = 1 << 16
	// tokenLeeway is how far the issuer's clock may be off.
	tokenLeeway = 30 * time.Second
)

// tokenAlgorithms are those that a token may be signed with. The key decides
// which of them it is: a token cannot choose.
var tokenAlgorithms = []jose.SignatureAlgorithm{jose.EdDSA, jose.RS256}

// Tokens verifies the tokens (JWT) of shoppers. A token that was verified
// once is recognised by its hash until it expires, so that the order path
// checks no signature.
//
// The cache is two generations: when the young one is full it becomes the old
// one, and what is used again moves over. It never holds more than twice
// tokensKept, and forgetting costs only a signature.
type Tokens struct {
	keys []jose.JSONWebKey // each with its algorithm

	mu         sync.RWMutex // guards the maps
	young, old map[tokenHash]*session
}

type tokenHash [sha256.Size]byte

// session is a verified token.
type session struct {
	principal
	notBefore, expires int64 // Unix ms, leeway included
}

// NewTokens takes the contents of a JWKS file. An issuer publishes all its keys in
// one, so those for another use or algorithm than ours are left aside; there must be
// one at least that is not, and none that is secret.
func NewTokens(jwks []byte) (*Tokens, error) {
	t := &Tokens{young: map[tokenHash]*session{}}
	var all jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &all); err != nil {
		return nil, fmt.Errorf("read the JWKS: %w", err)
	}
	for i, k := range all.Keys {
		if !k.Valid() || !k.IsPublic() {
			return nil, fmt.Errorf("key %d (%q) of the JWKS is not a public key", i, k.KeyID)
		}
		if k.Algorithm == "" {
			k.Algorithm = string(algorithmOf(k.Key))
		}
		if k.Use != "enc" && slices.Contains(tokenAlgorithms, jose.SignatureAlgorithm(k.Algorithm)) {
			t.keys = append(t.keys, k)
		}
	}
	if len(t.keys) == 0 {
		return nil, errors.New("the JWKS holds no public key for EdDSA or RS256")
	}
	return t, nil
}

// algorithmOf says what a key is for that does not say it itself, "" = not ours.
func algorithmOf(key any) jose.SignatureAlgorithm {
	switch key.(type) {
	case ed25519.PublicKey:
		return jose.EdDSA
	case *rsa.PublicKey:
		return jose.RS256
	}
	return ""
}

// caller returns the shopper whose token this is, valid at now (Unix ms), or
// unauthenticated; rateLimited if the signature is to be checked and attempt
// forbids it. For a token that it knows it allocates nothing.
func (t *Tokens) caller(token []byte, now int64, attempt func() bool) (*principal, problem) {
	if len(token) > tokenLenMax {
		return nil, unauthenticated
	}
	hash := tokenHash(sha256.Sum256(token))
	s := t.find(hash)
	if s == nil {
		if !attempt() {
			return nil, rateLimited
		}
		if s = t.verify(string(token)); s == nil {
			return nil, unauthenticated
		}
		t.keep(hash, s)
	}
	if now < s.notBefore || now >= s.expires {
		return nil, unauthenticated
	}
	return &s.principal, noProblem
}

func (t *Tokens) find(hash tokenHash) *session {
	t.mu.RLock()
	s, inOld := t.young[hash], (*session)(nil)
	if s == nil {
		inOld = t.old[hash]
	}
	t.mu.RUnlock()
	if inOld != nil {
		t.keep(hash, inOld)
		return inOld
	}
	return s
}

func (t *Tokens) keep(hash tokenHash, s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.young) >= tokensKept {
		t.old, t.young = t.young, map[tokenHash]*session{}
	}
	t.young[hash] = s
}

// verify checks the signature and reads the claims; when they hold is for
// the caller to see.
func (t *Tokens) verify(token string) *session {
	parsed, err := jwt.ParseSigned(token, tokenAlgorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil
	}
	var claims jwt.Claims
	if !t.verified(parsed, &claims) {
		return nil
	}
	if !deal.ValidID(claims.Subject) || claims.Expiry == nil {
		return nil
	}
	s := &session{
		principal: principal{role: shopper, name: []byte(claims.Subject)},
		expires:   claims.Expiry.Time().Add(tokenLeeway).UnixMilli(),
	}
	if claims.NotBefore != nil {
		s.notBefore = claims.NotBefore.Time().Add(-tokenLeeway).UnixMilli()
	}
	return s
}

func (t *Tokens) verified(token *jwt.JSONWebToken, claims *jwt.Claims) bool {
	h := token.Headers[0]
	for i := range t.keys {
		k := &t.keys[i]
		if k.Algorithm == h.Algorithm && (h.KeyID == "" || k.KeyID == "" || h.KeyID == k.KeyID) && token.Claims(k.Key, claims) == nil {
			return true
		}
	}
	return false
}
