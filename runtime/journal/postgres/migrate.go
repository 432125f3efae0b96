package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Migrations are numbered from 1 and never change once released. Each one must
// leave the tables usable to the code of the version before it, so that old nodes
// go on while new ones start.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrateLock is the advisory lock that lets one process migrate at a time.
const migrateLock = 0x646f6f72 // "door"

// compatible is the oldest schema version whose code can work on the newest schema.
const compatible = 1

// Migrate brings the schema of a database up to date and returns its version
// before and after. It is safe to run from many processes, and while nodes serve.
func Migrate(ctx context.Context, url string) (before, after int, err error) {
	pool, err := connect(ctx, url, 1, false, func(context.Context, *pgx.Conn) error { return nil }, nil)
	if err != nil {
		return 0, 0, err
	}
	defer pool.Close()
	scripts, err := readMigrations()
	if err != nil {
		return 0, 0, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrateLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			CREATE SCHEMA IF NOT EXISTS doorbuster;
			CREATE TABLE IF NOT EXISTS doorbuster.migrations (
				version    int PRIMARY KEY,
				compatible int NOT NULL, -- code that knows this version can work with the schema
				applied_at timestamptz NOT NULL DEFAULT now()
			)`); err != nil {
			return err
		}
		if before, _, err = schemaVersion(ctx, tx); err != nil {
			return err
		}
		after = before
		for ; after < len(scripts); after++ {
			if _, err := tx.Exec(ctx, scripts[after]); err != nil {
				return fmt.Errorf("migration %d: %w", after+1, err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO doorbuster.migrations (version, compatible) VALUES ($1, $2)", after+1, compatible); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("postgres: migrate: %w", err)
	}
	return before, after, nil
}

// readMigrations returns the scripts in order; script i leads to version i+1.
func readMigrations() (scripts []string, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	for i, file := range files { // Glob sorts
		number, _, _ := strings.Cut(strings.TrimPrefix(file, "migrations/"), "_")
		if n, err := strconv.Atoi(number); err != nil || n != i+1 {
			panic(fmt.Sprintf("postgres: migration %s is not number %d", file, i+1))
		}
		script, err := migrations.ReadFile(file)
		if err != nil {
			return nil, err
		}
		scripts = append(scripts, string(script))
	}
	return scripts, nil
}

// querier is what a connection, a pool and a transaction have in common.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// schemaVersion returns the newest migration that was applied, and the oldest
// version whose code can work with it; 0 if there is no schema.
func schemaVersion(ctx context.Context, q querier) (version, oldest int, err error) {
	err = q.QueryRow(ctx, "SELECT version, compatible FROM doorbuster.migrations ORDER BY version DESC LIMIT 1").Scan(&version, &oldest)
	if errors.Is(err, pgx.ErrNoRows) || sqlState(err) == undefinedTable || sqlState(err) == invalidSchema {
		return 0, 0, nil
	}
	return version, oldest, err
}

// checkDurable refuses a server that could lose what it acknowledged.
func checkDurable(ctx context.Context, q querier) (warning string, err error) {
	var settings struct{ commit, fsync, checksums string }
	err = q.QueryRow(ctx, "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('data_checksums')").
		Scan(&settings.commit, &settings.fsync, &settings.checksums)
	if err != nil {
		return "", err
	}
	if settings.commit != "on" && settings.commit != "remote_apply" {
		return "", fmt.Errorf("synchronous_commit is %s: an acknowledged order could be lost; set it to on", settings.commit)
	}
	if settings.fsync != "on" {
		return "", errors.New("fsync is off: an acknowledged order could be lost; set it to on")
	}
	if settings.checksums != "on" {
		warning = "data_checksums is off: the server will not notice damaged pages; records of events have checksums of their own"
	}
	return warning, nil
}

// checkServer refuses a server that could lose what it acknowledged, or whose
// schema this code does not know.
func checkServer(ctx context.Context, q querier) (warning string, err error) {
	if warning, err = checkDurable(ctx, q); err != nil {
		return "", err
	}
	version, oldest, err := schemaVersion(ctx, q)
	if err != nil {
		return "", err
	}
	scripts, err := readMigrations()
	if err != nil {
		return "", err
	}
	switch known := len(scripts); {
	case version < known:
		return "", fmt.Errorf("the schema has version %d and this program needs %d: run doorbuster migrate, or serve --migrate", version, known)
	case oldest > known:
		return "", fmt.Errorf("the schema has version %d, which programs that know version %d or later can use; this one knows %d", version, oldest, known)
	}
	return warning, nil
}

// SQLSTATEs, and classes of them, that mean something here.
const (
	undefinedTable  = "42P01"
	duplicateTable  = "42P07"
	invalidSchema   = "3F000"
	uniqueViolation = "23505"
	serialization   = "40001"
	deadlock        = "40P01"
	diskFull        = "53100"
	readOnlySession = "25006"
	lockTimeout     = "55P03"

	classConnection = "08"
	classIntegrity  = "23"
	classResources  = "53"
	classOperator   = "57"
)

// sqlState returns the SQLSTATE of an error of the server, or "".
func sqlState(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.Code
	}
	return ""
}
