package gateway

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// issuer signs shoppers' tokens.
type issuer struct {
	t  *testing.T
	ed ed25519.PrivateKey
	rs *rsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return &issuer{t, ed, rs}
}

func (i *issuer) jwks() []byte {
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: i.ed.Public(), KeyID: "ed", Algorithm: "EdDSA", Use: "sig"},
		{Key: &i.rs.PublicKey, KeyID: "rs", Algorithm: "RS256", Use: "sig"},
	}})
	must(i.t, err)
	return b
}

func (i *issuer) sign(alg jose.SignatureAlgorithm, key any, kid string, claims jwt.Claims) string {
	i.t.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	must(i.t, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	must(i.t, err)
	return token
}

func claims(sub string, from, to time.Duration) jwt.Claims {
	at := time.UnixMilli(start)
	return jwt.Claims{Subject: sub, NotBefore: jwt.NewNumericDate(at.Add(from)), Expiry: jwt.NewNumericDate(at.Add(to))}
}

func (i *issuer) shopper(sub string) string {
	return i.sign(jose.EdDSA, i.ed, "ed", claims(sub, -time.Hour, time.Hour))
}

// guarded is a house in keys mode with one key of each kind.
type guarded struct {
	*house
	issuer                   *issuer
	operator, acme, intruder string
}

func newGuarded(t *testing.T) *guarded {
	return newGuardedTuned(t, func(*Config) {})
}

func newGuardedTuned(t *testing.T, tune func(*Config)) *guarded {
	g := &guarded{issuer: newIssuer(t)}
	g.house = newHouse(t, func(c *Config, _ *actors.Config) {
		tune(c)
		keys, err := LoadKeys(t.Context(), c.Store.Tables())
		must(t, err)
		tokens, err := NewTokens(g.issuer.jwks())
		must(t, err)
		for role, full := range map[string]*string{"operator ": &g.operator, "merchant acme": &g.acme, "merchant intruder": &g.intruder} {
			roleName, owner, _ := strings.Cut(role, " ")
			_, *full, err = keys.Create(t.Context(), roleName, owner)
			must(t, err)
		}
		c.Auth = &Auth{Keys: keys, Tokens: tokens, Clock: c.Clock}
	})
	return g
}

// as makes the next calls somebody's.
func (g *guarded) as(token string) *house {
	g.token = token
	return g.house
}

func TestWhoMayDoWhat(t *testing.T) {
	g := newGuarded(t)
	if a := g.as("").get("/api/v1/deals").refused(unauthenticated); a.header.Get("WWW-Authenticate") == "" {
		t.Error("no WWW-Authenticate")
	}
	g.as("").order("d", "u", 1).refused(unauthenticated)
	g.as("").get("/livez").want(200)
	g.as("").get("/openapi.yaml").want(200)

	body := `{"deal_id":"d","title":"x","currency":"CNY","unit_price":5,"stock":10%s}`
	g.as(g.acme).post("/api/v1/deals", fmt.Sprintf(body, `,"merchant_id":"other"`)).refused(forbidden)
	g.as(g.acme).post("/api/v1/deals", fmt.Sprintf(body, "")).want(201).has(map[string]any{"merchant_id": "acme"})
	g.as(g.intruder).post("/api/v1/deals/d/pause", "").refused(forbidden)
	g.as(g.intruder).send(request{method: "PATCH", path: "/api/v1/deals/d", body: `{"stock_add":1}`}).refused(forbidden)
	g.as(g.intruder).upload("/api/v1/rules/secret/versions", fixedOff(1)).want(201)
	const backtest = "/api/v1/rules/secret/versions/1/backtest"
	g.as(g.intruder).post(backtest, `{"deal_id":"d"}`).refused(forbidden)
	g.as(g.intruder).post(backtest, `{"deal_id":"d","merchant_id":"acme"}`).refused(forbidden)
	g.as(g.acme).post(backtest, `{"deal_id":"d"}`).refused(ruleNotFound)
	g.as(g.issuer.shopper("u-1")).post(backtest, `{"deal_id":"d"}`).refused(forbidden)
	g.as(g.issuer.shopper("u-1")).post("/api/v1/deals/d/pause", "").refused(forbidden)
	g.as(g.issuer.shopper("u-1")).post("/api/v1/deals", "{}").refused(forbidden)
	g.as(g.acme).order("d", "u-1", 1).refused(forbidden)

	one := g.issuer.shopper("u-1")
	id := g.as(one).post("/api/v1/orders", `{"deal_id":"d","quantity":1}`).want(201).has(map[string]any{"user_id": "u-1"}).text("order_id")
	g.as(one).order("d", "u-1", 1).want(201)
	g.as(one).order("d", "u-2", 1).refused(forbidden)
	g.as(g.operator).order("d", "u-9", 1).want(201)
	g.as(g.operator).post("/api/v1/orders", `{"deal_id":"d","quantity":1}`).refused(invalidRequest)

	g.as(g.acme).upload("/api/v1/rules/broken/versions", string(gastest.Rule("unreachable").Encode())).want(201)
	g.as(g.acme).post("/api/v1/deals", `{"deal_id":"b","title":"x","currency":"CNY","unit_price":5,"stock":1,"rules":["broken"],"on_rule_error":"skip"}`).want(201)
	why := "/api/v1/orders/" + g.as(one).order("b", "u-1", 1).want(201).text("order_id") + "/explain"
	if detail := g.as(g.acme).get(why).want(200).field("rules.0.fault_detail"); detail == nil {
		t.Error("the merchant is not told why the rule failed")
	}
	g.as(one).get(why).want(200).has(map[string]any{"rules.0.fault": "trap", "rules.0.fault_detail": nil})
	if said := string(g.as(one).get(why).body); !strings.Contains(said, `"logs":[]`) || strings.Contains(said, "wasm error") {
		t.Errorf("the shopper is told %s", said)
	}

	two := g.issuer.shopper("u-2")
	g.as(two).get("/api/v1/orders/" + id).refused(forbidden)
	g.as(two).get("/api/v1/orders/" + id + "/explain").refused(forbidden)
	g.as(two).post("/api/v1/orders/"+id+"/cancel", "").refused(forbidden)
	g.as(g.intruder).post("/api/v1/orders/"+id+"/confirm", "").refused(forbidden)
	g.as(one).post("/api/v1/orders/"+id+"/refund", "").refused(forbidden)
	for _, token := range []string{one, g.acme, g.operator} {
		g.as(token).get("/api/v1/orders/" + id).want(200)
	}
	g.as(one).post("/api/v1/orders/"+id+"/confirm", `{"payment_ref":"free"}`).refused(forbidden) // who pays does not say so
	g.as(one).get("/api/v1/orders/" + id).has(map[string]any{"status": "reserved"})
	g.as(g.acme).post("/api/v1/orders/"+id+"/confirm", "").want(200)
	own := g.as(one).post("/api/v1/orders", `{"deal_id":"d","quantity":1}`).want(201).text("order_id")
	g.as(one).post("/api/v1/orders/"+own+"/cancel", "").want(200)

	g.as(one).get("/api/v1/orders").want(200).has(map[string]any{"data.0.user_id": "u-1", "data.1.user_id": "u-1"})
	g.as(two).get("/api/v1/orders").want(200).has(map[string]any{"has_more": false})
	g.as(two).get("/api/v1/orders?user_id=u-1").refused(forbidden)
	g.as(g.acme).get("/api/v1/orders").refused(invalidRequest)
	g.as(g.acme).get("/api/v1/orders?deal_id=d").want(200)
	g.as(g.intruder).get("/api/v1/orders?deal_id=d").refused(forbidden)

	g.as(g.acme).get("/api/v1/rules?merchant_id=other").refused(forbidden)
	g.as(g.acme).upload("/api/v1/rules/r/versions", tiered(t)).want(201)
	g.as(g.intruder).get("/api/v1/rules/r").refused(ruleNotFound)
	g.as(g.intruder).get("/api/v1/rules/r?merchant_id=acme").refused(forbidden)
	g.as(one).get("/api/v1/rules").refused(forbidden)
	g.as(one).post("/api/v1/quotes", `{"deal_id":"d","quantity":1}`).want(200).has(map[string]any{"user_id": "u-1"})
	g.as(one).post("/api/v1/quotes", `{"deal_id":"d","quantity":1,"user_id":"u-2"}`).refused(forbidden)
}

func TestKeysByHTTP(t *testing.T) {
	g := newGuarded(t)
	admin := func(token, method, path, body string) answer {
		return g.as(token).send(request{method: method, path: "/api/v1/admin/" + path, body: body, admin: true})
	}
	admin("", "GET", "keys", "").refused(unauthenticated)
	admin(g.acme, "GET", "keys", "").refused(forbidden)
	admin(g.acme, "GET", "journal", "").refused(forbidden)
	a := admin(g.operator, "POST", "keys", `{"role":"merchant","merchant_id":"new"}`).want(201)
	key := a.text("key")
	if !strings.HasPrefix(key, "dbk_merchant_"+a.text("key_id")+"_") {
		t.Errorf("the key is %s", key)
	}
	g.as(key).get("/api/v1/rules").want(200)
	list := admin(g.operator, "GET", "keys?limit=2", "").want(200).has(map[string]any{"has_more": true})
	if strings.Contains(string(list.body), strings.Split(key, "_")[3]) {
		t.Error("a list of keys shows a secret")
	}
	admin(g.operator, "GET", "keys?limit=2&cursor="+list.text("next_cursor"), "").want(200).has(map[string]any{"has_more": false})
	admin(g.operator, "GET", "keys?limit=x", "").refused(invalidRequest)
	admin(g.operator, "GET", "keys?cursor=%21", "").refused(invalidRequest)
	admin(g.operator, "DELETE", "keys/"+a.text("key_id"), "").want(204)
	admin(g.operator, "DELETE", "keys/"+a.text("key_id"), "").refused(notFound).has(map[string]any{"detail": "there is no such key"})
	g.as(key).get("/api/v1/rules").refused(unauthenticated)
	for _, body := range []string{`{"role":"shopper"}`, `{"role":"merchant"}`, `{"role":"operator","merchant_id":"x"}`, `[]`} {
		admin(g.operator, "POST", "keys", body).refused(invalidRequest)
	}

	// The store holds hashes, and a restart reads them.
	keys, err := LoadKeys(t.Context(), g.store.Tables())
	must(t, err)
	if p := keys.caller([]byte(g.acme)); p == nil || p.role != merchant || string(p.name) != "acme" {
		t.Errorf("after a restart the key is %v", p)
	}
	must(t, g.store.Tables().Scan(t.Context(), TableKeys, "", "", func(_ string, value []byte) error {
		for _, key := range []string{g.operator, g.acme, g.intruder} {
			if strings.Contains(string(value), strings.Split(key, "_")[3]) {
				t.Error("the store holds a secret")
			}
		}
		return nil
	}))
}

// Nodes that share their tables share their keys.
func TestKeysOfTwoNodes(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	a, err1 := LoadKeys(t.Context(), tables)
	b, err2 := LoadKeys(t.Context(), tables)
	must(t, errors.Join(err1, err2))
	for _, one := range []bool{true, false} {
		refresh := func(id string) {
			t.Helper()
			if one {
				must(t, b.Refresh(t.Context(), id))
			} else {
				must(t, b.Refresh(t.Context(), ""))
			}
		}
		key, full, err := a.Create(t.Context(), "merchant", "acme")
		must(t, err)
		if b.caller([]byte(full)) != nil {
			t.Error("a key is known before a refresh")
		}
		refresh(key.ID)
		if who := b.caller([]byte(full)); who == nil || string(who.name) != "acme" {
			t.Errorf("after a refresh: %+v", who)
		}
		must(t, a.Revoke(t.Context(), key.ID))
		refresh(key.ID)
		if b.caller([]byte(full)) != nil || len(b.List()) != 0 {
			t.Error("a revoked key is good on the other node")
		}
	}
	key, _, err := a.Create(t.Context(), "operator", "")
	must(t, err)
	must(t, b.Revoke(t.Context(), key.ID)) // unseen
	if err := a.Revoke(t.Context(), key.ID); !errors.Is(err, ErrKeyNotFound) {
		t.Error(err)
	}
}

func TestKeysThatAreNotGood(t *testing.T) {
	keys, err := LoadKeys(t.Context(), journaltest.NewMemory().Tables())
	must(t, err)
	key, full, err := keys.Create(t.Context(), "merchant", "acme")
	must(t, err)
	secret := strings.Split(full, "_")[3]
	for _, token := range []string{
		"dbk_", "dbk_merchant", "dbk_merchant_" + key.ID, "dbk_merchant_" + key.ID + "_",
		"dbk_operator_" + key.ID + "_" + secret, "dbk_shopper_" + key.ID + "_" + secret,
		"dbk_merchant_nobody_" + secret, full[:len(full)-1], full + "0",
		"dbk_merchant_" + key.ID + "_" + strings.Repeat("0", keyHexBytes), strings.Replace(full, secret, strings.Repeat("x", keyHexBytes), 1),
	} {
		if keys.caller([]byte(token)) != nil {
			t.Errorf("%s is a key", token)
		}
	}
	token := []byte(full)
	if n := testing.AllocsPerRun(1000, func() {
		if keys.caller(token) == nil {
			t.Fatal("the key is not known")
		}
	}); n != 0 {
		t.Errorf("checking a key allocates %v times", n)
	}
}

// knownTo asks tokens for a caller who may make as many attempts as he likes.
func knownTo(tokens *Tokens, token []byte, now int64) *principal {
	who, _ := tokens.caller(token, now, func() bool { return true })
	return who
}

func TestTokens(t *testing.T) {
	i := newIssuer(t)
	tokens, err := NewTokens(i.jwks())
	must(t, err)
	caller := func(token []byte, now int64) *principal { return knownTo(tokens, token, now) }
	good := claims("u-1", -time.Minute, time.Minute)
	for _, token := range []string{
		i.sign(jose.EdDSA, i.ed, "ed", good), i.sign(jose.RS256, i.rs, "rs", good), i.sign(jose.RS256, i.rs, "", good),
	} {
		for range 2 {
			if p := caller([]byte(token), start); p == nil || p.role != shopper || string(p.name) != "u-1" {
				t.Fatalf("a good token is %v", p)
			}
		}
		if caller([]byte(token), start+2*time.Minute.Milliseconds()) != nil {
			t.Error("an expired token is good, from the cache")
		}
		if caller([]byte(token), start-2*time.Minute.Milliseconds()) != nil {
			t.Error("a token is good before its time")
		}
	}
	known := []byte(i.sign(jose.EdDSA, i.ed, "ed", good))
	caller(known, start)
	if n := testing.AllocsPerRun(1000, func() { caller(known, start) }); n != 0 {
		t.Errorf("a known token allocates %v times", n)
	}
	other := newIssuer(t)
	unsigned := "eyJhbGciOiJub25lIn0." + strings.Split(string(known), ".")[1] + "."
	for name, token := range map[string]string{
		"another issuer's":    other.sign(jose.EdDSA, other.ed, "ed", good),
		"another key's id":    i.sign(jose.EdDSA, i.ed, "rs", good),
		"an unknown key's id": i.sign(jose.EdDSA, i.ed, "x", good),
		"another algorithm's": i.sign(jose.RS512, i.rs, "rs", good),
		"a secret's":          i.sign(jose.HS256, []byte(strings.Repeat("k", 32)), "ed", good),
		"unsigned":            unsigned,
		"without an expiry":   i.sign(jose.EdDSA, i.ed, "ed", jwt.Claims{Subject: "u-1"}),
		"without a subject":   i.sign(jose.EdDSA, i.ed, "ed", claims("", -time.Minute, time.Minute)),
		"with a bad subject":  i.sign(jose.EdDSA, i.ed, "ed", claims("u 1", -time.Minute, time.Minute)),
		"changed":             string(known[:len(known)-4]) + "AAAA",
		"cut":                 string(known[:len(known)/2]),
		"far too long":        string(known) + strings.Repeat("A", tokenLenMax),
		"nothing":             "",
	} {
		if caller([]byte(token), start) != nil {
			t.Errorf("a token is good that is %s", name)
		}
	}
}

// The cache holds two generations and no more, and what is used stays.
func TestTokenCacheIsBounded(t *testing.T) {
	i := newIssuer(t)
	tokens, err := NewTokens(i.jwks())
	must(t, err)
	used := []byte(i.shopper("u-1"))
	for n := range 3 * tokensKept {
		if n%1000 == 0 && knownTo(tokens, used, start) == nil {
			t.Fatal("the token is not known")
		}
		tokens.keep(tokenHash{byte(n), byte(n >> 8), byte(n >> 16), 1}, &session{})
	}
	if n := len(tokens.young) + len(tokens.old); n > 2*tokensKept {
		t.Errorf("%d tokens are kept", n)
	}
}

func TestJWKSThatIsNotGood(t *testing.T) {
	i := newIssuer(t)
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.ed, Algorithm: "EdDSA"}}})
	must(t, err)
	other, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &i.rs.PublicKey, Algorithm: "PS256"}}})
	must(t, err)
	for _, jwks := range []string{"", "{}", `{"keys":[]}`, "x", string(private), string(other)} {
		if _, err := NewTokens([]byte(jwks)); err == nil {
			t.Errorf("%.60q was accepted", jwks)
		}
	}
}

// TestJWKSOfAnIssuer: keys that do not say their algorithm, beside one to encrypt with.
func TestJWKSOfAnIssuer(t *testing.T) {
	i := newIssuer(t)
	set := func(keys ...jose.JSONWebKey) []byte {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		must(t, err)
		return b
	}
	encrypts := jose.JSONWebKey{Key: &i.rs.PublicKey, KeyID: "enc", Use: "enc"}
	tokens, err := NewTokens(set(jose.JSONWebKey{Key: i.ed.Public(), KeyID: "ed"}, jose.JSONWebKey{Key: &i.rs.PublicKey, KeyID: "rs"}, encrypts))
	must(t, err)
	good := claims("u-1", -time.Minute, time.Minute)
	for _, token := range []string{i.sign(jose.EdDSA, i.ed, "ed", good), i.sign(jose.RS256, i.rs, "rs", good)} {
		if who := knownTo(tokens, []byte(token), start); who == nil || string(who.name) != "u-1" {
			t.Errorf("%v", who)
		}
	}
	if who := knownTo(tokens, []byte(i.sign(jose.RS256, i.rs, "enc", good)), start); who != nil {
		t.Error("a token that a key for encryption has signed is believed")
	}
	tokens, err = NewTokens(set(jose.JSONWebKey{Key: i.ed.Public()})) // a name is a hint where to look, and this key has none
	must(t, err)
	if who := knownTo(tokens, []byte(i.sign(jose.EdDSA, i.ed, "ed", good)), start); who == nil {
		t.Error("a token that names its key is not believed where the JWKS does not")
	}
	if _, err := NewTokens(set(encrypts)); err == nil {
		t.Error("a JWKS without a key that signs was accepted")
	}
}

// exposed is a listener on an address of the test's choice.
type exposed struct {
	net.Listener
	addr net.Addr
}

func (e exposed) Addr() net.Addr { return e.addr }

func TestOpenModeStaysOnLoopback(t *testing.T) {
	h := newHouse(t, nil)
	for _, addr := range []net.Addr{
		&net.TCPAddr{IP: net.IPv4zero, Port: 1}, &net.TCPAddr{IP: net.IPv6zero, Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1},
		&net.TCPAddr{Port: 1}, &net.UnixAddr{Name: "x", Net: "unix"},
	} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		must(t, err)
		for _, serve := range []func(net.Listener) error{h.server.Serve, h.server.ServeAdmin} {
			if err := serve(exposed{ln, addr}); !errors.Is(err, ErrOpenExposed) {
				t.Errorf("%v: %v", addr, err)
			}
		}
	}
}

// A page in a developer's browser is not the developer: in open mode neither one
// that sends across sites nor one that rebound its name reaches a deal.
func TestOpenModeIsNotForWebPages(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	const pause = "POST /api/v1/deals/d/pause HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n"
	const order = "POST /api/v1/orders HTTP/1.1\r\n%sContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}"
	for _, headers := range []string{
		"Host: x\r\nOrigin: http://10.0.0.1:80", "Host: x\r\nOrigin: http://127.0.0.1.evil.example", "Host: x\r\nOrigin: http://[2001:db8::1]",
		"Host: localhost\r\nOrigin: https://evil.example", "Host: localhost\r\nOrigin: null", "Host: localhost\r\norigin: http://evil.example:8080",
		"Host: localhost\r\nOrigin: localhost", "Host: localhost\r\nOrigin: http://localhost@evil.example", "Host: localhost\r\nOrigin: file://",
	} {
		for _, req := range []string{pause, order} {
			got, _ := h.raw(t, fmt.Sprintf(req, headers+"\r\n"), 1)
			got[0].refused(forbidden).has(map[string]any{"detail": wantLocal})
		}
	}
	h.get("/api/v1/deals/d").has(map[string]any{"status": "live"})
	for _, headers := range []string{
		"Host: x", "Host: LocalHost:8080\r\nOrigin: http://LocalHost", "Host: 127.0.0.1:1\r\nOrigin: http://127.9.9.9:1",
		"Host: localhost:8080\r\nOrigin: http://localhost:3000", "Host: 127.0.0.1\r\nOrigin: https://[::1]:8443",
	} {
		got, _ := h.raw(t, fmt.Sprintf(pause, headers+"\r\n")+fmt.Sprintf(order, headers+"\r\n"), 2)
		got[0].want(200)
		got[1].refused(invalidRequest)
	}
	h.send(request{method: "GET", path: "/api/v1/admin/journal", admin: true, header: map[string]string{"Origin": "http://evil.example"}}).refused(forbidden)

	// With keys it is the key that counts, and the name is the shop's.
	g := newGuarded(t)
	g.as(g.operator).send(request{method: "GET", path: "/api/v1/deals", header: map[string]string{"Origin": "https://shop.example"}}).want(200)
}

func TestRateLimit(t *testing.T) {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{PerSecond: 1, Burst: 3, Clients: 256})
	must(t, err)
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Limiter = limiter })
	for range 3 {
		h.get("/api/v1/deals").want(200)
	}
	a := h.get("/api/v1/deals").refused(rateLimited)
	if a.header.Get("Retry-After") < "1" || a.header.Get("RateLimit") == "" || a.header.Get("RateLimit-Policy") == "" {
		t.Errorf("%v", a.header)
	}
	h.order("d", "u", 1).refused(rateLimited)
	h.get("/livez").want(200)
	h.clock.Advance(2 * time.Second)
	h.get("/api/v1/deals").want(200)
}

// A shopper who calls himself like a merchant does not use up its bucket.
func TestRateLimitIsEachCallersOwn(t *testing.T) {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{PerSecond: 1, Burst: 1, Clients: 256})
	must(t, err)
	g := newGuardedTuned(t, func(c *Config) { c.Limiter = limiter })
	g.as(g.issuer.shopper("acme")).get("/api/v1/deals").want(200)
	g.as(g.issuer.shopper("acme")).get("/api/v1/deals").refused(rateLimited)
	g.as(g.acme).get("/api/v1/deals").want(200)
	g.as(g.intruder).get("/api/v1/deals").want(200)
	g.as(g.acme).get("/api/v1/deals").refused(rateLimited)
}

// An operator who looks at a node is never asked to wait, whatever else is done with the
// key; who is not known is.
func TestRateLimitSparesWhatOperatorsRead(t *testing.T) {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{PerSecond: 1, Burst: 2, Clients: 256})
	must(t, err)
	g := newGuardedTuned(t, func(c *Config) { c.Limiter = limiter })
	journal := request{method: "GET", path: "/api/v1/admin/journal", admin: true}
	for range 2 {
		g.as(g.operator).get("/api/v1/deals").want(200)
	}
	g.as(g.operator).get("/api/v1/deals").refused(rateLimited)
	for range 5 {
		g.as(g.operator).send(journal).want(200)
	}
	g.as(g.operator).send(request{method: "POST", path: "/api/v1/admin/snapshot", admin: true}).refused(rateLimited)
	forger := newIssuer(t)
	for range 2 {
		g.as(forger.shopper("u-1")).send(journal).refused(unauthenticated)
	}
	g.as(forger.shopper("u-1")).send(journal).refused(rateLimited)
}

// Bogus tokens do not buy signature checks without end; who is known already
// is not held up by them.
func TestRateLimitOfTheUnknown(t *testing.T) {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{PerSecond: 1, Burst: 3, Clients: 256})
	must(t, err)
	g := newGuardedTuned(t, func(c *Config) { c.Limiter = limiter })
	known, late, forger := g.issuer.shopper("u-1"), g.issuer.shopper("u-2"), newIssuer(t)
	g.as(known).get("/api/v1/deals").want(200)
	for i := range 5 { // more than its burst, and it costs the address nothing
		g.as(g.issuer.shopper(fmt.Sprintf("neighbour-%d", i))).get("/api/v1/deals").want(200)
	}
	for range 3 {
		g.as(forger.shopper("u-1")).get("/api/v1/deals").refused(unauthenticated)
	}
	a := g.as(forger.shopper("u-1")).get("/api/v1/deals").refused(rateLimited)
	if a.header.Get("Retry-After") < "1" {
		t.Errorf("%v", a.header)
	}
	g.as(forger.shopper("u-1")).order("d", "u-1", 1).refused(rateLimited)
	g.as(late).get("/api/v1/deals").refused(rateLimited) // his signature is not checked
	g.as(known).get("/api/v1/deals").want(200)
	g.as(g.acme).get("/api/v1/deals").want(200)
	g.clock.Advance(2 * time.Second)
	g.as(late).get("/api/v1/deals").want(200)
}
