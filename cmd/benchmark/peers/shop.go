package main

import (
	"context"
	"errors"
	"fmt"
)

// order is what a shopper asks for.
type order struct {
	Deal     string   `json:"deal_id"`
	User     string   `json:"user_id"`
	Quantity int64    `json:"quantity"`
	Codes    []string `json:"codes"` // no peer has promotions: they cost nothing, and change nothing
	Key      string   `json:"-"`     // idempotency key
}

// receipt is an accepted order. A repeated key gets the same one again.
type receipt struct {
	Seq       int64 // of the order within its deal
	Quantity  int64
	Available int64 // right after it
	Total     int64 // minor units
	At        int64 // Unix ms
}

// Why an order was refused. Anything else is the server's own trouble.
var (
	errNoDeal   = errors.New("deal_not_found")
	errSoldOut  = errors.New("sold_out")
	errLimit    = errors.New("user_limit_exceeded")
	errMismatch = errors.New("idempotency_mismatch")
)

// offer is what every deal of a shop begins with.
type offer struct {
	deals int   // d-0 …
	stock int64 // of each
	limit int64 // units of one deal that one user may have; 0 = any
	price int64 // minor units
}

// shop sells. Stock, the limit, the key and the order's record change together or
// not at all, and place returns nil only when that is as durable as the kind of
// shop says.
type shop interface {
	place(ctx context.Context, o *order) (receipt, error)
	close() error
}

// kind is one way to build a shop.
type kind struct {
	name    string
	durable string // what an answer promises
	open    func(ctx context.Context, dir string, of offer) (shop, error)
}

var kinds = []kind{
	{
		"redis-always", "one fsync of the append-only file for each turn of Redis's event loop, before its answers",
		func(ctx context.Context, dir string, of offer) (shop, error) {
			return openRedis(ctx, dir, "always", of)
		},
	},
	{
		"redis-everysec", "not: a power cut loses up to a second of accepted orders",
		func(ctx context.Context, dir string, of offer) (shop, error) {
			return openRedis(ctx, dir, "everysec", of)
		},
	},
	{"postgres", "synchronous_commit=on: the commit record is synced before the answer", openPostgres},
	{"mutex", "our own journal: one sync for each group, before its answers", openMutex},
}

func openShop(ctx context.Context, name, dir string, of offer) (shop, error) {
	for _, k := range kinds {
		if k.name == name {
			return k.open(ctx, dir, of)
		}
	}
	return nil, fmt.Errorf("no such kind of shop: %q", name)
}
