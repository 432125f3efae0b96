package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/clockd"
)

// A deal's events are a stream of server-sent events: stock, status, group.
// Each batch ends with an id, the seq of the deal's event that it shows, from
// which a client that lost its connection resumes. Nothing queues for a slow
// reader: while one write is under way the watch conflates what happens to
// the newest state, and a write that takes longer than slowReaderMax ends the
// connection. The client comes back with the last id that it has seen.

const (
	heartbeat     = 15 * time.Second // a comment, when nothing else was sent
	slowReaderMax = 5 * time.Second
)

func (s *Server) dealEvents(c *call) error {
	v, err := s.dealOf(c, c.params[0])
	if err != nil {
		return err
	}
	seen := uint64(0)
	if text := c.ctx.Request.Header.Peek("Last-Event-ID"); len(text) > 0 {
		if seen, err = strconv.ParseUint(string(text), 10, 63); err != nil {
			return refuseField(invalidRequest, "Last-Event-ID", "must be an id of this stream")
		}
	}
	return s.openStream(c, s.streams, "text/event-stream", "retry: 2000\n\n", func(out *eventWriter) error {
		return s.stream(out, v.Spec.ID, seen)
	})
}

// openStream answers with a body that fn writes for as long as it likes, on a
// goroutine of its own. first is the begin of the body; fn writes it out with its
// first flush. It has one of the places while it runs. As with guard, a bug in fn
// costs one stream and not the process.
func (s *Server) openStream(c *call, in *places, contentType, first string, fn func(*eventWriter) error) error {
	if in.full(c.who) {
		return refuse(overloaded, noPlace)
	}
	h := &c.ctx.Response.Header
	h.SetContentType(contentType)
	h.Set("Cache-Control", "no-store")
	h.SetConnectionClose() // the stream ends with the connection
	h.SetContentLength(-2)
	if c.ctx.IsHead() {
		return nil
	}
	head, who, log := h.AppendBytes(nil), c.who, s.cfg.Logger.With(about(c.ctx, "path", string(c.ctx.Path()))...)
	raw := c.ctx.Conn()
	c.ctx.HijackSetNoResponse(true)
	c.ctx.Hijack(func(conn net.Conn) {
		in.run(who, func() {
			defer func() {
				if fault := recover(); fault != nil {
					log.Error("a stream panicked", "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
				}
			}()
			out := &eventWriter{conn: conn, raw: raw, clock: s.cfg.Clock, buf: append(head, first...)}
			if err := fn(out); err != nil {
				log.Debug("an event stream ended", "error", err)
			}
		})
	})
	return nil
}

const noPlace = "as many as may be are under way, in all or of this caller"

// stream writes a deal's events until the client has gone, is too slow, or the
// server stops.
func (s *Server) stream(out *eventWriter, dealID string, seen uint64) error {
	w, err := s.node.Watch(dealID, seen)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := out.flush(); err != nil {
		return err
	}
	for {
		updates, err := s.await(w)
		switch {
		case err != nil:
			return err
		case s.front.stopping.Err() != nil:
			return nil
		case len(updates) == 0:
			out.buf = append(out.buf, ":\n\n"...)
		}
		for i := range updates {
			out.buf = appendUpdate(out.buf, &updates[i], i == len(updates)-1)
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
}

// await returns what is new, or nothing when it is time for a heartbeat.
func (s *Server) await(w *actors.Watch) ([]actors.Update, error) {
	ctx, cancel := context.WithCancel(s.front.stopping)
	defer cancel()
	defer s.cfg.Clock.AfterFunc(heartbeat, cancel)()
	return w.Next(ctx.Done())
}

// appendUpdate appends one event. Only the last of a batch has an id: a client
// that is cut off within a batch must see all of it again.
func appendUpdate(b []byte, u *actors.Update, last bool) []byte {
	id := []byte(u.View.Spec.ID)
	if last {
		b = append(b, "id: "...)
		b = strconv.AppendUint(b, u.View.Seq, 10)
		b = append(b, '\n')
	}
	switch u.Kind {
	case actors.UpdateStock:
		b = append(b, "event: stock\ndata: "...)
		b = appendHead(b, id, u.Seq)
		b = appendField(b, `,"stock":`, u.View.Stock)
		b = appendField(b, `,"available":`, u.View.Available)
		b = appendField(b, `,"reserved":`, u.View.Reserved)
		b = appendField(b, `,"sold":`, u.View.Sold)
		b = append(b, '}')
	case actors.UpdateStatus:
		b = append(b, "event: status\ndata: "...)
		b = appendHead(b, id, u.Seq)
		b = append(b, `,"status":"`...)
		b = append(b, u.Status.String()...)
		b = append(b, `"}`...)
	case actors.UpdateGroup:
		b = append(b, "event: group\ndata: "...)
		b = appendGroup(b, id, &u.Group, true)
	}
	return append(b, "\n\n"...)
}

func appendHead(b, dealID []byte, seq uint64) []byte {
	b = append(b, `{"deal_id":"`...)
	b = append(b, dealID...)
	b = append(b, `","seq":`...)
	return strconv.AppendUint(b, seq, 10)
}

// eventWriter writes to a connection, and gives up on a reader that is slow.
type eventWriter struct {
	conn  net.Conn
	raw   net.Conn // beneath conn, which is another's once the stream has ended
	clock *clockd.Clock
	buf   []byte
}

var errSlowReader = errors.New("the reader is too slow")

// flush writes what is in buf.
func (w *eventWriter) flush() error {
	stop := w.clock.AfterFunc(slowReaderMax, func() {
		_ = w.raw.SetWriteDeadline(past) // ends the write that is under way
	})
	_, err := w.conn.Write(w.buf)
	stop()
	w.buf = w.buf[:0]
	if slow := net.Error(nil); errors.As(err, &slow) && slow.Timeout() {
		return errSlowReader
	}
	return err
}
