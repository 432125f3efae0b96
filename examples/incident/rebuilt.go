package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway/client"
)

var rebuiltChapter = chapter{
	number: 6, title: "The rebuilt system", file: "rebuilt.go",
	prose: `
The incident's own command, ` + "`wrk -t4 -c400 -d30s …/api/v1/order`" + `, against both ends of the story. As
it was: chapter 1's one mutex, held over a cache that has become so slow that an order takes 20 ms
inside. As it is: Doorbuster, with its journal synced before any answer and a WebAssembly rule on
the one deal that everybody wants.

The published figures explain themselves: a lock that is held for 21 ms lets 47 orders a second
pass, and whoever stands behind 400 others waits 400 × 21 ms, or 8.4 s. That does not depend on
the number of cores, and so it shows here as well.`,
	run: runRebuilt,
}

// incidentCacheDelay is how slow the cache was: 47 orders/s through one lock
// are 21 ms each.
const incidentCacheDelay = 20 * time.Millisecond

// The incident's command.
const (
	incidentThreads     = 4
	incidentConnections = 400
)

func (s *session) rebuiltPair(server string) pair {
	return pair{
		title:   "this machine",
		columns: []column{{"orders/s", "%.0f"}, {"P50 ms", "%.0f"}, {"P99 ms", "%.0f"}},
		sides: []side{
			{"as it was: one mutex, slow cache", s.roundAsItWas},
			{"as it is: Doorbuster, durable", func(ctx context.Context) (figures, error) {
				return s.roundAsItIs(ctx, server)
			}},
		},
	}
}

// ── As it was ──────────────────────────────────────────────────────────────

func (s *session) roundAsItWas(ctx context.Context) (figures, error) {
	c, err := s.startChild(ctx, 2, "orders", "--shop", shopLocked, "--then", thenCache, "--delay", incidentCacheDelay.String())
	if err != nil {
		return nil, err
	}
	l, err := s.wrk(ctx, c.listen, incidentThreads, incidentConnections, s.long, 1)
	return figures{l.Rate(), page.Millis(l.P50), page.Millis(l.P99)}, errors.Join(err, c.end(new(shopReport)))
}

// ── As it is ───────────────────────────────────────────────────────────────

func (s *session) roundAsItIs(ctx context.Context, server string) (f figures, err error) {
	data, err := os.MkdirTemp(s.dir, "data-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	p, err := lab.Serve(ctx, server, data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err := (lab.Orders{Deals: 1, Prefix: "d-"}).Create(ctx, client.Config{Addr: p.Listen}, "tiered"); err != nil {
		return nil, err
	}
	l, err := s.wrk(ctx, p.Listen, incidentThreads, incidentConnections, s.long, 1)
	return figures{l.Rate(), page.Millis(l.P50), page.Millis(l.P99)}, err
}

// ── The comparison ─────────────────────────────────────────────────────────

// published are the incident's own rows, from its own machine.
var published = result{
	pair: pair{
		title:   "published, another machine",
		columns: []column{{"orders/s", "%.0f"}, {"P50 ms", "%.0f"}, {"P99 ms", "%.0f"}},
		sides:   []side{{name: "the incident"}, {name: "its first repair"}, {name: "its rebuilt system (± 7/s)"}},
	},
	medians: []figures{{47, 0, 8200}, {1186, 0, 142}, {1358, 0, 82}},
}

func runRebuilt(ctx context.Context, s *session) (string, error) {
	server, err := lab.Build(ctx, s.dir)
	if err != nil {
		return "", err
	}
	r, err := s.measure(ctx, s.longRound, s.rebuiltPair(server))
	if err != nil {
		return "", err
	}
	rates, err := s.plot("rebuilt", "Chapter 6: orders/s under wrk -t4 -c400", published.bars(0), r.bars(0))
	if err != nil {
		return "", err
	}
	latencies, err := s.plot("rebuilt-p99", "Chapter 6: P99, ms", published.bars(2), r.bars(2))
	table := strings.ReplaceAll(markdown([]result{published, r}), " | 0 | ", " | – | ") // no P50 was published
	return fmt.Sprintf("%d rounds of each side, `wrk -t%d -c%d -d%ds --timeout %s -s orders.lua http://…/api/v1/order`\n"+
		"(with its own timeout of 2 s, wrk leaves the answers that took longer out of the quantiles).\n",
		s.longRound, incidentThreads, incidentConnections, s.long, lab.WrkTimeout) + table + rates + latencies + spread(r) +
		"\nThe published rows come from another machine that we know nothing of: they are there to be beaten, not to be\n" +
		"compared to the last per cent. An order of ours is on disk before it is answered.\n", err
}

// spread says how far apart the rounds of each side were.
func spread(r result) string {
	var out strings.Builder
	for i, side := range r.sides {
		low, high := r.rounds[i][0][0], r.rounds[i][0][0]
		for _, f := range r.rounds[i] {
			low, high = min(low, f[0]), max(high, f[0])
		}
		fmt.Fprintf(&out, "\n- %s: %.0f to %.0f orders/s over the rounds.", side.name, low, high)
	}
	return out.String() + "\n"
}
