package postgres

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Each change carries the number of the transaction that made it. A look asks for all
// from the oldest transaction that was under way at the look before, so it misses none
// and may see some again. When to look is said by a notification, and by the clock
// where that does not come: a connection that broke, or a pooler in between.

const (
	// pollEvery is the longest time between two looks.
	pollEvery = 500 * time.Millisecond
	// channel is what the triggers notify.
	channel = "doorbuster"
)

// selectChanges returns the oldest transaction under way, in a row of its own, and the
// changes of those from $1 on, all of one moment.
const selectChanges = `
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, NULL::bytea, NULL::bytea, NULL::bytea
UNION ALL
SELECT xact::text::bigint, NULL, tbl, key FROM doorbuster.changes WHERE xact >= $1::text::xid8
UNION ALL
SELECT born::text::bigint, stream, NULL, NULL FROM doorbuster.streams WHERE born >= $1::text::xid8`

// watch is one Watch.
type watch struct {
	s    *Store
	fn   func(journal.Change)
	bell chan struct{} // holds a token if it is time to look

	next uint64              // the transaction to look from, 0: there was no look yet
	told map[change]struct{} // at the look before
}

// change is a Change and the transaction that made it.
type change struct {
	xact uint64
	journal.Change
}

// Watch implements journal.Watcher.
func (s *Store) Watch(ctx context.Context, fn func(journal.Change)) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{s: s, fn: fn, bell: make(chan struct{}, 1)}
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		w.listen(ctx)
	}()
	defer func() {
		cancel()
		<-listened
	}()
	defer s.cfg.Clock.Every(pollEvery, w.ring)()
	w.ring()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		case <-w.bell:
		}
		err := w.look(ctx)
		if err != nil && !failing && ctx.Err() == nil && s.ctx.Err() == nil {
			s.cfg.Log.Warn("journal: cannot see what other nodes change; they are asked again", "error", err)
		}
		failing = err != nil
	}
}

func (w *watch) ring() {
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// listen rings at each notification, on a connection of its own.
func (w *watch) listen(ctx context.Context) {
	cfg := w.s.pool.Config().ConnConfig
	for ctx.Err() == nil {
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			err = w.subscribe(ctx, conn)
			for err == nil {
				w.ring() // also for what came before it listened
				_, err = conn.WaitForNotification(ctx)
			}
			_ = conn.Close(ctx) // it broke, or nobody watches any more
		}
		if err := w.s.cfg.Clock.Sleep(ctx, w.s.cfg.RetryEvery); err != nil {
			return
		}
	}
}

func (w *watch) subscribe(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := w.s.question(ctx)
	defer cancel()
	_, err := conn.Exec(ctx, "LISTEN "+channel)
	return err
}

// look tells of the changes since the look before; the first one, and one of a
// database that went back in time, of all at once.
func (w *watch) look(ctx context.Context) error {
	ctx, cancel := w.s.question(ctx)
	defer cancel()
	from := w.next
	if from == 0 {
		from = math.MaxUint64
	}
	rows, err := w.s.pool.Query(ctx, selectChanges, strconv.FormatUint(from, 10))
	if err != nil {
		return err
	}
	type row struct {
		Xact               uint64
		Stream, Table, Key []byte
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return err
	}
	told, next := make(map[change]struct{}), uint64(0)
	for _, r := range found {
		if r.Stream == nil && r.Table == nil {
			next = r.Xact
			continue
		}
		told[change{r.Xact, journal.Change{Stream: string(r.Stream), Table: string(r.Table), Key: string(r.Key)}}] = struct{}{}
	}
	if w.next == 0 || next < w.next {
		w.fn(journal.Change{All: true})
	}
	for c := range told {
		if _, before := w.told[c]; !before {
			w.fn(c.Change)
		}
	}
	w.next, w.told = next, told
	return nil
}
