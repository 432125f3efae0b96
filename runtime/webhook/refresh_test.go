package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// newNode opens another hub over what b has, as on a second node. Topics with a name
// that begins with n are this hub's, all others b's; once moved is true, those are not.
func newNode(t *testing.T, b *bench) (n *bench, moved *atomic.Bool) {
	n, moved = &bench{t: t, tables: b.tables, clock: b.clock, source: b.source}, new(atomic.Bool)
	for _, one := range []*bench{b, n} {
		if one.hub != nil {
			one.hub.Close()
		}
		var err error
		one.hub, err = New(t.Context(), Config{
			Tables: b.tables, Clock: b.clock.Clock(), Logger: slog.New(slog.DiscardHandler), Loopback: true,
			Owns: func(_, topic string) bool { return (strings.HasPrefix(topic, "n") && !moved.Load()) == (one == n) },
		})
		must(t, err)
		one.hub.Start(b.source)
	}
	t.Cleanup(func() { n.hub.Close() })
	return n, moved
}

func (b *bench) refresh(key string) {
	b.t.Helper()
	must(b.t, b.hub.Refresh(b.t.Context(), key))
}

// both says that something happened, to a node that owns the topic and to one that does
// not.
func both(a, b *bench, topic, kind string) {
	a.happen(topic, kind)
	b.hub.Touch("acme", topic, 0)
}

func TestTwoNodes(t *testing.T) {
	for _, key := range []string{"acme\x00w", ""} {
		a, r := newBench(t), newReceiver(t)
		b, moved := newNode(t, a)
		a.put("w", r.URL, "order.placed")
		b.refresh(key)
		both(a, b, "a-topic", "order.placed")
		r.got("a-topic-1")
		both(a, b, "n-topic", "order.placed")
		r.got("a-topic-1", "n-topic-1")

		until(t, "its place", func() bool { // until then a new owner delivers again
			at, _, err := a.hub.place(t.Context(), &Hook{Merchant: "acme", ID: "w"}, "n-topic")
			return err == nil && at.Seq == 1
		})
		moved.Store(true)
		a.happen("n-topic", "order.placed") // told to nobody but the node that owned it
		a.hub.Rescan()
		r.got("a-topic-1", "n-topic-1", "n-topic-2")

		must(t, b.hub.Delete(t.Context(), "acme", "w"))
		a.refresh(key)
		if _, err := a.hub.Get("acme", "w"); !errors.Is(err, ErrNotFound) || a.hub.Stats().Hooks != 0 {
			t.Errorf("a hook that another node deleted: %v, %+v", err, a.hub.Stats())
		}
		a.refresh(key)
		a.put("w", r.URL, "order.placed")
		must(t, b.hub.Delete(t.Context(), "acme", "w")) // unseen
	}
}

// How deliveries go is known to all nodes, and one that gives up does so for all.
func TestDisabledOnTwoNodes(t *testing.T) {
	a, r := newBench(t), newReceiver(t)
	b, _ := newNode(t, a)
	a.put("w", r.URL, "order.placed", TypeDisabled)
	b.refresh("")
	other := newReceiver(t)
	a.put("other", other.URL, TypeDisabled)
	b.refresh("")
	r.answer(500)
	both(a, b, "a-topic", "order.placed")
	until(t, "a failure", func() bool { return a.hub.Stats().Failing == 1 })
	b.refresh("acme\x00w")
	if got := b.hub.Stats().Failing; got != 1 {
		t.Errorf("%d fail on the other node", got)
	}
	a.clock.Advance(disableIn)
	until(t, "the end", func() bool {
		a.clock.Advance(time.Minute)
		return a.hub.Stats().Disabled == 1
	})
	b.refresh("")
	r.answer(204)
	both(a, b, "n-topic", "order.placed")
	until(t, "the news of it", func() bool { return len(other.ids()) == 1 })
	if got := b.hub.Stats().Disabled; got != 1 || len(r.ids()) != 0 {
		t.Errorf("%d are disabled on the other node, which delivered %v", got, r.ids())
	}
	b.put("w", r.URL, "order.placed", TypeDisabled)
	a.refresh("")
	r.answer(204)
	until(t, "all that waited", func() bool { return len(r.ids()) >= 2 })
	if hook, err := a.hub.Get("acme", "w"); err != nil || hook.DisabledAt != 0 {
		t.Errorf("%+v, %v", hook, err)
	}
}

// Nodes that put the same hook at once agree in the end, and none changes its age.
func TestPutAtOnce(t *testing.T) {
	a, r := newBench(t), newReceiver(t)
	b, _ := newNode(t, a)
	var all sync.WaitGroup
	var created atomic.Int64
	for i, node := range []*bench{a, b} {
		all.Go(func() {
			for n := range 10 {
				url := fmt.Sprintf("%s/%d/%d", r.URL, i, n)
				made, err := node.hub.Put(t.Context(), Hook{Merchant: "acme", ID: "w", URL: url, Events: []string{"order.placed"}, Secret: secret})
				if err != nil {
					t.Error(err)
				}
				if made {
					created.Add(1)
				}
			}
		})
	}
	all.Wait()
	a.refresh("")
	b.refresh("")
	here, err1 := a.hub.Get("acme", "w")
	there, err2 := b.hub.Get("acme", "w")
	if errors.Join(err1, err2) != nil || !here.sameReceiver(&there) || here.CreatedAt == 0 || created.Load() != 1 {
		t.Errorf("%+v, %v and %+v, %v, created %d times", here, err1, there, err2, created.Load())
	}
}

// What nodes raise at once is delivered, each once and in one order.
func TestRaisedOnTwoNodes(t *testing.T) {
	const each = 20
	a, r := newBench(t), newReceiver(t)
	b, _ := newNode(t, a)
	a.put("w", r.URL, "rule.rolled_back")
	b.refresh("")
	var all sync.WaitGroup
	for _, node := range []*bench{a, b} {
		all.Go(func() {
			for range each {
				must(t, node.hub.Raise(t.Context(), "acme", "rule.rolled_back", 1))
				a.hub.Raised("acme") // as a notification says
			}
		})
	}
	all.Wait()
	until(t, "all of them", func() bool { return len(r.ids()) >= 2*each })
	if ids := slices.Compact(slices.Sorted(slices.Values(r.ids()))); len(ids) != 2*each || len(r.ids()) != 2*each {
		t.Errorf("%d events, %d of them different", len(r.ids()), len(ids))
	}
}
