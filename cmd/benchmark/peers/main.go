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

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
)

const (
	task      = "go tool task peers"
	rule      = "tiered" // that prices Doorbuster's deals
	dealPrice = 9900
)

func main() { lab.Main(newCommand()) }

// session is one run of the comparison.
type session struct {
	lab.Turns
	page string

	out io.Writer
}

func newCommand() *cobra.Command {
	s := &session{Turns: lab.NewTurns(3, 5)}
	cmd := lab.Command("peers", "Measure the server beside what people would use instead", func(ctx context.Context, out io.Writer) error {
		s.out = out
		return s.run(ctx)
	})
	s.AddFlags(cmd)
	cmd.Flags().StringVar(&s.page, "page", "", "Markdown page that the table and the plot are written to")
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
			return lab.Answer(cmd.Context(), cmd.OutOrStdout(), "as "+name, func(l net.Listener) error { return serve(ctx, l, s) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "kind", "", "what keeps the orders")
	flags.StringVar(&dir, "dir", "", "an empty folder for it")
	flags.IntVar(&of.deals, "deals", 1, "deals d-0 …")
	return cmd
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
	if err := s.Validate(); err != nil {
		return err
	}
	end, err := s.Prepare(ctx)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return err
	}
	if err := os.Chmod(s.Dir, 0o711); err != nil { // PostgreSQL's user has a folder in it
		return err
	}
	all := contestants()
	for round := range s.Rounds {
		for _, c := range all {
			load, err := s.round(ctx, c)
			if err != nil {
				return fmt.Errorf("%s, deals: %d: %w", c.name, c.deals, err)
			}
			c.loads = append(c.loads, load)
			fmt.Fprintf(s.out, "round %d  %4d deals  %-34s %8.0f orders/s  P50 %6.1f ms  P99 %6.1f ms\n",
				round+1, c.deals, c.name, load.Rate(), page.Millis(load.P50), page.Millis(load.P99))
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
	dir, err := os.MkdirTemp(s.Dir, "r")
	if err != nil {
		return lab.Load{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := s.start(ctx, c, dir)
	if err != nil {
		return lab.Load{}, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err := s.WarmUp(ctx, p.Listen, c.deals); err != nil {
		return lab.Load{}, err
	}
	return s.Load(ctx, p.Listen, c.deals)
}

func (s *session) start(ctx context.Context, c *contestant, dir string) (*lab.Process, error) {
	if c.kind != "" {
		return lab.Start(ctx, s.Self, "shop", "--kind", c.kind, "--dir", dir, "--deals", strconv.Itoa(c.deals))
	}
	return lab.ServeDeals(ctx, s.Server, filepath.Join(dir, "data"), lab.Orders{Deals: c.deals, Prefix: "d-"}, rule)
}

// median returns the middle value of a figure over the rounds.
func (c *contestant) median(figure func(lab.Load) float64) float64 {
	values := make([]float64, len(c.loads))
	for i, l := range c.loads {
		values[i] = figure(l)
	}
	return page.Median(values)
}

func (c *contestant) rate() float64 { return c.median(lab.Load.Rate) }

// conditions says how the figures came about.
func (s *session) conditions() string {
	return fmt.Sprintf("## Beside what people would use instead\n`%s -- --rounds %d --seconds %d`: %d rounds of each server in turn, %d s each after %d s of warm-up, medians, of ratios too;\n"+
		"`%v` with `cmd/benchmark/lab/orders.lua` on the same machine, %s.\n"+
		"Every server starts fresh for its round, on an empty folder of the same disk. Doorbuster runs a rule (`%s`) for each order; the\n"+
		"others multiply. They stand behind the same fasthttp server, and reach their database over a Unix socket, with\n"+
		"pipelining (rueidis) or %d pooled connections (pgxpool). The code: `cmd/benchmark/peers`.\n\n",
		task, s.Rounds, s.Seconds, s.Rounds, s.Seconds, s.Warmup, s.Wrk, page.Machine(), rule, postgresConnections)
}

// table renders the medians; ours is the last of each situation.
func table(all []*contestant) string {
	var out strings.Builder
	out.WriteString("| | | orders/s (lowest - highest) | of Doorbuster's | P50 ms | P99 ms | durable when answered |\n|---|---|---|---|---|---|---|\n")
	for _, situation := range situations {
		mine := slices.DeleteFunc(slices.Clone(all), func(c *contestant) bool { return c.deals != situation.deals })
		ours := mine[len(mine)-1]
		label := situation.label
		for _, c := range mine {
			low := slices.MinFunc(c.loads, byRate)
			high := slices.MaxFunc(c.loads, byRate)
			fmt.Fprintf(&out, "| %s | %s | %.0f (%.0f - %.0f) | %.2f | %.1f | %.1f | %s |\n", label, c.name,
				c.rate(), low.Rate(), high.Rate(), c.share(ours),
				c.median(func(l lab.Load) float64 { return page.Millis(l.P50) }), c.median(func(l lab.Load) float64 { return page.Millis(l.P99) }), c.durable)
			label = ""
		}
	}
	return out.String()
}

// share is the median of the rounds' ratios: the machine's speed changes from round to round, and
// treats alike who follow one another.
func (c *contestant) share(of *contestant) float64 {
	each := make([]float64, len(c.loads))
	for i, l := range c.loads {
		each[i] = l.Rate() / of.loads[i].Rate()
	}
	return page.Median(each)
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
