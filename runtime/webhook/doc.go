// Package webhook tells other servers what happened, in requests that they can
// believe and that reach them at least once.
//
// There is no queue of messages. A Source can read its topics again from any
// place, because they are derived from the journal; all that a webhook keeps is
// the place up to which each topic has been delivered. A place is written after
// the delivery that it covers, so a crash in between delivers again, with the
// same event ids: a receiver that keeps the ids it has seen sees each event once.
//
// Within a topic (a deal, or what was raised for a merchant) events are delivered
// in their order, and none before the one in front of it was accepted with a 2xx.
// A webhook has one request under way at a time, with up to batchMax events of one
// topic: a slow receiver delays only itself. Of nodes that share the tables, each
// delivers the topics that Config.Owns gives it; hooks, places and what was raised are
// changed only if they are what the node believes them to be. One that fails is tried again after
// 1 s, 2 s, 4 s … up to 10 min, each wait cut short at random by up to a half, and
// is disabled when it has failed for Config.DisableAfter.
//
// Receivers are named by merchants, so they are not trusted: no address that only
// this machine or its network can reach is dialled unless Config.Networks allows
// it, no redirect is followed, no proxy is used, and of an answer only the status
// counts.
package webhook
