package gateway

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

// A request that two parsers on its way could split at different places is
// how requests are smuggled. fasthttp reads some of these leniently and keeps
// the connection; here they are refused before their body is read, and the
// connection is closed:
//
//   - Transfer-Encoding of any kind: no client of this API needs it;
//   - a header continued on the next line (obs-fold), or ended by a bare LF;
//   - a space within a header's name;
//   - a target that is not a path (absolute form, authority form, *);
//   - a version that is neither HTTP/1.1 nor HTTP/1.0;
//   - two Idempotency-Keys, or two Authorizations, of which a proxy might see the other;
//   - a Content-Encoding, which nothing here decodes: the bytes would be taken for what they are not.
//
// fasthttp itself refuses two Content-Lengths, two Hosts, and bytes that may
// not stand in a header at all.

// These replace the target of a request that is refused as soon as its headers are here:
// for its framing, or for a body that is too large and that its client holds back until it
// is asked for. No route has them: every path begins with a slash.
var refusedTarget, largeTarget = []byte("*"), []byte("*large")

// refuseFraming is fasthttp's HeaderReceived hook, the only place where a
// request can be looked at before its body is read. It cannot answer, so it
// leaves a mark that costs other requests nothing to check.
func refuseFraming(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	fault, says := framingFault(h.RawHeaders())
	if says&saysClose != 0 {
		h.SetConnectionClose()
	}
	if says&saysContinue != 0 {
		h.SetCanonical(nameExpect, continueFirst)
	}
	if h.RequestURI()[0] != '/' || !versionKnown(h.Protocol()) || fault != noProblem {
		endHeaders(h, refusedTarget)
	} else if h.ContentLength() > orderBodyMax && h.IsPost() && takesOrder(h.RequestURI()) {
		if says&saysContinue != 0 {
			endHeaders(h, largeTarget)
		}
		return fasthttp.RequestConfig{MaxRequestBodySize: 1} // bytes that the handler waits for
	}
	return fasthttp.RequestConfig{}
}

// endHeaders makes a request end with its headers: whatever follows is not a body of ours.
func endHeaders(h *fasthttp.RequestHeader, mark []byte) {
	h.SetRequestURIBytes(mark)
	h.SetContentLength(0)
	h.Del(fasthttp.HeaderExpect)
}

// takesOrder says whether a body of more than orderBodyMax is none for the target.
func takesOrder(target []byte) bool {
	path, _, _ := bytes.Cut(target, []byte("?"))
	switch string(path) {
	case "/api/v1/orders", "/api/v1/order", "/api/v1/quotes":
		return true
	}
	return false
}

func versionKnown(version []byte) bool {
	return string(version) == "HTTP/1.1" || string(version) == "HTTP/1.0"
}

// What headers say that fasthttp understands in one spelling alone.
const (
	saysClose    = 1 << iota // close the connection: an option of several, in any case
	saysContinue             // the body is held back until 100 Continue: in any case
)

// framingFault looks at the header lines as they came.
func framingFault(raw []byte) (fault problem, says uint) {
	keys, callers := 0, 0
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 1 || raw[end-1] != '\r' {
			return invalidRequest, says
		}
		line := raw[:end-1]
		raw = raw[end+1:]
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, colon)
		if bytes.IndexByte(name, ' ') >= 0 || line[0] == '\t' {
			return invalidRequest, says
		}
		switch len(name) {
		case len(nameTransferEncoding):
			if bytes.EqualFold(name, nameTransferEncoding) {
				return transferEncodingRefused, says
			}
		case len(headerAuthorization):
			if bytes.EqualFold(name, headerAuthorization) {
				if callers++; callers > 1 {
					return invalidRequest, says
				}
			}
		case len(headerIdempotencyKey):
			if bytes.EqualFold(name, headerIdempotencyKey) {
				if keys++; keys > 1 {
					return keyInvalid, says
				}
			}
		case len(fasthttp.HeaderContentEncoding):
			if bytes.EqualFold(name, nameContentEncoding) && !isPlain(value) {
				return unsupportedMediaType, says
			}
		case len(fasthttp.HeaderConnection):
			if string(value) != keepAlive && bytes.EqualFold(name, nameConnection) && hasOption(value, optionClose) {
				says |= saysClose
			}
		case len(fasthttp.HeaderExpect):
			if bytes.EqualFold(name, nameExpect) && hasOption(value, continueFirst) {
				says |= saysContinue
			}
		}
	}
	return noProblem, says
}

var (
	colon                = []byte(":")
	comma                = []byte(",")
	nameTransferEncoding = []byte("Transfer-Encoding")
	nameContentEncoding  = []byte(fasthttp.HeaderContentEncoding)
	nameConnection       = []byte(fasthttp.HeaderConnection)
	nameExpect           = []byte(fasthttp.HeaderExpect)
	optionClose          = []byte("close")
	continueFirst        = []byte("100-continue")
)

// keepAlive is what many clients say of every connection.
const keepAlive = " keep-alive"

// hasOption says whether an option is in a list of them, separated by commas.
func hasOption(list, option []byte) bool {
	for more := true; more; {
		var one []byte
		one, list, more = bytes.Cut(list, comma)
		if bytes.EqualFold(bytes.TrimSpace(one), option) {
			return true
		}
	}
	return false
}

// isPlain says whether a Content-Encoding is none.
func isPlain(coding []byte) bool {
	coding = bytes.TrimSpace(coding)
	return len(coding) == 0 || bytes.EqualFold(coding, []byte("identity"))
}
