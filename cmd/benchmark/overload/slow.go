//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// slowness is one way to be slow. behave begins a request on a fresh connection and
// stalls for as long as ctx; it may return before.
type slowness struct {
	name   string
	behave func(ctx context.Context, conn net.Conn)
}

const (
	slowBody  = `{"deal_id":"d-0","user_id":"u-slow","quantity":1}`
	dripEvery = 100 * time.Millisecond
	backEvery = time.Second // at most, if the server has turned the shopper out
)

// slowHead is a request up to its body, of which it announces length bytes.
func slowHead(length int) string {
	return fmt.Sprintf("POST /api/v1/orders HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nIdempotency-Key: slow\r\nContent-Length: %d\r\n\r\n", length)
}

var slownesses = []slowness{
	{"dead in the middle of the headers", func(_ context.Context, conn net.Conn) { send(conn, slowHead(1)[:60]) }},
	{"headers, a byte every 100 ms", func(ctx context.Context, conn net.Conn) { drip(ctx, conn, slowHead(len(slowBody))+slowBody) }},
	{"body, a byte every 100 ms", func(ctx context.Context, conn net.Conn) {
		send(conn, slowHead(len(slowBody)))
		drip(ctx, conn, slowBody)
	}},
	{"dead in the middle of a large body", func(_ context.Context, conn net.Conn) { send(conn, slowHead(12<<10)+slowBody[:20]) }},
	{"half-closed in the middle of the body", func(_ context.Context, conn net.Conn) {
		send(conn, slowHead(len(slowBody))+slowBody[:20])
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite() // the server may have closed it
		}
	}},
	{"the whole order, and never reads the answer", func(_ context.Context, conn net.Conn) { send(conn, slowHead(len(slowBody))+slowBody) }},
}

// send writes what it can: the server may have had enough.
func send(conn net.Conn, text string) { _, _ = conn.Write([]byte(text)) }

func drip(ctx context.Context, conn net.Conn, text string) {
	for i := range len(text) {
		if clockd.SleepUntil(ctx, clockd.Mono()+int64(dripEvery)) != nil {
			return
		}
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
	}
}

// crowd is a number of slow shoppers. Those whom the server turns out come back.
type crowd struct {
	stop  context.CancelFunc
	going sync.WaitGroup
}

// gather returns when each of them has begun.
func gather(ctx context.Context, addr string, n int, how slowness) (*crowd, error) {
	ctx, stop := context.WithCancel(ctx)
	c := &crowd{stop: stop}
	began := make(chan error, n)
	for range n {
		c.going.Go(func() {
			// They do not come all at once.
			if err := clockd.SleepUntil(ctx, clockd.Mono()+rand.Int64N(int64(backEvery))); err != nil {
				began <- err
				return
			}
			first := true
			for ctx.Err() == nil {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
				if first {
					began <- err
					first = false
				}
				if err != nil {
					return
				}
				stall(ctx, conn, how)
			}
		})
	}
	var errs []error
	for range n {
		errs = append(errs, <-began)
	}
	if err := errors.Join(errs...); err != nil {
		c.leave()
		return nil, err
	}
	return c, nil
}

// stall behaves until the server closes the connection or ctx ends.
func stall(ctx context.Context, conn net.Conn, how slowness) {
	var behaving sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	behaving.Go(func() { how.behave(ctx, conn) })
	again := clockd.Mono() + int64(backEvery)
	if how.reads() {
		b := make([]byte, 512)
		for {
			if _, err := conn.Read(b); err != nil {
				break
			}
		}
	} else {
		<-ctx.Done()
	}
	_ = conn.Close() // it may be closed already
	behaving.Wait()
	_ = clockd.SleepUntil(ctx, again)
}

// reads says whether the shopper would see an answer.
func (how slowness) reads() bool { return how.name != slownesses[len(slownesses)-1].name }

// leave closes all connections and returns when they are.
func (c *crowd) leave() {
	c.stop()
	c.going.Wait()
}
