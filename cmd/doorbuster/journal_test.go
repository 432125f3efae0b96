package main

import (
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

func TestVerifyNamesTheDealThatIsDamaged(t *testing.T) {
	store, err := openOffline(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	head, err := store.Open(t.Context(), "d-1")
	if err != nil {
		t.Fatal(err)
	}
	nonsense := journal.Write{Stream: "d-1", Epoch: head.Epoch, Seq: 1, Count: 1, Data: journal.AppendEvent(nil, []byte("nonsense"))}
	if err := store.Commit([]*journal.Write{&nonsense}); err != nil || nonsense.Err != nil {
		t.Fatal(err, nonsense.Err)
	}
	var out strings.Builder
	err = verifyJournal(t.Context(), store, &out)
	if err == nil || !strings.Contains(out.String(), "d-1: after 0 events: ") || !strings.Contains(out.String(), "1 deals, 0 events, 1 damaged") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
