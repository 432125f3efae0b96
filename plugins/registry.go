// Package plugins holds the rules as merchants know them: named, versioned,
// rolled out, rolled back, and run.
//
// A rule belongs to a merchant and is known by its id. Each upload makes a
// version: numbered from 1, immutable, and named by the SHA-256 of its bytes, so
// that the same bytes give the same version again. Which version prices orders is
// the rule's rollout: the newest one, unless the merchant pinned another; a
// candidate can run beside it, and is given up when it leaves its bounds. Every
// change is an audited row, durable before the call returns, and takes effect at
// the next order.
//
// The house rules ship with the engine and belong to no merchant. They are found
// under the merchant "", and behind every merchant's own rules: a merchant's rule
// with the same id hides them.
//
// The Registry keeps all rules in memory. Evaluate is the hot path: one lookup in
// a map that is replaced, never changed, then the rule; no lock, no allocation.
// Changes of one merchant's rules are stored one after the other; nobody else waits
// for the store that they wait for.
package plugins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/doorbuster/doorbuster/plugins/gas"
	"github.com/doorbuster/doorbuster/plugins/host"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Bounds of what is kept.
const (
	// IDBytesMax bounds rule ids and merchant names: [A-Za-z0-9_-]{1,64}.
	IDBytesMax = 64
	// VersionsMax bounds the versions of one rule.
	VersionsMax = 1_000
	// RulesMax bounds the rules of all merchants together.
	RulesMax = 10_000
	// MerchantRulesMax bounds the rules of one merchant, MerchantVersionsMax and
	// MerchantBytesMax the versions that are stored of them, and their modules. Orders
	// refer to versions for ever, so none is ever removed.
	MerchantRulesMax    = 1_000
	MerchantVersionsMax = 2_000
	MerchantBytesMax    = 256 << 20
	// MerchantMemoryMax, for each CPU that rules run on, bounds the memory that the
	// versions of one merchant may come to hold that price orders: their code, and a
	// memory for each of their instances. It is judged when a version begins to.
	MerchantMemoryMax = 1 << 30
	// LoadedMax bounds the programs that are in memory besides those that price
	// orders, for evaluations of other versions, and LoadedMemoryMax, for each CPU that
	// rules run on, the memory that they may come to hold; one there may always be.
	LoadedMax       = 32
	LoadedMemoryMax = 256 << 20
	// changesMax bounds the changes that are being stored at one time.
	changesMax = 64
)

// Errors of this package, wrapped with the detail. An upload that breaks the
// rule ABI is an *InvalidError.
var (
	ErrBadID           = errors.New("not an id: 1 to 64 of A-Z a-z 0-9 _ -")
	ErrBadFuelLimit    = errors.New("bad fuel limit")
	ErrRuleNotFound    = errors.New("rule not found")
	ErrVersionNotFound = errors.New("version not found")
	ErrBadRollout      = errors.New("bad rollout")
	ErrNothingToChange = errors.New("the rollout has no other version to go to")
	ErrTooMany         = errors.New("too many")
	ErrNotCompiled     = host.ErrNotCompiled // by this machine, now
	errNoSleep         = errors.New("plugins: no Sleep")
	errBadRow          = errors.New("plugins: unreadable row")
)

// InvalidError lists everything that is wrong with an uploaded module.
type InvalidError = gas.Error

// Fault is one thing that is wrong with an uploaded module.
type Fault = gas.Fault

// Config is what a Registry needs.
type Config struct {
	// Tables keeps the rules. Required.
	Tables journal.Tables
	// Now is the wall clock, Unix ms: the stamp of uploads and changes. Required.
	Now func() int64
	// Host is how rules run.
	Host host.Config
	// Members returns how many nodes price orders with these Tables at this moment, this
	// one among them. It is asked on the order path. nil: one.
	Members func() int
	// Changed is told of every change of a rollout once it is durable, by whoever made
	// it, who waits for it. Optional.
	Changed func(merchant, rule string)
	// Loading is told how far the start is, version by version, by whichever goroutine
	// has loaded one. Optional.
	Loading func(done, of int)
	// Sleep returns nil after d, or an error when ctx ends. nil: versions that could not
	// be loaded are not tried again.
	Sleep func(ctx context.Context, d time.Duration) error
	// Logger hears what nobody waits for. nil: nothing does.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Tables == nil || c.Now == nil {
		return errors.New("plugins: Tables and Now are required")
	}
	if c.Members == nil {
		c.Members = func() int { return 1 }
	}
	if c.Sleep == nil {
		c.Sleep = func(context.Context, time.Duration) error { return errNoSleep }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Registry holds all rules. Its methods are safe for concurrent use.
type Registry struct {
	config  Config
	engines *engines
	logs    *logger
	steward *steward

	life    context.Context // ends with Close
	end     context.CancelFunc
	mending sync.WaitGroup
	behind  sync.Map // ruleKeys of rules whose changes by another node could not be loaded

	// rules is the current map. It is read without a lock and never changed: a
	// writer, under mu, puts a changed copy in its place.
	rules atomic.Pointer[map[ruleKey]*rule]
	mu    sync.Mutex // guards the writing of rules, and unloading; never held for long

	// changing is held, by merchant, from when a change is judged until it is known.
	// It is taken before mu.
	changing [changesMax]sync.Mutex

	shelf shelf
}

type ruleKey struct{ merchant, id string }

// rule is one rule at one moment. It is never changed after it was published.
type rule struct {
	key        ruleKey
	versions   []*version // version n at n-1
	rollout    Rollout
	stable     *version
	candidate  *version    // nil: none
	comparison *comparison // of these two, nil: no candidate
	counters   *counters   // one for all moments of the rule
	audits     uint64      // how many changes there were
}

// version is one version. Those that price orders have a program, and so have a
// few others.
type version struct {
	Version
	key     ruleKey
	sum     [sha256.Size]byte // Version.SHA256
	house   bool
	program atomic.Pointer[program]
	loading sync.Mutex              // held while the program is made
	failure atomic.Pointer[failure] // nil unless the last time came to nothing
}

// newVersion makes a version that is not loaded yet.
func newVersion(key ruleKey, known Version) (*version, error) {
	v := &version{Version: known, key: key, house: key.merchant == ""}
	sum, err := hex.DecodeString(known.SHA256)
	if err != nil || copy(v.sum[:], sum) != len(sum) || len(sum) != len(v.sum) {
		return nil, fmt.Errorf("%w: version %d of %q: sha256 %q", errBadRow, known.Version, known.RuleID, known.SHA256)
	}
	return v, nil
}

// Version is what is known about one version of a rule.
type Version struct {
	RuleID    string
	Version   uint32
	SHA256    string // hexadecimal
	Size      int    // bytes of the module
	FuelLimit uint64
	CreatedAt int64 // Unix ms
}

// Rule is what is known about a rule.
type Rule struct {
	Merchant string // "" for a house rule
	RuleID   string
	Latest   uint32
	Rollout  Rollout
	// NotRunnable says in words why a version that prices orders does not run, "" if
	// all do: it does not pass this release's validation, or could not be compiled. Its
	// evaluations are FaultRuleInit.
	NotRunnable string
}

// New loads the stored rules, adds the house rules and compiles every version
// that prices orders, a few at a time. It fails when a row that says which there are
// cannot be read. A version that cannot be loaded does not keep the others from
// serving: see Rule.NotRunnable.
func New(ctx context.Context, config Config) (*Registry, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	engines, err := newEngines(config.Host)
	if err != nil {
		return nil, err
	}
	r := &Registry{config: config, engines: engines}
	r.life, r.end = context.WithCancel(context.Background())
	r.logs, r.steward = r.startLogger(), r.startSteward()
	r.rules.Store(&map[ruleKey]*rule{})
	if err = r.loadRules(ctx); err == nil {
		err = r.loadAll(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	house := r.addHouseRules(ctx)
	if house != nil {
		r.config.Logger.Error("house rules of this release are not available", "error", house)
	}
	r.mending.Go(func() { r.mend(house) })
	return r, nil
}

// Close frees the engine and its programs. No evaluation may be running.
func (r *Registry) Close() error {
	r.end()
	r.mending.Wait()
	r.steward.stop()
	r.logs.stop()
	r.unloadAll()
	return r.engines.Close()
}

// publish puts a rule in the place of its earlier self, and unloads the versions
// that no longer price orders once their last evaluation has ended. The caller
// holds mu.
func (r *Registry) publish(changed *rule) {
	old := *r.rules.Load()
	rules := maps.Clone(old)
	rules[changed.key] = changed
	r.rules.Store(&rules)
	if was := old[changed.key]; was != nil {
		for _, v := range was.inUse() {
			if !slices.Contains(changed.inUse(), v) {
				r.unload(v)
			}
		}
	}
}

// lockChanges has a merchant's changes wait for each other until the lock is released.
func (r *Registry) lockChanges(merchant string) *sync.Mutex {
	lock := &r.changing[xxhash.Sum64String(merchant)%changesMax]
	lock.Lock()
	return lock
}

// lookup finds a merchant's rule, then the house's, or nil.
func (r *Registry) lookup(merchant, id string) *rule {
	rules := *r.rules.Load()
	if found := rules[ruleKey{merchant, id}]; found != nil {
		return found
	}
	return rules[ruleKey{"", id}]
}

// Exists says whether a deal of the merchant can name the rule.
func (r *Registry) Exists(merchant, id string) bool { return r.lookup(merchant, id) != nil }

// Rules returns the rules that a merchant's deals can name, by id.
func (r *Registry) Rules(merchant string) []Rule {
	var list []Rule
	for key, rule := range *r.rules.Load() {
		if (key.merchant == merchant || key.merchant == "") && r.lookup(merchant, key.id) == rule {
			list = append(list, rule.describe())
		}
	}
	slices.SortFunc(list, func(a, b Rule) int { return strings.Compare(a.RuleID, b.RuleID) })
	return list
}

// Rule returns one rule, the merchant's or the house's.
func (r *Registry) Rule(ctx context.Context, merchant, id string) (Rule, error) {
	found, err := r.find(ctx, merchant, id)
	if err != nil {
		return Rule{}, err
	}
	return found.describe(), nil
}

// find is lookup for a caller who has time to look in the tables for what another node
// has stored a moment ago.
func (r *Registry) find(ctx context.Context, merchant, id string) (*rule, error) {
	found := r.lookup(merchant, id)
	if found == nil {
		if err := r.refresh(ctx, ruleKey{merchant, id}); err != nil {
			return nil, err
		}
		found = r.lookup(merchant, id)
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %q", ErrRuleNotFound, id)
	}
	return found, nil
}

func (u *rule) describe() Rule {
	d := Rule{Merchant: u.key.merchant, RuleID: u.key.id, Latest: uint32(len(u.versions)), Rollout: u.rollout}
	for _, v := range u.inUse() {
		if d.NotRunnable == "" {
			d.NotRunnable = v.notRunnable()
		}
	}
	return d
}

// Version returns what is known about a version.
func (r *Registry) Version(ctx context.Context, merchant, id string, n uint32) (Version, error) {
	v, err := r.version(ctx, merchant, id, n)
	if err != nil {
		return Version{}, err
	}
	return v.Version, nil
}

// version finds a version as find finds a rule.
func (r *Registry) version(ctx context.Context, merchant, id string, n uint32) (*version, error) {
	found, err := r.find(ctx, merchant, id)
	if err != nil {
		return nil, err
	}
	if int(n) > len(found.versions) {
		if err := r.refresh(ctx, found.key); err != nil {
			return nil, err
		}
		found = r.lookup(merchant, id)
	}
	if n < 1 || int(n) > len(found.versions) {
		return nil, fmt.Errorf("%w: %d of %q", ErrVersionNotFound, n, id)
	}
	return found.versions[n-1], nil
}

// Wasm returns a version's module as it was uploaded.
func (r *Registry) Wasm(ctx context.Context, merchant, id string, n uint32) ([]byte, error) {
	v, err := r.version(ctx, merchant, id, n)
	if err != nil {
		return nil, err
	}
	return r.wasm(ctx, v)
}

func checkID(kind, id string) error {
	if id == "" || len(id) > IDBytesMax {
		return fmt.Errorf("%s %q: %w", kind, id, ErrBadID)
	}
	for _, c := range []byte(id) {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return fmt.Errorf("%s %q: %w", kind, id, ErrBadID)
		}
	}
	return nil
}
