// Package journal is where decisions become facts. It keeps streams of opaque
// events, one stream for each deal, and a few key-value tables beside them.
//
// A stream has one owner at a time, named by an epoch. Open takes a stream over:
// it raises the epoch and thereby fences every earlier owner. Events are numbered
// from 1 without gaps, and a Write says which number its first event takes, so an
// append lands only when (stream, epoch, seq) are all what the writer believes
// them to be. The append is the fence; there is no lease and no lock besides it.
// A writer whose append was refused has state that is ahead of the truth: it must
// drop that state, Open again and replay.
//
// Writes reach a Store through a Committer, which gathers what has queued, commits
// it as one durable group and completes every waiter in the order of submission.
// Whatever Read, Get and Snapshot return has reached stable storage, except that a
// stream whose owner is writing in another process is seen as of some recent time.
//
// A Store never repairs silently: what cannot be read is an ErrCorrupt that names
// the stream, and the other streams go on serving. A failed sync is never tried
// again, because the kernel may have dropped the pages that failed: Commit returns
// the error, and the process must end and recover from what is on disk.
package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of one write. A Store may refuse larger ones with a panic: they are
// checked where a command is accepted, long before it becomes an event.
const (
	// StreamNameMax is the longest stream name in bytes.
	StreamNameMax = 128
	// EventMax is the largest single event in bytes.
	EventMax = 64 << 10
	// WriteMax is the most framed data that one Write carries, in bytes.
	WriteMax = 1 << 20
	// TableNameMax and RowKeyMax bound the names of tables and the keys in them.
	TableNameMax = 64
	RowKeyMax    = 1024
	// SnapshotMax is the largest snapshot in bytes.
	SnapshotMax = 256 << 20
)

// The errors of this package. Compare with errors.Is.
var (
	// ErrFenced refuses an append whose epoch or seq is not the stream's own.
	ErrFenced = errors.New("journal: fenced: the stream has another owner or a longer tail")
	// ErrReadOnly refuses a write because the disk is nearly full. Nothing of the
	// write was kept. Only Urgent writes pass until space returns.
	ErrReadOnly = errors.New("journal: read-only: the disk is nearly full")
	// ErrNotFound says that there is no such event, snapshot or key.
	ErrNotFound = errors.New("journal: not found")
	// ErrConflict refuses a conditional change of tables: a row is not what was
	// expected, or somebody changes it at this moment. Nothing was changed.
	ErrConflict = errors.New("journal: conflict: a row is not what was expected")
	// ErrUnreachable says that a server which keeps the journal cannot be reached, or
	// does not serve now. Whether a change was made is unknown; a later try may succeed.
	ErrUnreachable = errors.New("journal: out of reach")
	// ErrStop is returned by a callback to end a scan early without an error.
	ErrStop = errors.New("journal: stop")
	// ErrCorrupt is matched by every *CorruptError.
	ErrCorrupt = errors.New("journal: corrupt")
	// ErrClosed refuses the use of a closed Store or Committer.
	ErrClosed = errors.New("journal: closed")
	// ErrFailed completes writes after a commit has failed: whether they are on
	// disk is unknown until the next start has read it, or the next Open of the stream
	// where the Store can go on.
	ErrFailed = errors.New("journal: commit failed, the outcome is unknown until the stream is read again")
)

// CorruptError says what cannot be read and what to do about it.
type CorruptError struct {
	Stream string // the stream, or "" if the damage is not within one
	File   string // the file or folder, if known
	Detail string // what was found
	Remedy string // what the operator can do
}

// Error gives all fields on one line.
func (e *CorruptError) Error() string {
	where := e.File
	if e.Stream != "" {
		where = fmt.Sprintf("stream %q", e.Stream)
		if e.File != "" {
			where += " in " + e.File
		}
	}
	msg := "journal: corrupt " + where + ": " + e.Detail
	if e.Remedy != "" {
		msg += "; " + e.Remedy
	}
	return msg
}

// Is makes every CorruptError match ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Head is how far a stream has come.
type Head struct {
	Epoch       uint64 // of the newest owner; 0 if nobody has opened the stream
	Seq         uint64 // of the newest event; 0 if there is none
	SnapshotSeq uint64 // of the event that the newest snapshot includes; 0 if none
}

// Ownership is what an owner believes of its stream.
type Ownership struct {
	Stream string
	Epoch  uint64 // as returned by Open
}

// Event is one event as it was appended.
type Event struct {
	Seq   uint64
	Epoch uint64 // of the owner that appended it
	Data  []byte // valid only during the callback
}

// Write is one conditional append: events that stand or fall together. It belongs
// to the Committer from Submit until Done is called, Data included.
type Write struct {
	Stream string
	Epoch  uint64 // as returned by Open; 0 is nobody's, and fenced
	Seq    uint64 // of the first event: one more than the stream's newest
	// Count is the number of events in Data. A Write with none is a barrier: it
	// is completed after all that was submitted before it, and looks at no stream.
	Count int
	Data  []byte // framed by AppendEvent, at most WriteMax bytes
	// Urgent writes pass while the disk is nearly full (confirm and cancel, which
	// free stock and end holds).
	Urgent bool
	// Err is the outcome, set before Done is called: nil, ErrFenced, ErrReadOnly,
	// ErrCorrupt, ErrFailed or ErrClosed.
	Err  error
	Done Completer
}

// Completer is told of the outcome of a Write.
type Completer interface {
	// Committed is called once for each Write, on the committer's goroutine, in
	// the order of submission, after the sync. It must not block. The Write is
	// the callee's again.
	Committed(w *Write)
}

// Store keeps streams and tables. All methods but Commit may be called from any
// goroutine.
type Store interface {
	// Open makes the caller the owner of the stream and returns its head with the
	// caller's epoch. Appends of every earlier owner fail from here on. A stream
	// that was never written is empty and opens at epoch 1.
	Open(ctx context.Context, stream string) (Head, error)

	// Release ends the ownership that Open gave under this epoch, if it is still
	// the stream's: appends fail until the next Open, and the Store need not keep
	// the stream in memory. No append of the caller may be under way.
	Release(stream string, epoch uint64)

	// Head returns how far a stream has come, or ErrNotFound if nobody has ever
	// opened it. It changes nothing.
	Head(ctx context.Context, stream string) (Head, error)

	// Superseded appends to dst the streams that have a newer owner than the one
	// named, in any order: whoever still believes in an older epoch must end.
	Superseded(ctx context.Context, dst []string, owned []Ownership) ([]string, error)

	// Commit makes one group durable and sets the Err of each of its writes: a
	// refused write does not hold up the others, and writes to one stream are
	// judged in the order of the group. A returned error means that the outcome
	// of the whole group is unknown and the Store is of no more use. Only one
	// goroutine may commit.
	Commit(group []*Write) error

	// Read calls fn for the events after the given seq, in order. An error of fn
	// ends the scan and is returned, ErrStop ends it without one. fn may use the
	// Store and take its time: others are not held up by it.
	Read(ctx context.Context, stream string, after uint64, fn func(Event) error) error

	// Get appends the data of one event to dst. ErrNotFound if it has not been
	// appended, or is not yet durable.
	Get(ctx context.Context, stream string, seq uint64, dst []byte) ([]byte, error)

	// Snapshot returns the newest snapshot, or ErrNotFound. The data is the
	// caller's own.
	Snapshot(ctx context.Context, stream string) (seq uint64, data []byte, err error)

	// PutSnapshot keeps data as the state of the stream after event seq, which
	// must be durable. ErrFenced unless epoch is the stream's own, so that the
	// state of a dead activation is never kept. It need not be durable on return:
	// a lost snapshot costs a longer replay and nothing else. One that is older
	// than the one at hand is dropped.
	PutSnapshot(ctx context.Context, stream string, epoch, seq uint64, data []byte) error

	// Streams calls fn for every stream with a name after the given one, in
	// order of name. ErrStop ends the scan.
	Streams(ctx context.Context, after string, fn func(stream string, head Head) error) error

	// Tables returns the tables that live beside the streams.
	Tables() Tables

	Stats() Stats

	// Close ends the Store; what was not durable may be lost. No other call may
	// be under way, and no later one is answered but with ErrClosed.
	Close() error
}

// Tables are small ordered maps for what is not a stream: rules, keys, cursors
// and what is derived from the streams.
type Tables interface {
	// Get returns the value of a key as the caller's own, or ErrNotFound.
	Get(ctx context.Context, table, key string) ([]byte, error)

	// Scan calls fn for the keys that begin with prefix and are greater than
	// after, in order. The value is valid only during the call. ErrStop ends the
	// scan. fn may call Apply; the scan goes on over what there was at its start.
	Scan(ctx context.Context, table, prefix, after string, fn func(key string, value []byte) error) error

	// Names returns the tables that have a row, in order.
	Names(ctx context.Context) ([]string, error)

	// Apply makes all mutations or none. If durable it returns after the sync and
	// no reader sees the mutations before; otherwise they reach the disk with, at
	// the latest, the next durable write, and never without those applied before. As
	// long as the Store is open none is lost.
	Apply(ctx context.Context, mutations []Mutation, durable bool) error

	// ApplyIf is Apply, provided that every expected row is as expected at that
	// moment, whoever else changes it. ErrConflict: one is not, or somebody changes
	// it right now, and nothing was changed; the caller looks again and decides anew.
	ApplyIf(ctx context.Context, expected []Expectation, mutations []Mutation, durable bool) error
}

// Watcher is a Store that other processes write to at the same time.
type Watcher interface {
	// Watch tells fn, on the caller's goroutine, what may have changed, no matter who
	// changed it: first of all, then within a second of each commit. It goes on until
	// ctx ends or the Store is closed. Told are new streams and the rows of the small
	// tables that nodes keep in memory, some of them more than once.
	Watch(ctx context.Context, fn func(Change))
}

// Patient is a Store that tries again while what it writes to is away.
type Patient interface {
	// GiveUp ends that, now and from now on: what is not acknowledged by then is
	// completed with ErrFailed. It is for a process that ends, and may be called while
	// a Commit is under way.
	GiveUp()
}

// Sharded is a Store over several, each of which has some of the streams.
type Sharded interface {
	Store
	Shards() []Store
	// Shard returns which one a stream belongs to. A barrier without a stream is
	// behind what was submitted to the shard of "".
	Shard(stream string) int
}

// Change is what may have changed: one of its parts is set.
type Change struct {
	Stream     string // one that is new
	Table, Key string // a row; of a table of queues, the queue
	All        bool   // whatever there is
}

// Expectation is what a row must be for a change to be made.
type Expectation struct {
	Table, Key string // as of a Mutation
	Value      []byte // nil: there is no such row
}

// Mutation sets or deletes one key of a table.
type Mutation struct {
	Table string // without 0x00, 1 to TableNameMax bytes
	Key   string // any bytes, 1 to RowKeyMax of them
	Value []byte // nil deletes
}

// Check panics if a name is out of bounds: names come from code, not from users.
func (m *Mutation) Check() { checkRow(m.Table, m.Key) }

// Check panics if a name is out of bounds.
func (e *Expectation) Check() { checkRow(e.Table, e.Key) }

func checkRow(table, key string) {
	if table == "" || len(table) > TableNameMax || strings.IndexByte(table, 0) >= 0 {
		panic(fmt.Sprintf("journal: bad table name %q", table))
	}
	if key == "" || len(key) > RowKeyMax {
		panic(fmt.Sprintf("journal: bad key %q in table %q", key, table))
	}
}

// CheckStream panics if a stream name is out of bounds: 1 to StreamNameMax bytes
// without 0x00. Names come from ids that were checked at the edge.
func CheckStream(name string) {
	if name == "" || len(name) > StreamNameMax || strings.IndexByte(name, 0) >= 0 {
		panic(fmt.Sprintf("journal: bad stream name %q", name))
	}
}

// Stats is what a Store tells of itself. Counters count since the Store was made.
type Stats struct {
	Streams      int    // streams with an owner in this process
	Groups       uint64 // durable groups
	Writes       uint64 // appends accepted
	Events       uint64
	Bytes        uint64 // of framed events accepted
	Refused      uint64 // appends answered by ErrFenced, ErrReadOnly or ErrCorrupt
	BytesWritten uint64 // to disk, for every purpose; 0 if the Store cannot tell
	DiskFree     uint64 // bytes; 0 if the Store cannot tell
	ReadOnly     bool   // the disk-full alarm is up
	Corrupt      int    // streams found corrupt since the start
	Recovery     Recovery
}

// Recovery is what the start of a Store found.
type Recovery struct {
	Took      time.Duration
	TornBytes int64  // cut from the end of the log: written but never synced
	TornFile  string // where they were
}
