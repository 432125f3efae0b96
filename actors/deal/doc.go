// Package deal is the domain: what a deal is, which commands it takes, which
// events come of them, and what must be true after each.
//
// It owns the rules of stock, quotas, groups, idempotency and prices, and
// nothing else. It is pure: no I/O, no clock, no goroutine, no log. A caller
// (the deal's actor) gives it a command with a time stamp, and gets a reply
// and at most one event; the caller numbers the event, applies it and makes
// it durable:
//
//	for s.Due(now, &reply.Event) { apply }  // expiries that are owed come first
//	s.Decide(&command, rules, &reply)       // reads the state, never changes it
//	if reply.Event.Kind != 0 { s.Apply(&reply.Event) }
//
// The same events applied in the same order give the same state on any
// machine: Apply takes every number from the event or from the state, and
// asserts the invariants of the deal after each one.
//
// Units: money is an int64 in the currency's minor units, times are Unix
// milliseconds, durations are milliseconds. Byte slices in a Command belong
// to the caller; a State keeps copies.
package deal
