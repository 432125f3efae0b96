// Package embedded is the journal of a single node, on pebble in one folder.
//
// A group becomes one batch. A hot deal gets a record, which is one key-value however
// many orders gathered, and what many deals get a little of is one key-value together,
// until each of them has enough for a record (recent.go). Appends are
// judged against heads in memory, which only this process can move: the folder is
// locked. Readers see a stream up to the head that the last sync has reached, never
// what pebble holds beyond it.
//
// What goes wrong is sorted into three kinds. A record that cannot be read is an
// ErrCorrupt of its stream, and nothing else stops. A disk that runs full turns the
// store read-only except for urgent writes, until space returns. A failed write or
// sync of the log ends the store: Config.Fatal is called, and the process must end and
// start again.
//
// FORMAT.md in the parent folder describes the keys and records.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/puzpuzpuz/xsync/v4"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// What an operator can do about damage that this package cannot undo: to what all need,
// and to one stream.
const (
	remedy       = "nothing has been deleted, and starting again will not help: keep a copy of the data folder, and restore the folder from a backup as docs/backup.md says"
	remedyTables = "this program deletes no table that is on its list, so somebody or the file system did: put the file back if it was moved; else starting again will not help: keep a copy of the data folder, and restore the folder from a backup as docs/backup.md says"
	remedyStream = "the other streams are served, and nothing has been deleted: do what docs/runbooks/DoorbusterStreamsCorrupt.md says before a backup is restored"
)

// Config says where the store lives and how it is tuned. Sizes are in bytes.
type Config struct {
	// Dir is the data folder; it is made if it is missing. Required.
	Dir string
	// FS is the file system; nil means the operating system's.
	FS vfs.FS
	// Now reads a monotonic clock in nanoseconds. Required.
	Now func() int64
	// Wall reads the time in Unix milliseconds; it is shown to a second process
	// that finds the folder locked. Required.
	Wall func() int64
	// Fatal is told once, on any goroutine, of a failure after which nothing can
	// be made durable. It must end the process: pebble may hang or crash if it
	// goes on. Required.
	Fatal func(error)
	// Log is told of what an operator should see. nil discards it.
	Log *slog.Logger

	// LowSpace raises the disk-full alarm when less is free. Default 256 MiB: a
	// flush of the memtable needs room beside the log it replaces.
	LowSpace int64
	// Reserve is the size of the file that is given up when next to nothing is left, so that
	// urgent writes go on. Default 64 MiB; negative means none.
	Reserve int64
	// MemTable is how much gathers in memory and in the log before it is written
	// out sorted. Default 32 MiB. It bounds recovery, and larger tables are
	// rewritten less often.
	MemTable int64
	// Recent is how many bytes of groups are written until the oldest events in them
	// get their record. Default 4 MiB. The recent events take up to twice as much
	// memory, beside 2 KiB that each open stream may keep for its next ones, and the groups
	// as much on disk.
	Recent int64
	// Cache holds blocks that were read. Default 32 MiB.
	Cache int64
}

func (cfg *Config) validate() error {
	if cfg.Dir == "" || cfg.Now == nil || cfg.Wall == nil || cfg.Fatal == nil {
		return errors.New("embedded: Dir, Now, Wall and Fatal are required")
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, size := range []struct {
		value   *int64
		initial int64
		least   int64
		name    string
	}{
		{&cfg.LowSpace, 256 << 20, 1, "LowSpace"},
		{&cfg.MemTable, 32 << 20, 256 << 10, "MemTable"},
		{&cfg.Recent, 4 << 20, 1, "Recent"},
		{&cfg.Cache, 32 << 20, 1 << 20, "Cache"},
	} {
		if *size.value == 0 {
			*size.value = size.initial
		}
		if *size.value < size.least {
			return fmt.Errorf("embedded: %s must be at least %d bytes", size.name, size.least)
		}
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = 64 << 20
	}
	cfg.Reserve = max(cfg.Reserve, 0)
	return nil
}

// Store implements journal.Store.
type Store struct {
	cfg      Config
	lock     *pebble.Lock
	cache    *pebble.Cache
	db       *pebble.DB
	space    *space
	spares   *spareFS
	recovery journal.Recovery
	rows     *tables
	grouped  bool // the folder is of the format that has groups

	// unreadable has the streams that had something in groups at the start and could
	// not be read. It does not change after.
	unreadable map[string]error

	opened    atomic.Bool
	closed    atomic.Bool
	failure   atomic.Pointer[error] // the first failure of the log; latched
	failed    chan struct{}         // closed when failure is set
	snapshots sync.Mutex            // held over a PutSnapshot, so that none overtakes
	heads     *xsync.Map[string, *head]
	releases  [releaseStripes]atomic.Uint64 // heads that left the map, by the hash of their stream; move under mu
	seed      maphash.Seed                  // of that hash
	released  atomic.Uint64                 // heads that left the map, all together
	corrupt   *xsync.Map[string, struct{}]  // streams that were found corrupt
	damage    *xsync.Map[string, struct{}]  // what pebble said of each damaged block
	merges    *merges

	counts struct {
		groups, writes, events, bytes, refused atomic.Uint64
	}

	// mu is held over a whole Commit, sync included, so that Open sees a group
	// entirely or not at all. It guards the moves of all heads and the fields below.
	mu        sync.Mutex
	batch     *pebble.Batch
	touched   []*head       // streams that the group in hand appends to
	next      []int         // next[i] is the next write to the stream of write i
	judged    *head         // of the write judged last
	chosen    []*head       // streams that get a record with the group in hand
	key       []byte        // of the group in hand
	value     []byte        // of the group in hand
	entries   []byte        // of the group in hand; empty if all get a record
	waiting   []recentSince // those with recent events, the oldest first; some have gone
	nextGroup uint64        // its number
	deleted   uint64        // groups below are deleted
	keep      uint64        // but not all of those below

	recentMu sync.RWMutex // guards what is recent of heads, beside mu, which who changes it holds too
}

// head is the end of a stream that was opened in this process.
type head struct {
	stream   string
	epoch    atomic.Uint64 // moves under Store.mu
	seq      atomic.Uint64 // Invariant: everything up to here is durable
	snapshot atomic.Uint64 // seq of the newest snapshot
	released bool          // no longer in Store.heads; guarded by Store.mu

	// What has no record yet, the newest recentCount events; they are of this epoch.
	recent      []byte // frames; guarded by Store.recentMu
	recentCount uint64 // guarded by Store.recentMu
	since       uint64 // number of the group that has the first of them; guarded by Store.mu

	// What the group in hand appends; guarded by Store.mu, all zero outside Commit.
	chosen                bool // it gets a record
	firstWrite, lastWrite int
	count                 uint64
	bytes                 int
}

func (h *head) journalHead() journal.Head {
	return journal.Head{Epoch: h.epoch.Load(), Seq: h.seq.Load(), SnapshotSeq: h.snapshot.Load()}
}

// Exists says whether a folder holds a journal. It changes nothing there.
func Exists(dir string) (bool, error) {
	found, err := pebble.Peek(dir, vfs.Default)
	if err != nil {
		return false, fmt.Errorf("journal in %s: %w", dir, err)
	}
	return found.Exists, nil
}

// Open locks the folder, recovers it and returns the store. The error is a
// *LockedError if another process has the folder, and matches journal.ErrCorrupt if
// what was synced cannot be read.
func Open(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	begin := cfg.Now()
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("embedded: data folder: %w", err)
	}
	lock, err := lockFolder(cfg.FS, cfg.Dir, cfg.Wall())
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg:        cfg,
		lock:       lock,
		failed:     make(chan struct{}),
		seed:       maphash.MakeSeed(),
		heads:      xsync.NewMap[string, *head](),
		unreadable: map[string]error{},
		corrupt:    xsync.NewMap[string, struct{}](),
		damage:     xsync.NewMap[string, struct{}](),
		merges:     &merges{now: cfg.Now, looked: begin},
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.recovery.Took = time.Duration(cfg.Now() - begin)
	s.rows = &tables{s: s}
	s.batch = s.db.NewBatch()
	s.opened.Store(true)
	if failure := s.failure.Load(); failure != nil {
		return nil, errors.Join(*failure, lock.Close()) // in the background, too late for pebble.Open to see it
	}
	return s, nil
}

func (s *Store) recover() error {
	format, err := inspectManifest(s.cfg.FS, s.cfg.Dir)
	if err != nil {
		return err
	}
	s.grouped = format != withoutGroups
	end, err := inspectLog(s.cfg.FS, s.cfg.Dir)
	if err != nil {
		return err
	}
	s.space = newSpace(s.cfg.FS, s.cfg.Log, s.cfg.Dir, uint64(s.cfg.LowSpace), uint64(s.cfg.Reserve))
	s.spares = &spareFS{FS: s.cfg.FS, dir: s.cfg.Dir}
	if level, _ := s.space.now(); level == spaceEnough {
		if err := s.spares.fill(s.cfg.MemTable); err != nil {
			s.cfg.Log.Warn("journal: no spare log files, so the first syncs take longer", "err", err)
		}
	}
	if err := s.openPebble(end.file == ""); err != nil {
		if lost := s.lostTables(err); lost != nil {
			return lost
		}
		if pebble.IsCorruptionError(err) {
			return &journal.CorruptError{File: s.place(err), Detail: firstLine(err), Remedy: remedy}
		}
		return fmt.Errorf("embedded: open %s: %w", s.cfg.Dir, err)
	}
	if end.torn > 0 {
		s.recovery.TornBytes, s.recovery.TornFile = end.torn, end.file
		s.cfg.Log.Warn("journal: cut the torn tail of the log; unless the disk has damaged it, it was never synced and nobody was told of it",
			"file", end.file, "bytes", end.torn)
	}
	return nil
}

// openPebble opens the database on a goroutine of its own, because a failure in the
// background ends pebble's goroutine and its Open would wait for that for ever.
func (s *Store) openPebble(fresh bool) error {
	s.cache = pebble.NewCache(s.cfg.Cache)
	opened := make(chan error, 1)
	go func() {
		opened <- caught(func() (err error) {
			if s.db, err = pebble.Open(s.cfg.Dir, s.options()); err != nil {
				return err
			}
			if fresh {
				// Pebble begins the first log of a new folder before it raises the
				// format, so that one has no sync chunks. The next one has.
				err = s.db.Flush()
			}
			if err == nil {
				err = s.settleLeft()
			}
			if err != nil {
				err = errors.Join(err, s.db.Close())
			}
			return err
		})
	}()
	var err error
	select {
	case err = <-opened:
	case <-s.failed:
		return *s.failure.Load() // the cache stays behind with pebble's goroutines
	}
	if err != nil {
		s.cache.Unref()
	}
	return err
}

// caught calls fn and returns the error that it panics with: pebble does so where a
// write or sync fails that it cannot undo. Other panics are bugs and go on.
func caught(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			failure, ok := r.(error)
			if _, bug := r.(runtime.Error); bug || !ok {
				panic(r)
			}
			err = failure
		}
	}()
	return fn()
}

// usable says why the store cannot be used any more.
func (s *Store) usable() error {
	if s.closed.Load() {
		return journal.ErrClosed
	}
	if failure := s.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

// failWith latches a failure of the log and returns what everybody is told. The first
// one also goes to Config.Fatal, once the store is open: until then Open returns it.
func (s *Store) failWith(cause error) error {
	failure := fmt.Errorf("embedded: the journal in %s cannot be made durable: %w; the process must end and start again, because a failed sync is never tried twice", s.cfg.Dir, cause)
	if s.failure.CompareAndSwap(nil, &failure) {
		close(s.failed)
		if s.opened.Load() {
			s.cfg.Fatal(failure)
		}
	}
	return *s.failure.Load()
}

// vitalFailed hears of failures from guardFS. While pebble opens, some of them would
// become panics on its own goroutines, so the one that failed is kept from returning;
// Open gives up and leaves it behind.
func (s *Store) vitalFailed(cause error) {
	_ = s.failWith(cause)
	if !s.opened.Load() {
		select {}
	}
}

// Open implements journal.Store.
func (s *Store) Open(_ context.Context, stream string) (journal.Head, error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return journal.Head{}, err
	}
	h, err := s.lockedHead(stream)
	if err != nil {
		return journal.Head{}, err
	}
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return journal.Head{}, err
	}
	if err := s.settle(h); err != nil {
		return journal.Head{}, err
	}
	epoch := h.epoch.Add(1)
	// The epoch need not be synced: it lies in the log before all that is appended
	// under it, so that either both survive or neither.
	key := headKey(stream, headEpoch)
	if err := s.set(key, sealedNumber(key, epoch)); err != nil {
		return journal.Head{}, err
	}
	return h.journalHead(), nil
}

// lockedHead returns the stream's head, loaded if need be, and locks s.mu.
func (s *Store) lockedHead(stream string) (*head, error) {
	for {
		h, ok := s.heads.Load(stream)
		if !ok {
			// Nobody in this process owns the stream, so what is on disk stands
			// still, unless somebody comes and goes meanwhile; of two that load it at
			// once, the second finds the first's head.
			releases := s.releasesOf(stream)
			before := releases.Load()
			loaded, err := s.loadHead(stream)
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			if releases.Load() == before {
				h, _ = s.heads.LoadOrStore(stream, loaded)
				return h, nil
			}
			s.mu.Unlock()
			continue
		}
		s.mu.Lock()
		if !h.released {
			return h, nil
		}
		s.mu.Unlock()
	}
}

// releaseStripes is how many counts of released heads there are. A load begins again if
// its own count has moved, which other streams seldom do.
const releaseStripes = 1024

func (s *Store) releasesOf(stream string) *atomic.Uint64 {
	return &s.releases[maphash.String(s.seed, stream)%releaseStripes]
}

// Release implements journal.Store.
func (s *Store) Release(stream string, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.heads.Load(stream); ok && h.epoch.Load() == epoch {
		if s.usable() == nil {
			_ = s.settle(h) // it fails with the log, of which everybody is told
		}
		h.released = true
		s.released.Add(1)
		s.heads.Delete(stream)
		s.releasesOf(stream).Add(1)
	}
}

// Head implements journal.Store.
func (s *Store) Head(_ context.Context, stream string) (journal.Head, error) {
	journal.CheckStream(stream)
	if err := s.usable(); err != nil {
		return journal.Head{}, err
	}
	h, ok := s.heads.Load(stream)
	if !ok {
		loaded, err := s.loadHead(stream)
		if err != nil {
			return journal.Head{}, err
		}
		// If somebody has opened it since, the disk may show more than was synced.
		if h, ok = s.heads.Load(stream); !ok {
			h = loaded
		}
	}
	head := h.journalHead()
	if head.Epoch == 0 {
		return journal.Head{}, journal.ErrNotFound
	}
	return head, nil
}

// Superseded implements journal.Store. A stream with an owner in this process is not
// looked for on disk.
func (s *Store) Superseded(ctx context.Context, dst []string, owned []journal.Ownership) ([]string, error) {
	for _, o := range owned {
		head, err := s.Head(ctx, o.Stream)
		if err != nil && !errors.Is(err, journal.ErrNotFound) {
			return dst, err
		}
		if head.Epoch > o.Epoch {
			dst = append(dst, o.Stream)
		}
	}
	return dst, nil
}

// set writes one key, which becomes durable with the next group.
func (s *Store) set(key, value []byte) error {
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	if err := batch.Set(key, value, nil); err != nil {
		return err
	}
	return s.apply(batch, false)
}

// Tables implements journal.Store.
func (s *Store) Tables() journal.Tables { return s.rows }

// Stats implements journal.Store. It looks at the disk, so that an alarm also clears
// on a node that has stopped writing, and at whether tables may be merged again.
func (s *Store) Stats() journal.Stats {
	stats := journal.Stats{
		Streams:  s.heads.Size(),
		Groups:   s.counts.groups.Load(),
		Writes:   s.counts.writes.Load(),
		Events:   s.counts.events.Load(),
		Bytes:    s.counts.bytes.Load(),
		Refused:  s.counts.refused.Load(),
		Corrupt:  s.corrupt.Size(),
		Recovery: s.recovery,
	}
	if s.usable() == nil {
		s.space.look()
		m := s.db.Metrics()
		stats.BytesWritten = bytesWritten(m)
		s.merges.look(stats.Events, int(m.Levels[0].Sublevels))
	}
	level, free := s.space.now()
	stats.ReadOnly, stats.DiskFree = level != spaceEnough, free
	return stats
}

// bytesWritten adds up the log and all tables. Metrics.Total counts the log a second
// time.
func bytesWritten(m *pebble.Metrics) uint64 {
	written := m.WAL.BytesWritten
	for i := range m.Levels {
		l := &m.Levels[i]
		written += l.TableBytesFlushed + l.TableBytesCompacted + l.BlobBytesFlushed + l.BlobBytesCompacted
	}
	return written
}

// Close implements journal.Store. It gives the recent events their records and writes out
// the memtable, so that a clean start replays nothing and finds every byte under a checksum.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Swap(true) {
		return journal.ErrClosed
	}
	if s.failure.Load() != nil {
		// Pebble is in an unknown state, and closing it could wait for ever.
		return s.lock.Close()
	}
	// Without room for it the groups stay, and the next start does it.
	if level, _ := s.space.now(); level != spaceExhausted {
		if err := s.settleAll(); err != nil {
			return errors.Join(err, s.lock.Close()) // as after any failure of the log
		}
	}
	err := errors.Join(s.batch.Close(), s.db.Flush(), s.db.Close())
	s.cache.Unref()
	return errors.Join(err, s.lock.Close())
}
