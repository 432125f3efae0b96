package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster/batch"
	"github.com/doorbuster/doorbuster/runtime/cluster/clustertest"
	"github.com/doorbuster/doorbuster/runtime/cluster/mtls"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

func TestMain(m *testing.M) {
	clustertest.Tolerate()
	goleak.VerifyTestMain(m)
}

// station is one node: links without a membership.
type station struct {
	*links
	clock  *clockd.Clock
	member atomic.Pointer[Member]
	asleep atomic.Bool
	how    atomic.Pointer[serveFunc]
}

type serveFunc func(from string, body []byte, deadline int64, reply func([]byte))

func (s *station) serves(how serveFunc) { s.how.Store(&how) }

func (s *station) Serve(from string, body []byte, deadline int64, reply func([]byte)) {
	(*s.how.Load())(from, body, deadline, reply)
}
func (s *station) Changed(*Topology) {}
func (s *station) Lost()             {}

func echo(_ string, body []byte, _ int64, reply func([]byte)) { reply(body) }

// where is how a node is reached: listen is its own port, advertise what the others dial.
type where struct{ listen, advertise string }

// startStation starts a node, which echoes unless told otherwise.
func startStation(t testing.TB, id string, at where, change ...func(*Config)) *station {
	t.Helper()
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Start()
	t.Cleanup(clock.Close)
	s := &station{clock: clock}
	s.serves(echo)
	s.member.Store(&Member{ID: id, Address: at.advertise, Version: "v-" + id})
	cfg := &Config{Clock: clock, Advertise: at.advertise, Listen: at.listen, Logger: logger()}
	for _, fn := range change {
		fn(cfg)
	}
	if err := cfg.validateLinks(); err != nil {
		t.Fatal(err)
	}
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return logger() }))
	s.links = newLinks(cfg, system, func() Member { return *s.member.Load() }, func() bool { return !s.asleep.Load() })
	if _, err := s.start(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.links.close() })
	return s
}

func logger() *slog.Logger {
	if testing.Verbose() {
		return slog.Default()
	}
	return slog.New(slog.DiscardHandler)
}

// port is a free address on loopback.
func port(t testing.TB) string {
	t.Helper()
	address, err := porttest.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func direct(t testing.TB) where {
	at := port(t)
	return where{at, at}
}

// meet tells nodes of each other.
func meet(all ...*station) {
	var members []Member
	for _, s := range all {
		members = append(members, *s.member.Load())
	}
	for _, s := range all {
		s.changed(newTopology(1, members, s.self().ID))
	}
}

// pair starts two nodes that know each other.
func pair(t testing.TB, change ...func(*Config)) (a, b *station) {
	a, b = startStation(t, "a", direct(t), change...), startStation(t, "b", direct(t), change...)
	meet(a, b)
	return a, b
}

// answer is what became of one request.
type answer struct {
	body string
	err  error
}

// ear collects answers, and fails the test if one comes twice.
type ear struct {
	t     testing.TB
	calls atomic.Int32
	got   chan answer
}

func listen(t testing.TB) *ear { return &ear{t: t, got: make(chan answer, 1)} }

func (e *ear) Replied(body []byte, err error) {
	if e.calls.Add(1) > 1 {
		e.t.Error("answered twice")
		return
	}
	e.got <- answer{string(body), err}
}

func (e *ear) wait() answer {
	e.t.Helper()
	select {
	case got := <-e.got:
		return got
	case <-time.After(2 * time.Minute): // longer than anybody here has patience
		e.t.Fatal("no answer")
		return answer{}
	}
}

func (s *station) ask(t testing.TB, member, body string, patience time.Duration) *ear {
	e := listen(t)
	s.send(member, []byte(body), s.clock.Now().Mono+int64(patience), e)
	return e
}

// mustAsk asks until there is an answer, as a link that is being made may break.
func (s *station) mustAsk(t testing.TB, member string) {
	t.Helper()
	await(t, "the link comes up", func() bool { return s.ask(t, member, "hello", 5*time.Second).wait().err == nil })
}

func TestRequests(t *testing.T) {
	a, b := pair(t)
	a.mustAsk(t, "b") // until then a link may break
	b.mustAsk(t, "a")
	before := map[string]Link{}
	for _, l := range append(a.all(), b.all()...) {
		before[l.Member] = l
	}
	var wait sync.WaitGroup
	for i := range 200 {
		for _, s := range []struct {
			from *station
			to   string
		}{{a, "b"}, {b, "a"}} {
			wait.Go(func() {
				body := fmt.Sprint("body ", i)
				if got := s.from.ask(t, s.to, body, time.Minute).wait(); got.err != nil || got.body != body {
					t.Errorf("asked %q, got %+v", body, got)
				}
			})
		}
	}
	wait.Wait()
	for _, l := range append(a.all(), b.all()...) {
		was := before[l.Member]
		if l.InFlight != 0 || l.Serving != 0 || l.RequestsSent-was.RequestsSent != 200 || l.RequestsServed-was.RequestsServed != 200 {
			t.Errorf("afterwards: %+v", l)
		}
	}
	if got := a.ask(t, "c", "", time.Second).wait(); !errors.Is(got.err, ErrUnknown) {
		t.Errorf("a request to nobody: %+v", got)
	}
}

func TestPing(t *testing.T) {
	a, b := startStation(t, "a", direct(t)), startStation(t, "b", direct(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, err := a.ping(ctx, b.cfg.Advertise)
	if want := *b.member.Load(); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := a.ping(ctx, port(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answered %+v, %v", got, err)
	}
}

// wire stands between a node and those that dial it.
type wire struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	moved   *sync.Cond
	stalled [2]bool // towards the node, back
	conns   map[net.Conn]struct{}
	closed  bool
	wait    sync.WaitGroup
}

const (
	forth = iota
	back
)

// behindWire is a node's place behind a wire.
func behindWire(t testing.TB) (where, *wire) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, to: port(t), conns: map[net.Conn]struct{}{}}
	w.moved = sync.NewCond(&w.mu)
	w.wait.Go(w.run)
	t.Cleanup(func() {
		w.set(func() { w.closed = true })
		listener.Close()
		w.cut()
		w.wait.Wait()
	})
	return where{w.to, listener.Addr().String()}, w
}

func (w *wire) set(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
	w.moved.Broadcast()
}

func (w *wire) stall(way int, on bool) { w.set(func() { w.stalled[way] = on }) }

// cut resets all connections.
func (w *wire) cut() {
	w.set(func() {
		for c := range w.conns {
			c.Close()
		}
	})
}

func (w *wire) run() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil {
			near.Close()
			continue
		}
		w.set(func() { w.conns[near], w.conns[far] = struct{}{}, struct{}{} })
		w.wait.Go(func() { w.copy(far, near, forth) })
		w.wait.Go(func() { w.copy(near, far, back) })
	}
}

func (w *wire) copy(to, from net.Conn, way int) {
	defer w.set(func() { delete(w.conns, from) })
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		w.mu.Lock()
		for w.stalled[way] && !w.closed {
			w.moved.Wait()
		}
		w.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// held serves requests by keeping them until they are let go.
type held struct {
	mu      sync.Mutex
	replies []func([]byte)
}

func (h *held) serve(_ string, _ []byte, _ int64, reply func([]byte)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replies = append(h.replies, reply)
}

func (h *held) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.replies)
}

func (h *held) letGo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, reply := range h.replies {
		reply([]byte("late"))
	}
	h.replies = nil
}

// await polls until ok.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestLinkIsCut(t *testing.T) {
	at, w := behindWire(t)
	a, b := startStation(t, "a", direct(t)), startStation(t, "b", at)
	meet(a, b)
	a.mustAsk(t, "b")
	h := &held{}
	b.serves(h.serve)
	var ears []*ear
	for range 100 {
		ears = append(ears, a.ask(t, "b", "x", time.Minute))
	}
	await(t, "the requests arrive", func() bool { return h.len() == 100 })
	w.cut()
	for _, e := range ears {
		if got := e.wait(); !errors.Is(got.err, ErrUnknown) { // ErrExpired: nobody noticed
			t.Error(got.err)
		}
	}
	h.letGo()
	b.serves(echo)
	a.mustAsk(t, "b")
}

// TestLinkStalls holds up what passes between two nodes, in one direction or both,
// without any connection breaking: the requests of either side end, and the link comes
// back.
func TestLinkStalls(t *testing.T) {
	for name, stalled := range map[string]struct{ toA, toB bool }{"to a": {toA: true}, "to b": {toB: true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			atA, wireA := behindWire(t)
			atB, wireB := behindWire(t)
			a, b := startStation(t, "a", atA), startStation(t, "b", atB)
			meet(a, b)
			a.mustAsk(t, "b")
			b.mustAsk(t, "a")
			h := &held{}
			a.serves(h.serve)
			b.serves(h.serve)
			stall := func(on bool) {
				wireA.stall(forth, on && stalled.toA)
				wireB.stall(back, on && stalled.toA)
				wireB.stall(forth, on && stalled.toB)
				wireA.stall(back, on && stalled.toB)
			}
			stall(true)
			for _, e := range []*ear{a.ask(t, "b", "x", time.Minute), b.ask(t, "a", "x", time.Minute)} {
				if got := e.wait(); !errors.Is(got.err, ErrUnknown) { // ErrExpired: nobody noticed
					t.Error(got.err)
				}
			}
			stall(false)
			h.letGo()
			a.serves(echo)
			b.serves(echo)
			began := time.Now()
			a.mustAsk(t, "b")
			b.mustAsk(t, "a")
			t.Logf("it came back after %v", time.Since(began))
		})
	}
}

// TestRestart is a node that comes back at its address in another life.
func TestRestart(t *testing.T) {
	t.Parallel()
	at := direct(t)
	a, b := startStation(t, "a", direct(t)), startStation(t, "b1", at)
	meet(a, b)
	a.mustAsk(t, "b1")
	h := &held{}
	b.serves(h.serve)
	waiting := a.ask(t, "b1", "x", time.Minute)
	await(t, "it arrives", func() bool { return h.len() == 1 })
	b.close()
	again := startStation(t, "b2", at)
	if got := waiting.wait(); !errors.Is(got.err, ErrUnknown) {
		t.Errorf("what the earlier life had: %v", got.err)
	}
	// The topology does not know yet.
	began := time.Now()
	for {
		got := a.ask(t, "b1", "x", time.Minute).wait()
		if !errors.Is(got.err, ErrUnknown) {
			t.Fatalf("a request to the earlier life: %+v", got)
		}
		if time.Since(began) > time.Second {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	meet(a, again)
	a.mustAsk(t, "b2")
	again.mustAsk(t, "a")
	if got := a.ask(t, "b1", "x", time.Minute).wait(); !errors.Is(got.err, ErrUnknown) {
		t.Errorf("a request to one that is gone: %+v", got)
	}
}

// lateBatch is the first batch of a member that is heard.
func lateBatch(from, address, to string) *batch.Batch {
	return &batch.Batch{Version: batchVersion, From: from, Address: address, To: to, Session: 1, Sequence: 1}
}

// TestLateBatch is a batch of an earlier life that is read when its node has left: it
// costs the next life at the same address nothing.
func TestLateBatch(t *testing.T) {
	t.Parallel()
	at := direct(t)
	a, b := startStation(t, "a", direct(t)), startStation(t, "b2", at)
	a.receive(lateBatch("b1", at.advertise, "a"))
	earlier := (*a.peers.Load())["b1"]
	if earlier == nil {
		t.Fatal("one that joins is not heard before it is heard of")
	}
	meet(a, b)
	a.mustAsk(t, "b2")
	h := &held{}
	b.serves(h.serve)
	waiting := a.ask(t, "b2", "x", time.Minute)
	await(t, "it arrives", func() bool { return h.len() == 1 })
	a.giveUp(earlier)
	h.letGo()
	if got := waiting.wait(); got.err != nil {
		t.Errorf("giving the earlier life up: %v", got.err)
	}
	a.receive(lateBatch("b1", at.advertise, "a"))
	if links := a.all(); len(links) != 1 {
		t.Errorf("the earlier life is back: %+v", links)
	}
}

// TestMistakenForStranger: a member that did not know its own id for a moment.
func TestMistakenForStranger(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.mustAsk(t, "b")
	a.receive(&batch.Batch{Version: batchVersion, From: "b0", Address: b.cfg.Advertise, Stranger: "b"})
	a.mustAsk(t, "b")
}

// TestBreakIsTold: a node says at once that its link has broken, not with its next ping.
func TestBreakIsTold(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	b.mustAsk(t, "a")
	// With the pings it would take the time between two, time after time. On a busy machine
	// some of them may.
	const breaks, quick = 20, 5
	var took []time.Duration
	for range breaks {
		began := time.Now()
		heard := a.all()[0].BatchesReceived
		b.broken(a.cfg.Advertise)
		await(t, "it is told", func() bool { return a.all()[0].BatchesReceived > heard })
		took = append(took, time.Since(began))
	}
	if slices.Sort(took); took[quick-1] > roundEvery/2 {
		t.Errorf("breaks were told in %v", took)
	}
}

// TestRejoin is a node that goes on under another id, as when its lease was lost.
func TestRejoin(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.mustAsk(t, "b")
	b.mustAsk(t, "a")
	h := &held{}
	b.serves(h.serve)
	waiting := a.ask(t, "b", "x", time.Minute)
	await(t, "it arrives", func() bool { return h.len() == 1 })
	again := *a.member.Load()
	again.ID = "a2"
	a.member.Store(&again)
	if got := waiting.wait(); !errors.Is(got.err, ErrUnknown) {
		t.Errorf("what it asked in its earlier life: %v", got.err)
	}
	h.letGo()
	b.serves(echo)
	a.mustAsk(t, "b")
	if got := b.ask(t, "a", "x", time.Minute).wait(); !errors.Is(got.err, ErrUnknown) {
		t.Errorf("a request to its earlier life: %v", got.err)
	}
	meet(a, b)
	b.mustAsk(t, "a2")
}

func TestMemberLeaves(t *testing.T) {
	a, b := pair(t)
	h := &held{}
	b.serves(h.serve)
	e := a.ask(t, "b", "x", time.Minute)
	await(t, "it arrives", func() bool { return h.len() == 1 })
	meet(a)
	if got := e.wait(); !errors.Is(got.err, ErrUnknown) {
		t.Error(got.err)
	}
	h.letGo()
}

// TestStranger is a node that hears of another only from itself.
func TestStranger(t *testing.T) {
	t.Parallel()
	a, b := startStation(t, "a", direct(t)), startStation(t, "b", direct(t))
	a.changed(newTopology(1, []Member{*a.member.Load(), *b.member.Load()}, "a"))
	a.mustAsk(t, "b")
	b.mustAsk(t, "a")
	a.changed(newTopology(2, []Member{*a.member.Load()}, "a"))
	a.close()
	await(t, "b forgets it", func() bool { return len(b.all()) == 0 })
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.mustAsk(t, "b")
	h := &held{}
	b.serves(h.serve)
	await(t, "one arrives", func() bool { // a busy machine may need some tries
		if got := a.ask(t, "b", "x", 300*time.Millisecond).wait(); !errors.Is(got.err, ErrExpired) {
			t.Error(got.err)
		}
		return h.len() > 0
	})
	h.letGo() // the ear fails the test if that is told
	b.serves(echo)
	a.mustAsk(t, "b")
	if late := a.ask(t, "b", "x", -time.Second).wait(); !errors.Is(late.err, ErrExpired) {
		t.Errorf("asked too late: %v", late.err)
	}
}

func TestDeadlineTravels(t *testing.T) {
	a, b := pair(t)
	a.mustAsk(t, "b")
	left := make(chan int64, 1)
	b.serves(func(_ string, _ []byte, deadline int64, reply func([]byte)) {
		left <- deadline - b.clock.Now().Mono
		reply(nil)
	})
	if got := a.ask(t, "b", "x", time.Hour).wait(); got.err != nil {
		t.Fatal(got.err)
	}
	if got := time.Duration(<-left); got > time.Hour || got < 50*time.Minute {
		t.Errorf("%v of an hour left", got)
	}
}

func TestPanicCostsOneReply(t *testing.T) {
	a, b := pair(t)
	a.mustAsk(t, "b")
	b.serves(func(_ string, body []byte, _ int64, reply func([]byte)) {
		switch string(body) {
		case "before":
			panic("planned")
		case "after":
			reply(body)
			panic("planned")
		case "twice":
			reply(body)
			reply(body)
		default:
			reply(body)
		}
	})
	for body, want := range map[string]error{"before": ErrUnknown, "after": nil, "twice": nil, "none": nil} {
		if got := a.ask(t, "b", body, time.Minute).wait(); !errors.Is(got.err, want) {
			t.Errorf("%s: %v, want %v", body, got.err, want)
		}
	}
}

func TestAsleep(t *testing.T) {
	a, b := pair(t)
	a.mustAsk(t, "b")
	b.asleep.Store(true)
	if got := a.ask(t, "b", "x", time.Minute).wait(); !errors.Is(got.err, ErrBusy) {
		t.Error(got.err)
	}
}

// TestFlood asks for more than may be in flight: what is too much is refused, all else
// is answered, in batches.
func TestFlood(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.InFlight = 64 })
	a.mustAsk(t, "b")
	var most, now atomic.Int64
	b.serves(func(_ string, body []byte, _ int64, reply func([]byte)) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		go func() { now.Add(-1); reply(body) }()
	})
	var busy, served atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 50 {
				ears := make([]*ear, 50)
				for i := range ears {
					ears[i] = a.ask(t, "b", "x", time.Minute)
				}
				for _, e := range ears {
					switch got := e.wait(); {
					case got.err == nil:
						served.Add(1)
					case errors.Is(got.err, ErrBusy):
						busy.Add(1)
					default:
						t.Error(got.err)
					}
				}
			}
		})
	}
	wait.Wait()
	l := a.all()[0]
	t.Logf("%d served, %d refused, at most %d at once, %d batches", served.Load(), busy.Load(), most.Load(), l.BatchesSent)
	if busy.Load() == 0 || served.Load() == 0 || most.Load() > 64 || l.BatchesSent >= l.RequestsSent {
		t.Errorf("%d served, %d refused, at most %d at once, %+v", served.Load(), busy.Load(), most.Load(), l)
	}
}

func TestLargeBodies(t *testing.T) {
	a, b := pair(t)
	a.mustAsk(t, "b")
	b.serves(func(_ string, body []byte, _ int64, reply func([]byte)) {
		reply(append(body, 0))
	})
	if got := a.ask(t, "b", string(make([]byte, BodyMax+1)), time.Minute).wait(); !errors.Is(got.err, ErrTooLarge) {
		t.Errorf("a request: %v", got.err)
	}
	if got := a.ask(t, "b", string(make([]byte, BodyMax)), time.Minute).wait(); !errors.Is(got.err, ErrTooLarge) {
		t.Errorf("an answer: %v", got.err)
	}
	b.serves(echo)
	var ears []*ear
	for range 7 {
		ears = append(ears, a.ask(t, "b", string(make([]byte, BodyMax)), time.Minute))
	}
	for _, e := range ears {
		if got := e.wait(); got.err != nil || len(got.body) != BodyMax {
			t.Errorf("%d bytes, %v", len(got.body), got.err)
		}
	}
}

// TestCloseSaysItsLastWords: what was answered before a node closes arrives.
func TestCloseSaysItsLastWords(t *testing.T) {
	for range 5 {
		a, b := pair(t)
		b.parting = time.Minute // a busy machine takes longer than a node waits
		a.mustAsk(t, "b")
		b.mustAsk(t, "a")
		h := &held{}
		b.serves(h.serve)
		var ears []*ear
		for range 1000 {
			ears = append(ears, a.ask(t, "b", "x", time.Minute))
		}
		await(t, "all arrive", func() bool { return h.len() == len(ears) })
		h.letGo()
		b.close()
		for _, e := range ears {
			if got := e.wait(); got.err != nil {
				t.Fatal(got.err)
			}
		}
	}
}

func TestSkew(t *testing.T) {
	a, b := pair(t)
	await(t, "it is known", func() bool { return len(a.skew()) == 1 && len(b.skew()) == 1 })
	await(t, "they agree", func() bool { return a.skew()["b"].Abs() < 100*time.Millisecond }) // a busy machine may delay one ping
}

func TestPlaintextStaysOnLoopback(t *testing.T) {
	for at, ok := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "10.0.0.1:1": false, "node:1": false, ":1": false, "127.0.0.1": false} {
		if err := (&Config{Advertise: at, Listen: "127.0.0.1:1"}).validateLinks(); err == nil != ok {
			t.Errorf("advertised %s: %v", at, err)
		}
		if err := (&Config{Advertise: "127.0.0.1:1", Listen: at}).validateLinks(); err == nil != ok {
			t.Errorf("listening on %s: %v", at, err)
		}
	}
}

func TestPortIsTaken(t *testing.T) {
	a := startStation(t, "a", direct(t))
	l := newLinks(a.cfg, actor.NewActorSystem(), a.self, a.awake)
	if _, err := l.start(a); err == nil {
		t.Error("two nodes listen on one port")
	}
}

// TestMutualTLS: nodes with certificates of one authority hear each other, and one whose
// name is not on the list is not heard.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	node := func(name string, allowed ...string) *station {
		return startStation(t, name, direct(t), func(c *Config) {
			files, err := mtls.Issue(dir, name, nil, time.Now(), false)
			if err != nil {
				t.Fatal(err)
			}
			if c.TLS, err = mtls.Load(mtls.Config{CA: files.CA, Cert: files.Cert, Key: files.Key, Names: allowed, Clock: c.Clock}); err != nil {
				t.Fatal(err)
			}
		})
	}
	a, b, stranger := node("a", "a", "b"), node("b", "a", "b"), node("c", "a", "b")
	plain := startStation(t, "d", direct(t))
	meet(a, b, stranger, plain)
	a.mustAsk(t, "b")
	b.mustAsk(t, "a")
	for _, s := range []*station{stranger, plain} {
		if got := s.ask(t, "a", "x", time.Second).wait(); got.err == nil {
			t.Errorf("%s is heard", s.self().ID)
		}
		if got := a.ask(t, s.self().ID, "x", time.Second).wait(); got.err == nil {
			t.Errorf("a speaks to %s", s.self().ID)
		}
	}
}
