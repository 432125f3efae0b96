package gateway

import (
	"crypto/rand"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/valyala/fasthttp"
)

var headerRequestID = []byte("X-Request-Id")

// requestIDLen bounds a request id in bytes.
const requestIDLen = requestIDPrefixLen + 1 + 13

const requestIDPrefixLen = 8

// requestIDs makes ids that are unique among all processes with high
// probability, and within one for certain: a random prefix and a count. A
// client's own X-Request-Id is not taken over, so that nobody can make two
// requests look like one in the logs.
type requestIDs struct {
	prefix string
	next   atomic.Uint64
}

func newRequestIDs() *requestIDs {
	return &requestIDs{prefix: strings.ToLower(rand.Text()[:requestIDPrefixLen]) + "-"}
}

// clientIDMax bounds what a log line shows of a client's own id, in bytes.
const clientIDMax = 64

// about are the attributes of a log line about a request, and more.
func about(ctx *fasthttp.RequestCtx, more ...any) []any {
	attrs := []any{"request_id", string(requestID(ctx)), "deal_id", dealOf(ctx)}
	if own := ctx.Request.Header.PeekCanonical(headerRequestID); len(own) > 0 {
		attrs = append(attrs, "client_request_id", string(own[:min(len(own), clientIDMax)]))
	}
	return append(attrs, more...)
}

// append appends a new id to b.
func (r *requestIDs) append(b []byte) []byte {
	return strconv.AppendUint(append(b, r.prefix...), r.next.Add(1), 36)
}
