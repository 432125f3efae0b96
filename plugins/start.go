package plugins

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins/host"
)

// A start loads every version that prices orders; after an upgrade of the compiler that
// means compiling all of them. One that cannot be loaded does not keep the others from
// serving: its evaluations are FaultRuleInit, Rule.NotRunnable says why, and unless it
// is the module's own fault it is tried again.

const (
	// loadersMax bounds the versions that a start loads at once: while some are
	// compiled, others are read and rewritten.
	loadersMax = 2 * host.CompilersMax
	// progressEvery is the least time between two lines that say how far a start is.
	progressEvery = 2 * time.Second
	// mendEvery is the pause before what could not be loaded is tried again.
	mendEvery = 10 * time.Second
)

// failure says why a version has no program.
type failure struct{ error }

// lasting says whether the module is to blame: another try would fail as well.
func (f *failure) lasting() bool { return errors.As(f.error, new(*InvalidError)) }

// invalid is why the version never gets a program in this release, or nil.
func (v *version) invalid() error {
	if f := v.failure.Load(); f != nil && f.lasting() {
		return f.error
	}
	return nil
}

// loadable says whether the version has no program, and may get one.
func (v *version) loadable() bool { return v.program.Load() == nil && v.invalid() == nil }

// notRunnable says in words for the merchant why a version that prices orders does not
// run, "" if it does.
func (v *version) notRunnable() string {
	if v.program.Load() != nil {
		return ""
	}
	if err := v.invalid(); err != nil {
		return fmt.Sprintf("version %d is not valid in this release: %v", v.Version.Version, err)
	}
	return fmt.Sprintf("version %d could not be compiled; the server tries again", v.Version.Version)
}

// loadAll loads the versions that price orders. It fails only with its context.
func (r *Registry) loadAll(ctx context.Context) error {
	var versions []*version
	for _, u := range *r.rules.Load() {
		versions = append(versions, u.inUse()...)
	}
	p := progress{registry: r, of: len(versions), told: clockd.Mono()}
	var next atomic.Int64
	var loaders sync.WaitGroup
	for range min(loadersMax, len(versions)) {
		loaders.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(versions) {
					return
				}
				_, err := r.load(ctx, versions[n])
				if ctx.Err() != nil {
					return // whatever came of it, it is not the version's fault
				}
				p.loaded(versions[n], err)
			}
		})
	}
	loaders.Wait()
	return ctx.Err()
}

// progress tells how far a start is.
type progress struct {
	registry *Registry
	of       int

	mu     sync.Mutex // guards what follows
	done   int
	failed int
	told   int64 // when a line was last written, Mono
}

func (p *progress) loaded(v *version, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	log := p.registry.config.Logger
	if err != nil {
		p.failed++
		log.Error("a version of a promotion rule does not run", "merchant", v.key.merchant, "rule", v.RuleID, "version", v.Version.Version, "error", err)
	}
	if p.registry.config.Loading != nil {
		p.registry.config.Loading(p.done, p.of)
	}
	now := clockd.Mono()
	if last := p.done == p.of; last && p.failed > 0 || now-p.told >= int64(progressEvery) {
		p.told = now
		log.Info("promotion rules are being loaded", "done", p.done, "of", p.of, "not_runnable", p.failed)
	}
}

// NotRunnable returns how many versions price orders and do not run.
func (r *Registry) NotRunnable() (n int) {
	for _, u := range *r.rules.Load() {
		for _, v := range u.inUse() {
			if v.notRunnable() != "" {
				n++
			}
		}
	}
	return n
}

// mend tries again, until the registry is closed, what could not be done at the start:
// to add the house rules, and to load versions that price orders; and to take over what
// other nodes have changed since.
func (r *Registry) mend(house error) {
	for ctx := r.life; r.config.Sleep(ctx, mendEvery) == nil; {
		if house != nil {
			house = r.addHouseRules(ctx)
		}
		r.behind.Range(func(key, _ any) bool {
			_ = r.refresh(ctx, key.(ruleKey)) // or with the next round
			return true
		})
		for _, u := range *r.rules.Load() {
			for _, v := range u.inUse() {
				if v.loadable() {
					r.mendOne(ctx, v)
				}
			}
		}
	}
}

func (r *Registry) mendOne(ctx context.Context, v *version) {
	if _, err := r.load(ctx, v); err != nil {
		return // the start has said so, and Rule.NotRunnable does
	}
	r.config.Logger.Info("a version of a promotion rule runs again", "merchant", v.key.merchant, "rule", v.RuleID, "version", v.Version.Version)
	r.unloadUnused(v) // if the rollout has moved on
}
