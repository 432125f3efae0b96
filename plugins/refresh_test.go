package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// nodes are two registries over the same tables, as on two nodes.
func nodes(t *testing.T) (tables journal.Tables, a, b *plugins.Registry) {
	t.Helper()
	tables = journaltest.NewMemory().Tables()
	return tables, open(t, tables), open(t, tables)
}

func refresh(t *testing.T, r *plugins.Registry, key string) {
	t.Helper()
	if err := r.Refresh(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func audits(t *testing.T, r *plugins.Registry) (all []plugins.Audit) {
	t.Helper()
	err := r.Audits(t.Context(), "acme", "sale", 0, func(a plugins.Audit) error { all = append(all, a); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRefresh(t *testing.T) {
	for _, key := range []string{"acme/sale", ""} {
		_, a, b := nodes(t)
		upload(t, a, "acme", "sale", fixed(1))
		expect(t, b, "acme", "sale", 0, 0) // not known yet, and the verdict says so
		refresh(t, b, key)
		expect(t, b, "acme", "sale", 1, 1)
		upload(t, a, "acme", "sale", fixed(2))
		expect(t, b, "acme", "sale", 1, 1)
		refresh(t, b, key)
		expect(t, b, "acme", "sale", 2, 2)
		if _, err := a.Rollback(t.Context(), "ann", "", "acme", "sale"); err != nil {
			t.Fatal(err)
		}
		upload(t, a, "acme", "sale", fixed(3)) // pinned: it prices nothing
		refresh(t, b, key)
		expect(t, b, "acme", "sale", 1, 1)
		here, err1 := a.Rule(t.Context(), "acme", "sale")
		there, err2 := b.Rule(t.Context(), "acme", "sale")
		if err1 != nil || err2 != nil || here != there || there.Latest != 3 {
			t.Errorf("%+v, %v and %+v, %v", here, err1, there, err2)
		}
		if house := len(b.Rules("")); b.Loaded() != house+1 {
			t.Errorf("%d versions are loaded, of %d house rules and one more", b.Loaded(), house)
		}
		refresh(t, b, "acme/nothing")
	}
}

// What another node has just stored is found by whoever names it.
func TestUnseenIsFound(t *testing.T) {
	_, a, b := nodes(t)
	upload(t, a, "acme", "sale", fixed(1))
	if rule, err := b.Rule(t.Context(), "acme", "sale"); err != nil || rule.Latest != 1 {
		t.Errorf("rule: %+v, %v", rule, err)
	}
	v := upload(t, a, "acme", "sale", fixed(2))
	e, err := b.EvaluateVersion(t.Context(), "acme", "sale", 2, &abi.Input{Now: now, Subtotal: 100, UnitPrice: 100, Quantity: 1})
	if err != nil || e.Discount != 2 || e.Version != 2 || fmt.Sprintf("%x", e.SHA256) != v.SHA256 {
		t.Errorf("evaluation: %+v, %v", e, err)
	}
	upload(t, a, "acme", "sale", fixed(3))
	if known, err := b.Version(t.Context(), "acme", "sale", 3); err != nil || known.Version != 3 {
		t.Errorf("version: %+v, %v", known, err)
	}
	upload(t, a, "acme", "sale", fixed(4))
	if _, err := b.SetRollout(t.Context(), "ann", "acme", "sale", plugins.Change{Stable: 4}); err != nil {
		t.Error(err)
	}
	expect(t, b, "acme", "sale", 4, 4)
	upload(t, a, "acme", "other", fixed(1))
	if err := b.Audits(t.Context(), "acme", "other", 0, func(plugins.Audit) error { return nil }); err != nil {
		t.Error(err)
	}
	if _, err := b.Version(t.Context(), "acme", "sale", 5); !errors.Is(err, plugins.ErrVersionNotFound) {
		t.Error(err)
	}
}

// Two nodes that change a rule at once: nothing is lost, no number is given twice, and
// both say the same in the end.
func TestChangesAtOnce(t *testing.T) {
	tables, a, b := nodes(t)
	upload(t, a, "acme", "sale", fixed(1000))
	const each = 12
	versions := make([][]plugins.Version, 2)
	var all sync.WaitGroup
	for n, r := range []*plugins.Registry{a, b} {
		all.Go(func() {
			for i := range each {
				v, created, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "sale", Wasm: fixed(1 + i + n*each), By: "upload"})
				if err != nil || !created {
					t.Error(created, err)
				}
				versions[n] = append(versions[n], v)
				if out := buy(r, i); out.Fault != abi.FaultNone || out.Discount == 1000 && out.Version != 1 {
					t.Errorf("%+v", out)
				}
			}
		})
		all.Go(func() {
			for range each {
				if _, err := r.SetRollout(t.Context(), "pin", "acme", "sale", plugins.Change{Stable: 1}); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() { // as a notification does
			for range each {
				if err := r.Refresh(t.Context(), "acme/sale"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	refresh(t, a, "")
	refresh(t, b, "")
	for n, mine := range versions {
		for i, v := range mine {
			for _, r := range []*plugins.Registry{a, b, open(t, tables)} {
				e, err := r.EvaluateVersion(t.Context(), "acme", "sale", v.Version, &abi.Input{Now: now, Subtotal: 10_000, UnitPrice: 10_000, Quantity: 1})
				if err != nil || e.Discount != int64(1+i+n*each) || fmt.Sprintf("%x", e.SHA256) != v.SHA256 {
					t.Fatalf("upload %d of node %d became version %d, which says %+v, %v", i, n, v.Version, e, err)
				}
			}
		}
	}
	list := audits(t, b)
	count := func(by string) int {
		return len(slices.DeleteFunc(slices.Clone(list), func(a plugins.Audit) bool { return a.By != by }))
	}
	if count("upload") != 2*each || count("pin") != 2*each || len(list) != 4*each+1 {
		t.Errorf("%d audits, of these %d uploads and %d pins", len(list), count("upload"), count("pin"))
	}
	for i, audit := range list {
		if audit.Seq != uint64(i+1) {
			t.Errorf("audit %d has the number %d", i+1, audit.Seq)
		}
	}
	if rollout(t, a) != rollout(t, b) {
		t.Errorf("%+v and %+v", rollout(t, a), rollout(t, b))
	}
}

// The same bytes on two nodes are one version, and so are the house rules of two nodes
// that start at once.
func TestTwins(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	all := make([]*plugins.Registry, 4)
	var started sync.WaitGroup
	for i := range all {
		started.Go(func() { all[i] = open(t, tables) })
	}
	started.Wait()
	var uploaded sync.WaitGroup
	for _, r := range all {
		uploaded.Go(func() {
			v, _, err := r.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "sale", Wasm: fixed(7)})
			if err != nil || v.Version != 1 {
				t.Errorf("version %d, %v", v.Version, err)
			}
		})
	}
	uploaded.Wait()
	if list := audits(t, all[0]); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	for _, rule := range open(t, tables).Rules("") {
		if rule.Latest != 1 {
			t.Errorf("%+v", rule)
		}
	}
}

// Both nodes find out that a candidate misbehaves; one of them gives it up.
func TestOneAutomaticRollback(t *testing.T) {
	_, a, b := nodes(t)
	upload(t, a, "acme", "sale", fixed(1000))
	pin(t, a, plugins.Change{Stable: 1})
	upload(t, a, "acme", "sale", faulty)
	pin(t, a, plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100})
	refresh(t, b, "")
	var all sync.WaitGroup
	for _, r := range []*plugins.Registry{a, b} {
		all.Go(func() {
			for user := range 2 * plugins.WindowOrders {
				buy(r, user)
			}
		})
	}
	all.Wait()
	eventually(t, "both know of the rollback", func() bool { return rollout(t, a).Candidate == 0 && rollout(t, b).Candidate == 0 })
	if _, err := b.Promote(t.Context(), "ann", "", "acme", "sale"); err != nil { // behind whatever either still does
		t.Fatal(err)
	}
	refresh(t, a, "")
	rollbacks := 0
	for _, audit := range audits(t, a) {
		if audit.Action == plugins.ActionAutoRollback {
			rollbacks++
		}
	}
	if rollbacks != 1 {
		t.Errorf("%d automatic rollbacks: %+v", rollbacks, audits(t, a))
	}
}

// A candidate that another node gave up and that began again is judged anew.
func TestCandidateBeginsAgain(t *testing.T) {
	_, a, b := nodes(t)
	upload(t, a, "acme", "sale", fixed(1000))
	pin(t, a, plugins.Change{Stable: 1})
	upload(t, a, "acme", "sale", fixed(2000))
	again := plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100}
	pin(t, a, again)
	refresh(t, b, "")
	figures := func() uint64 {
		c, err := b.Compare("acme", "sale")
		if err != nil || c == nil {
			t.Fatal(c, err)
		}
		return c.Candidate.Orders
	}
	buy(b, 1)
	upload(t, a, "acme", "sale", fixed(3000)) // changes nothing for the candidate
	refresh(t, b, "")
	if got := figures(); got != 1 {
		t.Errorf("after an upload the candidate has %d orders", got)
	}
	if _, err := a.Rollback(t.Context(), "ann", "", "acme", "sale"); err != nil {
		t.Fatal(err)
	}
	pin(t, a, again)
	refresh(t, b, "")
	if got := figures(); got != 0 {
		t.Errorf("the new candidate begins with %d orders", got)
	}
}

// stuck are tables that are slow to say that they have stored one merchant's changes.
type stuck struct {
	journal.Tables
	merchant string
	stored   chan struct{} // closed with the first
	release  chan struct{}
}

func (s stuck) ApplyIf(ctx context.Context, free []journal.Expectation, rows []journal.Mutation, durable bool) error {
	err := s.Tables.ApplyIf(ctx, free, rows, durable)
	if strings.HasPrefix(rows[0].Key, s.merchant+"/") {
		close(s.stored)
		<-s.release
	}
	return err
}

// TestStuckStore: a store that keeps one merchant waiting holds up nobody else, and what
// a refresh has taken over meanwhile stays, be it newer.
func TestStuckStore(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	s := stuck{tables, "acme", make(chan struct{}), make(chan struct{})}
	other, r := open(t, tables), open(t, s)
	upload(t, other, "acme", "sale", fixed(1))
	upload(t, other, "acme", "sale", fixed(2))
	refresh(t, r, "")
	var changes sync.WaitGroup
	changes.Go(func() {
		if _, err := r.Rollback(t.Context(), "ann", "", "acme", "sale"); err != nil {
			t.Error(err)
		}
	})
	<-s.stored
	upload(t, r, "bolt", "r", fixed(3))
	upload(t, r, "bolt", "r", fixed(4))
	if _, err := r.Rollback(t.Context(), "bob", "", "bolt", "r"); err != nil {
		t.Error(err)
	}
	expect(t, r, "bolt", "r", 3, 1)
	refresh(t, r, "acme/sale")
	expect(t, r, "acme", "sale", 1, 1)
	pin(t, other, plugins.Change{Stable: 2})
	refresh(t, r, "acme/sale")
	close(s.release)
	changes.Wait()
	expect(t, r, "acme", "sale", 2, 2)
	if house := len(r.Rules("")); r.NotRunnable() != 0 || r.Loaded() != house+2 {
		t.Errorf("%d do not run, %d are loaded", r.NotRunnable(), r.Loaded())
	}
}
