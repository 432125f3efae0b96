package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/clockd"
)

// Health is what Examine found of a server that a node could use.
type Health struct {
	Version string        // of the server
	Commit  time.Duration // a small transaction, the median: what every order waits for
	Warning string        // what should not be as it is, "" = nothing
	Holder  string        // who serves from the database now, "" = nobody
}

// examined is how many transactions are timed.
const examined = 21

// Examine looks whether a node could keep its journal on a server, as Open would find
// out, and leaves nothing there: what it times are messages in the server's log that
// nobody reads. An error says why a node could not.
func Examine(ctx context.Context, url string) (h Health, err error) {
	pool, err := connect(ctx, url, 1, false, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := checkDurable(ctx, conn)
		return err
	}, nil)
	if err != nil {
		return Health{}, err
	}
	defer pool.Close()
	if err := pool.QueryRow(ctx, "SHOW server_version").Scan(&h.Version); err != nil {
		return h, fmt.Errorf("postgres: %w", err)
	}
	if h.Holder, err = holder(ctx, pool); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return h, fmt.Errorf("postgres: %w", err)
	}
	took := make([]time.Duration, examined)
	for i := range took {
		begin := clockd.Mono()
		if _, err := pool.Exec(ctx, "SELECT pg_logical_emit_message(true, 'doorbuster', '')"); err != nil {
			return h, fmt.Errorf("postgres: time a commit: %w", err)
		}
		took[i] = time.Duration(clockd.Mono() - begin)
	}
	slices.Sort(took)
	h.Commit = took[examined/2]
	if h.Warning, err = checkServer(ctx, pool); err != nil {
		err = fmt.Errorf("postgres: %w", err)
	}
	return h, err
}
