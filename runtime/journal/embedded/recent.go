package embedded

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/klauspost/compress/s2"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// A record costs pebble a search for its place, which over many streams is most of what
// a group costs. So what is small goes into one key together, the group, and stays in
// memory beside it: these events are recent. A stream's record is written once there is
// enough for it, or the group is too old:
//
//	Commit  a group of what is small               in one batch, synced
//	        records of the streams that have enough
//	        a deletion of the groups that nobody needs
//
// A record is written from memory, by the same kind of batch as everything else, and
// takes all that is recent of its stream. Groups are deleted in that batch or a later
// one, so the log never has the deletion without the records. A crash can leave both a
// group and a record of the same events, which are known by their numbers.
//
// Only a stream with an owner has recent events: they get their record when it goes, or
// another one comes. A start gives all that it finds in groups their records. What is
// in the groups of a stream that cannot be read stays there.
//
// A group's number is how many bytes of entries were written in groups before it.

const (
	// recordBytes is how much a stream gathers before it gets a record, in bytes. A
	// reader of one event reads, and checks, the record as a whole.
	recordBytes = 2 << 10
	// smallBytes is how much a stream may get at once, in bytes, and be in a group: it
	// is written twice, and a search costs less than that for more.
	smallBytes = 1 << 10
)

// recentSince is a stream with recent events, or one that had some.
type recentSince struct {
	h     *head
	since uint64 // number of the group with the oldest of them
}

// recent returns the recent events of a stream as if they had their record. The result
// is the caller's own.
//
// A reader that asks for it before it makes its iterator finds each event in one of them.
func (s *Store) recent(stream string) record {
	h, ok := s.heads.Load(stream)
	if !ok {
		return record{}
	}
	s.recentMu.RLock()
	defer s.recentMu.RUnlock()
	return record{
		first:  h.seq.Load() + 1 - h.recentCount,
		epoch:  h.epoch.Load(),
		count:  h.recentCount,
		frames: bytes.Clone(h.recent),
	}
}

// divide decides which streams get a record with the group in hand. The others of the
// touched ones are in the group.
func (s *Store) divide() {
	room := groupMax
	for _, h := range s.touched {
		if room -= entryHeadMax + h.bytes; !s.grouped || len(s.touched) == 1 || h.bytes > smallBytes || len(h.recent)+h.bytes > recordBytes || room < 0 {
			s.choose(h)
		}
	}
	for len(s.waiting) > 0 {
		w := s.waiting[0]
		if current := w.h.recentCount > 0 && w.h.since == w.since; current && !w.h.chosen {
			if s.nextGroup-w.since < uint64(s.cfg.Recent) {
				break
			}
			s.choose(w.h)
		}
		s.waiting[0] = recentSince{}
		s.waiting = s.waiting[1:]
	}
	// In the order of their keys, so that pebble finds each place near the last.
	slices.SortFunc(s.chosen, func(a, b *head) int { return cmp.Compare(a.stream, b.stream) })
}

func (s *Store) choose(h *head) {
	h.chosen = true
	s.chosen = append(s.chosen, h)
}

// encodeGroup adds the group to the batch, if anything is in it. It is compressed: its
// events are written once more, and the orders of a moment are much alike.
func (s *Store) encodeGroup(group []*journal.Write) {
	s.entries = s.entries[:0]
	for _, h := range s.touched {
		if !h.chosen {
			s.entries = appendEntry(s.entries, h.stream, h.epoch.Load(), h.seq.Load()+1, h.count, h.bytes)
			s.entries = s.appendFrames(s.entries, group, h)
		}
	}
	if len(s.entries) == 0 {
		return
	}
	s.key = appendGroupKey(s.key[:0], s.nextGroup)
	s.value = sealGroup(s.value, s.key, s.entries)
	if err := s.batch.Set(s.key, s.value, nil); err != nil {
		panic(err) // only an indexed batch can fail here
	}
}

// sealGroup returns the sealed value of a group, in the memory of dst if that is enough.
func sealGroup(dst, key, entries []byte) []byte {
	dst = slices.Grow(dst[:0], sealLen+s2.MaxEncodedLen(len(entries)))
	packed := s2.EncodeSnappy(dst[sealLen:cap(dst)], entries)
	dst = dst[:sealLen+len(packed)]
	seal(key, dst)
	return dst
}

// deleteGroups adds to the batch a deletion of the groups whose events all have their
// record, or get it with this batch, once there are enough of them.
func (s *Store) deleteGroups() {
	oldest := s.nextGroup
	if len(s.waiting) > 0 {
		oldest = s.waiting[0].since
	}
	if oldest-s.deleted < uint64(s.cfg.Recent) {
		return
	}
	s.deleted = oldest
	if err := s.batch.DeleteRange(groupKey(s.keep), groupKey(oldest), nil); err != nil {
		panic(err) // only an indexed batch can fail here
	}
}

// remember makes recent what the group has of a stream. The caller holds mu and recentMu.
func (s *Store) remember(group []*journal.Write, h *head) {
	if h.recentCount == 0 {
		h.since = s.nextGroup
		s.waiting = append(s.waiting, recentSince{h, s.nextGroup})
	}
	h.recent = s.appendFrames(h.recent, group, h)
	h.recentCount += h.count
}

// forget lets go of the recent events of a stream, which have their record. The caller
// holds mu and recentMu.
func forget(h *head) {
	h.recentCount = 0
	if h.recent = h.recent[:0]; h.count == 0 {
		h.recent = nil // a stream that gets little keeps no memory for more
	}
}

// settle writes the record of a stream's recent events, if there are any. Like the
// epochs it becomes durable with the next group: until then the groups are there. The
// caller holds mu.
func (s *Store) settle(h *head) error {
	if h.recentCount == 0 {
		return nil
	}
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	s.encode(batch, nil, h)
	if err := s.apply(batch, false); err != nil {
		return err
	}
	s.recentMu.Lock()
	defer s.recentMu.Unlock()
	forget(h)
	return nil
}

// settledKey is there from a clean stop that left no groups to the next start, which then
// need not look for any: where they would be there can be damage to what was deleted, or
// to the records of one stream.
const settledKey = "c"

// settleAll leaves no recent events and no groups but those that must stay. The caller
// holds mu.
func (s *Store) settleAll() error {
	if !s.grouped {
		return nil
	}
	for _, w := range s.waiting {
		if err := s.settle(w.h); err != nil {
			return err
		}
	}
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	if s.nextGroup > s.deleted {
		if err := batch.DeleteRange(groupKey(s.keep), groupKey(s.nextGroup), nil); err != nil {
			return err
		}
	}
	if s.keep == 0 {
		if err := batch.Set([]byte(settledKey), sealedNumber([]byte(settledKey), s.nextGroup), nil); err != nil {
			return err
		}
	}
	return s.apply(batch, false)
}

// settled says whether the last stop left no groups. If that cannot be read they are
// looked for.
func (s *Store) settled() bool {
	value, closer, err := s.db.Get([]byte(settledKey))
	if err != nil {
		return false
	}
	_, err = unsealNumber([]byte(settledKey), value)
	return errors.Join(err, closer.Close()) == nil
}

// unknownGroup is what is told of a group that cannot be read.
const unknownGroup = "a synced group of events, of which streams cannot be told"

// settleLeft gives what a crash has left in groups their records. A stream that cannot be
// read is left alone, and so is each group that has something of it which may have no
// record: whoever asks for the stream is told why.
func (s *Store) settleLeft() (err error) {
	if !s.grouped {
		return nil
	}
	settled := s.settled()
	if err := s.unsettle(); err != nil || settled {
		return err
	}
	iter, err := s.db.NewIter(&pebble.IterOptions{LowerBound: groupKey(0), UpperBound: []byte{keyGroup + 1}})
	if err != nil {
		return err
	}
	defer func() { err = closed(iter, err) }()
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	ends := map[string]uint64{} // seq of the newest event that has its record
	for ok := iter.First(); ok; ok = iter.Next() {
		value, err := iter.ValueAndErr()
		if err != nil {
			return s.corruption("", unknownGroup, err)
		}
		entries, size, err := decodeGroup(iter.Key(), value)
		if err != nil {
			return s.corruption("", unknownGroup, err)
		}
		number, stays := groupNumber(iter.Key()), false
		for i := range entries {
			readable, err := s.settleEntry(batch, ends, &entries[i])
			if err != nil {
				return err
			}
			stays = stays || !readable
		}
		if stays {
			if err := batch.DeleteRange(groupKey(s.keep), groupKey(number), nil); err != nil {
				return err
			}
			s.keep = number + 1
		}
		s.nextGroup = number + uint64(size)
	}
	if err := iter.Error(); err != nil {
		return s.corruption("", unknownGroup, err)
	}
	if s.deleted = s.nextGroup; s.nextGroup == 0 {
		return nil
	}
	if err := batch.DeleteRange(groupKey(s.keep), groupKey(s.nextGroup), nil); err != nil {
		return err
	}
	return s.apply(batch, false)
}

// unsettle makes the next start look for groups, unless there is a clean stop before. It
// need not be synced: it lies in the log before each group.
func (s *Store) unsettle() error {
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	if err := batch.Delete([]byte(settledKey), nil); err != nil {
		return err
	}
	return s.apply(batch, false)
}

// settleEntry adds to the batch the record of what a group has of a stream, unless there
// is one. It says whether the stream can be read.
func (s *Store) settleEntry(batch *pebble.Batch, ends map[string]uint64, e *entry) (readable bool, err error) {
	if _, bad := s.unreadable[e.stream]; bad {
		return false, nil
	}
	end, known := ends[e.stream]
	if !known {
		h, err := s.loadHead(e.stream)
		if err != nil {
			s.cfg.Log.Error("journal: a stream cannot be read; its newest events stay where they are", "stream", e.stream, "err", err)
			s.unreadable[e.stream] = err
			return false, nil
		}
		end = h.seq.Load()
	}
	if e.last() > end {
		end = e.last()
		key := appendEventKey(nil, e.stream, e.first)
		if err := batch.Set(key, sealedRecord(key, &e.record), nil); err != nil {
			return false, err
		}
	}
	ends[e.stream] = end
	return true, nil
}

// entry is what a group has of one stream.
type entry struct {
	stream string
	record
}

// appendEntry begins an entry, which the frames follow.
func appendEntry(dst []byte, stream string, epoch, first, count uint64, frames int) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(stream)))
	dst = append(dst, stream...)
	dst = binary.AppendUvarint(dst, epoch)
	dst = binary.AppendUvarint(dst, first)
	dst = binary.AppendUvarint(dst, count)
	return binary.AppendUvarint(dst, uint64(frames))
}

// groupMax bounds the entries of a group in bytes, entryHeadMax what stands before the
// events of each.
const (
	groupMax     = 16 << 20
	entryHeadMax = journal.StreamNameMax + 5*binary.MaxVarintLen64
)

// decodeGroup checks a group as a whole. size is that of its entries in bytes.
func decodeGroup(key, value []byte) (entries []entry, size int, err error) {
	packed, err := unseal(key, value)
	if err != nil {
		return nil, 0, err
	}
	size, err = s2.DecodedLen(packed)
	if err != nil || size == 0 || size > groupMax || len(key) != groupKeyLen {
		return nil, 0, errRecord
	}
	rest, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, 0, errRecord
	}
	for len(rest) > 0 {
		var e entry
		var ok bool
		if e, rest, ok = cutEntry(rest); !ok {
			return nil, 0, errRecord
		}
		entries = append(entries, e)
	}
	return entries, size, nil
}

func cutEntry(data []byte) (e entry, rest []byte, ok bool) {
	stream, rest, ok := cutBytes(data)
	for _, field := range []*uint64{&e.epoch, &e.first, &e.count} {
		if ok {
			*field, rest, ok = cutUvarint(rest)
		}
	}
	if ok {
		e.frames, rest, ok = cutBytes(rest)
	}
	if !ok || !e.sound() || len(stream) == 0 || len(stream) > journal.StreamNameMax || bytes.IndexByte(stream, 0) >= 0 {
		return entry{}, nil, false
	}
	e.stream = string(stream)
	count, ok := journal.CountEvents(e.frames)
	return e, rest, ok && uint64(count) == e.count
}

// cutBytes takes a length and as many bytes off data.
func cutBytes(data []byte) (b, rest []byte, ok bool) {
	n, rest, ok := cutUvarint(data)
	if !ok || n > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}
