package postgres

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// rowsPage is how many rows the first query of a scan asks for; each later one asks
// for twice as many, up to rowsPageMax.
const (
	rowsPage    = 64
	rowsPageMax = 4096
)

// tables implements journal.Tables.
type tables struct{ s *Store }

// Get implements journal.Tables.
func (t tables) Get(ctx context.Context, table, key string) (value []byte, err error) {
	if err := t.s.usable(); err != nil {
		return nil, err
	}
	ctx, cancel := t.s.question(ctx)
	defer cancel()
	err = t.s.pool.QueryRow(ctx, "SELECT value FROM doorbuster.rows WHERE tbl = $1 AND key = $2", []byte(table), []byte(key)).Scan(&value)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, journal.ErrNotFound
	}
	if err != nil {
		return nil, t.s.failure("read table "+table, "", err)
	}
	return value, nil
}

const selectRows = `
SELECT key, value FROM doorbuster.rows
WHERE tbl = $1 AND key >= $2 AND key > $3 AND ($4::bytea IS NULL OR key < $4) ORDER BY key LIMIT $5`

// Scan implements journal.Tables. It looks at one snapshot of the database, page by
// page, so that a scan that ends early has not asked for everything.
func (t tables) Scan(ctx context.Context, table, prefix, after string, fn func(string, []byte) error) error {
	if err := t.s.usable(); err != nil {
		return err
	}
	tx, err := t.begin(ctx)
	if err != nil {
		return t.s.failure("scan table "+table, "", err)
	}
	defer t.end(tx)
	for limit := rowsPage; ; limit = min(2*limit, rowsPageMax) {
		page, err := t.page(ctx, tx, table, prefix, after, limit)
		if err != nil {
			return t.s.failure("scan table "+table, "", err)
		}
		for _, r := range page {
			after = string(r.Key)
			if err := fn(after, r.Value); err != nil {
				return stopped(err)
			}
		}
		if len(page) < limit {
			return nil
		}
	}
}

// begin begins what reads one snapshot of the database.
func (t tables) begin(ctx context.Context) (pgx.Tx, error) {
	ctx, cancel := t.s.question(ctx)
	defer cancel()
	return t.s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
}

// end gives the connection of a transaction back that has changed nothing.
func (t tables) end(tx pgx.Tx) {
	ctx, cancel := t.s.question(t.s.ctx)
	defer cancel()
	_ = tx.Rollback(ctx) // a connection that fails is not used again
}

type tableRow struct{ Key, Value []byte }

// page returns the rows behind after, at most limit.
func (t tables) page(ctx context.Context, tx pgx.Tx, table, prefix, after string, limit int) ([]tableRow, error) {
	ctx, cancel := t.s.load(ctx)
	defer cancel()
	rows, err := tx.Query(ctx, selectRows, []byte(table), []byte(prefix), []byte(after), successor(prefix), limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[tableRow])
}

// selectNames goes from one table to the next by the index, and not through all rows.
const selectNames = `
WITH RECURSIVE names (tbl) AS (
	(SELECT tbl FROM doorbuster.rows ORDER BY tbl LIMIT 1)
	UNION ALL
	SELECT (SELECT r.tbl FROM doorbuster.rows r WHERE r.tbl > names.tbl ORDER BY r.tbl LIMIT 1) FROM names WHERE names.tbl IS NOT NULL
)
SELECT tbl FROM names WHERE tbl IS NOT NULL`

// Names implements journal.Tables.
func (t tables) Names(ctx context.Context) ([]string, error) {
	if err := t.s.usable(); err != nil {
		return nil, err
	}
	ctx, cancel := t.s.question(ctx)
	defer cancel()
	rows, err := t.s.pool.Query(ctx, selectNames)
	if err != nil {
		return nil, t.s.failure("list the tables", "", err)
	}
	var name []byte
	var names []string
	_, err = pgx.ForEachRow(rows, []any{&name}, func() error {
		names = append(names, string(name))
		return nil
	})
	if err != nil {
		return nil, t.s.failure("list the tables", "", err)
	}
	return names, nil
}

// successor is the first key that does not begin with prefix, nil if there is none.
func successor(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

const deleteRows = `
DELETE FROM doorbuster.rows r USING unnest($1::bytea[], $2::bytea[]) AS d (tbl, key)
WHERE r.tbl = d.tbl AND r.key = d.key`

// Apply implements journal.Tables. It is always durable: this process outlives a crash of
// the server, and a fail-over, and goes on from what it has written.
func (t tables) Apply(ctx context.Context, mutations []journal.Mutation, durable bool) error {
	return t.ApplyIf(ctx, nil, mutations, durable)
}

// ApplyIf implements journal.Tables. Whatever else would change an expected row waits
// until this transaction has ended; of two that wait for each other, the server ends
// one, which is a conflict too.
func (t tables) ApplyIf(ctx context.Context, expected []journal.Expectation, mutations []journal.Mutation, durable bool) error {
	if err := t.s.usable(); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	changes := lastOfEach(mutations)
	batch.Queue(`
		INSERT INTO doorbuster.rows (tbl, key, value)
		SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[])
		ON CONFLICT (tbl, key) DO UPDATE SET value = excluded.value`, changes.set.tables, changes.set.keys, changes.values)
	batch.Queue(deleteRows, changes.deleted.tables, changes.deleted.keys)
	bound := t.s.question
	if durable { // it may be a whole module
		bound = t.s.load
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	err := t.s.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		return replicated(ctx, conn.Conn(), func() error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				if len(expected) > 0 {
					if err := expect(ctx, tx, expected); err != nil {
						return err
					}
				}
				return tx.SendBatch(ctx, batch).Close()
			})
		})
	})
	switch state := sqlState(err); {
	case err == nil:
		return nil
	case errors.Is(err, journal.ErrConflict), len(expected) > 0 && (state == deadlock || state == serialization):
		return journal.ErrConflict
	}
	return t.s.failure("write tables", "", err)
}

// unreplicated is the name under which a connection of the pool notes that it has committed
// what the standby need not have.
const unreplicated = "unreplicated"

func noteUnreplicated(conn *pgconn.PgConn, said *pgconn.Notice) {
	if waitCancelled(said) {
		conn.CustomData()[unreplicated] = true
	}
}

// replicated commits, and returns when the standby has it, too. A key that was revoked
// would be good again after a fail-over.
func replicated(ctx context.Context, conn *pgx.Conn, commit func() error) error {
	notes := conn.PgConn().CustomData()
	for {
		delete(notes, unreplicated)
		if err := commit(); err != nil || notes[unreplicated] == nil {
			return err
		}
		// A commit waits until the standby has all that came before it.
		commit = func() error {
			_, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'doorbuster', '')")
			return err
		}
	}
}

// expect locks the expected rows, or returns ErrConflict if one is another.
func expect(ctx context.Context, tx pgx.Tx, expected []journal.Expectation) error {
	var present, absent names
	var values [][]byte // of present
	for i := range expected {
		e := &expected[i]
		e.Check()
		if e.Value == nil {
			absent.add(e.Table, e.Key)
		} else {
			present.add(e.Table, e.Key)
			values = append(values, e.Value)
		}
	}
	tag, err := tx.Exec(ctx, `
		SELECT FROM doorbuster.rows r JOIN unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS e (tbl, key, value) USING (tbl, key)
		WHERE r.value = e.value ORDER BY tbl, key FOR UPDATE OF r`, present.tables, present.keys, values)
	if err == nil && tag.RowsAffected() != int64(len(values)) {
		err = journal.ErrConflict
	}
	if err != nil || len(absent.keys) == 0 {
		return err
	}
	// What is not there cannot be locked. A row that this transaction puts there, and
	// takes away again, keeps others from putting theirs until it has ended.
	tag, err = tx.Exec(ctx, `
		INSERT INTO doorbuster.rows (tbl, key, value)
		SELECT tbl, key, '' FROM unnest($1::bytea[], $2::bytea[]) AS e (tbl, key) ORDER BY tbl, key
		ON CONFLICT DO NOTHING`, absent.tables, absent.keys)
	if err == nil && tag.RowsAffected() != int64(len(absent.keys)) {
		err = journal.ErrConflict
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, deleteRows, absent.tables, absent.keys)
	return err
}

// changes are mutations in columns.
type changes struct {
	set, deleted names
	values       [][]byte // of set
}

type names struct{ tables, keys [][]byte }

func (n *names) add(table, key string) {
	n.tables, n.keys = append(n.tables, []byte(table)), append(n.keys, []byte(key))
}

// lastOfEach keeps the last mutation of each key, since a statement cannot change a
// row twice, in the order of the keys, so that two batches never wait for each other.
func lastOfEach(mutations []journal.Mutation) (c changes) {
	order := make([]*journal.Mutation, len(mutations))
	for i := range mutations {
		order[i] = &mutations[i]
		order[i].Check()
	}
	slices.SortStableFunc(order, compareRows)
	for i, m := range order {
		if i+1 < len(order) && compareRows(m, order[i+1]) == 0 {
			continue
		}
		if m.Value == nil {
			c.deleted.add(m.Table, m.Key)
			continue
		}
		c.set.add(m.Table, m.Key)
		c.values = append(c.values, m.Value)
	}
	return c
}

func compareRows(a, b *journal.Mutation) int {
	return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Key, b.Key))
}
