// Package bench is the command that measures latency: orders arrive on a fixed
// schedule, whatever the server does, and each counts from the moment that it was
// due. A closed loop waits with the next order while the server is slow, and so
// leaves out exactly the orders that would have suffered; this one cannot.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/cmd/progress"
	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	dealsMax   = 100_000
	secondsMax = 3600
	rateMax    = 1_000_000

	task = "go tool task bench:latency"
)

// bench is one session.
type bench struct {
	addr, token string // of a running server; addr "" = start one
	rate, share float64
	seconds     int
	warmup      int
	deals       []int
	connections int
	rules       []string
	page        string

	out, progress io.Writer
	clock         *clockd.Clock
	self, dir     string // what a server of our own is started from, and where
}

// New returns the command.
func New() *cobra.Command {
	b := &bench{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure latency under a load that does not wait for answers",
		Long: `Measure latency under a load that does not wait for answers: orders are sent on a
fixed schedule, and the time of each counts from when it was due, so that a stall of
the server shows in all the orders that it held up.

Without --addr a server is started on loopback, on an empty folder, and thrown away.
With it, deals named bench-… are created there, and closed at the end.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b.out, b.progress = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return b.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&b.addr, "addr", "", "host:port of a running server (default: start one)")
	flags.StringVar(&b.token, "token", "", "operator's key for it")
	flags.Float64Var(&b.rate, "rate", 0, "orders a second; 0 = --share of the capacity, which is measured first")
	flags.Float64Var(&b.share, "share", 0.5, "share of the capacity: what the same connections get when each waits for its answers")
	flags.IntVar(&b.seconds, "seconds", 10, "seconds that count")
	flags.IntVar(&b.warmup, "warmup", 2, "seconds before that do not; also how long the capacity is measured")
	flags.IntSliceVar(&b.deals, "deals", []int{1}, "how many deals the orders are spread over; several numbers are measured in turn")
	flags.IntVar(&b.connections, "connections", 400, "connections")
	flags.StringSliceVar(&b.rules, "rules", []string{"tiered"}, "rules that price the deals")
	flags.StringVar(&b.page, "page", "", "Markdown page that the table and plots are written to")
	return cmd
}

func (b *bench) validate() error {
	if !(b.rate >= 0 && b.rate <= rateMax) || !(b.share > 0 && b.share <= 100) { // so that NaN fails too
		return fmt.Errorf("--rate must be in [0, %d], --share in (0, 100]", rateMax)
	}
	if b.seconds < 1 || b.seconds > secondsMax || b.warmup < 1 || b.warmup > secondsMax {
		return fmt.Errorf("--seconds and --warmup must be in [1, %d]", secondsMax)
	}
	if len(b.deals) == 0 {
		return errors.New("--deals: name a number")
	}
	for _, n := range b.deals {
		if n < 1 || n > dealsMax {
			return fmt.Errorf("--deals %d is not in [1, %d]", n, dealsMax)
		}
	}
	return nil
}

func (b *bench) run(ctx context.Context) (err error) {
	if err := b.validate(); err != nil {
		return err
	}
	if b.clock, err = clockd.New(clockd.Config{}); err != nil {
		return err
	}
	b.clock.Start()
	defer b.clock.Close()
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "doorbuster-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()

	var results []*result
	for _, deals := range b.deals {
		r, err := b.measure(ctx, deals)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	fmt.Fprintln(b.out, table(results))
	if b.page == "" {
		return nil
	}
	return b.write(results)
}

// measure runs one load, against a server of its own if there is none.
func (b *bench) measure(ctx context.Context, deals int) (r *result, err error) {
	to := client.Config{Addr: b.addr, Token: b.token, Connections: b.connections}
	orders := lab.Orders{Deals: deals, Prefix: "d-"}
	if b.addr == "" {
		server, err := lab.Serve(ctx, b.self, filepath.Join(b.dir, strconv.Itoa(deals)))
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, server.Stop()) }()
		to.Addr = server.Listen
	} else {
		orders.Prefix = fmt.Sprintf("bench-%d-", b.clock.Now().Wall)
		defer func() { err = errors.Join(err, orders.Close(context.WithoutCancel(ctx), to)) }()
	}
	if err := orders.Create(ctx, to, b.rules...); err != nil {
		return nil, err
	}
	c, err := client.New(to)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return b.load(ctx, c, orders)
}

// load warms the server up, finds the rate and keeps to it.
func (b *bench) load(ctx context.Context, c *client.Client, orders lab.Orders) (*result, error) {
	warm := time.Duration(b.warmup) * time.Second
	r := &result{deals: orders.Deals, rate: b.rate}
	for _, phase := range []string{"warm", "capacity"} {
		if b.rate > 0 && phase == "capacity" {
			break
		}
		closed := newRecorder(phase, 0)
		orders.Run = phase
		if err := b.send(ctx, c, orders, client.Load{Length: warm, Rate: b.rate}, closed); err != nil {
			return nil, err
		}
		if phase == "capacity" {
			r.capacity = float64(closed.accepted()) / closed.summary.Elapsed.Seconds()
			r.rate = math.Max(1, r.capacity*b.share)
		}
	}
	orders.Run = "open"
	length := time.Duration(b.seconds) * time.Second
	r.recorder = newRecorder(fmt.Sprintf("%d deals at %.0f orders/s", r.deals, r.rate), int(r.rate*length.Seconds()))
	return r, b.send(ctx, c, orders, client.Load{Length: length, Rate: r.rate}, r.recorder)
}

// send runs a load and shows how it goes.
func (b *bench) send(ctx context.Context, c *client.Client, orders lab.Orders, load client.Load, rec *recorder) (err error) {
	load.Next, load.Observe = orders.Next, rec.observe
	end := progress.Show(b.progress, b.clock, rec.orders, rec.line)
	rec.summary, err = c.Run(ctx, load)
	end()
	if err == nil && rec.accepted() == 0 {
		err = fmt.Errorf("no order was accepted; answers by status: %s", rec.statuses())
	}
	return err
}

// write puts the results into the page.
func (b *bench) write(results []*result) error {
	goal := fmt.Sprintf("--rate %g", b.rate)
	rate := "a rate that was given"
	if b.rate == 0 {
		goal = fmt.Sprintf("--share %g", b.share)
		rate = fmt.Sprintf("%g of what the same connections get when each waits for its answers (the capacity)", b.share)
	}
	deals := strings.Trim(strings.ReplaceAll(fmt.Sprint(b.deals), " ", ","), "[]")
	var section strings.Builder
	fmt.Fprintf(&section, "## Latency\n`doorbuster bench %s --seconds %d --warmup %d --deals %s --connections %d`: orders are due on a fixed\n"+
		"schedule, at %s,\nand each counts from when it was due (free of coordinated omission). Load and server share the machine: %s.\n\n%s",
		goal, b.seconds, b.warmup, deals, b.connections, rate, page.Machine(), table(results))
	for _, r := range results {
		title := fmt.Sprintf("Latency at %.0f orders/s, deals: %d", r.rate, r.deals)
		svg, err := page.Percentiles(title, r.points())
		if err != nil {
			return err
		}
		plot, err := page.WritePlot(b.page, fmt.Sprintf("latency-%d", r.deals), title, svg)
		if err != nil {
			return err
		}
		section.WriteString(plot)
	}
	return page.WriteSection(b.page, task, section.String())
}
