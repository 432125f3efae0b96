package plugins

import "context"

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
		return nil, err
	}
	p, err := r.engines.compile(ctx, wasm)
	if err != nil {
		return nil, err
	}
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
