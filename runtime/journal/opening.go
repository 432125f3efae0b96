package journal

import (
	"context"
	"fmt"
	"sort"
	"time"
)

// Opening is the event that opens an epoch of a stream: somebody took it over. It has no
// number among the stream's events, and stands right before the first that may be the
// new owner's.
type Opening struct {
	Epoch uint64
	First uint64    // seq of that event, whoever comes to append it
	By    string    // the new owner, as its Store was told, at most OwnerMax bytes
	At    time.Time // by the clock of what keeps the journal, which all owners share
}

// OwnerMax is the longest Opening.By in bytes.
const OwnerMax = 255

// Chronicle is a Store whose streams pass from process to process. Its Open appends the
// event that opens the epoch: that and the new epoch are there both, or neither.
type Chronicle interface {
	// Openings calls fn for the events that opened the epochs of a stream, in order.
	// Those are missing that were opened before there were such events. An error of fn
	// ends the scan and is returned, ErrStop ends it without one.
	Openings(ctx context.Context, stream string, fn func(Opening) error) error
}

// Owners are all that have owned a stream, to hold its events against.
type Owners []Opening

// ReadOwners returns the owners of a stream, none if s is no Chronicle. ErrCorrupt if one
// cannot have followed the other.
func ReadOwners(ctx context.Context, s Store, stream string) (owners Owners, err error) {
	chronicle, ok := s.(Chronicle)
	if !ok {
		return nil, nil
	}
	err = chronicle.Openings(ctx, stream, func(o Opening) error {
		if n := len(owners); o.First == 0 || n > 0 && (o.Epoch <= owners[n-1].Epoch || o.First < owners[n-1].First) {
			return &CorruptError{Stream: stream, Detail: fmt.Sprintf("epoch %d, opened before event %d, is out of turn", o.Epoch, o.First)}
		}
		owners = append(owners, o)
		return nil
	})
	return owners, err
}

// Of returns the opening of an event's epoch, and false if it is not known. It is an error
// if the event stands before that, or behind the opening of a newer epoch.
func (all Owners) Of(e Event) (o Opening, known bool, err error) {
	opened := sort.Search(len(all), func(i int) bool { return all[i].Epoch > e.Epoch })
	before := sort.Search(len(all), func(i int) bool { return all[i].First > e.Seq })
	switch {
	case before > opened:
		return o, false, fmt.Errorf("event %d is of epoch %d, and epoch %d was opened before it", e.Seq, e.Epoch, all[before-1].Epoch)
	case before < opened:
		return o, false, fmt.Errorf("event %d is of epoch %d, which was opened before event %d", e.Seq, e.Epoch, all[opened-1].First)
	case opened == 0 || all[opened-1].Epoch != e.Epoch:
		return o, false, nil
	}
	return all[opened-1], true, nil
}
