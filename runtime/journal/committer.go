package journal

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Config tunes a Committer.
type Config struct {
	// GroupWritesMax bounds the writes of one group. Default 4096.
	GroupWritesMax int
	// GroupBytesMax bounds the framed bytes of one group; a single Write may
	// exceed it alone. Default 4 MiB.
	GroupBytesMax int
	// QueuedMax is the number of writes that admission lets be under way at once.
	// A Submit beyond it is a bug and panics. Default 65536.
	QueuedMax int
	// Now reads a monotonic clock in nanoseconds, for Observe. Required if
	// Observe is set.
	Now func() int64
	// Observe is told of each durable group, on the committer's goroutine, of which a
	// Sharded store has several.
	Observe func(Group)
	// Fatal is told of a failed commit, once, before the waiters are. It is meant
	// to end the process: nothing is known of what the disk holds. Required.
	Fatal func(error)
}

// Group describes one durable group.
type Group struct {
	Writes int
	Events int
	Bytes  int   // of framed events
	Nanos  int64 // that Store.Commit took
}

func (cfg *Config) validate() error {
	for _, bound := range []struct {
		value   *int
		initial int
		name    string
	}{
		{&cfg.GroupWritesMax, 4096, "GroupWritesMax"},
		{&cfg.GroupBytesMax, 4 << 20, "GroupBytesMax"},
		{&cfg.QueuedMax, 65536, "QueuedMax"},
	} {
		if *bound.value < 0 {
			return fmt.Errorf("journal: %s is negative", bound.name)
		}
		if *bound.value == 0 {
			*bound.value = bound.initial
		}
	}
	if cfg.Fatal == nil {
		return errors.New("journal: Fatal is required")
	}
	if cfg.Observe != nil && cfg.Now == nil {
		return errors.New("journal: Observe needs Now")
	}
	return nil
}

// Committer gathers writes into groups, commits each with one sync and completes
// the waiters in the order of submission. While a sync is under way the next group
// gathers by itself. Whoever submits many writes can Hold it back until the last of them; where
// nobody ever does, whoever is ready to run gets to behind a large group before the next is cut.
// So groups grow with the load and nobody waits for a timer.
//
// Writers share only the queue: a slice behind a leaf mutex, which the committer
// swaps for its own empty one. No goroutine, channel or allocation per write.
//
// Over a Sharded store it is one Committer for each shard: they share nothing, so a
// shard that is slow holds up its own streams alone. Waiters are then completed on
// several goroutines, those of one stream on the same one.
//
// Start runs it on a goroutine of its own; a simulator calls Step instead.
type Committer struct {
	shards []*Committer // nil unless the store is Sharded; then nothing else is used
	shard  func(stream string) int

	store Store
	cfg   Config
	held  atomic.Bool   // somebody has held: writes come together
	wake  chan struct{} // holds a token if the queue may have turned non-empty
	ended chan struct{} // closed when run returns

	mu      sync.Mutex // guards everything up to started
	queue   []*Write   // Invariant: len(queue) <= QueuedMax
	holders int        // callers between Hold and Release
	busy    bool       // a group is under way: queue will be looked at behind it
	due     bool       // the next group begins, whoever holds
	nudged  bool       // since a group began to wait for a Release
	closed  bool
	started bool

	// The fields below belong to whoever calls Step.
	taken  []*Write // swapped out of queue
	next   int      // taken[:next] are completed
	failed bool     // a commit has failed: nothing is committed any more
}

// NewCommitter makes a Committer over a Store. It does not start it.
func NewCommitter(store Store, cfg Config) (*Committer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if several, ok := store.(Sharded); ok {
		c := &Committer{shard: several.Shard}
		for _, shard := range several.Shards() {
			part, err := NewCommitter(shard, cfg)
			if err != nil {
				return nil, err
			}
			c.shards = append(c.shards, part)
		}
		return c, nil
	}
	return &Committer{
		store: store,
		cfg:   cfg,
		wake:  make(chan struct{}, 1),
		ended: make(chan struct{}),
	}, nil
}

// Start runs the committer on its own goroutine until Close.
func (c *Committer) Start() {
	if c.shards != nil {
		for _, shard := range c.shards {
			shard.Start()
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started || c.closed {
		panic("journal: Committer started twice or after Close")
	}
	c.started = true
	go c.run()
}

// Submit queues a write and returns at once. After Close the write is completed
// with ErrClosed on the caller's goroutine.
func (c *Committer) Submit(w *Write) {
	if c.shards != nil {
		c.shards[c.shard(w.Stream)].Submit(w)
		return
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		complete(w, ErrClosed)
		return
	}
	if len(c.queue) >= c.cfg.QueuedMax {
		c.mu.Unlock()
		panic(fmt.Sprintf("journal: more than %d writes queued: admission must bound them", c.cfg.QueuedMax))
	}
	c.queue = append(c.queue, w)
	first := len(c.queue) == 1 && c.holders == 0
	c.mu.Unlock()
	if first {
		c.signal()
	}
}

// Hold says that the caller is about to submit many writes, and will Release soon: no group
// begins before.
func (c *Committer) Hold() {
	if c.shards != nil {
		for _, shard := range c.shards {
			shard.Hold()
		}
		return
	}
	c.mu.Lock()
	c.holders++
	c.mu.Unlock()
	c.held.Store(true)
}

// Release ends a Hold. A group that waits for it begins, though others may hold by now.
func (c *Committer) Release() {
	if c.shards != nil {
		for _, shard := range c.shards {
			shard.Release()
		}
		return
	}
	c.mu.Lock()
	c.holders--
	if c.holders < 0 {
		c.mu.Unlock()
		panic("journal: Release without Hold")
	}
	due := c.letGo()
	c.mu.Unlock()
	if due {
		c.signal()
	}
}

// Nudge is called now and then. A group that waits for a Release since the last one begins: who
// holds may be held up.
func (c *Committer) Nudge() {
	if c.shards != nil {
		for _, shard := range c.shards {
			shard.Nudge()
		}
		return
	}
	c.mu.Lock()
	due := c.nudged && c.letGo()
	c.nudged = !c.busy && len(c.queue) > 0
	c.mu.Unlock()
	if due {
		c.signal()
	}
}

// letGo lets the next group begin, if one waits. The caller holds mu.
func (c *Committer) letGo() bool {
	c.due = !c.busy && len(c.queue) > 0
	return c.due
}

func (c *Committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// manyWrites are so many in a group that as many are about to come. Behind a smaller one
// there may be nobody to gather but a goroutine that computes, for which the next write
// would wait 10 ms.
const manyWrites = 16

func (c *Committer) run() {
	defer close(c.ended)
	for range c.wake {
		for n := c.Step(); n > 0; n = c.Step() {
			if n >= manyWrites && !c.held.Load() {
				runtime.Gosched() // who is ready to run may still join the group
			}
		}
		c.mu.Lock()
		done := c.closed && len(c.queue) == 0
		c.mu.Unlock()
		if done {
			return
		}
	}
}

// Step commits one group on the caller's goroutine and returns how many writes it
// completed; 0 means that nothing was queued. For simulators and tests: it must
// not be called on a started Committer. Over a Sharded store it commits a group on each
// shard.
func (c *Committer) Step() int {
	if c.shards != nil {
		n := 0
		for _, shard := range c.shards {
			n += shard.Step()
		}
		return n
	}
	if c.next == len(c.taken) && !c.take() {
		return 0
	}
	group, size, events := c.cut()
	c.next += len(group)
	if err := c.commit(group, size, events); err != nil {
		for _, w := range group {
			complete(w, err)
		}
		return len(group)
	}
	for i, w := range group {
		group[i] = nil
		w.Done.Committed(w)
	}
	return len(group)
}

// take swaps the queue for the emptied slice of the last round, unless a group would have to
// wait for a Release.
func (c *Committer) take() bool {
	clear(c.taken)
	c.taken, c.next = c.taken[:0], 0
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders == 0 || c.due || c.closed {
		c.taken, c.queue, c.due, c.nudged = c.queue, c.taken, false, false
	}
	c.busy = len(c.taken) > 0
	return c.busy
}

// cut finds the longest group within the bounds at the front of taken[next:].
func (c *Committer) cut() (group []*Write, size, events int) {
	rest := c.taken[c.next:]
	for i, w := range rest {
		if i == c.cfg.GroupWritesMax || (i > 0 && size+len(w.Data) > c.cfg.GroupBytesMax) {
			return rest[:i], size, events
		}
		size += len(w.Data)
		events += w.Count
	}
	return rest, size, events
}

// commit hands a group to the store. After a failure it refuses without trying:
// the kernel may have dropped the pages that failed to sync, and a second fsync
// would report success without them.
func (c *Committer) commit(group []*Write, size, events int) error {
	if c.failed {
		return ErrFailed
	}
	var begin int64
	if c.cfg.Observe != nil {
		begin = c.cfg.Now()
	}
	if err := c.store.Commit(group); err != nil {
		c.failed = true
		c.cfg.Fatal(err)
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	if c.cfg.Observe != nil {
		c.cfg.Observe(Group{Writes: len(group), Events: events, Bytes: size, Nanos: c.cfg.Now() - begin})
	}
	return nil
}

func complete(w *Write, err error) {
	w.Err = err
	w.Done.Committed(w)
}

// Close refuses new writes, commits those that are queued and waits for the
// goroutine to end. It does not close the Store.
func (c *Committer) Close() {
	if c.shards != nil {
		for _, shard := range c.shards {
			shard.Close()
		}
		return
	}
	c.mu.Lock()
	again := c.closed
	c.closed = true
	started := c.started
	c.mu.Unlock()
	if !started {
		if !again {
			for c.Step() > 0 {
			}
		}
		return
	}
	c.signal()
	<-c.ended
}
