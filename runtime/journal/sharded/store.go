// Package sharded is one journal over several, so that more than one server carries it.
//
// A stream lives on one shard, by a hash of its name that never changes; so the number
// and the order of the shards must not change either, and whoever opens them sees to
// that. The rows of some tables lie beside a stream, and all others on the first shard.
// Lists are merged in their order.
//
// What concerns several streams is done on each shard by itself: a group, and a change
// of rows, is all or nothing on each of them. A shard that fails or hangs does so for
// its own streams: a journal.Committer keeps a queue for each.
package sharded

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Beside says, by table, which stream a row's key lies beside.
type Beside map[string]func(key string) (stream string)

// Store implements journal.Sharded.
type Store struct {
	shards []journal.Store
	beside Beside
	rows   tables
}

// New makes one Store of several, at least one. Closing it closes them.
func New(shards []journal.Store, beside Beside) *Store {
	if len(shards) == 0 {
		panic("sharded: no shards")
	}
	s := &Store{shards: shards, beside: beside}
	s.rows = tables{s: s}
	for _, shard := range shards {
		s.rows.shards = append(s.rows.shards, shard.Tables())
	}
	return s
}

// Shards implements journal.Sharded.
func (s *Store) Shards() []journal.Store { return s.shards }

// Shard implements journal.Sharded.
func (s *Store) Shard(stream string) int {
	return int(xxhash.Sum64String(stream) % uint64(len(s.shards))) //nolint:gosec // less than the number of shards
}

func (s *Store) of(stream string) journal.Store { return s.shards[s.Shard(stream)] }

// each calls fn for all shards at once and joins what they say. A panic of one is the
// caller's.
func (s *Store) each(fn func(i int) error) error {
	errs, bugs := make([]error, len(s.shards)), make([]any, len(s.shards))
	var all sync.WaitGroup
	for i := range s.shards {
		all.Go(func() {
			defer func() { bugs[i] = recover() }()
			errs[i] = fn(i)
		})
	}
	all.Wait()
	for _, bug := range bugs {
		if bug != nil {
			panic(bug)
		}
	}
	return errors.Join(errs...)
}

// Open implements journal.Store.
func (s *Store) Open(ctx context.Context, stream string) (journal.Head, error) {
	return s.of(stream).Open(ctx, stream)
}

// Release implements journal.Store.
func (s *Store) Release(stream string, epoch uint64) { s.of(stream).Release(stream, epoch) }

// Head implements journal.Store.
func (s *Store) Head(ctx context.Context, stream string) (journal.Head, error) {
	return s.of(stream).Head(ctx, stream)
}

// Superseded implements journal.Store. If some shards cannot tell, it returns what the
// others do beside the error.
func (s *Store) Superseded(ctx context.Context, dst []string, owned []journal.Ownership) ([]string, error) {
	parts, found := make([][]journal.Ownership, len(s.shards)), make([][]string, len(s.shards))
	for _, o := range owned {
		i := s.Shard(o.Stream)
		parts[i] = append(parts[i], o)
	}
	err := s.each(func(i int) (err error) {
		found[i], err = s.shards[i].Superseded(ctx, nil, parts[i])
		return err
	})
	for _, streams := range found {
		dst = append(dst, streams...)
	}
	return dst, err
}

// Commit implements journal.Store, on all shards at once. A Committer commits on each
// shard by itself instead, so that none waits for another.
func (s *Store) Commit(group []*journal.Write) error {
	parts := make([][]*journal.Write, len(s.shards))
	for _, w := range group {
		i := s.Shard(w.Stream)
		parts[i] = append(parts[i], w)
	}
	return s.each(func(i int) error {
		if len(parts[i]) == 0 {
			return nil
		}
		return s.shards[i].Commit(parts[i])
	})
}

// Read implements journal.Store.
func (s *Store) Read(ctx context.Context, stream string, after uint64, fn func(journal.Event) error) error {
	return s.of(stream).Read(ctx, stream, after, fn)
}

// Openings implements journal.Chronicle, for shards that do.
func (s *Store) Openings(ctx context.Context, stream string, fn func(journal.Opening) error) error {
	if c, ok := s.of(stream).(journal.Chronicle); ok {
		return c.Openings(ctx, stream, fn)
	}
	return nil
}

// Get implements journal.Store.
func (s *Store) Get(ctx context.Context, stream string, seq uint64, dst []byte) ([]byte, error) {
	return s.of(stream).Get(ctx, stream, seq, dst)
}

// Snapshot implements journal.Store.
func (s *Store) Snapshot(ctx context.Context, stream string) (uint64, []byte, error) {
	return s.of(stream).Snapshot(ctx, stream)
}

// PutSnapshot implements journal.Store.
func (s *Store) PutSnapshot(ctx context.Context, stream string, epoch, seq uint64, data []byte) error {
	return s.of(stream).PutSnapshot(ctx, stream, epoch, seq, data)
}

// Streams implements journal.Store.
func (s *Store) Streams(ctx context.Context, after string, fn func(string, journal.Head) error) error {
	return merge(len(s.shards), func(i int, fn func(string, journal.Head) error) error {
		return s.shards[i].Streams(ctx, after, fn)
	}, fn)
}

// merge calls fn for what several scans call theirs for, in the order of the names. Each
// scan stands still while another one's turn lasts, and no longer than fn wants more.
func merge[V any](n int, scan func(i int, fn func(string, V) error) error, fn func(string, V) error) error {
	errs := make([]error, n) // of the scans
	next := make([]func() (string, V, bool), n)
	names, values, more := make([]string, n), make([]V, n), make([]bool, n)
	for i := range n {
		pull, stop := iter.Pull2(func(yield func(string, V) bool) {
			errs[i] = scan(i, func(name string, value V) error {
				if !yield(name, value) {
					return journal.ErrStop
				}
				return nil
			})
		})
		defer stop()
		next[i] = pull
		names[i], values[i], more[i] = pull()
	}
	for {
		if err := errors.Join(errs...); err != nil {
			return err
		}
		first := -1
		for i := range n {
			if more[i] && (first < 0 || names[i] < names[first]) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		if err := fn(names[first], values[first]); err != nil {
			if err == journal.ErrStop { //nolint:errorlint // a callback returns ErrStop itself
				return nil
			}
			return err
		}
		names[first], values[first], more[first] = next[first]()
	}
}

// Tables implements journal.Store.
func (s *Store) Tables() journal.Tables { return &s.rows }

// Stats implements journal.Store. The journal is read-only if a shard is.
func (s *Store) Stats() (sum journal.Stats) {
	for _, shard := range s.shards {
		st := shard.Stats()
		sum.Streams += st.Streams
		sum.Groups += st.Groups
		sum.Writes += st.Writes
		sum.Events += st.Events
		sum.Bytes += st.Bytes
		sum.Refused += st.Refused
		sum.BytesWritten += st.BytesWritten
		sum.DiskFree += st.DiskFree
		sum.Corrupt += st.Corrupt
		sum.ReadOnly = sum.ReadOnly || st.ReadOnly
		sum.Recovery.Took = max(sum.Recovery.Took, st.Recovery.Took)
	}
	return sum
}

// GiveUp implements journal.Patient, for shards that do.
func (s *Store) GiveUp() {
	for _, shard := range s.shards {
		if p, ok := shard.(journal.Patient); ok {
			p.GiveUp()
		}
	}
}

// Close implements journal.Store.
func (s *Store) Close() error { return s.each(func(i int) error { return s.shards[i].Close() }) }

// Watch implements journal.Watcher, for shards that do.
func (s *Store) Watch(ctx context.Context, fn func(journal.Change)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := make(chan journal.Change)
	var watching sync.WaitGroup
	for _, shard := range s.shards {
		if w, ok := shard.(journal.Watcher); ok {
			watching.Go(func() {
				w.Watch(ctx, func(c journal.Change) {
					select {
					case changes <- c:
					case <-ctx.Done():
					}
				})
			})
		}
	}
	go func() {
		watching.Wait()
		close(changes)
	}()
	for c := range changes {
		fn(c)
	}
}
