package cluster

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	proto "github.com/asynkron/protoactor-go/cluster"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/porttest"
)

// desk is a registry whose clerk is the test.
type desk struct {
	joined chan Member           // each one that joins
	views  chan []Member         // what Watch tells
	broken chan error            // ends Watch
	refuse atomic.Pointer[error] // of everything
	left   atomic.Bool
	closed atomic.Bool
}

func newDesk() *desk {
	return &desk{joined: make(chan Member, 16), views: make(chan []Member), broken: make(chan error)}
}

func (d *desk) say() error {
	if err := d.refuse.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *desk) Join(_ context.Context, m Member, _ time.Duration) error {
	if err := d.say(); err != nil {
		return err
	}
	d.joined <- m
	return nil
}
func (d *desk) Update(context.Context, Member) error { return d.say() }
func (d *desk) Renew(context.Context) error          { return d.say() }
func (d *desk) Leave(context.Context) error          { d.left.Store(true); return nil }
func (d *desk) Close() error                         { d.closed.Store(true); return nil }

func (d *desk) Watch(ctx context.Context, changed func([]Member)) error {
	for {
		select {
		case view := <-d.views:
			changed(view)
		case err := <-d.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// diary is a Handler that writes everything down.
type diary chan *Topology // nil: Lost

func (diary) Serve(string, []byte, int64, func([]byte)) {}
func (d diary) Changed(t *Topology)                     { d <- t }
func (d diary) Lost()                                   { d <- nil }

func (d diary) next(t *testing.T) *Topology {
	t.Helper()
	select {
	case topology := <-d:
		return topology
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		return nil
	}
}

func addresses(t *Topology) (all []string) {
	for _, m := range t.Members {
		all = append(all, m.Address)
	}
	slices.Sort(all)
	return all
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := porttest.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func ticking(t *testing.T) *clockd.Clock {
	t.Helper()
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Start()
	t.Cleanup(clock.Close)
	return clock
}

// lease is long enough for a busy machine: a node that stands still for a quarter of it
// may lose it.
const lease = 12 * time.Second

// enrolled starts a node and answers its first join.
func enrolled(t *testing.T) (c *Cluster, d *desk, told diary, self Member) {
	t.Helper()
	d, told = newDesk(), make(diary, 16)
	c, err := New(Config{Registry: d, Clock: ticking(t), Advertise: freeAddress(t), TTL: lease, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	started := make(chan error)
	go func() { started <- c.Start(t.Context(), told) }()
	self = <-d.joined
	d.views <- []Member{self, {ID: "1", Address: "other:1"}}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if first := told.next(t); first.Self < 0 || len(first.Members) != 2 {
		t.Fatalf("the first topology is %+v", first)
	}
	return c, d, told, self
}

func TestMemberThatVanishesIsKeptForAMoment(t *testing.T) {
	c, d, told, self := enrolled(t)
	before := c.Topology()
	for life := 2; ; life++ {
		id, began := strconv.Itoa(life), time.Now()
		d.views <- []Member{self}                               // it went away
		d.views <- []Member{self, {ID: id, Address: "other:1"}} // and came back in another life
		now := told.next(t)
		if slices.Equal(addresses(now), addresses(before)) && slices.ContainsFunc(now.Members, func(m Member) bool { return m.ID == id }) {
			break
		}
		if time.Since(began) < lease/settlesPerTTL || life == 20 {
			t.Fatalf("told of %v", now.Members)
		}
		told.next(t) // this machine has stood still for longer than that moment
	}
	d.views <- []Member{self}
	if now := told.next(t); len(now.Members) != 1 {
		t.Errorf("the member that is gone is still there: %v", now.Members)
	}
}

func TestLosses(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(d *desk, self Member){
		"the lease is over":  func(d *desk, _ Member) { d.refuse.Store(new(ErrLost)) },
		"the record is gone": func(d *desk, _ Member) { d.views <- []Member{{ID: "1", Address: "other:1"}} },
	} {
		t.Run(name, func(t *testing.T) {
			c, d, told, self := enrolled(t)
			fault(d, self)
			if told.next(t) != nil {
				t.Fatal("something else came before the loss")
			}
			if after := told.next(t); after.Self != -1 || !slices.Equal(addresses(after), []string{"other:1"}) {
				t.Errorf("after the loss: %+v", after)
			}
			d.refuse.Store(nil)
			again := <-d.joined
			if again.ID <= self.ID || again.Address != self.Address {
				t.Errorf("%+v came back as %+v", self, again)
			}
			d.views <- []Member{again, {ID: "1", Address: "other:1"}}
			if now := told.next(t); now.Self < 0 || now != c.Topology() {
				t.Errorf("back, and told of %+v", now)
			}
		})
	}
}

// Two nodes under one address would chase each other for ever.
func TestDisplaced(t *testing.T) {
	t.Parallel()
	_, d, told, self := enrolled(t)
	d.views <- []Member{self, {ID: self.ID + "0", Address: self.Address}}
	if told.next(t) != nil {
		t.Fatal("something else came before the loss")
	}
	told.next(t)
	select {
	case again := <-d.joined:
		t.Errorf("it came back at once, as %v", again)
	case <-time.After(2 * time.Second):
	}
}

// A registry that does not answer says nothing about anybody.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	c, d, told, _ := enrolled(t)
	before := c.Topology()
	nowhere := errors.New("no route")
	d.refuse.Store(&nowhere)
	d.broken <- nowhere
	select {
	case news := <-told:
		t.Errorf("told of %+v", news)
	case <-time.After(lease + lease/4):
	}
	if c.Topology() != before || !c.Awake() {
		t.Error("it did not stay as it was")
	}
	begin := time.Now()
	if err := c.Leave(deadline(t, 2*time.Minute)); !errors.Is(err, nowhere) {
		t.Errorf("it left, as far as it knows: %v", err)
	}
	if err := c.Close(); err != nil || d.left.Load() {
		t.Errorf("nobody can be told of the end: %v", err)
	}
	if took := time.Since(begin); took > time.Minute { // each call has a third of the lease
		t.Errorf("it took %v to go", took)
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCannotJoin(t *testing.T) {
	d := newDesk()
	d.refuse.Store(new(errors.New("not today")))
	c, err := New(Config{Registry: d, Clock: ticking(t), Advertise: freeAddress(t), TTL: time.Second, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for asked := false; !asked; time.Sleep(time.Millisecond) {
			c.mu.Lock()
			asked = c.problem != nil
			c.mu.Unlock()
		}
	}()
	err = c.Start(ctx, make(diary, 1))
	if err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("starting without a registry: %v", err)
	}
	if !d.closed.Load() {
		t.Error("the registry stayed open")
	}
}

func TestClose(t *testing.T) {
	c, d, _, _ := enrolled(t)
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if !d.left.Load() || !d.closed.Load() {
		t.Error("it left without a word")
	}
}

func TestProtoActorKnows(t *testing.T) {
	c, d, told, self := enrolled(t)
	events := make(chan *proto.ClusterTopology, 1)
	c.system.EventStream.Subscribe(func(event any) {
		if e, ok := event.(*proto.ClusterTopology); ok {
			events <- e
		}
	})
	d.views <- []Member{self, {ID: "2", Address: "other:2"}}
	told.next(t)
	if e := <-events; len(e.Members) != 2 || len(e.Joined) != 1 || e.Joined[0].Port != 2 || len(e.Left) != 1 || e.Left[0].Id != "1" {
		t.Errorf("it was told %v", e)
	}
	topology := c.Topology()
	for _, deal := range []string{"a", "b", "c", "d"} {
		want := topology.Members[topology.Owner([]byte(deal))].Address
		if pid := c.proto.Get(deal, "deal"); pid.Address != want || pid.Id != wellKnown {
			t.Errorf("%s lives at %v, not at %s", deal, pid, want)
		}
	}
	if err := c.proto.Config.ClusterProvider.StartClient(c.proto); err == nil {
		t.Error("it became a client")
	}
}

func TestConfig(t *testing.T) {
	clock := ticking(t)
	good := Config{Registry: newDesk(), Clock: clock, Advertise: "127.0.0.1:7000"}
	for name, spoil := range map[string]func(*Config){
		"no registry":         func(c *Config) { c.Registry = nil },
		"no clock":            func(c *Config) { c.Clock = nil },
		"no address":          func(c *Config) { c.Advertise = "" },
		"too short a lease":   func(c *Config) { c.TTL = time.Millisecond },
		"too long a lease":    func(c *Config) { c.TTL = time.Hour },
		"no TLS off loopback": func(c *Config) { c.Advertise = "192.0.2.1:7000" },
	} {
		bad := good
		spoil(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
