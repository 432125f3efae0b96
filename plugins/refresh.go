package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Nodes that share their tables keep the same rules in memory. Each change of a rule
// has a number, that of its audit, and is stored only if nobody took that number: of
// two nodes that change a rule at once, one reads what the other did and decides anew.
// Versions are part of changes, so two nodes never call different modules the same.

// TableRollout has a row of each rule, which every change of the rule writes. Its keys
// are what Refresh takes.
const TableRollout = "rule_rollout"

// conflictsMax bounds how often one change is decided anew.
const conflictsMax = 32

// Refresh takes over what other nodes have changed of one rule, or with "" of all.
func (r *Registry) Refresh(ctx context.Context, key string) error {
	if key != "" {
		merchant, id, _ := strings.Cut(key, "/")
		return r.refresh(ctx, ruleKey{merchant, id})
	}
	audits, err := r.countAudits(ctx)
	for key, n := range audits {
		if known := (*r.rules.Load())[key]; known == nil || known.audits < n {
			err = errors.Join(err, r.refresh(ctx, key))
		}
	}
	return err
}

// refresh is Refresh of one rule. The caller does not hold mu.
func (r *Registry) refresh(ctx context.Context, key ruleKey) error {
	for replaced := false; !replaced; {
		old := (*r.rules.Load())[key]
		changed, err := r.stored(ctx, key, old)
		if err != nil {
			return err
		}
		if changed == nil {
			break
		}
		if err = r.loadInUse(ctx, changed); err == nil {
			replaced = r.replace(old, changed)
		}
		if !replaced {
			r.unloadUnused(changed.inUse()...)
		}
		if err != nil {
			r.behind.Store(key, nil)
			return err
		}
	}
	r.behind.Delete(key)
	return nil
}

// loadInUse loads the versions that price orders. One that does not pass this
// release's validation stays without a program: see Rule.NotRunnable.
func (r *Registry) loadInUse(ctx context.Context, u *rule) error {
	for _, v := range u.inUse() {
		var invalid *InvalidError
		if _, err := r.load(ctx, v); err != nil && !errors.As(err, &invalid) {
			return err
		}
	}
	return nil
}

// replace publishes a rule unless another moment of it has taken the place of old, or
// one of its versions was unloaded since it was loaded: until now it priced no orders.
func (r *Registry) replace(old, changed *rule) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (*r.rules.Load())[changed.key] != old {
		return false
	}
	for _, v := range changed.inUse() {
		if v.loadable() && !r.inUse(v) {
			return false
		}
	}
	r.publish(changed)
	return true
}

// publishStored makes a change known that this node has stored. Where replace does not, a
// refresh may have been faster: then the change is taken over as another node's is.
func (r *Registry) publishStored(old, changed *rule) {
	if r.replace(old, changed) {
		return
	}
	r.unloadUnused(changed.inUse()...)
	_ = r.refresh(r.life, changed.key) // what fails is tried again later
}

// stored returns what a rule has become in the tables since old, or nil if nothing has
// changed. old is nil for a rule that is not known yet.
//
// The audits are read first: should another change come between, the rule is newer than
// its number says, and the next change of it conflicts and finds that out.
func (r *Registry) stored(ctx context.Context, key ruleKey, old *rule) (*rule, error) {
	changed := rule{key: key, counters: &counters{}}
	if old != nil {
		changed = *old
	}
	before := changed.audits
	err := r.config.Tables.Scan(ctx, tableAudit, key.path()+"/", key.numbered(before), func(row string, value []byte) error {
		var a Audit
		if err := decodeRow(tableAudit, row, value, &a); err != nil {
			return err
		}
		if a.Action != ActionUpload {
			changed.comparison = nil // it has ended, though another of the same kind may have begun
		}
		changed.audits++
		return nil
	})
	if err != nil || changed.audits == before {
		return nil, err
	}
	rollout, err := r.storedRollout(ctx, key)
	if err != nil {
		return nil, err
	}
	versions := changed.versions[:len(changed.versions):len(changed.versions)] // old has them too
	err = r.config.Tables.Scan(ctx, tableVersion, key.path()+"/", key.numbered(uint64(len(versions))), func(row string, value []byte) error {
		v, err := decodeVersion(key, row, value, len(versions)+1)
		versions = append(versions, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	changed.versions = versions
	return changed.under(rollout)
}

func (r *Registry) storedRollout(ctx context.Context, key ruleKey) (rollout Rollout, err error) {
	row, err := r.config.Tables.Get(ctx, TableRollout, key.path())
	if err != nil {
		return rollout, fmt.Errorf("plugins: rollout of %s: %w", key.path(), err)
	}
	return rollout, decodeRow(TableRollout, key.path(), row, &rollout)
}

// under is with for a rollout that was read.
func (u *rule) under(rollout Rollout) (*rule, error) {
	if n, m := rollout.Stable, rollout.Candidate; n < 1 || int(n) > len(u.versions) || int(m) > len(u.versions) {
		return nil, fmt.Errorf("%w: %s %q: versions %d and %d of %d", errBadRow, TableRollout, u.key.path(), n, m, len(u.versions))
	}
	return u.with(rollout), nil
}

// countAudits returns the number of changes of each rule.
func (r *Registry) countAudits(ctx context.Context) (map[ruleKey]uint64, error) {
	audits := map[ruleKey]uint64{}
	err := r.config.Tables.Scan(ctx, tableAudit, "", "", func(row string, _ []byte) error {
		audits[keyOf(row)]++
		return nil
	})
	return audits, err
}

// newest returns a rule as it is stored, or nil. known is what an earlier call returned,
// or nil.
func (r *Registry) newest(ctx context.Context, key ruleKey, known *rule) (*rule, error) {
	if here := (*r.rules.Load())[key]; known == nil || here != nil && here.audits >= known.audits {
		known = here
	}
	changed, err := r.stored(ctx, key, known)
	if err != nil || changed == nil {
		return known, err
	}
	return changed, nil
}

// retried calls a change of a rule until it does not conflict with one of another node.
// It sees to it that it knows of that one.
func retried(change func() error) (err error) {
	for range conflictsMax {
		if err = change(); !errors.Is(err, journal.ErrConflict) {
			return err
		}
	}
	return err
}
