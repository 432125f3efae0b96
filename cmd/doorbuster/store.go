package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
)

// openStore opens the journal that the configuration names, for this process alone
// unless it is a node of a cluster.
func openStore(ctx context.Context, cfg config.Config, present *clockd.Clock, log *slog.Logger) (journal.Store, error) {
	if cfg.Postgres == "" {
		store, err := openEmbedded(cfg.Data, present, log)
		if err != nil {
			return nil, err // not a nil of its type
		}
		return store, nil
	}
	if cfg.Migrate {
		before, after, err := postgres.Migrate(ctx, cfg.Postgres)
		if err != nil {
			return nil, err
		}
		if before != after {
			log.Info("schema migrated", "from", before, "to", after)
		}
	}
	store, err := postgres.Open(ctx, postgres.Config{URL: cfg.Postgres, Clock: present, Log: log, Exclusive: !cfg.Cluster})
	if err != nil {
		return nil, err
	}
	return store, nil
}

// openEmbedded opens the journal in a data folder.
func openEmbedded(dir string, present *clockd.Clock, log *slog.Logger) (*embedded.Store, error) {
	return embedded.Open(embedded.Config{
		Dir:   dir,
		Now:   clockd.Mono,
		Wall:  func() int64 { return present.Now().Wall },
		Fatal: fatal,
		Log:   log,
	})
}

// openOffline opens the journal for a command instead of a server.
func openOffline(ctx context.Context, cfg config.Config) (journal.Store, error) {
	present, err := clockd.New(clockd.Config{})
	if err != nil {
		return nil, err
	}
	cfg.Cluster = false // no command works beside nodes
	return openStore(ctx, cfg, present, slog.New(slog.DiscardHandler))
}

// inUse says whether an error of openOffline means that a server runs on the journal.
func inUse(err error) bool {
	return errors.As(err, new(*embedded.LockedError)) || errors.Is(err, postgres.ErrInUse)
}

// mustExist keeps a command from making an empty journal by opening it.
func mustExist(cfg config.Config) error {
	if cfg.Postgres != "" {
		return nil
	}
	if _, err := os.Stat(cfg.Data); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return nil
}

// journalPlace says where the journal is, without secrets.
func journalPlace(cfg config.Config) string {
	if cfg.Postgres == "" {
		data, err := filepath.Abs(cfg.Data)
		if err != nil {
			data = cfg.Data
		}
		return "data in " + data
	}
	if u, err := url.Parse(cfg.Postgres); err == nil && u.Host != "" {
		return fmt.Sprintf("journal on PostgreSQL at %s%s", u.Host, u.Path)
	}
	return "journal on PostgreSQL"
}

func newMigrate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the schema of a journal on PostgreSQL up to date",
		Long: `Bring the schema of a journal on PostgreSQL up to date. It is safe while servers
run, also those of the version before: each migration leaves the tables usable to it.`,
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, "postgres")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if cfg.Postgres == "" {
			return errors.New("name the server with --postgres")
		}
		before, after, err := postgres.Migrate(cmd.Context(), cfg.Postgres)
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "schema version %d, was %d\n", after, before)
		}
		return err
	}
	return cmd
}
