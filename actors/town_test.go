package actors

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/own"
)

// town is several nodes of one process over one store, which fences them as a server
// would. Each believes in members of its own.
type town struct {
	t     *testing.T
	store journal.Store
	mu    sync.Mutex // guards what follows
	nodes map[string]*resident
	wires sync.WaitGroup
	laid  sync.RWMutex // held for writing while wires are waited for, so that none begins
}

// resident is one node with its network.
type resident struct {
	*house
	name  string
	town  *town
	clock *clockd.Clock

	members atomic.Pointer[[]string] // that it believes may own; nil = it is no member
	deaf    atomic.Bool              // what is sent to it is lost, and its sender is told so
	mute    atomic.Bool              // it serves, and its answers are lost
	lost    atomic.Int64             // those
	stuck   atomic.Bool              // what is sent to it is neither served nor known to be lost; notices not even late
	unwoken atomic.Int32             // how often it was told of deals while it was stuck
	unasked atomic.Int32             // how often it was sent anything else then
}

func newTown(t *testing.T, names ...string) *town {
	t.Helper()
	return newTownOver(t, journaltest.NewMemory(), names...)
}

func newTownOver(t *testing.T, store journal.Store, names ...string) *town {
	t.Helper()
	v := &town{t: t, store: store, nodes: make(map[string]*resident)}
	for _, name := range names {
		v.join(name, nil)
	}
	v.agree(names...)
	return v
}

func (v *town) join(name string, tune func(*Config, *clockd.Config)) *resident {
	v.t.Helper()
	r := &resident{name: name, town: v}
	cfg := Config{
		Rules: rulesFunc(tenPercent), Logger: discard, Fatal: func(err error) { v.t.Errorf("fatal: %v", err) },
		Peers: r, Member: name, RequestTimeout: time.Minute, // nobody is to lose patience with a busy machine
	}
	clockCfg := clockd.Config{}
	if tune != nil {
		tune(&cfg, &clockCfg)
	}
	clock, err := clockd.New(clockCfg)
	if err != nil {
		v.t.Fatal(err)
	}
	clock.Start()
	r.clock = clock
	node, err := NewNode(v.t.Context(), v.store, clock, cfg)
	if err != nil {
		v.t.Fatal(err)
	}
	r.house = &house{t: v.t, cfg: cfg, node: node}
	v.mu.Lock()
	v.nodes[name] = r
	v.mu.Unlock()
	v.t.Cleanup(func() { r.close() })
	return r
}

// close ends the node and what is under way to it.
func (r *resident) close() {
	r.town.mu.Lock()
	open := r.town.nodes[r.name] == r
	delete(r.town.nodes, r.name)
	r.town.mu.Unlock()
	if open {
		r.node.cancel()
		r.town.laid.Lock()
		r.town.wires.Wait()
		r.town.laid.Unlock()
		r.node.Close()
		r.clock.Close()
	}
}

func (v *town) node(name string) *resident {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.nodes[name]
}

// agree makes these the members that own, as everybody sees it.
func (v *town) agree(names ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.nodes {
		r.believe(names...)
	}
}

func (r *resident) believe(names ...string) {
	r.members.Store(&names)
	r.node.Changed(nil)
}

// poison is a deal that nobody can be asked for.
const poison = "poison"

// Owner implements Peers.
func (r *resident) Owner(deal []byte) (owner string, self bool) {
	if string(deal) == poison {
		panic(poison)
	}
	most := uint64(0)
	if members := r.members.Load(); members != nil {
		for _, m := range *members {
			h := fnv.New64a()
			_, _ = h.Write(deal)
			_, _ = h.Write([]byte(m))
			if w := h.Sum64() * 0x9e3779b97f4a7c15; w >= most {
				owner, most = m, w
			}
		}
	}
	return owner, owner == r.name
}

// Others implements Peers.
func (r *resident) Others(dst []string) []string {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	for name := range r.town.nodes {
		if name != r.name {
			dst = append(dst, name)
		}
	}
	slices.Sort(dst)
	return dst
}

// Send implements Peers.
func (r *resident) Send(member string, body []byte, deadline int64, done cluster.Done) {
	body = slices.Clone(body)
	to := r.town.node(member)
	r.town.laid.RLock()
	defer r.town.laid.RUnlock()
	if to == nil || to.deaf.Load() || r.deaf.Load() {
		r.town.wires.Go(func() { done.Replied(nil, cluster.ErrUnknown) })
		return
	}
	if to.stuck.Load() {
		notice := op(body[0]) == opWake
		if notice {
			to.unwoken.Add(1)
		} else {
			to.unasked.Add(1)
		}
		r.town.wires.Go(func() {
			for (notice && to.stuck.Load() || clockd.Mono() < deadline) && r.town.t.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			done.Replied(nil, cluster.ErrExpired)
		})
		return
	}
	r.town.wires.Go(func() {
		answered := make(chan []byte, 1)
		to.node.Serve(r.name, body, deadline, func(b []byte) { answered <- slices.Clone(b) })
		var b []byte
		select {
		case b = <-answered:
		case <-r.town.t.Context().Done(): // links end with their nodes
			done.Replied(nil, cluster.ErrUnknown)
			return
		}
		if to.mute.Load() || r.deaf.Load() {
			to.lost.Add(1)
			done.Replied(nil, cluster.ErrUnknown)
			return
		}
		done.Replied(b, nil)
	})
}

// ids returns n deals that belong to owner.
func (r *resident) ids(n int) (ids []string) {
	for i := 0; len(ids) < n; i++ {
		id := fmt.Sprintf("d-%d", i)
		if r.node.owns(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// eventually is house's with a clock that runs by itself.
func (r *resident) eventually(what string, ok func() bool) {
	r.t.Helper()
	for begin := time.Now(); time.Since(begin) < 2*time.Minute; time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	r.t.Fatalf("never: %s", what)
}

// audit holds what shoppers were told against the journal: every order is there once,
// epochs and times only rise, and nothing is sold twice.
func (v *town) audit(id string, stock int64, acked map[uint64]string) {
	v.t.Helper()
	s := deal.NewState()
	var epoch uint64
	var at int64
	err := v.store.Read(context.Background(), id, 0, func(je journal.Event) error {
		var e deal.Event
		if err := e.Decode(je.Data); err != nil {
			return err
		}
		e.Seq = je.Seq
		if je.Epoch < epoch || e.At < at {
			v.t.Errorf("%s: event %d goes back: epoch %d after %d, at %d after %d", id, e.Seq, je.Epoch, epoch, e.At, at)
		}
		epoch, at = je.Epoch, e.At
		if key, ok := acked[e.Seq]; e.Kind == deal.OrderPlaced && ok {
			if key != string(e.Placed.User)+"/"+string(e.Placed.Key) {
				v.t.Errorf("%s: order %d is %s/%s, told to %s", id, e.Seq, e.Placed.User, e.Placed.Key, key)
			}
			delete(acked, e.Seq)
		}
		return s.Apply(&e)
	})
	if err != nil {
		v.t.Error(err)
	}
	if len(acked) > 0 {
		v.t.Errorf("%s: %d acknowledged orders are lost: %v", id, len(acked), acked)
	}
	if s.Reserved+s.Sold+s.Available != stock {
		v.t.Errorf("%s: %d reserved, %d sold, %d left of %d", id, s.Reserved, s.Sold, s.Available, stock)
	}
	if err := s.Check(); err != nil {
		v.t.Error(err)
	}
}

// rush is shoppers who place orders through all nodes until it is stopped.
type rush struct {
	stop    chan struct{}
	wait    sync.WaitGroup
	mu      sync.Mutex // guards the rest
	acked   map[string]map[uint64]string
	errs    []error
	longest time.Duration
	count   int
}

// rush begins: each of the shoppers goes round the nodes that are there, and round the deals.
func (v *town) rush(shoppers int, deals []string) *rush {
	u := &rush{stop: make(chan struct{}), acked: make(map[string]map[uint64]string)}
	for _, d := range deals {
		u.acked[d] = make(map[uint64]string)
	}
	for s := range shoppers {
		u.wait.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-u.stop:
					return
				default:
				}
				v.mu.Lock()
				var names []string
				for name := range v.nodes {
					names = append(names, name)
				}
				v.mu.Unlock()
				slices.Sort(names)
				r := v.node(names[(s+i)%len(names)])
				if r == nil {
					continue
				}
				d, user, key := deals[(s+i/3)%len(deals)], fmt.Sprint("u", s), fmt.Sprint("k", i)
				begin := time.Now()
				a := r.place(d, user, key, 1)
				u.note(d, user+"/"+key, a, time.Since(begin))
			}
		})
	}
	return u
}

func (u *rush) note(d, key string, a answer, took time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.longest = max(u.longest, took)
	u.count++
	switch {
	case a.err != nil:
		u.errs = append(u.errs, a.err)
	case a.code == deal.OK:
		u.acked[d][a.seq] = key
	default:
		u.errs = append(u.errs, fmt.Errorf("code %d", a.code))
	}
}

func (u *rush) orders() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count
}

// end stops the shoppers and returns what went wrong.
func (u *rush) end() []error {
	close(u.stop)
	u.wait.Wait()
	return u.errs
}

// placed waits until so many more orders were answered.
func (u *rush) placed(t *testing.T, more int) {
	t.Helper()
	goal := u.orders() + more
	for begin := time.Now(); u.orders() < goal; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 2*time.Minute {
			t.Fatalf("%d of %d orders", u.orders(), goal)
		}
	}
}

const plenty = int64(1_000_000)

func (r *resident) open(ids []string) {
	r.t.Helper()
	for _, id := range ids {
		r.create(id, func(s *deal.Spec) { s.Stock, s.StartsAt = plenty, 0 })
	}
}

// priority is how a shopper's other steps go in.
const priority = own.ClassPriority
