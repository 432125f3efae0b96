package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// shard is which of how many servers of a journal a server is. Each one has it written
// down: a stream is looked for where its name leads among so many servers in this order.
type shard struct {
	journal string // a UUID, "" if it is for the server to say
	number  int    // from 0
	count   int
}

// alone says whether the journal has no other server.
func (s shard) alone() bool { return s.count == 1 }

// OpenAll opens the servers that carry a journal together, in the order of their
// numbers. cfg.URL is not used. A server of another journal, number or count is refused.
func OpenAll(ctx context.Context, cfg Config, urls []string) (stores []*Store, err error) {
	of := shard{count: len(urls)}
	for i, url := range urls {
		cfg.URL, of.number = url, i
		s, err := open(ctx, cfg, &of)
		if err != nil {
			for _, s := range stores {
				_ = s.Close()
			}
			return nil, fmt.Errorf("server %d of %d: %w", i+1, len(urls), err)
		}
		stores = append(stores, s)
	}
	return stores, nil
}

// claimShard writes down which shard a new server is, or compares what a known one says
// with what this process believes. It returns the journal.
func (s *Store) claimShard(ctx context.Context, of shard) (journal string, err error) {
	found, err := s.readShard(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := s.writeShard(ctx, of); err != nil {
			return "", err
		}
		found, err = s.readShard(ctx) // somebody else's, if both were at it
	}
	switch {
	case err != nil:
		return "", s.failure("read which shard it is", "", err)
	case found.number != of.number || found.count != of.count:
		return "", fmt.Errorf("postgres: this is number %d of the %d servers of its journal, and was named as number %d of %d: name the same ones in the same order",
			found.number+1, found.count, of.number+1, of.count)
	case of.journal != "" && found.journal != of.journal:
		return "", fmt.Errorf("postgres: this is a server of another journal than the first one: of %s instead of %s", found.journal, of.journal)
	}
	return found.journal, nil
}

func (s *Store) readShard(ctx context.Context) (found shard, err error) {
	err = s.pool.QueryRow(ctx, "SELECT journal::text, number, count FROM doorbuster.shard").Scan(&found.journal, &found.number, &found.count)
	return found, err
}

// writeShard refuses a server that has been a journal of its own.
func (s *Store) writeShard(ctx context.Context, of shard) error {
	if of.count > 1 {
		var used bool
		if err := s.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM doorbuster.streams) OR EXISTS (SELECT FROM doorbuster.rows)").Scan(&used); err != nil {
			return s.failure("look for streams", "", err)
		}
		if used {
			return errors.New("postgres: this server has a journal of its own: copy that to several servers with doorbuster journal copy")
		}
	}
	_, err := s.pool.Exec(ctx, `
		INSERT INTO doorbuster.shard (journal, number, count)
		VALUES (coalesce(nullif($1, '')::uuid, gen_random_uuid()), $2, $3) ON CONFLICT DO NOTHING`, of.journal, of.number, of.count)
	if err != nil {
		return s.failure("write which shard it is", "", err)
	}
	return nil
}
