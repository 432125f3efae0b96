package plugins_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// TestChangedIsTold: of each change that was made, once, and of no other.
func TestChangedIsTold(t *testing.T) {
	told := 0
	r, err := plugins.New(t.Context(), plugins.Config{
		Tables: journaltest.NewMemory().Tables(), Now: func() int64 { return now }, Host: host.Config{Instances: 2},
		Changed: func(merchant, rule string) {
			if merchant != "acme" || rule != "sale" {
				t.Errorf("told of %s's %s", merchant, rule)
			}
			told++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	upload(t, r, "acme", "sale", fixed(1000))
	upload(t, r, "acme", "sale", fixed(2000))
	if _, err := r.Rollback(t.Context(), "ann", "too much", "acme", "sale"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rollback(t.Context(), "ann", "", "acme", "none"); err == nil {
		t.Fatal("a rule that is not there was rolled back")
	}
	if a := lastAudit(t, r); told != 1 || a.Action != plugins.ActionRollback || a.From != 2 || a.To != 1 || a.Why != "too much" || a.Seq != r.Changes("acme")["sale"] {
		t.Errorf("told %d times; %+v", told, a)
	}
}
