package main

import (
	"context"
	"io"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/gateway"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
	"github.com/doorbuster/doorbuster/runtime/obs"
)

// away is tables that cannot be reached as long as that is set.
type away struct {
	journal.Tables
	set   atomic.Bool
	asked atomic.Int64
}

func (a *away) Get(ctx context.Context, table, key string) ([]byte, error) {
	if a.asked.Add(1); a.set.Load() {
		return nil, journal.ErrUnreachable
	}
	return a.Tables.Get(ctx, table, key)
}

// TestKeyRevokedDuringAnOutage: a journal that goes away right after it has told of a change
// is asked for it until it is back, however long that takes.
func TestKeyRevokedDuringAnOutage(t *testing.T) {
	tables := &away{Tables: journaltest.NewMemory().Tables()}
	theirs, err := gateway.LoadKeys(t.Context(), tables)
	must(t, err)
	key, _, err := theirs.Create(t.Context(), "operator", "")
	must(t, err)
	manual := clockd.NewManual(1)
	log, err := obs.NewLog(obs.LogConfig{Out: io.Discard, Clock: manual.Clock()})
	must(t, err)
	defer log.Close()
	s := &server{clock: manual.Clock(), log: log}
	s.keys, err = gateway.LoadKeys(t.Context(), tables)
	must(t, err)
	must(t, theirs.Revoke(t.Context(), key.ID))

	tables.set.Store(true)
	before, done := tables.asked.Load(), make(chan struct{})
	go func() {
		s.follow(t.Context(), journal.Change{Table: gateway.TableKeys, Key: key.ID})
		close(done)
	}()
	for tables.asked.Load() < before+refreshTries+10 {
		select {
		case <-done:
			t.Fatal("the change was given up")
		default:
			manual.Advance(refreshPause)
		}
	}
	tables.set.Store(false)
	for ended := false; !ended; manual.Advance(refreshPause) {
		select {
		case <-done:
			ended = true
		default:
		}
	}
	if left := s.keys.List(); len(left) != 0 {
		t.Errorf("%+v is good", left)
	}
}
