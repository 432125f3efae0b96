//go:build !race && !owncheck

package gateway

import (
	"strconv"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/admit"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// The race detector and the ownership checks allocate on their own account, so
// the budgets are not held to with them.

// TestAllocationBudgets holds each step of the order path to what it may allocate, in
// the order in which an order takes them. The tables of a deal grow with it, some
// allocations in 10,000 orders, which the average of a step rounds away. What a group
// costs below the committer is held to by runtime/journal/embedded.
func TestAllocationBudgets(t *testing.T) {
	s := newSteps(t)
	for _, step := range []struct {
		name   string
		budget float64
		run    func()
	}{
		{"headers: caller, media type, key", 0, s.headers},
		{"admit: a token of the caller's bucket", 0, s.admit},
		{"admit: a seat", 0, s.seat},
		{"decode", 0, s.decode},
		{"evaluate: a rule in its sandbox", 0, s.evaluate},
		{"decide and apply", 0, s.decide},
		{"encode the event", 0, s.encode},
		{"commit: queue, gather, tell", 0, s.commit},
		{"render", 0, s.render},
		{"refuse", 0, s.refuse},
		{"the whole order, HTTP to store in memory and back", wholeBudget, s.whole},
	} {
		for range 100 {
			step.run()
		}
		if n := testing.AllocsPerRun(2000, step.run); n > step.budget {
			t.Errorf("%s: %v allocations, the budget is %v", step.name, n, step.budget)
		}
	}
}

// wholeBudget is the record that the store of the test keeps.
const wholeBudget = 1

// steps are the steps of one order, with the buffers that a server would reuse.
type steps struct {
	t         *testing.T
	house     *house
	raw       *rawOrder
	body      []byte
	limiter   *admit.Limiter
	order     order
	input     abi.Input
	verdict   abi.Verdict
	state     *deal.State
	cmd       deal.Command
	reply     deal.Reply
	record    []byte
	committer *journal.Committer
	write     journal.Write
	out       []byte
	view      *orderView
	n         int64
}

func newSteps(t *testing.T) *steps {
	t.Helper()
	s := &steps{
		t: t, house: newHouse(t, nil), raw: newRawOrder(), body: []byte(fullOrder),
		order: order{cmd: new(deal.Command)}, state: deal.NewState(),
		record: make([]byte, 0, 1024), out: make([]byte, 0, 1024), view: sampleOrder(),
	}
	s.house.deal("d", `,"stock":1000000,"rules":["tiered"]`)
	var err error
	s.limiter, err = admit.NewLimiter(admit.LimiterConfig{PerSecond: 1e6, Burst: 1e6, Clients: 1024})
	must(t, err)
	s.committer, err = journal.NewCommitter(void{}, journal.Config{Fatal: func(err error) { t.Error(err) }})
	must(t, err)
	t.Cleanup(s.committer.Close)
	s.write.Done = void{}
	s.input = abi.Input{Now: start, Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 9900, Quantity: 3, Subtotal: 29700, Stock: 10, Available: 10}
	s.cmd = deal.Command{Kind: deal.Create, At: start, Spec: &deal.Spec{
		ID: "d", Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, UnitPrice: 9900, Stock: deal.MaxStock,
		ReserveTTL: deal.DefaultTTL, Rules: []string{"tiered"},
	}}
	s.decideOne()
	s.cmd = deal.Command{Kind: deal.Place, At: start, Quantity: 1}
	return s
}

// void is a store that keeps nothing, and somebody who hears nothing.
type void struct{ journal.Store }

func (void) Commit([]*journal.Write) error { return nil }
func (void) Committed(*journal.Write)      {}

func (s *steps) headers() {
	if _, _, p := s.house.server.orderHeaders(s.raw.next(s.body)); p != noProblem {
		s.t.Fatal(problems[p].code)
	}
}

func (s *steps) admit() {
	s.n++
	if !s.limiter.Allow(s.raw.key, s.n*int64(time.Millisecond)).OK {
		s.t.Fatal("refused")
	}
}

func (s *steps) seat() {
	r, err := s.house.node.Acquire(own.ClassNew)
	must(s.t, err)
	s.house.node.Release(r)
}

func (s *steps) decode() {
	s.order.cmd.Reset()
	s.out = append(s.out[:0], s.body...)
	if f := decodeOrder(s.out, &s.order); f.problem != noProblem {
		s.t.Fatal(f.message)
	}
}

func (s *steps) evaluate() {
	s.verdict.Reset()
	s.house.rules.Evaluate("acme", "tiered", &s.input, &s.verdict)
	if s.verdict.Fault != abi.FaultNone {
		s.t.Fatal(s.verdict.Fault)
	}
}

// decide has an ever new user order.
func (s *steps) decide() {
	s.n++
	s.record = strconv.AppendInt(s.record[:0], s.n, 10)
	s.cmd.User, s.cmd.Key = s.record, s.record
	s.decideOne()
}

func (s *steps) decideOne() {
	s.reply.Reset()
	s.state.Decide(&s.cmd, s.house.rules, &s.reply)
	if s.reply.Code != deal.OK {
		s.t.Fatal(s.reply.Code)
	}
	s.reply.Event.Seq = s.state.Seq + 1
	must(s.t, s.state.Apply(&s.reply.Event))
}

func (s *steps) encode() { s.out = s.reply.Event.Append(s.out[:0]) }

func (s *steps) commit() {
	s.committer.Submit(&s.write)
	if s.committer.Step() != 1 {
		s.t.Fatal("nothing was committed")
	}
}

func (s *steps) render() { s.out = appendOrder(s.out[:0], s.view) }

func (s *steps) refuse() {
	ctx := s.raw.next(refused)
	s.house.server.guard(ctx, s.house.server.placeOrder)
	if ctx.Response.StatusCode() != problems[quantityInvalid].status {
		s.t.Fatal(ctx.Response.StatusCode())
	}
}

var (
	placed  = []byte(orderBody("d", "u-1", 1, `,"codes":["VIP"],"attributes":{"channel":"app"}`))
	refused = []byte(orderBody("d", "u-1", 0, ""))
)

func (s *steps) whole() {
	ctx := s.raw.next(placed)
	s.house.server.guard(ctx, s.house.server.placeOrder)
	if ctx.Response.StatusCode() != 201 {
		s.t.Fatalf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
	}
}
