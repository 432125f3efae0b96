package plugins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The tables. Keys begin with "merchant/rule"; neither part holds a slash.
//
//	rule_wasm     sha256                → the module
//	rule_version  merchant/rule/version → Version, JSON
//	rule_rollout  merchant/rule         → Rollout, JSON
//	rule_audit    merchant/rule/number  → Audit, JSON; numbered from 1
//
// A change writes its rows in one durable step.
const (
	tableWasm    = "rule_wasm"
	tableVersion = "rule_version"
	tableRollout = "rule_rollout"
	tableAudit   = "rule_audit"
)

// path is the key's part that all rows of a rule share.
func (k ruleKey) path() string { return k.merchant + "/" + k.id }

// numbered is a key whose order is the order of the numbers.
func (k ruleKey) numbered(n uint64) string { return fmt.Sprintf("%s/%016x", k.path(), n) }

// store writes a rule's change: its rollout, its audit and, for an upload, the
// version and the module. The caller holds mu.
func (r *Registry) store(ctx context.Context, u *rule, audit Audit, added *Version, wasm []byte) error {
	u.audits++
	audit.Seq = u.audits
	rows := []journal.Mutation{
		{Table: tableRollout, Key: u.key.path(), Value: encode(u.rollout)},
		{Table: tableAudit, Key: u.key.numbered(u.audits), Value: encode(audit)},
	}
	if added != nil {
		rows = append(rows,
			journal.Mutation{Table: tableVersion, Key: u.key.numbered(uint64(added.Version)), Value: encode(added)},
			journal.Mutation{Table: tableWasm, Key: added.SHA256, Value: wasm})
	}
	if err := r.config.Tables.Apply(ctx, rows, true); err != nil {
		return fmt.Errorf("plugins: storing %s: %w", u.key.path(), err)
	}
	return nil
}

func encode(row any) []byte {
	b, err := json.Marshal(row)
	if err != nil {
		panic(err) // rows are plain structs
	}
	return b
}

// Audits calls fn for the changes of a merchant's rule behind a number, oldest
// first.
func (r *Registry) Audits(ctx context.Context, merchant, id string, after uint64, fn func(Audit) error) error {
	found := r.lookup(merchant, id)
	if found == nil {
		return fmt.Errorf("%w: %q", ErrRuleNotFound, id)
	}
	return r.config.Tables.Scan(ctx, tableAudit, found.key.path()+"/", found.key.numbered(after), func(key string, value []byte) error {
		var a Audit
		if err := decodeRow(tableAudit, key, value, &a); err != nil {
			return err
		}
		return fn(a)
	})
}

func decodeRow(table, key string, value []byte, row any) error {
	if err := json.Unmarshal(value, row); err != nil {
		return fmt.Errorf("%w: %s %q: %w", errBadRow, table, key, err)
	}
	return nil
}

// wasm loads a version's module and checks it against its name.
func (r *Registry) wasm(ctx context.Context, v *version) ([]byte, error) {
	wasm, err := r.config.Tables.Get(ctx, tableWasm, v.SHA256)
	if err != nil {
		return nil, fmt.Errorf("plugins: module %s of %q: %w", v.SHA256, v.RuleID, err)
	}
	if sum := sha256.Sum256(wasm); hex.EncodeToString(sum[:]) != v.SHA256 {
		return nil, fmt.Errorf("%w: %s %q is not what it was", errBadRow, tableWasm, v.SHA256)
	}
	return wasm, nil
}

// loadRules reads all rules and loads the versions that price orders.
func (r *Registry) loadRules(ctx context.Context) error {
	rules := map[ruleKey]*rule{}
	err := r.config.Tables.Scan(ctx, tableVersion, "", "", func(key string, value []byte) error {
		var known Version
		if err := decodeRow(tableVersion, key, value, &known); err != nil {
			return err
		}
		merchant, rest, _ := strings.Cut(key, "/")
		id, _, _ := strings.Cut(rest, "/")
		k := ruleKey{merchant, id}
		v, err := newVersion(k, known)
		if err != nil {
			return err
		}
		if rules[k] == nil {
			rules[k] = &rule{key: k, counters: &counters{}}
		}
		u := rules[k]
		u.versions = append(u.versions, v)
		if int(v.Version.Version) != len(u.versions) {
			return fmt.Errorf("%w: %s %q: version %d is missing", errBadRow, tableVersion, key, len(u.versions))
		}
		return nil
	})
	err = errors.Join(err, r.config.Tables.Scan(ctx, tableAudit, "", "", func(key string, _ []byte) error {
		merchant, rest, _ := strings.Cut(key, "/")
		id, _, _ := strings.Cut(rest, "/")
		if u := rules[ruleKey{merchant, id}]; u != nil {
			u.audits++
		}
		return nil
	}))
	for k, u := range rules {
		loaded, failure := r.loadRollout(ctx, u)
		if failure == nil {
			rules[k] = loaded
		}
		err = errors.Join(err, failure)
	}
	r.rules.Store(&rules)
	return err
}

// loadRollout returns the rule under its stored rollout.
func (r *Registry) loadRollout(ctx context.Context, u *rule) (*rule, error) {
	row, err := r.config.Tables.Get(ctx, tableRollout, u.key.path())
	if err != nil {
		return nil, fmt.Errorf("plugins: rollout of %s: %w", u.key.path(), err)
	}
	var rollout Rollout
	if err := decodeRow(tableRollout, u.key.path(), row, &rollout); err != nil {
		return nil, err
	}
	if n, m := rollout.Stable, rollout.Candidate; n < 1 || int(n) > len(u.versions) || int(m) > len(u.versions) {
		return nil, fmt.Errorf("%w: %s %q: versions %d and %d of %d", errBadRow, tableRollout, u.key.path(), n, m, len(u.versions))
	}
	u = u.with(rollout)
	for _, v := range u.inUse() {
		var invalid *InvalidError
		if _, err := r.load(ctx, v); err != nil && !errors.As(err, &invalid) {
			return nil, err
		}
	}
	return u, nil
}
