package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
)

// server is for the tests that leave it as it was.
var server *pgtest.Server

func TestMain(m *testing.M) {
	var err error
	if server, err = pgtest.New(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	server.Close()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var databases atomic.Int64

// database makes an empty database with the schema and returns how to connect to it.
func database(t *testing.T, s *pgtest.Server, others ...*pgtest.Server) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	url := s.URL(name, others...)
	if _, _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

func open(t *testing.T, url string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newClock(t *testing.T) *clockd.Clock {
	t.Helper()
	c, err := clockd.New(clockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func TestStore(t *testing.T) {
	journaltest.Run(t, func(t *testing.T) journaltest.Place {
		url := database(t, server)
		return func(t *testing.T) journal.Store { return open(t, url) }
	})
}

func mustOpen(t *testing.T, s journal.Store, stream string) journal.Head {
	t.Helper()
	h, err := s.Open(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func commit(t *testing.T, s journal.Store, group ...*journal.Write) {
	t.Helper()
	if err := s.Commit(group); err != nil {
		t.Fatal(err)
	}
}

// events returns what a stream holds.
func events(t *testing.T, s journal.Store, stream string) (got []string) {
	t.Helper()
	err := s.Read(t.Context(), stream, 0, func(e journal.Event) error {
		got = append(got, fmt.Sprintf("%d/%d/%s", e.Seq, e.Epoch, e.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The fence works between processes: what this one believes of its streams is not asked.
func TestFenceBetweenNodes(t *testing.T) {
	url := database(t, server)
	a, b := open(t, url), open(t, url)
	defer closeAll(t, a, b)
	mustOpen(t, a, "moved")
	mustOpen(t, a, "kept")
	commit(t, a, journaltest.Append("moved", 1, 1, "a1"), journaltest.Append("kept", 1, 1, "k1"))
	if head := mustOpen(t, b, "moved"); head.Epoch != 2 || head.Seq != 1 {
		t.Fatalf("the new owner finds %+v", head)
	}
	zombie, kept := journaltest.Append("moved", 1, 2, "zombie"), journaltest.Append("kept", 1, 2, "k2")
	later := journaltest.Append("moved", 1, 3, "built on it")
	commit(t, a, zombie, kept, later)
	if !errors.Is(zombie.Err, journal.ErrFenced) || !errors.Is(later.Err, journal.ErrFenced) || kept.Err != nil {
		t.Fatalf("zombie %v, built on it %v, kept %v", zombie.Err, later.Err, kept.Err)
	}
	commit(t, b, journaltest.Append("moved", 2, 2, "b2"))
	if got, want := fmt.Sprint(events(t, a, "moved"), events(t, b, "kept")), "[1/1/a1 2/2/b2] [1/1/k1 2/1/k2]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if err := a.PutSnapshot(t.Context(), "moved", 1, 2, []byte("zombie's")); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("a snapshot of the old owner: %v", err)
	}
}

func closeAll(t *testing.T, stores ...*postgres.Store) {
	t.Helper()
	for _, s := range stores {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A stream whose owner changes all the time, while each owner writes as fast as it
// can: whatever was acknowledged is there, once, in the order of the epochs.
func TestTakeOverUnderLoad(t *testing.T) {
	url := database(t, server)
	const owners, each = 4, 40
	var wg sync.WaitGroup
	acked := make([][]string, owners)
	for o := range owners {
		s := open(t, url)
		wg.Go(func() {
			defer closeAll(t, s)
			for range each {
				head, err := s.Open(context.Background(), "deal")
				if err != nil {
					t.Error(err)
					return
				}
				for seq := head.Seq + 1; ; seq++ {
					event := fmt.Sprintf("%d of %d", seq, o)
					w := journaltest.Append("deal", head.Epoch, seq, event)
					if err := s.Commit([]*journal.Write{w}); err != nil {
						t.Error(err)
						return
					}
					if w.Err != nil {
						break
					}
					acked[o] = append(acked[o], fmt.Sprintf("%d/%d/%s", seq, head.Epoch, event))
					if seq > head.Seq+5 {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	s := open(t, url)
	defer closeAll(t, s)
	there, epoch := make(map[string]bool), uint64(0)
	err := s.Read(t.Context(), "deal", 0, func(e journal.Event) error {
		if e.Epoch < epoch {
			t.Errorf("event %d of epoch %d follows one of epoch %d", e.Seq, e.Epoch, epoch)
		}
		epoch = e.Epoch
		there[fmt.Sprintf("%d/%d/%s", e.Seq, e.Epoch, e.Data)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, list := range acked {
		for _, event := range list {
			if total++; !there[event] {
				t.Errorf("%s was acknowledged and is not there", event)
			}
		}
	}
	if total != len(there) || total == 0 {
		t.Errorf("%d acknowledged, %d there", total, len(there))
	}
}

// asleep waits until a statement of the database sleeps.
func asleep(t *testing.T, url string) {
	t.Helper()
	for server.Exec(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = '"+name(url)+"'") == "0" {
	}
}

// Whoever takes a stream over while its owner's append is under way waits for that, and
// goes on behind it.
func TestTakeOverDuringAnAppend(t *testing.T) {
	url := database(t, server)
	a, b := open(t, url), open(t, url)
	defer closeAll(t, a, b)
	mustOpen(t, a, "deal")
	server.Exec(t, name(url), `
		CREATE FUNCTION slow() RETURNS trigger AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$ LANGUAGE plpgsql;
		CREATE TRIGGER slow BEFORE INSERT ON doorbuster.events FOR EACH ROW WHEN (NEW.epoch = 1) EXECUTE FUNCTION slow()`)
	w := journaltest.Append("deal", 1, 1, "a1")
	var committed sync.WaitGroup
	committed.Go(func() {
		if err := a.Commit([]*journal.Write{w}); err != nil {
			t.Error(err)
		}
	})
	asleep(t, url)
	if head := mustOpen(t, b, "deal"); head.Epoch != 2 || head.Seq != 1 {
		t.Errorf("the new owner finds %+v", head)
	}
	if committed.Wait(); w.Err != nil {
		t.Error(w.Err)
	}
	commit(t, b, journaltest.Append("deal", 2, 2, "b2"))
	if got, want := fmt.Sprint(events(t, a, "deal")), "[1/1/a1 2/2/b2]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	owners, err := journal.ReadOwners(t.Context(), a, "deal")
	if err != nil || len(owners) != 2 || owners[1].First != 2 || owners[1].At.Sub(owners[0].At) < 300*time.Millisecond {
		t.Errorf("epoch 2 was opened behind event 1, and once that was written: %+v, %v", owners, err)
	}
}

// An append that meets a take-over under way waits for that, and is fenced, alone.
func TestAppendDuringATakeOver(t *testing.T) {
	url := database(t, server)
	a := open(t, url)
	defer closeAll(t, a)
	mustOpen(t, a, "deal")
	mustOpen(t, a, "other")
	var taken sync.WaitGroup
	taken.Go(func() {
		server.Exec(t, name(url), "BEGIN; UPDATE doorbuster.streams SET epoch = epoch + 1 WHERE stream = 'deal'; SELECT pg_sleep(0.3); COMMIT")
	})
	asleep(t, url)
	zombie, other := journaltest.Append("deal", 1, 1, "zombie"), journaltest.Append("other", 1, 1, "o1")
	commit(t, a, zombie, other)
	taken.Wait()
	if !errors.Is(zombie.Err, journal.ErrFenced) || other.Err != nil || len(events(t, a, "deal")) != 0 {
		t.Errorf("%v, %v, %v", zombie.Err, other.Err, events(t, a, "deal"))
	}
	owned := []journal.Ownership{{Stream: "deal", Epoch: 1}, {Stream: "other", Epoch: 1}}
	if moved, err := a.Superseded(t.Context(), nil, owned); err != nil || len(moved) != 1 || moved[0] != "deal" {
		t.Errorf("superseded: %q, %v", moved, err)
	}
}

// A take-over and the event that opens its epoch are one: who has it, since when, behind
// which event. A release from before there were such events leaves none, and is followed.
func TestOpenings(t *testing.T) {
	url := database(t, server)
	named := func(name string) *postgres.Store {
		s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b, nameless := named("node-a:7946"), named("node-b:7946"), open(t, url)
	defer closeAll(t, a, b, nameless)
	now := func() string {
		return server.Exec(t, "postgres", "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
	}
	begin := now()
	mustOpen(t, a, "deal")
	commit(t, a, journaltest.Append("deal", 1, 1, "a1", "a2"))
	server.Exec(t, name(url), "UPDATE doorbuster.streams SET epoch = epoch + 1")
	mustOpen(t, b, "deal")
	commit(t, b, journaltest.Append("deal", 3, 3, "b3"))
	mustOpen(t, nameless, "deal")
	owners, err := journal.ReadOwners(t.Context(), a, "deal")
	if err != nil || len(owners) != 3 {
		t.Fatalf("%+v, %v", owners, err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []journal.Opening{
		{Epoch: 1, First: 1, By: "node-a:7946"}, {Epoch: 3, First: 3, By: "node-b:7946"}, {Epoch: 4, First: 4, By: fmt.Sprintf("%s/%d", host, os.Getpid())},
	} {
		got := owners[i]
		if at := fmt.Sprint(got.At.UnixMicro()); at < begin || at > now() {
			t.Errorf("epoch %d was opened at %s, not after %s and by now", got.Epoch, at, begin)
		}
		if got.At = want.At; got != want {
			t.Errorf("opening %d is %+v, want %+v", i, got, want)
		}
	}
	if _, known, err := owners.Of(journal.Event{Seq: 3, Epoch: 2}); known || err == nil {
		t.Errorf("an event of epoch 2 behind the opening of epoch 3: %t, %v", known, err)
	}

	// Somebody removed the stream of an earlier deal of that name, and not its openings.
	server.Exec(t, name(url), "INSERT INTO doorbuster.epochs (stream, epoch, first, opened_by) SELECT 'again', n, 9, 'gone' FROM generate_series(1, 40) n")
	for range 20 { // as they are read now and then
		mustOpen(t, a, "again")
	}
	owners, err = journal.ReadOwners(t.Context(), a, "again")
	if err != nil || len(owners) != 16 || owners[0] != (journal.Opening{Epoch: 5, First: 1, By: "node-a:7946", At: owners[0].At}) || owners[15].Epoch != 20 {
		t.Errorf("%+v, %v", owners, err)
	}

	server.Exec(t, name(url), "ALTER TABLE doorbuster.epochs ADD CHECK (stream <> 'deal' OR epoch < 5)")
	if _, err := a.Open(t.Context(), "deal"); err == nil {
		t.Error("a stream was taken over without the event that says so")
	}
	commit(t, nameless, journaltest.Append("deal", 4, 4, "n4")) // its owner still is
	if got, want := fmt.Sprint(events(t, a, "deal")), "[1/1/a1 2/1/a2 3/3/b3 4/4/n4]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if _, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Name: strings.Repeat("n", journal.OwnerMax+1)}); err == nil {
		t.Error("a name that is too long passes")
	}
}

// There are as many openings as it takes: they are read page by page.
func TestManyOpenings(t *testing.T) {
	url := database(t, server)
	s := open(t, url)
	defer closeAll(t, s)
	mustOpen(t, s, "deal")
	server.Exec(t, name(url), `INSERT INTO doorbuster.epochs (stream, epoch, first, opened_by)
		SELECT 'deal', n, 1, 'node' FROM generate_series(2, 5000) AS n`)
	owners, err := journal.ReadOwners(t.Context(), s, "deal")
	if err != nil || len(owners) != 5000 || owners[4999].Epoch != 5000 {
		t.Errorf("%d owners, %v", len(owners), err)
	}
	server.Exec(t, name(url), "UPDATE doorbuster.epochs SET first = 2 WHERE epoch = 3000")
	if _, err := journal.ReadOwners(t.Context(), s, "deal"); !errors.Is(err, journal.ErrCorrupt) {
		t.Errorf("an epoch that was opened before a later one: %v", err)
	}
}

func TestDamage(t *testing.T) {
	for _, test := range []struct{ name, damage string }{
		{"changed", "UPDATE doorbuster.events SET frames = frames || '\\x00' WHERE stream = 'bad' AND first = 2"},
		{"missing in the middle", "DELETE FROM doorbuster.events WHERE stream = 'bad' AND first = 2"},
		{"missing at the end", "DELETE FROM doorbuster.events WHERE stream = 'bad' AND first = 3"},
		{"moved", "UPDATE doorbuster.events SET first = 20 WHERE stream = 'bad' AND first = 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := database(t, server)
			s := open(t, url)
			defer closeAll(t, s)
			for _, stream := range []string{"bad", "good"} {
				mustOpen(t, s, stream)
				for seq := range uint64(3) {
					commit(t, s, journaltest.Append(stream, 1, seq+1, "event"))
				}
			}
			server.Exec(t, name(url), test.damage)
			err := s.Read(t.Context(), "bad", 0, func(journal.Event) error { return nil })
			var corrupt *journal.CorruptError
			if !errors.As(err, &corrupt) || corrupt.Stream != "bad" || corrupt.Remedy == "" {
				t.Errorf("read: %v", err)
			}
			if got := events(t, s, "good"); len(got) != 3 {
				t.Errorf("the other stream: %v", got)
			}
			if s.Stats().Corrupt != 1 {
				t.Errorf("stats: %+v", s.Stats())
			}
		})
	}
}

// name returns the database that a URL leads to.
func name(url string) string {
	_, path, _ := strings.Cut(strings.TrimPrefix(url, "postgres://"), "/")
	name, _, _ := strings.Cut(path, "?")
	return name
}

// A group with a stream whose tail is not what its row says fences that one alone.
func TestTailThatMoved(t *testing.T) {
	url := database(t, server)
	s := open(t, url)
	defer closeAll(t, s)
	for _, stream := range []string{"a", "b", "c"} {
		mustOpen(t, s, stream)
	}
	server.Exec(t, name(url), `INSERT INTO doorbuster.events
		SELECT part, stream, 1, 1, 1, 0, '\x0178' FROM doorbuster.streams WHERE stream = 'b'`)
	group := []*journal.Write{
		journaltest.Append("c", 1, 1, "c1"), journaltest.Append("b", 1, 1, "b1"), journaltest.Append("a", 1, 1, "a1"),
	}
	commit(t, s, group...)
	if group[0].Err != nil || !errors.Is(group[1].Err, journal.ErrFenced) || group[2].Err != nil {
		t.Fatalf("c %v, b %v, a %v", group[0].Err, group[1].Err, group[2].Err)
	}
}

func TestFullDisk(t *testing.T) {
	url := database(t, server)
	s := open(t, url)
	defer closeAll(t, s)
	mustOpen(t, s, "deal")
	server.Exec(t, name(url), `
		CREATE FUNCTION full_disk() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$ LANGUAGE plpgsql;
		CREATE TRIGGER full_disk BEFORE INSERT ON doorbuster.events FOR EACH ROW EXECUTE FUNCTION full_disk();
		CREATE TRIGGER full_disk BEFORE INSERT ON doorbuster.rows FOR EACH ROW EXECUTE FUNCTION full_disk()`)
	w := journaltest.Append("deal", 1, 1, "refused")
	commit(t, s, w)
	row := []journal.Mutation{{Table: "t", Key: "k", Value: []byte("v")}}
	if err := s.Tables().Apply(t.Context(), row, true); !errors.Is(err, journal.ErrReadOnly) {
		t.Errorf("a row: %v", err)
	}
	if !errors.Is(w.Err, journal.ErrReadOnly) || !s.Stats().ReadOnly {
		t.Fatalf("%v, %+v", w.Err, s.Stats())
	}
	server.Exec(t, name(url), "DROP FUNCTION full_disk() CASCADE")
	w = journaltest.Append("deal", 1, 1, "accepted")
	commit(t, s, w)
	if w.Err != nil || s.Stats().ReadOnly {
		t.Fatalf("once there is room again: %v, %+v", w.Err, s.Stats())
	}
}

func TestServerIsChecked(t *testing.T) {
	for _, test := range []struct{ name, change, want string }{
		{"synchronous_commit", "ALTER DATABASE %s SET synchronous_commit = off", "synchronous_commit is off"},
		{"schema of tomorrow", "INSERT INTO doorbuster.migrations VALUES (99, 98); SELECT '%s'", "version 99"},
		{"no schema", "DROP SCHEMA doorbuster CASCADE; SELECT '%s'", "run doorbuster migrate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := database(t, server)
			server.Exec(t, name(url), fmt.Sprintf(test.change, name(url)))
			s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if s != nil {
				_ = s.Close()
			}
		})
	}
	t.Run("schema of tomorrow that today's nodes can use", func(t *testing.T) {
		url := database(t, server)
		server.Exec(t, name(url), "INSERT INTO doorbuster.migrations VALUES (98, 1)")
		closeAll(t, open(t, url))
	})
	t.Run("unreachable", func(t *testing.T) {
		_, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://127.0.0.1:1/none?connect_timeout=2", Clock: newClock(t)})
		if err == nil {
			t.Error("no error")
		}
	})
}

func TestMigrateAtOnce(t *testing.T) {
	server.Exec(t, "postgres", "CREATE DATABASE fresh")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, after, err := postgres.Migrate(t.Context(), server.URL("fresh")); err != nil || after != 4 {
				t.Errorf("version %d, %v", after, err)
			}
		})
	}
	wg.Wait()
}

// Streams of one month lie in one partition, which can be dropped as the page for
// operators says.
func TestPartitions(t *testing.T) {
	url := database(t, server)
	manual := clockd.NewManual(time.Date(2026, 11, 30, 23, 59, 0, 0, time.UTC).UnixMilli())
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: manual.Clock()})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	mustOpen(t, s, "old")
	commit(t, s, journaltest.Append("old", 1, 1, "november"))
	manual.Advance(time.Hour)
	mustOpen(t, s, "old")
	mustOpen(t, s, "new")
	commit(t, s, journaltest.Append("old", 2, 2, "still november's"), journaltest.Append("new", 1, 1, "december"))
	if got := server.Exec(t, name(url), "SELECT count(*) FROM doorbuster.events_202611"); got != "2" {
		t.Errorf("%s records in November's partition", got)
	}
	if got := server.Exec(t, name(url), "SELECT count(*) FROM doorbuster.events_202612"); got != "1" {
		t.Errorf("%s records in December's partition", got)
	}
	server.Exec(t, name(url), script(t, "## Dropping old deals"))
	if _, err := s.Head(t.Context(), "old"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("what was dropped is there: %v", err)
	}
	if got := server.Exec(t, name(url), "SELECT string_agg(DISTINCT convert_from(stream, 'UTF8'), ',') FROM doorbuster.epochs"); got != "new" {
		t.Errorf("epochs of %s are left", got)
	}
	if got := fmt.Sprint(events(t, s, "new")); got != "[1/1/december]" {
		t.Errorf("what was not dropped is %s", got)
	}
}

// A backup reads the events for hours, and a month may begin meanwhile, on all nodes at once.
func TestPartitionDuringABackup(t *testing.T) {
	url := database(t, server)
	nodes := make([]*postgres.Store, 4)
	for i := range nodes {
		nodes[i] = open(t, url)
	}
	defer closeAll(t, nodes...)
	backup, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = backup.Close(context.Background()) }()
	if _, err := backup.Exec(t.Context(), "BEGIN; LOCK TABLE doorbuster.events IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i, s := range nodes {
		all.Go(func() {
			stream := fmt.Sprint("deal", i)
			_, err := s.Open(t.Context(), stream)
			w := journaltest.Append(stream, 1, 1, "x")
			if err = errors.Join(err, s.Commit([]*journal.Write{w}), w.Err); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// script is the SQL that the page for operators has below a heading.
func script(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(page), "\n"+heading+"\n")
	below, _, _ = strings.Cut(below, "\n## ")
	_, sql, has := strings.Cut(below, "```sql\n")
	sql, _, ends := strings.Cut(sql, "```")
	if !found || !has || !ends {
		t.Fatalf("no SQL below %q", heading)
	}
	return sql
}

// Nodes with logins of their own act as the role that owns the tables, as the page for
// operators says, and may take each other's streams over. Others may not.
func TestRoles(t *testing.T) {
	database := fmt.Sprintf("t%d", databases.Add(1))
	server.Exec(t, "postgres", "CREATE DATABASE "+database)
	server.Exec(t, "postgres", strings.ReplaceAll(script(t, "## Roles"), "DATABASE shop", "DATABASE "+database)+"; CREATE ROLE guest LOGIN")
	t.Cleanup(func() {
		server.Exec(t, database, "DROP OWNED BY doorbuster CASCADE")
		server.Exec(t, "postgres", "DROP ROLE guest, node_1, node_2, doorbuster")
	})
	as := func(role string) string { return strings.Replace(server.URL(database), "postgres@", role+"@", 1) }
	if _, _, err := postgres.Migrate(t.Context(), as("node_1")); err != nil {
		t.Fatal(err)
	}
	a, b := open(t, as("node_1")), open(t, as("node_2"))
	defer closeAll(t, a, b)
	mustOpen(t, a, "deal")
	first := journaltest.Append("deal", 1, 1, "a1")
	commit(t, a, first)
	mustOpen(t, b, "deal")
	second := journaltest.Append("deal", 2, 2, "b2")
	if commit(t, b, second); first.Err != nil || second.Err != nil {
		t.Errorf("%v, %v", first.Err, second.Err)
	}
	if owners, err := journal.ReadOwners(t.Context(), a, "deal"); err != nil || len(owners) != 2 {
		t.Errorf("%+v, %v", owners, err)
	}
	if got := server.Exec(t, database, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'doorbuster'"); got != "doorbuster" {
		t.Errorf("tables of %q", got)
	}
	if s, err := postgres.Open(t.Context(), postgres.Config{URL: as("guest"), Clock: newClock(t)}); err == nil {
		closeAll(t, s)
		t.Error("a role without rights uses the journal")
	}
}

// A store that is to be ready has its connections before it needs them.
func TestReady(t *testing.T) {
	url := database(t, server)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Connections: 5, Ready: true})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	if got := server.Exec(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'doorbuster' AND datname = '"+name(url)+"'"); got != "6" {
		t.Errorf("%s connections", got)
	}
}

func TestExclusive(t *testing.T) {
	url := database(t, server)
	first, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	second, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Exclusive: true})
	if err == nil || !strings.Contains(err.Error(), "another node serves from this database: doorbuster at 127.0.0.1") {
		t.Errorf("a second node: %v", err)
	}
	if second != nil {
		closeAll(t, second)
	}
	shared, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t)})
	if !errors.Is(err, postgres.ErrInUse) {
		t.Errorf("one that would share it: %v", err)
	}
	if shared != nil {
		closeAll(t, shared)
	}
	server.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name(url)+"'")
	mustOpen(t, first, "deal")
	w := journaltest.Append("deal", 1, 1, "after the connection was lost")
	if commit(t, first, w); w.Err != nil {
		t.Error(w.Err)
	}
	closeAll(t, first)
	third, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, third)
}

func TestShared(t *testing.T) {
	url := database(t, server)
	a, b := open(t, url), open(t, url)
	closeAll(t, a)
	alone, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Exclusive: true})
	if !errors.Is(err, postgres.ErrInUse) {
		t.Errorf("one that wants it for itself: %v", err)
	}
	if alone != nil {
		closeAll(t, alone)
	}
	closeAll(t, b)
}

// A database is free once its user has closed it, though the server learns of that later.
func TestFreeOnceClosed(t *testing.T) {
	url := database(t, server)
	p := newProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	p.lingers.Store(true)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: p.through(url), Clock: newClock(t), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, s)
	next, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, next)
}

// Those who read may ask for more as they go, as many as there are at once, though
// they are more than the connections.
func TestReadersUseTheStore(t *testing.T) {
	const connections, readers = 2, 4
	s, err := postgres.Open(t.Context(), postgres.Config{URL: database(t, server), Clock: newClock(t), Connections: connections})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	mustOpen(t, s, "deal")
	const events = 100
	for seq := range uint64(events) {
		commit(t, s, journaltest.Append("deal", 1, seq+1, "event"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var reading atomic.Int64
	all := make(chan struct{})
	var ended sync.WaitGroup
	for range readers {
		ended.Go(func() {
			err := s.Read(ctx, "deal", 0, func(e journal.Event) error {
				if e.Seq == 1 {
					if reading.Add(1) == readers {
						close(all)
					}
					select {
					case <-all:
					case <-ctx.Done():
					}
				}
				data, err := s.Get(ctx, "deal", e.Seq, nil)
				if err == nil && string(data) != string(e.Data) {
					err = fmt.Errorf("event %d: %q, %q", e.Seq, data, e.Data)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	ended.Wait()
}

// A node that has nothing to commit has the database for itself all the same.
func TestExclusiveWhileIdle(t *testing.T) {
	url := database(t, server) + "&pool_max_conn_idle_time=50ms&pool_max_conn_lifetime=100ms&pool_health_check_period=20ms"
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	locked := func() string {
		return server.Exec(t, name(url), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	}
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if got := locked(); got != "1" {
			t.Fatalf("%s locks", got)
		}
	}
}
