package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/cmd/progress"
	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	demoDealsMax  = 1000
	demoOrdersMax = 100_000_000
	demoUsers     = 50_000
	demoConfirmed = 200 // orders that are paid for after the burst
	// Stock, as a share of the orders that will come: the first deal has some
	// left for who tries it by hand, the others sell out.
	demoPlenty, demoScarce = 1.1, 0.9
)

type demo struct {
	orders, deals, connections int
	exit                       bool
	listen, admin              string

	out, progress io.Writer
	server        *server
	client        *client.Client
}

func newDemo() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Start a server in a temporary folder and watch it through a flash sale",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out, d.progress = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return d.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&d.orders, "orders", 100_000, "orders to send")
	flags.IntVar(&d.deals, "deals", 10, "deals to send them to; the first is priced by a rule and gets half of the orders")
	flags.IntVar(&d.connections, "connections", 64, "shoppers at once")
	flags.BoolVar(&d.exit, "exit", false, "end after the summary instead of serving on")
	flags.StringVar(&d.listen, "listen", "127.0.0.1:0", "address of the API; port 0 is any free one")
	flags.StringVar(&d.admin, "admin", "127.0.0.1:0", "address for operators")
	return cmd
}

func (d *demo) validate() error {
	if d.orders < 1 || d.orders > demoOrdersMax {
		return fmt.Errorf("--orders %d is not in [1, %d]", d.orders, demoOrdersMax)
	}
	if d.deals < 1 || d.deals > demoDealsMax {
		return fmt.Errorf("--deals %d is not in [1, %d]", d.deals, demoDealsMax)
	}
	return nil
}

func (d *demo) run(ctx context.Context) (err error) {
	if err := d.validate(); err != nil {
		return err
	}
	data, err := os.MkdirTemp("", "doorbuster-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()

	cfg := config.Default()
	cfg.Listen, cfg.Admin, cfg.Data, cfg.LogLevel = d.listen, d.admin, data, "warn"
	cfg.DrainNotice = 0 // no balancer looks on
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Auth != config.AuthOpen {
		return errors.New("the demo believes every caller, so --listen and --admin must be on loopback")
	}
	if d.server, err = startServer(ctx, cfg, d.progress); err != nil {
		return err
	}
	fmt.Fprintln(d.out, d.server.banner())
	err = d.sell(ctx)
	switch {
	case ctx.Err() != nil: // somebody has seen enough
		return d.server.stop()
	case err != nil || d.exit:
		return errors.Join(err, d.server.stop())
	}
	d.invite()
	return d.server.run(ctx)
}

// sell runs the sale and proves how it went.
func (d *demo) sell(ctx context.Context) (err error) {
	d.client, err = client.New(client.Config{Addr: d.server.public.Addr().String(), Connections: d.connections})
	if err != nil {
		return err
	}
	defer d.client.Close()
	for i := range d.deals {
		if err := d.create(ctx, i); err != nil {
			return err
		}
	}
	tally, err := d.burst(ctx)
	if err != nil {
		return err
	}
	if err := d.confirm(ctx, tally.sample); err != nil {
		return err
	}
	return d.summarize(ctx, tally)
}

func demoDeal(i int) string { return "demo-" + strconv.Itoa(i+1) }

// share is how many of the orders go to a deal: the first is hot.
func (d *demo) share(i int) int {
	switch {
	case d.deals == 1:
		return d.orders
	case i == 0:
		return d.orders / 2
	}
	return (d.orders - d.orders/2) / (d.deals - 1)
}

func (d *demo) create(ctx context.Context, i int) error {
	supply := demoScarce
	if i == 0 {
		supply = demoPlenty
	}
	deal := map[string]any{
		"deal_id": demoDeal(i), "merchant_id": "demo", "title": "Lychee 2.5 kg", "category": "fruit",
		"currency": "CNY", "unit_price": 9900, "stock": max(1, int(float64(d.share(i))*supply)),
	}
	if i == 0 {
		deal["rules"] = []string{"tiered"}
	}
	body, err := json.Marshal(deal)
	if err != nil {
		return err
	}
	return call(ctx, d.client, client.Call{Method: "POST", Path: "/api/v1/deals", Body: body}, nil)
}

// placed is what the demonstration reads of an accepted order.
type placed struct {
	OrderID  string `json:"order_id"`
	DealID   string `json:"deal_id"`
	Discount int64  `json:"discount_total"`
}

// tally is what the shoppers were told. Its mutex guards all fields.
type tally struct {
	mu       sync.Mutex
	latency  *hdrhistogram.Histogram // µs
	accepted map[string]int          // units, by deal: every order is for one
	discount map[string]int64        // by deal
	soldOut  int
	other    map[int]int // by status
	sample   []string    // order ids
	begun    int64
	answered int
	elapsed  time.Duration
}

func (t *tally) observe(_, status int, latency time.Duration, body []byte) {
	var order placed
	if status == 201 {
		if err := json.Unmarshal(body, &order); err != nil {
			status = 0
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered++
	_ = t.latency.RecordValue(latency.Microseconds()) // beyond the range means beyond the client's timeout
	switch status {
	case 201:
		t.accepted[order.DealID]++
		t.discount[order.DealID] += order.Discount
		if len(t.sample) < demoConfirmed {
			t.sample = append(t.sample, order.OrderID)
		}
	case 409:
		t.soldOut++
	default:
		t.other[status]++
	}
}

// line describes the sale so far.
func (t *tally) line() (answered int, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	accepted := 0
	for _, n := range t.accepted {
		accepted += n
	}
	seconds := time.Duration(clockd.Mono() - t.begun).Seconds()
	return t.answered, fmt.Sprintf("%6.0f orders/s  P50 %5.1f ms  P99 %5.1f ms  accepted %d  sold out %d",
		float64(t.answered)/seconds, t.quantile(50), t.quantile(99), accepted, t.soldOut)
}

func (t *tally) quantile(q float64) float64 { return float64(t.latency.ValueAtQuantile(q)) / 1000 }

// burst sends the orders and shows how they fare.
func (d *demo) burst(ctx context.Context) (*tally, error) {
	t := &tally{
		latency:  hdrhistogram.New(1, (client.TimeoutDefault + time.Second).Microseconds(), 3),
		accepted: make(map[string]int), discount: make(map[string]int64), other: make(map[int]int),
		begun: clockd.Mono(),
	}
	end := progress.Show(d.progress, d.server.clock, d.orders, t.line)
	summary, err := d.client.Run(ctx, client.Load{Orders: d.orders, Next: d.order, Observe: t.observe})
	end()
	t.elapsed = summary.Elapsed
	return t, err
}

// order writes order i. Every second one is for the hot deal.
func (d *demo) order(i int, body, key []byte) (b, k []byte) {
	deal := 0
	if d.deals > 1 && i%2 == 1 {
		deal = 1 + i/2%(d.deals-1)
	}
	body = append(body, `{"deal_id":"`...)
	body = append(body, demoDeal(deal)...)
	body = append(body, `","user_id":"u-`...)
	body = strconv.AppendInt(body, int64(i%demoUsers), 10)
	body = append(body, `","quantity":1}`...)
	return body, strconv.AppendInt(append(key, "demo-"...), int64(i), 10)
}

// confirm pays for some of the orders, so that not all is merely reserved.
func (d *demo) confirm(ctx context.Context, orders []string) error {
	for _, id := range orders {
		pay := client.Call{Method: "POST", Path: "/api/v1/orders/" + id + "/confirm", Body: []byte(`{"payment_ref":"demo"}`)}
		if err := call(ctx, d.client, pay, nil); err != nil {
			return err
		}
	}
	return nil
}

// summarize reads the deals back and sets them against what shoppers were told.
func (d *demo) summarize(ctx context.Context, t *tally) error {
	out := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "deal\tstock\tsold\treserved\tavailable\tsum\ttold to shoppers\tdiscounts\toversold\t")
	wrong, oversold := 0, 0
	for i := range d.deals {
		var deal struct{ Stock, Sold, Reserved, Available int }
		id := demoDeal(i)
		if err := call(ctx, d.client, client.Call{Method: "GET", Path: "/api/v1/deals/" + id}, &deal); err != nil {
			return err
		}
		sum, told := deal.Sold+deal.Reserved+deal.Available, t.accepted[id]
		over := max(0, told-deal.Stock)
		oversold += over
		if sum != deal.Stock || told != deal.Sold+deal.Reserved {
			wrong++
		}
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.2f\t%d\t\n",
			id, deal.Stock, deal.Sold, deal.Reserved, deal.Available, sum, told, float64(t.discount[id])/100, over)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%s in %.2f s: %.0f orders/s, P50 %.1f ms, P99 %.1f ms, each on disk before its answer\n",
		count(t.answered, "order"), t.elapsed.Seconds(), float64(t.answered)/t.elapsed.Seconds(), t.quantile(50), t.quantile(99))
	if wrong > 0 || oversold > 0 || len(t.other) > 0 {
		return fmt.Errorf("deals that do not add up: %d, units oversold: %d, unexpected answers by status: %v", wrong, oversold, t.other)
	}
	fmt.Fprintf(d.out, "sold + reserved + available == stock for %d of %s, 0 oversold\n", d.deals, count(d.deals, "deal"))
	return nil
}

// invite says what to try next.
func (d *demo) invite() {
	base := "http://" + d.server.public.Addr().String()
	fmt.Fprintf(d.out, `
Serving on. Try:
  curl -s %[1]s/api/v1/deals/demo-1
  curl -s %[1]s/api/v1/quotes -H 'Content-Type: application/json' -d '{"deal_id":"demo-1","user_id":"me","quantity":3}'
  curl -s %[1]s/api/v1/orders -H 'Content-Type: application/json' -H 'Idempotency-Key: mine-1' -d '{"deal_id":"demo-1","user_id":"me","quantity":1}'
Ctrl-C ends it and removes its folder.
`, base)
}
