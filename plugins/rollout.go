package plugins

import (
	"context"
	"fmt"
)

// Mode is what a rollout does with its candidate.
type Mode string

// Modes.
const (
	ModeStable Mode = "stable" // there is no candidate
	// ModeShadow runs the candidate on the inputs of orders that the stable version
	// prices, beside the order path. Shoppers do not see it.
	ModeShadow Mode = "shadow"
	// ModeCanary has the candidate price the orders of some users.
	ModeCanary Mode = "canary"
)

// Rollout says which version of a rule prices orders.
type Rollout struct {
	Stable   uint32 // the version that prices orders
	Previous uint32 // the one before it, 0: none. Rollback goes there
	Pinned   bool   // an upload does not become stable by itself

	// The candidate, 0: none, and then the fields below are zero too.
	Candidate uint32
	Mode      Mode // ModeShadow or ModeCanary
	// Percent of users whose orders the candidate sees: always the same users for
	// the same rule, and those of a smaller percentage among those of a larger one.
	Percent int
	Bounds  Bounds
}

// Bounds end a candidate by themselves: see comparison. All are percentages, whole
// numbers from 0 to 100.
type Bounds struct {
	FaultMax    int // of the orders that the candidate sees, those that fault
	RejectMax   int // … those that it rejects
	DiscountMin int // of an order's value, what the candidate takes off on average
	DiscountMax int
}

// DefaultBounds are those of a merchant who named none.
var DefaultBounds = Bounds{FaultMax: 1, RejectMax: 20, DiscountMin: 0, DiscountMax: 50}

func (b Bounds) validate() error {
	for _, percent := range []int{b.FaultMax, b.RejectMax, b.DiscountMin, b.DiscountMax} {
		if percent < 0 || percent > 100 {
			return fmt.Errorf("%w: a bound of %d percent", ErrBadRollout, percent)
		}
	}
	if b.DiscountMin > b.DiscountMax {
		return fmt.Errorf("%w: an average discount of at least %d and at most %d percent", ErrBadRollout, b.DiscountMin, b.DiscountMax)
	}
	return nil
}

// Change is what a merchant asks of a rollout.
type Change struct {
	Stable    uint32
	Candidate uint32
	Mode      Mode    // "": ModeStable
	Percent   int     // 1 to 100; 0 is 100 in ModeShadow
	Bounds    *Bounds // nil: DefaultBounds
	Why       string  // for the audit, at most WhyBytesMax
}

// WhyBytesMax bounds the reason of a change.
const WhyBytesMax = 256

// rollout is what the change makes of a rule's rollout.
func (c *Change) rollout(u *rule) (Rollout, error) {
	if err := c.validate(); err != nil {
		return Rollout{}, err
	}
	if c.Stable < 1 || int(c.Stable) > len(u.versions) {
		return Rollout{}, fmt.Errorf("%w: %d of %q", ErrVersionNotFound, c.Stable, u.key.id)
	}
	if int(c.Candidate) > len(u.versions) {
		return Rollout{}, fmt.Errorf("%w: %d of %q", ErrVersionNotFound, c.Candidate, u.key.id)
	}
	next := u.rollout.to(c.Stable)
	next.Pinned = true
	if c.Candidate == 0 {
		return next, nil
	}
	next.Candidate, next.Mode, next.Percent, next.Bounds = c.Candidate, c.Mode, c.Percent, DefaultBounds
	if c.Percent == 0 {
		next.Percent = 100
	}
	if c.Bounds != nil {
		next.Bounds = *c.Bounds
	}
	return next, nil
}

func (c *Change) validate() error {
	switch c.Mode {
	case "", ModeStable:
		if c.Candidate != 0 || c.Percent != 0 || c.Bounds != nil {
			return fmt.Errorf("%w: a candidate needs the mode %q or %q, and all else a candidate", ErrBadRollout, ModeShadow, ModeCanary)
		}
		return nil
	case ModeShadow, ModeCanary:
	default:
		return fmt.Errorf("%w: no mode %q", ErrBadRollout, c.Mode)
	}
	switch {
	case c.Candidate == 0 || c.Candidate == c.Stable:
		return fmt.Errorf("%w: the mode %q needs a candidate besides the stable version", ErrBadRollout, c.Mode)
	case c.Percent == 0 && c.Mode == ModeCanary:
		return fmt.Errorf("%w: the mode %q needs the percentage of users who get it, 1 to 100", ErrBadRollout, c.Mode)
	case c.Percent < 0 || c.Percent > 100:
		return fmt.Errorf("%w: %d percent of users", ErrBadRollout, c.Percent)
	case c.Bounds != nil:
		return c.Bounds.validate()
	}
	return nil
}

// Actions of the audit.
const (
	ActionUpload       = "upload"
	ActionPin          = "pin"
	ActionShadow       = "shadow"
	ActionCanary       = "canary"
	ActionPromote      = "promote"
	ActionRollback     = "rollback"
	ActionAutoRollback = "auto_rollback"
)

// Audit is one change of a rule.
type Audit struct {
	Seq    uint64 // of the rule's changes, from 1
	At     int64  // Unix ms
	By     string
	Action string
	// From and To are the versions that orders go from and to: the stable ones, and
	// when a candidate is given up, from it. From 0: there was none.
	From, To uint32
	Version  uint32 // of an upload, or the candidate that begins
	Percent  int    `json:",omitempty"` // of users, for a candidate that begins
	Why      string `json:",omitempty"`
}

// SetRollout sets which versions price orders, and pins them: uploads change
// nothing until the next change. A change that makes no sense is ErrBadRollout.
func (r *Registry) SetRollout(ctx context.Context, by, merchant, id string, change Change) (Rollout, error) {
	action := ActionPin
	if change.Candidate != 0 {
		action = string(change.Mode)
	}
	audit := Audit{By: by, Action: action, Version: change.Candidate, Percent: change.Percent, Why: change.Why}
	return r.change(ctx, audit, merchant, id, change.rollout)
}

// Promote makes the candidate the stable version, or without one the newest. What
// was pinned stays pinned: later uploads wait for their own Promote.
// ErrNothingToChange when it is stable already.
func (r *Registry) Promote(ctx context.Context, by, why, merchant, id string) (Rollout, error) {
	return r.change(ctx, Audit{By: by, Action: ActionPromote, Why: why}, merchant, id, func(u *rule) (Rollout, error) {
		next := u.rollout.Candidate
		if next == 0 {
			next = uint32(len(u.versions))
		}
		if next == u.rollout.Stable {
			return Rollout{}, fmt.Errorf("%w: version %d of %q is stable already", ErrNothingToChange, next, id)
		}
		return u.rollout.to(next), nil
	})
}

// Rollback gives up the candidate. Without one it goes back to the version that
// was stable before, and pins it. ErrNothingToChange when there was none.
func (r *Registry) Rollback(ctx context.Context, by, why, merchant, id string) (Rollout, error) {
	return r.change(ctx, Audit{By: by, Action: ActionRollback, Why: why}, merchant, id, func(u *rule) (Rollout, error) {
		if u.rollout.Candidate != 0 {
			return u.rollout.to(u.rollout.Stable), nil
		}
		if u.rollout.Previous == 0 {
			return Rollout{}, fmt.Errorf("%w: %q has had one stable version", ErrNothingToChange, id)
		}
		next := u.rollout.to(u.rollout.Previous)
		next.Pinned = true
		return next, nil
	})
}

// giveUp is the rollback that nobody asked for: the comparison left its bounds.
func (r *Registry) giveUp(ctx context.Context, c *comparison, why string) error {
	audit := Audit{By: "doorbuster", Action: ActionAutoRollback, Why: why}
	_, err := r.change(ctx, audit, c.key.merchant, c.key.id, func(u *rule) (Rollout, error) {
		if u.comparison != c {
			return Rollout{}, fmt.Errorf("%w: somebody was faster", ErrNothingToChange)
		}
		return u.rollout.to(u.rollout.Stable), nil
	})
	return err
}

// to returns the rollout after n became stable, without a candidate.
func (o Rollout) to(n uint32) Rollout {
	next := Rollout{Stable: o.Stable, Previous: o.Previous, Pinned: o.Pinned}
	if n != o.Stable {
		next.Stable, next.Previous = n, o.Stable
	}
	return next
}

// change is one audited change of a merchant's own rule. It is decided on what is stored,
// which may be newer than what prices orders here: a version that this node cannot load
// is often what the change is to get rid of. The versions that are to
// price orders are compiled before anything is written, so that what is published
// can run: before the merchant's lock is taken, since that may take long, and again under
// it, where that is done already unless another change came between.
func (r *Registry) change(ctx context.Context, audit Audit, merchant, id string, decide func(*rule) (Rollout, error)) (Rollout, error) {
	if len(audit.Why) > WhyBytesMax {
		return Rollout{}, fmt.Errorf("%w: a reason of %d bytes, at most %d", ErrBadRollout, len(audit.Why), WhyBytesMax)
	}
	key := ruleKey{merchant, id}
	var old *rule // as it is stored
	decided := func() (*rule, *rule, error) {
		var err error
		if old, err = r.newest(ctx, key, old); err != nil {
			return nil, nil, err
		}
		if old == nil && r.Exists("", id) {
			return nil, nil, fmt.Errorf("%w: %q is a house rule, which no merchant changes", ErrRuleNotFound, id)
		}
		if old == nil {
			return nil, nil, fmt.Errorf("%w: %q", ErrRuleNotFound, id)
		}
		next, err := decide(old)
		if err != nil {
			return nil, nil, err
		}
		changed := old.with(next)
		for _, v := range changed.inUse() {
			if _, err := r.program(ctx, v); err != nil {
				return nil, nil, err
			}
		}
		return old, changed, nil
	}
	var next Rollout
	err := retried(func() error {
		_ = r.refresh(ctx, key) // it fails where a version cannot be loaded, and is tried again later
		_, _, err := decided()
		if err == nil {
			next, err = r.commitChange(ctx, key, &audit, decided)
		}
		return err
	})
	if err == nil && r.config.Changed != nil {
		r.config.Changed(merchant, id)
	}
	return next, err
}

// commitChange decides under the lock of the merchant whose key it is, stores the change
// and makes it known. It completes the audit.
func (r *Registry) commitChange(ctx context.Context, key ruleKey, audit *Audit, decided func() (old, changed *rule, err error)) (Rollout, error) {
	defer r.lockChanges(key.merchant).Unlock()
	here := (*r.rules.Load())[key]
	old, changed, err := decided()
	if err != nil {
		return Rollout{}, err
	}
	audit.At, audit.From, audit.To = r.config.Now(), old.rollout.Stable, changed.rollout.Stable
	if old.rollout.Candidate != 0 && changed.rollout.Candidate == 0 && audit.From == audit.To {
		audit.From = old.rollout.Candidate
	}
	if err := r.fits(old, changed); err != nil {
		return Rollout{}, err
	}
	if err := r.store(ctx, changed, *audit, nil, nil); err != nil {
		return Rollout{}, err
	}
	r.publishStored(here, changed)
	return changed.rollout, nil
}

// with returns the rule under another rollout. A comparison goes on while its
// candidate, mode and bounds stay as they are.
func (u *rule) with(next Rollout) *rule {
	changed := *u
	changed.rollout, changed.stable, changed.candidate = next, u.versions[next.Stable-1], nil
	switch {
	case next.Candidate == 0:
		changed.comparison = nil
	case u.comparison == nil || u.rollout != next:
		changed.comparison = newComparison(u.key, &next)
	}
	if next.Candidate != 0 {
		changed.candidate = u.versions[next.Candidate-1]
	}
	return &changed
}

// inUse returns the versions that price orders.
func (u *rule) inUse() []*version {
	if u.candidate == nil {
		return []*version{u.stable}
	}
	return []*version{u.stable, u.candidate}
}
