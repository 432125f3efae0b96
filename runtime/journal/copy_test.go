package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// TestCopyLeavesAnotherJournalAlone: a destination that holds another journal is not
// written to.
func TestCopyLeavesAnotherJournalAlone(t *testing.T) {
	to := journaltest.NewMemory()
	if _, err := to.Open(t.Context(), "theirs"); err != nil {
		t.Fatal(err)
	}
	w := journaltest.Append("theirs", 1, 1, "event")
	if err := errors.Join(to.Commit([]*journal.Write{w}), w.Err); err != nil {
		t.Fatal(err)
	}
	_, err := journal.Copy(t.Context(), source(t), to, nil)
	if err == nil || !strings.Contains(err.Error(), `stream "theirs"`) || !strings.Contains(err.Error(), "nothing was copied") {
		t.Error(err)
	}
	if _, err := to.Head(t.Context(), "deal-1"); !errors.Is(err, journal.ErrNotFound) {
		t.Error("a stream was copied", err)
	}
}

// source makes a Store with streams of several sizes, a snapshot and tables.
func source(t *testing.T) *journaltest.Memory {
	t.Helper()
	m := journaltest.NewMemory()
	for i, events := range []int{0, 1, 3000} {
		stream := fmt.Sprint("deal-", i)
		if _, err := m.Open(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		for seq := range events {
			w := journaltest.Append(stream, 1, uint64(seq)+1, strings.Repeat("x", seq))
			if err := errors.Join(m.Commit([]*journal.Write{w}), w.Err); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := m.PutSnapshot(t.Context(), "deal-2", 1, 2000, []byte("state")); err != nil {
		t.Fatal(err)
	}
	rows := []journal.Mutation{{Table: "empty", Key: "k", Value: []byte{}}}
	for i := range 3000 {
		rows = append(rows, journal.Mutation{Table: "rows", Key: fmt.Sprint(i), Value: fmt.Append(nil, i)})
	}
	if err := m.Tables().Apply(t.Context(), rows, true); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCopy(t *testing.T) {
	from, to := source(t), journaltest.NewMemory()
	streams := 0
	for range 2 { // the second one finds all there
		got, err := journal.Copy(t.Context(), from, to, func(journal.Copied) { streams++ })
		if want := (journal.Copied{Streams: 3, Events: 3001, Snapshots: 1, Rows: 3001}); err != nil || got != want {
			t.Fatalf("%+v, %v, want %+v", got, err, want)
		}
	}
	if streams != 6 {
		t.Errorf("told of %d streams", streams)
	}
	if seq, data, err := to.Snapshot(t.Context(), "deal-2"); err != nil || seq != 2000 || string(data) != "state" {
		t.Errorf("snapshot %d %q %v", seq, data, err)
	}
}

func TestCopyGoesOn(t *testing.T) {
	from, to := source(t), journaltest.NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := journal.Copy(ctx, from, to, func(c journal.Copied) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut short: %v", err)
	}
	if _, err := journal.Copy(t.Context(), from, to, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCopyFindsDifferences(t *testing.T) {
	for _, test := range []struct {
		name, want string
		before     func(*journaltest.Memory) error
	}{
		{"another event", "event 1 is not the same", func(m *journaltest.Memory) error {
			w := journaltest.Append("deal-2", 1, 1, "another")
			return errors.Join(m.Commit([]*journal.Write{w}), w.Err)
		}},
		{"more events", "2 events, the source 1", func(m *journaltest.Memory) error {
			w := journaltest.Append("deal-1", 1, 1, "", "")
			return errors.Join(m.Commit([]*journal.Write{w}), w.Err)
		}},
		{"a table that the source has no more", "row \"revoked\"", func(m *journaltest.Memory) error {
			return m.Tables().Apply(context.Background(), []journal.Mutation{{Table: "keys", Key: "revoked", Value: []byte("x")}}, true)
		}},
		{"more rows", "row \"extra\"", func(m *journaltest.Memory) error {
			return m.Tables().Apply(context.Background(), []journal.Mutation{{Table: "rows", Key: "extra", Value: []byte("x")}}, true)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			to := journaltest.NewMemory()
			for _, stream := range []string{"deal-1", "deal-2"} {
				if _, err := to.Open(t.Context(), stream); err != nil {
					t.Fatal(err)
				}
			}
			if err := test.before(to); err != nil {
				t.Fatal(err)
			}
			if _, err := journal.Copy(t.Context(), source(t), to, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
