package gateway

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/actors"
)

// What failed is found by our id, by the client's own and by the deal's.
func TestFailureNamesTheRequest(t *testing.T) {
	var out safeBuffer
	h := newHouse(t, func(c *Config, _ *actors.Config) { c.Logger = slog.New(slog.NewTextHandler(&out, nil)) })
	var ctx fasthttp.RequestCtx
	ctx.Request.SetRequestURI("/api/v1/deals/d-7")
	ctx.Request.Header.Set("X-Request-Id", "theirs-"+strings.Repeat("x", 100))
	h.server.guard(&ctx, func(ctx *fasthttp.RequestCtx) { h.server.failOrder(ctx, errors.New("boom")) })
	h.server.guard(&ctx, func(*fasthttp.RequestCtx) { panic("boom") })
	id := string(requestID(&ctx))
	for _, want := range []string{"client_request_id=theirs-" + strings.Repeat("x", clientIDMax-7) + " ", "deal_id=d-7", "request_id=" + id, "an order failed", "a handler panicked"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
}
