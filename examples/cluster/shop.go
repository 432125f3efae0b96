package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/gateway/client"
)

// The deals of a shop take turns: one of plenty, one of plenty that a rule prices, and
// one that sells out, allows each user a few and gives back what is not paid for soon.
const (
	kindsOfDeals = 3
	dealFew      = kindsOfDeals - 1
	stockPlenty  = 1_000_000
	stockFew     = 60
	limitFew     = 2
	holdFew      = 4 // seconds
	users        = 97
	quantityMost = 3
	fewUnits     = 1 // at once

	// patienceAll is how long a shopper asks again for what got no answer.
	patienceAll = 40 * time.Second
	retryMost   = 200 * time.Millisecond // between two tries

	pollBalancer = 100 * time.Millisecond
)

// what is asked of a deal.
type what uint8

const (
	place   what = iota + 1
	repeat       // an order that was acknowledged, again
	confirm      // an order of the same shopper
	cancel       // the same
	look         // at the deal
)

// op is one thing that a shopper asked for, and what came of it.
type op struct {
	what     what
	deal     string
	user     string
	key      string // place, repeat
	quantity int64
	order    *told // repeat, confirm, cancel: as it was acknowledged

	call, ret int64  // Mono ns of the first try and of the answer; ret 0: it never came
	reached   int64  // Mono ns of the first try behind the last connection that ended with its node
	node      string // that was asked last
	failures  int    // tries that were answered by 5xx, or not at all
	failure   error  // the last of them
	status    int    // of the answer
	told      told
}

// told is what an answer said.
type told struct {
	OrderID   string `json:"order_id"`
	UserID    string `json:"user_id"`
	Quantity  int64  `json:"quantity"`
	Total     int64  `json:"total"`
	Seq       uint64 `json:"seq"`
	Available int64  `json:"available"`

	Version  uint64 `json:"version"` // of a deal
	Reserved int64  `json:"reserved"`
	Sold     int64  `json:"sold"`

	Code string `json:"code"` // of a refusal
}

// wait is how long a shopper waited for the answer of a node that lived to give it: who
// asked one that died is told so at once, and asks another.
func (o *op) wait() time.Duration { return time.Duration(o.ret - o.reached) }

// acknowledged says whether the shopper was told that it has happened.
func (o *op) acknowledged() bool { return o.ret != 0 && o.status < 300 }

func (o *op) String() string {
	words := [...]string{place: "place", repeat: "repeat", confirm: "confirm", cancel: "cancel", look: "look at"}
	text := fmt.Sprintf("%s %s", words[o.what], o.deal)
	switch o.what {
	case place, repeat:
		text += fmt.Sprintf(" for %s, %d units, key %s", o.user, o.quantity, o.key)
	case confirm, cancel:
		text += " " + o.order.OrderID
	case look:
	}
	return fmt.Sprintf("%s: %d %+v", text, o.status, o.told)
}

// shop lets shoppers order from deals of its own while it is open, through a balancer
// that knows which nodes are ready, and keeps every answer.
type shop struct {
	prefix string // of its deals' ids
	deals  int
	nodes  func() []*node // there are now
	seed   uint64

	end  context.CancelFunc
	wait sync.WaitGroup

	asked  atomic.Int64
	mu     sync.Mutex // guards the fields below while the shop is open
	ops    []*op
	latest map[string]int64 // by deal: the newest question that was answered
	fault  error            // the first answer that no server may give
}

func (s *shop) deal(i int) string { return s.prefix + strconv.Itoa(i) }

// create makes the deals, through any nodes.
func (s *shop) create(ctx context.Context) error {
	for i := range s.deals {
		more := fmt.Sprintf(`"stock":%d,"reserve_ttl_s":604800`, stockPlenty)
		switch i % kindsOfDeals {
		case 1:
			more += `,"rules":["tiered"]`
		case dealFew:
			more = fmt.Sprintf(`"stock":%d,"per_user_limit":%d,"reserve_ttl_s":%d`, stockFew, limitFew, holdFew)
		}
		body := fmt.Sprintf(`{"deal_id":%q,"merchant_id":"acme","title":"Lychee","category":"fruit","currency":"CNY","unit_price":9900,%s}`, s.deal(i), more)
		nodes := s.nodes()
		answer, err := nodes[i%len(nodes)].api.Do(ctx, client.Call{Method: "POST", Path: "/api/v1/deals", Body: []byte(body)})
		if err == nil && answer.Status != 201 {
			err = fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		if err != nil {
			return fmt.Errorf("create %s: %w", s.deal(i), err)
		}
	}
	return nil
}

// open lets shoppers in: so many for each deal that a crowd at one door leaves the
// others as they are. Together they ask rate times a second.
func (s *shop) open(ctx context.Context, rate float64, perDeal int) {
	ctx, s.end = context.WithCancel(ctx)
	pause := time.Duration(float64(time.Second) * float64(s.deals*perDeal) / rate)
	for w := range s.deals * perDeal {
		s.wait.Go(func() {
			shopper := &shopper{shop: s, deal: w % s.deals, rng: rand.New(rand.NewPCG(s.seed, uint64(w)))}
			next := clockd.Mono() + int64(shopper.rng.Float64()*float64(pause))
			for clockd.SleepUntil(ctx, next) == nil {
				shopper.ask(context.WithoutCancel(ctx))
				next = max(next+int64(pause), clockd.Mono())
			}
		})
	}
	s.wait.Go(func() { s.balance(ctx) })
}

// close lets nobody else in, and returns when all have their answers or have lost
// patience.
func (s *shop) close() ([]*op, error) {
	s.end()
	s.wait.Wait()
	return s.ops, s.fault
}

// balance asks the nodes whether they are ready, as balancers do.
func (s *shop) balance(ctx context.Context) {
	for ctx.Err() == nil {
		for _, n := range s.nodes() {
			go func() { // a node that does not answer holds up nobody
				asked, cancel := context.WithTimeout(ctx, 3*pollBalancer)
				defer cancel()
				n.ready.Store(n.isReady(asked))
			}()
		}
		_ = clockd.SleepUntil(ctx, clockd.Mono()+int64(pollBalancer)) // the loop looks
	}
}

// shopper asks one thing after the other of one deal.
type shopper struct {
	*shop
	deal int
	rng  *rand.Rand
	held []*op // acknowledged orders, neither confirmed nor cancelled
}

// Of a hundred things that a shopper asks for; the others are new orders.
const (
	looks    = 12
	repeats  = 5
	confirms = 12
	cancels  = 12
)

func (s *shopper) ask(ctx context.Context) {
	o := s.next()
	o.call = clockd.Mono()
	for s.try(ctx, o); o.ret == 0 && clockd.Mono() < o.call+int64(patienceAll); s.try(ctx, o) {
		_ = clockd.SleepUntil(ctx, clockd.Mono()+s.rng.Int64N(int64(retryMost))) // ctx has no end
	}
	if o.what == place && o.status == 201 {
		s.held = append(s.held, o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = append(s.ops, o)
	if o.ret != 0 {
		s.latest[o.deal] = max(s.latest[o.deal], o.call)
	}
}

// next decides what to ask for.
func (s *shopper) next() *op {
	o := &op{what: place, deal: s.shop.deal(s.deal), quantity: 1 + s.rng.Int64N(quantityMost)}
	if s.deal%kindsOfDeals == dealFew {
		o.quantity = fewUnits
	}
	chance := s.rng.IntN(100)
	if chance < looks {
		o.what = look
		return o
	}
	if chance < looks+repeats+confirms+cancels && len(s.held) > 0 {
		i := s.rng.IntN(len(s.held))
		first := s.held[i]
		o.user, o.key, o.quantity, o.order = first.user, first.key, first.quantity, &first.told
		switch {
		case chance < looks+repeats:
			o.what = repeat
			return o
		case chance < looks+repeats+confirms:
			o.what = confirm
		default:
			o.what = cancel
		}
		s.held = append(s.held[:i], s.held[i+1:]...)
		return o
	}
	n := s.asked.Add(1)
	o.user, o.key = "u-"+strconv.Itoa(s.rng.IntN(users)), "k-"+strconv.FormatInt(n, 10)
	return o
}

func (o *op) request() client.Call {
	switch o.what {
	case confirm:
		return client.Call{Method: "POST", Path: "/api/v1/orders/" + o.order.OrderID + "/confirm", Body: []byte(`{"payment_ref":"p"}`)}
	case cancel:
		return client.Call{Method: "POST", Path: "/api/v1/orders/" + o.order.OrderID + "/cancel", Body: []byte(`{"reason":"r"}`)}
	case look:
		return client.Call{Method: "GET", Path: "/api/v1/deals/" + o.deal}
	case place, repeat:
	}
	return client.Call{
		Method: "POST", Path: "/api/v1/orders", IdempotencyKey: o.key,
		Body: fmt.Appendf(nil, `{"deal_id":%q,"user_id":%q,"quantity":%d}`, o.deal, o.user, o.quantity),
	}
}

// try asks a node that is ready, or if none is, any.
func (s *shopper) try(ctx context.Context, o *op) {
	nodes := s.nodes()
	from := s.rng.IntN(len(nodes))
	chosen := nodes[from]
	for i := range nodes {
		if n := nodes[(from+i)%len(nodes)]; n.ready.Load() {
			chosen = n
			break
		}
	}
	if o.node = chosen.host.name; o.reached == 0 {
		o.reached = clockd.Mono()
	}
	process := chosen.life.Load()
	answer, err := chosen.api.Do(ctx, o.request())
	switch {
	case err != nil || answer.Status >= 500:
		o.failures++
		if err != nil && !timedOut(err) && process.isOver() { // a node that lives has to answer
			o.reached = 0
		}
		if o.failure = err; err == nil {
			o.failure = fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		o.failure = fmt.Errorf("%v: %s, %v after it was first asked: %w", o, chosen.host.name, time.Duration(clockd.Mono()-o.call), o.failure)
	case answer.Status == 200 || answer.Status == 201 || answer.Status == 409:
		err := json.Unmarshal(answer.Body, &o.told)
		if o.told.Code == "idempotency_in_flight" {
			return // an earlier try is
		}
		o.status, o.ret = answer.Status, clockd.Mono()
		s.accuse(err)
	default:
		o.status, o.ret = answer.Status, clockd.Mono()
		s.accuse(fmt.Errorf("%v: unexpected answer of %s: %s", o, chosen.host.name, answer.Body))
	}
}

// timedOut tells a node that is silent from one that is no more.
func timedOut(err error) bool {
	var slow interface{ Timeout() bool }
	return errors.As(err, &slow) && slow.Timeout()
}

func (s *shopper) accuse(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.fault = err
	}
}
