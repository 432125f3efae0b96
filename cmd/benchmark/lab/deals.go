package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
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

// CreateDeals creates deals d-0 …, priced by the named rules, several at once:
// each waits for a sync.
func CreateDeals(ctx context.Context, addr string, deals int, rules ...string) error {
	const workers = 16
	c, err := client.New(client.Config{Addr: addr, Connections: workers})
	if err != nil {
		return err
	}
	defer c.Close()
	var wait sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wait.Go(func() {
			for i := w; i < deals && errs[w] == nil; i += workers {
				errs[w] = createDeal(ctx, c, i, rules)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func createDeal(ctx context.Context, c *client.Client, i int, rules []string) error {
	body, err := json.Marshal(map[string]any{
		"deal_id": fmt.Sprintf("d-%d", i), "merchant_id": "bench", "title": "Lychee 2.5 kg", "category": "fruit",
		"currency": "CNY", "unit_price": 9900, "stock": Stock, "reserve_ttl_s": reserveTTL, "rules": rules,
	})
	if err != nil {
		return err
	}
	answer, err := c.Do(ctx, client.Call{Method: "POST", Path: "/api/v1/deals", Body: body})
	if err == nil && answer.Status != 201 {
		err = fmt.Errorf("create deal %d: %d: %s", i, answer.Status, answer.Body)
	}
	return err
}
