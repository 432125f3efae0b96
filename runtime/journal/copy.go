package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Copied counts what Copy has brought over and compared.
type Copied struct {
	Streams, Events, Snapshots, Rows uint64
}

// copyBytes is how much Copy appends at once.
const copyBytes = WriteMax / 2

// Copy brings all streams, snapshots and tables of one Store into another and then
// reads both, event by event and row by row: an error means that to is not a copy.
// Neither may be in use. A Copy that was cut short is finished by another one: what
// to has already must be the beginning of what from has, and nothing is written if to has
// events of a stream that from does not have. Epochs are the owners' of
// each Store and are not copied. told, if not nil, is called after each stream.
func Copy(ctx context.Context, from, to Store, told func(Copied)) (c Copied, err error) {
	if err := noStrangers(ctx, from, to); err != nil {
		return c, err
	}
	err = from.Streams(ctx, "", func(stream string, head Head) error {
		if err := copyStream(ctx, from, to, stream, head); err != nil {
			return fmt.Errorf("stream %q: %w", stream, err)
		}
		events, err := compareStream(ctx, from, to, stream)
		if err != nil {
			return fmt.Errorf("stream %q: %w", stream, err)
		}
		snapshot, err := copySnapshot(ctx, from, to, stream)
		if err != nil {
			return fmt.Errorf("stream %q: snapshot: %w", stream, err)
		}
		c.Streams, c.Events, c.Snapshots = c.Streams+1, c.Events+events, c.Snapshots+snapshot
		if told != nil {
			told(c)
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	names, err := from.Tables().Names(ctx)
	if err != nil {
		return c, err
	}
	there, err := to.Tables().Names(ctx)
	if err != nil {
		return c, err
	}
	names = append(names, there...) // what the source has no more is a difference too
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		rows, err := copyTable(ctx, from.Tables(), to.Tables(), name)
		if err != nil {
			return c, fmt.Errorf("table %q: %w", name, err)
		}
		c.Rows += rows
	}
	return c, nil
}

// noStrangers refuses a destination that holds another journal: two that are mixed are
// nobody's any more.
func noStrangers(ctx context.Context, from, to Store) error {
	return to.Streams(ctx, "", func(stream string, head Head) error {
		if head.Seq == 0 {
			return nil
		}
		_, err := from.Head(ctx, stream)
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("stream %q: the destination has it and the source does not: it holds another journal, and nothing was copied", stream)
		}
		return err
	})
}

// copyStream appends to one Store what it lacks of the other's stream.
func copyStream(ctx context.Context, from, to Store, stream string, want Head) error {
	head, err := to.Open(ctx, stream)
	if err != nil {
		return err
	}
	defer to.Release(stream, head.Epoch)
	if head.Seq > want.Seq {
		return fmt.Errorf("the destination has %d events, the source %d", head.Seq, want.Seq)
	}
	w := Write{Stream: stream, Epoch: head.Epoch, Seq: head.Seq + 1}
	flush := func() error {
		if w.Count == 0 {
			return nil
		}
		if err := errors.Join(to.Commit([]*Write{&w}), w.Err); err != nil {
			return err
		}
		w.Seq, w.Count, w.Data = w.Seq+uint64(w.Count), 0, w.Data[:0]
		return nil
	}
	err = from.Read(ctx, stream, head.Seq, func(e Event) error {
		w.Data, w.Count = AppendEvent(w.Data, e.Data), w.Count+1
		if len(w.Data) < copyBytes {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// comparePage bounds the events that compareStream holds of one Store.
const comparePage = 1024

// compareStream returns the number of events, which are the same in both.
func compareStream(ctx context.Context, from, to Store, stream string) (uint64, error) {
	seq := uint64(0)
	for {
		want, err := page(ctx, from, stream, seq)
		if err != nil {
			return seq, err
		}
		got, err := page(ctx, to, stream, seq)
		if err != nil {
			return seq, err
		}
		for i := range max(len(want), len(got)) {
			if i >= len(want) || i >= len(got) || !bytes.Equal(want[i], got[i]) {
				return seq, fmt.Errorf("event %d is not the same in both", seq+1)
			}
			seq++
		}
		if len(want) < comparePage {
			return seq, nil
		}
	}
}

// page reads some events of a stream.
func page(ctx context.Context, s Store, stream string, after uint64) (events [][]byte, err error) {
	err = s.Read(ctx, stream, after, func(e Event) error {
		if events = append(events, bytes.Clone(e.Data)); len(events) == comparePage {
			return ErrStop
		}
		return nil
	})
	return events, err
}

// copySnapshot returns 1 if there was one.
func copySnapshot(ctx context.Context, from, to Store, stream string) (uint64, error) {
	seq, data, err := from.Snapshot(ctx, stream)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	head, err := to.Open(ctx, stream)
	if err != nil {
		return 0, err
	}
	defer to.Release(stream, head.Epoch)
	if err := to.PutSnapshot(ctx, stream, head.Epoch, seq, data); err != nil {
		return 0, err
	}
	gotSeq, got, err := to.Snapshot(ctx, stream)
	if err == nil && (gotSeq != seq || !bytes.Equal(got, data)) {
		err = fmt.Errorf("the destination has another one, of event %d instead of %d", gotSeq, seq)
	}
	return 1, err
}

// copyRows is how many rows Copy writes at once.
const copyRows = 1024

func copyTable(ctx context.Context, from, to Tables, name string) (rows uint64, err error) {
	var batch []Mutation
	flush := func(durable bool) error {
		err := to.Apply(ctx, batch, durable)
		batch = batch[:0]
		return err
	}
	err = from.Scan(ctx, name, "", "", func(key string, value []byte) error {
		batch = append(batch, Mutation{Table: name, Key: key, Value: append([]byte{}, value...)})
		if rows++; len(batch) < copyRows {
			return nil
		}
		return flush(false)
	})
	if err == nil {
		err = flush(true)
	}
	if err != nil {
		return rows, err
	}
	return rows, compareTable(ctx, from, to, name, rows)
}

// compareTable wants the same rows in both.
func compareTable(ctx context.Context, from, to Tables, name string, rows uint64) error {
	there := uint64(0)
	err := to.Scan(ctx, name, "", "", func(key string, value []byte) error {
		there++
		want, err := from.Get(ctx, name, key)
		if err == nil && !bytes.Equal(want, value) {
			err = errors.New("its value is another one")
		}
		if err != nil {
			return fmt.Errorf("row %q: %w", key, err)
		}
		return nil
	})
	if err == nil && there != rows {
		err = fmt.Errorf("%d rows, the source has %d", there, rows)
	}
	return err
}
