package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	start  = int64(1_795_132_800_000)
	secret = "a secret of sixteen bytes"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// script is a source that a test writes. A topic ends by the clock when it has a mark.
type script struct {
	mu     sync.Mutex // guards topics and marks
	topics map[string][]Event
	marks  map[string]int64
}

func (s *script) add(topic, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics == nil {
		s.topics = make(map[string][]Event)
	}
	n := len(s.topics[topic]) + 1
	s.topics[topic] = append(s.topics[topic], Event{ID: fmt.Sprintf("%s-%d", topic, n), Type: kind, CreatedAt: TimeText(start), Data: json.RawMessage(`{}`)})
}

func (s *script) Topics(_ context.Context, _ string, fn func(string, Place, int64) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, events := range s.topics {
		if err := fn(topic, Place{Seq: uint64(len(events)), Mark: s.marks[topic]}, 0); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) Read(_ context.Context, topic string, at Place, types []string, fn func(Event, Place) error) (Place, error) {
	s.mu.Lock()
	events, mark := slices.Clone(s.topics[topic]), s.marks[topic]
	s.mu.Unlock()
	for at.Seq < uint64(len(events)) || at.Mark != mark {
		e, behind := Event{ID: topic + "-end", Type: "deal.ended", CreatedAt: TimeText(mark), Data: json.RawMessage(`{}`)}, Place{at.Seq, mark}
		if at.Seq < uint64(len(events)) {
			e, behind = events[at.Seq], Place{at.Seq + 1, at.Mark}
		}
		if slices.Contains(types, e.Type) {
			if err := fn(e, behind); err != nil {
				if errors.Is(err, ErrStop) {
					err = nil
				}
				return at, err
			}
		}
		at = behind
	}
	return at, nil
}

// receiver is a merchant's server. It answers status and keeps what it took.
type receiver struct {
	t *testing.T
	*httptest.Server
	mu     sync.Mutex // guards status, taken and tries
	status int
	taken  []Event
	tries  int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, status: 204}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tries++
		if r.status != 204 {
			w.Header().Set("Location", r.URL)
			w.WriteHeader(r.status)
			return
		}
		signed := req.Header.Get(HeaderSignature)
		seconds, _, _ := strings.Cut(strings.TrimPrefix(signed, "t="), ",")
		var at int64
		if _, err := fmt.Sscan(seconds, &at); err != nil || signed != Sign(secret, at, body) || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("signature %q, %v", signed, err)
		}
		var d delivery
		if err := json.Unmarshal(body, &d); err != nil || d.Webhook != req.Header.Get(HeaderWebhook) || len(d.Events) == 0 || len(d.Events) > batchMax {
			t.Errorf("%v in %s", err, body)
		}
		r.taken = append(r.taken, d.Events...)
		w.WriteHeader(204)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries
}

func (r *receiver) ids() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.taken {
		ids = append(ids, e.ID)
	}
	return ids
}

func (r *receiver) got(want ...string) {
	r.t.Helper()
	until(r.t, fmt.Sprintf("the events %v", want), func() bool { return len(r.ids()) >= len(want) })
	if got := r.ids(); !slices.Equal(got, want) {
		r.t.Fatalf("got %v, want %v", got, want)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 5000 {
		if is() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

// forgetful are tables that lose the rows of a table while they are told to.
type forgetful struct {
	journal.Tables
	mu   sync.Mutex // guards lose
	lose string
}

func (f *forgetful) Apply(ctx context.Context, rows []journal.Mutation, durable bool) error {
	f.mu.Lock()
	rows = slices.DeleteFunc(slices.Clone(rows), func(m journal.Mutation) bool { return m.Table == f.lose })
	f.mu.Unlock()
	return f.Tables.Apply(ctx, rows, durable)
}

func (f *forgetful) ApplyIf(ctx context.Context, expected []journal.Expectation, rows []journal.Mutation, durable bool) error {
	f.mu.Lock()
	rows = slices.DeleteFunc(slices.Clone(rows), func(m journal.Mutation) bool { return m.Table == f.lose })
	f.mu.Unlock()
	return f.Tables.ApplyIf(ctx, expected, rows, durable)
}

func (f *forgetful) losing(table string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lose = table
}

type bench struct {
	t      *testing.T
	tables *forgetful
	clock  *clockd.Manual
	source *script
	hub    *Hub
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, tables: &forgetful{Tables: journaltest.NewMemory().Tables()}, clock: clockd.NewManual(start), source: &script{}}
	b.open()
	t.Cleanup(func() { b.hub.Close() })
	return b
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	b.hub, err = New(b.t.Context(), Config{Tables: b.tables, Clock: b.clock.Clock(), Logger: slog.New(slog.DiscardHandler), Loopback: true})
	must(b.t, err)
	b.hub.Start(b.source)
}

func (b *bench) restart() {
	b.t.Helper()
	b.hub.Close()
	b.open()
}

func (b *bench) put(id, url string, events ...string) {
	b.t.Helper()
	_, err := b.hub.Put(b.t.Context(), Hook{Merchant: "acme", ID: id, URL: url, Events: events, Secret: secret})
	must(b.t, err)
}

func (b *bench) happen(topic, kind string) {
	b.source.add(topic, kind)
	b.hub.Touch("acme", topic, 0)
}

// A new webhook is told what happens from now on, in order, and only what it asked for.
func TestDelivery(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	b.source.add("d", "order.placed")
	b.put("w", r.URL, "order.placed", "deal.ended")
	b.happen("d", "order.placed")
	b.happen("d", "order.cancelled")
	b.happen("d", "deal.ended")
	r.got("d-2", "d-4")
	for range 3 * batchMax {
		b.source.add("e", "order.placed")
	}
	b.happen("e", "order.placed")
	want := []string{"d-2", "d-4"}
	for i := range 3*batchMax + 1 {
		want = append(want, fmt.Sprintf("e-%d", i+1))
	}
	r.got(want...)
	until(t, "the count of it", func() bool {
		st := b.hub.Stats()
		return st.Hooks == 1 && st.Delivered == uint64(len(want)) && st.Failing == 0 && st.Waiting == 0
	})
	b.restart()
	b.happen("d", "order.placed")
	r.got(append(want, "d-5")...)
}

// What happened while nobody delivered is delivered after the start, without a word
// from the source.
func TestNewsFromBeforeTheStart(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	b.put("w", r.URL, "order.placed")
	b.hub.Close()
	b.source.add("d", "order.placed")
	b.open()
	r.got("d-1")
}

// So is an end by the clock, which is no event of the topic.
func TestEndFromBeforeTheStart(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	b.put("w", r.URL, "order.placed", "deal.ended")
	b.happen("d", "order.placed")
	r.got("d-1")
	b.hub.Close()
	b.source.marks = map[string]int64{"d": start}
	b.open()
	r.got("d-1", "d-end")
	b.restart()
	b.happen("d", "order.placed")
	r.got("d-1", "d-end", "d-2")
}

// A crash between a delivery and the place that covers it delivers again, with the
// same ids.
func TestCrashAfterDelivery(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	b.put("w", r.URL, "order.placed")
	b.tables.losing(tablePlaces)
	b.happen("d", "order.placed")
	until(t, "the delivery", func() bool { return len(r.ids()) > 0 })
	b.hub.Close()
	before := len(r.ids())
	b.tables.losing("")
	b.open()
	until(t, "the second delivery", func() bool { return len(r.ids()) > before })
	until(t, "its place", func() bool {
		at, _, err := b.hub.place(t.Context(), &Hook{Merchant: "acme", ID: "w"}, "d")
		return err == nil && at.Seq == 1
	})
	b.happen("d", "order.placed")
	until(t, "the next event", func() bool { return r.ids()[len(r.ids())-1] == "d-2" })
	if seen := slices.Compact(r.ids()); !slices.Equal(seen, []string{"d-1", "d-2"}) {
		t.Errorf("%v", seen)
	}
}

// A receiver that fails is tried again, later and later, and misses nothing.
func TestRetry(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	b.put("w", r.URL, "order.placed")
	r.answer(500)
	b.happen("d", "order.placed")
	for i := range 4 {
		until(t, "a try", func() bool { return r.tried() == i+1 && b.hub.Stats().Failing == 1 })
		b.clock.AwaitTimers(2)
		if wait := retryFirst << i; wait > retryFirst {
			b.clock.Advance(wait/2 - time.Millisecond)
			if r.tried() != i+1 {
				t.Fatalf("tried again before half of %v", wait)
			}
			b.clock.Advance(wait/2 + time.Millisecond)
		} else {
			b.clock.Advance(wait)
		}
	}
	hook, err := b.hub.Get("acme", "w")
	if err != nil || hook.LastError != "the receiver answered 500" || hook.FailingSince == 0 {
		t.Errorf("%+v, %v", hook, err)
	}
	r.answer(302) // is followed nowhere
	until(t, "a try", func() bool { return r.tried() >= 5 })
	r.answer(204)
	b.happen("d", "order.placed")
	until(t, "the delivery", func() bool { b.clock.Advance(time.Second); return len(r.ids()) == 2 })
	r.got("d-1", "d-2")
	until(t, "the end of the failure", func() bool { return b.hub.Stats().Failing == 0 })
}

// A receiver that fails for days is given up, and the merchant's others are told.
func TestDisabled(t *testing.T) {
	b, r, other := newBench(t), newReceiver(t), newReceiver(t)
	b.put("w", r.URL, "order.placed")
	b.put("o", other.URL, TypeDisabled)
	r.answer(500)
	b.happen("d", "order.placed")
	until(t, "the end", func() bool { b.clock.Advance(time.Hour); return b.hub.Stats().Disabled == 1 })
	until(t, "the news of it", func() bool { return len(other.ids()) == 1 })
	hook, err := b.hub.Get("acme", "w")
	if err != nil || hook.DisabledAt-hook.FailingSince < disableIn.Milliseconds() {
		t.Errorf("%+v, %v", hook, err)
	}
	tried := r.tried()
	b.restart()
	b.happen("d", "order.placed")
	b.happen("e", "order.placed")
	b.clock.Advance(time.Hour)
	if r.tried() != tried {
		t.Error("a disabled webhook is tried")
	}
	r.answer(204)
	b.put("w", r.URL, "order.placed")
	until(t, "all that it missed", func() bool { return len(r.ids()) == 3 })
}

func TestRaise(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	must(t, b.hub.Raise(t.Context(), "acme", "rule.rolled_back", 1)) // to nobody
	b.put("w", r.URL, "rule.switched_off")
	must(t, b.hub.Raise(t.Context(), "acme", "rule.rolled_back", 2))
	must(t, b.hub.Raise(t.Context(), "acme", "rule.switched_off", map[string]string{"rule_id": "tiered"}))
	until(t, "the event", func() bool { return len(r.ids()) == 1 })
	if e := r.taken[0]; e.Type != "rule.switched_off" || string(e.Data) != `{"rule_id":"tiered"}` || e.CreatedAt != "2026-11-20T00:00:00.000Z" {
		t.Errorf("%+v", e)
	}
	b.restart()
	must(t, b.hub.Raise(t.Context(), "acme", "rule.switched_off", nil))
	until(t, "the next", func() bool { return len(slices.Compact(r.ids())) == 2 })

	r.answer(500)
	for range raisedMax + 5 {
		must(t, b.hub.Raise(t.Context(), "acme", "rule.switched_off", nil))
	}
	if st := b.hub.Stats(); st.Dropped < 5 {
		t.Errorf("%+v", st)
	}
	rows := 0
	must(t, b.tables.Scan(t.Context(), TableRaised, "", "", func(string, []byte) error { rows++; return nil }))
	if rows != raisedMax {
		t.Errorf("%d rows", rows)
	}
}

// A topic is looked at when it is due, though nothing happened.
func TestDue(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	b.put("w", r.URL, "deal.ended")
	b.hub.Touch("acme", "d", start+60_000)
	until(t, "the look at d", func() bool { return b.hub.Stats().Waiting == 0 })
	b.source.add("d", "deal.ended")
	b.clock.Advance(time.Minute + 2*dueEvery)
	r.got("d-1")
}

func TestPutAndDelete(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	b.put("w", r.URL, "order.placed")
	b.happen("d", "order.placed")
	r.got("d-1")
	created, err := b.hub.Put(t.Context(), Hook{Merchant: "acme", ID: "w", URL: r.URL, Events: []string{"deal.ended"}, Secret: secret})
	if hook, _ := b.hub.Get("acme", "w"); err != nil || created || hook.CreatedAt != start || hook.Events[0] != "deal.ended" {
		t.Errorf("%v %v %+v", created, err, hook)
	}
	must(t, b.hub.Delete(t.Context(), "acme", "w"))
	if _, err := b.hub.Get("acme", "w"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := b.hub.Delete(t.Context(), "acme", "w"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, table := range []string{TableHooks, tablePlaces} {
		must(t, b.tables.Scan(t.Context(), table, "", "", func(key string, _ []byte) error {
			t.Errorf("%s still has %q", table, key)
			return nil
		}))
	}
	for i := range PerMerchant {
		b.put(fmt.Sprint(i), r.URL, "order.placed")
	}
	if _, err := b.hub.Put(t.Context(), Hook{Merchant: "acme", ID: "more", URL: r.URL, Events: []string{"order.placed"}, Secret: secret}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
}

// lateTables hold up the rows that say that a webhook fails.
type lateTables struct {
	journal.Tables
	held, let chan struct{}
}

func (l *lateTables) ApplyIf(ctx context.Context, expected []journal.Expectation, rows []journal.Mutation, durable bool) error {
	if len(rows) > 0 && rows[0].Table == TableHooks && strings.Contains(string(rows[0].Value), "failing_since") {
		l.held <- struct{}{}
		<-l.let
	}
	return l.Tables.ApplyIf(ctx, expected, rows, durable)
}

// What is written of a webhook's failure must not undo that it was replaced or
// deleted meanwhile.
func TestChangeDuringAFailure(t *testing.T) {
	b, r := newBench(t), newReceiver(t)
	late := &lateTables{Tables: b.tables.Tables, held: make(chan struct{}), let: make(chan struct{})}
	b.tables.Tables = late // nobody uses them yet
	next := Hook{Merchant: "acme", ID: "w", URL: r.URL + "/next", Events: []string{"order.placed"}, Secret: secret}
	for name, change := range map[string]func() error{
		"Put": func() error {
			_, err := b.hub.Put(t.Context(), next)
			return err
		},
		"Delete": func() error { return b.hub.Delete(t.Context(), "acme", "w") },
	} {
		b.put("w", r.URL, "order.placed")
		r.answer(500)
		b.happen("d", "order.placed")
		<-late.held
		r.answer(204)
		changed := make(chan error, 1)
		go func() { changed <- change() }()
		select { // it waits for the row, or is done before it
		case err := <-changed:
			changed <- err
		case <-time.After(50 * time.Millisecond):
		}
		late.let <- struct{}{}
		must(t, <-changed)
		b.restart()
		if hook, err := b.hub.Get("acme", "w"); name == "Put" && hook.URL != next.URL || name == "Delete" && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s, and after a restart: %+v, %v", name, hook, err)
		}
	}
}

func TestHookIsValidated(t *testing.T) {
	good := Hook{URL: "https://shop.example/hook?x=1", Events: []string{"order.placed"}, Secret: secret}
	must(t, good.validate(false))
	for field, spoil := range map[string]func(*Hook){
		"url":       func(h *Hook) { h.URL = "http://shop.example/" },
		"url ":      func(h *Hook) { h.URL = "http://127.0.0.1/" },
		"url  ":     func(h *Hook) { h.URL = "https://user:word@shop.example/" },
		"url   ":    func(h *Hook) { h.URL = "https://" + strings.Repeat("x", urlMax) },
		"events":    func(h *Hook) { h.Events = nil },
		"events[0]": func(h *Hook) { h.Events = []string{"order.paid"} },
		"events[1]": func(h *Hook) { h.Events = []string{"order.placed", "order.placed"} },
		"secret":    func(h *Hook) { h.Secret = "short" },
	} {
		bad := good
		spoil(&bad)
		var fault *FieldError
		if err := bad.validate(false); !errors.As(err, &fault) || fault.Field != strings.TrimSpace(field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, url := range []string{"http://127.0.0.1:1/", "http://localhost/", "http://[::1]/"} {
		local := good
		if local.URL = url; local.validate(true) != nil {
			t.Errorf("%s is refused on loopback", url)
		}
	}
}

// What a merchant names must not lead into our own network.
func TestPrivateAddresses(t *testing.T) {
	s := newSender([]netip.Prefix{netip.MustParsePrefix("10.7.0.0/16")}, false)
	for text, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "10.7.1.2": true,
		"10.8.1.2": false, "127.0.0.1": false, "::1": false, "192.168.1.1": false, "172.16.0.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "::": false, "224.0.0.1": false, "255.255.255.255": false, "fd00::1": false, "fe80::1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false, "::ffff:10.8.0.1": false, "::ffff:127.0.0.1": false,
		"::127.0.0.1": false, "64:ff9b::a00:1%lo": false, "fec0::1%1": false,
	} {
		err := s.control("tcp", netip.AddrPortFrom(netip.MustParseAddr(text), 443).String(), nil)
		if (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	r := newReceiver(t)
	err := s.send(t.Context(), &Hook{URL: r.URL, Secret: secret}, start, []byte("{}"))
	if !errors.Is(err, errPrivate) || r.tried() != 0 {
		t.Errorf("%v after %d tries", err, r.tried())
	}
	// Nor tell what is in it.
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for url, want := range map[string]string{
		r.URL:                    errPrivate.Error(),
		gone.URL:                 "connect: connection refused",
		"https://host.invalid./": "the name of the host cannot be resolved",
	} {
		err := newSender(nil, url == gone.URL).send(t.Context(), &Hook{URL: url, Secret: secret}, start, []byte("{}"))
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}

func TestTouchCostsNothingWithoutWebhooks(t *testing.T) {
	b := newBench(t)
	if n := testing.AllocsPerRun(100, func() { b.hub.Touch("acme", "d", 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
