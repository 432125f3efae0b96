package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/reprice"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

func newReprice() *cobra.Command {
	interpreter := false
	cmd := offline("reprice", "Price every order again from its event, and report what is not as it was",
		func(ctx context.Context, store journal.Store, out io.Writer) error {
			return repriceJournal(ctx, store, interpreter, out)
		})
	cmd.Flags().BoolVar(&interpreter, "interpreter", false, "interpret rules, in the place of the compiler that orders were priced with; much slower")
	return cmd
}

// repriceJournal prices the orders of all deals again and reports those that
// come out otherwise.
func repriceJournal(ctx context.Context, store journal.Store, interpreter bool, out io.Writer) error {
	cfg := plugins.Config{
		Tables: unchanged{store.Tables()},
		Now:    func() int64 { return 0 }, // of changes, and there are none
	}
	cfg.Host.Interpreter = interpreter
	rules, err := plugins.New(ctx, cfg)
	if err != nil {
		return err
	}
	r := &repricing{store: store, rules: rules, out: out}
	err = store.Streams(ctx, "", func(stream string, _ journal.Head) error { return r.stream(ctx, stream) })
	if err = errors.Join(err, rules.Close()); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %d damaged, %s, %s, %s", count(r.deals, "deal"), r.damaged, count(r.orders, "order"), count(r.evaluations, "evaluation"), count(r.differences, "difference"))
	if r.different > 0 {
		fmt.Fprintf(out, " in %s", count(r.different, "order"))
	}
	fmt.Fprintln(out)
	if r.different > 0 || r.damaged > 0 {
		return fmt.Errorf("not priced as they were: %d of %s; damaged: %d of %s", r.different, count(r.orders, "order"), r.damaged, count(r.deals, "deal"))
	}
	return nil
}

// unchanged drops writes. The registry writes when this release has other house
// rules than the journal knows; a command that only looks leaves that to a server.
type unchanged struct{ journal.Tables }

// Apply implements journal.Tables.
func (unchanged) Apply(context.Context, []journal.Mutation, bool) error { return nil }

// ApplyIf implements journal.Tables.
func (unchanged) ApplyIf(context.Context, []journal.Expectation, []journal.Mutation, bool) error {
	return nil
}

// repricing is how far repriceJournal has come.
type repricing struct {
	store journal.Store
	rules *plugins.Registry
	out   io.Writer

	deals, damaged      int
	orders, evaluations int
	differences         int
	different           int // orders with differences
}

// stream prices the orders of one deal again. Damage ends it, and is reported.
func (r *repricing) stream(ctx context.Context, stream string) error {
	var event deal.Event
	var spec *deal.Spec
	r.deals++
	err := r.store.Read(ctx, stream, 0, func(e journal.Event) error {
		if err := event.Decode(e.Data); err != nil {
			return fmt.Errorf("event %d: %w", e.Seq, err)
		}
		event.Seq = e.Seq
		switch {
		case event.Kind == deal.DealCreated:
			spec = event.Spec
		case event.Kind != deal.OrderPlaced:
		case spec == nil:
			return fmt.Errorf("event %d: %w: an order before its deal", e.Seq, deal.ErrMalformed)
		default:
			return r.order(ctx, spec, &event)
		}
		return nil
	})
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	r.damaged++
	fmt.Fprintf(r.out, "%s: %v\n", stream, err)
	return nil
}

func (r *repricing) order(ctx context.Context, spec *deal.Spec, e *deal.Event) error {
	again, err := reprice.Verify(ctx, r.rules, spec, e)
	if err != nil {
		return err
	}
	r.orders++
	r.evaluations += len(again.Rules)
	if again.Same() {
		return nil
	}
	r.different++
	id := deal.AppendOrderID(nil, spec.ID, e.Seq)
	for i, a := range again.Rules {
		v := &e.Placed.Evaluations[i]
		for _, d := range a.Differences {
			fmt.Fprintf(r.out, "%s: %s v%d: %s\n", id, v.Rule, v.Version, d)
		}
		r.differences += len(a.Differences)
	}
	for _, d := range again.Differences {
		fmt.Fprintf(r.out, "%s: %s\n", id, d)
	}
	r.differences += len(again.Differences)
	return nil
}
