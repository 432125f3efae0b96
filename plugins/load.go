package plugins

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/doorbuster/doorbuster/plugins/abi"
)

// program returns a version's program, loading it when nobody has needed it of
// late. Whoever evaluates with it must be ready to find it closed. The caller does
// not hold mu.
func (r *Registry) program(ctx context.Context, v *version) (*program, error) {
	p := v.program.Load()
	if p == nil {
		var err error
		if p, err = r.load(ctx, v); err != nil {
			return nil, err
		}
	}
	if r.inUse(v) {
		return p, nil // until a change unloads it
	}
	if leave := r.shelf.use(v, p.Footprint(), LoadedMemoryMax*r.engines.rules.Instances()); len(leave) > 0 {
		r.unloadUnused(leave...)
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
	if err := v.invalid(); err != nil {
		return nil, err
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

// shelf holds the versions that were loaded on demand, the one that was asked for last
// at the end. Some may price orders by now, or be unloaded: they leave as the others do.
type shelf struct {
	mu    sync.Mutex // guards what follows
	books []book
	bytes int
}

type book struct {
	version *version
	bytes   int // that it may come to hold
}

// use notes that a version is used, and returns those that have to make room for it, so
// that all together hold at most so many bytes.
func (s *shelf) use(v *version, bytes, most int) (leave []*version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.books, func(b book) bool { return b.version == v }); i >= 0 {
		s.bytes -= s.books[i].bytes
		s.books = slices.Delete(s.books, i, i+1)
	}
	s.books = append(s.books, book{v, bytes})
	s.bytes += bytes
	for len(s.books) > LoadedMax || s.bytes > most && len(s.books) > 1 {
		leave = append(leave, s.books[0].version)
		s.bytes -= s.books[0].bytes
		s.books = slices.Delete(s.books, 0, 1)
	}
	return leave
}

// unloadUnused unloads those of the versions that price no orders. The caller does not
// hold mu.
func (r *Registry) unloadUnused(versions ...*version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range versions {
		if !r.inUse(v) {
			r.unload(v)
		}
	}
}

// unloadAll waits for instances that are being made, whose memory goes with the engine.
func (r *Registry) unloadAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range *r.rules.Load() {
		for _, v := range u.versions {
			if v != nil { // a start that failed knows of a version that is missing
				r.unload(v)
			}
		}
	}
}

// inUse says whether a version prices orders. It stays true while mu is held.
func (r *Registry) inUse(v *version) bool {
	u := (*r.rules.Load())[v.key]
	return u != nil && slices.Contains(u.inUse(), v)
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
// nothing keeps a candidate from being given up. old is nil for a new rule.
func (r *Registry) fits(old, changed *rule) error {
	bytes := r.footprint(changed)
	if old != nil && bytes <= r.footprint(old) {
		return nil
	}
	for key, u := range *r.rules.Load() {
		if key.merchant == changed.key.merchant && key != changed.key {
			bytes += r.footprint(u)
		}
	}
	if most := MerchantMemoryMax * r.engines.rules.Instances(); bytes > most {
		return fmt.Errorf("%w bytes of memory: the rules of a merchant may hold %d MiB, and would hold %d", ErrTooMany, most>>20, bytes>>20)
	}
	return nil
}

// footprint is the memory that a rule's versions may come to hold. One that is not
// loaded and may be at any time counts as the largest, but for its code.
func (r *Registry) footprint(u *rule) (bytes int) {
	for _, v := range u.inUse() {
		if p := v.program.Load(); p != nil {
			bytes += p.Footprint()
		} else if v.invalid() == nil {
			bytes += (1 + r.engines.rules.Instances()) * abi.MemoryPagesMax << 16
		}
	}
	return bytes
}
