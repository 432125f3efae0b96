// Command benchmark measures the server against a constant reply.
//
// Three servers take turns, so that whatever else the machine does meets all of
// them alike: A answers every order with the same 120 bytes through the same
// fasthttp configuration and does nothing else; B is the product, durable, with a
// rule on its one hot deal; C is the product with a thousand such deals. What is
// reported is the median of the rounds, and for what a contestant reaches of A the median
// of the rounds' ratios. A server starts fresh for its round, on an
// empty folder, and is warmed up before anything counts.
//
// Afterwards a server is loaded with orders, killed, and started again: the time
// that takes is the recovery time.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway"
)

const (
	hotDeals  = 1
	manyDeals = 1000
	rule      = "tiered" // of each deal
	task      = "go tool task bench"
)

func main() { lab.Main(newCommand()) }

// bench is one session.
type bench struct {
	lab.Turns
	recovery int // orders

	page     string   // that the table is written to; "" = none
	gate     string   // the recorded ratios that these are held against; "" = none
	before   recorded // what gate holds
	recordTo string   // that the ratios are written to; "" = none
	profiles string   // folder for the product's CPU profiles; "" = none

	out io.Writer
}

// contestant is one of the servers that take turns.
type contestant struct {
	name  string
	deals int // 0 for the constant reply
}

var contestants = []contestant{
	{name: "A: constant reply"},
	{name: "B: one hot deal", deals: hotDeals},
	{name: "C: 1,000 deals", deals: manyDeals},
}

func newCommand() *cobra.Command {
	b := &bench{Turns: lab.NewTurns(5, 10)}
	cmd := lab.Command("benchmark", "Measure the server against a constant reply", func(ctx context.Context, out io.Writer) error {
		b.out = out
		return b.run(ctx)
	})
	b.AddFlags(cmd)
	flags := cmd.Flags()
	flags.IntVar(&b.recovery, "recovery", 1_000_000, "orders to recover; 0 leaves that part out")
	flags.StringVar(&b.page, "page", "", "Markdown page that the table is written to")
	flags.StringVar(&b.gate, "gate", "", "file of recorded ratios; fail if these are worse beyond the noise")
	flags.StringVar(&b.profiles, "profiles", "", "folder that a CPU profile of each round of the product is written to")
	flags.StringVar(&b.recordTo, "record", "", "file that the ratios are written to")
	cmd.AddCommand(lab.ConstantCommand(gateway.ServeConstant))
	return cmd
}

func (b *bench) validate() error {
	if b.recovery < 0 {
		return errors.New("--recovery must be at least 0")
	}
	if kept := b.page != "" || b.recordTo != "" || b.gate != ""; kept && b.Rounds < roundsLeast {
		return fmt.Errorf("--page, --record and --gate need --rounds of at least %d: fewer do not say how uncertain their median is", roundsLeast)
	}
	return b.Validate()
}

func (b *bench) run(ctx context.Context) (err error) {
	if err := errors.Join(b.validate(), b.readRecorded()); err != nil {
		return err
	}
	end, err := b.Prepare(ctx)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return err
	}
	results, err := b.compare(ctx)
	if err != nil {
		return err
	}
	recovery := ""
	if b.recovery > 0 {
		if recovery, err = b.recover(ctx); err != nil {
			return err
		}
	}
	return b.publish(results, recovery)
}

// publish shows the results, and writes and judges them as the flags say.
func (b *bench) publish(results []result, recovery string) error {
	section := b.conditions() + table(results)
	if recovery != "" {
		section += "\n" + recovery
	}
	fmt.Fprint(b.out, "\n", section)
	return errors.Join(page.WriteSection(b.page, task, section), b.judge(results))
}

// compare lets the contestants take turns.
func (b *bench) compare(ctx context.Context) ([]result, error) {
	results := make([]result, len(contestants))
	for round := range b.Rounds {
		for i, c := range contestants {
			s, err := b.round(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			results[i].name = c.name
			results[i].samples = append(results[i].samples, s)
			fmt.Fprintf(b.out, "round %d  %-18s %8.0f orders/s  P50 %6.1f ms  P99 %6.1f ms  %5.1f µs CPU/order\n",
				round+1, c.name, s.rate(), s.p50(), s.p99(), s.cpuMicros())
		}
	}
	return results, nil
}

// round measures one contestant, fresh and warmed up.
func (b *bench) round(ctx context.Context, c contestant) (s sample, err error) {
	p, data, err := b.start(ctx, c)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, p.Stop(), os.RemoveAll(data)) }()
	deals := max(1, c.deals)
	if err := b.WarmUp(ctx, p.Listen, deals); err != nil {
		return sample{}, err
	}
	before, err := p.Usage(ctx)
	if err != nil {
		return sample{}, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(ctx, p, c.deals) }()
	s.load, err = b.Load(ctx, p.Listen, deals)
	if err := errors.Join(err, <-profiled); err != nil {
		return sample{}, err
	}
	after, err := p.Usage(ctx)
	s.usage = after.Minus(before)
	return s, err
}

// profile takes a CPU profile of a round of the product, if it is asked for.
func (b *bench) profile(ctx context.Context, p *lab.Process, deals int) error {
	if b.profiles == "" || deals == 0 {
		return nil
	}
	return p.Profile(ctx, filepath.Join(b.profiles, fmt.Sprintf("%d-deals.pprof", deals)), b.Seconds)
}

// start starts a contestant with its deals; the folder is its journal.
func (b *bench) start(ctx context.Context, c contestant) (p *lab.Process, data string, err error) {
	if c.deals == 0 {
		p, err = lab.Start(ctx, b.Self, "constant")
		return p, "", err
	}
	if data, err = os.MkdirTemp(b.Dir, "data-"); err != nil {
		return nil, "", err
	}
	p, err = lab.ServeDeals(ctx, b.Server, data, lab.Orders{Deals: c.deals, Prefix: "d-"}, rule)
	return p, data, err
}

// recover loads the hot deal, kills the server and times its next start until
// it says that it serves.
func (b *bench) recover(ctx context.Context) (line string, err error) {
	p, data, err := b.start(ctx, contestant{deals: hotDeals})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	orders := 0
	for orders < b.recovery {
		l, err := b.Load(ctx, p.Listen, hotDeals)
		if err != nil {
			return "", errors.Join(err, p.Stop())
		}
		orders += l.Requests
	}
	p.Kill()
	begin := clockd.Mono()
	if p, err = lab.Serve(ctx, b.Server, data); err != nil {
		return "", err
	}
	took := time.Duration(clockd.Mono() - begin)
	return fmt.Sprintf("Recovery after kill -9: %d orders in %.2f s, process start included (`%s`).\n",
		orders, took.Seconds(), strings.ReplaceAll(p.Banner, data, "…")), p.Stop()
}

// conditions says how the figures came about.
func (b *bench) conditions() string {
	interval := ""
	if b.Rounds >= roundsLeast {
		interval = ", with the half of its 95 % interval"
	}
	return fmt.Sprintf(``+"`go tool task bench -- --rounds %d --seconds %d`"+`: %d rounds of A B C in turn, %d s each after %d s of
warm-up, medians; `+"`%v`"+` on the same machine, %s. "Of A" is the median of
the rounds' ratios%s: it is not the quotient of the medians beside it.
A: the same fasthttp server with a constant 120-byte reply. B and C: durable (one sync for each group before any
answer), rule %s attached.

`, b.Rounds, b.Seconds, b.Rounds, b.Seconds, b.Warmup, b.Wrk, page.Machine(), interval, "`"+rule+"`")
}
