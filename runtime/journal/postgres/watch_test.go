package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
)

// watcher collects what a Watch tells.
type watcher struct {
	changes chan journal.Change
}

// watch watches s until the test ends, and has seen all that was there.
func watch(t *testing.T, s *postgres.Store) *watcher {
	t.Helper()
	w := &watcher{changes: make(chan journal.Change, 1024)}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { s.Watch(ctx, func(c journal.Change) { w.changes <- c }) })
	t.Cleanup(func() { cancel(); ended.Wait() })
	w.want(t, journal.Change{All: true})
	return w
}

// want waits until a change is told, and skips others.
func (w *watcher) want(t *testing.T, want journal.Change) {
	t.Helper()
	late := time.After(soon)
	for {
		select {
		case c := <-w.changes:
			if c == want {
				return
			}
		case <-late:
			t.Fatalf("%+v was not told within %v", want, soon)
		}
	}
}

// set writes a row through a store.
func set(t *testing.T, s journal.Store, table, key, value string) {
	t.Helper()
	m := journal.Mutation{Table: table, Key: key}
	if value != "" {
		m.Value = []byte(value)
	}
	if err := s.Tables().Apply(t.Context(), []journal.Mutation{m}, true); err != nil {
		t.Fatal(err)
	}
}

// soon is when a change must be known: a second, and the rest is for a busy machine.
const soon = 10 * time.Second

func TestWatch(t *testing.T) {
	url := database(t, server)
	a, b := open(t, url), open(t, url)
	t.Cleanup(func() { closeAll(t, a, b) })
	mustOpen(t, a, "before")
	ofA, ofB := watch(t, a), watch(t, b)
	both := func(want journal.Change) {
		t.Helper()
		ofA.want(t, want)
		ofB.want(t, want)
	}

	mustOpen(t, a, "new")
	both(journal.Change{Stream: "new"})
	set(t, b, "rule_rollout", "acme/sale", "1")
	both(journal.Change{Table: "rule_rollout", Key: "acme/sale"})
	set(t, a, "keys", "k1", "v")
	both(journal.Change{Table: "keys", Key: "k1"})
	set(t, a, "keys", "k1", "")
	both(journal.Change{Table: "keys", Key: "k1"})
	set(t, a, "webhook_raised", "acme\x00\x01", "event")
	both(journal.Change{Table: "webhook_raised", Key: "acme"})

	// What an order does is told to nobody: all that is behind it has been seen when
	// the next change is.
	mustOpen(t, b, "new")
	commit(t, b, journaltest.Append("new", 2, 1, "order"))
	if err := b.PutSnapshot(t.Context(), "new", 2, 1, []byte("state")); err != nil {
		t.Fatal(err)
	}
	set(t, b, "deals", "new", "row")
	set(t, b, "orders_by_user", "u", "row")
	last := journal.Change{Table: "keys", Key: "last"}
	set(t, b, "keys", "last", "v")
	for {
		c := <-ofA.changes
		if c == last {
			break
		}
		t.Errorf("told of %+v", c)
	}
}

// Without its notifications, and whatever breaks, a watch tells the same.
func TestWatchWithoutNotifications(t *testing.T) {
	url := database(t, server)
	a, b := open(t, url), open(t, url)
	t.Cleanup(func() { closeAll(t, a, b) })
	w := watch(t, a)
	const listeners = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'LISTEN doorbuster' AND datname = '%s'"
	for i := range 5 {
		for server.Exec(t, "postgres", fmt.Sprintf(listeners, name(url))) != "1" { // it comes back each time
		}
		stream := fmt.Sprintf("new-%d", i)
		mustOpen(t, b, stream)
		w.want(t, journal.Change{Stream: stream})
	}
	server.Exec(t, name(url), "DROP FUNCTION doorbuster.notify() CASCADE")
	mustOpen(t, b, "silent")
	w.want(t, journal.Change{Stream: "silent"})
}

// A change that commits late is told, though later ones were told before.
func TestWatchSeesTheSlow(t *testing.T) {
	url := database(t, server)
	a := open(t, url)
	t.Cleanup(func() { closeAll(t, a) })
	w := watch(t, a)
	slow := make(chan struct{})
	go func() {
		defer close(slow)
		server.Exec(t, name(url), "BEGIN; INSERT INTO doorbuster.rows VALUES ('keys', 'slow', ''); SELECT pg_sleep(1.5); COMMIT")
	}()
	for server.Exec(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND wait_event = 'PgSleep'") != "1" {
	}
	set(t, a, "keys", "quick", "v")
	w.want(t, journal.Change{Table: "keys", Key: "quick"})
	<-slow
	w.want(t, journal.Change{Table: "keys", Key: "slow"})
	set(t, a, "keys", "last", "v")
	for {
		c := <-w.changes
		if c.Key == "last" {
			break
		}
		t.Errorf("told again of %+v", c)
	}
}

// A new stream is told of at once. One that is taken over is not: those who notify commit
// one after the other.
func TestTakeOverIsQuiet(t *testing.T) {
	url := database(t, server)
	s := open(t, url)
	defer closeAll(t, s)
	ear, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ear.Close(context.Background()) }()
	if _, err := ear.Exec(t.Context(), "LISTEN doorbuster"); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, s, "a")
	mustOpen(t, s, "a")
	server.Exec(t, name(url), "SELECT pg_notify('doorbuster', 'end')")
	for _, want := range []string{"", "end"} {
		said, err := ear.WaitForNotification(t.Context())
		if err != nil || said.Payload != want {
			t.Fatalf("%+v, %v, want %q", said, err, want)
		}
	}
}
