// Package sim runs a whole node as a simulation: the real actors, the real
// committer and the real journal on one goroutine, with a clock that it moves
// by hand. One seed decides everything: what the shoppers and merchants ask,
// which of the node's waiting turns runs next, how far the clock moves, and
// when the disk fills, a read fails, a rival takes a deal over, a rule hangs
// or the power goes. The same seed gives the same run, step by step.
//
// It is all tests. A seed's run has three parts: work under a random subset of
// faults at random rates, so that faults do not mask each other; a calm part,
// in which everything must drain; and the audit of what was promised.
//
//	world_test.go     the machine, its process, and the loop that draws each step
//	faults_test.go    what can go wrong, and how often in this seed
//	disk_test.go      what outlives the process: a map, or pebble on a crashable file system
//	rival_test.go     other nodes that take deals over
//	shoppers_test.go  what is asked, and what was answered
//	ledger_test.go    a second, naive account of a deal, kept from its journal
//	audit_test.go     every answer held against the ledger and against real time
//	coverage_test.go  what must have happened for a run to prove anything
//	plant/            the program that proves that planted bugs are found
//
// Most seeds keep the journal in a map, because a restart of pebble costs as
// much as ten of them; one in pebbleEvery has pebble, and loses at each crash
// all that was not synced. TestCrashClones keeps half or all of that as well,
// which pebble's own goroutines have a say in, so it stands beside the rest.
//
// A failure prints its seed; -seed N runs that one again and prints its trace.
package sim
