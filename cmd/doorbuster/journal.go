package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
)

func newJournal() *cobra.Command {
	cmd := &cobra.Command{Use: "journal", Short: "Look at the journal of a server that is not running"}
	cmd.AddCommand(
		offline("verify", "Read every event, replay every deal and check its invariants", verifyJournal),
		offline("reprice", "Price every order again from its event, and report what is not as it was", repriceJournal),
	)
	return cmd
}

// offline makes a command that reads all of a journal.
func offline(name, short string, read func(context.Context, journal.Store, io.Writer) error) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs}
	s := addSettings(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if _, err := os.Stat(cfg.Data); err != nil {
			return fmt.Errorf("data folder: %w", err) // opening would make an empty one
		}
		store, err := openOffline(cfg.Data)
		if err != nil {
			return err
		}
		return errors.Join(read(cmd.Context(), store, cmd.OutOrStdout()), store.Close())
	}
	return cmd
}

// openOffline opens the journal for a command instead of a server.
func openOffline(dir string) (*embedded.Store, error) {
	present, err := clockd.New(clockd.Config{})
	if err != nil {
		return nil, err
	}
	return openStore(dir, present, slog.New(slog.DiscardHandler))
}

// verifyJournal replays all deals and reports those that are damaged.
func verifyJournal(ctx context.Context, store journal.Store, out io.Writer) error {
	var deals, events, bad int
	err := store.Streams(ctx, "", func(stream string, _ journal.Head) error {
		n, err := replay(ctx, store, stream)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			bad++
			fmt.Fprintf(out, "%s: after %d events: %v\n", stream, n, err)
		}
		deals++
		events += n
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d deals, %d events, %d damaged\n", deals, events, bad)
	if bad > 0 {
		return fmt.Errorf("%d of %d deals are damaged", bad, deals)
	}
	return nil
}

// replay applies all events of one deal to an empty state, which checks the
// invariants after each, and returns how many it could.
func replay(ctx context.Context, store journal.Store, stream string) (n int, err error) {
	state := deal.NewState()
	var event deal.Event
	err = store.Read(ctx, stream, 0, func(e journal.Event) error {
		event.Reset()
		if err := event.Decode(e.Data); err != nil {
			return err
		}
		event.Seq = e.Seq
		if err := state.Apply(&event); err != nil {
			return err
		}
		n++
		return nil
	})
	return n, err
}
