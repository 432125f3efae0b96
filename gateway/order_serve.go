package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/clockd"
)

// orderLine begins the requests that loops take.
var orderLine = []byte(fasthttp.MethodPost + " /api/v1/order")

// order takes an order that has come whole, and says whether that is what came.
func (l *orderLoop) order(c *orderConn, came []byte) bool {
	s := l.all.front.server.Load()
	if s == nil || !s.loopsOrders() || !bytes.HasPrefix(came, orderLine) || !l.parse(came) {
		return false
	}
	l.ctx.SetRemoteAddr(c.remote)
	c.begin = clockd.Mono()
	l.guard(s, c, func() {
		c.watched = s.watch(&l.ctx, c.begin)
		r, p := s.takeOrder(&l.ctx, c.watched)
		if r == nil {
			l.write(s, c, p)
			return
		}
		c.limit = append(c.limit[:0], l.ctx.Response.Header.PeekBytes(headerRateLimit)...)
		r.WakeBy(&c.waker)
		c.request = r
		if err := s.callOrder(r, s.node.Post); err != nil {
			c.request = nil
			l.write(s, c, s.giveOrder(&l.ctx, r, err, c.watched))
		}
	})
	return true
}

// loopsOrders says whether loops may take orders: where nobody has to wait for another node, or
// to log.
func (s *Server) loopsOrders() bool {
	return s.cfg.Cluster == nil && !s.cfg.Logger.Enabled(s.ctx, slog.LevelDebug)
}

// parse reads what came into the loop's context. It is true if that is an order, whole, with
// nothing behind it, of a client from which another request may come.
func (l *orderLoop) parse(came []byte) bool {
	l.ctx.Request.Reset()
	l.reset()
	l.reader.Reset(came)
	l.parser.Reset(&l.reader)
	h := &l.ctx.Request.Header
	if h.Read(l.parser) != nil {
		return false
	}
	n := h.ContentLength()
	if n < 0 || n > bodyPrefetched || n != l.parser.Buffered()+l.reader.Len() || h.ConnectionClose() || !h.IsHTTP11() {
		return false
	}
	if fault, says := framingFault(h.RawHeaders()); fault != noProblem || says != 0 || !isPlaceOrder(&l.ctx) || !isPlainHost(h.Host()) {
		return false
	}
	l.body.Reset(came[len(came)-n:])
	l.ctx.Request.SetBodyStream(&l.body, n)
	return true
}

// isPlainHost says whether a host needs no judging: a name or an IPv4 address, and perhaps a port.
func isPlainHost(host []byte) bool {
	name, port, _ := bytes.Cut(host, []byte{':'})
	for _, b := range name {
		if b|0x20 < 'a' || b|0x20 > 'z' {
			if b != '.' && b != '-' && (b < '0' || b > '9') {
				return false
			}
		}
	}
	for _, b := range port {
		if b < '0' || b > '9' {
			return false
		}
	}
	return len(name) > 0 && len(port) <= len("65535")
}

// reset makes room for an answer.
func (l *orderLoop) reset() {
	l.ctx.Response.Reset()
	l.ctx.Response.Header.SetNoDefaultContentType(true)
	l.all.front.identify(&l.ctx)
}

// guard runs a part of an order's handler so that a bug in it costs one answer, and the
// connection.
func (l *orderLoop) guard(s *Server, c *orderConn, part func()) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		s.cfg.Logger.Error("a handler panicked", about(&l.ctx, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))...)
		c.request = nil
		if c.lent || c.gone {
			return // its borrower answers, or nobody
		}
		l.reset()
		s.refuse(&l.ctx, internalError, "", nil)
		l.ctx.SetConnectionClose()
		l.out = responseBytes(l.out, &l.ctx.Response)
		_, _ = send(c.fd, l.out)
		l.drop(c)
	}()
	part()
}

// answer answers the order that the deal may have decided.
func (l *orderLoop) answer(c *orderConn, now int64) {
	s, r := l.all.front.server.Load(), c.request
	l.ctx.Request.Header.Reset() // which is another's by now
	l.ctx.SetRemoteAddr(c.remote)
	l.reset()
	l.guard(s, c, func() {
		answered, err := s.node.Poll(r)
		if !answered {
			return
		}
		c.request = nil
		if again := errors.Is(err, actors.ErrLeaving); again || err == nil && r.Reply.Replayed {
			l.finish(s, c, r, again)
			return
		}
		s.limitHeaders(&l.ctx, c.limit)
		l.write(s, c, s.giveOrder(&l.ctx, r, err, c.watched))
	})
	l.read(c, now)
}

// write answers the request, which came to p.
func (l *orderLoop) write(s *Server, c *orderConn, p problem) {
	s.ordered(&l.ctx, c.watched, p)
	if l.stops || c.doomed {
		l.ctx.SetConnectionClose()
	}
	closing := l.ctx.Response.ConnectionClose()
	l.out = responseBytes(l.out, &l.ctx.Response)
	c.served = true
	if wait := s.standsBack(p); wait > 0 {
		l.later(s, c, l.out, closing, wait)
		return
	}
	s.observeOrder(l.ctx.Response.StatusCode(), c.begin)
	n, err := send(c.fd, l.out)
	switch {
	case n == len(l.out):
		if closing {
			l.drop(c)
		}
	case err == nil || errors.Is(err, unix.EAGAIN): // its client need not take the answer at once
		l.later(s, c, l.out[max(n, 0):], closing, 0)
	default:
		l.drop(c)
	}
}

// later writes an answer, or what is left of one, on a goroutine. With a wait it is counted
// behind that.
func (l *orderLoop) later(s *Server, c *orderConn, answer []byte, closing bool, wait time.Duration) {
	c.lent = true
	answer = bytes.Clone(answer)
	status, begin := l.ctx.Response.StatusCode(), c.begin
	go func() {
		if wait > 0 {
			_ = s.cfg.Clock.Sleep(l.all.front.stopping, wait) // a shutdown ends it
			s.observeOrder(status, begin)
		}
		c.deliver(answer, closing)
	}()
}

// observeOrder counts a request of the order path by how long it took.
func (s *Server) observeOrder(status int, begin int64) {
	s.orders.route.Observe(status, time.Duration(clockd.Mono()-begin))
}

// finish answers an order on a goroutine: one that was placed before, which is read from the
// journal, or one whose deal was leaving memory, which waits for it to be back.
func (l *orderLoop) finish(s *Server, c *orderConn, r *actors.Request, again bool) {
	c.lent = true
	watched, begin, limit := c.watched, c.begin, bytes.Clone(c.limit)
	go func() {
		var ctx fasthttp.RequestCtx
		ctx.SetRemoteAddr(c.remote)
		ctx.Response.Header.SetNoDefaultContentType(true)
		s.guard(&ctx, func(ctx *fasthttp.RequestCtx) {
			s.limitHeaders(ctx, limit)
			var err error
			if again {
				err = s.callOrder(r, s.node.CallAgain)
			}
			s.ordered(ctx, watched, s.giveOrder(ctx, r, err, watched))
			s.observeOrder(ctx.Response.StatusCode(), begin)
		})
		if l.all.front.stopping.Err() != nil {
			ctx.SetConnectionClose()
		}
		c.deliver(responseBytes(nil, &ctx.Response), ctx.Response.ConnectionClose())
	}()
}

// responseBytes is what goes out for an answer that is no stream, in the room of buf.
func responseBytes(buf []byte, resp *fasthttp.Response) []byte {
	body := resp.Body()
	resp.Header.SetContentLength(len(body))
	return append(resp.Header.AppendBytes(buf), body...)
}

// deliver writes an answer to a connection that is lent, and gives it back.
func (c *orderConn) deliver(answer []byte, closing bool) {
	_ = c.SetWriteDeadline(clockd.Deadline(writeTimeout))
	then := toldBack
	if _, err := c.Write(answer); err != nil || closing {
		then = toldClosed
	}
	c.loop.tell(c, then)
}
