package main

import (
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"github.com/redis/rueidis"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/guard/redistest"
)

//go:embed place.lua
var placeLua string

// redisShop keeps everything in Redis. One script decides and writes, so it is
// atomic; rueidis pipelines what its callers send at the same time, so that Redis
// finds many scripts in one read, and syncs once for all of them.
type redisShop struct {
	server *database
	client rueidis.Client
	script *rueidis.Lua
	clock  *clockd.Clock
}

func openRedis(ctx context.Context, dir, fsync string, of offer) (_ shop, err error) {
	socket := redistest.Socket(dir)
	cmd := redistest.Command(ctx, dir, "--appendonly", "yes", "--appendfsync", fsync)
	s := &redisShop{script: rueidis.NewLuaScript(placeLua)}
	s.server, err = startDatabase(ctx, cmd, syscall.SIGTERM, func() error { return s.connect(ctx, socket) })
	if err != nil {
		return nil, fmt.Errorf("redis-server (Debian: apt-get install redis-server): %w", err)
	}
	if s.clock, err = clockd.New(clockd.Config{}); err != nil {
		return nil, errors.Join(err, s.server.close())
	}
	s.clock.Start()
	for i := range of.deals {
		set := s.client.B().Hset().Key("deal:d-"+strconv.Itoa(i)).FieldValue().
			FieldValue("stock", strconv.FormatInt(of.stock, 10)).
			FieldValue("limit", strconv.FormatInt(of.limit, 10)).
			FieldValue("price", strconv.FormatInt(of.price, 10)).Build()
		if err := s.client.Do(ctx, set).Error(); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *redisShop) connect(ctx context.Context, socket string) (err error) {
	s.client, err = rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  []string{socket},
		DisableCache: true,
		DialCtxFn: func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
	})
	if err == nil {
		err = s.client.Do(ctx, s.client.B().Ping().Build()).Error()
	}
	return err
}

func (s *redisShop) place(ctx context.Context, o *order) (receipt, error) {
	record, err := s.script.Exec(ctx, s.client,
		[]string{"deal:" + o.Deal, "bought:" + o.Deal, "orders:" + o.Deal},
		[]string{o.User, o.Key, strconv.FormatInt(o.Quantity, 10), strconv.FormatInt(s.clock.Now().Wall, 10)}).ToString()
	if err != nil {
		return receipt{}, refusalOf(err)
	}
	var r receipt
	if _, err := fmt.Sscan(record, &r.Seq, &r.Quantity, &r.Available, &r.Total, &r.At); err != nil {
		return receipt{}, fmt.Errorf("record %q: %w", record, err)
	}
	if r.Quantity != o.Quantity {
		return receipt{}, errMismatch
	}
	return r, nil
}

// refusalOf finds the script's own words in an error.
func refusalOf(err error) error {
	if said, ok := rueidis.IsRedisErr(err); ok {
		for _, refusal := range []error{errNoDeal, errSoldOut, errLimit} {
			if said.Error() == refusal.Error() {
				return refusal
			}
		}
	}
	return err
}

func (s *redisShop) close() error {
	s.client.Close()
	s.clock.Close()
	return s.server.close()
}
