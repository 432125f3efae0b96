package embedded

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The way of a group, with mu held throughout:
//
//	judge    each write against the in-memory head of its stream: no read
//	divide   what is small goes into one group, what is not gets a record
//	encode   both, into a reused batch
//	apply    one batch, one sync
//	advance  the heads, which lets readers see the events
//
// The batch is visible inside pebble before its sync returns; readers therefore
// never look past the head of a stream.

// noWrite ends a chain in Store.next.
const noWrite = -1

// Commit implements journal.Store.
func (s *Store) Commit(group []*journal.Write) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	level := s.space.look()
	for i, w := range group {
		if w.Err = s.judge(w, level); w.Err != nil {
			s.counts.refused.Add(1)
		} else if w.Count > 0 {
			s.chain(group, i)
		}
	}
	if len(s.touched) == 0 {
		return nil
	}
	s.divide()
	for _, h := range s.chosen {
		s.encode(s.batch, group, h)
	}
	s.encodeGroup(group)
	s.deleteGroups()
	if err := s.apply(s.batch, !plantSkipSync); err != nil {
		return err
	}
	s.batch.Reset()
	s.advance(group)
	return nil
}

// judge says whether a write may be appended behind those accepted before it. It
// leaves the head in s.judged.
func (s *Store) judge(w *journal.Write, level spaceLevel) error {
	if w.Count == 0 {
		return nil
	}
	if !level.admits(w.Urgent) {
		return journal.ErrReadOnly
	}
	// Neighbours in a group often belong to one hot stream.
	if s.judged == nil || s.judged.released || s.judged.stream != w.Stream {
		s.judged, _ = s.heads.Load(w.Stream)
	}
	h := s.judged
	if h == nil || h.released || h.epoch.Load() != w.Epoch && !plantDropEpoch || h.seq.Load()+h.count+1 != w.Seq {
		return journal.ErrFenced
	}
	if count, ok := journal.CountEvents(w.Data); !ok || count != w.Count || len(w.Data) > journal.WriteMax {
		panic(fmt.Sprintf("embedded: a write to %q claims %d events in %d bytes, which do not hold them", w.Stream, w.Count, len(w.Data)))
	}
	return nil
}

// chain adds write i to what its stream gets from this group.
func (s *Store) chain(group []*journal.Write, i int) {
	for len(s.next) <= i {
		s.next = append(s.next, noWrite)
	}
	h := s.judged
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
	s.counts.writes.Add(1)
}

// encode adds to a batch the record of one stream: what is recent of it, and what it gets
// from the group in hand.
func (s *Store) encode(batch *pebble.Batch, group []*journal.Write, h *head) {
	epoch, count := h.epoch.Load(), h.recentCount+h.count
	op := batch.SetDeferred(eventKeyLen(h.stream), recordLen(epoch, count, len(h.recent)+h.bytes))
	appendEventKey(op.Key[:0], h.stream, h.seq.Load()+1-h.recentCount)
	value := append(appendRecord(op.Value[:sealLen], epoch, count), h.recent...)
	_ = s.appendFrames(value, group, h) // fills op.Value
	seal(op.Key, op.Value)
	if err := op.Finish(); err != nil {
		panic(err) // only an indexed batch can fail here
	}
}

// appendFrames appends the events that a stream gets from the group in hand.
func (s *Store) appendFrames(dst []byte, group []*journal.Write, h *head) []byte {
	if h.count == 0 {
		return dst
	}
	for i := h.firstWrite; i != noWrite; i = s.next[i] {
		dst = append(dst, group[i].Data...)
	}
	return dst
}

// advance makes the group visible and clears what it left behind.
func (s *Store) advance(group []*journal.Write) {
	s.recentMu.Lock()
	defer s.recentMu.Unlock()
	s.counts.groups.Add(1)
	for _, h := range s.chosen {
		forget(h)
	}
	for i, h := range s.touched {
		if !h.chosen {
			s.remember(group, h)
		}
		h.seq.Add(h.count)
		s.counts.events.Add(h.count)
		s.counts.bytes.Add(uint64(h.bytes))
		h.count, h.bytes = 0, 0
		s.touched[i] = nil
	}
	for i, h := range s.chosen {
		h.chosen = false
		s.chosen[i] = nil
	}
	s.nextGroup += uint64(len(s.entries))
	s.chosen, s.touched = s.chosen[:0], s.touched[:0]
	s.judged = nil
}

// apply hands a batch to pebble. A failed write-ahead log comes back as an error of
// SyncWait, or as a panic out of Apply once pebble has noticed it earlier; pebble's
// own Commit would call Logger.Fatalf. Either way the store is of no more use.
func (s *Store) apply(batch *pebble.Batch, durable bool) error {
	err := caught(func() error {
		if !durable {
			return s.db.Apply(batch, pebble.NoSync)
		}
		if err := s.db.ApplyNoSyncWait(batch, pebble.Sync); err != nil {
			return err
		}
		return batch.SyncWait()
	})
	if err != nil {
		return s.failWith(err)
	}
	return nil
}
