package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// recordsPage is how many records one query of a replay asks for. A record is at
// most a group, 4 MiB, and seldom more than some KiB.
const recordsPage = 64

// pageBytes ends a page before recordsPage does, once it holds so much.
const pageBytes = 1 << 20

// headsPage is how many streams one query of a list asks for.
const headsPage = 4096

// tail returns where a stream's events lie and how far it has come. Read at the
// start of a replay, it says what the replay must find.
func (s *Store) tail(ctx context.Context, stream string) (part int32, seq uint64, err error) {
	ctx, cancel := s.question(ctx)
	defer cancel()
	err = s.pool.QueryRow(ctx, "SELECT part, seq FROM doorbuster.streams WHERE stream = $1", []byte(stream)).Scan(&part, &seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, nil
	}
	return part, seq, err
}

const selectRecords = `
SELECT first, count, epoch, crc, frames FROM doorbuster.events
WHERE part = $1 AND stream = $2 AND first >= coalesce(
	(SELECT max(first) FROM doorbuster.events WHERE part = $1 AND stream = $2 AND first <= $3), 0)
ORDER BY first LIMIT $4`

// records calls fn for the records of a stream from the one that holds seq on, one
// page of them.
func (s *Store) records(ctx context.Context, stream string, part int32, seq uint64, limit int, fn func(record) error) error {
	ctx, cancel := s.load(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, selectRecords, part, []byte(stream), seq, limit)
	if err != nil {
		return s.failure("read", stream, err)
	}
	var r record
	var crc int64
	var told error // what fn says is passed on as it is
	_, err = pgx.ForEachRow(rows, []any{&r.first, &r.count, &r.epoch, &crc, &r.frames}, func() error {
		if count, ok := journal.CountEvents(r.frames); crc != r.checksum(stream) || !ok || uint64(count) != r.count {
			told = s.damaged(stream, fmt.Sprintf("the record of event %d: checksum does not match", r.first))
		} else {
			told = fn(r)
		}
		return told
	})
	if told == nil && err != nil {
		return s.failure("read", stream, err)
	}
	return told
}

// page returns records of a stream, from the one that holds seq on. Whoever goes
// through them holds no connection, so it may use the Store and take its time.
func (s *Store) page(ctx context.Context, stream string, part int32, seq uint64) (page []record, err error) {
	size := 0
	err = s.records(ctx, stream, part, seq, recordsPage, func(r record) error {
		page = append(page, r) // its frames are not used again
		if size += len(r.frames); size >= pageBytes {
			return journal.ErrStop
		}
		return nil
	})
	return page, stopped(err)
}

func (s *Store) damaged(stream, detail string) error {
	s.corrupt.Store(stream, struct{}{})
	return &journal.CorruptError{Stream: stream, Detail: detail, Remedy: remedy}
}

// Read implements journal.Store. It also checks that no event is missing.
func (s *Store) Read(ctx context.Context, stream string, after uint64, fn func(journal.Event) error) error {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return err
	}
	part, last, err := s.tail(ctx, stream)
	if err != nil {
		return s.failure("read", stream, err)
	}
	for seen := after; seen < last; {
		page, err := s.page(ctx, stream, part, seen+1)
		if err != nil {
			return err
		}
		from := seen
		for _, r := range page {
			if r.first > last {
				break // appended since
			}
			if r.first > seen+1 || r.last() <= seen {
				return s.damaged(stream, fmt.Sprintf("events %d to %d are missing", seen+1, r.first-1))
			}
			if err := each(r, seen, fn); err != nil {
				return stopped(err)
			}
			seen = r.last()
		}
		if seen == from {
			return s.damaged(stream, fmt.Sprintf("events %d to %d are missing", seen+1, last))
		}
	}
	return nil
}

// each calls fn for the events of a record after the given seq.
func each(r record, after uint64, fn func(journal.Event) error) error {
	frames := r.frames
	for seq := r.first; seq <= r.last(); seq++ {
		var data []byte
		data, frames, _ = journal.CutEvent(frames)
		if seq <= after {
			continue
		}
		if err := fn(journal.Event{Seq: seq, Epoch: r.epoch, Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// Get implements journal.Store.
func (s *Store) Get(ctx context.Context, stream string, seq uint64, dst []byte) ([]byte, error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return dst, err
	}
	part, last, err := s.tail(ctx, stream)
	if err != nil {
		return dst, s.failure("read", stream, err)
	}
	if seq == 0 || seq > last {
		return dst, journal.ErrNotFound
	}
	found := false
	err = s.records(ctx, stream, part, seq, 1, func(r record) error {
		if seq < r.first || seq > r.last() {
			return nil
		}
		return each(r, seq-1, func(e journal.Event) error {
			dst, found = append(dst, e.Data...), true
			return journal.ErrStop
		})
	})
	if err = stopped(err); err == nil && !found {
		err = s.damaged(stream, fmt.Sprintf("event %d of %d is missing", seq, last))
	}
	return dst, err
}

// Snapshot implements journal.Store.
func (s *Store) Snapshot(ctx context.Context, stream string) (seq uint64, state []byte, err error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return 0, nil, err
	}
	ctx, cancel := s.load(ctx)
	defer cancel()
	var crc int64
	err = s.pool.QueryRow(ctx, "SELECT seq, crc, state FROM doorbuster.snapshots WHERE stream = $1", []byte(stream)).Scan(&seq, &crc, &state)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, nil, journal.ErrNotFound
	case err != nil:
		return 0, nil, s.failure("read the snapshot of", stream, err)
	case crc != snapshotSum(stream, seq, state):
		return 0, nil, s.damaged(stream, "its snapshot: checksum does not match")
	}
	return seq, state, nil
}

func snapshotSum(stream string, seq uint64, state []byte) int64 {
	r := record{first: seq, frames: state}
	return r.checksum(stream)
}

// PutSnapshot implements journal.Store.
func (s *Store) PutSnapshot(ctx context.Context, stream string, epoch, seq uint64, data []byte) error {
	journal.CheckStream(stream)
	if len(data) > journal.SnapshotMax {
		panic(fmt.Sprintf("postgres: snapshot of %q has %d bytes", stream, len(data)))
	}
	if err := s.usable(); err != nil {
		return err
	}
	ctx, cancel := s.load(ctx)
	defer cancel()
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var last, snapshot uint64
		err := tx.QueryRow(ctx, "SELECT seq, snapshot_seq FROM doorbuster.streams WHERE stream = $1 AND epoch = $2 FOR UPDATE", []byte(stream), epoch).
			Scan(&last, &snapshot)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && seq > last {
			return journal.ErrFenced
		}
		if err != nil || seq <= snapshot {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE doorbuster.streams SET snapshot_seq = $2 WHERE stream = $1", []byte(stream), seq); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO doorbuster.snapshots (stream, seq, crc, state) VALUES ($1, $2, $3, $4)
			ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, crc = excluded.crc, state = excluded.state`,
			[]byte(stream), seq, snapshotSum(stream, seq, data), nonNil(data))
		return err
	})
	if errors.Is(err, journal.ErrFenced) {
		return journal.ErrFenced
	}
	if err != nil {
		return s.failure("write the snapshot of", stream, err)
	}
	return nil
}

// nonNil keeps an empty value from becoming NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Streams implements journal.Store.
func (s *Store) Streams(ctx context.Context, after string, fn func(string, journal.Head) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	for {
		page, err := s.list(ctx, after)
		if err != nil {
			return s.failure("list the streams", "", err)
		}
		for _, r := range page {
			after = string(r.Stream)
			if err := fn(after, journal.Head{Epoch: r.Epoch, Seq: r.Seq, SnapshotSeq: r.SnapshotSeq}); err != nil {
				return stopped(err)
			}
		}
		if len(page) < headsPage {
			return nil
		}
	}
}

// streamRow is a stream in a list.
type streamRow struct {
	Stream                  []byte
	Epoch, Seq, SnapshotSeq uint64
}

// list returns the streams with a name after the given one, one page of them.
func (s *Store) list(ctx context.Context, after string) ([]streamRow, error) {
	ctx, cancel := s.load(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, `
		SELECT stream, epoch, seq, snapshot_seq FROM doorbuster.streams
		WHERE stream > $1 ORDER BY stream LIMIT $2`, []byte(after), headsPage)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[streamRow])
}

// openingsPage is how many openings one query asks for.
const openingsPage = 1024

// Openings implements journal.Chronicle.
func (s *Store) Openings(ctx context.Context, stream string, fn func(journal.Opening) error) error {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return err
	}
	for after := uint64(0); ; {
		page, err := s.openings(ctx, stream, after)
		if err != nil {
			return s.failure("read who owned", stream, err)
		}
		for _, o := range page {
			if err := fn(o); err != nil {
				return stopped(err)
			}
			after = o.Epoch
		}
		if len(page) < openingsPage {
			return nil
		}
	}
}

// openings returns those of epochs after the given one, one page of them.
func (s *Store) openings(ctx context.Context, stream string, after uint64) ([]journal.Opening, error) {
	ctx, cancel := s.load(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, `
		SELECT epoch, first, opened_by, opened_at FROM doorbuster.epochs
		WHERE stream = $1 AND epoch > $2 ORDER BY epoch LIMIT $3`, []byte(stream), after, openingsPage)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[journal.Opening])
}

// stopped is what a scan returns when a callback ended it.
func stopped(err error) error {
	if err == journal.ErrStop { //nolint:errorlint // a callback returns ErrStop itself
		return nil
	}
	return err
}
