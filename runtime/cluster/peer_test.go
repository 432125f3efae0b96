package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster/batch"
)

// bench is one end of a link whose batches are carried by hand.
type bench struct {
	*peer
	clock *clockd.Manual
	serve func(body []byte, deadline int64, reply func([]byte))
}

func (b *bench) Serve(_ string, body []byte, deadline int64, reply func([]byte)) {
	b.serve(body, deadline, reply)
}
func (b *bench) Changed(*Topology) {}
func (b *bench) Lost()             {}

func newBench(self, other string, wall int64) *bench {
	b := &bench{clock: clockd.NewManual(wall)}
	b.serve = func(body []byte, _ int64, reply func([]byte)) { reply(body) }
	cfg := &Config{Clock: b.clock.Clock(), InFlight: 4, Logger: logger()}
	l := newLinks(cfg, nil, func() Member { return Member{ID: self} }, func() bool { return true })
	l.closed, l.handler = true, b // nothing is posted
	b.peer = newPeer(l, other, "")
	return b
}

func twoEnds(t testing.TB) (a, b *bench) {
	a, b = newBench("a", "b", 1_000_000), newBench("b", "a", 1_000_000)
	a.carry(t, b)
	b.carry(t, a)
	return a, b
}

// next is the next batch, as it comes out of the other end.
func (b *bench) next(t testing.TB) *batch.Batch {
	t.Helper()
	made, _ := b.take()
	text, err := proto.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	got := &batch.Batch{}
	if err := proto.Unmarshal(text, got); err != nil {
		t.Fatal(err)
	}
	return got
}

func (b *bench) carry(t testing.TB, to *bench) { to.receive(b.next(t)) }

func (b *bench) ask(t testing.TB, body string, patience time.Duration) *ear {
	e := listen(t)
	b.send([]byte(body), b.clock.Clock().Now().Mono+int64(patience), e)
	return e
}

func (e *ear) is(t *testing.T, want error) {
	t.Helper()
	select {
	case got := <-e.got:
		if !errors.Is(got.err, want) || want == nil && got.err != nil {
			t.Errorf("got %v, want %v", got.err, want)
		}
	default:
		t.Errorf("no answer, want %v", want)
	}
}

func (e *ear) waits(t *testing.T) {
	t.Helper()
	if e.calls.Load() != 0 {
		t.Errorf("answered: %+v", <-e.got)
	}
}

func TestDuplicate(t *testing.T) {
	a, b := twoEnds(t)
	served := 0
	b.serve = func(body []byte, _ int64, reply func([]byte)) { served++; reply(body) }
	e := a.ask(t, "x", time.Second)
	request := a.next(t)
	b.receive(request)
	b.receive(request)
	reply := b.next(t)
	a.receive(reply)
	a.receive(reply) // the ear fails the test if it is told twice
	e.is(t, nil)
	if served != 1 {
		t.Errorf("served %d times", served)
	}
}

func TestRequestIsLost(t *testing.T) {
	a, b := twoEnds(t)
	e := a.ask(t, "x", time.Second)
	a.next(t) // lost
	later := a.ask(t, "y", time.Second)
	a.carry(t, b) // b sees that one is missing, and says so with its answer to the later one
	e.waits(t)
	b.carry(t, a)
	e.is(t, ErrUnknown)
	later.is(t, ErrUnknown)
	again := a.ask(t, "z", time.Second)
	a.carry(t, b)
	b.carry(t, a)
	again.is(t, nil)
	if a.counts.Breaks != 1 || b.counts.Breaks != 0 {
		t.Errorf("%d and %d breaks, want 1 and 0", a.counts.Breaks, b.counts.Breaks)
	}
}

func TestReplyIsLost(t *testing.T) {
	a, b := twoEnds(t)
	e := a.ask(t, "x", time.Second)
	a.carry(t, b)
	b.next(t) // lost
	e.waits(t)
	b.carry(t, a)
	e.is(t, ErrUnknown)
}

// TestReplyIsLostBeforeTheFirst: the node that asked has heard nothing of its peer yet.
func TestReplyIsLostBeforeTheFirst(t *testing.T) {
	for name, more := range map[string]func(*bench){"the link breaks": func(b *bench) { b.broke() }, "nobody notices": func(*bench) {}} {
		t.Run(name, func(t *testing.T) {
			a, b := newBench("a", "b", 1_000_000), newBench("b", "a", 1_000_000)
			e := a.ask(t, "x", time.Second)
			a.carry(t, b)
			b.next(t) // lost
			more(b)
			b.carry(t, a)
			e.is(t, ErrUnknown)
			a.carry(t, b)
			b.carry(t, a)
			again := a.ask(t, "y", time.Second)
			a.carry(t, b)
			b.carry(t, a)
			again.is(t, nil)
		})
	}
}

// TestSessionEnds: the end that notices first tells the other by beginning anew.
func TestSessionEnds(t *testing.T) {
	a, b := twoEnds(t)
	ours, theirs := a.ask(t, "x", time.Second), b.ask(t, "y", time.Second)
	delayed := a.next(t)
	a.broke()
	ours.is(t, ErrUnknown)
	theirs.waits(t)
	a.carry(t, b)
	theirs.is(t, ErrUnknown)
	served := false
	b.serve = func([]byte, int64, func([]byte)) { served = true }
	b.receive(delayed)
	if served {
		t.Error("a request of an earlier session was served")
	}
	b.carry(t, a)
	b.serve = func(body []byte, _ int64, reply func([]byte)) { reply(body) }
	again := a.ask(t, "z", time.Second)
	a.carry(t, b)
	b.carry(t, a)
	again.is(t, nil)
	if b.counts.Breaks != 0 {
		t.Error("one break made another")
	}
}

func TestLateReplyFindsNobody(t *testing.T) {
	a, b := twoEnds(t)
	var reply func([]byte)
	b.serve = func(_ []byte, _ int64, r func([]byte)) { reply = r }
	first := a.ask(t, "x", time.Second)
	a.carry(t, b)
	a.clock.Advance(2 * time.Second)
	a.expire(a.clock.Clock().Now().Mono)
	first.is(t, ErrExpired)
	second := a.ask(t, "y", time.Second) // in the place of the first
	late := reply
	a.carry(t, b)
	late([]byte("to the first"))
	b.carry(t, a)
	second.waits(t)
	reply([]byte("to the second"))
	b.carry(t, a)
	second.is(t, nil)
}

func TestExpiredIsNotServed(t *testing.T) {
	a, b := twoEnds(t)
	b.serve = func([]byte, int64, func([]byte)) { t.Error("served") }
	e := a.ask(t, "x", time.Second)
	a.clock.Advance(time.Second)
	a.carry(t, b)
	a.expire(a.clock.Clock().Now().Mono)
	e.is(t, ErrExpired)
}

func TestBounds(t *testing.T) {
	a, b := twoEnds(t)
	var replies []func([]byte)
	b.serve = func(_ []byte, _ int64, r func([]byte)) { replies = append(replies, r) }
	a.ask(t, strings.Repeat("x", BodyMax+1), time.Second).is(t, ErrTooLarge)
	for round := range 3 {
		var ears []*ear
		for range a.flight.limit {
			ears = append(ears, a.ask(t, "x", time.Second))
		}
		a.ask(t, "x", time.Second).is(t, ErrBusy)
		a.carry(t, b)
		a.clock.Advance(time.Second)
		a.expire(a.clock.Clock().Now().Mono)
		for _, e := range ears {
			e.is(t, ErrExpired)
		}
		if want := min(round+1, 2) * a.flight.limit; len(replies) != want {
			t.Errorf("%d are served at once, want %d", len(replies), want)
		}
		b.carry(t, a)
	}
	for _, reply := range replies {
		reply(nil)
	}
	if b.peer.serving != 0 {
		t.Errorf("%d are served afterwards", b.peer.serving)
	}
}

func TestGatheredBodiesAreBounded(t *testing.T) {
	a, b := twoEnds(t)
	a.flight.limit = 1000
	body := strings.Repeat("x", BodyMax)
	var ears []*ear
	for range gatheredMax / 2 / BodyMax {
		ears = append(ears, a.ask(t, body, time.Second))
	}
	a.ask(t, "x", time.Second).is(t, ErrBusy)
	for _, e := range ears {
		made := a.next(t)
		if n := proto.Size(made); n > messageMax {
			t.Fatalf("a batch of %d bytes", n)
		}
		b.receive(made)
		b.carry(t, a)
		e.is(t, nil)
	}
}

func TestMalformedBatches(t *testing.T) {
	for name, spoil := range map[string]func(*batch.Batch){
		"no size": func(b *batch.Batch) { b.Requests.Sizes = nil },
		"sizes":   func(b *batch.Batch) { b.Requests.Sizes[0] = 1 << 31 },
		"bodies":  func(b *batch.Batch) { b.Requests.Bodies = nil },
		"no time": func(b *batch.Batch) { b.Requests.Left = nil },
		"replies": func(b *batch.Batch) { b.Replies = &batch.Replies{Ids: []uint64{1}, Sizes: []uint32{0}} },
		"reply of 4 GiB": func(b *batch.Batch) {
			b.Replies = &batch.Replies{Ids: []uint64{1}, Sizes: []uint32{1<<32 - 1}, Outcomes: []uint32{0}}
		},
		"no sequence": func(b *batch.Batch) { b.Sequence = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := twoEnds(t)
			b.serve = func([]byte, int64, func([]byte)) { t.Error("served") }
			e := a.ask(t, "x", time.Second)
			made := a.next(t)
			spoil(made)
			b.receive(made)
			a.carry(t, b)
			b.carry(t, a)
			e.is(t, ErrUnknown)
		})
	}
}

func TestSkewOfClocks(t *testing.T) {
	for _, ahead := range []int64{0, 700, -90_000} {
		a, b := newBench("a", "b", 1_000_000), newBench("b", "a", 1_000_000+ahead)
		for range 20 {
			a.round()
			ping := a.next(t)
			a.clock.Advance(3 * time.Millisecond)
			b.clock.Advance(3 * time.Millisecond)
			b.receive(ping)
			a.clock.Advance(50 * time.Millisecond) // b takes its time, and knows it
			b.clock.Advance(50 * time.Millisecond)
			pong := b.next(t)
			a.clock.Advance(3 * time.Millisecond)
			b.clock.Advance(3 * time.Millisecond)
			a.receive(pong)
		}
		l := a.link()
		if l.Skew != time.Duration(ahead)*time.Millisecond || l.Trip != 6*time.Millisecond || l.Quiet != 0 {
			t.Errorf("ahead by %d ms: %+v", ahead, l)
		}
	}
}

type doneFunc func()

func (f doneFunc) Replied([]byte, error) { f() }

// TestPingIsAnsweredLast: the answer says that all before it has been read, also what
// came with it.
func TestPingIsAnsweredLast(t *testing.T) {
	a, b := twoEnds(t)
	told := false
	a.send(nil, a.clock.Clock().Now().Mono+int64(time.Second), doneFunc(func() {
		told = true
		if p := a.next(t).Pulse; p != nil {
			t.Errorf("answered before: %v", p)
		}
	}))
	a.carry(t, b)
	b.round()
	b.carry(t, a)
	if p := a.next(t).Pulse; !told || p == nil || p.Pong != 1 {
		t.Errorf("told %v, answered %v", told, p)
	}
}
