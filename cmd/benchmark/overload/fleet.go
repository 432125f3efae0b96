//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/clockd"
)

// What the load costs is taken from the server that it shares the processors with. So all
// connections of a fleet are served by one goroutine, which asks the kernel which of them
// have been answered: an order is one write, one read and a share of a look, however many
// connections there are, and an order that nobody is left to send is a subtraction.

const (
	// answerTimeout is how long an answer may take. What is not answered then has failed.
	answerTimeout = 15 * time.Second
	// failuresMax is how many orders in a row may fail before a load gives up: the server
	// is gone.
	failuresMax = 1000
	// answerMax bounds an answer, in bytes with its headers.
	answerMax = 16 << 10
	// eventsMax is how many connections are looked at before orders that have come due are
	// sent.
	eventsMax = 64
	// lookEvery is how often a load looks at the time when nothing else wakes it, in ms: as
	// finely as the kernel's timeouts go.
	lookEvery = 1
)

// load is what a fleet sends.
type load struct {
	// orders is how many, length how long: whichever ends first. 0 = no such bound, for one
	// of the two.
	orders int
	length time.Duration
	// rate is the orders a second: order i is due i/rate after the start, and counts from
	// then. 0 = each is due when a connection is free.
	rate float64
	// patience is how late an order may be sent. 0 = any time.
	patience time.Duration
	// next appends the body and the key of order i to the two buffers.
	next func(i int, body, key []byte) (b, k []byte)
	// observe is told of every answer; status is 0 if none came. The body is valid during
	// the call. nil = nobody is.
	observe func(status int, latency time.Duration, body []byte)
}

// summary is how a load went.
type summary struct {
	answered int // orders, with whatever status
	failed   int // orders without an answer
	unsent   int // orders whose shopper lost patience
	late     int // those of them that came due and were given up while the load itself did not look
}

// fleet is connections to one server, each with at most one order under way. It belongs
// to one goroutine.
type fleet struct {
	addr  unix.Sockaddr
	head  []byte // of an order's request, up to the key
	poll  int    // the epoll instance
	conns []conn
	free  ring // connections without an order, longest first

	in, out, body, key []byte // scratch
}

// conn is one connection.
type conn struct {
	fd   int
	busy bool
	due  int64  // of the order under way, Mono ns
	part []byte // of an answer that has not all come
}

// dial connects to a server on IPv4.
func dial(addr string, connections int) (_ *fleet, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	f := &fleet{
		addr: &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()},
		head: []byte("POST /api/v1/orders HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/json\r\nIdempotency-Key: "),
		in:   make([]byte, answerMax), conns: make([]conn, connections), free: newRing(connections),
	}
	if f.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	for i := range f.conns {
		f.conns[i].fd = -1
	}
	for i := range f.conns {
		if err := f.connect(i); err != nil {
			f.close()
			return nil, err
		}
		f.free.push(i)
	}
	return f, nil
}

// connect opens connection i, which waits until the server's backlog has room for it.
func (f *fleet) connect(i int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	err = unix.Connect(fd, f.addr)
	for err == unix.EINTR {
		err = unix.Connect(fd, f.addr)
		if err == unix.EISCONN {
			err = nil
		}
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == nil {
		err = unix.EpollCtl(f.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(i)}) //nolint:gosec // bounded by the number of connections
	}
	if err != nil {
		return errors.Join(fmt.Errorf("connect: %w", err), unix.Close(fd))
	}
	f.conns[i] = conn{fd: fd, part: f.conns[i].part[:0]}
	return nil
}

// close closes all connections.
func (f *fleet) close() {
	for i := range f.conns {
		if f.conns[i].fd >= 0 {
			_ = unix.Close(f.conns[i].fd) // there is nothing left to lose
		}
	}
	_ = unix.Close(f.poll) // as above
}

// sending is a load under way.
type sending struct {
	*fleet
	load     *load
	start    int64 // Mono ns
	looked   int64 // Mono ns: when it last looked what is due
	next     int   // order to be sent
	busy     int   // connections
	failures int   // in a row
	sum      summary
}

// run sends a load and returns when all of it is answered or has failed, or with an error
// when ctx ends or the server is gone.
func (f *fleet) run(ctx context.Context, l load) (summary, error) {
	if l.orders <= 0 && l.length <= 0 || l.rate < 0 || l.next == nil {
		return summary{}, errors.New("overload: a load needs next, and orders or length; rate must not be negative")
	}
	begin := clockd.Mono()
	s := &sending{fleet: f, load: &l, start: begin, looked: begin}
	events := make([]unix.EpollEvent, eventsMax)
	var ended int64 // when the last order had been sent; 0 = not yet
	for {
		if err := ctx.Err(); err != nil {
			return s.sum, err
		}
		now := clockd.Mono()
		more := s.send(now)
		if s.failures >= failuresMax {
			return s.sum, fmt.Errorf("overload: %d orders in a row were not answered", failuresMax)
		}
		if !more {
			if s.busy == 0 {
				return s.sum, nil
			}
			if ended == 0 {
				ended = now
			}
			if now-ended > int64(answerTimeout) {
				s.giveUp()
				continue
			}
		}
		n, err := unix.EpollWait(f.poll, events, lookEvery)
		if err != nil && err != unix.EINTR {
			return s.sum, fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			s.receive(int(e.Fd))
		}
	}
}

// due says when an order is to be sent, and whether it is at all.
func (s *sending) due(i int, now int64) (at int64, ok bool) {
	at = now
	if s.load.rate > 0 {
		at = s.start + int64(float64(i)/s.load.rate*float64(time.Second))
	}
	return at, (s.load.orders <= 0 || i < s.load.orders) && (s.load.length <= 0 || at < s.start+int64(s.load.length))
}

// send gives the orders that are due to connections that are free. It returns whether
// there will be more.
func (s *sending) send(now int64) bool {
	defer func() { s.looked = now }()
	for {
		at, ok := s.due(s.next, now)
		if !ok {
			return false
		}
		if s.load.rate > 0 && s.load.patience > 0 && now-at > int64(s.load.patience) {
			s.skip(now)
			continue
		}
		if at > now || s.free.len() == 0 {
			return true
		}
		i := s.next
		s.next++
		s.post(s.free.pop(), i, at)
	}
}

// skip leaves out all orders whose shoppers have lost patience.
func (s *sending) skip(now int64) {
	first := s.next
	s.next = max(first+1, int(float64(now-int64(s.load.patience)-s.start)/float64(time.Second)*s.load.rate))
	if s.load.orders > 0 {
		s.next = min(s.next, s.load.orders)
	}
	for s.next > first+1 { // the load may have ended in between
		if _, ok := s.due(s.next-1, now); ok {
			break
		}
		s.next--
	}
	s.sum.unsent += s.next - first
	for i := s.next - 1; i >= first; i-- { // the last one first: those before were due before
		if at, _ := s.due(i, now); at <= s.looked {
			break // it was seen, and there was no connection
		}
		s.sum.late++
	}
}

// post sends order i on a connection.
func (s *sending) post(on, i int, due int64) {
	c := &s.conns[on]
	c.busy, c.due = true, due
	s.busy++
	s.body, s.key = s.load.next(i, s.body[:0], s.key[:0])
	s.out = append(append(s.out[:0], s.head...), s.key...)
	s.out = append(s.out, "\r\nContent-Length: "...)
	s.out = strconv.AppendInt(s.out, int64(len(s.body)), 10)
	s.out = append(append(s.out, "\r\n\r\n"...), s.body...)
	// The socket's buffer is empty and far larger than an order.
	if n, err := unix.Write(c.fd, s.out); err != nil || n < len(s.out) {
		s.fail(on)
	}
}

// receive reads what has come on a connection.
func (s *sending) receive(on int) {
	c := &s.conns[on]
	n, err := unix.Read(c.fd, s.in)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if err != nil || n == 0 || len(c.part)+n > answerMax || !c.busy {
		s.fail(on)
		return
	}
	text := s.in[:n]
	if len(c.part) > 0 {
		c.part = append(c.part, text...)
		text = c.part
	}
	status, body, whole, err := parseAnswer(text)
	switch {
	case err != nil:
		s.fail(on)
	case !whole:
		if len(c.part) == 0 {
			c.part = append(c.part, text...)
		}
	default:
		s.sum.answered++
		s.failures = 0
		s.answer(on, status, body)
		s.free.push(on)
	}
}

// answer tells what became of a connection's order.
func (s *sending) answer(on, status int, body []byte) {
	c := &s.conns[on]
	if s.load.observe != nil {
		s.load.observe(status, time.Duration(clockd.Mono()-c.due), body)
	}
	c.busy, c.part = false, c.part[:0]
	s.busy--
}

// fail replaces a connection that broke, and counts the order that it had.
func (s *sending) fail(on int) {
	c := &s.conns[on]
	had := c.busy
	if had {
		s.sum.failed++
		s.failures++
		s.answer(on, 0, nil)
	}
	_ = unix.Close(c.fd) // it is of no use
	c.fd = -1
	if err := s.connect(on); err != nil {
		s.failures = failuresMax
		return
	}
	if had {
		s.free.push(on)
	}
}

// giveUp fails what was not answered in time.
func (s *sending) giveUp() {
	for on := range s.conns {
		if s.conns[on].busy {
			s.fail(on)
		}
	}
}

var (
	headEnd    = []byte("\r\n\r\n")
	lengthName = []byte("\r\nContent-Length: ")
)

// parseAnswer reads an answer as our server writes it. It is not whole as long as some of it
// has not come.
func parseAnswer(text []byte) (status int, body []byte, whole bool, err error) {
	head, rest, found := bytes.Cut(text, headEnd)
	if !found {
		return 0, nil, false, nil
	}
	const before = len("HTTP/1.1 ")
	if len(head) < before+3 {
		return 0, nil, false, fmt.Errorf("overload: answered %q", text)
	}
	status, err = strconv.Atoi(string(head[before : before+3]))
	if err != nil {
		return 0, nil, false, fmt.Errorf("overload: answered %q", text)
	}
	_, value, found := bytes.Cut(head, lengthName)
	value, _, _ = bytes.Cut(value, headEnd[:2])
	length, err := strconv.Atoi(string(value))
	if !found || err != nil || length > answerMax || len(rest) > length {
		return 0, nil, false, fmt.Errorf("overload: answered %q", text)
	}
	return status, rest, len(rest) == length, nil
}

// ring is a queue of a bounded number of ints.
type ring struct {
	of          []int
	first, many int
}

func newRing(most int) ring { return ring{of: make([]int, most)} }

func (r *ring) len() int { return r.many }

func (r *ring) push(v int) {
	r.of[(r.first+r.many)%len(r.of)] = v
	r.many++
}

func (r *ring) pop() int {
	v := r.of[r.first]
	r.first = (r.first + 1) % len(r.of)
	r.many--
	return v
}
