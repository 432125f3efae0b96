package gateway

import (
	"encoding/json"
	"testing"
)

// TestAdvice: where nothing more is known of a case, the detail says what to do about
// callers, keys, limits and the server, and does not say the title again.
func TestAdvice(t *testing.T) {
	for _, p := range []problem{unauthenticated, methodNotAllowed, keyMissing, headersTooLarge, requestTimeout, rateLimited, overloaded, draining, internalError} {
		var said struct{ Title, Detail string }
		if err := json.Unmarshal(appendProblem(nil, p, "", []byte("id"), nil), &said); err != nil {
			t.Fatal(err)
		}
		if said.Title != problems[p].title || said.Detail == said.Title || said.Detail == "" {
			t.Errorf("%+v", said)
		}
	}
}
