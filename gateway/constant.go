package gateway

import (
	"log/slog"
	"net"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/runtime/obs"
)

// constantReply is 120 bytes of JSON.
const constantReply = `{"order_id":"d-0-1","deal_id":"d-0","quantity":1,"status":"reserved","currency":"CNY","total":990,"seq":1,"available":1}`

// ServeConstant answers every request on ln with the same 120 bytes, through
// the same fasthttp configuration as the Server's public listener, and does
// nothing else. It is what benchmarks compare the Server to.
func ServeConstant(ln net.Listener) error {
	f, err := NewFront(FrontConfig{Metrics: obs.NewMetrics(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	body := []byte(constantReply)
	return f.listener(f.cfg.Connections, func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusCreated)
		ctx.Response.Header.SetContentTypeBytes(jsonMediaType)
		ctx.SetBody(body)
	}).Serve(ln)
}
