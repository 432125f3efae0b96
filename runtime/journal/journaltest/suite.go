package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Place is somewhere that a journal is kept: each call opens a Store over the same
// data. The suite closes one before it opens the next.
type Place func(t *testing.T) journal.Store

// Run holds a Store to the promises of the journal package. fresh makes a new empty
// place.
func Run(t *testing.T, fresh func(t *testing.T) Place) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"Empty", testEmpty},
		{"AppendAndRead", testAppendAndRead},
		{"ReadFromTheMiddle", testReadFromTheMiddle},
		{"Fence", testFence},
		{"FencedWriteDoesNotHoldUpOthers", testFencedAlone},
		{"LaterWritesOfARefusedStreamFail", testRefusedChain},
		{"Release", testRelease},
		{"EpochsRiseAcrossRestarts", testEpochs},
		{"Openings", testOpenings},
		{"Barrier", testBarrier},
		{"Snapshot", testSnapshot},
		{"SnapshotIsFenced", testSnapshotFence},
		{"Head", testHead},
		{"Superseded", testSuperseded},
		{"Streams", testStreams},
		{"NeighbouringNames", testNeighbours},
		{"LargeEvents", testLarge},
		{"Callbacks", testCallbacks},
		{"Tables", testTables},
		{"TablesScanWhileApplying", testTablesScanApply},
		{"ConditionalChange", testApplyIf},
		{"ConditionalChangesAtOnce", testApplyIfAtOnce},
		{"Closed", testClosed},
		{"BugsPanic", testBugs},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{t: t, place: fresh(t)}
			b.Store = b.place(t)
			defer func() {
				if err := b.Store.Close(); err != nil && !errors.Is(err, journal.ErrClosed) {
					t.Errorf("Close: %v", err)
				}
			}()
			c.test(t, b)
		})
	}
}

// bench is a Store with the shorthands of this suite.
type bench struct {
	journal.Store
	t     *testing.T
	place Place
}

func (b *bench) reopen() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatalf("Close: %v", err)
	}
	b.Store = b.place(b.t)
}

func (b *bench) open(stream string) journal.Head {
	b.t.Helper()
	head, err := b.Open(context.Background(), stream)
	if err != nil {
		b.t.Fatalf("Open(%q): %v", stream, err)
	}
	return head
}

// commit commits one group and returns the outcome of each write.
func (b *bench) commit(group ...*journal.Write) []error {
	b.t.Helper()
	if err := b.Commit(group); err != nil {
		b.t.Fatalf("Commit: %v", err)
	}
	outcomes := make([]error, len(group))
	for i, w := range group {
		outcomes[i] = w.Err
	}
	return outcomes
}

func (b *bench) mustCommit(group ...*journal.Write) {
	b.t.Helper()
	for i, err := range b.commit(group...) {
		if err != nil {
			b.t.Fatalf("write %d of %q: %v", i, group[i].Stream, err)
		}
	}
}

func (b *bench) wantOutcomes(got []error, want ...error) {
	b.t.Helper()
	for i := range want {
		if !errors.Is(got[i], want[i]) {
			b.t.Fatalf("write %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

// read returns the events after a seq as "seq/epoch/data".
func (b *bench) read(stream string, after uint64) []string {
	b.t.Helper()
	var got []string
	err := b.Read(context.Background(), stream, after, func(e journal.Event) error {
		got = append(got, fmt.Sprintf("%d/%d/%s", e.Seq, e.Epoch, e.Data))
		return nil
	})
	if err != nil {
		b.t.Fatalf("Read(%q, %d): %v", stream, after, err)
	}
	return got
}

func (b *bench) wantEvents(stream string, after uint64, want ...string) {
	b.t.Helper()
	if got := b.read(stream, after); !slices.Equal(got, want) {
		b.t.Fatalf("events of %q after %d: got %q, want %q", stream, after, got, want)
	}
}

// Append makes a write of events.
func Append(stream string, epoch, seq uint64, events ...string) *journal.Write {
	w := &journal.Write{Stream: stream, Epoch: epoch, Seq: seq, Count: len(events)}
	for _, e := range events {
		w.Data = journal.AppendEvent(w.Data, []byte(e))
	}
	return w
}

func testEmpty(t *testing.T, b *bench) {
	if head := b.open("deal"); head != (journal.Head{Epoch: 1}) {
		t.Fatalf("head of a new stream: %+v", head)
	}
	b.wantEvents("deal", 0)
	b.wantEvents("never opened", 0)
	if _, err := b.Get(context.Background(), "deal", 1, nil); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("Get: %v", err)
	}
	if _, err := b.Get(context.Background(), "deal", 0, nil); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("Get of seq 0: %v", err)
	}
	if _, _, err := b.Snapshot(context.Background(), "deal"); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("Snapshot: %v", err)
	}
}

func testAppendAndRead(t *testing.T, b *bench) {
	b.open("a")
	b.open("b")
	b.mustCommit(Append("a", 1, 1, "one", ""), Append("b", 1, 1, "eins"), Append("a", 1, 3, "three"))
	b.mustCommit(Append("a", 1, 4, "four"))
	check := func() {
		t.Helper()
		b.wantEvents("a", 0, "1/1/one", "2/1/", "3/1/three", "4/1/four")
		b.wantEvents("b", 0, "1/1/eins")
		for seq, want := range []string{1: "one", 2: "", 3: "three", 4: "four"} {
			if seq == 0 {
				continue
			}
			got, err := b.Get(context.Background(), "a", uint64(seq), []byte("dst:"))
			if err != nil || string(got) != "dst:"+want {
				t.Fatalf("Get(a, %d) = %q, %v", seq, got, err)
			}
		}
		if _, err := b.Get(context.Background(), "a", 5, nil); !errors.Is(err, journal.ErrNotFound) {
			t.Fatalf("Get behind the end: %v", err)
		}
	}
	check()
	if stats := b.Stats(); stats.Writes != 4 || stats.Events != 5 || stats.Groups < 2 || stats.Refused != 0 {
		t.Fatalf("stats: %+v", stats)
	}
	b.reopen()
	check()
	if head := b.open("a"); head != (journal.Head{Epoch: 2, Seq: 4}) {
		t.Fatalf("head after a restart: %+v", head)
	}
	check()
}

func testReadFromTheMiddle(_ *testing.T, b *bench) {
	b.open("deal")
	b.mustCommit(Append("deal", 1, 1, "1", "2", "3"))
	b.mustCommit(Append("deal", 1, 4, "4"), Append("deal", 1, 5, "5", "6"))
	for _, reopened := range []bool{false, true} {
		if reopened {
			b.reopen()
		}
		b.wantEvents("deal", 1, "2/1/2", "3/1/3", "4/1/4", "5/1/5", "6/1/6")
		b.wantEvents("deal", 3, "4/1/4", "5/1/5", "6/1/6")
		b.wantEvents("deal", 5, "6/1/6")
		b.wantEvents("deal", 6)
		b.wantEvents("deal", 60)
	}
}

func testFence(t *testing.T, b *bench) {
	first := b.open("deal")
	b.mustCommit(Append("deal", first.Epoch, 1, "mine"))
	second := b.open("deal")
	if second.Epoch <= first.Epoch || second.Seq != 1 {
		t.Fatalf("second owner: %+v after %+v", second, first)
	}
	b.wantOutcomes(b.commit(Append("deal", first.Epoch, 2, "zombie")), journal.ErrFenced)
	b.mustCommit(Append("deal", second.Epoch, 2, "heir"))
	for _, w := range []*journal.Write{
		Append("deal", second.Epoch, 2, "seq taken"),
		Append("deal", second.Epoch, 4, "gap"),
		Append("deal", second.Epoch+1, 3, "epoch of nobody yet"),
		Append("deal", 0, 3, "epoch of nobody ever"),
		Append("unopened", 0, 1, "epoch of nobody ever"),
		Append("unopened", 1, 1, "no owner"),
	} {
		b.wantOutcomes(b.commit(w), journal.ErrFenced)
	}
	b.wantEvents("deal", 0, "1/1/mine", "2/2/heir")
	if refused := b.Stats().Refused; refused != 7 {
		t.Fatalf("%d refused, want 7", refused)
	}
}

func testFencedAlone(_ *testing.T, b *bench) {
	b.open("a")
	b.open("b")
	b.open("b") // fences epoch 1
	b.wantOutcomes(b.commit(
		Append("a", 1, 1, "a1"), Append("b", 1, 1, "zombie"), Append("a", 1, 2, "a2"), Append("b", 2, 1, "b1"),
	), nil, journal.ErrFenced, nil, nil)
	b.reopen()
	b.wantEvents("a", 0, "1/1/a1", "2/1/a2")
	b.wantEvents("b", 0, "1/2/b1")
}

func testRefusedChain(_ *testing.T, b *bench) {
	b.open("a")
	b.wantOutcomes(b.commit(Append("a", 1, 2, "too far"), Append("a", 1, 3, "built on it"), Append("a", 1, 1, "right")),
		journal.ErrFenced, journal.ErrFenced, nil)
	b.wantEvents("a", 0, "1/1/right")
}

func testRelease(t *testing.T, b *bench) {
	first := b.open("deal")
	b.mustCommit(Append("deal", first.Epoch, 1, "mine"))
	b.Release("deal", first.Epoch)
	b.Release("unopened", 1)
	b.wantOutcomes(b.commit(Append("deal", first.Epoch, 2, "released")), journal.ErrFenced)
	b.wantEvents("deal", 0, "1/1/mine")
	second := b.open("deal")
	if second.Epoch <= first.Epoch || second.Seq != 1 {
		t.Fatalf("owner after a release: %+v after %+v", second, first)
	}
	b.Release("deal", first.Epoch) // not the stream's any more
	b.mustCommit(Append("deal", second.Epoch, 2, "heir"))
	b.wantEvents("deal", 0, "1/1/mine", "2/2/heir")
}

func testEpochs(t *testing.T, b *bench) {
	last := uint64(0)
	for range 4 {
		for range 2 {
			head := b.open("deal")
			if head.Epoch <= last {
				t.Fatalf("epoch %d after %d", head.Epoch, last)
			}
			last = head.Epoch
		}
		b.mustCommit(Append("deal", last, uint64(len(b.read("deal", 0)))+1, "x"))
		b.reopen()
	}
}

// testOpenings: each Open leaves the event that opens its epoch behind what was appended
// before, if streams pass from process to process.
func testOpenings(t *testing.T, b *bench) {
	if _, ok := b.Store.(journal.Chronicle); !ok {
		return
	}
	ctx := context.Background()
	first := b.open("deal")
	b.mustCommit(Append("deal", first.Epoch, 1, "1", "2"))
	b.open("neighbour")
	b.open("deal")
	b.Release("deal", 2)
	b.reopen()
	b.mustCommit(Append("deal", b.open("deal").Epoch, 3, "3"))
	owners, err := journal.ReadOwners(ctx, b.Store, "deal")
	if err != nil || len(owners) != 3 {
		t.Fatalf("owners: %+v, %v", owners, err)
	}
	for i, want := range []uint64{1, 3, 3} {
		if o := owners[i]; o.Epoch != uint64(i)+1 || o.First != want || o.By == "" || len(o.By) > journal.OwnerMax {
			t.Errorf("opening %d: %+v, want one before event %d", i, o, want)
		}
	}
	err = b.Read(ctx, "deal", 0, func(e journal.Event) error {
		if o, known, err := owners.Of(e); err != nil || !known || o.Epoch != e.Epoch {
			t.Errorf("event %d of epoch %d: %+v, %t, %v", e.Seq, e.Epoch, o, known, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if owners, err := journal.ReadOwners(ctx, b.Store, "unopened"); err != nil || len(owners) != 0 {
		t.Errorf("of a stream that nobody opened: %+v, %v", owners, err)
	}
	chronicle, boom, n := b.Store.(journal.Chronicle), errors.New("boom"), 0
	if err := chronicle.Openings(ctx, "deal", func(journal.Opening) error { n++; return boom }); !errors.Is(err, boom) || n != 1 {
		t.Errorf("an error of the callback: %v after %d", err, n)
	}
	if err := chronicle.Openings(ctx, "deal", func(journal.Opening) error { n++; return journal.ErrStop }); err != nil || n != 2 {
		t.Errorf("ErrStop: %v after %d", err, n)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := chronicle.Openings(ctx, "deal", func(journal.Opening) error { return nil }); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func testBarrier(_ *testing.T, b *bench) {
	b.open("a")
	b.mustCommit(&journal.Write{})
	b.mustCommit(&journal.Write{}, Append("a", 1, 1, "x"), &journal.Write{Stream: "never opened", Epoch: 7})
	b.wantEvents("a", 0, "1/1/x")
}

func testSnapshot(t *testing.T, b *bench) {
	ctx := context.Background()
	b.open("deal")
	b.mustCommit(Append("deal", 1, 1, "1", "2", "3"))
	want := func(seq uint64, data string) {
		t.Helper()
		gotSeq, got, err := b.Snapshot(ctx, "deal")
		if err != nil || gotSeq != seq || string(got) != data {
			t.Fatalf("snapshot: %d %q %v, want %d %q", gotSeq, got, err, seq, data)
		}
	}
	put := func(seq uint64, data string) {
		t.Helper()
		if err := b.PutSnapshot(ctx, "deal", b.epoch("deal"), seq, []byte(data)); err != nil {
			t.Fatalf("PutSnapshot: %v", err)
		}
	}
	put(2, "two")
	want(2, "two")
	put(1, "older")
	want(2, "two")
	put(3, "")
	want(3, "")
	b.reopen()
	want(3, "")
	if head := b.open("deal"); head != (journal.Head{Epoch: 2, Seq: 3, SnapshotSeq: 3}) {
		t.Fatalf("head: %+v", head)
	}
	b.mustCommit(Append("deal", 2, 4, "4"))
	put(4, "four")
	want(4, "four")
	b.wantEvents("deal", 0, "1/1/1", "2/1/2", "3/1/3", "4/2/4")
}

// epoch finds the present epoch of a stream in the list of streams.
func (b *bench) epoch(stream string) (epoch uint64) {
	b.t.Helper()
	err := b.Streams(context.Background(), "", func(name string, head journal.Head) error {
		if name == stream {
			epoch = head.Epoch
		}
		return nil
	})
	if err != nil {
		b.t.Fatalf("Streams: %v", err)
	}
	return epoch
}

func testSnapshotFence(t *testing.T, b *bench) {
	ctx := context.Background()
	b.open("deal")
	b.mustCommit(Append("deal", 1, 1, "1"))
	b.open("deal")
	for name, err := range map[string]error{
		"old epoch":   b.PutSnapshot(ctx, "deal", 1, 1, []byte("zombie")),
		"not durable": b.PutSnapshot(ctx, "deal", 2, 2, []byte("ahead of the truth")),
		"no owner":    b.PutSnapshot(ctx, "other", 1, 0, []byte("x")),
	} {
		if !errors.Is(err, journal.ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := b.Snapshot(ctx, "deal"); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("a refused snapshot was kept: %v", err)
	}
}

func testHead(t *testing.T, b *bench) {
	ctx := context.Background()
	if _, err := b.Head(ctx, "deal"); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("head of a stream that nobody opened: %v", err)
	}
	want := func(want journal.Head) {
		t.Helper()
		if head, err := b.Head(ctx, "deal"); err != nil || head != want {
			t.Fatalf("head %+v, %v, want %+v", head, err, want)
		}
	}
	b.open("deal")
	want(journal.Head{Epoch: 1})
	b.mustCommit(Append("deal", 1, 1, "1", "2"))
	if err := b.PutSnapshot(ctx, "deal", 1, 1, []byte("one")); err != nil {
		t.Fatal(err)
	}
	want(journal.Head{Epoch: 1, Seq: 2, SnapshotSeq: 1})
	b.Release("deal", 1)
	want(journal.Head{Epoch: 1, Seq: 2, SnapshotSeq: 1})
	b.reopen()
	want(journal.Head{Epoch: 1, Seq: 2, SnapshotSeq: 1})
	b.open("deal")
	want(journal.Head{Epoch: 2, Seq: 2, SnapshotSeq: 1})
	b.mustCommit(Append("deal", 2, 3, "3")) // a look at the head has taken nothing over
}

func testSuperseded(t *testing.T, b *bench) {
	for range 2 {
		b.open("moved")
	}
	b.open("kept")
	b.open("released")
	b.open("released")
	b.Release("released", 2)
	owned := []journal.Ownership{{Stream: "moved", Epoch: 1}, {Stream: "kept", Epoch: 1}, {Stream: "released", Epoch: 1}, {Stream: "released", Epoch: 2}, {Stream: "unopened", Epoch: 1}}
	got, err := b.Superseded(context.Background(), []string{"before"}, owned)
	slices.Sort(got)
	if want := []string{"before", "moved", "released"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("superseded: %q, %v, want %q", got, err, want)
	}
	if got, err := b.Superseded(context.Background(), nil, nil); err != nil || len(got) != 0 {
		t.Fatalf("of none: %q, %v", got, err)
	}
}

func testStreams(t *testing.T, b *bench) {
	ctx := context.Background()
	for i := range 10 {
		name := fmt.Sprintf("deal-%d", i)
		b.open(name)
		for seq := 1; seq <= i; seq++ {
			b.mustCommit(Append(name, 1, uint64(seq), "x"))
		}
		if i == 5 {
			if err := b.PutSnapshot(ctx, name, 1, 4, []byte("state")); err != nil {
				t.Fatal(err)
			}
		}
	}
	list := func(after string, most int) []string {
		t.Helper()
		var got []string
		err := b.Streams(ctx, after, func(name string, head journal.Head) error {
			if len(got) == most {
				return journal.ErrStop
			}
			got = append(got, fmt.Sprintf("%s %d %d", name, head.Seq, head.SnapshotSeq))
			return nil
		})
		if err != nil {
			t.Fatalf("Streams: %v", err)
		}
		return got
	}
	for _, reopened := range []bool{false, true} {
		if reopened {
			b.reopen()
			b.open("deal-8")
		}
		if got := list("", 100); len(got) != 10 || got[0] != "deal-0 0 0" || got[5] != "deal-5 5 4" || got[9] != "deal-9 9 0" {
			t.Fatalf("streams: %q", got)
		}
		if got, want := list("deal-6", 2), []string{"deal-7 7 0", "deal-8 8 0"}; !slices.Equal(got, want) {
			t.Fatalf("streams after deal-6: got %q, want %q", got, want)
		}
		if got := list("deal-9", 9); len(got) != 0 {
			t.Fatalf("streams after the last: %q", got)
		}
	}
}

// testNeighbours uses names that are prefixes of each other or differ in the bytes
// next to a separator.
func testNeighbours(_ *testing.T, b *bench) {
	names := []string{"a", "a\x01", "a\xff", "ab", "b", "\x01", "\xff", "\xff\xff"}
	for i, name := range names {
		b.open(name)
		for seq := range i + 1 {
			b.mustCommit(Append(name, 1, uint64(seq+1), name))
		}
	}
	b.reopen()
	for i, name := range names {
		if got := b.read(name, 0); len(got) != i+1 {
			b.t.Errorf("%q has %d events, want %d: %q", name, len(got), i+1, got)
		}
		if head := b.open(name); head.Seq != uint64(i+1) {
			b.t.Errorf("%q: head %+v, want seq %d", name, head, i+1)
		}
	}
}

func testLarge(t *testing.T, b *bench) {
	b.open("deal")
	large := bytes.Repeat([]byte("0123456789abcdef"), journal.EventMax/16)
	for group := range 8 {
		var writes []*journal.Write
		for i := range 15 {
			w := &journal.Write{Stream: "deal", Epoch: 1, Seq: uint64(group*15 + i + 1), Count: 1}
			w.Data = journal.AppendEvent(nil, large)
			writes = append(writes, w)
		}
		b.mustCommit(writes...)
	}
	b.reopen()
	n := 0
	err := b.Read(context.Background(), "deal", 0, func(e journal.Event) error {
		n++
		if !bytes.Equal(e.Data, large) {
			t.Fatalf("event %d differs", e.Seq)
		}
		return nil
	})
	if err != nil || n != 120 {
		t.Fatalf("%d events, %v", n, err)
	}
}

func testCallbacks(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	b.open("deal")
	b.mustCommit(Append("deal", 1, 1, "1", "2"))
	b.mustCommit(Append("deal", 1, 3, "3"))
	boom := errors.New("boom")
	n := 0
	if err := b.Read(ctx, "deal", 0, func(journal.Event) error { n++; return boom }); !errors.Is(err, boom) || n != 1 {
		t.Fatalf("an error of the callback: %v after %d", err, n)
	}
	if err := b.Read(ctx, "deal", 0, func(journal.Event) error { n++; return journal.ErrStop }); err != nil || n != 2 {
		t.Fatalf("ErrStop: %v after %d", err, n)
	}
	if err := b.Streams(ctx, "", func(string, journal.Head) error { return boom }); !errors.Is(err, boom) {
		t.Fatalf("Streams: %v", err)
	}
	apply(t, b, true, journal.Mutation{Table: "t", Key: "k", Value: []byte("v")})
	if err := b.Tables().Scan(ctx, "t", "", "", func(string, []byte) error { return boom }); !errors.Is(err, boom) {
		t.Fatalf("Scan: %v", err)
	}
	cancel()
	if err := b.Read(ctx, "deal", 0, func(journal.Event) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("Read with a cancelled context: %v", err)
	}
	if err := b.Streams(ctx, "", func(string, journal.Head) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("Streams with a cancelled context: %v", err)
	}
	if err := b.Tables().Scan(ctx, "t", "", "", func(string, []byte) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("Scan with a cancelled context: %v", err)
	}
}

func apply(t *testing.T, b *bench, durable bool, mutations ...journal.Mutation) {
	t.Helper()
	if err := b.Tables().Apply(context.Background(), mutations, durable); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func scan(t *testing.T, b *bench, table, prefix, after string) []string {
	t.Helper()
	var got []string
	err := b.Tables().Scan(context.Background(), table, prefix, after, func(key string, value []byte) error {
		got = append(got, key+"="+string(value))
		return nil
	})
	if err != nil {
		t.Fatalf("Scan: %v", err)
	}
	return got
}

func testTables(t *testing.T, b *bench) {
	row := func(table, key, value string) journal.Mutation {
		return journal.Mutation{Table: table, Key: key, Value: []byte(value)}
	}
	apply(t, b, true, row("rules", "m/a", "1"), row("rules", "m/b", ""), row("rules", "n/a", "3"), row("rule", "m/a", "other"))
	apply(t, b, false, row("rules", "m/a", "2"), journal.Mutation{Table: "rules", Key: "n/a"}, row("rules", "m/\xff", "4"))
	apply(t, b, true, row("keys", "\x00", "zero"))
	for _, reopened := range []bool{false, true} {
		if reopened {
			b.reopen()
		}
		value, err := b.Tables().Get(context.Background(), "rules", "m/a")
		if err != nil || string(value) != "2" {
			t.Fatalf("Get: %q %v", value, err)
		}
		if value, err := b.Tables().Get(context.Background(), "rules", "m/b"); err != nil || value == nil || len(value) != 0 {
			t.Fatalf("Get of an empty value: %q %v", value, err)
		}
		if _, err := b.Tables().Get(context.Background(), "rules", "n/a"); !errors.Is(err, journal.ErrNotFound) {
			t.Fatalf("Get of a deleted key: %v", err)
		}
		for _, c := range []struct {
			table, prefix, after string
			want                 []string
		}{
			{"rules", "", "", []string{"m/a=2", "m/b=", "m/\xff=4"}},
			{"rules", "m/", "", []string{"m/a=2", "m/b=", "m/\xff=4"}},
			{"rules", "m/", "m/a", []string{"m/b=", "m/\xff=4"}},
			{"rules", "m/", "a", []string{"m/a=2", "m/b=", "m/\xff=4"}},
			{"rules", "m/", "n", nil},
			{"rules", "x", "", nil},
			{"rule", "", "", []string{"m/a=other"}},
			{"keys", "", "", []string{"\x00=zero"}},
			{"none", "", "", nil},
		} {
			if got := scan(t, b, c.table, c.prefix, c.after); !slices.Equal(got, c.want) {
				t.Errorf("Scan(%q, %q, %q): got %q, want %q", c.table, c.prefix, c.after, got, c.want)
			}
		}
		if names, err := b.Tables().Names(context.Background()); err != nil || !slices.Equal(names, []string{"keys", "rule", "rules"}) {
			t.Errorf("Names: %q, %v", names, err)
		}
	}
}

func testTablesScanApply(t *testing.T, b *bench) {
	for i := range 4 {
		apply(t, b, false, journal.Mutation{Table: "t", Key: fmt.Sprint(i), Value: []byte("old")})
	}
	seen := 0
	err := b.Tables().Scan(context.Background(), "t", "", "", func(key string, value []byte) error {
		seen++
		if string(value) != "old" {
			t.Errorf("%s=%s", key, value)
		}
		apply(t, b, true, journal.Mutation{Table: "t", Key: "3", Value: []byte("new")}, journal.Mutation{Table: "t", Key: "4", Value: []byte("new")})
		return nil
	})
	if err != nil || seen != 4 {
		t.Fatalf("%d rows, %v", seen, err)
	}
}

func testApplyIf(t *testing.T, b *bench) {
	apply(t, b, true, journal.Mutation{Table: "t", Key: "a", Value: []byte("1")}, journal.Mutation{Table: "t", Key: "empty", Value: []byte{}})
	row := func(key, value string) journal.Expectation {
		return journal.Expectation{Table: "t", Key: key, Value: []byte(value)}
	}
	absent := func(key string) journal.Expectation { return journal.Expectation{Table: "t", Key: key} }
	set := func(key, value string) journal.Mutation {
		return journal.Mutation{Table: "t", Key: key, Value: []byte(value)}
	}
	for _, c := range []struct {
		name      string
		expected  []journal.Expectation
		mutations []journal.Mutation
		want      []string // nil: a conflict
	}{
		{"another value", []journal.Expectation{row("a", "2")}, []journal.Mutation{set("a", "3")}, nil},
		{"not there", []journal.Expectation{row("b", "2")}, []journal.Mutation{set("b", "3")}, nil},
		{"there", []journal.Expectation{absent("a")}, []journal.Mutation{set("b", "3")}, nil},
		{"there and empty", []journal.Expectation{absent("empty")}, []journal.Mutation{set("b", "3")}, nil},
		{"empty and there is a value", []journal.Expectation{row("a", "")}, []journal.Mutation{set("b", "3")}, nil},
		{"empty and there is nothing", []journal.Expectation{row("b", "")}, []journal.Mutation{set("b", "3")}, nil},
		{"one of two", []journal.Expectation{absent("b"), row("a", "2")}, []journal.Mutation{set("b", "3")}, nil},
		{"as expected", []journal.Expectation{row("a", "1")}, []journal.Mutation{set("a", "2")}, []string{"a=2", "empty="}},
		{"absent and put there", []journal.Expectation{absent("b"), row("empty", "")}, []journal.Mutation{set("b", "3")}, []string{"a=2", "b=3", "empty="}},
		{"absent and left so", []journal.Expectation{absent("c")}, []journal.Mutation{set("a", "4"), {Table: "t", Key: "b"}}, []string{"a=4", "empty="}},
		{"absent and deleted", []journal.Expectation{absent("c")}, []journal.Mutation{{Table: "t", Key: "c"}}, []string{"a=4", "empty="}},
	} {
		before := scan(t, b, "t", "", "")
		err := b.Tables().ApplyIf(context.Background(), c.expected, c.mutations, true)
		want := c.want
		if want == nil {
			want = before
		}
		if got := scan(t, b, "t", "", ""); errors.Is(err, journal.ErrConflict) != (c.want == nil) || err != nil && c.want != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, then %q, want %q", c.name, err, got, want)
		}
	}
	b.reopen()
	if got := scan(t, b, "t", "", ""); !slices.Equal(got, []string{"a=4", "empty="}) {
		t.Errorf("after a restart: %q", got)
	}
}

// testApplyIfAtOnce lets many count in one row, and race for rows that are not there:
// none is lost, and one of each race wins.
func testApplyIfAtOnce(t *testing.T, b *bench) {
	const counters, each = 6, 10
	ctx := context.Background()
	apply(t, b, true, journal.Mutation{Table: "t", Key: "count", Value: []byte("0")})
	var all sync.WaitGroup
	var won atomic.Int64
	for i := range counters {
		all.Go(func() {
			for n := range each {
				key, mine := fmt.Sprintf("race-%d", n), fmt.Append(nil, i)
				err := b.Tables().ApplyIf(ctx, []journal.Expectation{{Table: "t", Key: key}}, []journal.Mutation{{Table: "t", Key: key, Value: mine}}, true)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, journal.ErrConflict) {
					t.Error(err)
				}
				for !count(t, b) {
				}
			}
		})
	}
	all.Wait()
	if value, err := b.Tables().Get(ctx, "t", "count"); err != nil || string(value) != fmt.Sprint(counters*each) {
		t.Errorf("counted %q, %v, want %d", value, err, counters*each)
	}
	if got := won.Load(); got != each {
		t.Errorf("%d wins of %d races", got, each)
	}
}

// count counts one further, unless somebody else was faster.
func count(t *testing.T, b *bench) bool {
	ctx := context.Background()
	before, err := b.Tables().Get(ctx, "t", "count")
	n, err2 := strconv.Atoi(string(before))
	if err := errors.Join(err, err2); err != nil {
		t.Error(err)
		return true
	}
	err = b.Tables().ApplyIf(ctx, []journal.Expectation{{Table: "t", Key: "count", Value: before}},
		[]journal.Mutation{{Table: "t", Key: "count", Value: strconv.AppendInt(nil, int64(n+1), 10)}}, true)
	if err != nil && !errors.Is(err, journal.ErrConflict) {
		t.Error(err)
		return true
	}
	return err == nil
}

func testClosed(t *testing.T, b *bench) {
	ctx := context.Background()
	b.open("deal")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, openErr := b.Open(ctx, "deal")
	_, getErr := b.Get(ctx, "deal", 1, nil)
	_, _, snapshotErr := b.Snapshot(ctx, "deal")
	_, rowErr := b.Tables().Get(ctx, "t", "k")
	_, namesErr := b.Tables().Names(ctx)
	_, headErr := b.Head(ctx, "deal")
	_, supersededErr := b.Superseded(ctx, nil, []journal.Ownership{{Stream: "deal", Epoch: 1}})
	for name, err := range map[string]error{
		"Open": openErr, "Get": getErr, "Snapshot": snapshotErr, "Tables.Get": rowErr, "Tables.Names": namesErr, "Head": headErr, "Superseded": supersededErr,
		"Commit":         b.Commit([]*journal.Write{Append("deal", 1, 1, "x")}),
		"Read":           b.Read(ctx, "deal", 0, func(journal.Event) error { return nil }),
		"PutSnapshot":    b.PutSnapshot(ctx, "deal", 1, 0, nil),
		"Streams":        b.Streams(ctx, "", func(string, journal.Head) error { return nil }),
		"Tables.Scan":    b.Tables().Scan(ctx, "t", "", "", func(string, []byte) error { return nil }),
		"Tables.ApplyIf": b.Tables().ApplyIf(ctx, []journal.Expectation{{Table: "t", Key: "k"}}, []journal.Mutation{{Table: "t", Key: "k"}}, true),
		"Tables.Apply":   b.Tables().Apply(ctx, []journal.Mutation{{Table: "t", Key: "k"}}, true),
	} {
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	_ = b.Stats() // must not panic
}

func testBugs(t *testing.T, b *bench) {
	ctx := context.Background()
	b.open("deal")
	for name, bug := range map[string]func(){
		"nameless stream":    func() { _, _ = b.Open(ctx, "") },
		"stream with a zero": func() { _, _ = b.Open(ctx, "a\x00b") },
		"count that is wrong": func() {
			_ = b.Commit([]*journal.Write{{Stream: "deal", Epoch: 1, Seq: 1, Count: 2, Data: []byte{1, 'x'}}})
		},
		"nameless table":       func() { _ = b.Tables().Apply(ctx, []journal.Mutation{{Key: "k"}}, true) },
		"nameless expectation": func() { _ = b.Tables().ApplyIf(ctx, []journal.Expectation{{Table: "t"}}, nil, true) },
		"nameless row":         func() { _ = b.Tables().Apply(ctx, []journal.Mutation{{Table: "t"}}, true) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a %s did not panic", name)
				}
			}()
			bug()
		}()
	}
	b.mustCommit(Append("deal", 1, 1, "still works"))
}

// testConcurrent lets owners of many streams write through one Committer while others
// read; every reader must see a prefix of what was appended, without gaps.
func testConcurrent(t *testing.T, b *bench) {
	const streams, each = 8, 50
	c, err := journal.NewCommitter(b.Store, journal.Config{Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	var owners, readers sync.WaitGroup
	stop := make(chan struct{})
	for i := range streams {
		name := fmt.Sprintf("deal-%d", i)
		epoch := b.open(name).Epoch
		owners.Go(func() {
			done := make(chan error, 1)
			for seq := uint64(1); seq <= each; seq++ {
				w := Append(name, epoch, seq, fmt.Sprint(seq))
				w.Done = CompleterFunc(func(w *journal.Write) { done <- w.Err })
				c.Submit(w)
				if err := <-done; err != nil {
					t.Errorf("%s %d: %v", name, seq, err)
					return
				}
				if got, err := b.Get(context.Background(), name, seq, nil); err != nil || string(got) != fmt.Sprint(seq) {
					t.Errorf("an acknowledged event cannot be read: %q %v", got, err)
				}
			}
		})
		readers.Go(func() {
			for {
				next := uint64(1)
				err := b.Read(context.Background(), name, 0, func(e journal.Event) error {
					if e.Seq != next || string(e.Data) != fmt.Sprint(next) {
						return fmt.Errorf("event %d reads %q, want %d", e.Seq, e.Data, next)
					}
					next++
					return nil
				})
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	owners.Wait()
	close(stop)
	readers.Wait()
	c.Close()
	for i := range streams {
		if got := b.read(fmt.Sprintf("deal-%d", i), 0); len(got) != each {
			t.Errorf("stream %d has %d events, want %d", i, len(got), each)
		}
	}
}

// CompleterFunc makes a function a journal.Completer.
type CompleterFunc func(*journal.Write)

// Committed implements journal.Completer.
func (f CompleterFunc) Committed(w *journal.Write) { f(w) }
