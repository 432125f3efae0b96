package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/gateway/client"
)

// crashRounds is how often the server is killed, unless CRASH_ROUNDS says
// otherwise.
const crashRounds = 20

// TestCrash kills the server under load, again and again on one data folder,
// and after each start asks for every order that was acknowledged. Kill -9
// leaves the page cache alone: that the journal syncs is proved by the crash
// clones of runtime/journal/embedded, not here.
func TestCrash(t *testing.T) {
	rounds := crashRounds
	if text := os.Getenv("CRASH_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	c := crash{data: t.TempDir(), acknowledged: make(map[string]acknowledgement)}
	server := c.start(t)
	c.createDeals(t, server.addr)
	for round := range rounds {
		fresh, _ := c.load(t, server, round, func() { server.kill(t) })
		server = c.start(t)
		c.checkDeals(t, server.addr)
		c.checkOrders(t, server.addr, fresh)
	}
	var all []string
	for id := range c.acknowledged {
		all = append(all, id)
	}
	c.checkOrders(t, server.addr, all)
	server.kill(t)
	t.Logf("%d rounds, %d orders acknowledged, none lost", rounds, len(all))
}

// TestDrain ends the server in good order under the same load: it exits with 0,
// refuses with 503 and nothing else, and has all that it acknowledged.
func TestDrain(t *testing.T) {
	c := crash{data: t.TempDir(), acknowledged: make(map[string]acknowledgement)}
	server := c.start(t)
	c.createDeals(t, server.addr)
	fresh, statuses := c.load(t, server, 0, func() {
		server.signal(t)
		if err := server.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	delete(statuses, 201)
	delete(statuses, 503)
	delete(statuses, 0) // the connection was closed, or refused
	if len(statuses) > 0 {
		t.Errorf("unexpected answers by status: %v", statuses)
	}
	server = c.start(t)
	c.checkDeals(t, server.addr)
	c.checkOrders(t, server.addr, fresh)
	server.kill(t)
}

// TestSecondSignal ends a server at once that still waits for a request.
func TestSecondSignal(t *testing.T) {
	c := crash{data: t.TempDir()}
	server := c.start(t)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "POST /api/v1/deals HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	server.signal(t)
	for { // the first signal is handled once the server takes no new connections
		probe, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.addr)
		if err != nil {
			break
		}
		probe.Close()
		time.Sleep(time.Millisecond)
	}
	server.signal(t)
	var ended *exec.ExitError
	if err := server.cmd.Wait(); !errors.As(err, &ended) || ended.Exited() {
		t.Errorf("the server was not ended by the signal: %v", err)
	}
}

const crashDeals = 3

func crashDeal(i int) string { return "d-" + strconv.Itoa(i) }

type crash struct {
	data         string
	acknowledged map[string]acknowledgement // by order id
}

// acknowledgement is what a shopper was told, and all that must stay true.
type acknowledgement struct {
	OrderID string `json:"order_id"`
	DealID  string `json:"deal_id"`
	UserID  string `json:"user_id"`
	Seq     uint64 `json:"seq"`
}

// live is a running server.
type live struct {
	cmd  *exec.Cmd
	addr string
}

var listening = regexp.MustCompile(`^listening on ([^,]+),`)

func (c *crash) start(t *testing.T) *live {
	t.Helper()
	cmd, err := command(context.Background(), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", c.data)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	match := listening.FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("the server began with %q: %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return &live{cmd: cmd, addr: match[1]}
}

func (l *live) kill(t *testing.T) {
	t.Helper()
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait() // says that it was killed
}

func (l *live) signal(t *testing.T) {
	t.Helper()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func newClient(t *testing.T, addr string, connections int) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Addr: addr, Connections: connections})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (c *crash) createDeals(t *testing.T, addr string) {
	t.Helper()
	api := newClient(t, addr, 1)
	for i := range crashDeals {
		body := fmt.Sprintf(`{"deal_id":%q,"merchant_id":"acme","title":"Lychee","category":"fruit","currency":"CNY","unit_price":9900,"stock":1000000000,"rules":["tiered"]}`, crashDeal(i))
		if err := call(t.Context(), api, client.Call{Method: "POST", Path: "/api/v1/deals", Body: []byte(body)}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// load sends orders until end has ended the server, at a moment of load's own
// choice. It returns the ids of those that were acknowledged, and how often each
// status was answered.
func (c *crash) load(t *testing.T, server *live, round int, end func()) (fresh []string, statuses map[int]int) {
	t.Helper()
	statuses = make(map[int]int)
	const connections = 32
	var mu sync.Mutex // guards fresh, statuses and c.acknowledged
	begun := make(chan struct{})
	var once sync.Once
	api := newClient(t, server.addr, connections)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = api.Run(t.Context(), client.Load{ // it ends with an error, because the server does
			Orders: 1 << 30,
			Next: func(i int, body, key []byte) (b, k []byte) {
				body = fmt.Appendf(body, `{"deal_id":%q,"user_id":"u-%d","quantity":1}`, crashDeal(i%crashDeals), i%1000)
				return body, fmt.Appendf(key, "r%d-%d", round, i)
			},
			Observe: func(_, status int, _ time.Duration, body []byte) {
				mu.Lock()
				defer mu.Unlock()
				statuses[status]++
				if status != 201 {
					return
				}
				var a acknowledgement
				if err := json.Unmarshal(body, &a); err != nil {
					t.Error(err)
				}
				once.Do(func() { close(begun) })
				if earlier, again := c.acknowledged[a.OrderID]; again {
					t.Errorf("round %d: order %+v was given out before: %+v", round, a, earlier)
				}
				c.acknowledged[a.OrderID] = a
				fresh = append(fresh, a.OrderID)
			},
		})
	}()
	<-begun
	time.Sleep(rand.N(150 * time.Millisecond))
	end()
	<-done
	return fresh, statuses
}

// checkDeals compares each deal with what its shoppers were told.
func (c *crash) checkDeals(t *testing.T, addr string) {
	t.Helper()
	promised := make(map[string]int)
	for _, a := range c.acknowledged {
		promised[a.DealID]++
	}
	api := newClient(t, addr, 1)
	for i := range crashDeals {
		var deal struct{ Stock, Sold, Reserved, Available int }
		id := crashDeal(i)
		if err := call(t.Context(), api, client.Call{Method: "GET", Path: "/api/v1/deals/" + id}, &deal); err != nil {
			t.Fatal(err)
		}
		if deal.Sold+deal.Reserved+deal.Available != deal.Stock || deal.Sold+deal.Reserved < promised[id] {
			t.Fatalf("%s: %+v, with %d units promised", id, deal, promised[id])
		}
	}
}

// checkOrders asks for orders by their ids.
func (c *crash) checkOrders(t *testing.T, addr string, ids []string) {
	t.Helper()
	const connections = 16
	api := newClient(t, addr, connections)
	work := make(chan string)
	var workers sync.WaitGroup
	for range connections {
		workers.Go(func() {
			for id := range work {
				var found acknowledgement
				err := call(t.Context(), api, client.Call{Method: "GET", Path: "/api/v1/orders/" + id}, &found)
				if err != nil || found != c.acknowledged[id] {
					t.Errorf("acknowledged %+v, found %+v: %v", c.acknowledged[id], found, err)
				}
			}
		})
	}
	for _, id := range ids {
		work <- id
	}
	close(work)
	workers.Wait()
}
