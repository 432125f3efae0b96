package actors

import (
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// putOff is a Driver that keeps background work back while it is told to.
type putOff struct {
	queue
	holds bool
	later []func()
}

func (d *putOff) Go(work func()) {
	if d.holds {
		d.later = append(d.later, work)
		return
	}
	d.queue.Go(work)
}

// heldDeal is a node with one deal, of which somebody holds a unit for 5 s.
type heldDeal struct {
	t      *testing.T
	driver *putOff
	store  *journaltest.Memory
	clock  *clockd.Manual
	node   *Node
}

func newHeldDeal(t *testing.T, passivateAfter time.Duration) *heldDeal {
	h := &heldDeal{t: t, driver: &putOff{}, store: journaltest.NewMemory(), clock: clockd.NewManual(start)}
	var err error
	h.node, err = NewNode(t.Context(), h.store, h.clock.Clock(), Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { t.Error(err) },
		Driver: h.driver, System: NewSystem(discard), PassivateAfter: passivateAfter,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.ask(deal.Create)
	h.ask(deal.Place)
	return h
}

func (h *heldDeal) ask(kind deal.CommandKind) {
	r, err := h.node.Acquire(own.ClassNew)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Deal, r.Cmd.Kind, r.Cmd.User, r.Cmd.Key, r.Cmd.Quantity = []byte("d"), kind, []byte("u"), []byte("k"), 1
	r.Cmd.Spec = &deal.Spec{
		ID: "d", Merchant: "acme", Title: "Lychee", Currency: [3]byte{'C', 'N', 'Y'}, Stock: 1, ReserveTTL: 5000,
	}
	if err := h.node.Post(r); err != nil {
		h.t.Fatal(err)
	}
	h.work()
	if answered, err := h.node.Poll(r); !answered || err != nil || r.Reply.Code != deal.OK {
		h.t.Fatalf("answered %v, %v, code %d", answered, err, r.Reply.Code)
	}
	h.node.Release(r)
}

func (h *heldDeal) work() {
	h.driver.run()
	for h.node.CommitGroup() > 0 {
		h.driver.run()
	}
}

// pass lets time go by in small steps.
func (h *heldDeal) pass(d time.Duration) {
	for ; d > 0; d -= 50 * time.Millisecond {
		h.clock.Advance(50 * time.Millisecond)
		h.work()
	}
}

// mustExpire wants the hold to have ended by itself.
func (h *heldDeal) mustExpire() {
	h.t.Helper()
	if head, err := h.store.Head(h.t.Context(), "d"); err != nil || head.Seq != 3 {
		h.t.Errorf("%d events, %v; the third is the expiry", head.Seq, err)
	}
}

// A hold that ends while its deal is on its way out of memory brings it back.
func TestExpiryWhileADealLeaves(t *testing.T) {
	h := newHeldDeal(t, 2*time.Second)
	h.pass(2 * time.Second) // the lists have the order
	h.driver.holds = true
	h.pass(4 * time.Second)
	if a := h.node.directory.find([]byte("d")).active.Load(); a == nil || !a.leaving || a.state.Seq != 2 {
		t.Fatal("the deal is not on its way out of memory")
	}
	h.driver.holds = false
	for _, work := range h.driver.later {
		h.driver.Go(work)
	}
	h.pass(time.Second)
	h.mustExpire()
}

// What an earlier activation has told the wheel in passing costs a turn, and not the
// deadlines of the one that is there.
func TestEarlyWakeKeepsTheExpiry(t *testing.T) {
	h := newHeldDeal(t, time.Minute)
	h.node.setDue("d", h.clock.Clock().Now().Wall+100)
	h.pass(5100 * time.Millisecond)
	h.mustExpire()
}
