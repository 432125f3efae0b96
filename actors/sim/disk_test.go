package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// disk is what outlives a process.
type disk interface {
	// mount opens the journal for a new process.
	mount(fatal func(error)) (journal.Store, error)
	// tear lets the power fail during the next commit's sync.
	tear(rng *rand.Rand)
	// crash takes the process away, and of what was not synced some part.
	crash(rng *rand.Rand) error
}

// memoryDisk syncs at once.
type memoryDisk struct{ store *journaltest.Memory }

func (d *memoryDisk) mount(func(error)) (journal.Store, error) { return d.store, nil }
func (d *memoryDisk) tear(*rand.Rand)                          {}

func (d *memoryDisk) crash(*rand.Rand) error {
	d.store = d.store.Reopen()
	return nil
}

// pebbleDisk is pebble's crashable file system. How much of what was not synced
// has reached it is up to pebble's own goroutines, so a seed repeats only if
// all of that is lost.
type pebbleDisk struct {
	some  bool // of what was not synced, half or all may be kept
	fs    *vfs.MemFS
	store *embedded.Store
	rng   atomic.Pointer[rand.Rand] // set: the next sync of the log is the last
	torn  *vfs.MemFS                // what was on disk when the power failed in that sync
}

func (d *pebbleDisk) mount(fatal func(error)) (journal.Store, error) {
	fs := errorfs.Wrap(d.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
		if sync && strings.HasSuffix(op.Path, ".log") {
			if rng := d.rng.Swap(nil); rng != nil {
				d.torn = d.clone(rng)
			}
		}
		return nil
	}))
	zero := func() int64 { return 0 }
	store, err := embedded.Open(embedded.Config{
		Dir: "journal", FS: fs, Now: zero, Wall: zero, Fatal: fatal,
		MemTable: 256 << 10, Recent: 2 << 10, Cache: 1 << 20, Reserve: -1,
	})
	d.store = store
	return store, err
}

func (d *pebbleDisk) tear(rng *rand.Rand) { d.rng.Store(rng) }

func (d *pebbleDisk) clone(rng *rand.Rand) *vfs.MemFS {
	cfg := vfs.CrashCloneCfg{}
	if d.some {
		cfg.UnsyncedDataPercent, cfg.RNG = 50*rng.IntN(3), rng
	}
	return d.fs.CrashClone(cfg)
}

func (d *pebbleDisk) crash(rng *rand.Rand) error {
	left := d.torn
	if left == nil {
		left = d.clone(rng)
	}
	var err error
	if d.store != nil {
		err = d.store.Close() // for its goroutines; it writes to what is no longer there
	}
	d.fs, d.store, d.torn = left, nil, nil
	d.rng.Store(nil)
	return err
}

// errKilled is the panic that ends a process in the middle of an operation.
var errKilled = errors.New("killed")

var errDisk = errors.New("sim: input/output error")

// faultyStore is the journal as the node sees it.
type faultyStore struct {
	journal.Store
	w *world
}

// mortal runs one operation, which the process may not survive.
func (s faultyStore) mortal(operation func()) {
	kill := s.w.strikes(faultKill)
	if kill && s.w.flip() {
		panic(errKilled)
	}
	operation()
	if kill {
		panic(errKilled)
	}
}

func (s faultyStore) Open(ctx context.Context, stream string) (head journal.Head, err error) {
	s.mortal(func() { head, err = s.Store.Open(ctx, stream) })
	if err == nil {
		s.w.owners[stream] = owner{epoch: head.Epoch}
	}
	if s.w.strikes(faultLoad) {
		return journal.Head{}, errDisk
	}
	return head, err
}

func (s faultyStore) Read(ctx context.Context, stream string, after uint64, fn func(journal.Event) error) error {
	if s.w.strikes(faultLoad) {
		return errDisk
	}
	return s.Store.Read(ctx, stream, after, fn)
}

func (s faultyStore) Snapshot(ctx context.Context, stream string) (uint64, []byte, error) {
	if s.w.strikes(faultLoad) {
		return 0, nil, errDisk
	}
	seq, data, err := s.Store.Snapshot(ctx, stream)
	if err == nil {
		s.w.covered("journal", "snapshot restored")
	}
	return seq, data, err
}

func (s faultyStore) Commit(group []*journal.Write) (err error) {
	fails, tears := s.w.strikes(faultCommit), s.w.strikes(faultTorn)
	if fails && s.w.flip() {
		return errDisk
	}
	if tears {
		s.w.disk.tear(s.w.rng)
	}
	s.mortal(func() { err = s.commit(group) })
	if tears {
		panic(errKilled)
	}
	if fails {
		return errDisk
	}
	return err
}

// commit refuses on a full disk what is not urgent.
func (s faultyStore) commit(group []*journal.Write) error {
	pass := make([]*journal.Write, 0, len(group))
	for _, write := range group {
		if s.w.readOnly && write.Count > 0 && !write.Urgent {
			write.Err = journal.ErrReadOnly
			continue
		}
		pass = append(pass, write)
	}
	return s.Store.Commit(pass)
}

func (s faultyStore) PutSnapshot(ctx context.Context, stream string, epoch, seq uint64, data []byte) (err error) {
	if s.w.readOnly {
		return journal.ErrReadOnly
	}
	if s.w.strikes(faultTables) {
		return errDisk
	}
	s.mortal(func() { err = s.Store.PutSnapshot(ctx, stream, epoch, seq, data) })
	return err
}

func (s faultyStore) Stats() journal.Stats { return journal.Stats{ReadOnly: s.w.readOnly} }

func (s faultyStore) Tables() journal.Tables { return faultyTables{s.Store.Tables(), s} }

type faultyTables struct {
	journal.Tables
	store faultyStore
}

func (t faultyTables) Apply(ctx context.Context, mutations []journal.Mutation, durable bool) (err error) {
	if t.store.w.readOnly {
		return journal.ErrReadOnly
	}
	if t.store.w.strikes(faultTables) {
		return errDisk
	}
	t.store.mortal(func() { err = t.Tables.Apply(ctx, mutations, durable) })
	return err
}
