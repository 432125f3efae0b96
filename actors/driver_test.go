package actors

import (
	"errors"
	"testing"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// queue is a Driver that runs nothing until it is told to.
type queue []func()

func (q *queue) Schedule(turn func()) { *q = append(*q, turn) }
func (q *queue) Throughput() int      { return 1 }
func (q *queue) Go(work func())       { *q = append(*q, work) }

func (q *queue) run() {
	for len(*q) > 0 {
		next := (*q)[0]
		*q = (*q)[1:]
		next()
	}
}

func TestDriver(t *testing.T) {
	q := &queue{}
	clock := clockd.NewManual(start)
	node, err := NewNode(t.Context(), journaltest.NewMemory(), clock.Clock(), Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) }, Driver: q, System: NewSystem(discard),
	})
	if err != nil {
		t.Fatal(err)
	}
	post := func(kind deal.CommandKind) *Request {
		r, err := node.Acquire(own.ClassNew)
		if err != nil {
			t.Fatal(err)
		}
		r.Deal, r.Cmd.Kind, r.Cmd.User, r.Cmd.Key, r.Cmd.Quantity = []byte("d"), kind, []byte("u"), []byte("k"), 1
		r.Cmd.Spec = &deal.Spec{
			ID: "d", Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, Stock: 1, ReserveTTL: 1000,
		}
		if err := node.Post(r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	create, place := post(deal.Create), post(deal.Place)
	if answered, _ := node.Poll(create); answered {
		t.Error("answered before anything ran")
	}
	q.run()
	if answered, _ := node.Poll(create); answered {
		t.Error("answered before the commit")
	}
	if n := node.CommitGroup(); n != 1 {
		t.Errorf("%d writes for a batch of two commands", n)
	}
	for _, r := range []*Request{create, place} {
		if answered, err := node.Poll(r); !answered || err != nil || r.Reply.Code != deal.OK {
			t.Errorf("%v, %v, %+v", answered, err, r.Reply)
		}
		node.Release(r)
	}

	late := post(deal.Cancel)
	clock.Advance(node.cfg.RequestTimeout)
	q.run()
	if answered, err := node.Poll(late); !answered || !errors.Is(err, ErrDeadline) {
		t.Errorf("after the deadline: %v, %v", answered, err)
	}
}
