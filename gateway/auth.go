package gateway

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/clockd"
)

// role is what a caller may be; as a set, who may call a route.
type role uint8

const (
	shopper role = 1 << iota
	merchant
	operator
	anyone       = shopper | merchant | operator
	unknown role = 0
)

var roleNames = map[string]role{"operator": operator, "merchant": merchant}

func (r role) String() string {
	return [...]string{shopper: "shopper", merchant: "merchant", operator: "operator"}[r]
}

// principal is a caller. It is never changed once made.
type principal struct {
	role role
	name []byte // a merchant's id, a shopper's user id, the id of an operator's key
}

// trusted is every caller in open mode. It is an operator, who may name any
// user and any merchant.
var trusted = &principal{role: operator, name: []byte("open")}

// Auth knows callers by their Authorization header. A nil Auth trusts
// everybody (open mode).
type Auth struct {
	Keys   *Keys
	Tokens *Tokens // nil = no shopper can be known
	Clock  *clockd.Clock
}

// ErrOpenExposed is the answer to serving in open mode beyond loopback, where
// whoever reaches the address could do everything.
var ErrOpenExposed = errors.New("gateway: auth mode open trusts every caller, and this is not a loopback address: use auth mode keys")

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// isLocal says whether a request comes from a program or a page on this machine,
// as far as a browser would tell: whatever a page sends that can change something
// has the page's Origin. In open mode nothing else stands between a web page and
// every deal. It allocates nothing for a request that it accepts.
func isLocal(h *fasthttp.RequestHeader) bool {
	origin := h.PeekCanonical(headerOrigin)
	if len(origin) == 0 {
		return true
	}
	_, host, ok := strings.Cut(b2s(origin), "://")
	return ok && isLoopbackHost(host)
}

var headerOrigin = []byte("Origin")

const wantLocal = "in open mode no web page may call but one from localhost or a loopback address"

// isLoopbackHost looks at a host as it stands in a URL, with a port or not.
func isLoopbackHost(host string) bool {
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		host = host[:colon]
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

var bearer = []byte("bearer ")

// caller says who sent the header, or why that is not known. A signature is
// checked only if attempt allows it: anybody can send what costs us one.
func (a *Auth) caller(header []byte, attempt func() bool) (*principal, problem) {
	if a == nil {
		return trusted, noProblem
	}
	if len(header) <= len(bearer) || !bytes.EqualFold(header[:len(bearer)], bearer) {
		return nil, unauthenticated
	}
	token := header[len(bearer):]
	if bytes.HasPrefix(token, keyPrefix) {
		if who := a.Keys.caller(token); who != nil {
			return who, noProblem
		}
		return nil, unauthenticated
	}
	if a.Tokens == nil {
		return nil, unauthenticated
	}
	return a.Tokens.caller(token, a.Clock.Now().Wall, attempt)
}

// is says whether the caller is, or acts for, the one that owns something.
func (p *principal) is(as role, name string) bool {
	return p.role == operator || p.role == as && string(p.name) == name
}
