package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// corruption turns an error met while reading a stream into what is told of it.
func (s *Store) corruption(stream, what string, err error) error {
	switch {
	case errors.Is(err, errChecksum), errors.Is(err, errFormat), errors.Is(err, errRecord), errors.Is(err, errMissing), pebble.IsCorruptionError(err):
		s.corrupt.Store(stream, struct{}{})
		return &journal.CorruptError{Stream: stream, File: s.cfg.Dir, Detail: what + ": " + err.Error(), Remedy: remedy}
	default:
		return fmt.Errorf("embedded: read %q: %w", stream, err)
	}
}

// events returns an iterator over the records of one stream.
func (s *Store) events(stream string) (*pebble.Iterator, error) {
	lower := appendStream(nil, keyEvents, stream)
	return s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: successor(lower)})
}

// durableSeq returns how far a stream is known to be durable, or unknown if it was
// not opened in this process.
//
// A reader that asks before it makes its iterator learns what it must find, and one
// that asks after learns what it may show. If the stream has no head even then, nobody
// had opened it when the iterator was made: all that it shows was there at the start.
func (s *Store) durableSeq(stream string, unknown uint64) uint64 {
	if h, ok := s.heads.Load(stream); ok {
		return h.seq.Load()
	}
	return unknown
}

// loadHead reads the end of a stream from disk.
func (s *Store) loadHead(stream string) (_ *head, err error) {
	h := &head{stream: stream}
	epoch, err := s.number(stream, headEpoch)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.number(stream, headSnapshot)
	if err != nil {
		return nil, err
	}
	iter, err := s.events(stream)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, iter.Close()) }()
	last, err := lastRecord(iter)
	if err != nil {
		return nil, s.corruption(stream, "its records", err)
	}
	if last.count > 0 {
		epoch = max(epoch, last.epoch)
		h.seq.Store(last.last())
	}
	h.epoch.Store(epoch)
	h.snapshot.Store(snapshot)
	return h, nil
}

// number reads one field of a head; 0 if it was never written.
func (s *Store) number(stream string, field byte) (uint64, error) {
	key := headKey(stream, field)
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, s.corruption(stream, "its head", err)
	}
	n, err := unsealNumber(key, value)
	if closeErr := closer.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return 0, s.corruption(stream, "its head", err)
	}
	return n, nil
}

func decode(iter *pebble.Iterator) (record, error) {
	value, err := iter.ValueAndErr()
	if err != nil {
		return record{}, err
	}
	return decodeRecord(iter.Key(), value)
}

func keySeq(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// lastRecord returns the newest record of a stream, or an empty one. Looking backwards
// can touch a damaged block of another stream that lies before this one in the same
// table; then it goes through the stream from its start.
func lastRecord(iter *pebble.Iterator) (last record, err error) {
	if iter.Last() {
		return decode(iter)
	}
	if iter.Error() == nil {
		return record{}, nil
	}
	for ok := iter.First(); ok; ok = iter.Next() {
		if last, err = decode(iter); err != nil {
			return record{}, err
		}
	}
	return last, iter.Error()
}

// seek moves to a record at or before the one that holds seq, or to the first one
// behind it: to the nearest, unless damage forbids looking backwards.
func seek(iter *pebble.Iterator, stream string, seq uint64) bool {
	if seq > 1 && seq < math.MaxUint64 && iter.SeekLT(appendEventKey(nil, stream, seq+1)) {
		return true
	}
	return iter.First()
}

// Read implements journal.Store. It also checks that no event is missing.
func (s *Store) Read(ctx context.Context, stream string, after uint64, fn func(journal.Event) error) (err error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return err
	}
	present := s.durableSeq(stream, 0)
	iter, err := s.events(stream)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iter.Close()) }()
	durable := s.durableSeq(stream, math.MaxUint64)
	if after >= durable {
		return nil
	}
	expected := uint64(0) // seq of the next record; 0 if any will do
	for ok := seek(iter, stream, after+1); ok; ok = iter.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		first := keySeq(iter.Key())
		if first > durable {
			return nil
		}
		r, err := decode(iter)
		if err != nil {
			return s.corruption(stream, fmt.Sprintf("the record of event %d", first), err)
		}
		if (expected == 0 && first > after+1) || (expected != 0 && first != expected) {
			return s.corruption(stream, fmt.Sprintf("events %d to %d are missing", max(expected, after+1), first-1), errMissing)
		}
		expected = r.last() + 1
		if err := each(r, after, fn); err != nil {
			if err == journal.ErrStop { //nolint:errorlint // a callback returns ErrStop itself
				return nil
			}
			return err
		}
	}
	if err := iter.Error(); err != nil {
		return s.corruption(stream, fmt.Sprintf("a record from event %d on", max(expected, after+1)), err)
	}
	if max(expected, after+1) <= present {
		return s.corruption(stream, fmt.Sprintf("events %d to %d are missing", max(expected, after+1), present), errMissing)
	}
	return nil
}

// each calls fn for the events of a decoded record after the given seq.
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
func (s *Store) Get(_ context.Context, stream string, seq uint64, dst []byte) (_ []byte, err error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return dst, err
	}
	iter, err := s.events(stream)
	if err != nil {
		return dst, err
	}
	defer func() { err = errors.Join(err, iter.Close()) }()
	if seq == 0 || seq > s.durableSeq(stream, math.MaxUint64) {
		return dst, journal.ErrNotFound
	}
	r, err := findRecord(iter, stream, seq)
	if err != nil {
		return dst, s.corruption(stream, fmt.Sprintf("the record of event %d", seq), err)
	}
	if seq < r.first || r.count == 0 {
		return dst, journal.ErrNotFound
	}
	err = each(r, seq-1, func(e journal.Event) error {
		dst = append(dst, e.Data...)
		return journal.ErrStop
	})
	_ = err // always ErrStop
	return dst, nil
}

// findRecord returns the record that ends at or behind seq first, or an empty one.
func findRecord(iter *pebble.Iterator, stream string, seq uint64) (record, error) {
	for ok := seek(iter, stream, seq); ok; ok = iter.Next() {
		r, err := decode(iter)
		if err != nil || r.last() >= seq {
			return r, err
		}
	}
	return record{}, iter.Error()
}

// Snapshot implements journal.Store.
func (s *Store) Snapshot(_ context.Context, stream string) (uint64, []byte, error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return 0, nil, err
	}
	key := appendSnapshotKey(nil, stream)
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil, journal.ErrNotFound
	}
	if err != nil {
		return 0, nil, s.corruption(stream, "its snapshot", err)
	}
	seq, state, err := decodeSnapshot(key, value)
	state = bytes.Clone(state)
	if closeErr := closer.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return 0, nil, s.corruption(stream, "its snapshot", err)
	}
	return seq, state, nil
}

func decodeSnapshot(key, value []byte) (seq uint64, state []byte, err error) {
	payload, err := unseal(key, value)
	if err != nil {
		return 0, nil, err
	}
	seq, state, ok := cutUvarint(payload)
	if !ok {
		return 0, nil, errRecord
	}
	return seq, state, nil
}

// PutSnapshot implements journal.Store. It is not synced: it lies in the log behind
// the events that it sums up.
func (s *Store) PutSnapshot(_ context.Context, stream string, epoch, seq uint64, data []byte) error {
	journal.CheckStream(stream)
	if len(data) > journal.SnapshotMax {
		panic(fmt.Sprintf("embedded: snapshot of %q has %d bytes", stream, len(data)))
	}
	s.snapshots.Lock()
	defer s.snapshots.Unlock()
	h, err := s.ownedHead(stream, epoch, seq)
	if err != nil {
		return err
	}
	if seq <= h.snapshot.Load() {
		return nil
	}
	// An Open may fence the caller from here on. That does no harm: its events up
	// to seq are durable, so the state is the truth whoever owns the stream.
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	key := appendSnapshotKey(nil, stream)
	op := batch.SetDeferred(len(key), sealLen+uvarintLen(seq)+len(data))
	copy(op.Key, key)
	_ = append(binary.AppendUvarint(op.Value[:sealLen], seq), data...) // fills op.Value
	seal(op.Key, op.Value)
	end := headKey(stream, headSnapshot)
	if err := errors.Join(op.Finish(), batch.Set(end, sealedNumber(end, seq), nil)); err != nil {
		return err
	}
	if err := s.apply(batch, false); err != nil {
		return err
	}
	h.snapshot.Store(seq)
	return nil
}

// ownedHead returns the head of a stream if epoch owns it and seq is durable.
func (s *Store) ownedHead(stream string, epoch, seq uint64) (*head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	if level, _ := s.space.now(); level != spaceEnough {
		return nil, journal.ErrReadOnly
	}
	h, ok := s.heads.Load(stream)
	if !ok || h.epoch.Load() != epoch || seq > h.seq.Load() {
		return nil, journal.ErrFenced
	}
	return h, nil
}

// Streams implements journal.Store. A stream is listed as it was when the scan began, or
// later. One whose end cannot be read is listed with what is known of it; Open says what
// is wrong.
func (s *Store) Streams(ctx context.Context, after string, fn func(string, journal.Head) error) (err error) {
	if err := s.usable(); err != nil {
		return err
	}
	heads, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyHead}, UpperBound: []byte{keyHead + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, heads.Close()) }()
	ends, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvents}, UpperBound: []byte{keyEvents + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ends.Close()) }()

	ok := heads.First()
	if after != "" {
		ok = heads.SeekGE(successor(appendStream(nil, keyHead, after)))
	}
	for ok {
		if err := ctx.Err(); err != nil {
			return err
		}
		var stream string
		var h journal.Head
		stream, h, ok = nextHead(heads)
		if live, open := s.heads.Load(stream); open {
			h = live.journalHead()
		} else {
			h.Seq = lastSeq(ends, stream)
		}
		if err := fn(stream, h); err != nil {
			if err == journal.ErrStop { //nolint:errorlint // a callback returns ErrStop itself
				return nil
			}
			return err
		}
	}
	if err := heads.Error(); err != nil {
		return s.corruption("", "the list of streams", err)
	}
	return nil
}

// nextHead gathers the fields of the stream under the iterator and moves behind them.
func nextHead(iter *pebble.Iterator) (stream string, h journal.Head, more bool) {
	for more = true; more; more = iter.Next() {
		name, field, ok := splitHeadKey(iter.Key())
		if !ok {
			continue
		}
		if stream == "" {
			stream = string(name)
		} else if string(name) != stream {
			return stream, h, true
		}
		n, err := unsealNumber(iter.Key(), iter.Value())
		if err != nil {
			continue
		}
		switch field {
		case headEpoch:
			h.Epoch = n
		case headSnapshot:
			h.SnapshotSeq = n
		}
	}
	return stream, h, false
}

// lastSeq reads the seq of a stream's newest event without checking its record.
func lastSeq(ends *pebble.Iterator, stream string) uint64 {
	prefix := appendStream(nil, keyEvents, stream)
	if !ends.SeekLT(successor(prefix)) || !bytes.HasPrefix(ends.Key(), prefix) {
		return 0
	}
	value := ends.Value()
	if len(value) < sealLen {
		return 0
	}
	r, err := recordHeader(ends.Key(), value[sealLen:])
	if err != nil {
		return 0
	}
	return r.last()
}
