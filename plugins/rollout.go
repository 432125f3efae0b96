package plugins

import (
	"context"
	"fmt"
)

// Rollout says which version of a rule prices orders.
type Rollout struct {
	Stable   uint32 // the version that prices orders
	Previous uint32 // the one before it, 0: none. Rollback goes there
	Pinned   bool   // an upload does not become stable by itself
}

// Change is what a merchant asks of a rollout. Mode and Candidate name what this
// router does not do: a candidate beside the stable version.
type Change struct {
	Stable    uint32
	Candidate uint32
	Mode      string
}

// Actions of the audit.
const (
	ActionUpload   = "upload"
	ActionPin      = "pin"
	ActionPromote  = "promote"
	ActionRollback = "rollback"
)

// Audit is one change of a rule.
type Audit struct {
	At       int64 // Unix ms
	By       string
	Action   string
	From, To uint32 // stable versions; From 0: there was none
	Version  uint32 // of an upload
}

// SetRollout pins the stable version. A change with a candidate or a mode other
// than "stable" is ErrModeUnsupported.
func (r *Registry) SetRollout(ctx context.Context, by, merchant, id string, change Change) (Rollout, error) {
	if change.Candidate != 0 || change.Mode != "" && change.Mode != "stable" {
		return Rollout{}, fmt.Errorf("%w: only a stable version can be set, not mode %q with a candidate", ErrModeUnsupported, change.Mode)
	}
	return r.change(ctx, by, ActionPin, merchant, id, func(u *rule) (Rollout, error) {
		if change.Stable < 1 || int(change.Stable) > len(u.versions) {
			return Rollout{}, fmt.Errorf("%w: %d of %q", ErrVersionNotFound, change.Stable, id)
		}
		next := u.rollout.to(change.Stable)
		next.Pinned = true
		return next, nil
	})
}

// Promote makes the newest version the stable one. What was pinned stays pinned:
// later uploads wait for their own Promote. ErrNothingToChange when it is stable
// already.
func (r *Registry) Promote(ctx context.Context, by, merchant, id string) (Rollout, error) {
	return r.change(ctx, by, ActionPromote, merchant, id, func(u *rule) (Rollout, error) {
		latest := uint32(len(u.versions))
		if latest == u.rollout.Stable {
			return Rollout{}, fmt.Errorf("%w: version %d of %q is stable already", ErrNothingToChange, latest, id)
		}
		return u.rollout.to(latest), nil
	})
}

// Rollback goes back to the version that was stable before, and pins it.
// ErrNothingToChange when there was none.
func (r *Registry) Rollback(ctx context.Context, by, merchant, id string) (Rollout, error) {
	return r.change(ctx, by, ActionRollback, merchant, id, func(u *rule) (Rollout, error) {
		if u.rollout.Previous == 0 {
			return Rollout{}, fmt.Errorf("%w: %q has had one stable version", ErrNothingToChange, id)
		}
		next := u.rollout.to(u.rollout.Previous)
		next.Pinned = true
		return next, nil
	})
}

// to returns the rollout after n became stable.
func (o Rollout) to(n uint32) Rollout {
	if n != o.Stable {
		o.Stable, o.Previous = n, o.Stable
	}
	return o
}

// change is one audited change of a merchant's own rule. The new stable version
// is compiled before anything is written, so that what is published can run.
func (r *Registry) change(ctx context.Context, by, action, merchant, id string, decide func(*rule) (Rollout, error)) (Rollout, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := (*r.rules.Load())[ruleKey{merchant, id}]
	if old == nil {
		return Rollout{}, fmt.Errorf("%w: %q", ErrRuleNotFound, id)
	}
	next, err := decide(old)
	if err != nil {
		return Rollout{}, err
	}
	changed := *old
	changed.rollout, changed.stable = next, old.versions[next.Stable-1]
	if _, err := r.compile(ctx, changed.stable); err != nil {
		return Rollout{}, err
	}
	audit := Audit{At: r.config.Now(), By: by, Action: action, From: old.rollout.Stable, To: next.Stable}
	if err := r.store(ctx, &changed, audit, nil, nil); err != nil {
		return Rollout{}, err
	}
	r.publish(&changed)
	return next, nil
}
