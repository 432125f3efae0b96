package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/gateway/client"
)

// The deals of a shop: one of plenty, one of plenty with a rule, one that sells
// out and allows each user a few.
const (
	dealsMax  = 3
	dealFew   = dealsMax - 1
	stock     = 1_000_000
	stockFew  = 600
	limitFew  = 2
	shoppers  = 24 // connections
	usersMost = 997
)

func shopDeal(i int) string { return "d-" + strconv.Itoa(i) }

// shop is what shoppers were told by the servers that lived on one data folder,
// one after the other. Its orders are all of one unit, and no reservation ends
// while it is open: the n-th event of a deal behind its first leaves n units fewer.
type shop struct {
	mu      sync.Mutex // guards the fields below while shoppers run
	orders  []acknowledgement
	unknown [dealsMax]int // orders without an answer: each was placed, or not
	turned  int           // away, with the deal's reason
	fault   error         // the first answer that no server may give

	asked   atomic.Int64 // orders that were asked for, which numbers them
	checked int          // orders[:checked] have been found by an earlier check
}

// acknowledgement is what a shopper was told, and all that must stay true.
type acknowledgement struct {
	OrderID   string `json:"order_id"`
	DealID    string `json:"deal_id"`
	UserID    string `json:"user_id"`
	Quantity  int64  `json:"quantity"`
	Total     int64  `json:"total"`
	Seq       uint64 `json:"seq"`
	Available int64  `json:"available"`

	number    int64  // of the order that was asked for
	body      string // the whole answer
	call, ret int64  // when it was asked for and answered, in nanoseconds
}

func (s *shop) create(ctx context.Context, addr string) error {
	api, err := client.New(client.Config{Addr: addr})
	if err != nil {
		return err
	}
	defer api.Close()
	for i, more := range [dealsMax]string{
		fmt.Sprintf(`"stock":%d`, stock),
		fmt.Sprintf(`"stock":%d,"rules":["tiered"]`, stock),
		fmt.Sprintf(`"stock":%d,"per_user_limit":%d`, stockFew, limitFew),
	} {
		body := fmt.Sprintf(`{"deal_id":%q,"merchant_id":"acme","title":"Lychee","category":"fruit","currency":"CNY","unit_price":9900,"reserve_ttl_s":604800,%s}`, shopDeal(i), more)
		answer, tries, err := insist(ctx, api, client.Call{Method: "POST", Path: "/api/v1/deals", Body: []byte(body)})
		if err != nil {
			return err
		}
		// A deal may have been made by a try whose answer was late.
		if answer.Status != 201 && (answer.Status != 409 || tries == 1) {
			return fmt.Errorf("deal %d: %d %s", i, answer.Status, answer.Body)
		}
	}
	return nil
}

// patience is how long tests wait for what has to come, on a machine that does ten other
// things and syncs slowly.
const patience = 2 * time.Minute

// insist asks until it is told something: 503 and 504 say that nobody knows yet, or that the
// answer would have been late, and the question may be repeated. It returns how often it asked.
func insist(ctx context.Context, api *client.Client, what client.Call) (answer client.Answer, tries int, err error) {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		tries++
		answer, err = api.Do(ctx, what)
		if err != nil || answer.Status != 503 && answer.Status != 504 || time.Since(begin) > patience {
			return answer, tries, err
		}
	}
}

// find is insist for what must be there.
func find(ctx context.Context, api *client.Client, path string, reply any) error {
	answer, _, err := insist(ctx, api, client.Call{Method: "GET", Path: path})
	if err == nil && answer.Status != 200 {
		err = fmt.Errorf("%s: %d %s", path, answer.Status, answer.Body)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(answer.Body, reply)
}

// order is the n-th order that shoppers ask for, the same each time.
func order(n int64) client.Call {
	return client.Call{
		Method: "POST", Path: "/api/v1/orders", IdempotencyKey: "k-" + strconv.FormatInt(n, 10),
		Body: fmt.Appendf(nil, `{"deal_id":%q,"user_id":"u-%d","quantity":1}`, shopDeal(int(n%dealsMax)), n%usersMost),
	}
}

// crowd lets shoppers order until end has ended the server, some time after the
// first answer.
func (s *shop) crowd(ctx context.Context, addr string, after time.Duration, end func() error) error {
	api, err := client.New(client.Config{Addr: addr, Connections: shoppers})
	if err != nil {
		return err
	}
	defer api.Close()
	answered := make(chan struct{})
	var first sync.Once
	var wait sync.WaitGroup
	for range shoppers {
		wait.Go(func() {
			for s.buy(ctx, api) {
				first.Do(func() { close(answered) })
			}
		})
	}
	select {
	case <-answered:
		time.Sleep(after)
	case <-time.After(patience):
		err = errors.New("nobody was answered")
	}
	err = errors.Join(err, end())
	wait.Wait()
	return errors.Join(err, s.fault)
}

// buy asks for one order. It returns false once the server is gone.
func (s *shop) buy(ctx context.Context, api *client.Client) bool {
	n := s.asked.Add(1)
	call := clockd.Mono()
	answer, err := api.Do(ctx, order(n))
	ret := clockd.Mono()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil || answer.Status == 503 || answer.Status == 504:
		s.unknown[n%dealsMax]++
		return answer.Status != 0
	case answer.Status == 201:
		told := acknowledgement{number: n, body: string(answer.Body), call: call, ret: ret}
		if err := json.Unmarshal(answer.Body, &told); err != nil && s.fault == nil {
			s.fault = err
		}
		s.orders = append(s.orders, told)
	case answer.Status == 409 && n%dealsMax == dealFew: // sold out, or beyond the limit
		s.turned++
	case s.fault == nil:
		s.fault = fmt.Errorf("order %d: unexpected answer %d %s", n, answer.Status, answer.Body)
	}
	return true
}

// check asks a server for all that was promised since the last check: each order
// must be given again, to the byte, to whoever repeats its key. And each deal must
// be what its shoppers were told.
func (s *shop) check(ctx context.Context, addr string) error {
	err := s.ask(addr, s.orders[s.checked:], func(api *client.Client, told *acknowledgement) error {
		again, _, err := insist(ctx, api, order(told.number))
		if err == nil && (again.Status != 201 || string(again.Body) != told.body) {
			err = fmt.Errorf("lost: acknowledged %s, and now %d %s", told.body, again.Status, again.Body)
		}
		return err
	})
	s.checked = len(s.orders)
	return errors.Join(err, s.checkDeals(ctx, addr))
}

// checkAll looks every order up by its id, and holds the whole history against
// the invariants.
func (s *shop) checkAll(ctx context.Context, addr string) error {
	err := s.ask(addr, s.orders, func(api *client.Client, told *acknowledgement) error {
		found := acknowledgement{number: told.number, body: told.body, call: told.call, ret: told.ret}
		err := find(ctx, api, "/api/v1/orders/"+told.OrderID, &found)
		if err == nil && found != *told {
			err = fmt.Errorf("acknowledged %+v, found %+v", told, found)
		}
		return err
	})
	return errors.Join(err, s.checkHistory())
}

// ask calls fn for each order, on several connections, and joins the errors of
// those that it found first.
func (s *shop) ask(addr string, orders []acknowledgement, fn func(*client.Client, *acknowledgement) error) error {
	const workers = 8
	api, err := client.New(client.Config{Addr: addr, Connections: workers})
	if err != nil {
		return err
	}
	defer api.Close()
	var wait sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wait.Go(func() {
			for i := w; i < len(orders) && errs[w] == nil; i += workers {
				errs[w] = fn(api, &orders[i])
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// checkDeals holds each deal against the promises: nothing is missing, and what
// is there beyond them was at least asked for.
func (s *shop) checkDeals(ctx context.Context, addr string) error {
	var promised [dealsMax]int
	for _, told := range s.orders {
		promised[told.number%dealsMax]++
	}
	api, err := client.New(client.Config{Addr: addr})
	if err != nil {
		return err
	}
	defer api.Close()
	for i := range dealsMax {
		var deal struct{ Stock, Sold, Reserved, Available int }
		if err := find(ctx, api, "/api/v1/deals/"+shopDeal(i), &deal); err != nil {
			return err
		}
		gone := deal.Sold + deal.Reserved
		if gone+deal.Available != deal.Stock || deal.Available < 0 || gone < promised[i] || gone > promised[i]+s.unknown[i] {
			return fmt.Errorf("%s: %+v, with %d units promised and %d orders unanswered", shopDeal(i), deal, promised[i], s.unknown[i])
		}
	}
	return nil
}

// checkHistory holds the answers against each other: no oversell, no user beyond
// the limit, no order given out twice, and each deal's answers in one line that
// fits the time at which they were given.
func (s *shop) checkHistory() error {
	var byDeal [dealsMax][]porcupine.Operation
	ids, held := make(map[string]bool), make(map[string]int)
	for i := range s.orders {
		told := &s.orders[i]
		deal := told.number % dealsMax
		if ids[told.OrderID] {
			return fmt.Errorf("order %s was given out twice", told.OrderID)
		}
		ids[told.OrderID] = true
		if deal == dealFew {
			held[told.UserID]++
		}
		if held[told.UserID] > limitFew {
			return fmt.Errorf("I6: %s got %d units, the limit is %d", told.UserID, held[told.UserID], limitFew)
		}
		byDeal[deal] = append(byDeal[deal], porcupine.Operation{Call: told.call, Return: told.ret, Input: step{told: told}})
	}
	if n := len(byDeal[dealFew]); n > stockFew {
		return fmt.Errorf("I1: %d units were promised of %d", n, stockFew)
	}
	for i, history := range byDeal {
		left := int64(stock)
		if i == dealFew {
			left = stockFew
		}
		slices.SortFunc(history, func(a, b porcupine.Operation) int {
			return cmp.Compare(a.Input.(step).told.Seq, b.Input.(step).told.Seq)
		})
		before := uint64(1) // the deal itself
		for j := range history {
			history[j].Input = step{before, history[j].Input.(step).told}
			before = history[j].Input.(step).told.Seq
		}
		if result := porcupine.CheckOperationsTimeout(line(left), history, time.Minute); result != porcupine.Ok {
			return fmt.Errorf("I4: the %d answers of %s: %v", len(history), shopDeal(i), result)
		}
	}
	return nil
}

// step is an answer in the line of its deal's answers.
type step struct {
	before uint64 // the event of the answer before it
	told   *acknowledgement
}

// line is a deal as its shoppers see it. An answer moves it to the answer's event;
// events that it leaps over are of orders that nobody was told of, and each took a
// unit.
func line(left int64) porcupine.Model {
	type state struct {
		seq  uint64
		left int64
	}
	return porcupine.Model{
		Init: func() any { return state{1, left} },
		Step: func(from, input, _ any) (bool, any) {
			at, s := from.(state), input.(step)
			told := s.told
			ok := s.before == at.seq && told.Seq > at.seq && told.Available >= 0 && told.Available == at.left-int64(told.Seq-at.seq)
			return ok, state{told.Seq, told.Available}
		},
	}
}

// TestShopCanFail: the checks of a history find what they are for.
func TestShopCanFail(t *testing.T) {
	told := func(n int64, deal int, seq uint64, available, call, ret int64) acknowledgement {
		return acknowledgement{
			OrderID: fmt.Sprintf("%s-%d", shopDeal(deal), seq), UserID: "u", Seq: seq, Available: available,
			number: n*dealsMax + int64(deal), call: call, ret: ret,
		}
	}
	good := []acknowledgement{told(0, 0, 2, stock-1, 0, 10), told(1, 0, 3, stock-2, 5, 9), told(2, 0, 5, stock-4, 11, 12), told(3, dealFew, 2, stockFew-1, 3, 4)}
	if err := (&shop{orders: good}).checkHistory(); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]acknowledgement{
		"the same event twice":       told(4, 0, 5, stock-4, 13, 14),
		"an event of the past":       told(4, 0, 4, stock-3, 13, 14),
		"a unit that was sold twice": told(4, 0, 6, stock-4, 13, 14),
		"a unit that came back":      told(4, 0, 6, stock-3, 13, 14),
		"oversell":                   told(4, dealFew, 2+stockFew, -1, 13, 14),
		"an answer before its time":  told(4, 0, 6, stock-5, 1, 2),
	} {
		if err := (&shop{orders: append(slices.Clone(good), bad)}).checkHistory(); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	limit := []acknowledgement{told(1, dealFew, 2, stockFew-1, 0, 1), told(2, dealFew, 3, stockFew-2, 2, 3), told(3, dealFew, 4, stockFew-3, 4, 5)}
	if err := (&shop{orders: limit}).checkHistory(); err == nil {
		t.Error("a third unit for one user passes")
	}
}
