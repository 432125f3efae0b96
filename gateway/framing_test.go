package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// raw sends bytes as they are and returns the responses until the connection
// ends, or until n have come. closed says that the server closed it.
func (h *house) raw(t *testing.T, in string, n int) (got []answer, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp4", h.addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, in)
	must(t, err)
	r := bufio.NewReader(conn)
	for range n {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return got, true
		}
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		got = append(got, answer{t, resp.StatusCode, resp.Header, body})
		if resp.Close {
			_, err := r.ReadByte()
			return got, err == io.EOF || errors.Is(err, syscall.ECONNRESET)
		}
	}
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	_, err = r.ReadByte()
	return got, err == io.EOF
}

// smuggled is a request that must never run: behind each of the cases it
// would, if the server split the bytes where the attacker wants.
const smuggled = "POST /api/v1/deals/d/close HTTP/1.1\r\nHost: localhost\r\n\r\n"

func TestFraming(t *testing.T) {
	h := newHouse(t, nil)
	h.tick()
	h.deal("d", "")
	body := orderBody("d", "u", 1, "")
	order := func(target, headers, body string) string {
		return "POST " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n" + headers + "\r\n" + body
	}
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	get := func(headers string) string { return "GET /livez HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n" }
	for _, tc := range []struct {
		name string
		in   string
		want problem
	}{
		{"chunked", order("/api/v1/orders", "Transfer-Encoding: chunked\r\n", chunked), transferEncodingRefused},
		{"chunked, in another case", order("/api/v1/orders", "tRANSFER-eNCODING: chunked\r\n", chunked), transferEncodingRefused},
		{"CL and TE", order("/api/v1/orders", length+"Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), transferEncodingRefused},
		{"TE and CL", order("/api/v1/orders", "Transfer-Encoding: chunked\r\n"+length, "0\r\n\r\n"), transferEncodingRefused},
		{"TE identity", order("/api/v1/orders", length+"Transfer-Encoding: identity\r\n", body), transferEncodingRefused},
		{"TE gzip, chunked", order("/api/v1/orders", "Transfer-Encoding: gzip, chunked\r\n", chunked), transferEncodingRefused},
		{"TE xchunked", order("/api/v1/orders", length+"Transfer-Encoding: xchunked\r\n", body), transferEncodingRefused},
		{"two TEs", order("/api/v1/orders", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunked), transferEncodingRefused},
		{"TE with a tab", order("/api/v1/orders", length+"Transfer-Encoding:\tchunked\r\n", body), transferEncodingRefused},
		{"TE in a GET", get("Transfer-Encoding: chunked\r\n"), transferEncodingRefused},
		{"TE in HTTP/1.0", "POST /api/v1/orders HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, transferEncodingRefused},
		{"TE with Expect", order("/api/v1/orders", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", chunked), transferEncodingRefused},
		{"TE, space before the colon", order("/api/v1/orders", length+"Transfer-Encoding : chunked\r\n", body), invalidRequest},
		{"TE folded", order("/api/v1/orders", length+"Transfer-Encoding:\r\n chunked\r\n", body), transferEncodingRefused},
		{"TE with a chunk extension", order("/api/v1/orders", "Transfer-Encoding: chunked\r\n", "5;a=\"\r\n\r\n0\r\n\r\n"), transferEncodingRefused},
		{"TE with a chunk of an endless size", order("/api/v1/orders", "Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"), transferEncodingRefused},
		{"TE with a trailer", order("/api/v1/orders", "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n", "0\r\nContent-Length: 5\r\n\r\n"), invalidRequest},
		{"TE, quoted", order("/api/v1/orders", length+"Transfer-Encoding: \"chunked\"\r\n", body), transferEncodingRefused},
		{"TE, empty", order("/api/v1/orders", length+"Transfer-Encoding:\r\n", body), transferEncodingRefused},
		{"TE with a vertical tab", order("/api/v1/orders", length+"Transfer-Encoding:\x0bchunked\r\n", body), invalidRequest},
		{"TE with a NUL", order("/api/v1/orders", length+"Transfer-Encoding: chunked\x00\r\n", body), invalidRequest},
		{"TE with a NUL in its name", order("/api/v1/orders", length+"Transfer-\x00Encoding: chunked\r\n", body), invalidRequest},
		{"TE behind a bare CR", order("/api/v1/orders", length+"X-A: b\rTransfer-Encoding: chunked\r\n", body), invalidRequest},
		{"TE, tab before the colon", order("/api/v1/orders", length+"Transfer-Encoding\t: chunked\r\n", body), invalidRequest},
		{"CL with a space inside", order("/api/v1/orders", "Content-Length: 1 1\r\n", body), invalidRequest},
		{"CL with a point", order("/api/v1/orders", "Content-Length: 5.0\r\n", body), invalidRequest},
		{"CL with an underscore", order("/api/v1/orders", "Content-Length: 1_0\r\n", body), invalidRequest},
		{"CL with a vertical tab", order("/api/v1/orders", "Content-Length:\x0b5\r\n", body), invalidRequest},
		{"CL, empty", order("/api/v1/orders", "Content-Length:\r\n", body), invalidRequest},
		{"CL folded", order("/api/v1/orders", "Content-Length:\r\n 5\r\n", body), invalidRequest},
		{"CL in another case, twice", order("/api/v1/orders", length+"content-length: 1\r\n", body), invalidRequest},
		{"bare LF alone", "GET /livez HTTP/1.1\nHost: localhost\n\n", invalidRequest},
		{"bare LF ends the headers", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\n", invalidRequest},
		{"two CRs", "GET /livez HTTP/1.1\r\nHost: localhost\r\r\n\r\n", invalidRequest},
		{"two versions", "GET /livez HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"a tab in the request's line", "GET\t/livez\tHTTP/1.1\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"obs-fold", order("/api/v1/orders", length+"X-A: b\r\n c\r\n", body), invalidRequest},
		{"obs-fold hides TE", order("/api/v1/orders", length+"X-A: b\r\n Transfer-Encoding: chunked\r\n", body), invalidRequest},
		{"obs-fold with a tab", get("X-A: b\r\n\tc\r\n"), invalidRequest},
		{"fold before the first header", "GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n", invalidRequest},
		{"bare LF between headers", get("X-A: b\nX-B: c\r\n"), invalidRequest},
		{"bare LF hides TE", order("/api/v1/orders", length+"X-A: b\nTransfer-Encoding: chunked\r\n", body), invalidRequest},
		{"absolute form", order("http://x/api/v1/orders", length, body), invalidRequest},
		{"absolute form, TE", order("http://x/api/v1/orders", "Transfer-Encoding: chunked\r\n", chunked), transferEncodingRefused},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"authority form", "CONNECT x:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"two CLs", order("/api/v1/orders", length+length, body), invalidRequest},
		{"two different CLs", order("/api/v1/orders", length+"Content-Length: 1\r\n", body), invalidRequest},
		{"a list of CLs", order("/api/v1/orders", "Content-Length: 1, 1\r\n", body), invalidRequest},
		{"negative CL", order("/api/v1/orders", "Content-Length: -1\r\n", body), invalidRequest},
		{"signed CL", order("/api/v1/orders", "Content-Length: +5\r\n", body), invalidRequest},
		{"hexadecimal CL", order("/api/v1/orders", "Content-Length: 0x5\r\n", body), invalidRequest},
		{"huge CL", order("/api/v1/orders", "Content-Length: 99999999999999999999\r\n", body), invalidRequest},
		{"CL, space before the colon", order("/api/v1/orders", "Content-Length : 5\r\n", body), invalidRequest},
		{"a space in a name", get("X A: b\r\n"), invalidRequest},
		{"no name", get(": b\r\n"), invalidRequest},
		{"no colon", get("X-A\r\n"), invalidRequest},
		{"NUL in a value", get("X-A: b\x00\r\n"), invalidRequest},
		{"CR in a value", get("X-A: b\rX-B: c\r\n"), invalidRequest},
		{"no host", "GET /livez HTTP/1.1\r\n\r\n", invalidRequest},
		{"two hosts", get("Host: y\r\n"), invalidRequest},
		{"two callers", get("Authorization: Bearer a\r\nauthorization: Bearer b\r\n"), invalidRequest},
		{"two keys", order("/api/v1/orders", length+"Idempotency-Key: other\r\n", body), keyInvalid},
		{"a coded body", order("/api/v1/orders", length+"Content-Encoding: gzip\r\n", body), unsupportedMediaType},
		{"a coded body, in another case", order("/api/v1/orders", length+"content-encoding:\tBR\r\n", body), unsupportedMediaType},
		{"a body that is coded twice", order("/api/v1/deals", length+"Content-Encoding: identity, gzip\r\n", body), unsupportedMediaType},
		{"a coded body that is waited for", order("/api/v1/deals", length+"Expect: 100-continue\r\nContent-Encoding: gzip\r\n", ""), unsupportedMediaType},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", invalidRequest},
		{"no version", "GET /livez\r\n\r\n", invalidRequest},
		{"bad version", "GET /livez HTTP/x.y\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"version 0.9", "GET /livez HTTP/0.9\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"version 1.2", "GET /livez HTTP/1.2\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"version 2.0", "GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"version 1.01", "GET /livez HTTP/1.01\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"two spaces", "GET  /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"not HTTP", "\x16\x03\x01\x02\x00\x01\r\n\r\n", invalidRequest},
		{"control byte in the target", "GET /li\x01vez HTTP/1.1\r\nHost: localhost\r\n\r\n", invalidRequest},
		{"too many headers", get(strings.Repeat("X-A: "+strings.Repeat("b", 1000)+"\r\n", 9)), headersTooLarge},
		{"an endless target", "GET /" + strings.Repeat("a", headersMax) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", headersTooLarge},
		{"a body that is far too large", order("/api/v1/orders", "Content-Length: 1000000000\r\n", strings.Repeat(" ", bodyPrefetched)), bodyTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, closed := h.raw(t, tc.in+smuggled, 3)
			if len(got) != 1 || !closed {
				t.Fatalf("%d answers, closed: %v", len(got), closed)
			}
			got[0].t = t
			got[0].refused(tc.want)
		})
	}
	h.get("/api/v1/deals/d").has(map[string]any{"status": "live", "available": 100})
}

// A client that is still sending when it is refused has its answer, and no error of its
// connection.
func TestRefusedWhileSending(t *testing.T) {
	h := newHouse(t, nil)
	head := "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n"
	for _, tc := range []struct {
		headers string
		want    problem
	}{
		{"Transfer-Encoding: chunked\r\n", transferEncodingRefused},
		{"Content-Encoding: gzip\r\nContent-Length: 1000000\r\n", unsupportedMediaType},
	} {
		conn, err := net.Dial("tcp4", h.addr)
		must(t, err)
		_, err = io.WriteString(conn, head+tc.headers+"\r\n")
		must(t, err)
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		answer{t, resp.StatusCode, resp.Header, body}.refused(tc.want)
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("behind the answer came %v", err)
		}
		for range 50 {
			_, err := io.WriteString(conn, "4e20\r\n"+strings.Repeat(" ", 20000)+"\r\n")
			must(t, err)
		}
		must(t, conn.Close())
	}
}

// What looks like an attack and is framed alike by all that accept it is served, and a
// request in its body is not.
func TestFramingThatIsHarmless(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	length := fmt.Sprintf("Content-Length: %d\r\n", len(smuggled))
	for name, in := range map[string]string{
		"a body in a GET":                     "GET /livez HTTP/1.1\r\nHost: localhost\r\n" + length + "\r\n" + smuggled,
		"a body for a path that is not there": "POST /nope HTTP/1.1\r\nHost: localhost\r\n" + length + "\r\n" + smuggled,
		"a body that is no order":             "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n" + length + "\r\n" + smuggled,
		"a body without a key":                "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + length + "\r\n" + smuggled,
		"a method that nobody knows":          "BREW /livez HTTP/1.1\r\nHost: localhost\r\n" + length + "\r\n" + smuggled,
		"a bare LF behind the request's line": "GET /livez HTTP/1.1\nHost: localhost\r\n" + length + "\r\n" + smuggled,
		"CL with leading zeros":               "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 00" + strings.TrimPrefix(length, "Content-Length: ") + "\r\n" + smuggled,
		"Upgrade":                             "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n" + length + "\r\n" + smuggled,
		"Connection drops CL":                 "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Content-Length\r\n" + length + "\r\n" + smuggled,
	} {
		got, closed := h.raw(t, in+"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 3)
		if len(got) != 2 || !closed {
			t.Errorf("%s: %d answers, closed: %v", name, len(got), closed)
		}
	}
	h.get("/api/v1/deals/d").has(map[string]any{"status": "live"})
}

// What is well framed keeps the connection, refused or not, pipelined or not.
func TestFramingThatIsGood(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	order := func(key, body string) string {
		return fmt.Sprintf("POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\nidempotency-key: %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
	}
	good := orderBody("d", "u", 1, "")
	large := strings.Repeat(" ", 20000)
	padded := func(n int) string { return good + strings.Repeat(" ", n-len(good)) }
	in := "\r\n" + order("k1", good) + order("k2", "{}") +
		strings.Replace(order("k7", good), "Host", "Content-Encoding: identity\r\nHost", 1) + order("bad key", good) + "GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n" +
		order("k3", padded(orderBodyMax/2)) + order("k4", padded(orderBodyMax-1)) + order("k5", padded(orderBodyMax)) +
		order("k6", padded(orderBodyMax+1)) + // refused before it is read, and then dropped
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n" + large +
		"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n" + large +
		"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
	want := []int{201, 400, 201, 400, 404, 201, 201, 201, 413, 200, 404, 200}
	got, closed := h.raw(t, in, len(want))
	if closed || len(got) != len(want) {
		t.Fatalf("%d answers, closed: %v", len(got), closed)
	}
	for i, a := range got {
		if a.status != want[i] {
			t.Errorf("answer %d is %d %s, want %d", i, a.status, a.body, want[i])
		}
	}
}

// What a client asks of the connection is done in any case and in a list.
func TestConnectionOptions(t *testing.T) {
	h := newHouse(t, nil)
	for option, ends := range map[string]bool{
		"close": true, "Close": true, "TE, close": true, "CLOSE ,x": true, "keep-alive": false, "x-close": false, "close-it, x": false, "": false,
	} {
		get := "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: " + option + "\r\n\r\n"
		if got, closed := h.raw(t, get+get, 2); closed != ends || ends != (len(got) == 1) {
			t.Errorf("%q: %d answers, closed: %v", option, len(got), closed)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	body := orderBody("d", "u", 1, "")
	conn, err := net.Dial("tcp4", h.addr)
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nexpect: 100-Continue\r\nContent-Length: %d\r\n\r\n", len(body))
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	must(t, err)
	if resp.StatusCode != 100 {
		t.Fatalf("status %d, want 100", resp.StatusCode)
	}
	io.WriteString(conn, body)
	resp, err = http.ReadResponse(r, nil)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != 201 {
		t.Fatalf("status %d, want 201", resp.StatusCode)
	}
}

// TestLargeOrders: an order whose body is too large is refused by what its headers say,
// and a body that is held back is not asked for.
func TestLargeOrders(t *testing.T) {
	h := newHouse(t, nil)
	h.tick()
	for _, target := range []string{"/api/v1/orders", "/api/v1/order", "/api/v1/quotes", "/api/v1/quotes?a=b"} {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: %d\r\n", target, orderBodyMax+1)
		for _, in := range []string{head + "\r\n{", head + "Expect: 100-continue\r\n\r\n"} {
			got, closed := h.raw(t, in, 1)
			if len(got) != 1 || !closed {
				t.Fatalf("%d answers, closed: %v", len(got), closed)
			}
			got[0].refused(bodyTooLarge)
		}
	}
	if got, _ := h.raw(t, "GET /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\nExpect: 100-continue\r\n\r\n", 1); len(got) != 1 || got[0].status == 413 {
		t.Errorf("no order: %+v", got)
	}
}

// A request that ends early is answered if anybody still listens, and decides
// nothing.
func TestRequestThatEndsEarly(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	head := " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n"
	for in, want := range map[string]problem{
		"POST /api/v1/orders" + head + "Content-Length: 100\r\n\r\n{":                                       invalidRequest,
		"POST /api/v1/deals" + head + "Content-Length: 60000\r\n\r\n" + strings.Repeat(" ", bodyPrefetched): requestTimeout,
		"GET /livez HTT": invalidRequest,
	} {
		conn, err := net.Dial("tcp4", h.addr)
		must(t, err)
		_, err = io.WriteString(conn, in)
		must(t, err)
		must(t, conn.(*net.TCPConn).CloseWrite())
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		conn.Close()
		answer{t, resp.StatusCode, resp.Header, body}.refused(want)
	}
	h.get("/api/v1/deals/d").has(map[string]any{"available": 100})
}

// A client that sends an order slowly, or never all of it, keeps nobody else
// from a seat.
func TestSlowBodyHoldsNoSeat(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	conn, err := net.Dial("tcp4", h.addr)
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: %d\r\n\r\n%s",
		orderBodyMax, strings.Repeat(" ", orderBodyMax-1))
	for range 20 { // long enough for the server to have read what there is
		h.get("/livez")
		if n := h.node.Stats().Pool.InUse; n != 0 {
			t.Fatalf("%d seats are held by an order that has not arrived", n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	io.WriteString(conn, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Fatalf("status %d, want 400", resp.StatusCode)
	}
}
