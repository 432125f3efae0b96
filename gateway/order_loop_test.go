package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/obs"
)

// talk is a connection of a client that sends what it likes and reads one answer after the other.
type talk struct {
	net.Conn
	t    *testing.T
	read *bufio.Reader
}

func (h *house) talk(t *testing.T) *talk {
	conn := dial(t, h.addr)
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return &talk{conn, t, bufio.NewReader(conn)}
}

func (k *talk) say(text string) {
	k.t.Helper()
	_, err := io.WriteString(k.Conn, text)
	must(k.t, err)
}

func (k *talk) hear(status int) (body string) {
	k.t.Helper()
	resp, err := http.ReadResponse(k.read, nil)
	must(k.t, err)
	all, err := io.ReadAll(resp.Body)
	must(k.t, errors.Join(err, resp.Body.Close()))
	if resp.StatusCode != status {
		k.t.Fatalf("%d %s, want %d", resp.StatusCode, all, status)
	}
	return string(all)
}

func (k *talk) hearEnd() {
	k.t.Helper()
	if n, err := k.read.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		k.t.Fatalf("%d bytes, %v, want the end", n, err)
	}
}

// orderText is an order of user, with headers.
func orderText(user string, headers ...string) string { return orderOf("d", user, headers...) }

func orderOf(dealID, user string, headers ...string) string {
	body := orderBody(dealID, user, 1, "")
	return "POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k-" + user + "\r\n" +
		strings.Join(append(headers, ""), "\r\n") + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body
}

const liveText = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

// lent is how many connections fasthttp has, those in whose place it waits among them.
func (h *house) lent() int { return int(h.server.front.public.GetOpenConnectionsCount()) }

// A connection is a loop's while orders come, and fasthttp's for everything else; nothing of what
// it sends is lost in between, however it is cut.
func TestLoopsAndFasthttpTakeTurns(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	k, others := h.talk(t), h.lent()
	users := 0
	next := func() string { users++; return orderText(fmt.Sprintf("u-%d", users)) }

	k.say(next())
	k.hear(201)
	k.say(next())
	k.hear(201)
	if h.lent() != others {
		t.Error("an order was not the loop's")
	}
	k.say(liveText)
	k.hear(200)
	if h.lent() != others+1 {
		t.Error("a read was not fasthttp's")
	}
	for _, cut := range []int{1, 20, 60, 130, len(orderText("u-1")) - 1} {
		order := next()
		k.say(order[:cut])
		time.Sleep(5 * time.Millisecond)
		k.say(order[cut:])
		k.hear(201)
		k.say(next())
		k.hear(201)
	}
	k.say(next() + next() + liveText + next())
	for _, status := range []int{201, 201, 200, 201} {
		k.hear(status)
	}
	// an answer larger than any buffer goes out while fasthttp has half of the next request
	half := next()
	k.say("GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n" + half[:50])
	k.hear(200)
	time.Sleep(5 * time.Millisecond)
	k.say(half[50:])
	k.hear(201)
	k.say(liveText + liveText[:10])
	k.hear(200)
	time.Sleep(5 * time.Millisecond)
	k.say(liveText[10:] + next())
	k.hear(200)
	k.hear(201)
	// more at once than fasthttp's buffer takes, which ends between two requests
	pieces := (headersMax + bodyPrefetched) / 64
	k.say(strings.Repeat("GET /livez HTTP/1.1\r\nHost: "+strings.Repeat("x", 64-len(liveText)+1)+"\r\n\r\n", pieces) + next())
	for range pieces {
		k.hear(200)
	}
	k.hear(201)
	// a body for which the client is asked
	asks := next()
	end := strings.Index(asks, "\r\n\r\n") + 4
	k.say(asks[:end-2] + "Expect: 100-continue\r\n\r\n")
	k.hear(100)
	k.say(asks[end:])
	k.hear(201)
	// an order that is too large, of which the loop has seen the begin
	large := strings.Repeat(" ", 3*loopBuffer)
	k.say(fmt.Sprintf("POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: %d\r\n\r\n%s", len(large), large))
	k.hear(413)
	k.say(next())
	k.hear(201)
	h.get("/api/v1/deals/d").want(200).has(map[string]any{"reserved": users})
}

// A client that asks for the end gets its answers first.
func TestLoopsEndConnections(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	open := &h.server.front.open
	others := open.Load()
	for i, last := range []string{orderText("u"), orderText("v") + orderText("w"), liveText} {
		k := h.talk(t)
		k.say(orderText(fmt.Sprintf("first-%d", i)))
		k.hear(201)
		k.say(last)
		must(t, k.Conn.(*net.TCPConn).CloseWrite())
		for range strings.Count(last, "HTTP/1.1") {
			if strings.HasPrefix(last, "GET") {
				k.hear(200)
			} else {
				k.hear(201)
			}
		}
		k.hearEnd()
	}
	k := h.talk(t)
	k.say(orderText("x", "Connection: close"))
	k.hear(201)
	k.hearEnd()
	for range 3 { // gone in the middle
		k := h.talk(t)
		k.say(orderText("y")[:40])
		must(t, k.Close())
	}
	until(t, "the connections to be closed", func() bool { return open.Load() == others })
}

// A client that does not read holds up nobody else, and gets all its answers.
func TestLoopsOutlastSlowReaders(t *testing.T) {
	metrics := obs.NewMetrics()
	front, err := NewFront(FrontConfig{Metrics: metrics, Logger: slog.New(slog.DiscardHandler), Open: true})
	must(t, err)
	narrow := func(option int) func(string, string, syscall.RawConn) error {
		return func(_, _ string, raw syscall.RawConn) (failed error) {
			err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 4096) })
			return errors.Join(err, failed)
		}
	}
	config := net.ListenConfig{Control: narrow(unix.SO_SNDBUF)}
	ln, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- front.Serve(ln) }()
	t.Cleanup(func() { must(t, <-served) })
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Metrics, c.Front = metrics, front })
	h.deal("d", `,"stock":1000`)
	dialer := net.Dialer{Control: narrow(unix.SO_RCVBUF)}
	conn, err := dialer.Dial("tcp4", ln.Addr().String())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	k := &talk{conn, t, bufio.NewReaderSize(conn, 16)}
	placed := func() int { return int(h.get("/api/v1/deals/d").field("reserved").(int64)) }
	orders := 0
	for taken := true; taken; { // until an answer finds no room, and the order behind it waits
		if orders++; orders == 500 {
			t.Fatal("all answers found room")
		}
		k.say(orderText(fmt.Sprintf("slow-%d", orders)))
		taken = false
		for end := time.Now().Add(200 * time.Millisecond); !taken && time.Now().Before(end); {
			taken = placed() == orders
		}
	}
	if orders < 3 {
		t.Fatal("an answer found no room in an empty socket")
	}
	h.order("d", "quick", 1).want(201)
	for range orders {
		k.hear(201)
	}
	if placed() != orders+1 {
		t.Errorf("%d of %d orders were placed", placed(), orders+1)
	}
}

// When everything stops, who asks nothing is let go at once, and who is being answered or still
// sending after that.
func TestLoopsStop(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	others := h.lent()
	idle, parked, again, late, lent := h.talk(t), h.talk(t), h.talk(t), h.talk(t), h.talk(t)
	for _, k := range []*talk{idle, again} {
		k.say(orderText("u"))
		k.hear(201)
	}
	parked.say(liveText)
	parked.hear(200)
	lent.say(orderText("w")[:70])
	h.store.gate.Lock()
	late.say(orderText("v"))
	until(t, "the order to be under way", func() bool { return h.node.Stats().Waiting == 1 })
	until(t, "fasthttp to have two", func() bool { return h.lent() == others+2 })
	ended := make(chan error, 1)
	go func() { ended <- h.server.Shutdown(context.Background()) }()
	for _, k := range []*talk{idle, parked, again} {
		k.hearEnd()
	}
	lent.say(orderText("w")[70:])
	until(t, "both orders to be under way", func() bool { return h.node.Stats().Waiting == 2 })
	select {
	case err := <-ended:
		t.Fatalf("it ended with %v before the orders were answered", err)
	case <-time.After(20 * time.Millisecond):
	}
	h.store.gate.Unlock()
	for _, k := range []*talk{late, lent} {
		k.hear(201)
		k.hearEnd()
	}
	must(t, <-ended)
}

// handLoop is a loop that goes round when the test says so, with connections of its own.
type handLoop struct {
	*orderLoop
	h        *house
	shoppers []*talk
	events   []unix.EpollEvent
}

func newHandLoop(t *testing.T, h *house, shoppers int) *handLoop {
	l, err := newOrderLoop(h.server.front.loops[0])
	must(t, err)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	hand := &handLoop{orderLoop: l, h: h, events: make([]unix.EpollEvent, loopEvents)}
	for range shoppers {
		conn := dial(t, ln.Addr().String())
		hand.shoppers = append(hand.shoppers, &talk{conn, t, bufio.NewReader(conn)})
		theirs, err := ln.Accept()
		must(t, err)
		must(t, l.adopt(theirs))
	}
	must(t, ln.Close())
	l.hear(clockd.Mono(), nil)
	return hand
}

// order has each shopper send an order, for one deal after the other, and sees them all in one
// round.
func (l *handLoop) order(run string, deals ...string) {
	for i, k := range l.shoppers {
		k.say(orderOf(deals[i%len(deals)], fmt.Sprintf("%s-u%d", run, i)))
	}
	for fd := range l.conns { // the kernel may take a moment
		for n := 0; n == 0; {
			n, _ = unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, 10_000)
			n = max(n, 0) // a signal came
		}
	}
	l.round(l.events)
}

// end answers what is in flight.
func (l *handLoop) end() {
	for l.tell(nil, toldStop); !l.stops || len(l.conns) > 0; {
		l.h.clock.Advance(turnedAwayWait / 10) // whoever is turned away begins to wait at some time
		l.round(l.events)
	}
	l.free()
	for _, k := range l.shoppers {
		must(l.h.t, k.Close())
	}
}

// Whatever waits for a loop counts as in flight before any of it is answered: what is too much is
// refused then, and does not wait in its sockets for its turn.
func TestLoopsSeeAllThatWait(t *testing.T) {
	const most, orders = 400, 600
	h := newHouse(t, func(_ *Config, n *actors.Config) { n.InFlightMax = most + most/4 }) // a fifth is kept for what was begun
	h.deal("d", `,"stock":1000`)
	l := newHandLoop(t, h, orders)
	refused := h.node.Stats().Pool.Refused
	l.order("r", "d")
	if refused = h.node.Stats().Pool.Refused - refused; refused != orders-most {
		t.Errorf("%d of %d orders are refused where %d may be in flight", refused, orders, most)
	}
	l.end()
	if placed := h.get("/api/v1/deals/d").field("reserved").(int64); placed != most {
		t.Errorf("%d are placed, want %d", placed, most)
	}
}

// What a loop sees at once is committed by parts, of which the first begins before the last order is
// read. When its goroutine wakes is the scheduler's to decide.
func TestLoopsCommitByParts(t *testing.T) {
	const orders = 4 * loopTurns
	h := newHouse(t, nil)
	var deals []string
	for i := range loopTurns / 4 { // a group is made of many turns
		deals = append(deals, fmt.Sprintf("d%d", i))
		h.deal(deals[i], `,"stock":1000`)
	}
	const tries = 9
	early := 0
	for try := range tries {
		l := newHandLoop(t, h, orders)
		h.store.first.Store(0)
		l.order(fmt.Sprintf("run-%d", try), deals...)
		l.end()
		if h.store.first.Load() < orders {
			early++
		}
	}
	if early == 0 {
		t.Errorf("%d times of %d the first group had all orders", tries, tries)
	}
}

// A group does not begin between Gather and Run.
func TestGatherHoldsTheCommitter(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *actors.Config) {
		var err error
		c.Front, err = NewFront(FrontConfig{Metrics: c.Metrics, Logger: c.Logger, Open: true, NoLoops: true})
		must(t, err)
	})
	h.deal("d", "")
	h.store.first.Store(0)
	h.store.gate.Lock()
	var orders sync.WaitGroup
	orders.Go(func() { h.order("d", "u1", 1).want(201) })
	until(t, "the first group", func() bool { return h.store.first.Load() > 0 })
	orders.Go(func() { h.order("d", "u2", 1).want(201) })
	until(t, "the second order", func() bool { return h.node.Stats().Pool.InUse == 2 })
	time.Sleep(5 * time.Millisecond) // for its turn
	h.node.Gather()
	h.store.first.Store(0)
	h.store.gate.Unlock()
	time.Sleep(5 * time.Millisecond) // for a committer that does not wait
	if h.store.first.Load() > 0 {
		t.Error("a group began")
	}
	h.node.Run()
	orders.Wait()
}

// A loop forgets connections that are silent for too long; how long depends on whether they have
// ever asked for anything.
func TestLoopsSweep(t *testing.T) {
	l, mine := newStillLoop(t)
	silent, served, parked := mine(), mine(), mine()
	served.served = true
	eof := make(chan error, 1)
	go func() {
		noteIdle(parked, fasthttp.StateIdle)
		_, err := parked.Read(make([]byte, 1))
		eof <- errors.Join(err, parked.Close())
	}()
	until(t, "fasthttp to wait", func() bool { l.hear(clockd.Mono(), nil); return parked.parked })
	now := max(silent.last, served.last, parked.last)
	for _, step := range []struct {
		after time.Duration
		left  int
	}{{readTimeout - time.Second, 3}, {readTimeout + time.Second, 2}, {idleTimeout - time.Second, 2}, {idleTimeout + time.Second, 0}} {
		if l.sweep(now + int64(step.after)); len(l.conns) != step.left {
			t.Errorf("after %v %d are left, want %d", step.after, len(l.conns), step.left)
		}
	}
	if err := <-eof; !errors.Is(err, io.EOF) {
		t.Error("fasthttp was told ", err)
	}
	l.hear(clockd.Mono(), nil) // that it has closed what was gone
	if open := l.all.front.open.Load(); open != 0 {
		t.Errorf("%d connections are counted", open)
	}
}

// What fasthttp would refuse is not the loop's to serve.
func TestLoopsServePlainHosts(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	for host, status := range map[string]int{"x": 201, "127.0.0.1:80": 201, "[::1]:80": 201, "a:b": 400, "x[y]": 400} {
		k := h.talk(t)
		k.say(strings.Replace(orderText(fmt.Sprintf("u%x", host)), "Host: x", "Host: "+host, 1))
		k.hear(status)
	}
}

// What a client is told of its rate comes with each answer.
func TestLoopsTellOfLimits(t *testing.T) {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{PerSecond: 1, Burst: 100, Clients: 256})
	must(t, err)
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Limiter = limiter })
	h.deal("d", "")
	first := h.send(request{method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""), header: map[string]string{"Idempotency-Key": "k"}}).want(201)
	again := h.send(request{method: "POST", path: "/api/v1/orders", body: orderBody("d", "u", 1, ""), header: map[string]string{"Idempotency-Key": "k"}}).want(201)
	for _, a := range []answer{first, again, h.order("d", "v", 100).refused(soldOut)} {
		if a.header.Get("RateLimit") == "" || a.header.Get("RateLimit-Policy") == "" {
			t.Errorf("%d has %v", a.status, a.header)
		}
	}
}

// A bug in a part of an order's handler costs its client the connection, and nobody else
// anything.
func TestPanicOnALoop(t *testing.T) {
	h := newHouse(t, nil)
	h.deal("d", "")
	front := h.server.front
	l, mine := newStillLoop(t)
	l.all.front = front
	c := mine()
	c.request, c.served = nil, true
	l.guard(h.server, c, func() { panic("a bug") })
	if len(l.conns) != 0 || !c.gone {
		t.Error("the connection is still there")
	}
	lent := mine()
	lent.lent = true
	l.guard(h.server, lent, func() { panic("a bug behind the answer") })
	if lent.gone {
		t.Error("it was taken from its borrower")
	}
	h.order("d", "u", 1).want(201)
}

// newStillLoop makes a loop that does nothing of itself, and a function that gives it connections.
func newStillLoop(t *testing.T) (*orderLoop, func() *orderConn) {
	front, err := NewFront(FrontConfig{Metrics: obs.NewMetrics(), Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	l, err := newOrderLoop(&orderLoops{front: front, other: make(chan net.Conn, 8)})
	must(t, err)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() {
		must(t, ln.Close())
		l.stops = true
		l.free()
	})
	return l, func() *orderConn {
		dial(t, ln.Addr().String())
		conn, err := ln.Accept()
		must(t, err)
		must(t, l.adopt(conn))
		c := l.queue[len(l.queue)-1].conn
		l.hear(clockd.Mono(), nil)
		return c
	}
}

// What a borrower does with a connection ends at its deadlines, and when it is closed; whoever
// waits then is told. Its descriptor may be another file's by then, and is not touched.
func TestOrderConn(t *testing.T) {
	l, mine := newStillLoop(t)
	c := mine()
	c.lent = true
	buffer := make([]byte, 1<<20)
	must(t, c.SetReadDeadline(past))
	if _, err := c.Read(buffer); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	must(t, c.SetDeadline(time.Time{}))
	var both sync.WaitGroup
	failed := make(chan error, 2)
	both.Go(func() { _, err := c.Read(buffer); failed <- err })
	both.Go(func() {
		for {
			if _, err := c.Write(buffer); err != nil {
				failed <- err
				return
			}
		}
	})
	until(t, "both to wait", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.changed != nil })
	must(t, c.SetWriteDeadline(time.Now().Add(5*time.Millisecond)))
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	must(t, errors.Join(c.Close(), c.Close()))
	l.hear(clockd.Mono(), nil)
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	both.Wait()
	if len(l.conns) != 0 {
		t.Error("the loop has it still")
	}
	for what, err := range map[string]error{
		"Write": func() error { _, err := c.Write(buffer); return err }(), "CloseWrite": c.CloseWrite(),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	noteIdle(c, fasthttp.StateIdle) // somebody closed it while its borrower was answering
	ended := make(chan error, 1)
	go func() { _, err := c.Read(buffer); ended <- err }()
	until(t, "the borrower to be told", func() bool { l.hear(clockd.Mono(), nil); return len(ended) == 1 })
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if c.LocalAddr() == nil || c.RemoteAddr() == nil {
		t.Error("it has no addresses")
	}
}
