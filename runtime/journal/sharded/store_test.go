package sharded_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/journal/sharded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// beside are two tables that lie beside streams, the key of one behind a slash.
var beside = sharded.Beside{
	"deals":  func(key string) string { return key },
	"orders": func(key string) string { _, stream, _ := strings.Cut(key, "/"); return stream },
}

func over(shards []*journaltest.Memory) *sharded.Store {
	stores := make([]journal.Store, len(shards))
	for i := range shards {
		stores[i] = shards[i]
	}
	return sharded.New(stores, beside)
}

func memories(n int) []*journaltest.Memory {
	shards := make([]*journaltest.Memory, n)
	for i := range shards {
		shards[i] = journaltest.NewMemory()
	}
	return shards
}

func TestConformance(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			journaltest.Run(t, func(*testing.T) journaltest.Place {
				shards := memories(n)
				return func(*testing.T) journal.Store {
					for i := range shards {
						shards[i] = shards[i].Reopen()
					}
					return over(shards)
				}
			})
		})
	}
}

// A stream's shard never changes: what is written today is looked for there for ever.
func TestShardIsStable(t *testing.T) {
	s := over(memories(4))
	got := ""
	for _, stream := range []string{"deal", "deal-1", "deal-2", "deal-3", "flash-2026", "\xff"} {
		got += fmt.Sprint(s.Shard(stream))
	}
	if want := "012230"; got != want {
		t.Errorf("shards %s, want %s", got, want)
	}
}

func TestStreamsAndRowsLieTogether(t *testing.T) {
	ctx := t.Context()
	shards := memories(3)
	s := over(shards)
	var rows []journal.Mutation
	var deals, orders []string
	for i := range 60 {
		stream := fmt.Sprintf("deal-%02d", i)
		if _, err := s.Open(ctx, stream); err != nil {
			t.Fatal(err)
		}
		user := fmt.Sprintf("user-%02d/%s", (i*7)%60, stream)
		deals, orders = append(deals, stream), append(orders, user)
		rows = append(rows, journal.Mutation{Table: "deals", Key: stream, Value: []byte{1}}, journal.Mutation{Table: "orders", Key: user, Value: []byte{1}})
	}
	rows = append(rows, journal.Mutation{Table: "rules", Key: "acme/sale", Value: []byte{1}})
	if err := s.Tables().Apply(ctx, rows, false); err != nil {
		t.Fatal(err)
	}
	for i, shard := range shards {
		streams := list(t, func(fn func(string) error) error {
			return shard.Streams(ctx, "", func(name string, _ journal.Head) error { return fn(name) })
		})
		if len(streams) < 10 || slices.ContainsFunc(streams, func(name string) bool { return s.Shard(name) != i }) {
			t.Errorf("shard %d has %q", i, streams)
		}
		if got := keys(t, shard.Tables(), "deals"); !slices.Equal(got, streams) {
			t.Errorf("shard %d has the streams %q and the rows %q", i, streams, got)
		}
		if got := len(keys(t, shard.Tables(), "orders")); got != len(streams) {
			t.Errorf("shard %d has %d streams and %d orders", i, len(streams), got)
		}
		if got := len(keys(t, shard.Tables(), "rules")); (got == 1) != (i == 0) {
			t.Errorf("shard %d has %d rules", i, got)
		}
	}
	slices.Sort(orders)
	if got := keys(t, s.Tables(), "deals"); !slices.Equal(got, deals) {
		t.Errorf("merged: %q", got)
	}
	if got := keys(t, s.Tables(), "orders"); !slices.Equal(got, orders) {
		t.Errorf("merged: %q", got)
	}
	var few []string
	err := s.Tables().Scan(ctx, "orders", "user-1", "user-12/zz", func(key string, _ []byte) error {
		if len(few) == 3 {
			return journal.ErrStop
		}
		few = append(few, key)
		return nil
	})
	if want := orders[13:16]; err != nil || !slices.Equal(few, want) {
		t.Errorf("%q, %v, want %q", few, err, want)
	}
	for _, row := range rows {
		if value, err := s.Tables().Get(ctx, row.Table, row.Key); err != nil || len(value) != 1 {
			t.Errorf("%s %s: %v", row.Table, row.Key, err)
		}
	}
}

func keys(t *testing.T, tables journal.Tables, table string) []string {
	t.Helper()
	return list(t, func(fn func(string) error) error {
		return tables.Scan(context.Background(), table, "", "", func(key string, _ []byte) error { return fn(key) })
	})
}

func list(t *testing.T, scan func(fn func(string) error) error) (all []string) {
	t.Helper()
	if err := scan(func(name string) error { all = append(all, name); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// held is a shard whose commits wait.
type held struct {
	journal.Store
	release chan struct{}
}

func (h *held) Commit(group []*journal.Write) error {
	<-h.release
	return h.Store.Commit(group)
}

// A shard that hangs holds up its own streams.
func TestShardsDoNotWaitForEachOther(t *testing.T) {
	slow := &held{Store: journaltest.NewMemory(), release: make(chan struct{})}
	s := sharded.New([]journal.Store{slow, journaltest.NewMemory()}, beside)
	c, err := journal.NewCommitter(s, journal.Config{Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	var streams [2]string // of each shard
	for i := 0; streams[0] == "" || streams[1] == ""; i++ {
		name := fmt.Sprintf("deal-%d", i)
		streams[s.Shard(name)] = name
	}
	submit := func(stream string, seq uint64) (done chan error) {
		done = make(chan error, 1)
		w := journaltest.Append(stream, 1, seq, "event")
		w.Done = journaltest.CompleterFunc(func(w *journal.Write) { done <- w.Err })
		c.Submit(w)
		return done
	}
	for _, stream := range streams {
		if _, err := s.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	late := submit(streams[0], 1)
	for seq := range uint64(100) {
		if err := <-submit(streams[1], seq+1); err != nil {
			t.Fatal(err)
		}
	}
	if len(late) != 0 {
		t.Error("a commit that is held up is acknowledged")
	}
	close(slow.release)
	if err := <-late; err != nil {
		t.Error(err)
	}
	c.Close()
}

// Nothing decides for two shards at once, so no condition may ask for that.
func TestConditionOnSeveralShards(t *testing.T) {
	s := over(memories(2))
	var on [2]string // a stream of each shard
	for i := 0; on[0] == "" || on[1] == ""; i++ {
		id := fmt.Sprint("d", i)
		on[s.Shard(id)] = id
	}
	absent := []journal.Expectation{{Table: "deals", Key: on[0]}}
	change := func(stream string) []journal.Mutation {
		return []journal.Mutation{{Table: "deals", Key: stream, Value: []byte("v")}}
	}
	if err := s.Tables().ApplyIf(t.Context(), absent, change(on[0]), true); err != nil {
		t.Errorf("on one shard: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("half of a condition was kept")
		}
	}()
	_ = s.Tables().ApplyIf(t.Context(), absent, change(on[1]), true)
}
