// Command rules measures what running a rule costs.
//
// The same rule, tiered, is run by the engine and by what people would use instead,
// in turns, in one process. Then the server sells orders with three rules and with
// none, in turns too; a module is uploaded until it prices an order; and a thousand
// versions are loaded to see what memory they take.
//
// The contestants bring dependencies that the engine does not want in its module, so
// that this is a module of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/sdk/toolchain"
)

const task = "go tool task bench:rules"

func main() { lab.Main(newCommand()) }

// session is one run of it all.
type session struct {
	rounds, orderRounds, seconds, warmup, uploads int

	slice time.Duration // of one contestant's turn
	root  string        // of the engine's module
	page  string        // that the section is written to, from root; "" = none

	out io.Writer
	dir string // scratch
}

func newCommand() *cobra.Command {
	s := &session{}
	cmd := lab.Command("rules", "Measure what running a rule costs", func(ctx context.Context, out io.Writer) error {
		s.out = out
		return s.run(ctx)
	})
	flags := cmd.Flags()
	flags.IntVar(&s.rounds, "rounds", 15, "rounds of each contestant")
	flags.DurationVar(&s.slice, "slice", 100*time.Millisecond, "length of a contestant's round")
	flags.IntVar(&s.orderRounds, "order-rounds", 5, "rounds of the server with three rules and with none; 0 leaves them out")
	flags.IntVar(&s.seconds, "seconds", 3, "seconds of a round of the server")
	flags.IntVar(&s.warmup, "warmup", 1, "seconds before such a round that do not count")
	flags.IntVar(&s.uploads, "uploads", 20, "modules to upload; 0 leaves them out, and the memory of a thousand")
	flags.StringVar(&s.root, "root", "../../..", "the engine's folder")
	flags.StringVar(&s.page, "page", "", "Markdown page that the section is written to, from the engine's folder")
	return cmd
}

func (s *session) validate() error {
	if s.rounds < 1 || s.slice <= 0 || s.orderRounds < 0 || s.seconds < 1 || s.warmup < 1 || s.uploads < 0 {
		return errors.New("--rounds, --slice, --seconds and --warmup must be above 0, --order-rounds and --uploads not below")
	}
	return nil
}

func (s *session) run(ctx context.Context) (err error) {
	if err := s.validate(); err != nil {
		return err
	}
	// The server is built, and its tests run, with the engine's own dependencies.
	if err := os.Chdir(s.root); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "doorbuster-rules-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	busy := page.LoadAverage()
	all := contestants()
	defer func() { err = errors.Join(err, closeAll(all)) }()
	for _, c := range all {
		if err := s.prepare(ctx, c); err != nil {
			return err
		}
	}
	if err := s.takeTurns(ctx, all); err != nil {
		return err
	}
	section := s.conditions(busy) + evaluations(all)
	fmt.Fprint(s.out, section)
	served, err := s.serve(ctx)
	if err != nil {
		return err
	}
	section += served
	fmt.Fprint(s.out, served)
	return page.WriteSection(s.page, task, section)
}

// prepare builds and opens a contestant, and checks that it knows the rule. That its
// compiler is missing is a line in the table.
func (s *session) prepare(ctx context.Context, c *contestant) error {
	wasm := ""
	if c.guest != "" {
		wasm = filepath.Join(s.dir, c.language+filepath.Base(c.guest)+".wasm")
		if c.missing = s.build(ctx, c.guest, wasm); errors.Is(c.missing, toolchain.ErrMissing) {
			return nil
		} else if c.missing != nil {
			return fmt.Errorf("%s, %s: %w", c.name, c.language, c.missing)
		}
	}
	var err error
	if c.pricer, err = c.open(ctx, wasm); err != nil {
		return fmt.Errorf("%s, %s: %w", c.name, c.language, err)
	}
	if err := check(ctx, c.pricer); err != nil {
		return fmt.Errorf("%s, %s: %w", c.name, c.language, err)
	}
	return s.calibrate(ctx, c)
}

// asc is where the AssemblyScript kit has its compiler, from examples/rules.
const asc = "../../plugins/sdk/assemblyscript/node_modules/assemblyscript/dist/asc.js"

func (s *session) build(ctx context.Context, source, wasm string) error {
	switch source {
	case inAssemblyScript:
		if _, err := os.Stat(filepath.Join("examples/rules", asc)); err != nil {
			return fmt.Errorf("%w: AssemblyScript (npm ci, in plugins/sdk/assemblyscript)", toolchain.ErrMissing)
		}
		cmd := exec.CommandContext(ctx, "node", "assemblyscript/build.mjs", asc, s.dir, "tiered.ts")
		cmd.Dir = "examples/rules"
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("asc: %w\n%s", err, out)
		}
		return os.Rename(filepath.Join(s.dir, "tiered.wasm"), wasm)
	default:
		return toolchain.Build(ctx, source, wasm)
	}
}

// order is what is priced: three units, with a code.
var order = abi.Input{
	Now: 1_790_000_000_123, UnitPrice: 9900, Subtotal: 3 * 9900, Quantity: 3, Stock: 1_000_000, Available: 999_000,
	StartsAt: 1_789_999_000_000, Currency: [3]byte{'C', 'N', 'Y'}, DealID: []byte("d-0"), UserID: []byte("u-12345"), Codes: [][]byte{[]byte("VIP")},
}

// check has each tier of the rule priced.
func check(ctx context.Context, p pricer) error {
	for _, tier := range []struct {
		quantity      uint32
		discount      int64
		label, reason string
	}{{1, 989, "10% off from 1", "tier_1"}, {3, 4454, "15% off from 3", "tier_3"}, {5, 9898, "20% off from 5", "tier_5"}} {
		in := order
		in.UnitPrice, in.Quantity = 9899, tier.quantity
		in.Subtotal = 9899 * int64(tier.quantity)
		in.DiscountSoFar = int64(tier.quantity) - 1
		var out abi.Verdict
		if err := p.price(ctx, &in, &out); err != nil {
			return err
		}
		if out.Outcome != abi.OutcomeDiscount || out.Discount != tier.discount || string(out.Label) != tier.label || string(out.Reason) != tier.reason {
			return fmt.Errorf("%d units: %s %d %q %q, want a discount of %d", tier.quantity, out.Outcome, out.Discount, out.Label, out.Reason, tier.discount)
		}
	}
	return nil
}

// calibrate finds how many evaluations fill a slice.
func (s *session) calibrate(ctx context.Context, c *contestant) error {
	for c.batch = 1; ; c.batch *= 2 {
		took, err := c.turn(ctx)
		if err != nil {
			return err
		}
		if took >= s.slice/2 {
			return nil
		}
	}
}

// turn prices one batch.
func (c *contestant) turn(ctx context.Context) (time.Duration, error) {
	var out abi.Verdict
	start := clockd.Mono()
	for range c.batch {
		if err := c.pricer.price(ctx, &order, &out); err != nil {
			return 0, fmt.Errorf("%s, %s: %w", c.name, c.language, err)
		}
	}
	return time.Duration(clockd.Mono() - start), nil
}

func (s *session) takeTurns(ctx context.Context, all []*contestant) error {
	for range s.rounds {
		for _, c := range all {
			if c.missing != nil {
				continue
			}
			before := mallocs()
			took, err := c.turn(ctx)
			if err != nil {
				return err
			}
			n := float64(c.batch)
			c.rounds = append(c.rounds, figures{float64(took) / n, float64(mallocs()-before) / n})
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func closeAll(all []*contestant) error {
	var errs []error
	for _, c := range all {
		if c.pricer != nil {
			errs = append(errs, c.pricer.close())
		}
	}
	return errors.Join(errs...)
}
