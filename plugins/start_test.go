package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// ofRules are tables that ask get before they read a module.
type ofRules struct {
	journal.Tables
	get func() error
}

func (o ofRules) Get(ctx context.Context, table, key string) ([]byte, error) {
	if table == "rule_wasm" {
		if err := o.get(); err != nil {
			return nil, err
		}
	}
	return o.Tables.Get(ctx, table, key)
}

// start is New for a test that closes the registry.
func start(t *testing.T, config plugins.Config) *plugins.Registry {
	t.Helper()
	config.Now = func() int64 { return now }
	r, err := plugins.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func faults(r *plugins.Registry, rule string) bool {
	var out abi.Verdict
	r.Evaluate("acme", rule, &abi.Input{Subtotal: 1}, &out)
	return out.Fault == abi.FaultRuleInit
}

// TestStartWithoutCompiler: rules that cannot be compiled keep nothing from starting.
func TestStartWithoutCompiler(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	upload(t, open(t, tables), "acme", "sale", fixed(1))
	r := start(t, plugins.Config{Tables: tables, Host: host.Config{Instances: 1, Compiler: []string{"/bin/false"}, Cache: t.TempDir()}})
	rule, err := r.Rule(t.Context(), "acme", "sale")
	if err != nil || rule.NotRunnable != "version 1 could not be compiled; the server tries again" || !faults(r, "sale") {
		t.Errorf("%+v, %v", rule, err)
	}
	if house := len(r.Rules("")); r.NotRunnable() != 1+house {
		t.Errorf("%d versions do not run, of one and %d of the house", r.NotRunnable(), house)
	}
	start(t, plugins.Config{Tables: journaltest.NewMemory().Tables(), Host: host.Config{Instances: 1, Compiler: []string{"/bin/false"}, Cache: t.TempDir()}})
}

// sleeper lets a test have a registry mend. again returns after the next round.
func sleeper() (sleep func(context.Context, time.Duration) error, again func()) {
	waits, wake := make(chan struct{}), make(chan struct{})
	sleep = func(ctx context.Context, _ time.Duration) error {
		for _, step := range []chan struct{}{waits, wake} {
			select {
			case step <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	first := true
	return sleep, func() {
		if first {
			<-waits
			first = false
		}
		<-wake
		<-waits
	}
}

// TestMend: what could not be loaded at the start is tried again.
func TestMend(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	upload(t, open(t, tables), "acme", "sale", fixed(1))
	var healthy atomic.Bool
	sleep, again := sleeper()
	r := start(t, plugins.Config{Tables: unless(tables, &healthy), Sleep: sleep})
	if again(); !faults(r, "sale") {
		t.Fatal("it runs without its module")
	}
	healthy.Store(true)
	again()
	expect(t, r, "acme", "sale", 1, 1)
	if r.NotRunnable() != 0 {
		t.Error(r.NotRunnable())
	}
}

// TestHouseRulesOfAFullJournal are stored once it has room.
func TestHouseRulesOfAFullJournal(t *testing.T) {
	store := journaltest.NewMemory()
	store.SetReadOnly(true)
	sleep, again := sleeper()
	r := start(t, plugins.Config{Tables: store.Tables(), Sleep: sleep})
	if again(); r.HouseRules() == nil || r.Exists("acme", "tiered") {
		t.Fatal("a house rule is there without having been stored")
	}
	store.SetReadOnly(false)
	if again(); r.HouseRules() != nil || !r.Exists("acme", "tiered") {
		t.Error(r.HouseRules())
	}
}

// TestCandidateThatIsNotLoadedStays: what one machine cannot load says nothing of the
// candidate, and ends it on none.
func TestCandidateThatIsNotLoadedStays(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	a := open(t, tables)
	upload(t, a, "acme", "sale", fixed(1))
	upload(t, a, "acme", "sale", fixed(2))
	pin(t, a, plugins.Change{Stable: 1, Candidate: 2, Mode: plugins.ModeCanary, Percent: 100})
	b := start(t, plugins.Config{Tables: unless(tables, new(atomic.Bool))})
	for user := range 2 * plugins.WindowOrders {
		if out := buy(b, user); out.Fault != abi.FaultRuleInit || out.Version != 2 {
			t.Fatalf("%+v", out)
		}
	}
	if c, err := b.Compare("acme", "sale"); err != nil || c == nil || c.Candidate.Orders != 0 {
		t.Errorf("the candidate is judged by %+v, %v", c, err)
	}
}

// TestMendWhatAnotherNodeChanged: until its version can be loaded, the earlier one goes on.
func TestMendWhatAnotherNodeChanged(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	a := open(t, tables)
	upload(t, a, "acme", "sale", fixed(1))
	var healthy atomic.Bool
	healthy.Store(true)
	sleep, again := sleeper()
	b := start(t, plugins.Config{Tables: unless(tables, &healthy), Sleep: sleep})
	upload(t, a, "acme", "sale", fixed(2))
	healthy.Store(false)
	if err := b.Refresh(t.Context(), "acme/sale"); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	again()
	expect(t, b, "acme", "sale", 1, 1)
	healthy.Store(true)
	again()
	expect(t, b, "acme", "sale", 2, 2)
}

// TestChangeAwayFromWhatIsNotLoaded: a node that cannot load the version that another
// node has made stable takes it back all the same.
func TestChangeAwayFromWhatIsNotLoaded(t *testing.T) {
	for name, change := range map[string]func(*plugins.Registry) (plugins.Rollout, error){
		"rollback": func(b *plugins.Registry) (plugins.Rollout, error) {
			return b.Rollback(t.Context(), "ann", "", "acme", "sale")
		},
		"pin": func(b *plugins.Registry) (plugins.Rollout, error) {
			return b.SetRollout(t.Context(), "ann", "acme", "sale", plugins.Change{Stable: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			tables := journaltest.NewMemory().Tables()
			a := open(t, tables)
			upload(t, a, "acme", "sale", fixed(1))
			var healthy atomic.Bool
			healthy.Store(true)
			b := start(t, plugins.Config{Tables: unless(tables, &healthy)})
			expect(t, b, "acme", "sale", 1, 1)
			upload(t, a, "acme", "sale", fixed(2))
			healthy.Store(false)
			if err := b.Refresh(t.Context(), "acme/sale"); !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
			if _, err := b.SetRollout(t.Context(), "ann", "acme", "sale", plugins.Change{Stable: 2}); !errors.Is(err, errDisk) {
				t.Errorf("what cannot be loaded is made stable: %v", err)
			}
			next, err := change(b)
			if err != nil || next.Stable != 1 || next.Previous != 2 || !next.Pinned {
				t.Fatalf("%+v, %v", next, err)
			}
			if last := lastAudit(t, b); last.From != 2 || last.To != 1 {
				t.Errorf("%+v", last)
			}
			expect(t, b, "acme", "sale", 1, 1)
			refresh(t, a, "")
			refresh(t, b, "")
			expect(t, a, "acme", "sale", 1, 1)
			if rollout(t, a) != rollout(t, b) || b.NotRunnable() != 0 {
				t.Errorf("%+v and %+v", rollout(t, a), rollout(t, b))
			}
		})
	}
}

// unless gives no module while it is not healthy.
func unless(tables journal.Tables, healthy *atomic.Bool) journal.Tables {
	return ofRules{tables, func() error {
		if healthy.Load() {
			return nil
		}
		return errDisk
	}}
}

// TestStartLoadsInParallel: a few versions at a time, and it tells how far it is.
func TestStartLoadsInParallel(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	r := open(t, tables)
	const rules = 3 * plugins.LoadersMax
	for n := range rules {
		upload(t, r, "acme", fmt.Sprint("r-", n), fixed(n+1))
	}
	var mu sync.Mutex
	reading, done, of := 0, 0, 0
	all := make(chan struct{}) // closed once so many read at once as may
	r = start(t, plugins.Config{
		Tables: ofRules{tables, func() error {
			mu.Lock()
			if reading++; reading == plugins.LoadersMax {
				close(all)
			}
			if reading-done > plugins.LoadersMax {
				t.Errorf("%d are loaded at once", reading-done)
			}
			mu.Unlock()
			select {
			case <-all:
				return nil
			case <-time.After(10 * time.Second):
				return errors.New("nobody else reads")
			}
		}},
		Loading: func(n, most int) {
			mu.Lock()
			defer mu.Unlock()
			if n != done+1 {
				t.Errorf("%d after %d", n, done)
			}
			done, of = n, most
		},
	})
	if house := len(r.Rules("")); done != rules+house || of != done || r.NotRunnable() != 0 {
		t.Errorf("%d of %d are loaded, %d do not run", done, of, r.NotRunnable())
	}
	expect(t, r, "acme", "r-0", 1, 1)
}

// TestStartEnds with its context.
func TestStartEnds(t *testing.T) {
	tables := journaltest.NewMemory().Tables()
	upload(t, open(t, tables), "acme", "sale", fixed(1))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := plugins.New(ctx, plugins.Config{
		Now:    func() int64 { return now },
		Tables: ofRules{tables, func() error { cancel(); return nil }},
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
