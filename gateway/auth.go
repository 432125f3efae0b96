package gateway

import (
	"bytes"
	"errors"
	"net"

	"github.com/doorbuster/doorbuster/clockd"
)

// role is what a caller may be; as a set, who may call a route.
type role uint8

const (
	shopper role = 1 << iota
	merchant
	operator
	anyone = shopper | merchant | operator
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

var bearer = []byte("bearer ")

// caller says who sent the header, nil if that is not known.
func (a *Auth) caller(header []byte) *principal {
	if a == nil {
		return trusted
	}
	if len(header) <= len(bearer) || !bytes.EqualFold(header[:len(bearer)], bearer) {
		return nil
	}
	token := header[len(bearer):]
	if bytes.HasPrefix(token, keyPrefix) {
		return a.Keys.caller(token)
	}
	if a.Tokens == nil {
		return nil
	}
	return a.Tokens.caller(token, a.Clock.Now().Wall)
}

// is says whether the caller is, or acts for, the one that owns something.
func (p *principal) is(as role, name string) bool {
	return p.role == operator || p.role == as && string(p.name) == name
}
