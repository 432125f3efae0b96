package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

func newJournal() *cobra.Command {
	cmd := &cobra.Command{Use: "journal", Short: "Look at the journal of a server that is not running"}
	cmd.AddCommand(
		offline("verify", "Read every event and every row, replay every deal and check its invariants", verifyJournal),
		newJournalCopy(),
		newReprice(),
	)
	return cmd
}

// offline makes a command that reads all of a journal.
func offline(name, short string, read func(context.Context, journal.Store, io.Writer) error) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs}
	s := addSettings(cmd, "data", "postgres")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if err := mustExist(cfg); err != nil {
			return err
		}
		store, err := openOffline(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		return errors.Join(read(cmd.Context(), store, cmd.OutOrStdout()), store.Close())
	}
	return cmd
}

// verifyJournal replays all deals, reads all tables and reports those that are damaged.
func verifyJournal(ctx context.Context, store journal.Store, out io.Writer) error {
	var deals, events, bad int
	err := store.Streams(ctx, "", func(stream string, _ journal.Head) error {
		_, n, err := replay(ctx, store, stream)
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
	rows, badTables, err := verifyTables(ctx, store.Tables(), out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d deals, %d events, %d rows, %d damaged\n", deals, events, rows, bad+badTables)
	if bad+badTables > 0 {
		return fmt.Errorf("%d of %d deals are damaged, and %d tables", bad, deals, badTables)
	}
	return nil
}

// verifyTables reads every row: what a row means is for its owner to say, but a
// server does not start without its rules and keys.
func verifyTables(ctx context.Context, tables journal.Tables, out io.Writer) (rows, bad int, err error) {
	report := func(what string, err error) error {
		if err != nil && ctx.Err() == nil {
			bad++
			fmt.Fprintf(out, "%s: %v\n", what, err)
		}
		return ctx.Err()
	}
	names, err := tables.Names(ctx)
	if err := report("tables", err); err != nil {
		return rows, bad, err
	}
	for _, name := range names {
		err := tables.Scan(ctx, name, "", "", func(string, []byte) error {
			rows++
			return nil
		})
		if err := report("table "+name, err); err != nil {
			return rows, bad, err
		}
	}
	return rows, bad, nil
}

// replay applies all events of one deal to an empty state, which checks the
// invariants after each, and returns the state and how many it could.
func replay(ctx context.Context, store journal.Store, stream string) (state *deal.State, n int, err error) {
	state = deal.NewState()
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
	return state, n, err
}

func newJournalCopy() *cobra.Command {
	var from, to []string
	cmd := &cobra.Command{
		Use:   "copy",
		Short: "Copy a journal to another store, and compare them event by event",
		Long: `Copy a journal to another store, and compare them event by event. Stores are named
embedded:FOLDER or postgres://…, which may be given several times for a journal on
several servers; no node may run on either. A copy that was cut short is finished by
the same command.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringArrayVar(&from, "from", nil, "the journal to copy")
	cmd.Flags().StringArrayVar(&to, "to", nil, "where to; a schema is made if there is none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return copyJournal(cmd.Context(), from, to, cmd.OutOrStdout())
	}
	return cmd
}

func copyJournal(ctx context.Context, from, to []string, out io.Writer) (err error) {
	source, err := place(from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	destination, err := place(to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	if err := mustExist(source); err != nil {
		return err
	}
	a, err := openOffline(ctx, source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	destination.Migrate = len(destination.Postgres) > 0
	b, err := openOffline(ctx, destination)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	copied, err := journal.Copy(ctx, a, b, nil)
	fmt.Fprintf(out, "%d deals, %d events, %d snapshots, %d rows copied and compared\n",
		copied.Streams, copied.Events, copied.Snapshots, copied.Rows)
	return err
}

// place is the configuration of a journal as journal copy names it.
func place(names []string) (config.Config, error) {
	cfg := config.Default()
	if folder, ok := strings.CutPrefix(strings.Join(names, " "), "embedded:"); ok && folder != "" && len(names) == 1 {
		cfg.Data = folder
		return cfg, nil
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "postgres://") && !strings.HasPrefix(name, "postgresql://") {
			return cfg, fmt.Errorf("%q is neither embedded:FOLDER nor postgres://…", name)
		}
	}
	if cfg.Postgres = names; len(names) == 0 {
		return cfg, errors.New("name a journal")
	}
	return cfg, nil
}
