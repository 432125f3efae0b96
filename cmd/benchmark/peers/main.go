// Command peers measures the server beside what people would use instead.
//
// Each peer does what an order needs (stock, a limit for each user, idempotency
// keys, the order's record) as its users would write it with care: Redis with one
// script, PostgreSQL with one transaction, and a mutex over maps with our own
// journal. All stand behind the same HTTP server, sell the same orders to the same
// connections, and take turns. A server starts fresh for its round, on an empty
// folder. The databases are Debian's, started for the round alone: they listen on a
// socket in a folder of ours, and never is it one that the machine already runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	task       = "go tool task peers"
	rule       = "tiered" // that prices Doorbuster's deals
	dealPrice  = 9900
	secondsMax = 3600
)

func main() { lab.Main(newCommand()) }

// session is one run of the comparison.
type session struct {
	rounds, seconds, warmup, threads, connections int
	page                                          string

	out          io.Writer
	dir          string // scratch
	self, server string // this binary, which is also the peers, and the product's
	wrk          *lab.Wrk
}

func newCommand() *cobra.Command {
	s := &session{}
	cmd := lab.Command("peers", "Measure the server beside what people would use instead", func(ctx context.Context, out io.Writer) error {
		s.out = out
		return s.run(ctx)
	})
	flags := cmd.Flags()
	flags.IntVar(&s.rounds, "rounds", 3, "rounds of each server")
	flags.IntVar(&s.seconds, "seconds", 5, "seconds of a round")
	flags.IntVar(&s.warmup, "warmup", 2, "seconds before a round that do not count")
	flags.IntVar(&s.threads, "threads", 2, "threads of wrk")
	flags.IntVar(&s.connections, "connections", 400, "connections of wrk")
	flags.StringVar(&s.page, "page", "", "Markdown page that the table and the plot are written to")
	cmd.AddCommand(newShop())
	return cmd
}

// newShop is a peer: this binary, run again.
func newShop() *cobra.Command {
	var name, dir string
	of := offer{stock: lab.Stock, price: dealPrice}
	cmd := &cobra.Command{
		Use:    "shop",
		Short:  "Sell until a signal",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := context.WithoutCancel(cmd.Context()) // the database outlives the signal, to end in good order
			s, err := openShop(ctx, name, dir, of)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "listening on %s, as %s\n", listener.Addr(), name)
			defer context.AfterFunc(cmd.Context(), func() { _ = listener.Close() })()
			if err := serve(ctx, listener, s); cmd.Context().Err() == nil {
				return err
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "kind", "", "what keeps the orders")
	flags.StringVar(&dir, "dir", "", "an empty folder for it")
	flags.IntVar(&of.deals, "deals", 1, "deals d-0 …")
	return cmd
}

func (s *session) validate() error {
	if s.rounds < 1 || s.seconds < 1 || s.seconds > secondsMax || s.warmup < 1 || s.warmup > secondsMax {
		return errors.New("--rounds, --seconds and --warmup must be at least 1")
	}
	return nil
}

// contestant is one server in one of the situations.
type contestant struct {
	kind    string // of a shop; "" = Doorbuster
	name    string
	durable string
	deals   int
	loads   []lab.Load // of the rounds so far
}

// situations are what is sold.
var situations = []struct {
	label string
	deals int
}{{"one hot deal", 1}, {"1,000 deals", 1000}}

func contestants() []*contestant {
	names := map[string]string{
		"redis-always": "Redis + Lua, appendfsync always", "redis-everysec": "Redis + Lua, appendfsync everysec",
		"postgres": "PostgreSQL, UPDATE + INSERT", "mutex": "mutex and maps, our journal",
	}
	var all []*contestant
	for _, situation := range situations {
		for _, k := range kinds {
			all = append(all, &contestant{kind: k.name, name: names[k.name], durable: k.durable, deals: situation.deals})
		}
		all = append(all, &contestant{name: "Doorbuster", durable: "one sync for each group, before its answers", deals: situation.deals})
	}
	return all
}

func (s *session) run(ctx context.Context) (err error) {
	if err := s.validate(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "doorbuster-peers-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	if err := os.Chmod(s.dir, 0o711); err != nil { // PostgreSQL's user has a folder in it
		return err
	}
	if s.self, err = os.Executable(); err != nil {
		return err
	}
	if s.server, err = lab.Build(ctx, s.dir); err != nil {
		return err
	}
	if s.wrk, err = lab.NewWrk(s.dir, s.threads, s.connections, "/api/v1/orders"); err != nil {
		return err
	}
	all := contestants()
	for round := range s.rounds {
		for _, c := range all {
			load, err := s.round(ctx, c)
			if err != nil {
				return fmt.Errorf("%s, deals: %d: %w", c.name, c.deals, err)
			}
			c.loads = append(c.loads, load)
			fmt.Fprintf(s.out, "round %d  %4d deals  %-34s %8.0f orders/s  P50 %6.1f ms  P99 %6.1f ms\n",
				round+1, c.deals, c.name, load.Rate(), millis(load.P50), millis(load.P99))
		}
	}
	section := s.conditions() + table(all)
	fmt.Fprint(s.out, "\n", section)
	if s.page == "" {
		return nil
	}
	return s.write(section, all)
}

// round measures one server, fresh and warmed up.
func (s *session) round(ctx context.Context, c *contestant) (_ lab.Load, err error) {
	dir, err := os.MkdirTemp(s.dir, "r")
	if err != nil {
		return lab.Load{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := s.start(ctx, c, dir)
	if err != nil {
		return lab.Load{}, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if _, err := s.wrk.Run(ctx, p.Listen, c.deals, time.Duration(s.warmup)*time.Second); err != nil {
		return lab.Load{}, err
	}
	load, err := s.wrk.Run(ctx, p.Listen, c.deals, time.Duration(s.seconds)*time.Second)
	if err == nil && load.Late > 0 {
		err = fmt.Errorf("%d answers took longer than %v", load.Late, lab.WrkTimeout)
	}
	return load, err
}

func (s *session) start(ctx context.Context, c *contestant, dir string) (*lab.Process, error) {
	if c.kind != "" {
		return lab.Start(ctx, s.self, "shop", "--kind", c.kind, "--dir", dir, "--deals", strconv.Itoa(c.deals))
	}
	p, err := lab.Serve(ctx, s.server, filepath.Join(dir, "data"))
	if err != nil {
		return nil, err
	}
	orders := lab.Orders{Deals: c.deals, Prefix: "d-"}
	if err := orders.Create(ctx, client.Config{Addr: p.Listen}, rule); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// median returns the middle value of a figure over the rounds.
func (c *contestant) median(figure func(lab.Load) float64) float64 {
	values := make([]float64, len(c.loads))
	for i, l := range c.loads {
		values[i] = figure(l)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

func (c *contestant) rate() float64 { return c.median(lab.Load.Rate) }

// conditions says how the figures came about.
func (s *session) conditions() string {
	return fmt.Sprintf("## Beside what people would use instead\n`%s -- --rounds %d --seconds %d`: %d rounds of each server in turn, %d s each after %d s of warm-up, medians;\n"+
		"`%v` with `cmd/benchmark/lab/orders.lua` on the same machine, %s.\n"+
		"Every server starts fresh for its round, on an empty folder of the same disk. Doorbuster runs a rule (`%s`) for each order; the\n"+
		"others multiply. They stand behind the same fasthttp server, and reach their database over a Unix socket, with\n"+
		"pipelining (rueidis) or %d pooled connections (pgxpool). The code: `cmd/benchmark/peers`.\n\n",
		task, s.rounds, s.seconds, s.rounds, s.seconds, s.warmup, s.wrk, page.Machine(), rule, postgresConnections)
}

// table renders the medians; ours is the last of each situation.
func table(all []*contestant) string {
	var out strings.Builder
	out.WriteString("| | | orders/s (lowest - highest) | of Doorbuster's | P50 ms | P99 ms | durable when answered |\n|---|---|---|---|---|---|---|\n")
	for _, situation := range situations {
		mine := slices.DeleteFunc(slices.Clone(all), func(c *contestant) bool { return c.deals != situation.deals })
		ours := mine[len(mine)-1].rate()
		label := situation.label
		for _, c := range mine {
			low := slices.MinFunc(c.loads, byRate)
			high := slices.MaxFunc(c.loads, byRate)
			fmt.Fprintf(&out, "| %s | %s | %.0f (%.0f - %.0f) | %.2f | %.1f | %.1f | %s |\n", label, c.name,
				c.rate(), low.Rate(), high.Rate(), c.rate()/ours,
				c.median(func(l lab.Load) float64 { return millis(l.P50) }), c.median(func(l lab.Load) float64 { return millis(l.P99) }), c.durable)
			label = ""
		}
	}
	return out.String()
}

func byRate(a, b lab.Load) int { return int(a.Rate() - b.Rate()) }

// write puts the table and a plot of it into the page.
func (s *session) write(section string, all []*contestant) error {
	var groups []page.Group
	for _, situation := range situations {
		g := page.Group{Label: situation.label}
		for _, c := range all {
			if c.deals == situation.deals {
				g.Bars = append(g.Bars, page.Bar{Label: c.name, Value: c.rate(), Text: fmt.Sprintf("%.0f", c.rate())})
			}
		}
		groups = append(groups, g)
	}
	const title = "orders/s beside what people would use instead"
	svg, err := page.Bars(title, groups...)
	if err != nil {
		return err
	}
	plot, err := page.WritePlot(s.page, "peers", title, svg)
	if err != nil {
		return err
	}
	return page.WriteSection(s.page, task, section+plot)
}
