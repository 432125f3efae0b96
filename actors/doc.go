// Package actors runs the deals of one node: each deal is an actor that alone
// owns its state, and everything that reaches a deal passes through its
// mailbox.
//
// A caller takes a Request from the node, fills in a command, and calls. The
// request's pointer travels to the deal's actor, which decides and applies at
// once; on to the node's one committer, which makes what has gathered durable
// with a single sync; and back to the caller, who alone may touch it again.
// No answer leaves before the events it rests on are on disk, reads included.
//
//	deal_actor.go   the hot path: a batch of messages in, one journal write out
//	mailbox.go      hands an actor its whole backlog at once
//	dispatcher.go   a few long-lived workers run all actors
//	directory.go    which deals there are, and which are in memory
//	recovery.go     snapshot + replay, at start and when an idle deal wakes
//	passivation.go  idle deals leave memory
//	feed.go         watchers of a deal see its newest committed state
//	views.go        lists, derived from the journal behind the orders' back
//	ownership.go    which deals are this node's, and how they move to another
//	remote.go       requests for deals of other nodes, and theirs for ours
//
// An activation whose append fails is ahead of the truth: it is dropped with
// everything that waits on it, and the next message replays the journal.
package actors
