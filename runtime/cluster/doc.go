// Package cluster makes one of many processes: it knows who the members are, which
// of them a key belongs to, and carries requests between them in batches.
//
// It promises speed, never safety. Two nodes may believe at the same time that a key
// is theirs, a node may go on after its lease has ended without knowing it, and a
// request whose link broke may or may not have been served. Whoever acts on a
// Topology must be fenced by what it writes to.
//
// # Membership
//
// A Registry (package etcd, package k8s, or Static here) keeps a record of every
// member, under a lease that the member renews. A node joins with an id that is new
// each time, so that nothing that was said to or of its earlier life can be taken
// for the present one. When the record is gone, however that came about, the node's
// Handler is told that it is Lost, and it joins again under another id. As long as
// the registry cannot be reached, everything stays as it was: nobody can tell the
// others apart from here, and those who stand still cost nothing.
//
// A process that stood still for longer than its lease (a frozen container, a
// stopped machine) finds out when it runs again, before it asks anybody: see Awake.
//
// # Placement
//
// A key belongs to the member whose address, hashed with it, weighs most (rendezvous
// hashing), among those that are not leaving. One that comes or goes moves its own
// keys only, and a node that comes back to the same address gets the same keys.
//
// # Requests
//
// Send carries a body to a member and its answer back; see links.go for how.
package cluster
