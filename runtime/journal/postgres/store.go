// Package postgres is the journal on a PostgreSQL server, for several nodes at once.
//
// A stream is a row that names its owner's epoch and its newest event. A group
// becomes one statement, and so one transaction: it moves the row of each stream
// from (epoch, seq) to the new seq, and inserts the records of those that moved. A
// stream whose row does not move is fenced, alone; the rest of the group commits.
// Taking a stream over raises the epoch under the same row lock, so it waits for an
// append that is under way and sees what that one wrote: no event of the old owner
// can follow the first one of the new. The same statement appends the event that opens
// the epoch, which says who took over, when, and behind which event.
//
// A lost connection leaves the outcome unknown. The group is then sent again, for
// as long as Config.Patience: either the first try had not landed, and this one
// does, or the rows have moved, and the records behind them are compared with ours.
//
// Nothing is read from a standby. The records carry checksums of their own.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/puzpuzpuz/xsync/v4"
	"golang.org/x/sys/unix"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// remedy is what an operator can do about damage.
const remedy = "restore the database from a backup to a point in time before the damage; nothing has been deleted"

// Config says where the server is. Zero values take the defaults.
type Config struct {
	// URL is the connection string, as libpq understands it: postgres://… or
	// key=value, with several hosts if there are standbys. Required.
	URL string
	// Clock names the partition of new streams. Required.
	Clock *clockd.Clock
	// Log is told of what an operator should see. nil discards it.
	Log *slog.Logger
	// Name is who takes streams over, as the events that open epochs have it, in at most
	// journal.OwnerMax bytes (the host and this process's id).
	Name string
	// Exclusive keeps other processes out of the database while this one is
	// connected. The others share it with each other, and keep out those who want it
	// for themselves. The fence is what protects the streams; this protects operators
	// of a single node from starting two.
	Exclusive bool
	// Connections bounds the pool, beside the one that commits and the one that Watch
	// listens on (8).
	Connections int
	// Ready keeps as many open, which are there when Open returns if the server has
	// them. A node that takes over many streams at once would otherwise make them just
	// then, and each costs the server a process.
	Ready bool
	// Patience is how long a group is tried again while the server cannot be
	// reached (60 s). After that the outcome is unknown: the process must end, or, if
	// other servers carry the journal too, the group's streams must be opened again.
	Patience time.Duration
	// RetryEvery is the pause between two tries (100 ms).
	RetryEvery time.Duration
	// AnswerWithin is how long a question about a few rows may take (5 s), and a
	// change of them. What moves more, a page of a list, of events or a snapshot, may
	// take bulk times as long.
	AnswerWithin time.Duration
}

// bulk is for how many times as long a connection may be busy with much.
const bulk = 6

func (cfg *Config) validate() error {
	if cfg.URL == "" || cfg.Clock == nil {
		return errors.New("postgres: URL and Clock are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("postgres: %w", err)
		}
		cfg.Name = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	if cfg.Connections == 0 {
		cfg.Connections = 8
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Minute
	}
	if cfg.RetryEvery == 0 {
		cfg.RetryEvery = 100 * time.Millisecond
	}
	if cfg.AnswerWithin == 0 {
		cfg.AnswerWithin = 5 * time.Second
	}
	if len(cfg.Name) > journal.OwnerMax {
		return fmt.Errorf("postgres: Name has %d bytes, at most %d are allowed", len(cfg.Name), journal.OwnerMax)
	}
	if cfg.Connections < 2 || cfg.Patience < 0 || cfg.RetryEvery < 0 || cfg.AnswerWithin < 0 {
		return errors.New("postgres: Connections is at least 2, a scan may hold one while its callback writes; Patience, RetryEvery and AnswerWithin are not negative")
	}
	return nil
}

// Store implements journal.Store.
type Store struct {
	cfg    Config
	alone  bool            // no other server carries the journal
	ctx    context.Context // of everything that has none of its own
	cancel context.CancelFunc
	tries  context.Context // of groups
	giveUp context.CancelFunc
	pool   *pgxpool.Pool
	commit *pgxpool.Pool // of one connection, so that a group never waits for readers
	parts  *xsync.Map[int32, struct{}]

	closed    atomic.Bool
	readOnly  atomic.Bool // the server's disk was full at the last write
	cancelled atomic.Bool // somebody ended the wait for the standby of the group at hand
	corrupt   *xsync.Map[string, struct{}]
	counts    counts

	mu    sync.Mutex // guards heads and what they point to
	heads map[string]*head

	// The fields below belong to whoever calls Commit.
	next    []int // next[i] is the write behind i of the same stream, or noWrite
	touched []*head
	columns columns
}

type counts struct{ groups, writes, events, bytes, refused atomic.Uint64 }

// head is the end of a stream that this process owns, as far as it knows.
type head struct {
	stream     string
	part       int32
	epoch, seq uint64

	// What the stream gets from the group at hand.
	firstWrite, lastWrite int
	count                 uint64
	bytes                 int
}

// Open connects, checks that the server keeps what it acknowledges and that the
// schema is one this code knows, and returns the Store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	return open(ctx, cfg, &shard{count: 1})
}

// open is Open of a server that may be one of several. It completes of.
func open(ctx context.Context, cfg Config, of *shard) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{
		cfg:   cfg,
		alone: of.alone(),
		parts: xsync.NewMap[int32, struct{}](), corrupt: xsync.NewMap[string, struct{}](),
		heads:   make(map[string]*head),
		columns: columns{moved: make(map[string]bool)},
	}
	// The server behind a new connection may be another one than before.
	check := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := checkDurable(ctx, conn)
		return err
	}
	claim := func(ctx context.Context, conn *pgx.Conn) error {
		if err := check(ctx, conn); err != nil {
			return err
		}
		return claimDatabase(ctx, conn, cfg.Exclusive)
	}
	var err error
	if s.pool, err = connect(ctx, cfg.URL, cfg.Connections, cfg.Ready, check, noteUnreplicated); err != nil {
		return nil, err
	}
	if s.commit, err = connect(ctx, cfg.URL, 1, false, claim, s.noteCancelled); err != nil {
		s.pool.Close()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.tries, s.giveUp = context.WithCancel(s.ctx)
	warning, err := checkServer(ctx, s.pool)
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if warning != "" {
		cfg.Log.Warn("journal: " + warning)
	}
	if of.journal, err = s.claimShard(ctx, *of); err != nil {
		_ = s.Close()
		return nil, err
	}
	if cfg.Ready {
		s.connectAll(ctx)
	}
	return s, nil
}

// connectAll makes the connections of the pool. What it does not get is made when it is
// needed.
func (s *Store) connectAll(ctx context.Context) {
	ctx, cancel := s.question(ctx)
	defer cancel()
	for _, conn := range s.pool.AcquireAllIdle(ctx) {
		defer conn.Release()
	}
	for s.pool.Stat().AcquiredConns() < s.pool.Config().MaxConns {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			return
		}
		defer conn.Release()
	}
}

const (
	// connectTimeout is how long one host of the URL may take, unless the URL says: a
	// machine that is gone answers nothing, and the next host may be the primary.
	connectTimeout = 3 * time.Second
	// pingTimeout is how long a connection that is about to be used may take to answer.
	pingTimeout = 3 * time.Second
	never       = 100 * 365 * 24 * time.Hour
)

// dialer makes connections that break by themselves when the machine at the other end
// is gone: within userTimeout while it owes an answer, and within the time that
// keepAlive says otherwise. The server is told to do the same.
var dialer = net.Dialer{
	Timeout:         connectTimeout, // of a cancellation, which has nobody's
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveEvery, Count: keepAlives},
	Control: func(network, _ string, socket syscall.RawConn) (err error) {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		if failed := socket.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		}); failed != nil {
			return failed
		}
		return err
	},
}

const (
	keepAliveIdle  = 5 * time.Second
	keepAliveEvery = 2 * time.Second
	keepAlives     = 3
	userTimeout    = 5 * time.Second
)

// connect makes a pool that accepts only a server that takes writes, so that after
// a fail-over it finds the new primary among the hosts of the URL. A server that does
// not hear of a lost client within seconds would hold on to what that had locked.
func connect(ctx context.Context, url string, connections int, ready bool, begin func(context.Context, *pgx.Conn) error, warned pgconn.NoticeHandler) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	cfg.MaxConns = int32(connections) //nolint:gosec // a small number of the configuration
	if ready {
		cfg.MinConns, cfg.MaxConnLifetime = cfg.MaxConns, never // or they end one after the other, and a take-over begins them anew
	}
	// A look before each use, since connections break all at once when a server
	// ends; the one that commits finds out by committing.
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return connections > 1 }
	cfg.PingTimeout = pingTimeout
	if connections == 1 { // it has the lock, however long there is nothing to commit
		cfg.MaxConnIdleTime, cfg.MaxConnLifetime = never, never
		cfg.BeforeClose = unclaimDatabase
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	cfg.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	cfg.ConnConfig.DialFunc = dialer.DialContext
	cfg.ConnConfig.OnNotice = warned
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		// The pool waits for a connection that it makes for as long as that takes.
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		return begin(ctx, conn)
	}
	for name, value := range map[string]string{
		"application_name":        "doorbuster",
		"tcp_keepalives_idle":     "5", // s
		"tcp_keepalives_interval": "2", // s
		"tcp_keepalives_count":    "3",
		"tcp_user_timeout":        "10000", // ms
	} {
		if _, set := cfg.ConnConfig.RuntimeParams[name]; !set {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return pool, nil
}

// serving is the advisory lock of whoever uses the database, alone or with others. It
// is held by the connection that commits, and taken again whenever that is made anew.
const serving = 0x6f776e72 // "ownr"

// ErrInUse says that another process uses the database, and one of the two wants it
// for itself.
var ErrInUse = errors.New("another node serves from this database")

func claimDatabase(ctx context.Context, conn *pgx.Conn, exclusive bool) error {
	try := "SELECT pg_try_advisory_lock_shared($1)"
	if exclusive {
		try = "SELECT pg_try_advisory_lock($1)"
	}
	var claimed bool
	if err := conn.QueryRow(ctx, try, serving).Scan(&claimed); err != nil || claimed {
		return err
	}
	who, err := holder(ctx, conn)
	if err != nil {
		who = "somebody" // who has just left, or whom we may not see
	}
	return fmt.Errorf("%w: %s", ErrInUse, who)
}

// holder names one process that uses the database. pgx.ErrNoRows: none does.
func holder(ctx context.Context, q querier) (who string, err error) {
	err = q.QueryRow(ctx, `
		SELECT format('%s at %s, backend %s since %s', a.application_name, coalesce(host(a.client_addr), 'a local socket'), a.pid, a.backend_start)
		FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_database d ON d.oid = l.database
		WHERE l.locktype = 'advisory' AND l.objid = $1 AND l.granted AND d.datname = current_database() LIMIT 1`, serving).
		Scan(&who)
	return who, err
}

// unclaimDatabase gives the lock back before the connection ends, which the server learns
// of some time later: the next process may be waiting for it.
func unclaimDatabase(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock_all()") // the server does so in the end
}

func (s *Store) usable() error {
	if s.closed.Load() {
		return journal.ErrClosed
	}
	return nil
}

// question bounds what a few rows may take.
func (s *Store) question(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.cfg.AnswerWithin)
}

// load bounds what much may take.
func (s *Store) load(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, bulk*s.cfg.AnswerWithin)
}

// takeOver raises the epoch of a stream and appends the event that opens it, which is
// stamped once the stream's row is held, and so behind every append of the owner before.
// Of the epochs in which nothing was appended since the stream's last event the newest 16
// stay. Openings of an earlier stream of the same name cannot be this one's.
const takeOver = `
WITH taken AS (
	INSERT INTO doorbuster.streams AS s (stream, part, epoch, seq, snapshot_seq) VALUES ($1, $2, 1, 0, 0)
	ON CONFLICT (stream) DO UPDATE SET epoch = s.epoch + 1
	RETURNING stream, part, epoch, seq, snapshot_seq
), opened AS (
	INSERT INTO doorbuster.epochs AS e (stream, epoch, first, opened_by) SELECT stream, epoch, seq + 1, $3 FROM taken
	ON CONFLICT (stream, epoch) DO UPDATE SET first = excluded.first, opened_by = excluded.opened_by, opened_at = clock_timestamp()
), forgotten AS (
	DELETE FROM doorbuster.epochs e USING taken t
	WHERE e.stream = t.stream AND (e.epoch > t.epoch OR e.epoch <= t.epoch - 16 AND e.first = t.seq + 1)
)
SELECT part, epoch, seq, snapshot_seq FROM taken`

// Open implements journal.Store. It waits for an append of the owner before, if one
// is under way.
func (s *Store) Open(ctx context.Context, stream string) (journal.Head, error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return journal.Head{}, err
	}
	ctx, cancel := s.question(ctx)
	defer cancel()
	part, err := s.partition(ctx)
	if err != nil {
		return journal.Head{}, err
	}
	h := &head{stream: stream}
	var taken journal.Head
	err = s.pool.QueryRow(ctx, takeOver, []byte(stream), part, s.cfg.Name).
		Scan(&h.part, &taken.Epoch, &taken.Seq, &taken.SnapshotSeq)
	if err != nil {
		return journal.Head{}, s.failure("open", stream, err)
	}
	h.epoch, h.seq = taken.Epoch, taken.Seq
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.heads[stream]; before == nil || before.epoch < h.epoch {
		s.heads[stream] = h
	}
	return taken, nil
}

// makePartition is one transaction. PARTITION OF would wait for whoever reads the events, a
// backup say, and all appends would wait behind it.
const makePartition = `
CREATE TABLE doorbuster.events_%[1]d (LIKE doorbuster.events INCLUDING ALL);
ALTER TABLE doorbuster.events ATTACH PARTITION doorbuster.events_%[1]d FOR VALUES IN (%[1]d)`

// partition returns where the events of a new stream lie, made if need be.
func (s *Store) partition(ctx context.Context) (int32, error) {
	now := time.UnixMilli(s.cfg.Clock.Now().Wall).UTC()
	part := int32(now.Year()*100 + int(now.Month())) //nolint:gosec // a year of four digits
	if _, made := s.parts.Load(part); made {
		return part, nil
	}
	var made bool
	err := s.pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", fmt.Sprintf("doorbuster.events_%d", part)).Scan(&made)
	if err == nil && !made {
		_, err = s.pool.Exec(ctx, fmt.Sprintf(makePartition, part))
	}
	// Of two nodes that make it at once, one may be told so in either way.
	if state := sqlState(err); err != nil && state != duplicateTable && state != uniqueViolation {
		return 0, s.failure("make a partition", "", err)
	}
	s.parts.Store(part, struct{}{})
	return part, nil
}

// Release implements journal.Store.
func (s *Store) Release(stream string, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.heads[stream]; h != nil && h.epoch == epoch {
		delete(s.heads, stream)
	}
}

// Head implements journal.Store.
func (s *Store) Head(ctx context.Context, stream string) (head journal.Head, err error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return journal.Head{}, err
	}
	ctx, cancel := s.question(ctx)
	defer cancel()
	err = s.pool.QueryRow(ctx, "SELECT epoch, seq, snapshot_seq FROM doorbuster.streams WHERE stream = $1", []byte(stream)).
		Scan(&head.Epoch, &head.Seq, &head.SnapshotSeq)
	if errors.Is(err, pgx.ErrNoRows) {
		return journal.Head{}, journal.ErrNotFound
	}
	if err != nil {
		return journal.Head{}, s.failure("read the head of", stream, err)
	}
	return head, nil
}

// Superseded implements journal.Store, with one question for all streams.
func (s *Store) Superseded(ctx context.Context, dst []string, owned []journal.Ownership) ([]string, error) {
	if err := s.usable(); err != nil {
		return dst, err
	}
	streams, epochs := make([][]byte, len(owned)), make([]uint64, len(owned))
	for i, o := range owned {
		streams[i], epochs[i] = []byte(o.Stream), o.Epoch
	}
	ctx, cancel := s.question(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, `
		SELECT s.stream FROM unnest($1::bytea[], $2::bigint[]) AS o (stream, epoch)
		JOIN doorbuster.streams s USING (stream) WHERE s.epoch > o.epoch`, streams, epochs)
	if err != nil {
		return dst, s.failure("look for newer owners", "", err)
	}
	var stream []byte
	_, err = pgx.ForEachRow(rows, []any{&stream}, func() error {
		dst = append(dst, string(stream))
		return nil
	})
	if err != nil {
		return dst, s.failure("look for newer owners", "", err)
	}
	return dst, nil
}

// failure says what could not be done. A full disk of the server raises the alarm.
func (s *Store) failure(what, stream string, err error) error {
	if sqlState(err) == diskFull {
		s.readOnly.Store(true)
		return journal.ErrReadOnly
	}
	if stream != "" {
		what += fmt.Sprintf(" %q", stream)
	}
	if transient(err) {
		return fmt.Errorf("%w: postgres: %s: %w", journal.ErrUnreachable, what, err)
	}
	return fmt.Errorf("postgres: %s: %w", what, err)
}

// Tables implements journal.Store.
func (s *Store) Tables() journal.Tables { return tables{s} }

// Stats implements journal.Store. Of the server's disk it knows only that a write
// was refused because it was full.
func (s *Store) Stats() journal.Stats {
	s.mu.Lock()
	streams := len(s.heads)
	s.mu.Unlock()
	return journal.Stats{
		Streams:  streams,
		Groups:   s.counts.groups.Load(),
		Writes:   s.counts.writes.Load(),
		Events:   s.counts.events.Load(),
		Bytes:    s.counts.bytes.Load(),
		Refused:  s.counts.refused.Load(),
		ReadOnly: s.readOnly.Load(),
		Corrupt:  s.corrupt.Size(),
	}
}

// GiveUp implements journal.Patient.
func (s *Store) GiveUp() { s.giveUp() }

// closeTimeout is how long connections may take to end. Those to a server that is
// silent are left behind.
const closeTimeout = 2 * time.Second

// Close implements journal.Store.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return journal.ErrClosed
	}
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	go func() {
		defer cancel()
		var all sync.WaitGroup
		all.Go(s.commit.Close)
		all.Go(s.pool.Close)
		all.Wait()
	}()
	<-ctx.Done()
	return nil
}
