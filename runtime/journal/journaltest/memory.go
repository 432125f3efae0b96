// Package journaltest holds what tests of and around the journal share: a Store in
// memory, and the suite of promises that every Store is held to.
package journaltest

import (
	"bytes"
	"context"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Memory is a Store whose disk is a map. What it has committed outlives Close:
// Reopen gives it to a new Memory, as a restart would.
type Memory struct {
	// Now stamps the events that open epochs; nil leaves them without a time. It is set
	// before the Store is used.
	Now func() time.Time

	mu       sync.Mutex // guards the fields below
	closed   bool
	readOnly bool
	failing  error
	disk     *disk
	stats    journal.Stats
}

// disk is what outlives a Memory. The mutex of its present owner guards it.
type disk struct {
	streams map[string]*stream
	tables  map[string]map[string][]byte
}

type stream struct {
	epoch       uint64
	owned       bool
	events      []event // events[i] has seq i+1
	snapshotSeq uint64
	snapshot    []byte
	openings    []journal.Opening
}

type event struct {
	epoch uint64
	data  []byte
}

// NewMemory makes an empty Memory.
func NewMemory() *Memory {
	return &Memory{disk: &disk{streams: map[string]*stream{}, tables: map[string]map[string][]byte{}}}
}

// Reopen closes m and returns a new Memory over what m has committed.
func (m *Memory) Reopen() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return &Memory{Now: m.Now, disk: m.disk}
}

// SetReadOnly raises or clears the disk-full alarm.
func (m *Memory) SetReadOnly(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readOnly = on
	m.stats.ReadOnly = on
}

// FailWith lets every later Commit fail with err, as a failed sync does.
func (m *Memory) FailWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing = err
}

// Open implements journal.Store.
func (m *Memory) Open(_ context.Context, name string) (journal.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return journal.Head{}, journal.ErrClosed
	}
	journal.CheckStream(name)
	s := m.disk.streams[name]
	if s == nil {
		s = &stream{}
		m.disk.streams[name] = s
	}
	s.epoch++
	s.owned = true
	opening := journal.Opening{Epoch: s.epoch, First: uint64(len(s.events)) + 1, By: "memory"}
	if m.Now != nil {
		opening.At = m.Now()
	}
	s.openings = append(s.openings, opening)
	return s.head(), nil
}

// Openings implements journal.Chronicle.
func (m *Memory) Openings(_ context.Context, name string, fn func(journal.Opening) error) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return journal.ErrClosed
	}
	var openings []journal.Opening
	if s := m.disk.streams[name]; s != nil {
		openings = slices.Clone(s.openings)
	}
	m.mu.Unlock()
	for _, o := range openings {
		if err := fn(o); err != nil {
			return stopped(err)
		}
	}
	return nil
}

// Release implements journal.Store.
func (m *Memory) Release(name string, epoch uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.disk.streams[name]; s != nil && s.epoch == epoch {
		s.owned = false
	}
}

func (s *stream) head() journal.Head {
	return journal.Head{Epoch: s.epoch, Seq: uint64(len(s.events)), SnapshotSeq: s.snapshotSeq}
}

// Head implements journal.Store.
func (m *Memory) Head(_ context.Context, name string) (journal.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return journal.Head{}, journal.ErrClosed
	}
	s := m.disk.streams[name]
	if s == nil {
		return journal.Head{}, journal.ErrNotFound
	}
	return s.head(), nil
}

// Superseded implements journal.Store.
func (m *Memory) Superseded(_ context.Context, dst []string, owned []journal.Ownership) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return dst, journal.ErrClosed
	}
	for _, o := range owned {
		if s := m.disk.streams[o.Stream]; s != nil && s.epoch > o.Epoch {
			dst = append(dst, o.Stream)
		}
	}
	return dst, nil
}

// Commit implements journal.Store.
func (m *Memory) Commit(group []*journal.Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return journal.ErrClosed
	}
	if m.failing != nil {
		return m.failing
	}
	for _, w := range group {
		if w.Err = m.append(w); w.Err != nil {
			m.stats.Refused++
		}
	}
	m.stats.Groups++
	return nil
}

func (m *Memory) append(w *journal.Write) error {
	if w.Count == 0 {
		return nil
	}
	if m.readOnly && !w.Urgent {
		return journal.ErrReadOnly
	}
	s := m.disk.streams[w.Stream]
	if s == nil || !s.owned || s.epoch != w.Epoch || uint64(len(s.events))+1 != w.Seq {
		return journal.ErrFenced
	}
	count, ok := journal.CountEvents(w.Data)
	if !ok || count != w.Count {
		panic("journaltest: Write.Data does not hold Write.Count events")
	}
	for rest := w.Data; len(rest) > 0; {
		var data []byte
		data, rest, _ = journal.CutEvent(rest)
		s.events = append(s.events, event{epoch: w.Epoch, data: bytes.Clone(data)})
	}
	m.stats.Writes++
	m.stats.Events += uint64(count)
	m.stats.Bytes += uint64(len(w.Data))
	return nil
}

// Read implements journal.Store.
func (m *Memory) Read(ctx context.Context, name string, after uint64, fn func(journal.Event) error) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return journal.ErrClosed
	}
	var events []event
	if s := m.disk.streams[name]; s != nil && after < uint64(len(s.events)) {
		events = slices.Clone(s.events[after:])
	}
	m.mu.Unlock()
	for i, e := range events {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(journal.Event{Seq: after + 1 + uint64(i), Epoch: e.epoch, Data: e.data}); err != nil {
			return stopped(err)
		}
	}
	return nil
}

func stopped(err error) error {
	if err == journal.ErrStop { //nolint:errorlint // a callback returns ErrStop itself
		return nil
	}
	return err
}

// Get implements journal.Store.
func (m *Memory) Get(_ context.Context, name string, seq uint64, dst []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return dst, journal.ErrClosed
	}
	s := m.disk.streams[name]
	if s == nil || seq == 0 || seq > uint64(len(s.events)) {
		return dst, journal.ErrNotFound
	}
	return append(dst, s.events[seq-1].data...), nil
}

// Snapshot implements journal.Store.
func (m *Memory) Snapshot(_ context.Context, name string) (uint64, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, nil, journal.ErrClosed
	}
	s := m.disk.streams[name]
	if s == nil || s.snapshotSeq == 0 {
		return 0, nil, journal.ErrNotFound
	}
	return s.snapshotSeq, bytes.Clone(s.snapshot), nil
}

// PutSnapshot implements journal.Store.
func (m *Memory) PutSnapshot(_ context.Context, name string, epoch, seq uint64, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return journal.ErrClosed
	}
	if m.readOnly {
		return journal.ErrReadOnly
	}
	s := m.disk.streams[name]
	if s == nil || s.epoch != epoch || seq > uint64(len(s.events)) {
		return journal.ErrFenced
	}
	if seq > s.snapshotSeq {
		s.snapshotSeq, s.snapshot = seq, bytes.Clone(data)
	}
	return nil
}

// Streams implements journal.Store.
func (m *Memory) Streams(ctx context.Context, after string, fn func(string, journal.Head) error) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return journal.ErrClosed
	}
	heads := make(map[string]journal.Head, len(m.disk.streams))
	var names []string
	for name, s := range m.disk.streams {
		if name > after {
			names = append(names, name)
			heads[name] = s.head()
		}
	}
	m.mu.Unlock()
	sort.Strings(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(name, heads[name]); err != nil {
			return stopped(err)
		}
	}
	return nil
}

// Stats implements journal.Store.
func (m *Memory) Stats() journal.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	stats := m.stats
	stats.Streams = len(m.disk.streams)
	return stats
}

// Close implements journal.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// Tables implements journal.Store.
func (m *Memory) Tables() journal.Tables { return tables{m} }

type tables struct{ m *Memory }

func (t tables) Get(_ context.Context, table, key string) ([]byte, error) {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if t.m.closed {
		return nil, journal.ErrClosed
	}
	value, ok := t.m.disk.tables[table][key]
	if !ok {
		return nil, journal.ErrNotFound
	}
	return bytes.Clone(value), nil
}

func (t tables) Scan(ctx context.Context, table, prefix, after string, fn func(string, []byte) error) error {
	t.m.mu.Lock()
	if t.m.closed {
		t.m.mu.Unlock()
		return journal.ErrClosed
	}
	rows := map[string][]byte{}
	var keys []string
	for key, value := range t.m.disk.tables[table] {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
			rows[key] = bytes.Clone(value)
		}
	}
	t.m.mu.Unlock()
	sort.Strings(keys)
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(key, rows[key]); err != nil {
			return stopped(err)
		}
	}
	return nil
}

func (t tables) Names(context.Context) (names []string, err error) {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if t.m.closed {
		return nil, journal.ErrClosed
	}
	for name, rows := range t.m.disk.tables {
		if len(rows) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (t tables) Apply(ctx context.Context, mutations []journal.Mutation, durable bool) error {
	return t.ApplyIf(ctx, nil, mutations, durable)
}

func (t tables) ApplyIf(_ context.Context, expected []journal.Expectation, mutations []journal.Mutation, _ bool) error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if t.m.closed {
		return journal.ErrClosed
	}
	if t.m.readOnly {
		return journal.ErrReadOnly
	}
	for i := range expected {
		e := &expected[i]
		e.Check()
		value, ok := t.m.disk.tables[e.Table][e.Key]
		if ok != (e.Value != nil) || !bytes.Equal(value, e.Value) {
			return journal.ErrConflict
		}
	}
	for _, mutation := range mutations {
		mutation.Check()
		rows := t.m.disk.tables[mutation.Table]
		if rows == nil {
			rows = map[string][]byte{}
			t.m.disk.tables[mutation.Table] = rows
		}
		if mutation.Value == nil {
			delete(rows, mutation.Key)
		} else {
			rows[mutation.Key] = append([]byte{}, mutation.Value...)
		}
	}
	return nil
}
