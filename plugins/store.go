package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The tables. Keys begin with "merchant/rule"; neither part holds a slash.
//
//	rule_wasm     sha256                → the module, its first wasmPiece bytes at most
//	              sha256/n              → the rest of it, n from 1
//	rule_version  merchant/rule/version → Version, JSON
//	rule_rollout  merchant/rule         → Rollout, JSON
//	rule_audit    merchant/rule/number  → Audit, JSON; numbered from 1
//
// A change writes its rows in one durable step; what is left of a large module comes before.
const (
	tableWasm    = "rule_wasm"
	tableVersion = "rule_version"
	tableAudit   = "rule_audit"
)

// wasmPiece is how much of a module one row holds, in bytes. Rows of the same module are
// synced one after the other, so that an order's sync waits for one and not for megabytes.
const wasmPiece = 64 << 10

func wasmKey(sha string, piece int) string {
	if piece == 0 {
		return sha
	}
	return sha + "/" + strconv.Itoa(piece)
}

// storeRest stores what the first row of a module does not hold. Nothing refers to it yet,
// and if nothing ever does, the next upload of the same bytes writes the same rows.
func (r *Registry) storeRest(ctx context.Context, sha string, wasm []byte) error {
	for n := 1; n*wasmPiece < len(wasm); n++ {
		piece := wasm[n*wasmPiece : min((n+1)*wasmPiece, len(wasm))]
		row := journal.Mutation{Table: tableWasm, Key: wasmKey(sha, n), Value: piece}
		if err := r.config.Tables.Apply(ctx, []journal.Mutation{row}, true); err != nil {
			return fmt.Errorf("plugins: storing module %s: %w", sha, err)
		}
	}
	return nil
}

// path is the key's part that all rows of a rule share.
func (k ruleKey) path() string { return k.merchant + "/" + k.id }

// numbered is a key whose order is the order of the numbers.
func (k ruleKey) numbered(n uint64) string { return fmt.Sprintf("%s/%016x", k.path(), n) }

// store writes a rule's change: its rollout, its audit and, for an upload, the
// version and the module's first row. It is journal.ErrConflict if another node has changed the
// rule since it was read. The caller holds the merchant's lock.
func (r *Registry) store(ctx context.Context, u *rule, audit Audit, added *Version, wasm []byte) error {
	u.audits++
	audit.Seq = u.audits
	rows := []journal.Mutation{
		{Table: TableRollout, Key: u.key.path(), Value: encode(u.rollout)},
		{Table: tableAudit, Key: u.key.numbered(u.audits), Value: encode(audit)},
	}
	if added != nil {
		rows = append(rows,
			journal.Mutation{Table: tableVersion, Key: u.key.numbered(uint64(added.Version)), Value: encode(added)},
			journal.Mutation{Table: tableWasm, Key: wasmKey(added.SHA256, 0), Value: wasm[:min(len(wasm), wasmPiece)]})
	}
	free := []journal.Expectation{{Table: tableAudit, Key: u.key.numbered(u.audits)}}
	if err := r.config.Tables.ApplyIf(ctx, free, rows, true); err != nil {
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
	found, err := r.find(ctx, merchant, id)
	if err != nil {
		return err
	}
	return r.config.Tables.Scan(ctx, tableAudit, found.key.path()+"/", found.key.numbered(after), func(key string, value []byte) error {
		var a Audit
		if err := decodeRow(tableAudit, key, value, &a); err != nil {
			return err
		}
		return fn(a)
	})
}

// Changes returns how many changes there were of each of a merchant's own rules: the Seq
// of the last one in Audits.
func (r *Registry) Changes(merchant string) map[string]uint64 {
	changes := map[string]uint64{}
	for key, u := range *r.rules.Load() {
		if key.merchant == merchant {
			changes[key.id] = u.audits
		}
	}
	return changes
}

func decodeRow(table, key string, value []byte, row any) error {
	if err := json.Unmarshal(value, row); err != nil {
		return fmt.Errorf("%w: %s %q: %w", errBadRow, table, key, err)
	}
	return nil
}

// wasm loads a version's module and checks it against its name.
func (r *Registry) wasm(ctx context.Context, v *version) ([]byte, error) {
	var wasm []byte
	for n := 0; n == 0 || len(wasm) < v.Size; n++ {
		piece, err := r.config.Tables.Get(ctx, tableWasm, wasmKey(v.SHA256, n))
		if err != nil {
			return nil, fmt.Errorf("plugins: module %s of %q: %w", v.SHA256, v.RuleID, err)
		}
		wasm = append(wasm, piece...)
	}
	if digestOf(wasm) != v.SHA256 {
		return nil, fmt.Errorf("%w: %s %q is not what it was", errBadRow, tableWasm, v.SHA256)
	}
	return wasm, nil
}

// loadRules reads all rules. As in stored, the audits are read first.
func (r *Registry) loadRules(ctx context.Context) error {
	rules := map[ruleKey]*rule{}
	audits, err := r.countAudits(ctx)
	err = errors.Join(err, r.config.Tables.Scan(ctx, tableVersion, "", "", func(row string, value []byte) error {
		key := keyOf(row)
		u := rules[key]
		if u == nil {
			u = &rule{key: key, counters: &counters{}, audits: audits[key]}
			rules[key] = u
		}
		v, err := decodeVersion(key, row, value, len(u.versions)+1)
		u.versions = append(u.versions, v)
		return err
	}))
	for key, u := range rules {
		loaded, failure := r.loadRule(ctx, u)
		if failure == nil {
			rules[key] = loaded
		}
		err = errors.Join(err, failure)
	}
	r.rules.Store(&rules)
	return err
}

// loadRule returns the rule under its stored rollout. That may name a version which
// another node has stored since the versions were read.
func (r *Registry) loadRule(ctx context.Context, u *rule) (*rule, error) {
	rollout, err := r.storedRollout(ctx, u.key)
	if err != nil {
		return nil, err
	}
	loaded, err := u.under(rollout)
	if err != nil {
		loaded, err = r.stored(ctx, u.key, nil)
	}
	return loaded, err
}

// keyOf returns the rule that a row belongs to.
func keyOf(row string) ruleKey {
	merchant, rest, _ := strings.Cut(row, "/")
	id, _, _ := strings.Cut(rest, "/")
	return ruleKey{merchant, id}
}

// decodeVersion reads version n of a rule.
func decodeVersion(key ruleKey, row string, value []byte, n int) (*version, error) {
	var known Version
	if err := decodeRow(tableVersion, row, value, &known); err != nil {
		return nil, err
	}
	if int(known.Version) != n {
		return nil, fmt.Errorf("%w: %s %q: version %d is missing", errBadRow, tableVersion, row, n)
	}
	return newVersion(key, known)
}
