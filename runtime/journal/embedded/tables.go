package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// tables implements journal.Tables beside the streams of a Store.
type tables struct {
	s *Store

	// unsynced is held by a durable Apply until its sync returns, because pebble
	// shows a batch before that. Readers hold it while they take their view.
	unsynced sync.RWMutex

	// deciding is held alone by an ApplyIf from its look at the rows to their
	// change, and shared by every Apply. It is taken before unsynced.
	deciding sync.RWMutex
}

// Get implements journal.Tables.
func (t *tables) Get(_ context.Context, table, key string) ([]byte, error) {
	if err := t.s.usable(); err != nil {
		return nil, err
	}
	t.unsynced.RLock()
	defer t.unsynced.RUnlock()
	value, closer, err := t.s.db.Get(rowKey(table, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, journal.ErrNotFound
	}
	if err != nil {
		return nil, t.corruption(table, err)
	}
	value = append([]byte{}, value...)
	return value, closer.Close()
}

// Scan implements journal.Tables.
func (t *tables) Scan(ctx context.Context, table, prefix, after string, fn func(string, []byte) error) (err error) {
	if err := t.s.usable(); err != nil {
		return err
	}
	lower := appendStream(nil, keyRow, table)
	skip := len(lower)
	from := rowKey(table, prefix)
	if after >= prefix && after != "" {
		from = append(rowKey(table, after), 0) // the least key behind after
	}
	iter, err := t.view(&pebble.IterOptions{LowerBound: from, UpperBound: successor(lower)})
	if err != nil {
		return err
	}
	defer func() { err = closed(iter, err) }()
	for ok := iter.First(); ok; ok = iter.Next() {
		key := iter.Key()[skip:]
		if !bytes.HasPrefix(key, []byte(prefix)) {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		value, err := iter.ValueAndErr()
		if err != nil {
			return t.corruption(table, err)
		}
		if err := fn(string(key), value); err != nil {
			if err == journal.ErrStop { //nolint:errorlint // a callback returns ErrStop itself
				return nil
			}
			return err
		}
	}
	if err := iter.Error(); err != nil {
		return t.corruption(table, err)
	}
	return nil
}

// Names implements journal.Tables.
func (t *tables) Names(ctx context.Context) (names []string, err error) {
	if err := t.s.usable(); err != nil {
		return nil, err
	}
	iter, err := t.view(&pebble.IterOptions{LowerBound: []byte{keyRow}, UpperBound: []byte{keyRow + 1}})
	if err != nil {
		return nil, err
	}
	defer func() { err = closed(iter, err) }()
	for ok := iter.First(); ok; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name, _, _ := bytes.Cut(iter.Key()[1:], []byte{0})
		names = append(names, string(name))
		ok = iter.SeekGE(successor(appendStream(nil, keyRow, string(name))))
	}
	if err := iter.Error(); err != nil {
		return nil, t.corruption("", err)
	}
	return names, nil
}

func (t *tables) view(opts *pebble.IterOptions) (*pebble.Iterator, error) {
	t.unsynced.RLock()
	defer t.unsynced.RUnlock()
	return t.s.db.NewIter(opts)
}

func (t *tables) corruption(table string, err error) error {
	if !pebble.IsCorruptionError(err) {
		return fmt.Errorf("embedded: read table %q: %w", table, err)
	}
	return &journal.CorruptError{File: t.s.place(err), Detail: fmt.Sprintf("table %q: %s", table, firstLine(err)), Remedy: remedy}
}

// Apply implements journal.Tables.
func (t *tables) Apply(_ context.Context, mutations []journal.Mutation, durable bool) error {
	t.deciding.RLock()
	defer t.deciding.RUnlock()
	return t.apply(mutations, durable)
}

// ApplyIf implements journal.Tables.
func (t *tables) ApplyIf(_ context.Context, expected []journal.Expectation, mutations []journal.Mutation, durable bool) error {
	if err := t.s.usable(); err != nil {
		return err
	}
	t.deciding.Lock()
	defer t.deciding.Unlock()
	for i := range expected {
		if err := t.check(&expected[i]); err != nil {
			return err
		}
	}
	return t.apply(mutations, durable)
}

// check compares a row with what is expected of it. The caller holds deciding.
func (t *tables) check(e *journal.Expectation) error {
	e.Check()
	value, closer, err := t.s.db.Get(rowKey(e.Table, e.Key))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if e.Value != nil {
			return journal.ErrConflict
		}
		return nil
	case err != nil:
		return t.corruption(e.Table, err)
	}
	same := e.Value != nil && bytes.Equal(value, e.Value)
	if err := closer.Close(); err != nil {
		return err
	}
	if !same {
		return journal.ErrConflict
	}
	return nil
}

// apply makes all mutations or none. The caller holds deciding, at least shared.
func (t *tables) apply(mutations []journal.Mutation, durable bool) error {
	if err := t.s.usable(); err != nil {
		return err
	}
	if t.s.space.look() != spaceEnough {
		return journal.ErrReadOnly
	}
	batch := t.s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	var key []byte // the batch copies it
	for i := range mutations {
		m := &mutations[i]
		m.Check()
		key = appendRowKey(key[:0], m.Table, m.Key)
		var err error
		if m.Value == nil {
			err = batch.Delete(key, nil)
		} else {
			err = batch.Set(key, m.Value, nil)
		}
		if err != nil {
			return err
		}
	}
	if durable {
		t.unsynced.Lock()
		defer t.unsynced.Unlock()
	}
	return t.s.apply(batch, durable)
}
