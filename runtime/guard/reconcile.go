package guard

import (
	"context"
	_ "embed"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// State is what the journal says of one deal.
type State struct {
	Deal       string
	Epoch, Seq uint64
	Available  int64
}

// Report is what Reconcile found.
type Report struct {
	Deals   int // set
	New     int // of which Redis knew nothing
	Changed int // of which it knew something else
	Dropped int // others that it knew, and that the journal does not have
}

//go:embed reconcile.lua
var reconcileLua string

// Reconcile makes Redis forget what it knows, and tells it what the journal says. Servers
// may run meanwhile: what is set behind their backs is at worst older than what they
// claim next, and then theirs holds. It ends with the first error.
func Reconcile(ctx context.Context, url string, states iter.Seq2[State, error]) (r Report, err error) {
	option, err := clientOption(url)
	if err != nil {
		return r, err
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		return r, fmt.Errorf("guard: %w", err)
	}
	defer client.Close()
	script, ttl := rueidis.NewLuaScript(reconcileLua), strconv.Itoa(int(forgetAfter/time.Second))
	known := make(map[string]bool)
	for s, err := range states {
		if err != nil {
			return r, err
		}
		known[prefix+s.Deal] = true
		said, err := script.Exec(ctx, client, []string{prefix + s.Deal}, []string{
			ttl, strconv.FormatUint(s.Epoch, 10), strconv.FormatUint(s.Seq, 10), strconv.FormatInt(s.Available, 10),
		}).ToString()
		if err != nil {
			return r, fmt.Errorf("guard: deal %s: %w", s.Deal, err)
		}
		r.Deals++
		switch said {
		case "new":
			r.New++
		case "changed":
			r.Changed++
		}
	}
	r.Dropped, err = drop(ctx, client, known)
	return r, err
}

// drop deletes the deals that are not known.
func drop(ctx context.Context, client rueidis.Client, known map[string]bool) (dropped int, err error) {
	for cursor := uint64(0); ; {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match(prefix+"*").Count(1000).Build()).AsScanEntry()
		if err != nil {
			return dropped, fmt.Errorf("guard: %w", err)
		}
		for _, key := range page.Elements {
			if known[key] {
				continue
			}
			n, err := client.Do(ctx, client.B().Del().Key(key).Build()).AsInt64()
			if err != nil {
				return dropped, fmt.Errorf("guard: %w", err)
			}
			dropped += int(n) // a page may show a key twice
		}
		if cursor = page.Cursor; cursor == 0 {
			return dropped, nil
		}
	}
}
