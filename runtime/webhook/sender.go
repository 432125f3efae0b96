package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// Headers of a delivery.
const (
	// HeaderSignature is t=<Unix seconds>,v1=<hex>: HMAC-SHA256 with the secret over
	// the seconds, a dot and the body.
	HeaderSignature = "Doorbuster-Signature"
	// HeaderWebhook is the webhook's id.
	HeaderWebhook = "Doorbuster-Webhook"
)

const (
	sendTimeout  = 10 * time.Second // for a whole delivery
	answerMax    = 4 << 10          // bytes of an answer that are read, so that its connection can be kept
	idleMost     = 64               // connections kept
	idleMostHost = 2
	idleTime     = time.Minute
)

// sender makes the requests.
type sender struct {
	client   *http.Client
	networks []netip.Prefix // allowed although they are private
	loopback bool
}

func newSender(networks []netip.Prefix, loopback bool) *sender {
	s := &sender{networks: networks, loopback: loopback}
	dial := &net.Dialer{Control: s.control}
	s.client = &http.Client{
		Timeout: sendTimeout,
		Transport: &http.Transport{
			DialContext: dial.DialContext, MaxIdleConns: idleMost, MaxIdleConnsPerHost: idleMostHost, IdleConnTimeout: idleTime,
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// errPrivate refuses an address that the merchant has no business with.
var errPrivate = errors.New("the address is not a public one")

// control sees the address after the name was resolved, so that no name can mean
// one address when it is checked and another when it is dialled. A zone is left out:
// no network contains an address that has one, and the system ignores it unless the
// address is link-local.
func (s *sender) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !s.allowed(at.Addr().WithZone("").Unmap()) {
		return fmt.Errorf("%s: %w", address, errPrivate)
	}
	return nil
}

// special are networks that netip has no word for, or that lead to others.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carriers' own
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"), // an IPv4 address within
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"), // so has this
	netip.MustParsePrefix("2001::/32"), // and this
	netip.MustParsePrefix("fec0::/10"),
}

func (s *sender) allowed(ip netip.Addr) bool {
	if s.loopback && ip.IsLoopback() || within(s.networks, ip) {
		return true
	}
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !within(special, ip)
}

func within(networks []netip.Prefix, ip netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// Sign returns the value of HeaderSignature. at is in Unix seconds.
func Sign(secret string, at int64, body []byte) string {
	seconds := strconv.FormatInt(at, 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// send delivers a body. nil means that the receiver took it.
func (s *sender) send(ctx context.Context, h *Hook, now int64, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "doorbuster")
	req.Header.Set(HeaderWebhook, h.ID)
	req.Header.Set(HeaderSignature, Sign(h.Secret, now/1000, body))
	resp, err := s.client.Do(req)
	if err != nil {
		return withoutAddresses(err)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, answerMax)
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answered %d", resp.StatusCode)
	}
	return nil
}

// withoutAddresses is what a merchant may know of a request that failed: what a name
// means within our network, and who told us, is not part of it.
func withoutAddresses(err error) error {
	var name *net.DNSError
	var late net.Error
	var operation *net.OpError
	var request *url.Error
	switch {
	case errors.Is(err, errPrivate):
		return errPrivate
	case errors.As(err, &name):
		return errors.New("the name of the host cannot be resolved")
	case errors.As(err, &late) && late.Timeout():
		return errors.New("no answer in time")
	case errors.As(err, &operation):
		return operation.Err
	case errors.As(err, &request):
		return request.Err
	}
	return err
}
