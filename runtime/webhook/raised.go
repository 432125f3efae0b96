package webhook

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Events that stand in no journal are written to a table when they are raised: a
// topic of each merchant, with the newest raisedMax of them.
const (
	tableLast   = "webhook_raised_last" // merchant → seq of the newest row in TableRaised
	topicRaised = "~raised"             // no deal has this id
	raisedMax   = 1024
)

type raised struct {
	tables  journal.Tables
	clock   *clockd.Clock
	mu      sync.Mutex // held by the one Raise that writes
	dropped atomic.Uint64
}

// Raise tells a merchant's webhooks of something that stands in no journal. It
// returns once the event will survive what the process survives; with no webhook
// of the merchant's it does nothing. data becomes JSON.
func (h *Hub) Raise(ctx context.Context, merchant, kind string, data any) error {
	if !slices.Contains(Types, kind) {
		panic(fmt.Sprintf("webhook: unknown event %q", kind))
	}
	h.mu.Lock()
	none := len(h.hooks[merchant]) == 0
	h.mu.Unlock()
	if none {
		return nil
	}
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if err := h.raised.add(ctx, merchant, kind, text); err != nil {
		return err
	}
	h.Touch(merchant, topicRaised, 0)
	return nil
}

func (r *raised) add(ctx context.Context, merchant, kind string, data []byte) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range conflictsMax {
		if err = r.tryAdd(ctx, merchant, kind, data); !errors.Is(err, journal.ErrConflict) {
			break
		}
	}
	return err
}

// tryAdd is add unless another node raises something for the same merchant:
// journal.ErrConflict. The numbers rise in the order of the commits, so that who has
// read up to one has read all before it.
func (r *raised) tryAdd(ctx context.Context, merchant, kind string, data []byte) error {
	before, err := r.tables.Get(ctx, tableLast, merchant)
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	last := uint64(0)
	if len(before) == 8 {
		last = binary.BigEndian.Uint64(before)
	}
	var keys []string
	err = r.tables.Scan(ctx, TableRaised, merchant+pathSep, "", func(key string, _ []byte) error {
		keys = append(keys, key)
		last = max(last, raisedSeq(key))
		return nil
	})
	if err != nil {
		return err
	}
	old := keys[:max(0, len(keys)-raisedMax+1)]
	var rows []journal.Mutation
	for _, key := range old {
		rows = append(rows, journal.Mutation{Table: TableRaised, Key: key})
	}
	now := r.clock.Now().Wall
	seq := max(last+1, uint64(now)<<8)
	value, err := json.Marshal(Event{
		ID: "raised-" + strconv.FormatUint(seq, 36), Type: kind, CreatedAt: TimeText(now), Data: data,
	})
	if err != nil {
		return err
	}
	rows = append(rows,
		journal.Mutation{Table: TableRaised, Key: raisedKey(merchant, seq), Value: value},
		journal.Mutation{Table: tableLast, Key: merchant, Value: binary.BigEndian.AppendUint64(nil, seq)})
	err = r.tables.ApplyIf(ctx, []journal.Expectation{{Table: tableLast, Key: merchant, Value: before}}, rows, true)
	if err == nil {
		r.dropped.Add(uint64(len(old)))
	}
	return err
}

func raisedKey(merchant string, seq uint64) string {
	return merchant + pathSep + string(binary.BigEndian.AppendUint64(nil, seq))
}

func raisedSeq(key string) uint64 {
	_, number, _ := strings.Cut(key, pathSep)
	return binary.BigEndian.Uint64([]byte(number))
}

func (r *raised) end(ctx context.Context, merchant string) (end Place, err error) {
	err = r.tables.Scan(ctx, TableRaised, merchant+pathSep, "", func(key string, _ []byte) error {
		end.Seq = raisedSeq(key)
		return nil
	})
	return end, err
}

// read is Source.Read of a merchant's topic.
func (r *raised) read(merchant string) func(context.Context, string, Place, []string, func(Event, Place) error) (Place, error) {
	return func(ctx context.Context, _ string, at Place, types []string, fn func(Event, Place) error) (Place, error) {
		err := r.tables.Scan(ctx, TableRaised, merchant+pathSep, raisedKey(merchant, at.Seq), func(key string, value []byte) error {
			var e Event
			if err := json.Unmarshal(value, &e); err != nil {
				return fmt.Errorf("event %q: %w", key, errors.Join(journal.ErrCorrupt, err))
			}
			behind := Place{Seq: raisedSeq(key)}
			if slices.Contains(types, e.Type) {
				if err := fn(e, behind); err != nil {
					return err
				}
			}
			at = behind
			return nil
		})
		if errors.Is(err, ErrStop) {
			err = nil
		}
		return at, err
	}
}

// TimeText is a time, in Unix ms, as events show it: RFC 3339 in UTC with
// milliseconds.
func TimeText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
