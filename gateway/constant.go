package gateway

import (
	"log/slog"
	"net"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/runtime/obs"
)

const constantConnections = 16384 // as a Server allows by default

// constantReply is 120 bytes of JSON.
const constantReply = `{"order_id":"d-0-1","deal_id":"d-0","quantity":1,"status":"reserved","currency":"CNY","total":990,"seq":1,"available":1}`

// ServeConstant answers every request on ln with the same 120 bytes, through
// the same fasthttp configuration as the Server's public listener, and does
// nothing else. It is what benchmarks compare the Server to.
func ServeConstant(ln net.Listener) error {
	s := &Server{
		cfg: Config{Logger: slog.New(slog.DiscardHandler)}, ids: newRequestIDs(),
		broken: obs.NewMetrics().Route("any", "none"),
	}
	body := []byte(constantReply)
	return s.listener(constantConnections, func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusCreated)
		ctx.Response.Header.SetContentTypeBytes(jsonMediaType)
		ctx.SetBody(body)
	}).Serve(ln)
}
