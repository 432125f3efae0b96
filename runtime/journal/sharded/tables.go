package sharded

import (
	"context"
	"slices"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// tables implements journal.Tables.
type tables struct {
	s      *Store
	shards []journal.Tables
}

// shard returns where a row lies.
func (t *tables) shard(table, key string) int {
	if stream := t.s.beside[table]; stream != nil {
		return t.s.Shard(stream(key))
	}
	return 0
}

// Get implements journal.Tables.
func (t *tables) Get(ctx context.Context, table, key string) ([]byte, error) {
	return t.shards[t.shard(table, key)].Get(ctx, table, key)
}

// Scan implements journal.Tables.
func (t *tables) Scan(ctx context.Context, table, prefix, after string, fn func(string, []byte) error) error {
	if t.s.beside[table] == nil {
		return t.shards[0].Scan(ctx, table, prefix, after, fn)
	}
	return merge(len(t.shards), func(i int, fn func(string, []byte) error) error {
		return t.shards[i].Scan(ctx, table, prefix, after, fn)
	}, fn)
}

// Names implements journal.Tables.
func (t *tables) Names(ctx context.Context) ([]string, error) {
	found := make([][]string, len(t.shards))
	err := t.s.each(func(i int) (err error) {
		found[i], err = t.shards[i].Names(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	names := slices.Concat(found...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Apply implements journal.Tables.
func (t *tables) Apply(ctx context.Context, mutations []journal.Mutation, durable bool) error {
	return t.ApplyIf(ctx, nil, mutations, durable)
}

// part is what one shard gets of a change.
type part struct {
	expected  []journal.Expectation
	mutations []journal.Mutation
}

// several says whether more than one shard gets something.
func several(parts []part) bool {
	n := 0
	for _, p := range parts {
		if len(p.expected)+len(p.mutations) > 0 {
			n++
		}
	}
	return n > 1
}

// ApplyIf implements journal.Tables. What is expected and what is changed must lie on one
// shard, since nothing decides for two at once; without expectations a change is all or
// nothing on each shard by itself. What lies beside no stream is always durable: what a
// stream's shard has on disk says nothing about the first one's.
func (t *tables) ApplyIf(ctx context.Context, expected []journal.Expectation, mutations []journal.Mutation, durable bool) error {
	parts := make([]part, len(t.shards))
	for i := range expected {
		e := &expected[i]
		p := &parts[t.shard(e.Table, e.Key)]
		p.expected = append(p.expected, *e)
	}
	for i := range mutations {
		m := &mutations[i]
		p := &parts[t.shard(m.Table, m.Key)]
		p.mutations = append(p.mutations, *m)
		durable = durable || t.s.beside[m.Table] == nil
	}
	if len(expected) > 0 && several(parts) {
		panic("sharded: a condition, and rows on several shards")
	}
	return t.s.each(func(i int) error {
		if len(parts[i].expected)+len(parts[i].mutations) == 0 {
			return nil
		}
		return t.shards[i].ApplyIf(ctx, parts[i].expected, parts[i].mutations, durable)
	})
}
