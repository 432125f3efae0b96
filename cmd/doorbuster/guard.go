package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/runtime/guard"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// startGuard returns nil if there is to be none. The node closes it.
func (s *server) startGuard() (actors.Guard, error) {
	if s.cfg.StockGuard == "" {
		return nil, nil //nolint:nilnil // that is how a node knows that there is none
	}
	g, err := guard.New(guard.Config{
		URL: s.cfg.StockGuard, Strict: s.cfg.StockGuardStrict, Clock: s.clock, Logger: s.log.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.guard = g
	counter := func(name, help string, figure func(guard.Stats) uint64) {
		s.metrics.Counter("stock_guard_"+name, help, nil, func() float64 { return float64(figure(g.Stats())) })
	}
	counter("asked_total", "Writes that the stock guard judged.", func(st guard.Stats) uint64 { return st.Asked })
	counter("refused_total", "Writes that the stock guard refused.", func(st guard.Stats) uint64 { return st.Refused })
	counter("stepped_aside_total", "Writes that went on without the stock guard.", func(st guard.Stats) uint64 { return st.Aside })
	counter("held_total", "Writes that a strict stock guard refused because Redis did not answer.", func(st guard.Stats) uint64 { return st.Held })
	s.metrics.Gauge("stock_guard_up", "1 while the stock guard's Redis answers in time.", nil, func() float64 {
		if g.Stats().Up {
			return 1
		}
		return 0
	})
	return g, nil
}

func newGuard() *cobra.Command {
	cmd := &cobra.Command{Use: "guard", Short: "Work on what the stock guard's Redis knows"}
	reconcile := &cobra.Command{
		Use:   "reconcile",
		Short: "Tell Redis what the journal says of every deal, and nothing else",
		Long: `Tell Redis what the journal says of every deal, and nothing else: the epoch of its
owner, its newest event and what is left of its stock. No server may run on the journal.
Do it once you have decided that the journal is right, after a restore for example.`,
		Args: cobra.NoArgs,
	}
	s := addSettings(reconcile, "data", "postgres", "stock-guard")
	reconcile.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if cfg.StockGuard == "" {
			return errors.New("name the Redis with --stock-guard")
		}
		if err := mustExist(cfg); err != nil {
			return err
		}
		store, err := openOffline(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		return errors.Join(reconcileGuard(cmd.Context(), store, cfg.StockGuard, cmd.OutOrStdout()), store.Close())
	}
	cmd.AddCommand(reconcile)
	return cmd
}

// reconcileGuard leaves out, and names, the deals whose journal is damaged: they do not
// serve.
func reconcileGuard(ctx context.Context, store journal.Store, url string, out io.Writer) error {
	damaged := 0
	report, err := guard.Reconcile(ctx, url, dealStates(ctx, store, func(deal string, err error) {
		damaged++
		fmt.Fprintf(out, "%s: %v\n", deal, err)
	}))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %d new to Redis and %d changed; %d forgotten\n",
		count(report.Deals, "deal"), report.New, report.Changed, report.Dropped)
	if damaged > 0 {
		return fmt.Errorf("damaged: %s", count(damaged, "deal"))
	}
	return nil
}

// dealStates replays all deals. An error is the last.
func dealStates(ctx context.Context, store journal.Store, damaged func(deal string, err error)) iter.Seq2[guard.State, error] {
	return func(yield func(guard.State, error) bool) {
		err := store.Streams(ctx, "", func(stream string, head journal.Head) error {
			state, _, err := replay(ctx, store, stream, nil)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				damaged(stream, err)
				return nil
			}
			if !yield(guard.State{Deal: stream, Epoch: head.Epoch, Seq: head.Seq, Available: state.Available}, nil) {
				return journal.ErrStop
			}
			return nil
		})
		if err != nil {
			yield(guard.State{}, err)
		}
	}
}
