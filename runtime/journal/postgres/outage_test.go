package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres/pgtest"
)

// proxy stands between a Store and its server and can cut every connection, either
// before what the client sends next arrives or before it is answered.
type proxy struct {
	listener net.Listener
	target   string
	deaf     atomic.Bool  // what the server says is swallowed
	lingers  atomic.Bool  // the server does not hear that a client has gone
	hushes   atomic.Int32 // at which questions a connection falls silent
	silent   atomic.Int32 // connections that have
	mu       sync.Mutex
	open     map[net.Conn]struct{}
	wait     sync.WaitGroup
}

// Which questions a connection that falls silent was asked last.
const (
	hushesNone  int32 = iota
	hushesFirst       // the first one, which is about the server's settings
	hushesLater
)

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, open: make(map[net.Conn]struct{})}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.wait.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.open[client], p.open[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		hushed := new(atomic.Bool)
		p.wait.Go(func() { p.pipe(server, client, func(said []byte) bool { return p.listen(said, hushed) }) })
		p.wait.Go(func() {
			p.pipe(client, server, func(said []byte) bool { return said != nil && (p.deaf.Load() || hushed.Load()) })
		})
	}
}

const (
	terminate = 'X' // begins the last message of a client
	parse     = 'P' // begins a question
	bind      = 'B' // begins one that was asked before
)

// listen notes that a client has asked what makes this connection fall silent, and says
// whether the server shall not hear it: nil is the end.
func (p *proxy) listen(said []byte, hushed *atomic.Bool) bool {
	if said == nil || said[0] == terminate {
		return p.lingers.Load()
	}
	at := hushesLater
	if bytes.Contains(said, []byte("synchronous_commit")) {
		at = hushesFirst
	}
	if (said[0] == parse || said[0] == bind) && p.hushes.Load() == at && !hushed.Swap(true) {
		p.silent.Add(1)
	}
	return false
}

// pipe is one direction: what swallow accepts is lost.
func (p *proxy) pipe(to, from net.Conn, swallow func(said []byte) bool) {
	defer func() {
		if !swallow(nil) {
			_, _ = to.Close(), from.Close()
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !swallow(buf[:n]) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
	clear(p.open)
}

// through returns url by way of the proxy.
func (p *proxy) through(url string) string {
	return strings.Replace(url, p.target, p.listener.Addr().String(), 1)
}

// A connection that is lost between the server's commit and its answer: the group is
// there, and the second try must find it, not write it again or call it fenced.
func TestLostAnswer(t *testing.T) {
	url := database(t, server)
	p := newProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	s := open(t, p.through(url))
	direct := open(t, url)
	defer closeAll(t, s, direct)
	mustOpen(t, s, "a")
	mustOpen(t, s, "stolen")
	commit(t, s, journaltest.Append("a", 1, 1, "a1"), journaltest.Append("stolen", 1, 1, "s1"))
	mustOpen(t, direct, "stolen")

	p.deaf.Store(true)
	group := []*journal.Write{journaltest.Append("a", 1, 2, "a2"), journaltest.Append("stolen", 1, 2, "zombie")}
	done := make(chan error, 1)
	go func() { done <- s.Commit(group) }()
	for len(events(t, direct, "a")) < 2 {
		time.Sleep(time.Millisecond)
	}
	p.deaf.Store(false)
	p.cut()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if group[0].Err != nil || group[1].Err == nil {
		t.Fatalf("the one that had landed: %v; the fenced one: %v", group[0].Err, group[1].Err)
	}
	commit(t, s, journaltest.Append("a", 1, 3, "a3"))
	if got, want := fmt.Sprint(events(t, direct, "a")), "[1/1/a1 2/1/a2 3/1/a3]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

// A try that is cut off while it waits for the standby is on the primary, and nowhere
// else: to find it there is no reason to acknowledge it. Nor is the server's word that it
// has committed, which it gives when only the wait was cancelled.
func TestLandedWithoutTheStandby(t *testing.T) {
	for _, cut := range []string{"pg_terminate_backend", "pg_cancel_backend"} {
		t.Run(cut, func(t *testing.T) { testLandedWithoutTheStandby(t, cut) })
	}
}

func testLandedWithoutTheStandby(t *testing.T, cut string) {
	server := pgtest.Start(t)
	s := open(t, database(t, server))
	defer closeAll(t, s)
	mustOpen(t, s, "a")
	w := journaltest.Append("a", 1, 1, "a1")
	withoutTheStandby(t, server, cut, func() error {
		return errors.Join(s.Commit([]*journal.Write{w}), w.Err)
	}, func() bool { return len(events(t, s, "a")) > 0 })
}

// A row is acknowledged no sooner than an order: a key that was revoked must not be good
// again after a fail-over.
func TestRowWithoutTheStandby(t *testing.T) {
	server := pgtest.Start(t)
	s := open(t, database(t, server))
	defer closeAll(t, s)
	row := []journal.Mutation{{Table: "t", Key: "k", Value: []byte("v")}}
	withoutTheStandby(t, server, "pg_cancel_backend", func() error {
		return s.Tables().ApplyIf(t.Context(), []journal.Expectation{{Table: "t", Key: "k"}}, row, true)
	}, func() bool {
		_, err := s.Tables().Get(t.Context(), "t", "k")
		return err == nil
	})
}

// withoutTheStandby cuts off what waits for a standby that is lost, and expects that it
// waits on once it shows on the primary, until the standby is not needed.
func withoutTheStandby(t *testing.T, server *pgtest.Server, cut string, commit func() error, shows func() bool) {
	t.Helper()
	waiting := func() string {
		return server.Exec(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	}
	server.Exec(t, "postgres", "ALTER SYSTEM SET synchronous_standby_names = 'lost'")
	server.Exec(t, "postgres", "SELECT pg_reload_conf()")
	for server.Exec(t, "postgres", "SHOW synchronous_standby_names") != "lost" {
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() { done <- commit() }()
	for waiting() != "1" {
		time.Sleep(time.Millisecond)
	}
	server.Exec(t, "postgres", "SELECT "+cut+"(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	for !shows() {
		time.Sleep(time.Millisecond)
	}
	for waiting() != "1" {
		select {
		case err := <-done:
			t.Fatalf("acknowledged without the standby: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	server.Exec(t, "postgres", "ALTER SYSTEM RESET synchronous_standby_names")
	server.Exec(t, "postgres", "SELECT pg_reload_conf()")
	if err := <-done; err != nil {
		t.Errorf("once it is not needed: %v", err)
	}
}

// A disk that fills up between a lost answer and the second try refuses nothing: the
// first may have landed.
func TestFullDiskAfterALostAnswer(t *testing.T) {
	url := database(t, server)
	p := newProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	s := open(t, p.through(url))
	direct := open(t, url)
	defer closeAll(t, s, direct)
	mustOpen(t, s, "a")
	commit(t, s, journaltest.Append("a", 1, 1, "a1"))
	p.deaf.Store(true)
	w, done := journaltest.Append("a", 1, 2, "a2"), make(chan error, 1)
	go func() { done <- s.Commit([]*journal.Write{w}) }()
	for len(events(t, direct, "a")) < 2 {
		time.Sleep(time.Millisecond)
	}
	server.Exec(t, name(url), `
		CREATE SEQUENCE refusals;
		CREATE FUNCTION full_disk() RETURNS trigger AS $$ BEGIN PERFORM nextval('refusals'); RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$ LANGUAGE plpgsql;
		CREATE TRIGGER full_disk BEFORE UPDATE ON doorbuster.streams FOR EACH ROW EXECUTE FUNCTION full_disk()`)
	p.deaf.Store(false)
	p.cut()
	for server.Exec(t, name(url), "SELECT is_called FROM refusals") != "t" {
		time.Sleep(time.Millisecond)
	}
	server.Exec(t, name(url), "DROP FUNCTION full_disk() CASCADE")
	if err := <-done; err != nil || w.Err != nil {
		t.Errorf("%v, %v", err, w.Err)
	}
}

// After a fail-over too the server must keep what it acknowledges.
func TestNewServerIsChecked(t *testing.T) {
	url := database(t, server)
	s, err := postgres.Open(t.Context(), postgres.Config{
		URL: url, Clock: newClock(t), Patience: 300 * time.Millisecond, RetryEvery: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	mustOpen(t, s, "a")
	server.Exec(t, "postgres", "ALTER DATABASE "+name(url)+" SET synchronous_commit = off")
	server.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name(url)+"'")
	err = s.Commit([]*journal.Write{journaltest.Append("a", 1, 1, "a1")})
	if err == nil || !strings.Contains(err.Error(), "synchronous_commit is off") {
		t.Errorf("%v", err)
	}
}

// A host that answers nothing, as a machine without power, does not keep the node from
// the next one of its URL.
func TestSilentHost(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	url := strings.Replace(database(t, server), "127.0.0.1:", silent.Addr().String()+",127.0.0.1:", 1)
	url, _, _ = strings.Cut(url, "&connect_timeout")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := postgres.Open(ctx, postgres.Config{URL: url, Clock: newClock(t)})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, s)
}

// A connection that answers no more is given up before it is used.
func TestSilentConnection(t *testing.T) {
	p := newProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	s := open(t, p.through(database(t, server)))
	defer closeAll(t, s)
	mustOpen(t, s, "a")
	p.deaf.Store(true)
	got := make(chan error, 1)
	go func() {
		_, err := s.Get(context.Background(), "a", 1, nil)
		got <- err
	}()
	time.Sleep(200 * time.Millisecond) // for the question to be asked: its answer is lost
	p.deaf.Store(false)
	select {
	case err := <-got:
		if !errors.Is(err, journal.ErrNotFound) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		p.cut()
		t.Error("waits for an answer that will not come")
	}
}

// A server that takes questions and answers none keeps nobody for longer than
// AnswerWithin and its multiple, whatever is asked.
func TestSilentServer(t *testing.T) {
	url := database(t, server)
	p := newProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	s, err := postgres.Open(t.Context(), postgres.Config{
		URL: p.through(url), Clock: newClock(t), AnswerWithin: 3 * time.Second, Connections: 32,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	mustOpen(t, s, "a")
	commit(t, s, journaltest.Append("a", 1, 1, "a1"))
	row := []journal.Mutation{{Table: "t", Key: "k", Value: []byte("v")}}
	ctx, none := context.Background(), func(string, []byte) error { return nil }
	questions := map[string]func() error{
		"Open":        func() error { _, err := s.Open(ctx, "b"); return err },
		"Head":        func() error { _, err := s.Head(ctx, "a"); return err },
		"Superseded":  func() error { _, err := s.Superseded(ctx, nil, nil); return err },
		"Read":        func() error { return s.Read(ctx, "a", 0, func(journal.Event) error { return nil }) },
		"Get":         func() error { _, err := s.Get(ctx, "a", 1, nil); return err },
		"Snapshot":    func() error { _, _, err := s.Snapshot(ctx, "a"); return err },
		"PutSnapshot": func() error { return s.PutSnapshot(ctx, "a", 1, 1, []byte("state")) },
		"Streams":     func() error { return s.Streams(ctx, "", func(string, journal.Head) error { return nil }) },
		"Tables.Get":  func() error { _, err := s.Tables().Get(ctx, "t", "k"); return err },
		"Scan":        func() error { return s.Tables().Scan(ctx, "t", "", "", none) },
		"Names":       func() error { _, err := s.Tables().Names(ctx); return err },
		"Apply":       func() error { return s.Tables().Apply(ctx, row, true) },
		"ApplyIf":     func() error { return s.Tables().ApplyIf(ctx, nil, row, false) },
	}
	p.hushes.Store(hushesLater)
	type said struct {
		what string
		err  error
	}
	answers := make(chan said, len(questions))
	asked := int32(len(questions))
	for what, ask := range questions {
		go func() { answers <- said{what, ask()} }()
	}
	late := time.After(time.Minute)
	for range questions {
		select {
		case a := <-answers:
			if delete(questions, a.what); !errors.Is(a.err, journal.ErrUnreachable) {
				t.Errorf("%s: %v", a.what, a.err)
			}
		case <-late:
			p.cut()
			t.Fatalf("still wait for an answer: %v", slices.Sorted(maps.Keys(questions)))
		}
	}
	if p.silent.Load() < asked {
		t.Errorf("%d questions reached the server", p.silent.Load())
	}
	p.hushes.Store(hushesNone)
	if got := fmt.Sprint(events(t, s, "a")); got != "[1/1/a1]" {
		t.Errorf("once it speaks again: %s", got)
	}
}

// Whoever runs out of time while others use all connections costs them none: the server
// is well.
func TestImpatientCallerBehindABusyPool(t *testing.T) {
	const connections = 4
	url := database(t, server)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Connections: connections})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	mustOpen(t, s, "a")
	if err := s.Tables().Apply(t.Context(), []journal.Mutation{{Table: "t", Key: "k", Value: []byte("v")}}, false); err != nil {
		t.Fatal(err)
	}
	backends := func() string {
		return server.Exec(t, "postgres", "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE datname = '"+name(url)+"'")
	}
	busy := func(meanwhile func()) {
		using, done := make(chan struct{}, connections), make(chan struct{})
		var all sync.WaitGroup
		for range connections {
			all.Go(func() {
				err := s.Tables().Scan(context.Background(), "t", "", "", func(string, []byte) error {
					using <- struct{}{}
					<-done
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		for range connections {
			<-using
		}
		meanwhile()
		close(done)
		all.Wait()
	}
	var before, after string
	busy(func() {
		before = backends()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := s.Head(ctx, "a"); !errors.Is(err, journal.ErrUnreachable) {
			t.Errorf("behind a busy pool: %v", err)
		}
	})
	busy(func() { after = backends() })
	if after != before {
		t.Errorf("connections %s became %s", before, after)
	}
}

// A server that falls silent while a connection is made does not keep the one place for
// that connection.
func TestSilentWhileConnecting(t *testing.T) {
	p := newProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	s := open(t, p.through(database(t, server)))
	defer closeAll(t, s)
	mustOpen(t, s, "a")
	p.hushes.Store(hushesFirst)
	p.cut()
	w, done := journaltest.Append("a", 1, 1, "a1"), make(chan error, 1)
	go func() { done <- s.Commit([]*journal.Write{w}) }()
	for p.silent.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	p.hushes.Store(hushesNone)
	select {
	case err := <-done:
		if err != nil || w.Err != nil {
			t.Errorf("%v, %v", err, w.Err)
		}
	case <-time.After(30 * time.Second):
		p.cut()
		t.Error("waits for an answer that will not come")
	}
}

// load appends to some streams until stop, keeping what was acknowledged.
type load struct {
	acked [4]uint64 // seq of the newest acknowledged event of each stream
	err   error
}

func (l *load) run(s journal.Store, stop <-chan struct{}) {
	var epochs [len(l.acked)]uint64
	for i := range l.acked {
		head, err := s.Open(context.Background(), fmt.Sprint("deal-", i))
		if err != nil {
			l.err = err
			return
		}
		epochs[i], l.acked[i] = head.Epoch, head.Seq
	}
	for {
		select {
		case <-stop:
			return
		default:
		}
		var group []*journal.Write
		for i := range l.acked {
			seq := l.acked[i] + 1
			group = append(group, journaltest.Append(fmt.Sprint("deal-", i), epochs[i], seq, fmt.Sprint(seq)))
		}
		if l.err = s.Commit(group); l.err != nil {
			return
		}
		for i, w := range group {
			if w.Err != nil {
				l.err = fmt.Errorf("stream %d: %w", i, w.Err)
				return
			}
			l.acked[i]++
		}
	}
}

// check wants exactly the acknowledged events, in order.
func (l *load) check(t *testing.T, s journal.Store) {
	t.Helper()
	if l.err != nil {
		t.Fatal(l.err)
	}
	for i, acked := range l.acked {
		next := uint64(1)
		for _, e := range events(t, s, fmt.Sprint("deal-", i)) {
			if want := fmt.Sprintf("%d/1/%d", next, next); e != want {
				t.Fatalf("stream %d: %s, want %s", i, e, want)
			}
			next++
		}
		if next-1 != acked || acked == 0 {
			t.Errorf("stream %d has %d events, %d were acknowledged", i, next-1, acked)
		}
	}
}

func TestOutages(t *testing.T) {
	for _, test := range []struct {
		name   string
		outage func(*testing.T, *pgtest.Server)
	}{
		{"backends terminated", func(t *testing.T, s *pgtest.Server) {
			for range 30 {
				s.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doorbuster'")
			}
		}},
		{"server crashed and started again", func(t *testing.T, s *pgtest.Server) {
			for range 3 {
				s.Kill(t)
				s.Up(t)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := pgtest.Start(t)
			s := open(t, database(t, server))
			defer closeAll(t, s)
			var l load
			stop, ended := make(chan struct{}), make(chan struct{})
			go func() { l.run(s, stop); close(ended) }()
			more := func() {
				for before := s.Stats().Groups; s.Stats().Groups < before+20; {
					time.Sleep(time.Millisecond)
				}
			}
			more()
			test.outage(t, server)
			more()
			close(stop)
			<-ended
			l.check(t, s)
		})
	}
}

// The primary is lost and its synchronous standby promoted while orders flow.
func TestPromotion(t *testing.T) {
	primary := pgtest.Start(t, "synchronous_standby_names = ''", "max_wal_senders = 4")
	standby := primary.Standby(t, "heir")
	url := database(t, primary, standby)
	primary.Exec(t, "postgres", "ALTER SYSTEM SET synchronous_standby_names = 'heir'")
	primary.Exec(t, "postgres", "SELECT pg_reload_conf()")
	for primary.Exec(t, "postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != "1" {
		time.Sleep(10 * time.Millisecond)
	}
	s := open(t, url)
	defer closeAll(t, s)
	var l load
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { l.run(s, stop); close(ended) }()
	for s.Stats().Groups < 50 {
		time.Sleep(time.Millisecond)
	}
	primary.Kill(t)
	before := s.Stats().Groups
	standby.Promote(t)
	for s.Stats().Groups < before+20 {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	<-ended
	l.check(t, s)
}

// After a fail-over the first host of the connection string may be the standby: the schema
// is brought up to date where writes are taken.
func TestMigrateBehindAStandby(t *testing.T) {
	primary := pgtest.Start(t, "max_wal_senders = 4")
	standby := primary.Standby(t, "heir")
	if _, version, err := postgres.Migrate(t.Context(), standby.URL("postgres", primary)); err != nil || version == 0 {
		t.Errorf("version %d, %v", version, err)
	}
}

// A lock that the server does not wait for any longer, as its administrators may have it
// set, is waited for again.
func TestLockTimeout(t *testing.T) {
	url := database(t, server)
	server.Exec(t, "postgres", "ALTER DATABASE "+name(url)+" SET lock_timeout = '50ms'")
	s := open(t, url)
	defer closeAll(t, s)
	mustOpen(t, s, "a")
	holder, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close(context.Background()) }()
	if _, err := holder.Exec(t.Context(), "BEGIN; SELECT FROM doorbuster.streams FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	refused := func() string {
		return server.Exec(t, "postgres", "SELECT xact_rollback > 0 FROM pg_stat_database WHERE datname = '"+name(url)+"'")
	}
	w, done := journaltest.Append("a", 1, 1, "x"), make(chan error, 1)
	go func() { done <- s.Commit([]*journal.Write{w}) }()
	for refused() != "t" {
		select {
		case err := <-done:
			t.Fatalf("the group was given up: %v, %v", err, w.Err)
		case <-time.After(time.Millisecond):
		}
	}
	if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || w.Err != nil {
		t.Errorf("%v, %v", err, w.Err)
	}
}

// Who has written rows goes on from them, and need not end when the server does: what was
// not to be durable is there all the same after a crash.
func TestRowsOutliveTheServer(t *testing.T) {
	server := pgtest.Start(t, "wal_writer_delay = '10s'")
	s := open(t, database(t, server))
	defer closeAll(t, s)
	row := journal.Mutation{Table: "t", Key: "k", Value: []byte("v")}
	if err := s.Tables().Apply(t.Context(), []journal.Mutation{row}, false); err != nil {
		t.Fatal(err)
	}
	server.Kill(t)
	server.Up(t)
	if got, err := s.Tables().Get(t.Context(), "t", "k"); err != nil || string(got) != "v" {
		t.Errorf("%q, %v", got, err)
	}
}

// Without a server a group is tried for as long as Patience says, and no longer.
func TestPatienceEnds(t *testing.T) {
	server := pgtest.Start(t)
	s, err := postgres.Open(t.Context(), postgres.Config{
		URL: database(t, server), Clock: newClock(t), Patience: 300 * time.Millisecond, RetryEvery: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, s)
	mustOpen(t, s, "deal")
	server.Kill(t)
	if err := s.Commit([]*journal.Write{journaltest.Append("deal", 1, 1, "x")}); err == nil {
		t.Fatal("a group was committed without a server")
	}
}

// A process that ends waits for no server that is away.
func TestGiveUp(t *testing.T) {
	server := pgtest.Start(t)
	s := open(t, database(t, server))
	mustOpen(t, s, "deal")
	server.Kill(t)
	w, done := journaltest.Append("deal", 1, 1, "x"), make(chan error, 1)
	go func() { done <- s.Commit([]*journal.Write{w}) }()
	select {
	case err := <-done:
		t.Fatalf("not tried again: %v, %v", err, w.Err)
	case <-time.After(300 * time.Millisecond):
	}
	s.GiveUp()
	select {
	case err := <-done:
		if err != nil || !errors.Is(w.Err, journal.ErrFailed) {
			t.Errorf("%v, %v", err, w.Err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on trying")
	}
	closeAll(t, s)
}

// Nor does it wait for connections that nobody answers.
func TestCloseWithoutAnAnswer(t *testing.T) {
	p := newProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	s := open(t, p.through(database(t, server)))
	mustOpen(t, s, "a")
	p.lingers.Store(true)
	p.deaf.Store(true)
	begin := time.Now()
	closeAll(t, s)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
