package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	// Stock is how many units each deal has: nothing sells out.
	Stock      = 1_000_000_000
	reserveTTL = 7 * 24 * 3600 // seconds: nothing expires
)

// Build builds the product into dir and returns the binary's path.
func Build(ctx context.Context, dir string) (string, error) {
	server := filepath.Join(dir, "doorbuster")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", server, "github.com/doorbuster/doorbuster/cmd/doorbuster").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return server, nil
}

// Serve starts the product on free ports of loopback, with its journal in data.
func Serve(ctx context.Context, server, data string, more ...string) (*Process, error) {
	return Start(ctx, server, append([]string{
		"serve", "--log-level", "warn", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data,
	}, more...)...)
}

// ServeDeals is Serve, with the orders' deals created.
func ServeDeals(ctx context.Context, server, data string, orders Orders, rules ...string) (*Process, error) {
	p, err := Serve(ctx, server, data)
	if err != nil {
		return nil, err
	}
	if err := orders.Create(ctx, client.Config{Addr: p.Listen}, rules...); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Orders are for a number of deals, and differ as those of orders.lua do.
type Orders struct {
	Deals  int
	Prefix string // of the deals' ids, which end in 0 …; "d-" in orders.lua
	Run    string // begins the idempotency keys
}

// Create creates the deals, priced by the named rules.
func (o Orders) Create(ctx context.Context, to client.Config, rules ...string) error {
	return o.each(to, func(c *client.Client, id string) error {
		body, err := json.Marshal(map[string]any{
			"deal_id": id, "merchant_id": "bench", "title": "Lychee 2.5 kg", "category": "fruit",
			"currency": "CNY", "unit_price": 9900, "stock": Stock, "reserve_ttl_s": reserveTTL, "rules": rules,
		})
		if err != nil {
			return err
		}
		return expect(201)(c.Do(ctx, client.Call{Method: "POST", Path: "/api/v1/deals", Body: body}))
	})
}

// Close closes the deals.
func (o Orders) Close(ctx context.Context, to client.Config) error {
	return o.each(to, func(c *client.Client, id string) error {
		return expect(200)(c.Do(ctx, client.Call{Method: "POST", Path: "/api/v1/deals/" + id + "/close"}))
	})
}

// each does something to each deal, to several at once: each waits for a sync.
func (o Orders) each(to client.Config, do func(c *client.Client, id string) error) error {
	const workers = 16
	to.Connections = workers
	c, err := client.New(to)
	if err != nil {
		return err
	}
	defer c.Close()
	var wait sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wait.Go(func() {
			for i := w; i < o.Deals && errs[w] == nil; i += workers {
				errs[w] = do(c, o.Prefix+strconv.Itoa(i))
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func expect(status int) func(client.Answer, error) error {
	return func(answer client.Answer, err error) error {
		if err == nil && answer.Status != status {
			err = fmt.Errorf("lab: %d: %s", answer.Status, answer.Body)
		}
		return err
	}
}

// Next writes order i, as client.Load wants it.
func (o Orders) Next(i int, body, key []byte) (b, k []byte) {
	body = append(append(body, `{"deal_id":"`...), o.Prefix...)
	body = strconv.AppendInt(body, int64(i%o.Deals), 10)
	body = strconv.AppendInt(append(body, `","user_id":"u-`...), int64(i*7919%100_000), 10)
	body = strconv.AppendInt(append(body, `","quantity":`...), int64(1+i%3), 10)
	if i%10 == 0 {
		body = append(body, `,"codes":["VIP"]`...)
	}
	key = append(append(key, o.Run...), '-')
	return append(body, '}'), strconv.AppendInt(key, int64(i), 10)
}
