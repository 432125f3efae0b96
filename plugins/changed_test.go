package plugins_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// TestChangedIsTold: of each change that was made, once, and of no other.
func TestChangedIsTold(t *testing.T) {
	var told []plugins.Audit
	r, err := plugins.New(t.Context(), plugins.Config{
		Tables: journaltest.NewMemory().Tables(), Now: func() int64 { return now }, Host: host.Config{Instances: 2},
		Changed: func(merchant, rule string, a plugins.Audit) {
			if merchant != "acme" || rule != "sale" {
				t.Errorf("told of %s's %s", merchant, rule)
			}
			told = append(told, a)
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
	if len(told) != 1 || told[0].Action != plugins.ActionRollback || told[0].From != 2 || told[0].To != 1 || told[0].Why != "too much" {
		t.Errorf("%+v", told)
	}
}
