package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"regexp"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// corruption turns an error met while reading a stream into what is told of it.
func (s *Store) corruption(stream, what string, err error) error {
	switch {
	case errors.Is(err, errChecksum), errors.Is(err, errFormat), errors.Is(err, errRecord), errors.Is(err, errMissing), pebble.IsCorruptionError(err):
		s.corrupt.Store(stream, struct{}{})
		corrupt := &journal.CorruptError{Stream: stream, File: s.place(err), Detail: what + ": " + firstLine(err), Remedy: remedy}
		if stream != "" {
			corrupt.Remedy = remedyStream
		}
		return corrupt
	default:
		return fmt.Errorf("embedded: read %q: %w", stream, err)
	}
}

// place is the file that an error met while reading is about, or the folder.
func (s *Store) place(err error) string {
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return info.Path
	}
	return s.cfg.Dir
}

// inconsistent is how pebble names a table that is not as its list says, among others on
// lines of their own.
var inconsistent = regexp.MustCompile(`(?m)^L\d+: (\d+): (.*)$`)

// lostTables returns the error for tables that are missing or have another size than the
// list of tables says, nil if err is about none.
func (s *Store) lostTables(err error) error {
	found := inconsistent.FindAllStringSubmatch(err.Error(), -1)
	if len(found) == 0 {
		return nil
	}
	var details []string
	for _, table := range found {
		name, what := table[1]+".sst", "has another size than the list of tables says: "+table[2]
		if _, err := s.cfg.FS.Stat(s.cfg.FS.PathJoin(s.cfg.Dir, name)); errors.Is(err, fs.ErrNotExist) {
			what = "is missing"
		}
		details = append(details, name+" "+what)
	}
	return &journal.CorruptError{
		File: s.cfg.FS.PathJoin(s.cfg.Dir, found[0][1]+".sst"), Detail: strings.Join(details, ", "), Remedy: remedyTables,
	}
}

// firstLine is what an error of pebble says to a reader: what follows, if anything, is for
// programs, or a stack.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// closed closes what was read from and returns what the read has come to. An iterator that
// failed says so again when it is closed.
func closed(c io.Closer, err error) error {
	if closeErr := c.Close(); err == nil {
		return closeErr
	}
	return err
}

// events returns an iterator over the records of one stream, beside which there may be
// recent events.
func (s *Store) events(stream string) (*pebble.Iterator, error) {
	if err, bad := s.unreadable[stream]; bad {
		return nil, err
	}
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
	defer func() { err = closed(iter, err) }()
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
	present, recent := s.durableSeq(stream, 0), s.recent(stream)
	iter, err := s.events(stream)
	if err != nil {
		return err
	}
	defer func() { err = closed(iter, err) }()
	c := chain{after: after, last: s.durableSeq(stream, math.MaxUint64), fn: fn}
	recorded := c.last // what is behind is not looked for in records
	if recent.count > 0 {
		recorded, c.last = recent.first-1, recent.last()
	}
	for ok := after < recorded && seek(iter, stream, after+1); ok; ok = iter.Next() {
		first := keySeq(iter.Key())
		if first > recorded {
			break
		}
		r, err := decode(iter)
		if err != nil {
			return s.corruption(stream, fmt.Sprintf("the record of event %d", first), err)
		}
		if err := c.add(ctx, r); err != nil {
			return s.ended(stream, &c, first, err)
		}
	}
	if err := iter.Error(); err != nil {
		return s.corruption(stream, fmt.Sprintf("a record from event %d on", c.want()), err)
	}
	if recent.count > 0 && after < recent.last() {
		if err := c.add(ctx, recent); err != nil {
			return s.ended(stream, &c, recent.first, err)
		}
	}
	if c.want() <= present {
		return s.missing(stream, c.want(), present)
	}
	return nil
}

// chain hands the records of a stream to a reader, in order and without a gap.
type chain struct {
	after, last uint64 // events behind after are handed over, up to last
	next        uint64 // seq of the next record; 0 if any will do
	fn          func(journal.Event) error
}

// want is the first event that is still to be handed over.
func (c *chain) want() uint64 { return max(c.next, c.after+1) }

func (c *chain) add(ctx context.Context, r record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if (c.next == 0 && r.first > c.after+1) || (c.next != 0 && r.first != c.next) {
		return errMissing
	}
	c.next = r.last() + 1
	return each(r, c.after, c.last, c.fn)
}

// ended is what a reader is told whose chain did not take the record of event first.
func (s *Store) ended(stream string, c *chain, first uint64, err error) error {
	switch err { //nolint:errorlint // a callback returns ErrStop itself, and errMissing is ours
	case journal.ErrStop:
		return nil
	case errMissing:
		return s.missing(stream, c.want(), first-1)
	default:
		return err
	}
}

func (s *Store) missing(stream string, from, to uint64) error {
	return s.corruption(stream, fmt.Sprintf("events %d to %d are missing", from, to), errMissing)
}

// each calls fn for the events of a decoded record after the given seq, up to last: of a
// record that is being written some may be durable.
func each(r record, after, last uint64, fn func(journal.Event) error) error {
	frames := r.frames
	for seq := r.first; seq <= min(r.last(), last); seq++ {
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
	if recent := s.recent(stream); recent.count > 0 && seq >= recent.first {
		return appendData(dst, recent, seq)
	}
	iter, err := s.events(stream)
	if err != nil {
		return dst, err
	}
	defer func() { err = closed(iter, err) }()
	if seq == 0 || seq > s.durableSeq(stream, math.MaxUint64) {
		return dst, journal.ErrNotFound
	}
	r, err := findRecord(iter, stream, seq)
	if err != nil {
		return dst, s.corruption(stream, fmt.Sprintf("the record of event %d", seq), err)
	}
	return appendData(dst, r, seq)
}

// appendData appends the data of an event of a record, if it has it.
func appendData(dst []byte, r record, seq uint64) ([]byte, error) {
	if r.count == 0 || seq < r.first || seq > r.last() {
		return dst, journal.ErrNotFound
	}
	err := each(r, seq-1, seq, func(e journal.Event) error {
		dst = append(dst, e.Data...)
		return nil
	})
	return dst, err
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
// later. One whose end cannot be read is listed with what is known of it, and as if it had
// events; Open says what is wrong.
func (s *Store) Streams(ctx context.Context, after string, fn func(string, journal.Head) error) (err error) {
	if err := s.usable(); err != nil {
		return err
	}
	heads, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyHead}, UpperBound: []byte{keyHead + 1}})
	if err != nil {
		return err
	}
	defer func() { err = closed(heads, err) }()
	ends, err := s.streamEnds()
	if err != nil {
		return err
	}
	defer func() { _ = ends.Close() }() // what is damaged of a stream is Open's to tell

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
			if h.Seq, err = ends.lastSeq(stream); err != nil {
				return err
			}
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

// streamEnds looks for the newest events of streams without an owner.
type streamEnds struct {
	s        *Store
	released uint64 // Store.released before there was the iterator
	*pebble.Iterator
}

func (s *Store) streamEnds() (*streamEnds, error) {
	ends := &streamEnds{s: s, released: s.released.Load()}
	var err error
	ends.Iterator, err = s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvents}, UpperBound: []byte{keyEvents + 1}})
	return ends, err
}

// lastSeq reads the seq of a stream's newest event without checking its record. The
// iterator does not show what was recent then of a stream that was released since.
func (ends *streamEnds) lastSeq(stream string) (uint64, error) {
	if ends.released != ends.s.released.Load() {
		anew, err := ends.s.streamEnds()
		if err != nil {
			return 0, err
		}
		*anew, *ends = *ends, *anew
		if err := anew.Close(); err != nil {
			return 0, err
		}
	}
	prefix := appendStream(nil, keyEvents, stream)
	if !ends.SeekLT(successor(prefix)) && ends.Error() != nil {
		return ends.s.damagedEnd(stream)
	}
	if !ends.Valid() || !bytes.HasPrefix(ends.Key(), prefix) {
		return 0, nil
	}
	value := ends.Value()
	if len(value) < sealLen {
		return someSeq, nil
	}
	r, err := recordHeader(ends.Key(), value[sealLen:])
	if err != nil {
		return someSeq, nil //nolint:nilerr // Open says what is wrong
	}
	return r.last(), nil
}

// someSeq is what is listed for the newest event of a stream that has some, if nobody can
// tell how many.
const someSeq = 1

// damagedEnd is lastSeq where there is damage at the end of the stream, or right before.
func (s *Store) damagedEnd(stream string) (uint64, error) {
	h, err := s.loadHead(stream)
	if errors.Is(err, journal.ErrCorrupt) {
		return someSeq, nil
	}
	if err != nil {
		return 0, err
	}
	return h.seq.Load(), nil
}
