package gateway

import (
	"crypto/rand"
	"strconv"
	"strings"
	"sync/atomic"
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

// append appends a new id to b.
func (r *requestIDs) append(b []byte) []byte {
	return strconv.AppendUint(append(b, r.prefix...), r.next.Add(1), 36)
}
