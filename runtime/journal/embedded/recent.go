package embedded

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// A group is one key, whatever the number of streams in it: a key for each of them
// would cost a search through pebble's memtable for each. Where a stream's records are
// to stay, beside its other ones, they come later, many groups at a time:
//
//	Commit  one key, all records of the group    log and memtable, synced
//	        the same records stay in memory       head.recent, where readers find them
//	settle  a key for each stream                 one sorted table that pebble takes in
//	        the groups are deleted
//
// A crash between the two leaves the groups. Open finds them, leaves out what a table
// already holds, and the store goes on as if it had never ended.
//
// Tables are numbered, in the table and where the groups are deleted. If the second
// number is the higher one, the manifest has lost a table, and Open refuses.

const (
	// recentMax bounds the bytes that wait to be settled: more is refused as if the
	// disk were full, which will be why they could not be settled.
	recentMax = 128 << 20
	// settledMax is about how many bytes of events are joined in one record. A reader
	// of one event reads, and checks, the record as a whole.
	settledMax = 8 << 10
	// settlingName is the table that is being written.
	settlingName = "SETTLING.sst"
	// arenaChunk is how much memory for groups is got at once.
	arenaChunk = 1 << 20
)

// recent returns what of a stream has not been settled. It is never changed after.
//
// A reader that asks for it before it makes its iterator finds each event in at least
// one of them.
func (s *Store) recent(stream string) []record {
	h, ok := s.heads.Load(stream)
	if !ok {
		return nil
	}
	s.recentMu.RLock()
	defer s.recentMu.RUnlock()
	return h.recent
}

// keep adds to what is recent the record that the group in hand has for a stream. The
// caller holds mu, and recentMu alone.
func (s *Store) keep(h *head, r record) {
	if len(h.recent) == 0 {
		s.unsettled = append(s.unsettled, h)
	}
	h.recent = append(h.recent, r)
}

// room returns n bytes that stay as long as somebody refers to them.
func (s *Store) room(n int) []byte {
	if cap(s.arena)-len(s.arena) < n {
		s.arena = make([]byte, 0, max(arenaChunk, n))
	}
	at := len(s.arena)
	s.arena = s.arena[:at+n]
	return s.arena[at : at+n : at+n]
}

// work is what settle moves: the recent records of some streams as of one moment.
type work struct {
	groups uint64 // the number of the first group that is not in it
	table  uint64 // the number of the table that it goes to
	bytes  int64
	heads  []*head
	counts []int // of records of heads[i], the oldest
}

// settler settles whenever enough has gathered, until the store is closed.
func (s *Store) settler() {
	defer close(s.settled)
	for range s.settleWake {
		if err := s.settle(); err != nil {
			s.cfg.Log.Error("journal: the newest events could not be settled; that is tried again", "err", err)
		}
	}
}

// settle moves the recent records to where they stay. After an error they are where
// they were.
func (s *Store) settle() error {
	w, streams := s.gather()
	if len(w.heads) == 0 {
		return nil
	}
	path := s.cfg.FS.PathJoin(s.cfg.Dir, settlingName)
	if err := s.writeTable(path, w.table, streams); err != nil {
		return errors.Join(err, removeIfThere(s.cfg.FS, path))
	}
	if err := s.takeIn(path); err != nil {
		return errors.Join(err, removeIfThere(s.cfg.FS, path))
	}
	return s.forget(w)
}

// gather returns what there is to settle, and the records of each stream in the order
// of their keys.
func (s *Store) gather() (w work, streams [][]record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.unsettled, func(a, b *head) int { return cmp.Compare(a.stream, b.stream) })
	w = work{groups: s.group, table: s.tables + 1, bytes: s.recentBytes, heads: slices.Clone(s.unsettled)}
	for _, h := range w.heads {
		w.counts = append(w.counts, len(h.recent))
		streams = append(streams, h.recent)
	}
	return w, streams
}

// writeTable writes and syncs a table of the records of some streams.
func (s *Store) writeTable(path string, number uint64, streams [][]record) error {
	f, err := s.cfg.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.opts.MakeWriterOptions(0, s.db.TableFormat()))
	if err := w.Set(tableMark, sealedNumber(tableMark, number)); err != nil {
		return errors.Join(err, w.Close())
	}
	var key, value []byte
	for _, records := range streams {
		for len(records) > 0 {
			n := joined(records)
			key, value = appendSettled(key[:0], value[:0], records[:n])
			if err := w.Set(key, value); err != nil {
				return errors.Join(err, w.Close())
			}
			records = records[n:]
		}
	}
	return w.Close()
}

// joined returns how many of the first records become one.
func joined(records []record) int {
	size := 0
	for i, r := range records {
		size += len(r.frames)
		if i > 0 && (r.epoch != records[0].epoch || size > settledMax) {
			return i
		}
	}
	return len(records)
}

// appendSettled makes one sealed record of some that follow each other.
func appendSettled(key, value []byte, records []record) (_, _ []byte) {
	first, count := &records[0], uint64(0)
	for i := range records {
		count += records[i].count
	}
	key = appendEventKey(key, first.stream, first.first)
	value = append(value, make([]byte, sealLen)...)
	value = binary.AppendUvarint(value, first.epoch)
	value = binary.AppendUvarint(value, count)
	for i := range records {
		value = append(value, records[i].frames...)
	}
	seal(key, value)
	return key, value
}

// takeIn makes a table part of the database.
func (s *Store) takeIn(path string) error {
	return caught(func() error { return s.db.Ingest(context.Background(), []string{path}) })
}

// forget deletes the groups whose records have been settled, and lets go of these. It
// need not be synced: groups that come back are known to be settled.
func (s *Store) forget(w work) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	err := errors.Join(
		batch.DeleteRange(groupKey(0), groupKey(w.groups), nil),
		batch.Set(markGroups, sealedNumber(markGroups, w.groups), nil),
		batch.Set(markTables, sealedNumber(markTables, w.table), nil),
	)
	if err != nil {
		return err
	}
	if err := s.apply(batch, false); err != nil {
		return err
	}
	s.tables = w.table
	s.recentMu.Lock()
	defer s.recentMu.Unlock()
	s.recentBytes -= w.bytes
	s.unsettled = slices.Clone(s.unsettled[len(w.heads):]) // those that came since
	for i, h := range w.heads {
		h.recent = slices.Clone(h.recent[w.counts[i]:]) // and let the memory of the others go
		if len(h.recent) > 0 {
			s.unsettled = append(s.unsettled, h)
		} else {
			s.letGo(h)
		}
	}
	return nil
}

// letGo drops the head of a stream that nobody owns once all of it is settled. The
// caller holds mu.
func (s *Store) letGo(h *head) {
	if !h.owned && len(h.recent) == 0 {
		h.dropped = true
		s.heads.Delete(h.stream)
	}
}

// findGroups makes what the groups hold recent again, except for what has been settled.
// Nobody else uses the store yet.
func (s *Store) findGroups() (err error) {
	if err := s.readMarks(); err != nil {
		return err
	}
	// Those that were deleted are not even looked at: their blocks may be damaged.
	iter, err := s.db.NewIter(&pebble.IterOptions{LowerBound: groupKey(s.group), UpperBound: []byte{keyGroup + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iter.Close()) }()
	for ok := iter.First(); ok; ok = iter.Next() {
		value, err := iter.ValueAndErr()
		if err != nil {
			return s.damagedGroup(err)
		}
		records, err := decodeGroup(iter.Key(), value)
		if err != nil {
			return s.damagedGroup(err)
		}
		s.group = groupNumber(iter.Key()) + 1
		s.recentBytes += int64(len(value))
		for _, r := range records {
			if err := s.findAgain(r); err != nil {
				return err
			}
		}
	}
	if err := iter.Error(); err != nil {
		return s.damagedGroup(err)
	}
	return nil
}

// readMarks finds how far settling has come, and whether the newest table is there.
func (s *Store) readMarks() error {
	deleted, err := s.number(markTables)
	if err != nil {
		return s.damagedGroup(err)
	}
	if s.group, err = s.number(markGroups); err != nil {
		return s.damagedGroup(err)
	}
	if s.tables, err = s.number(tableMark); err != nil {
		return s.damagedGroup(err)
	}
	if s.tables < deleted {
		return &journal.CorruptError{
			File: s.cfg.Dir, Detail: fmt.Sprintf("the manifest knows %d of %d tables of settled events", s.tables, deleted), Remedy: remedy,
		}
	}
	return nil
}

func (s *Store) damagedGroup(err error) error {
	return &journal.CorruptError{File: s.cfg.Dir, Detail: "a group that was synced: " + err.Error(), Remedy: remedy}
}

// findAgain keeps a record of a group that was found, unless a table has it. A stream
// that cannot be read stays as it is: whoever opens it is told.
func (s *Store) findAgain(r record) error {
	h, known := s.heads.Load(r.stream)
	if !known {
		var err error
		if h, err = s.loadHead(r.stream); errors.Is(err, journal.ErrCorrupt) {
			return nil
		} else if err != nil {
			return err
		}
	}
	switch seq := h.seq.Load(); {
	case r.last() <= seq:
		return nil
	case r.first != seq+1:
		return s.damagedGroup(fmt.Errorf("stream %q goes on at event %d after %d", r.stream, r.first, seq))
	}
	r.stream = h.stream
	r.frames = append(s.room(len(r.frames))[:0], r.frames...)
	s.keep(h, r)
	h.seq.Store(r.last())
	h.epoch.Store(max(h.epoch.Load(), r.epoch))
	s.heads.Store(h.stream, h)
	return nil
}

// removeIfThere removes a file.
func removeIfThere(fs vfs.FS, path string) error {
	if _, err := fs.Stat(path); err != nil {
		return nil //nolint:nilerr // then there is nothing to remove
	}
	return fs.Remove(path)
}

// groupEntryLen is the size of a stream's entry in a group.
func groupEntryLen(r *record, frames int) int {
	return uvarintLen(uint64(len(r.stream))) + len(r.stream) + uvarintLen(r.epoch) + uvarintLen(r.first) + uvarintLen(r.count) +
		uvarintLen(uint64(frames)) + frames //nolint:gosec // lengths
}

// appendGroupEntry begins the entry of a stream: its frames follow.
func appendGroupEntry(dst []byte, r *record, frames int) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(r.stream)))
	dst = append(dst, r.stream...)
	dst = binary.AppendUvarint(dst, r.epoch)
	dst = binary.AppendUvarint(dst, r.first)
	dst = binary.AppendUvarint(dst, r.count)
	return binary.AppendUvarint(dst, uint64(frames)) //nolint:gosec // a length
}

// decodeGroup checks a group as a whole and returns its records, whose frames lie in
// value.
func decodeGroup(key, value []byte) (records []record, err error) {
	rest, err := unseal(key, value)
	if err != nil {
		return nil, err
	}
	if len(key) != groupKeyLen {
		return nil, errRecord
	}
	for len(rest) > 0 {
		var r record
		if r, rest, err = cutGroupEntry(rest); err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

func cutGroupEntry(data []byte) (r record, rest []byte, err error) {
	stream, rest, ok := cutBytes(data)
	for _, field := range []*uint64{&r.epoch, &r.first, &r.count} {
		if ok {
			*field, rest, ok = cutUvarint(rest)
		}
	}
	if ok {
		r.frames, rest, ok = cutBytes(rest)
	}
	if !ok || !r.sound() || len(stream) == 0 || len(stream) > journal.StreamNameMax || strings.IndexByte(string(stream), 0) >= 0 {
		return record{}, nil, errRecord
	}
	if count, ok := journal.CountEvents(r.frames); !ok || uint64(count) != r.count { //nolint:gosec // a count
		return record{}, nil, errRecord
	}
	r.stream = string(stream)
	return r, rest, nil
}

// cutBytes takes a length and as many bytes off data.
func cutBytes(data []byte) (b, rest []byte, ok bool) {
	n, rest, ok := cutUvarint(data)
	if !ok || n > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}
