package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/clockd"
)

//go:embed schema.sql
var schema string

// The UPDATE that takes stock and the INSERT that keeps the order are one statement,
// so the transaction is one round trip, and the row of a hot deal is locked for no
// longer than its commit takes. A violated constraint undoes all of it.
const placeSQL = `
WITH taken AS (
	UPDATE deals SET stock = stock - $4, seq = seq + 1 WHERE id = $1 AND stock >= $4
	RETURNING seq, stock, price, most
), counted AS (
	INSERT INTO bought (deal_id, user_id, quantity, most) SELECT $1, $2, $4, most FROM taken
	ON CONFLICT (deal_id, user_id) DO UPDATE SET quantity = bought.quantity + EXCLUDED.quantity
)
INSERT INTO orders (deal_id, user_id, key, seq, quantity, available, total, at)
SELECT $1, $2, $3, seq, $4, stock, price * $4, $5 FROM taken
RETURNING seq, quantity, available, total, at`

const placedSQL = `SELECT seq, quantity, available, total, at FROM orders WHERE deal_id = $1 AND user_id = $2 AND key = $3`

// postgresConnections is the size of the pool: more connections wait for the same
// row or the same two cores.
const postgresConnections = 32

// postgresShop keeps everything in PostgreSQL.
type postgresShop struct {
	server *database
	pool   *pgxpool.Pool
	clock  *clockd.Clock
}

func openPostgres(ctx context.Context, dir string, of offer) (_ shop, err error) {
	bin, err := postgresFolder()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // for its user to reach data
		return nil, err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "shop",
		"--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	if err := asUser(initdb, "postgres", data); err != nil {
		return nil, err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "-D", data, "-k", data, "-c", "listen_addresses=",
		"-c", "synchronous_commit=on", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB", "-c", "max_connections=100",
		"-c", "log_min_messages=panic")
	if err := asUser(cmd, "postgres", data); err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	s := &postgresShop{}
	s.server, err = startDatabase(ctx, cmd, syscall.SIGINT, func() error { return s.connect(ctx, data) })
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if s.clock, err = clockd.New(clockd.Config{}); err != nil {
		return nil, errors.Join(err, s.server.close())
	}
	s.clock.Start()
	most := of.limit
	if most == 0 {
		most = of.stock
	}
	if _, err = s.pool.Exec(ctx, schema); err == nil {
		_, err = s.pool.Exec(ctx, `INSERT INTO deals (id, stock, price, most)
			SELECT 'd-' || i, $2, $3, $4 FROM generate_series(0, $1::int - 1) i`, of.deals, of.stock, of.price, most)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// postgresFolder finds the newest server: Debian keeps it out of the PATH.
func postgresFolder() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err == nil && len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", fmt.Errorf("postgres is missing (Debian: apt-get install postgresql): %w", err)
	}
	return filepath.Dir(path), nil
}

func (s *postgresShop) connect(ctx context.Context, socket string) error {
	if s.pool != nil {
		return s.pool.Ping(ctx)
	}
	pool, err := pgxpool.New(ctx, fmt.Sprintf("host=%s user=shop dbname=postgres pool_max_conns=%d", socket, postgresConnections))
	if err != nil {
		return err
	}
	s.pool = pool
	return pool.Ping(ctx)
}

func (s *postgresShop) place(ctx context.Context, o *order) (receipt, error) {
	r, err := scan(s.pool.QueryRow(ctx, placeSQL, o.Deal, o.User, o.Key, o.Quantity, s.clock.Now().Wall))
	var violated *pgconn.PgError
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &violated) && violated.ConstraintName == "per_user":
		err = errLimit
	case errors.As(err, &violated) && violated.ConstraintName == "once": // placed below
	case !errors.Is(err, pgx.ErrNoRows):
		return receipt{}, err
	default:
		err = s.whyNot(ctx, o.Deal)
	}
	// A repeated key is answered as it was, even if the order could not be placed
	// any more.
	placed, notPlaced := scan(s.pool.QueryRow(ctx, placedSQL, o.Deal, o.User, o.Key))
	switch {
	case errors.Is(notPlaced, pgx.ErrNoRows):
		return receipt{}, err
	case notPlaced == nil && placed.Quantity != o.Quantity:
		return receipt{}, errMismatch
	}
	return placed, notPlaced
}

// whyNot says why no row was updated.
func (s *postgresShop) whyNot(ctx context.Context, deal string) error {
	var found bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM deals WHERE id = $1)`, deal).Scan(&found); err != nil {
		return err
	}
	if !found {
		return errNoDeal
	}
	return errSoldOut
}

func scan(row pgx.Row) (r receipt, err error) {
	err = row.Scan(&r.Seq, &r.Quantity, &r.Available, &r.Total, &r.At)
	return r, err
}

func (s *postgresShop) close() error {
	s.pool.Close()
	s.clock.Close()
	return s.server.close()
}
