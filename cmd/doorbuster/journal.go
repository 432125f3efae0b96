package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

func newJournal() *cobra.Command {
	cmd := &cobra.Command{Use: "journal", Short: "Look at the journal of a server that is not running"}
	cmd.AddCommand(
		newVerify(),
		newEpochs(),
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
		_, err = endOrLeave(cmd.Context(), startGrace, "journal "+name, func(ctx context.Context) (struct{}, error) {
			store, err := openOffline(ctx, cfg)
			if err != nil {
				return struct{}{}, err
			}
			return struct{}{}, errors.Join(read(ctx, store, cmd.OutOrStdout()), store.Close())
		})
		return err
	}
	return cmd
}

func newVerify() *cobra.Command {
	asJSON := false
	cmd := offline("verify", "Read every event and every row, replay every deal and check its invariants; the log of a server that was killed is put in order first, as a start does",
		func(ctx context.Context, store journal.Store, out io.Writer) error {
			return verifyJournal(ctx, store, out, asJSON)
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// verified is what a journal holds, and what of it is damaged.
type verified struct {
	Deals     int      `json:"deals"`
	Events    int      `json:"events"`
	TakeOvers int      `json:"take_overs,omitempty"` // the events that opened epochs
	Rows      int      `json:"rows"`
	Damaged   []damage `json:"damaged"`

	found func(damage) // is told of each as it is found
}

// damage is a deal or a table that cannot be read to its end.
type damage struct {
	Deal   string `json:"deal,omitempty"`
	Events int    `json:"events_before"` // of the deal; those that could be applied
	Table  string `json:"table,omitempty"`
	Error  string `json:"error"`
}

func (d damage) String() string {
	switch {
	case d.Deal != "":
		return fmt.Sprintf("%s: after %s: %s", d.Deal, count(d.Events, "event"), d.Error)
	case d.Table != "":
		return "table " + d.Table + ": " + d.Error
	}
	return "tables: " + d.Error
}

func (v *verified) note(d damage) {
	v.Damaged = append(v.Damaged, d)
	v.found(d)
}

// verifyJournal replays all deals, reads all tables and reports those that are damaged.
func verifyJournal(ctx context.Context, store journal.Store, out io.Writer, asJSON bool) error {
	v := verified{Damaged: []damage{}, found: func(d damage) { fmt.Fprintln(out, d) }}
	if asJSON {
		v.found = func(damage) {}
	}
	if err := v.deals(ctx, store); err != nil {
		return err
	}
	if err := v.tables(ctx, store.Tables()); err != nil {
		return err
	}
	if asJSON {
		if err := json.NewEncoder(out).Encode(&v); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%s, %s, ", count(v.Deals, "deal"), count(v.Events, "event"))
		if v.TakeOvers > 0 {
			fmt.Fprintf(out, "%s, ", count(v.TakeOvers, "take-over"))
		}
		fmt.Fprintf(out, "%s, %d damaged\n", count(v.Rows, "row"), len(v.Damaged))
	}
	if len(v.Damaged) > 0 {
		return fmt.Errorf("the journal is damaged in %s", count(len(v.Damaged), "place"))
	}
	return nil
}

func (v *verified) deals(ctx context.Context, store journal.Store) error {
	return store.Streams(ctx, "", func(stream string, _ journal.Head) error {
		owners, unread := journal.ReadOwners(ctx, store, stream)
		_, n, err := replay(ctx, store, stream, owners)
		err = errors.Join(unread, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			v.note(damage{Deal: stream, Events: n, Error: err.Error()})
		}
		v.Deals++
		v.Events += n
		v.TakeOvers += len(owners)
		return nil
	})
}

// tables reads every row: what a row means is for its owner to say, but a server does
// not start without its rules and keys.
func (v *verified) tables(ctx context.Context, tables journal.Tables) error {
	names, err := tables.Names(ctx)
	if err != nil && ctx.Err() == nil {
		v.note(damage{Error: err.Error()})
	}
	for _, name := range names {
		err := tables.Scan(ctx, name, "", "", func(string, []byte) error {
			v.Rows++
			return nil
		})
		if err != nil && ctx.Err() == nil {
			v.note(damage{Table: name, Error: err.Error()})
		}
	}
	return ctx.Err()
}

// replay applies all events of one deal to an empty state, which checks the
// invariants after each, and returns the state and how many it could. Each must be of the
// epoch that was the newest when it was appended, as far as the owners are known.
func replay(ctx context.Context, store journal.Store, stream string, owners journal.Owners) (state *deal.State, n int, err error) {
	state = deal.NewState()
	var event deal.Event
	err = store.Read(ctx, stream, 0, func(e journal.Event) error {
		event.Reset()
		if err := event.Decode(e.Data); err != nil {
			return err
		}
		event.Seq = e.Seq
		if _, _, err := owners.Of(e); err != nil {
			return err
		}
		if err := state.Apply(&event); err != nil {
			return err
		}
		n++
		return nil
	})
	return state, n, err
}

func newEpochs() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "epochs DEAL",
		Short: "Show who owned a deal of a journal on PostgreSQL, since when and from which event on",
		Long: `Show who owned a deal of a journal on PostgreSQL, since when and from which event on:
the events that opened its epochs. It only reads, and may run beside the nodes of a cluster.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	s := addSettings(cmd, "postgres")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if len(cfg.Postgres) == 0 {
			return errors.New("name the server with --postgres: a journal in a data folder has one owner, the server that has the folder")
		}
		store, err := openShared(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		return errors.Join(showEpochs(cmd.Context(), store, args[0], cmd.OutOrStdout(), asJSON), store.Close())
	}
	return cmd
}

// opening is what epochs shows of a journal.Opening.
type opening struct {
	Epoch uint64    `json:"epoch"`
	First uint64    `json:"first_event"`
	By    string    `json:"opened_by"`
	At    time.Time `json:"opened_at"`
}

func showEpochs(ctx context.Context, store journal.Store, stream string, out io.Writer, asJSON bool) error {
	if _, err := store.Head(ctx, stream); err != nil {
		return fmt.Errorf("deal %s: %w", stream, err)
	}
	owners, err := journal.ReadOwners(ctx, store, stream)
	if err != nil {
		return err
	}
	shown := make([]opening, len(owners))
	for i, o := range owners {
		shown[i] = opening{o.Epoch, o.First, o.By, o.At.UTC()}
	}
	if asJSON {
		return json.NewEncoder(out).Encode(shown)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "EPOCH\tFROM EVENT\tOPENED AT\tBY")
	for _, o := range shown {
		fmt.Fprintf(table, "%d\t%d\t%s\t%s\n", o.Epoch, o.First, o.At.Format("2006-01-02 15:04:05.000000"), o.By)
	}
	return table.Flush()
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
	if samePlace(source, destination) {
		return errors.New("--from and --to are the same journal")
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
	fmt.Fprintf(out, "%s, %s, %s, %s copied and compared\n",
		count(copied.Streams, "deal"), count(copied.Events, "event"), count(copied.Snapshots, "snapshot"), count(copied.Rows, "row"))
	return err
}

// samePlace says whether two journals are in one folder, whatever it is called. Two
// addresses of one PostgreSQL server are told apart by nobody but its lock.
func samePlace(a, b config.Config) bool {
	if len(a.Postgres)+len(b.Postgres) > 0 {
		return false
	}
	there, err := os.Stat(a.Data)
	if err != nil {
		return false
	}
	other, err := os.Stat(b.Data)
	return err == nil && os.SameFile(there, other)
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
