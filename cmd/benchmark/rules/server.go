package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway/client"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
)

// The load: many connections that order from one deal.
const (
	threads     = 2
	connections = 400
	merchant    = "bench" // lab's
)

// stacked are the rules of one deal, in C, from the engine's root.
var stacked = []string{inC, "examples/rules/c/membertag.c", "examples/rules/c/region.c"}

// serve measures the server as a whole. It returns what the page says of it.
func (s *session) serve(ctx context.Context) (string, error) {
	if s.orderRounds == 0 && s.uploads == 0 {
		return "", nil
	}
	server, err := lab.Build(ctx, s.dir)
	if err != nil {
		return "", err
	}
	var section strings.Builder
	if s.orderRounds > 0 {
		text, err := s.orders(ctx, server)
		if err != nil {
			return "", err
		}
		section.WriteString(text)
	}
	if s.uploads > 0 {
		text, err := s.upload(ctx, server)
		if err != nil {
			return "", err
		}
		section.WriteString(text)
		if text, err = memory(ctx); err != nil {
			return "", err
		}
		section.WriteString(text)
	}
	return section.String(), nil
}

// seller is the server with some rules on its deal.
type seller struct {
	name  string
	rules int // of stacked
	loads []round
}

// round is one load, and the processor time that the server took for an order.
type round struct {
	lab.Load
	micros float64
}

func (s *session) orders(ctx context.Context, server string) (string, error) {
	wrk, err := lab.NewWrk(s.dir, threads, connections, "/api/v1/orders")
	if err != nil {
		return "", err
	}
	var modules [][]byte
	for _, source := range stacked {
		wasm := filepath.Join(s.dir, "stacked.wasm")
		if err := s.build(ctx, source, wasm); err != nil {
			return "", err
		}
		module, err := os.ReadFile(wasm)
		if err != nil {
			return "", err
		}
		modules = append(modules, module)
	}
	sellers := []*seller{{name: "no rule"}, {name: "three rules", rules: len(modules)}}
	for n := range s.orderRounds {
		for i := range sellers {
			c := sellers[(n+i)%len(sellers)] // nobody is always first
			l, err := s.sell(ctx, server, wrk, modules[:c.rules])
			if err != nil {
				return "", fmt.Errorf("%s: %w", c.name, err)
			}
			c.loads = append(c.loads, l)
			fmt.Fprintf(s.out, "round %d  %-12s %8.0f orders/s  %5.1f µs of CPU/order\n", n+1, c.name, l.Rate(), l.micros)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "\nOrders for one hot deal, `%v`, %d rounds of %d s each after %d s of warm-up, durable, medians. The three are `tiered`,\n"+
		"`membertag` and `region`, in C, and all of them run for each order.\n\n"+
		"| | orders/s (lowest - highest) | of none | CPU µs/order | P50 ms | P99 ms |\n|---|---|---|---|---|---|\n", wrk, s.orderRounds, s.seconds, s.warmup)
	for _, c := range sellers {
		rates := sorted(c.loads, round.Rate)
		fmt.Fprintf(&out, "| %s | %.0f (%.0f - %.0f) | %.2f | %.1f | %.1f | %.1f |\n", c.name, page.Median(rates), rates[0], rates[len(rates)-1],
			page.Median(rates)/page.Median(sorted(sellers[0].loads, round.Rate)), page.Median(sorted(c.loads, func(l round) float64 { return l.micros })),
			page.Median(sorted(c.loads, func(l round) float64 { return page.Millis(l.P50) })), page.Median(sorted(c.loads, func(l round) float64 { return page.Millis(l.P99) })))
	}
	return out.String(), nil
}

// start serves from an empty folder.
func (s *session) start(ctx context.Context, server string) (*lab.Process, error) {
	data, err := os.MkdirTemp(s.dir, "data")
	if err != nil {
		return nil, err
	}
	return lab.Serve(ctx, server, filepath.Join(data, "journal"))
}

// sell is one round of a seller.
func (s *session) sell(ctx context.Context, server string, wrk *lab.Wrk, modules [][]byte) (_ round, err error) {
	p, err := s.start(ctx, server)
	if err != nil {
		return round{}, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	c, err := client.New(client.Config{Addr: p.Listen})
	if err != nil {
		return round{}, err
	}
	defer c.Close()
	rules := []string{}
	for i, module := range modules {
		rule := fmt.Sprintf("r-%d", i)
		if err := post(ctx, c, "/api/v1/rules/"+rule+"/versions?merchant_id="+merchant, "application/wasm", "", module, nil); err != nil {
			return round{}, err
		}
		rules = append(rules, rule)
	}
	if err := (lab.Orders{Deals: 1, Prefix: "d-"}).Create(ctx, client.Config{Addr: p.Listen}, rules...); err != nil {
		return round{}, err
	}
	if err := appliesAll(ctx, c, len(rules)); err != nil {
		return round{}, err
	}
	if _, err := wrk.Run(ctx, p.Listen, 1, time.Duration(s.warmup)*time.Second); err != nil {
		return round{}, err
	}
	before, err := p.Usage(ctx)
	if err != nil {
		return round{}, err
	}
	l, err := wrk.Run(ctx, p.Listen, 1, time.Duration(s.seconds)*time.Second)
	if err != nil {
		return round{}, err
	}
	after, err := p.Usage(ctx)
	if err != nil {
		return round{}, err
	}
	return round{l, float64(after.Minus(before).CPU.Microseconds()) / float64(l.Requests)}, nil
}

// ordered is what the answer to an order says of its price.
type ordered struct {
	OrderID  string `json:"order_id"`
	Discount int64  `json:"discount_total"`
}

// appliesAll orders once, and wants that so many rules ran.
func appliesAll(ctx context.Context, c *client.Client, rules int) error {
	var order ordered
	if err := post(ctx, c, "/api/v1/orders", "", "first", []byte(`{"deal_id":"d-0","user_id":"u-first","quantity":1}`), &order); err != nil {
		return err
	}
	answer, err := c.Do(ctx, client.Call{Method: "GET", Path: "/api/v1/orders/" + order.OrderID + "/explain"})
	if err != nil {
		return err
	}
	var explained struct {
		Rules []struct {
			Fault string `json:"fault"`
		} `json:"rules"`
	}
	if err := json.Unmarshal(answer.Body, &explained); err != nil {
		return err
	}
	if len(explained.Rules) != rules {
		return fmt.Errorf("%d rules ran, not %d: %s", len(explained.Rules), rules, answer.Body)
	}
	for _, r := range explained.Rules {
		if r.Fault != "" {
			return fmt.Errorf("a rule's fault: %s", r.Fault)
		}
	}
	return nil
}

// post wants 201. An order has a key.
func post(ctx context.Context, c *client.Client, path, kind, key string, body []byte, into any) error {
	answer, err := c.Do(ctx, client.Call{Method: "POST", Path: path, ContentType: kind, Body: body, IdempotencyKey: key})
	if err != nil {
		return err
	}
	if answer.Status != 201 {
		return fmt.Errorf("%s: %d: %s", path, answer.Status, answer.Body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer.Body, into)
}

// upload measures from the first byte of a module to the answer of an order that it
// priced: the upload, a deal that names the rule, and the order. No two modules have
// the same code.
func (s *session) upload(ctx context.Context, server string) (_ string, err error) {
	p, err := s.start(ctx, server)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	c, err := client.New(client.Config{Addr: p.Listen})
	if err != nil {
		return "", err
	}
	defer c.Close()
	var took []float64 // ms
	size := 0
	for n := range s.uploads {
		module, id := fourKilobytes(n+1), fmt.Sprintf("u-%d", n)
		size = len(module)
		deal, err := json.Marshal(map[string]any{
			"deal_id": id, "merchant_id": merchant, "title": id, "category": "fruit", "currency": "CNY", "unit_price": 9900, "stock": 1, "rules": []string{id},
		})
		if err != nil {
			return "", err
		}
		var order ordered
		start := clockd.Mono()
		err = errors.Join(
			post(ctx, c, "/api/v1/rules/"+id+"/versions?merchant_id="+merchant, "application/wasm", "", module, nil),
			post(ctx, c, "/api/v1/deals", "", "", deal, nil),
			post(ctx, c, "/api/v1/orders", "", id, []byte(`{"deal_id":"`+id+`","user_id":"`+id+`","quantity":1}`), &order))
		took = append(took, float64(clockd.Mono()-start)/1e6)
		if err != nil {
			return "", err
		}
		if order.Discount != int64(n+1) {
			return "", fmt.Errorf("module %d did not price its order: %+v", n, order)
		}
	}
	took = sorted(took, func(ms float64) float64 { return ms })
	return fmt.Sprintf("\nFrom the upload of a module of %.1f kB (%d functions, compiled in a process of its own) to the answer of the first order\n"+
		"that it priced, the deal made in between: **%.0f ms** (%.0f - %.0f, %d modules).\n",
		float64(size)/1000, extraFunctions, page.Median(took), took[0], took[len(took)-1], len(took)), nil
}

// extraFunctions are what makes a module of four kilobytes.
const extraFunctions = 64

// fourKilobytes is a module that takes off n minor units, with code that is no other's.
func fourKilobytes(n int) []byte {
	m := gastest.Rule(fmt.Sprintf("i32.const 4096 i32.const 1 i32.store16 1 0 i32.const 4096 i64.const %d i64.store 3 8", n) + gastest.Result)
	m.MemoryMin = 2
	for i := range extraFunctions {
		m.Funcs = append(m.Funcs, gastest.Func{Type: gastest.TypeI32, Code: fmt.Sprintf("local.get 0 i32.const %d i32.add i32.load 0 0 local.tee 0 i32.const 64 i32.mul "+
			"i32.const 7 i32.xor local.get 0 i32.add i32.const %d i32.mul local.set 0 i32.const 128 local.get 0 i32.store 0 0 local.get 0 i32.const 11 i32.shl local.get 0 "+
			"i32.sub i32.const 5 i32.add local.set 0 i32.const 256 local.get 0 i32.store 0 0 local.get 0", n*extraFunctions+i, i)})
	}
	return m.Encode()
}

var residentText = regexp.MustCompile(`(\d+) versions take (\d+) MiB`)

// memory asks the test that bounds it.
func memory(ctx context.Context) (string, error) {
	const test = "TestThousandVersionsFit"
	out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^"+test+"$", "./plugins").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", test, err, out)
	}
	found := residentText.FindSubmatch(out)
	if found == nil {
		return "", fmt.Errorf("%s says nothing of memory:\n%s", test, out)
	}
	return fmt.Sprintf("\n%s versions, each with an instance that is ready, take **%s MiB** (`%s`).\n", found[1], found[2], test), nil
}
