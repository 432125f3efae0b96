package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// FuzzFraming sends bytes to the gateway as one connection and holds the requests that
// it serves against two other readings of the same bytes: one that knows nothing but the
// strict grammar of RFC 9112, and net/http's. All that the gateway serves must begin and
// end where both say, and behind a request that it refuses for its framing nothing is
// served any more. Net/http may refuse what is strict (a target that is no URL): then
// nobody can be smuggled past it.
func FuzzFraming(f *testing.F) {
	body := orderBody("d", "u", 1, "")
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	const head = "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n"
	const get = "GET /livez HTTP/1.1\r\nHost: localhost\r\n"
	for _, seed := range []string{
		get + "\r\n" + get + "\r\n",
		"\r\n" + head + length + "\r\n" + body + get + "\r\n",
		head + "Content-Length: 20000\r\n\r\n" + strings.Repeat(" ", 20000) + get + "\r\n",
		"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get + "\r\n",
		get + "Connection: close\r\n\r\n" + get + "\r\n",
		head + "Expect: 100-continue\r\n" + length + "\r\n" + body + get + "\r\n",
		head + "Expect: 100-continue\r\nContent-Length: 20000\r\n\r\n" + smuggled,
		head + length + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		head + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n" + smuggled,
		head + length + length + "\r\n" + body + smuggled,
		head + "Content-Length: +5\r\n\r\n" + smuggled,
		head + "Content-Length: 5 5\r\n\r\n" + smuggled,
		head + "Content-Length:\r\n 5\r\n\r\n" + smuggled,
		head + "Content-Length : 5\r\n\r\n" + smuggled,
		get + "X-A: b\n" + length + "\r\n" + smuggled,
		get + "X-A: b\r" + length + "\r\n" + smuggled,
		get + "X-A: \x00\r\n" + length + "\r\n" + smuggled,
		"GET http://x/livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + smuggled,
		"GET /livez HTTP/1.1\nHost: localhost\n\n" + smuggled,
	} {
		f.Add([]byte(seed))
	}
	h := newHouse(f, nil)
	h.deal("d", "")
	f.Fuzz(func(t *testing.T, in []byte) {
		served := h.serveBytes(t, in)
		rest, reader := in, bufio.NewReader(bytes.NewReader(in))
		readable := true
		for i, got := range served {
			want, size, ok := readStrictly(rest)
			if !ok || got != want {
				t.Fatalf("request %d was served as %+v; strictly it is %+v (%v) in %q", i, got, want, ok, rest)
			}
			rest = rest[size:]
			if !readable {
				continue
			}
			req, err := http.ReadRequest(reader)
			if err != nil {
				readable = false
				continue
			}
			n, err := io.Copy(io.Discard, req.Body)
			if req.Method != got.method || req.RequestURI != got.target || err == nil && int(n) != got.length {
				t.Fatalf("request %d was served as %+v; net/http reads %s %s with %d bytes: %v", i, got, req.Method, req.RequestURI, n, err)
			}
			readable = err == nil
		}
	})
}

// framed is a request as its boundaries have it.
type framed struct {
	method, target string
	length         int // of the body, in bytes
}

// serveBytes is the gateway's reading: what its handlers were given.
func (h *house) serveBytes(t *testing.T, in []byte) (served []framed) {
	refused := false
	edge := h.server.front.listener(1, func(ctx *fasthttp.RequestCtx) {
		header := &ctx.Request.Header
		if refused {
			t.Errorf("%s %s was served behind a request that was refused", header.Method(), header.RequestURI())
		}
		if target := header.RequestURI(); bytes.Equal(target, refusedTarget) || bytes.Equal(target, largeTarget) {
			refused = true
		} else {
			served = append(served, framed{string(header.Method()), string(header.RequestURI()), max(0, header.ContentLength())})
		}
		h.server.front.public.Handler(ctx)
	})
	malformed := edge.ErrorHandler
	edge.ErrorHandler = func(ctx *fasthttp.RequestCtx, err error) {
		refused = true
		malformed(ctx, err)
	}
	_ = edge.ServeConn(&bytesConn{in: bytes.NewReader(in)}) // says why the connection ended
	return served
}

// bytesConn is a connection on which everything has arrived and nobody reads.
type bytesConn struct{ in *bytes.Reader }

func (c *bytesConn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *bytesConn) Write(b []byte) (int, error) { return len(b), nil }
func (c *bytesConn) Close() error                { return nil }
func (c *bytesConn) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (c *bytesConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// readStrictly reads one request and says how many bytes it takes, with a body that may
// be cut short by the end of the connection. It refuses what RFC 9112 does not allow a
// sender, and of what it does allow all Transfer-Encodings. It takes one liberty that
// RFC 9112 gives: the request's line, and empty lines before and right behind it, may end with a bare LF.
// No reader can take that for anything but the end of a line.
func readStrictly(in []byte) (req framed, size int, ok bool) {
	rest := in
	rest = bytes.TrimLeft(rest, "\r\n") // empty lines between requests
	line, rest, found := bytes.Cut(rest, []byte("\n"))
	parts := strings.Split(string(bytes.TrimSuffix(line, []byte("\r"))), " ")
	if !found || len(parts) != 3 || !isToken(parts[0]) || !strings.HasPrefix(parts[1], "/") || hasControl(parts[1], false) {
		return framed{}, 0, false
	}
	if version, ok := strings.CutPrefix(parts[2], "HTTP/1."); !ok || version != "0" && version != "1" {
		return framed{}, 0, false
	}
	req = framed{method: parts[0], target: parts[1]}
	if bytes.HasPrefix(rest, []byte("\n")) { // no headers at all: HTTP/1.0
		return req, len(in) - len(rest) + 1, true
	}
	lengths := 0
	for {
		line, rest, found = bytes.Cut(rest, []byte("\r\n"))
		if !found {
			return framed{}, 0, false
		}
		if len(line) == 0 {
			break
		}
		name, value, colon := strings.Cut(string(line), ":")
		if !colon || !isToken(name) || hasControl(value, true) {
			return framed{}, 0, false
		}
		switch value = strings.Trim(value, " \t"); strings.ToLower(name) {
		case "transfer-encoding":
			return framed{}, 0, false
		case "content-length":
			n, err := strconv.ParseUint(value, 10, 31)
			if lengths++; err != nil || lengths > 1 {
				return framed{}, 0, false
			}
			req.length = int(n)
		}
	}
	size = min(len(in), len(in)-len(rest)+req.length)
	return req, size, true
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c >= 0x7f || c <= ' ' || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return s != ""
}

func hasControl(s string, tabs bool) bool {
	for _, c := range []byte(s) {
		if (c < ' ' || c == 0x7f) && (c != '\t' || !tabs) {
			return true
		}
	}
	return false
}
