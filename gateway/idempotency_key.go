package gateway

import "github.com/doorbuster/doorbuster/actors/deal"

// parseIdempotencyKey returns the key inside the value of the header
// Idempotency-Key: 1 to 64 of [A-Za-z0-9_-], in double quotes or not. The
// result is part of value.
func parseIdempotencyKey(value []byte) (key []byte, p problem) {
	if len(value) == 0 {
		return nil, keyMissing
	}
	key = value
	if n := len(value); value[0] == '"' {
		if n < 2 || value[n-1] != '"' {
			return nil, keyInvalid
		}
		key = value[1 : n-1]
	}
	if !deal.ValidID(key) {
		return nil, keyInvalid
	}
	return key, noProblem
}
