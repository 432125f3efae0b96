package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"syscall"
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
	if s == nil || l.stops || !s.loopsOrders() || !bytes.HasPrefix(came, orderLine) || !l.parse(came) {
		return false
	}
	l.ctx.SetRemoteAddr(c.remote)
	c.begin = clockd.Mono()
	c.watched = s.watch(&l.ctx, c.begin)
	l.guard(s, c, func() {
		r, p := s.takeOrder(&l.ctx, c.watched)
		if r == nil {
			l.write(s, c, p)
			return
		}
		r.WakeBy(&c.waker)
		c.request = r
		if err := s.node.Post(r); err != nil {
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
	if fault, says := framingFault(h.RawHeaders()); fault != noProblem || says != 0 || !isPlaceOrder(&l.ctx) {
		return false
	}
	l.body.Reset(came[len(came)-n:])
	l.ctx.Request.SetBodyStream(&l.body, n)
	return true
}

// reset makes room for an answer.
func (l *orderLoop) reset() {
	l.ctx.Response.Reset()
	l.ctx.Response.Header.SetNoDefaultContentType(true)
	l.all.front.identify(&l.ctx)
}

// guard runs a part of an order's handler so that a bug in it costs one answer.
func (l *orderLoop) guard(s *Server, c *orderConn, part func()) {
	defer func() {
		if fault := recover(); fault != nil {
			s.cfg.Logger.Error("a handler panicked", about(&l.ctx, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))...)
			c.request = nil
			l.reset()
			s.refuse(&l.ctx, internalError, "", nil)
			l.ctx.SetConnectionClose()
			l.write(s, c, internalError)
		}
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
		switch {
		case !answered:
			return
		case err == nil && r.Reply.Replayed:
			c.request = nil
			l.replay(s, c, r)
		default:
			c.request = nil
			l.write(s, c, s.giveOrder(&l.ctx, r, err, c.watched))
		}
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
	l.out = appendResponse(l.out[:0], &l.ctx.Response)
	s.done(&l.ctx, s.orders.route, c.begin)
	c.served = true
	if wait := s.standsBack(p); wait > 0 {
		l.later(s, c, wait, l.out, closing)
		return
	}
	n, err := syscall.Write(c.fd, l.out)
	switch {
	case n == len(l.out):
		if closing {
			l.drop(c)
		}
	case err == nil || errors.Is(err, unix.EAGAIN):
		l.later(s, c, 0, l.out[max(n, 0):], closing)
	default:
		l.drop(c)
	}
}

// appendResponse appends what goes out for an answer that is no stream.
func appendResponse(b []byte, resp *fasthttp.Response) []byte {
	body := resp.Body()
	resp.Header.SetContentLength(len(body))
	return append(resp.Header.AppendBytes(b), body...)
}

// later writes an answer, or what is left of it, after a while, to a client that need not
// take it at once.
func (l *orderLoop) later(s *Server, c *orderConn, wait time.Duration, answer []byte, closing bool) {
	c.lent = true
	answer = bytes.Clone(answer)
	go func() {
		if wait > 0 {
			_ = s.cfg.Clock.Sleep(l.all.front.stopping, wait) // a shutdown ends it
		}
		c.deliver(answer, closing)
	}()
}

// replay answers an order that was placed before, which is read from the journal.
func (l *orderLoop) replay(s *Server, c *orderConn, r *actors.Request) {
	c.lent = true
	watched, begin := c.watched, c.begin
	go func() {
		var ctx fasthttp.RequestCtx
		ctx.SetRemoteAddr(c.remote)
		ctx.Response.Header.SetNoDefaultContentType(true)
		s.guard(&ctx, func(ctx *fasthttp.RequestCtx) {
			s.ordered(ctx, watched, s.giveOrder(ctx, r, nil, watched))
			s.done(ctx, s.orders.route, begin)
		})
		c.deliver(appendResponse(nil, &ctx.Response), ctx.Response.ConnectionClose())
	}()
}

// deliver writes an answer to a connection that is lent, and gives it back.
func (c *orderConn) deliver(answer []byte, closing bool) {
	_ = c.SetWriteDeadline(clockd.Deadline(writeTimeout))
	if _, err := c.Write(answer); err != nil || closing {
		_ = c.Close()
		return
	}
	c.loop.tell(c, toldBack)
}
