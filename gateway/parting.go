package gateway

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// partingsMax bounds the connections that are parted with at once. What is beyond
	// is closed at once.
	partingsMax = 256
	// partingTime is how long one of them may last.
	partingTime = 2 * time.Second
)

// part answers a request whose body is not read, and whose connection ends for that,
// with the response as it stands. The kernel resets a connection that is closed
// while something arrives: a client that is still sending would then have an error of its
// socket and not the answer, which says what is wrong. So only our side is closed
// behind the answer, and what comes is dropped until the client closes its own.
func (s *Server) part(ctx *fasthttp.RequestCtx) {
	if s.partings.full(stranger) {
		return
	}
	ctx.Response.SkipBody = ctx.IsHead()
	var answer bytes.Buffer
	w := bufio.NewWriter(&answer)
	_ = ctx.Response.Write(w) // a buffer takes everything
	_ = w.Flush()
	conn := ctx.Conn() // what Hijack passes is somebody else's once fn has returned, and deadlines may come later
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(net.Conn) {
		if !s.partings.run(stranger, func() { s.drop(conn, answer.Bytes()) }) {
			_, _ = conn.Write(answer.Bytes()) // far smaller than what a connection takes without waiting
		}
	})
}

// stranger is whoever is answered before it matters who it is.
var stranger = &principal{}

// drop writes an answer and drops what the client still sends.
func (s *Server) drop(conn net.Conn, answer []byte) {
	end := func() { _ = conn.SetDeadline(past) }
	defer s.cfg.Clock.AfterFunc(partingTime, end)()
	defer context.AfterFunc(s.front.stopping, end)()
	if _, err := conn.Write(answer); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, conn, lingerMax)
}
