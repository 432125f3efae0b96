package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/actors"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/embedded"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
	"github.com/doorbuster/doorbuster/runtime/journal/sharded"
)

// openStore opens the journal that the configuration names, for this process alone
// unless it is a node of a cluster.
func openStore(ctx context.Context, cfg config.Config, present *clockd.Clock, log *slog.Logger) (journal.Store, error) {
	if len(cfg.Postgres) == 0 {
		store, err := openEmbedded(cfg.Data, present, log)
		if err != nil {
			return nil, err // not a nil of its type
		}
		return store, nil
	}
	if cfg.Migrate {
		err := migrate(ctx, cfg.Postgres, func(before, after int) {
			if before != after {
				log.Info("schema migrated", "from", before, "to", after)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	servers, err := postgres.OpenAll(ctx, postgres.Config{Clock: present, Log: log, Name: cfg.Advertise, Exclusive: !cfg.Cluster, Ready: cfg.Cluster && cfg.Advertise != ""}, cfg.Postgres)
	if err != nil {
		return nil, err
	}
	if len(servers) == 1 {
		return servers[0], nil
	}
	shards := make([]journal.Store, len(servers))
	for i, server := range servers {
		shards[i] = server
	}
	return sharded.New(shards, actors.Beside), nil
}

// migrate brings the schemas of all servers up to date and tells their versions.
func migrate(ctx context.Context, servers []string, told func(before, after int)) error {
	for i, url := range servers {
		before, after, err := postgres.Migrate(ctx, url)
		if err != nil {
			return fmt.Errorf("server %d of %d: %w", i+1, len(servers), err)
		}
		told(before, after)
	}
	return nil
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

// hurry lets the journal give up what it still tries, after a while: the process ends, and
// nobody waits for it any more.
func (s *server) hurry() (stop func()) {
	patient, ok := s.store.(journal.Patient)
	if !ok {
		return func() {}
	}
	return s.present.AfterFunc(edgeTimeout, patient.GiveUp)
}

// openOffline opens the journal for a command instead of a server.
func openOffline(ctx context.Context, cfg config.Config) (journal.Store, error) {
	cfg.Cluster = false
	return openForCommand(ctx, cfg)
}

// openShared opens the journal for a command that only reads, beside the nodes of a cluster.
func openShared(ctx context.Context, cfg config.Config) (journal.Store, error) {
	cfg.Cluster, cfg.Migrate = true, false
	return openForCommand(ctx, cfg)
}

func openForCommand(ctx context.Context, cfg config.Config) (journal.Store, error) {
	present, err := clockd.New(clockd.Config{})
	if err != nil {
		return nil, err
	}
	cfg.Advertise = "" // a command is nobody's node
	return openStore(ctx, cfg, present, slog.New(slog.DiscardHandler))
}

// inUse says whether an error of openOffline means that a server runs on the journal.
func inUse(err error) bool {
	return errors.As(err, new(*embedded.LockedError)) || errors.Is(err, postgres.ErrInUse)
}

// mustExist keeps a command from making an empty journal by opening it.
func mustExist(cfg config.Config) error {
	if len(cfg.Postgres) > 0 {
		return nil
	}
	if _, err := os.Stat(cfg.Data); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	there, err := embedded.Exists(cfg.Data)
	if err == nil && !there {
		err = fmt.Errorf("there is no journal in %s", cfg.Data)
	}
	return err
}

// journalPlace says where the journal is, without secrets.
func journalPlace(cfg config.Config) string {
	if len(cfg.Postgres) == 0 {
		data, err := filepath.Abs(cfg.Data)
		if err != nil {
			data = cfg.Data
		}
		return "data in " + data
	}
	var places []string
	for _, text := range cfg.Postgres {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return fmt.Sprintf("journal on PostgreSQL, %d servers", len(cfg.Postgres))
		}
		places = append(places, u.Host+u.Path)
	}
	return "journal on PostgreSQL at " + strings.Join(places, " and ")
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
		if len(cfg.Postgres) == 0 {
			return errors.New("name the server with --postgres")
		}
		return migrate(cmd.Context(), cfg.Postgres, func(before, after int) {
			fmt.Fprintf(cmd.OutOrStdout(), "schema version %d, was %d\n", after, before)
		})
	}
	return cmd
}
