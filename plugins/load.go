package plugins

import (
	"context"
	"fmt"
)

// loader is program, or load for a caller that holds mu.
type loader func(ctx context.Context, v *version) (*program, error)

// program returns a version's program, loading it when nobody has needed it of
// late. Whoever evaluates with it must be ready to find it closed. The caller does
// not hold mu.
func (r *Registry) program(ctx context.Context, v *version) (*program, error) {
	if p := v.program.Load(); p != nil {
		return p, nil
	}
	p, err := r.load(ctx, v)
	if err != nil {
		return nil, err
	}
	if old := r.remember(v); old != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.unloadUnused(old)
	}
	return p, nil
}

// load is program for a version that is about to price orders.
func (r *Registry) load(ctx context.Context, v *version) (*program, error) {
	v.loading.Lock()
	defer v.loading.Unlock()
	if p := v.program.Load(); p != nil {
		return p, nil
	}
	wasm, err := r.wasm(ctx, v)
	if err != nil {
		v.failure.Store(&failure{err})
		return nil, err
	}
	p, err := r.engines.compile(ctx, wasm)
	if err != nil {
		v.failure.Store(&failure{err})
		return nil, err
	}
	v.failure.Store(nil)
	v.program.Store(p)
	return p, nil
}

// remember notes a version that was loaded on demand, and returns the one that has
// to make room for it, or nil.
func (r *Registry) remember(v *version) (leaves *version) {
	r.loadedMu.Lock()
	defer r.loadedMu.Unlock()
	if len(r.loaded) == LoadedMax {
		leaves = r.loaded[0]
		r.loaded = append(r.loaded[:0], r.loaded[1:]...)
	}
	r.loaded = append(r.loaded, v)
	return leaves
}

// unloadUnused unloads a version that prices no orders. The caller holds mu.
func (r *Registry) unloadUnused(v *version) {
	current := (*r.rules.Load())[v.key]
	if current != nil && (current.stable == v || current.candidate == v) {
		return
	}
	r.unload(v)
}

// unload closes a version's program when its last evaluation has ended. The caller
// holds mu.
func (r *Registry) unload(v *version) {
	p := v.program.Swap(nil)
	if p == nil {
		return
	}
	if err := p.Close(); err != nil {
		r.config.Logger.Error("a rule's program did not close", "rule", v.RuleID, "version", v.Version.Version, "error", err)
	}
}

// fits says whether a merchant's versions that price orders may hold the memory that
// they hold once a rule has changed. One that needs no more than before always may:
// nothing keeps a candidate from being given up. The versions in use are loaded; old
// is nil for a new rule.
func (r *Registry) fits(old, changed *rule) error {
	bytes := changed.footprint()
	if old != nil && bytes <= old.footprint() {
		return nil
	}
	for key, u := range *r.rules.Load() {
		if key.merchant == changed.key.merchant && key != changed.key {
			bytes += u.footprint()
		}
	}
	if most := MerchantMemoryMax * r.engines.rules.Instances(); bytes > most {
		return fmt.Errorf("%w bytes of memory: the rules of a merchant may hold %d MiB, and would hold %d", ErrTooMany, most>>20, bytes>>20)
	}
	return nil
}

// footprint is the memory that a rule's versions may come to hold.
func (u *rule) footprint() (bytes int) {
	for _, v := range u.inUse() {
		if p := v.program.Load(); p != nil {
			bytes += p.Footprint()
		}
	}
	return bytes
}
