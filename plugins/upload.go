package plugins

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/yield"
)

// Upload is a module to become a version.
type Upload struct {
	Merchant, RuleID string
	Wasm             []byte
	Bundle           *Bundle // to be stored with it; nil: none
	FuelLimit        uint64  // of its evaluations, 0: the default of its kind
	By               string  // who uploads, for the audit
}

// Upload makes a version of a module: it is validated, rewritten, compiled and
// initialised, then stored, and unless the rollout is pinned it prices orders
// from the next one on. The same bytes with the same fuel limit are the version
// that they were: created is false then and nothing changes.
//
// A module that breaks the rule ABI is an *InvalidError with every fault.
func (r *Registry) Upload(ctx context.Context, u Upload) (v Version, created bool, err error) {
	if err := checkID("merchant", u.Merchant); err != nil {
		return Version{}, false, err
	}
	return r.upload(ctx, u)
}

func (r *Registry) upload(ctx context.Context, u Upload) (Version, bool, error) {
	if err := checkID("rule", u.RuleID); err != nil {
		return Version{}, false, err
	}
	if u.Bundle != nil {
		wrapped, err := wrap(u.Wasm, u.Bundle)
		if err != nil {
			return Version{}, false, err
		}
		u.Wasm = wrapped
	}
	limit, err := fuelLimit(u.FuelLimit, u.Wasm)
	if err != nil {
		return Version{}, false, err
	}
	u.FuelLimit = limit
	sha := digestOf(u.Wasm)
	key := ruleKey{u.Merchant, u.RuleID}
	if v := (*r.rules.Load())[key].find(sha, limit); v != nil {
		return v.Version, false, nil
	}
	if err := r.room(key, len(u.Wasm)); err != nil {
		return Version{}, false, err // before anything is done for it
	}
	// Compiling takes long and needs no lock: other merchants' uploads go on.
	program, err := r.engines.compile(ctx, u.Wasm)
	if err != nil {
		return Version{}, false, err
	}
	if err := r.storeRest(ctx, sha, u.Wasm); err != nil {
		return Version{}, false, errors.Join(err, program.Abandon())
	}
	var added Version
	var created bool
	err = retried(func() (err error) {
		added, created, err = r.add(ctx, &u, Version{RuleID: u.RuleID, SHA256: sha, Size: len(u.Wasm), FuelLimit: limit}, program)
		if errors.Is(err, journal.ErrConflict) {
			if missed := r.refresh(ctx, key); missed != nil {
				return missed
			}
		}
		return err
	})
	switch {
	case err != nil:
		return Version{}, false, errors.Join(err, program.Abandon())
	case !created:
		return added, false, program.Close()
	}
	return added, true, nil
}

// digestOf is the SHA-256 of a module, in hexadecimal digits.
func digestOf(wasm []byte) string {
	sum := sha256.New()
	yield.Write(sum, wasm)
	return hex.EncodeToString(sum.Sum(nil))
}

// add stores and publishes a version with its program, unless there is one of the same
// bytes and fuel limit: then it returns that.
func (r *Registry) add(ctx context.Context, u *Upload, v Version, program *program) (added Version, created bool, err error) {
	defer r.lockChanges(u.Merchant).Unlock()
	key := ruleKey{u.Merchant, u.RuleID}
	old := (*r.rules.Load())[key]
	if twin := old.find(v.SHA256, v.FuelLimit); twin != nil {
		return twin.Version, false, nil
	}
	v.CreatedAt = r.config.Now()
	changed, err := r.withVersion(old, key, v)
	if err != nil {
		return Version{}, false, err
	}
	newest := changed.versions[len(changed.versions)-1]
	newest.program.Store(program)
	if err := r.fits(old, changed); err != nil {
		return Version{}, false, err
	}
	audit := Audit{At: v.CreatedAt, By: u.By, Action: ActionUpload, To: changed.rollout.Stable, Version: newest.Version.Version}
	if old != nil {
		audit.From = old.rollout.Stable
	}
	if err := r.store(ctx, changed, audit, &newest.Version, u.Wasm); err != nil {
		return Version{}, false, err
	}
	r.publishStored(old, changed)
	r.unloadUnused(newest)
	return newest.Version, true, nil
}

// room says whether a merchant may store a module more.
func (r *Registry) room(key ruleKey, size int) error {
	rules := *r.rules.Load()
	count, versions, bytes := 0, 0, size
	for k, u := range rules {
		if k.merchant != key.merchant {
			continue
		}
		count++
		versions += len(u.versions)
		for _, v := range u.versions {
			bytes += v.Size
		}
	}
	switch u := rules[key]; {
	case u == nil && len(rules) >= RulesMax:
		return fmt.Errorf("%w rules: the engine has %d", ErrTooMany, RulesMax)
	case u == nil && count >= MerchantRulesMax:
		return fmt.Errorf("%w rules: a merchant may have %d", ErrTooMany, MerchantRulesMax)
	case u != nil && len(u.versions) >= VersionsMax:
		return fmt.Errorf("%w versions: %q has %d", ErrTooMany, key.id, VersionsMax)
	case versions >= MerchantVersionsMax:
		return fmt.Errorf("%w versions: the rules of a merchant may have %d", ErrTooMany, MerchantVersionsMax)
	case bytes > MerchantBytesMax:
		return fmt.Errorf("%w bytes: the modules of a merchant may have %d MiB", ErrTooMany, MerchantBytesMax>>20)
	}
	return nil
}

// find returns the version with these bytes and this limit. A rule that does not
// exist has none.
func (u *rule) find(sha string, limit uint64) *version {
	if u == nil {
		return nil
	}
	i := slices.IndexFunc(u.versions, func(v *version) bool { return v.SHA256 == sha && v.FuelLimit == limit })
	if i < 0 {
		return nil
	}
	return u.versions[i]
}

// withVersion returns the rule with one more version; old is nil for a new rule.
func (r *Registry) withVersion(old *rule, key ruleKey, v Version) (*rule, error) {
	if err := r.room(key, v.Size); err != nil {
		return nil, err
	}
	changed := rule{key: key, counters: &counters{}}
	if old != nil {
		changed = *old
	}
	v.Version = uint32(len(changed.versions) + 1)
	added, err := newVersion(key, v)
	if err != nil {
		return nil, err
	}
	changed.versions = append(slices.Clip(changed.versions), added)
	rollout := changed.rollout
	if !rollout.Pinned {
		rollout = rollout.to(v.Version)
	}
	return changed.with(rollout), nil
}

// houseRules are rules of examples/rules/c, built by go generate.
//
//go:embed house/*.wasm
var houseRules embed.FS

// HouseRules says which house rule no deal can name yet, nil if there is none: at the
// start, no version of it could be stored or compiled, which is tried again.
func (r *Registry) HouseRules() error {
	entries, err := houseRules.ReadDir("house")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if id := houseRuleID(entry); !r.Exists("", id) {
			return fmt.Errorf("the house rule %q is not stored yet", id)
		}
	}
	return nil
}

func houseRuleID(entry fs.DirEntry) string { return strings.TrimSuffix(entry.Name(), ".wasm") }

// addHouseRules uploads the house rules. One whose bytes changed since the last
// start becomes a new version; while it cannot be compiled or stored, the earlier one
// goes on.
func (r *Registry) addHouseRules(ctx context.Context) error {
	entries, err := houseRules.ReadDir("house")
	if err != nil {
		return err
	}
	var failures error
	for _, entry := range entries {
		wasm, err := houseRules.ReadFile(path.Join("house", entry.Name()))
		if err != nil {
			return err
		}
		id := houseRuleID(entry)
		if _, _, err := r.upload(ctx, Upload{RuleID: id, Wasm: wasm, By: "house"}); err != nil {
			failures = errors.Join(failures, fmt.Errorf("house rule %q: %w", id, err))
		}
	}
	return failures
}
