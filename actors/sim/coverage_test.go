package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/actors/deal"
)

// coverage counts what has happened, as "what/which".
type coverage map[string]int

func (w *world) covered(what, which string) { w.cover[what+"/"+which]++ }

func (c coverage) add(more coverage) {
	for what, n := range more {
		c[what] += n
	}
}

func (c coverage) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%10d  %s\n", c[what], what)
	}
	return b.String()
}

var codeNames = [...]string{
	deal.OK: "ok", deal.DealExists: "deal exists", deal.DealNotFound: "deal not found", deal.DealNotStarted: "not started",
	deal.DealEnded: "ended", deal.DealPaused: "paused", deal.DealInvalid: "deal invalid", deal.SoldOut: "sold out",
	deal.UserLimitExceeded: "user limit", deal.QuantityInvalid: "quantity invalid", deal.RuleRejected: "rule rejected",
	deal.GroupNotOffered: "group not offered", deal.GroupNotFound: "group not found", deal.GroupFull: "group full",
	deal.GroupClosed: "group closed", deal.OrderNotFound: "order not found", deal.OrderStateConflict: "order state conflict",
	deal.IdempotencyMismatch: "idempotency mismatch", deal.OrderTooLarge: "order too large",
}

var eventNames = [...]string{
	deal.DealCreated: "created", deal.DealChanged: "changed", deal.DealPausedAt: "paused", deal.DealResumed: "resumed",
	deal.DealClosed: "closed", deal.OrderPlaced: "placed", deal.OrderConfirmed: "confirmed", deal.OrderCancelled: "cancelled",
	deal.OrderExpired: "expired", deal.OrderRefunded: "refunded", deal.GroupFailed: "group failed", deal.RuleSwitchedOff: "rule switched off",
}

var errorNames = map[error]string{
	actors.ErrOverloaded: "overloaded", actors.ErrDraining: "draining", actors.ErrUnavailable: "unavailable",
	actors.ErrReadOnly: "read-only", actors.ErrDeadline: "deadline", actors.ErrDealNotFound: "no such deal",
}

func errorName(err error) string {
	for sentinel, name := range errorNames {
		if errors.Is(err, sentinel) {
			return name
		}
	}
	return err.Error()
}

// missing returns what a run of this many seeds should have seen and has not:
// short runs prove what they can, and 1,000 seeds see everything.
func (c coverage) missing(seeds int) (missing []string) {
	if seeds < 1000 {
		return nil
	}
	need := func(what string, names []string) {
		for _, name := range names {
			if name != "" && c[what+"/"+name] == 0 {
				missing = append(missing, what+"/"+name)
			}
		}
	}
	need("fault", faultNames[:])
	need("code", codeNames[:])
	need("event", eventNames[:])
	need("error", slices.Sorted(maps.Values(errorNames)))
	need("answer", []string{"listed", "replayed", "sold out at the door"})
	need("journal", []string{"snapshot restored", "rival's event"})
	return missing
}
