package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/clockd"
)

const (
	loopBuffer = headersMax + bodyPrefetched // what a loop reads at once, bytes
	loopEvents = 4096                        // that a loop takes at once: what waits beyond them is not yet seen to be in flight
	loopTurns  = 128                         // things to do behind which the turns that are due are run
	loopTick   = time.Second                 // how often it looks for silent connections
)

// told is what a loop hears from others.
type told struct {
	conn *orderConn
	what toldWhat
}

type toldWhat uint8

const (
	toldNew    toldWhat = iota // a connection came
	toldWoken                  // its order may be answered
	toldParked                 // fasthttp waits for its next request
	toldBack                   // its answer is written
	toldClosed                 // its borrower has done with it
	toldStop                   // no connection comes any more
)

// orderLoop is one of the loops. All but tell and adopt is its goroutine's.
type orderLoop struct {
	all   *orderLoops
	poll  int // epoll's
	event int // eventfd's: something was told
	conns map[int32]*orderConn
	stops bool

	buffer []byte
	reader bytes.Reader
	parser *bufio.Reader
	body   bytes.Reader
	ctx    fasthttp.RequestCtx
	out    []byte // the answer

	mu      sync.Mutex // guards everything below
	queue   []told     // at most three for each connection
	spare   []told
	asleep  bool           // in epoll, until event is written to
	ended   bool           // nobody hears
	telling sync.WaitGroup // who writes to event
}

func newOrderLoop(all *orderLoops) (*orderLoop, error) {
	l := &orderLoop{all: all, event: -1, conns: map[int32]*orderConn{}, buffer: make([]byte, loopBuffer)}
	l.parser = bufio.NewReaderSize(&l.reader, headersMax)
	var err error
	if l.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("gateway: epoll: %w", err)
	}
	if l.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
		err = l.watch(l.event, unix.EPOLLIN|unix.EPOLLET) // each write is an event, read or not
	}
	if err != nil {
		l.free()
		return nil, fmt.Errorf("gateway: eventfd: %w", err)
	}
	return l, nil
}

func (l *orderLoop) watch(fd int, events uint32) error {
	return unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// free closes the loop's own descriptors. Nobody uses them afterwards, since other files may
// have their numbers then.
func (l *orderLoop) free() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.telling.Wait()
	l.hear(clockd.Mono(), nil) // what was told since
	_ = unix.Close(l.poll)
	_ = unix.Close(l.event)
}

// adopt takes a connection over.
func (l *orderLoop) adopt(conn net.Conn) error {
	defer func() {
		_ = conn.Close() // the loop has a descriptor of its own: Go's poller must not hear of each packet
	}()
	raw, err := conn.(*net.TCPConn).SyscallConn() // serve looked at its listener
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	c := newOrderConn(l, conn.LocalAddr(), conn.RemoteAddr())
	var failed error
	err = raw.Control(func(fd uintptr) { c.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("gateway: dup: %w", err)
	}
	l.all.front.open.Add(1)
	if !l.tell(c, toldNew) {
		l.all.front.open.Add(-1)
		c.release()
	}
	return nil
}

// tell puts something into the loop's queue. It is false if the loop has ended.
func (l *orderLoop) tell(c *orderConn, what toldWhat) bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.queue = append(l.queue, told{c, what})
	wake := l.asleep
	if wake {
		l.asleep = false
		l.telling.Add(1)
	}
	l.mu.Unlock()
	if wake {
		one := [8]byte{1}
		_, _ = unix.Write(l.event, one[:]) // its counter holds 2⁶⁴ of them
		l.telling.Done()
	}
	return true
}

func (l *orderLoop) run() {
	runtime.LockOSThread() // and never unlock: the thread waits in the kernel most of the time
	defer l.free()
	events := make([]unix.EpollEvent, loopEvents)
	for swept := clockd.Mono(); !l.stops || len(l.conns) > 0; {
		if now := l.round(events); now-swept >= int64(loopTick) {
			l.sweep(now)
			swept = now
		}
	}
}

// round waits until there is something to do, and does it. It returns when that began, Mono ns.
func (l *orderLoop) round(events []unix.EpollEvent) int64 {
	n, err := unix.EpollWait(l.poll, events, l.rest())
	if err != nil && !errors.Is(err, unix.EINTR) {
		panic(fmt.Sprintf("gateway: epoll: %v", err)) // our descriptor is broken
	}
	now, s := clockd.Mono(), l.all.front.server.Load()
	if s != nil {
		s.node.Gather()
	}
	l.hear(now, s)
	for i, e := range events[:max(n, 0)] {
		part(s, i)
		if c := l.conns[e.Fd]; c != nil {
			l.look(c, e.Events, now)
		}
	}
	if s != nil {
		s.node.Run()
	}
	return now
}

// part runs the turns that are due behind each loopTurns of what there is to do: their sync begins
// while the rest is done.
func part(s *Server, done int) {
	if s != nil && done > 0 && done%loopTurns == 0 {
		s.node.Run()
		s.node.Gather()
	}
}

// rest is how long the loop may sleep, ms.
func (l *orderLoop) rest() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asleep = len(l.queue) == 0; !l.asleep {
		return 0
	}
	return int(loopTick.Milliseconds())
}

// hear does what was told, between Gather and Run unless s is nil.
func (l *orderLoop) hear(now int64, s *Server) {
	l.mu.Lock()
	queue := l.queue
	l.queue, l.asleep = l.spare[:0], false
	l.mu.Unlock()
	for i, t := range queue {
		part(s, i)
		switch c := t.conn; t.what {
		case toldNew:
			l.conns[int32(c.fd)] = c
			if l.ended || l.watch(c.fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET) != nil {
				l.drop(c)
			} else if l.stops {
				l.look(c, 0, now)
			}
		case toldWoken:
			c.woken.Store(false)
			if c.request != nil {
				l.answer(c, now)
			}
		case toldParked, toldBack:
			c.lent, c.last, c.served = false, now, true
			c.parked = c.parked || t.what == toldParked
			c.more = c.more || l.stops
			if c.gone && c.parked {
				l.unpark(c, nil)
			} else {
				l.read(c, now)
			}
		case toldClosed:
			l.drop(c)
		case toldStop:
			l.stops = true
			for _, c := range l.conns {
				l.look(c, 0, now)
			}
		}
	}
	clear(queue)
	l.spare = queue
}

// drop closes a connection, as soon as its order is answered.
func (l *orderLoop) drop(c *orderConn) {
	switch {
	case c.request != nil:
		c.doomed = true
	case l.conns[int32(c.fd)] == c: // its borrower may say so, too
		delete(l.conns, int32(c.fd))
		c.release()
		l.all.front.open.Add(-1)
		if c.parked {
			l.unpark(c, nil) // the end
		}
	}
}

// look is called when something has changed.
func (l *orderLoop) look(c *orderConn, events uint32, now int64) {
	c.more = true
	c.ended = c.ended || events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	if c.lent {
		c.notify()
	} else if c.request == nil {
		l.read(c, now)
	}
}

// read takes what has come, until a request is under way or there is no more: then the connection
// waits for it, or is closed where everything stops.
func (l *orderLoop) read(c *orderConn, now int64) {
	for c.more && !c.gone && !c.lent && c.request == nil {
		n, err := receive(c.fd, l.buffer)
		switch {
		case n > 0:
			c.last, c.more = now, n == len(l.buffer) || c.ended
			if !l.order(c, l.buffer[:n]) {
				l.lend(c, l.buffer[:n])
			}
		case errors.Is(err, unix.EAGAIN):
			if c.more = false; l.stops {
				l.drop(c)
			}
		case !errors.Is(err, unix.EINTR):
			l.drop(c)
		}
	}
}

// lend gives a connection to fasthttp, with what was read.
func (l *orderLoop) lend(c *orderConn, before []byte) {
	c.lent = true
	if c.parked {
		l.unpark(c, before)
		return
	}
	c.give(before)
	l.all.other <- c
}

// unpark ends fasthttp's wait for the next request.
func (l *orderLoop) unpark(c *orderConn, before []byte) {
	c.parked = false
	c.give(before)
	c.resume <- struct{}{}
}

// sweep drops connections that have been silent for too long.
func (l *orderLoop) sweep(now int64) {
	for _, c := range l.conns {
		most := idleTimeout
		if !c.served {
			most = readTimeout
		}
		if !c.lent && c.request == nil && now-c.last > int64(most) {
			l.drop(c)
		}
	}
}
