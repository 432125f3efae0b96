package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The way of a group:
//
//	judge    each write against what this process knows of its stream
//	fill     one record for each stream that gets something
//	append   one statement, one transaction; the server judges again
//	settle   move the heads of those that moved, fence the others
//
// Only the server's judgement counts; the first one spares it what cannot succeed.

// appendGroup moves the row of each stream and inserts the records of those that
// moved. The server judges a row again after it has waited for another transaction.
const appendGroup = `
WITH given AS (
	SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::int[], $5::bigint[], $6::bytea[])
		AS g (stream, epoch, first, count, crc, frames)
), moved AS (
	UPDATE doorbuster.streams s SET seq = g.first + g.count - 1 FROM given g
	WHERE s.stream = g.stream AND s.epoch = g.epoch AND s.seq = g.first - 1
	RETURNING s.stream, s.part
)
INSERT INTO doorbuster.events (part, stream, first, count, epoch, crc, frames)
SELECT m.part, g.stream, g.first, g.count, g.epoch, g.crc, g.frames FROM given g JOIN moved m USING (stream)
RETURNING stream`

// columns are the arguments of appendGroup, kept for reuse.
type columns struct {
	streams [][]byte
	epochs  []int64
	firsts  []int64
	counts  []int32
	crcs    []int64
	frames  [][]byte
	data    []byte // of all frames
	moved   map[string]bool
}

// noWrite ends a chain in Store.next.
const noWrite = -1

// Commit implements journal.Store.
func (s *Store) Commit(group []*journal.Write) error {
	if err := s.usable(); err != nil {
		return err
	}
	s.judge(group)
	if len(s.touched) == 0 {
		return nil
	}
	slices.SortFunc(s.touched, func(a, b *head) int { return cmp.Compare(a.stream, b.stream) })
	s.fill(group)
	err := s.appendPatiently()
	if err != nil && !errors.Is(err, journal.ErrReadOnly) {
		err = fmt.Errorf("postgres: the outcome of a group is unknown: %w", err)
		if s.alone && s.tries.Err() == nil || s.usable() != nil {
			return err
		}
		s.cfg.Log.Error("journal: deals of this server end until they can be read again", "error", err)
		err = journal.ErrFailed // of these streams, and not of the other servers'
	}
	s.settle(group, err)
	return nil
}

// judge sets the Err of the writes that cannot succeed, and chains the others.
func (s *Store) judge(group []*journal.Write) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = s.touched[:0]
	for i, w := range group {
		w.Err = nil
		if w.Count == 0 {
			continue
		}
		h := s.heads[w.Stream]
		if h == nil || h.epoch != w.Epoch || h.seq+h.count+1 != w.Seq {
			w.Err = journal.ErrFenced
			s.counts.refused.Add(1)
			continue
		}
		if count, ok := journal.CountEvents(w.Data); !ok || count != w.Count || len(w.Data) > journal.WriteMax {
			s.forget()
			panic(fmt.Sprintf("postgres: a write to %q claims %d events in %d bytes, which do not hold them", w.Stream, w.Count, len(w.Data)))
		}
		s.chain(h, group, i)
	}
}

// forget takes back what judge has chained.
func (s *Store) forget() {
	for _, h := range s.touched {
		h.count, h.bytes = 0, 0
	}
}

// chain adds write i to what its stream gets from this group.
func (s *Store) chain(h *head, group []*journal.Write, i int) {
	for len(s.next) <= i {
		s.next = append(s.next, noWrite)
	}
	s.next[i] = noWrite
	if h.count == 0 {
		h.firstWrite = i
		s.touched = append(s.touched, h)
	} else {
		s.next[h.lastWrite] = i
	}
	h.lastWrite = i
	h.count += uint64(group[i].Count)
	h.bytes += len(group[i].Data)
}

// fill lays out the records of the group.
func (s *Store) fill(group []*journal.Write) {
	c := &s.columns
	c.streams, c.epochs, c.firsts, c.counts, c.crcs, c.frames = c.streams[:0], c.epochs[:0], c.firsts[:0], c.counts[:0], c.crcs[:0], c.frames[:0]
	size := 0
	for _, h := range s.touched {
		size += h.bytes
	}
	c.data = slices.Grow(c.data[:0], size) // the records point into it
	for _, h := range s.touched {
		at := len(c.data)
		for i := h.firstWrite; i != noWrite; i = s.next[i] {
			c.data = append(c.data, group[i].Data...)
		}
		r := record{first: h.seq + 1, count: h.count, epoch: h.epoch, frames: c.data[at:len(c.data):len(c.data)]}
		c.streams = append(c.streams, []byte(h.stream))
		c.epochs = append(c.epochs, int64(r.epoch)) //nolint:gosec // counts up from 1
		c.firsts = append(c.firsts, int64(r.first)) //nolint:gosec // counts up from 1
		c.counts = append(c.counts, int32(r.count)) //nolint:gosec // bounded by the group
		c.crcs = append(c.crcs, r.checksum(h.stream))
		c.frames = append(c.frames, r.frames)
	}
}

// record is what one stream got from one group.
type record struct {
	first, count, epoch uint64
	frames              []byte // as journal.AppendEvent frames them
}

func (r *record) last() uint64 { return r.first + r.count - 1 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers the stream too, so that a record in the wrong place is found out.
func (r *record) checksum(stream string) int64 {
	var fields [24]byte
	binary.BigEndian.PutUint64(fields[:], r.first)
	binary.BigEndian.PutUint64(fields[8:], r.count)
	binary.BigEndian.PutUint64(fields[16:], r.epoch)
	sum := crc32.Update(0, castagnoli, []byte(stream))
	sum = crc32.Update(sum, castagnoli, fields[:])
	return int64(crc32.Update(sum, castagnoli, r.frames))
}

// appendPatiently sends the group until the server has answered. nil: the streams in
// columns.moved have moved, no others. ErrReadOnly: none has.
func (s *Store) appendPatiently() error {
	deadline := clockd.Mono() + int64(s.cfg.Patience)
	for try := 0; ; try++ {
		err := s.append(0, len(s.touched), try > 0)
		switch state := sqlState(err); {
		case err == nil:
			s.readOnly.Store(false)
			return nil
		case state == diskFull && try == 0: // later, an earlier try may have landed
			s.readOnly.Store(true)
			return journal.ErrReadOnly
		case strings.HasPrefix(state, classIntegrity):
			return s.appendEach()
		case state == deadlock || state == serialization:
			// Rolled back, for certain.
		case !transient(err) || clockd.Mono() >= deadline:
			return err
		}
		if try == 0 {
			s.cfg.Log.Warn("journal: a group is sent again", "error", err)
		}
		if err := s.cfg.Clock.Sleep(s.tries, s.cfg.RetryEvery); err != nil {
			return err
		}
	}
}

// transient says whether an error is one of the connection, or of a server that is
// on its way down, up, or from standby to primary.
func transient(err error) bool {
	state := sqlState(err)
	if state == "" {
		return !errors.Is(err, context.Canceled)
	}
	return state[:2] == classConnection || state[:2] == classOperator || state[:2] == classResources || state == readOnlySession || state == lockTimeout
}

// errNotReplicated says that a transaction has committed and the standby need not have it.
var errNotReplicated = errors.New("postgres: the wait for the standby was cancelled")

// noteCancelled hears what the server says about the connection that commits. Whoever
// cancels a statement that waits for the standby only ends the wait: the server then
// warns, and answers that it has committed.
func (s *Store) noteCancelled(_ *pgconn.PgConn, said *pgconn.Notice) {
	if waitCancelled(said) {
		s.cancelled.Store(true)
	}
}

// waitCancelled looks at no message: that is in the server's language.
func waitCancelled(said *pgconn.Notice) bool { return said.Routine == "SyncRepWaitForLSN" }

// statementTimeout bounds one try, so that a server that hangs is left for another.
const statementTimeout = 10 * time.Second

// append sends touched[from:to] once. again: an earlier try may have landed.
func (s *Store) append(from, to int, again bool) error {
	ctx, cancel := context.WithTimeout(s.tries, statementTimeout)
	defer cancel()
	c := &s.columns
	if from == 0 {
		clear(c.moved)
	}
	s.cancelled.Store(false)
	rows, err := s.commit.Query(ctx, appendGroup,
		c.streams[from:to], c.epochs[from:to], c.firsts[from:to], c.counts[from:to], c.crcs[from:to], c.frames[from:to])
	if err != nil {
		return err
	}
	var stream []byte
	_, err = pgx.ForEachRow(rows, []any{&stream}, func() error {
		c.moved[string(stream)] = true
		return nil
	})
	if err == nil && again {
		err = s.findLanded(ctx, from, to)
	}
	if err == nil && s.cancelled.Load() {
		err = errNotReplicated
	}
	return err
}

// appendEach sends the group stream by stream, because one of them breaks a
// constraint: its tail is not what its row says. That one is fenced.
func (s *Store) appendEach() error {
	for i, h := range s.touched {
		err := s.append(i, i+1, true)
		if strings.HasPrefix(sqlState(err), classIntegrity) {
			s.cfg.Log.Error("journal: a stream is not as its row says", "stream", h.stream, "error", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// findLanded looks for the records that an earlier try has left, byte for byte. The
// statement before has waited for that try, if it was still under way.
func (s *Store) findLanded(ctx context.Context, from, to int) error {
	c := &s.columns
	landed := noWrite
	for i := from; i < to; i++ {
		h := s.touched[i]
		if c.moved[h.stream] {
			continue
		}
		r, err := s.recordAt(ctx, h, c.firsts[i])
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		if r.count == h.count && r.epoch == h.epoch && bytes.Equal(r.frames, c.frames[i]) {
			c.moved[h.stream], landed = true, i
		}
	}
	if landed == noWrite {
		return nil
	}
	// A try that was cut off while it waited for the standby shows here, and may not be
	// there. A commit waits until the standby has all that came before it.
	_, err := s.commit.Exec(ctx, "UPDATE doorbuster.streams SET seq = seq WHERE stream = $1", c.streams[landed])
	return err
}

// recordAt returns the record of a stream whose first event is seq. pgx.ErrNoRows if
// there is none.
func (s *Store) recordAt(ctx context.Context, h *head, seq int64) (r record, err error) {
	err = s.commit.QueryRow(ctx,
		"SELECT first, count, epoch, frames FROM doorbuster.events WHERE part = $1 AND stream = $2 AND first = $3",
		h.part, []byte(h.stream), seq).Scan(&r.first, &r.count, &r.epoch, &r.frames)
	return r, err
}

// settle moves the heads and sets the Err of what did not land.
func (s *Store) settle(group []*journal.Write, refused error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.touched {
		err := refused
		if err == nil && !s.columns.moved[h.stream] {
			err = journal.ErrFenced
		}
		for i := h.firstWrite; i != noWrite; i = s.next[i] {
			if group[i].Err = err; err != nil {
				s.counts.refused.Add(1)
			} else {
				s.counts.writes.Add(1)
			}
		}
		switch {
		case err == nil:
			h.seq += h.count
			s.counts.events.Add(h.count)
			s.counts.bytes.Add(uint64(h.bytes))
		case !errors.Is(err, journal.ErrReadOnly) && s.heads[h.stream] == h:
			delete(s.heads, h.stream)
		}
		h.count, h.bytes = 0, 0
	}
	if refused == nil {
		s.counts.groups.Add(1)
	}
}
