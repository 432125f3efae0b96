package gateway

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"

	"github.com/valyala/fasthttp"
)

// The loops.
//
// A goroutine for each connection is parked and woken twice an order, and its stack and
// buffers have left the processor's cache by then. So plain orders are served by loops: each is
// one goroutine for many connections, which reads what has come, takes the orders to their
// deals, runs the turns of these, and answers the orders that are durable, with one context
// and one buffer for all.
//
//	accept ──▶ loop: something came ──▶ a whole, plain order ──▶ takeOrder ─▶ Post ─▶ Run
//	             ▲  ▲                      │ something else                      Wake │
//	             │  └─ its next request ─ fasthttp              giveOrder ◀── Poll ───┘
//	             └─────────────────────────────────────────────────┘
//
// To fasthttp the loops are a listener: it accepts the connections on which something else
// has come, with what was read. It reads the rest, answers, and waits for the next request;
// then the loop has the connection again, and wakes it only for what is no plain order.

// orderLoops are a listener for what is no plain order.
type orderLoops struct {
	net.Listener
	front  *Front
	rest   *fasthttp.Server // whose listener they are
	loops  []*orderLoop
	other  chan net.Conn // it has room for all connections
	failed chan error    // of the listener
	closed chan struct{}
	gone   chan struct{} // closed behind the last connection
	once   sync.Once
	err    error // of the close
}

// orderLoopCount is how many loops there are. The other processors have rules, the journal and
// whatever else there is.
func orderLoopCount() int { return max(1, runtime.NumCPU()/2) }

func newOrderLoops(ln net.Listener, f *Front, rest *fasthttp.Server) (*orderLoops, error) {
	ls := &orderLoops{
		Listener: ln, front: f, rest: rest,
		other: make(chan net.Conn, rest.Concurrency), failed: make(chan error),
		closed: make(chan struct{}), gone: make(chan struct{}),
	}
	for range orderLoopCount() {
		l, err := newOrderLoop(ls)
		if err != nil {
			for _, made := range ls.loops {
				made.free()
			}
			return nil, err
		}
		ls.loops = append(ls.loops, l)
	}
	var left sync.WaitGroup
	for _, l := range ls.loops {
		left.Go(l.run)
	}
	left.Go(ls.take)
	go func() {
		left.Wait()
		close(ls.gone)
	}()
	return ls, nil
}

// Accept implements net.Listener. It goes on for as long as there are connections.
func (ls *orderLoops) Accept() (net.Conn, error) {
	select {
	case conn := <-ls.other:
		return conn, nil
	case err := <-ls.failed:
		return nil, err
	case <-ls.gone:
		return nil, net.ErrClosed
	}
}

// take gives the connections that come to the loops.
func (ls *orderLoops) take() {
	for n := 0; ; n++ {
		conn, err := ls.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case ls.failed <- err: // fasthttp knows which of them end it, and waits behind others
			case <-ls.closed:
				return
			}
		case int(ls.front.open.Load()) >= ls.rest.Concurrency:
			ls.front.turnAway(conn)
		default:
			if err := ls.loops[n%len(ls.loops)].adopt(conn); err != nil {
				ls.front.cfg.Logger.Error("a connection was dropped", "error", err)
			}
		}
	}
}

// Close implements net.Listener. Requests that are under way are answered; wait for that.
func (ls *orderLoops) Close() error {
	ls.once.Do(func() {
		ls.err = ls.Listener.Close()
		close(ls.closed)
		for _, l := range ls.loops {
			l.tell(nil, toldStop)
		}
	})
	return ls.err
}

// wait returns when there is no connection left, or with the error of ctx.
func (ls *orderLoops) wait(ctx context.Context) error {
	select {
	case <-ls.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
