package gateway

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// orderConn is a connection of a loop, which reads and writes it while plain orders come. For
// anything else it is lent to fasthttp, for which it is a net.Conn; the loop then only
// says when something may have changed. While fasthttp waits for the next request, in Read, the
// loop has the connection again.
type orderConn struct {
	loop          *orderLoop
	fd            int
	local, remote net.Addr
	waker         own.Waker   // itself
	woken         atomic.Bool // it is on its way to the loop
	closed        atomic.Bool // by its borrower

	// The loop's.
	request *actors.Request // that its deal has, nil if none
	begin   int64           // of the request, Mono ns
	watched *watchedOrder   // the request, if it is
	last    int64           // when something last came, Mono ns
	served  bool            // a request has been answered
	lent    bool
	parked  bool   // fasthttp waits in Read for the next request
	more    bool   // something may have come that is not read
	ended   bool   // nothing comes any more: read up to the end, of which no event tells
	doomed  bool   // it is closed behind its answer
	limit   []byte // what the answer to the request says of its caller's rate, if there are limits

	// The borrower's, while it is lent.
	idle   bool          // a request has been answered, and nothing is read of the next
	before []byte        // what the loop has read
	taken  int           // bytes of before
	resume chan struct{} // ends the wait for the next request, which is in before; nothing is at the end

	mu      sync.Mutex // guards everything below, and what a borrower does with fd
	gone    bool       // fd is closed
	readBy  time.Time
	writeBy time.Time
	changed chan struct{} // closed when something may have changed, nil if nobody waits for that
}

var (
	_ net.Conn  = (*orderConn)(nil)
	_ own.Waker = (*orderConn)(nil)
)

func newOrderConn(l *orderLoop, local, remote net.Addr) *orderConn {
	c := &orderConn{loop: l, local: local, remote: remote, last: clockd.Mono(), resume: make(chan struct{}, 1)}
	c.waker = c
	return c
}

// Wake implements own.Waker.
func (c *orderConn) Wake() {
	if c.woken.CompareAndSwap(false, true) {
		c.loop.tell(c, toldWoken)
	}
}

// noteIdle tells a connection of a loop when fasthttp waits for a request.
func noteIdle(conn net.Conn, state fasthttp.ConnState) {
	if c, ok := conn.(*orderConn); ok && (state == fasthttp.StateIdle || state == fasthttp.StateActive) {
		c.idle = state == fasthttp.StateIdle
	}
}

// Read implements net.Conn.
func (c *orderConn) Read(p []byte) (int, error) {
	if c.idle && c.taken == len(c.before) {
		if !c.loop.tell(c, toldParked) {
			return 0, io.EOF
		}
		<-c.resume
		if len(c.before) == 0 {
			return 0, io.EOF
		}
	}
	if c.taken < len(c.before) {
		n := copy(p, c.before[c.taken:])
		c.taken += n
		return n, nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.try(receive, p, &c.readBy)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *orderConn) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := c.try(send, p[written:], &c.writeBy)
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// try calls a system call until it needs not wait, or with os.ErrDeadlineExceeded.
func (c *orderConn) try(call func(int, []byte) (int, error), p []byte, by *time.Time) (int, error) {
	for {
		c.mu.Lock()
		if c.gone {
			c.mu.Unlock()
			return 0, net.ErrClosed
		}
		if clockd.Passed(*by) {
			c.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		n, err := call(c.fd, p)
		wait := errors.Is(err, unix.EAGAIN)
		if wait && c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed, deadline := c.changed, *by
		c.mu.Unlock()
		switch {
		case wait:
			if !clockd.WaitUntil(deadline, changed) {
				return 0, os.ErrDeadlineExceeded
			}
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, &net.OpError{Op: "use", Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
		default:
			return n, nil
		}
	}
}

// give has the borrower read something first.
func (c *orderConn) give(before []byte) { c.before, c.taken = append(c.before[:0], before...), 0 }

// notify ends the waits of the borrower.
func (c *orderConn) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.change()
}

// change ends the waits of the borrower. The caller holds mu.
func (c *orderConn) change() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// SetDeadline implements net.Conn.
func (c *orderConn) SetDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBy, &c.writeBy) }

// SetReadDeadline implements net.Conn. While the loop has the connection, no deadline ends Read.
func (c *orderConn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBy) }

// SetWriteDeadline implements net.Conn.
func (c *orderConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeBy) }

func (c *orderConn) setDeadlines(t time.Time, of ...*time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, by := range of {
		*by = t
	}
	c.change()
	return nil
}

// CloseWrite ends our side alone.
func (c *orderConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(c.fd, unix.SHUT_WR))
}

// Close implements net.Conn: the loop closes the connection. It may be called again, and by
// others than the borrower.
func (c *orderConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.loop.tell(c, toldClosed)
	}
	return nil
}

// release closes the descriptor. Nobody uses it afterwards, since another file may have its
// number then.
func (c *orderConn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	_ = unix.Close(c.fd)
	c.change()
}

// LocalAddr implements net.Conn.
func (c *orderConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *orderConn) RemoteAddr() net.Addr { return c.remote }
