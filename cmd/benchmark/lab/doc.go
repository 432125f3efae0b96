// Package lab is what the programs that measure share: servers as processes of
// their own, the deals that they sell, and wrk, which loads them.
//
// A server is known by its first line, "listening on <host:port>, …", which it
// prints when it serves and not before.
package lab
