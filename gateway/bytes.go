package gateway

import "unsafe"

// s2b returns the bytes of s without copying them. They must not be written to.
func s2b(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// b2s returns b as a string without copying it. The string is good only as
// long as nobody writes to b.
func b2s(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
