package postgres_test

import (
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
)

// TestExamine: what Open would refuse is found before, who serves is named, and
// nothing is left behind.
func TestExamine(t *testing.T) {
	url := database(t, server)
	h, err := postgres.Examine(t.Context(), url)
	if err != nil || h.Version == "" || h.Commit <= 0 || h.Holder != "" {
		t.Fatalf("%+v, %v", h, err)
	}
	store, err := postgres.Open(t.Context(), postgres.Config{URL: url, Clock: newClock(t), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := postgres.Examine(t.Context(), url); err != nil || !strings.HasPrefix(h.Holder, "doorbuster at ") {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err := postgres.Examine(t.Context(), database(t, server)); err != nil || h.Holder != "" {
		t.Errorf("another database: %+v, %v", h, err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, "postgres", "CREATE DATABASE unprepared")
	for range 2 {
		if _, err := postgres.Examine(t.Context(), server.URL("unprepared")); err == nil || !strings.Contains(err.Error(), "doorbuster migrate") {
			t.Errorf("a database without the schema: %v", err)
		}
	}
}
