package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// audit holds everything that was ever answered against the journal: each
// deal's events make a ledger, every answer must be what the ledger says at
// the event that the answer names, and the answers must fit real time.
func (w *world) audit() {
	byDeal := map[string][]*op{}
	for _, o := range w.shop.ops {
		byDeal[o.deal] = append(byDeal[o.deal], o)
	}
	for _, id := range append([]string{"ghost"}, w.shop.deals...) {
		a := &account{world: w, id: id, ledger: newLedger(), asked: byDeal[id], heard: map[uint64][]*op{}, soldOut: []bool{true}, times: []int64{0}}
		if err := a.check(); err != nil {
			w.fail("%s: %w", id, err)
			return
		}
	}
}

// account is one deal under audit.
type account struct {
	world   *world
	id      string
	ledger  *ledger
	asked   []*op
	heard   map[uint64][]*op // answers by the event up to which they knew
	soldOut []bool           // soldOut[seq]: nothing was left after event seq
	times   []int64          // times[seq]: Unix ms of event seq
	history []porcupine.Operation
}

func (a *account) check() error {
	for _, o := range a.asked {
		switch {
		case o.soldOut:
			a.add(o.call, o.ret, step{soldOut: o})
		case errors.Is(o.err, actors.ErrDealNotFound):
			a.add(o.call, o.ret, step{at: 0})
		case o.answered():
			a.heard[o.view.Seq] = append(a.heard[o.view.Seq], o)
		}
	}
	if err := a.settle(); err != nil {
		return err
	}
	var epoch uint64
	err := a.world.store.Read(context.Background(), a.id, 0, func(je journal.Event) error {
		if je.Epoch < epoch {
			return fmt.Errorf("I9: event %d of epoch %d follows one of epoch %d", je.Seq, je.Epoch, epoch)
		}
		epoch = je.Epoch
		var e deal.Event
		if err := e.Decode(append([]byte(nil), je.Data...)); err != nil {
			return err
		}
		e.Seq = je.Seq
		a.world.covered("event", eventNames[e.Kind])
		return a.next(&e)
	})
	if err != nil {
		return err
	}
	for seq, ops := range a.heard {
		return fmt.Errorf("I3: %v was told of event %d, the journal ends at %d", ops[0], seq, a.ledger.seq)
	}
	if err := a.present(); err != nil {
		return err
	}
	return a.linearizable()
}

// next enters one event, finds whose it is and checks what was answered on it.
func (a *account) next(e *deal.Event) error {
	if err := a.ledger.apply(e); err != nil {
		return err
	}
	a.soldOut, a.times = append(a.soldOut, a.ledger.available == 0), append(a.times, e.At)
	owner, err := a.claim(e)
	if err != nil {
		return err
	}
	call, ret := int64(0), int64(math.MaxInt64)
	if owner != nil {
		if call = owner.call; owner.answered() {
			ret = owner.ret
		}
	}
	a.add(call, ret, step{at: int(e.Seq) - 1, moves: true})
	return a.settle()
}

// claim finds the op that made e happen. nil: time did, or a rival.
func (a *account) claim(e *deal.Event) (*op, error) {
	ops := a.heard[e.Seq]
	for i, o := range ops {
		if o.event == 0 {
			continue
		}
		if o.event != e.Kind || !causes(o, e) {
			return nil, fmt.Errorf("I3: %v was answered with event %d of kind %d, the journal has kind %d there", o, e.Seq, o.event, e.Kind)
		}
		if err := a.truthful(o, e); err != nil {
			return nil, err
		}
		a.heard[e.Seq] = append(ops[:i:i], ops[i+1:]...)
		return o, nil
	}
	if e.Kind == deal.OrderExpired || e.Kind == deal.GroupFailed || e.Kind == deal.RuleSwitchedOff {
		return nil, nil
	}
	if e.Kind == deal.DealPausedAt || e.Kind == deal.DealResumed {
		return nil, nil // by a rival, or by somebody who never got the answer
	}
	for _, o := range a.asked {
		if !o.answered() && !o.refused() && causes(o, e) {
			return o, nil
		}
	}
	return nil, fmt.Errorf("event %d of kind %d: nobody asked for it", e.Seq, e.Kind)
}

// causes says whether o asks for what e is.
func causes(o *op, e *deal.Event) bool {
	kinds := map[deal.Kind]deal.CommandKind{
		deal.DealCreated: deal.Create, deal.DealChanged: deal.Change, deal.DealPausedAt: deal.Pause, deal.DealResumed: deal.Resume,
		deal.DealClosed: deal.Close, deal.OrderPlaced: deal.Place, deal.OrderConfirmed: deal.Confirm,
		deal.OrderCancelled: deal.Cancel, deal.OrderRefunded: deal.Refund,
	}
	if kinds[e.Kind] != o.cmd.Kind {
		return false
	}
	switch e.Kind {
	case deal.OrderPlaced:
		p := &e.Placed
		return string(p.User) == string(o.cmd.User) && string(p.Key) == string(o.cmd.Key) && int64(p.Quantity) == o.cmd.Quantity
	case deal.OrderConfirmed, deal.OrderCancelled, deal.OrderRefunded:
		return e.Order == o.cmd.Order
	case deal.DealChanged:
		return e.Patch.StockAdd == o.cmd.Patch.StockAdd
	}
	return true
}

// truthful holds the answer against the event and the ledger after it.
func (a *account) truthful(o *op, e *deal.Event) error {
	ok := o.code == deal.OK && !o.replayed && a.ledger.agrees(&o.view)
	switch e.Kind {
	case deal.OrderPlaced:
		ok = ok && o.order == e.Seq && o.status == deal.Reserved && o.total == e.Placed.Total() && o.left == a.ledger.available
	case deal.OrderConfirmed, deal.OrderCancelled, deal.OrderRefunded:
		ok = ok && o.status == a.ledger.orders[e.Order].status
	}
	if !ok {
		return fmt.Errorf("%v: the answer %+v does not fit event %d, after which the ledger has %d of %d left", o, o.view, e.Seq, a.ledger.available, a.ledger.stock)
	}
	return nil
}

// settle checks the answers that rest on the ledger as it stands and made
// nothing happen.
func (a *account) settle() error {
	for _, o := range a.heard[a.ledger.seq] {
		if o.event != 0 {
			return fmt.Errorf("%v: a second answer claims event %d", o, a.ledger.seq)
		}
		if !a.ledger.agrees(&o.view) || !o.viewed && !a.ledger.justified(o) {
			return fmt.Errorf("%v: at event %d the ledger does not say code %d, order %d %v, at %d, %+v", o, a.ledger.seq, o.code, o.order, o.status, o.at, o.view)
		}
		a.add(o.call, o.ret, step{at: int(a.ledger.seq)})
	}
	delete(a.heard, a.ledger.seq)
	return nil
}

// present holds the node, as it is at the end, against the ledger.
func (a *account) present() error {
	w := a.world
	now := w.node.Now().Wall
	if err := a.ledger.overdue(now - time.Second.Milliseconds()); err != nil {
		return err
	}
	state, err := w.replay(a.id, math.MaxUint64)
	if err == nil {
		err = state.Check()
	}
	if err != nil {
		return err
	}
	if a.ledger.spec.ID == "" {
		return nil
	}
	view, err := w.node.Deal(context.Background(), a.id)
	if err != nil || !a.ledger.agrees(&view) {
		return fmt.Errorf("the node shows %+v, %v", view, err)
	}
	return a.listed(&view)
}

// listed holds the lists, which are derived from the journal, against it.
func (a *account) listed(want *deal.View) error {
	ctx := context.Background()
	page, _, err := a.world.node.Deals(ctx, actors.DealQuery{Limit: 100})
	if err != nil {
		return err
	}
	found := false
	for _, v := range page {
		found = found || v.Spec.ID == a.id && v.Seq == want.Seq && v.Available == want.Available
	}
	if !found {
		return fmt.Errorf("I8: the list of deals does not show it as of event %d", want.Seq)
	}
	rows := 0
	err = a.world.store.Tables().Scan(ctx, "orders_by_user", "", "", func(key string, _ []byte) error {
		if strings.Contains(key, "\x00"+a.id+"\x00") {
			rows++
		}
		return nil
	})
	if err == nil && rows != len(a.ledger.orders) {
		err = fmt.Errorf("I8: %d of its %d orders are in the users' lists", rows, len(a.ledger.orders))
	}
	return err
}

// step is an operation as the model sees it. The model's state is the number
// of events that have happened, because every answer names the event up to
// which it knew.
type step struct {
	at      int  // the state that it needs
	moves   bool // and it leads to the next
	soldOut *op  // instead of at: any state in which nothing was left for it
}

func (a *account) add(call, ret int64, s step) {
	a.history = append(a.history, porcupine.Operation{Input: s, Call: call, Return: ret})
}

// linearizable asks whether the answers can have happened one after the other,
// each between its question and its answer.
func (a *account) linearizable() error {
	a.confine()
	model := a.model()
	result := porcupine.CheckOperationsTimeout(model, a.history, 5*time.Minute)
	if result != porcupine.Ok {
		return fmt.Errorf("I4: %d operations: %v, stuck at %v", len(a.history), result, a.stuck(model))
	}
	return nil
}

// confine narrows the time of each event that nobody was told of to what the
// answers before and after it leave. It rules out nothing that could be right,
// and spares the checker to try each such event at every moment.
func (a *account) confine() {
	states := a.ledger.seq + 2
	from, until := make([]int64, states), make([]int64, states)
	for i := range until {
		until[i] = math.MaxInt64
	}
	for _, o := range a.history {
		if s := o.Input.(step); s.soldOut == nil {
			from[s.at] = max(from[s.at], o.Call)
			if s.moves {
				s.at++
			}
			until[s.at] = min(until[s.at], o.Return)
		}
	}
	for i := 1; i < len(from); i++ {
		from[i] = max(from[i], from[i-1])
		until[len(until)-1-i] = min(until[len(until)-1-i], until[len(until)-i])
	}
	for i := range a.history {
		if o := &a.history[i]; o.Return == math.MaxInt64 {
			s := o.Input.(step)
			o.Call, o.Return = max(o.Call, from[s.at]), until[s.at+1]
			if o.Return < o.Call {
				o.Return = o.Call // which will not fit
			}
		}
	}
}

// model says what may happen in which state. A state is left only once all the
// answers that rest on it are given: so it is in every order that is right, and
// the checker need not try the others.
func (a *account) model() porcupine.Model {
	type state struct{ seq, heard int }
	rest := make([]int, a.ledger.seq+2)
	for _, o := range a.history {
		if s := o.Input.(step); s.soldOut == nil && !s.moves {
			rest[s.at]++
		}
	}
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(from, input, _ any) (bool, any) {
			at, s := from.(state), input.(step)
			switch {
			case s.soldOut != nil:
				return a.noneLeft(at.seq, s.soldOut), at
			case s.moves:
				return at.seq == s.at && at.heard == rest[s.at], state{seq: at.seq + 1}
			}
			return at.seq == s.at, state{at.seq, at.heard + 1}
		},
	}
}

// stuck names the operations behind the longest line that the answers allow.
func (a *account) stuck(model porcupine.Model) (behind []string) {
	_, info := porcupine.CheckOperationsVerbose(model, a.history, 10*time.Second)
	longest := map[int]bool{}
	for _, partial := range info.PartialLinearizations()[0] {
		if len(partial) > len(longest) {
			clear(longest)
			for _, i := range partial {
				longest[i] = true
			}
		}
	}
	for i, o := range a.history {
		if !longest[i] {
			behind = append(behind, fmt.Sprintf("[%d, %d] %q", o.Call, o.Return, fmt.Sprint(o.Input)))
		}
	}
	return behind
}

// noneLeft says whether the door could have turned o away after event seq: a
// key that is bound must reach the deal. A node that came back on an earlier clock
// takes the deal's time for the present.
func (a *account) noneLeft(seq int, o *op) bool {
	first := a.ledger.remembers(o.cmd.User, o.cmd.Key, max(o.at, a.times[seq]))
	return a.soldOut[seq] && (first == nil || first.Seq > uint64(seq))
}
