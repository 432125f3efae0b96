package sharded_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
	"github.com/doorbuster/doorbuster/runtime/journal/sharded"
)

// cluster is two servers of which each test gets a pair of databases.
type cluster struct {
	servers [2]*pgtest.Server
	clock   *clockd.Clock
	made    int
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	for i := range c.servers {
		c.servers[i] = pgtest.Start(t)
	}
	var err error
	if c.clock, err = clockd.New(clockd.Config{}); err != nil {
		t.Fatal(err)
	}
	c.clock.Start()
	t.Cleanup(c.clock.Close)
	return c
}

// databases makes an empty journal on both servers.
func (c *cluster) databases(t *testing.T) (urls []string) {
	t.Helper()
	c.made++
	name := fmt.Sprintf("t%d", c.made)
	for _, server := range c.servers {
		server.Exec(t, "postgres", "CREATE DATABASE "+name)
		urls = append(urls, server.URL(name))
		if _, _, err := postgres.Migrate(t.Context(), server.URL(name)); err != nil {
			t.Fatal(err)
		}
	}
	return urls
}

func (c *cluster) tryOpen(t *testing.T, urls ...string) (*sharded.Store, error) {
	t.Helper()
	servers, err := postgres.OpenAll(t.Context(), postgres.Config{Clock: c.clock, Patience: time.Second}, urls)
	if err != nil {
		return nil, err
	}
	stores := make([]journal.Store, len(servers))
	for i := range servers {
		stores[i] = servers[i]
	}
	return sharded.New(stores, beside), nil
}

func (c *cluster) open(t *testing.T, urls ...string) *sharded.Store {
	t.Helper()
	s, err := c.tryOpen(t, urls...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOnTwoServers(t *testing.T) {
	c := newCluster(t)
	t.Run("conformance", func(t *testing.T) {
		journaltest.Run(t, func(t *testing.T) journaltest.Place {
			urls := c.databases(t)
			return func(t *testing.T) journal.Store { return c.open(t, urls...) }
		})
	})
	t.Run("another list", func(t *testing.T) { otherLists(t, c) })
	t.Run("watch", func(t *testing.T) { watchBoth(t, c) })
	t.Run("copy", func(t *testing.T) { copyBothWays(t, c) })
	t.Run("one is lost", func(t *testing.T) { loseOne(t, c) }) // the last one: it takes a server down
}

// A list of servers that is not the journal's is refused, before anything is looked for
// in the wrong place.
func otherLists(t *testing.T, c *cluster) {
	urls, others, used := c.databases(t), c.databases(t), c.databases(t)
	closeAll(t, c.open(t, urls...), c.open(t, others...), c.open(t, used[0]))
	for _, test := range []struct {
		name, want string
		urls       []string
	}{
		{"turned round", "number 2 of the 2 servers", []string{urls[1], urls[0]}},
		{"one missing", "number 1 of the 2 servers", urls[:1]},
		{"one too many", "number 1 of the 2 servers", append(slices.Clone(urls), c.databases(t)[0])},
		{"twice the same", "number 1 of the 2 servers", []string{urls[0], urls[0]}},
		{"another journal's", "server of another journal", []string{urls[0], others[1]}},
		{"a journal of one server", "number 1 of the 1 servers", used},
	} {
		s, err := c.tryOpen(t, test.urls...)
		if err == nil {
			closeAll(t, s)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	closeAll(t, c.open(t, urls...))
}

func closeAll(t *testing.T, stores ...*sharded.Store) {
	t.Helper()
	for _, s := range stores {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// New streams of all servers are told, and rows of the first one.
func watchBoth(t *testing.T, c *cluster) {
	urls := c.databases(t)
	a, b := c.open(t, urls...), c.open(t, urls...)
	changes := make(chan journal.Change, 64)
	var ended sync.WaitGroup
	ended.Go(func() { a.Watch(t.Context(), func(c journal.Change) { changes <- c }) })
	for range 2 { // one of each server
		if c := <-changes; !c.All {
			t.Errorf("first of all: %+v", c)
		}
	}
	want := make(map[journal.Change]bool)
	for i := range 8 {
		stream := fmt.Sprintf("deal-%d", i)
		if _, err := b.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		want[journal.Change{Stream: stream}] = true
	}
	if err := b.Tables().Apply(t.Context(), []journal.Mutation{{Table: "keys", Key: "k", Value: []byte{1}}}, true); err != nil {
		t.Fatal(err)
	}
	want[journal.Change{Table: "keys", Key: "k"}] = true
	late := time.After(10 * time.Second) // a second, and the rest is for a busy machine
	for len(want) > 0 {
		select {
		case c := <-changes:
			delete(want, c)
		case <-late:
			t.Fatalf("not told: %v", want)
		}
	}
	closeAll(t, a, b)
	ended.Wait()
}

// A journal moves to several servers and back, event by event.
func copyBothWays(t *testing.T, c *cluster) {
	from, to, back := journaltest.NewMemory(), c.open(t, c.databases(t)...), journaltest.NewMemory()
	defer closeAll(t, to)
	for i := range 20 {
		stream := fmt.Sprintf("deal-%d", i)
		if _, err := from.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		if err := from.Commit([]*journal.Write{journaltest.Append(stream, 1, 1, "a", "b")}); err != nil {
			t.Fatal(err)
		}
		if err := from.PutSnapshot(t.Context(), stream, 1, 1, []byte("state")); err != nil {
			t.Fatal(err)
		}
		rows := []journal.Mutation{{Table: "deals", Key: stream, Value: []byte{1}}, {Table: "rules", Key: stream, Value: []byte{2}}}
		if err := from.Tables().Apply(t.Context(), rows, true); err != nil {
			t.Fatal(err)
		}
	}
	want := journal.Copied{Streams: 20, Events: 40, Snapshots: 20, Rows: 40}
	for _, way := range [][2]journal.Store{{from, to}, {to, back}, {from, back}} {
		if got, err := journal.Copy(t.Context(), way[0], way[1], nil); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// While a server is away its deals are, and the others go on. What became of the writes
// that were under way is known once it is back.
func loseOne(t *testing.T, c *cluster) {
	s := c.open(t, c.databases(t)...)
	defer closeAll(t, s)
	committer, err := journal.NewCommitter(s, journal.Config{Fatal: func(err error) { t.Error("fatal: ", err) }})
	if err != nil {
		t.Fatal(err)
	}
	committer.Start()
	submit := func(stream string, epoch, seq uint64) (done chan error) {
		done = make(chan error, 1)
		w := journaltest.Append(stream, epoch, seq, "event")
		w.Done = journaltest.CompleterFunc(func(w *journal.Write) { done <- w.Err })
		committer.Submit(w)
		return done
	}
	var streams [2]string
	for i := 0; streams[0] == "" || streams[1] == ""; i++ {
		name := fmt.Sprintf("deal-%d", i)
		streams[s.Shard(name)] = name
	}
	for _, stream := range streams {
		if _, err := s.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		if err := <-submit(stream, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	c.servers[1].Kill(t)
	lost := submit(streams[1], 1, 2)
	seq := uint64(1)
	for len(lost) == 0 {
		seq++
		if err := <-submit(streams[0], 1, seq); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-lost; !errors.Is(err, journal.ErrFailed) {
		t.Errorf("a write to the lost server: %v", err)
	}
	if seq < 10 {
		t.Errorf("the other server had %d writes meanwhile", seq)
	}
	if err := <-submit(streams[1], 1, 2); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("the next one, before its stream was opened again: %v", err)
	}
	c.servers[1].Up(t)
	head, err := s.Open(t.Context(), streams[1])
	if err != nil || head.Epoch != 2 {
		t.Fatal(head, err)
	}
	if err := <-submit(streams[1], 2, head.Seq+1); err != nil {
		t.Error(err)
	}
	committer.Close()
}
