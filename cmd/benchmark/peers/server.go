package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/goccy/go-json"
	"github.com/valyala/fasthttp"
)

// quantityMax is what one order may ask for at most.
const quantityMax = 1_000_000

// reply is an accepted order as JSON.
type reply struct {
	OrderID   string `json:"order_id"`
	Deal      string `json:"deal_id"`
	User      string `json:"user_id"`
	Quantity  int64  `json:"quantity"`
	Status    string `json:"status"`
	Currency  string `json:"currency"`
	Total     int64  `json:"total"`
	Seq       int64  `json:"seq"`
	Available int64  `json:"available"`
	CreatedAt string `json:"created_at"`
}

// serve answers orders on ln from a shop, until ln is closed.
func serve(ctx context.Context, ln net.Listener, s shop) error {
	server := &fasthttp.Server{
		Handler:               func(c *fasthttp.RequestCtx) { placeOrder(ctx, c, s) },
		Concurrency:           16384,
		ReadBufferSize:        8 << 10,
		ReadTimeout:           10 * time.Second,
		WriteTimeout:          10 * time.Second,
		IdleTimeout:           75 * time.Second,
		MaxRequestBodySize:    16 << 10,
		NoDefaultServerHeader: true,
		NoDefaultContentType:  true,
	}
	return server.Serve(ln)
}

func placeOrder(ctx context.Context, c *fasthttp.RequestCtx, s shop) {
	o := order{Key: string(c.Request.Header.Peek("Idempotency-Key"))}
	if err := json.Unmarshal(c.PostBody(), &o); err != nil {
		refuse(c, fasthttp.StatusBadRequest, "invalid_json")
		return
	}
	if o.Deal == "" || o.User == "" || o.Key == "" || o.Quantity < 1 || o.Quantity > quantityMax {
		refuse(c, fasthttp.StatusUnprocessableEntity, "invalid_request")
		return
	}
	r, err := s.place(ctx, &o)
	switch {
	case errors.Is(err, errNoDeal):
		refuse(c, fasthttp.StatusNotFound, err.Error())
	case errors.Is(err, errSoldOut), errors.Is(err, errLimit):
		refuse(c, fasthttp.StatusConflict, err.Error())
	case errors.Is(err, errMismatch):
		refuse(c, fasthttp.StatusUnprocessableEntity, err.Error())
	case err != nil:
		refuse(c, fasthttp.StatusServiceUnavailable, "unavailable")
	default:
		body, err := json.Marshal(reply{
			OrderID: o.Deal + "-" + strconv.FormatInt(r.Seq, 10), Deal: o.Deal, User: o.User, Quantity: r.Quantity,
			Status: "reserved", Currency: "CNY", Total: r.Total, Seq: r.Seq, Available: r.Available,
			CreatedAt: time.UnixMilli(r.At).UTC().Format("2006-01-02T15:04:05.000Z07:00"),
		})
		if err != nil {
			refuse(c, fasthttp.StatusInternalServerError, "internal_error")
			return
		}
		c.SetStatusCode(fasthttp.StatusCreated)
		c.SetContentType("application/json; charset=utf-8")
		c.Response.SetBodyRaw(body)
	}
}

func refuse(c *fasthttp.RequestCtx, status int, code string) {
	c.SetStatusCode(status)
	c.SetContentType("application/problem+json")
	c.SetBodyString(`{"code":"` + code + `"}`)
}
