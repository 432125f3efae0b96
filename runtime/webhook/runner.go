package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

const (
	batchMax     = 100       // events of one delivery
	batchBytes   = 256 << 10 // of their data, beyond which no more are added
	topicsQueued = 65_536    // topics that one hook remembers; with more it looks for them again
	retryFirst   = time.Second
	retryMost    = 10 * time.Minute
	errorMax     = 256 // bytes of a failure that are kept
)

// runner delivers to one hook.
type runner struct {
	hub     *Hub
	hook    Hook // how deliveries went is guarded by hub.mu, the rest never changes
	ctx     context.Context
	stop    context.CancelFunc
	sending context.Context // of its requests
	cut     context.CancelFunc
	busy    sync.Mutex // held while a topic is delivered and its place written

	mu     sync.Mutex // guards what follows
	queue  []string   // topics with news
	queued map[string]bool
	rescan bool // some topics with news may not be in queue
	wake   chan struct{}
}

// touch queues a topic.
func (r *runner) touch(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.queued[topic]:
	case len(r.queue) >= topicsQueued:
		r.rescan = true
	default:
		r.queued[topic] = true
		r.queue = append(r.queue, topic)
	}
	r.ring()
}

// look has the runner find the topics with news.
func (r *runner) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rescan = true
	r.ring()
}

func (r *runner) ring() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *runner) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue)
}

// cancel ends the runner and its request.
func (r *runner) cancel() {
	r.stop()
	r.cut()
}

// run delivers until the hook is deleted, replaced or disabled.
func (r *runner) run() {
	for wait := retryFirst; r.ctx.Err() == nil; {
		worked, err := r.step()
		switch {
		case err != nil:
			if r.ctx.Err() != nil || r.failed(err) {
				return
			}
			_ = r.hub.cfg.Clock.Sleep(r.ctx, wait/2+rand.N(wait/2))
			wait = min(2*wait, retryMost)
		case worked:
			wait = retryFirst
		default:
			select {
			case <-r.wake:
			case <-r.ctx.Done():
			}
		}
	}
}

// step delivers one batch, or finds the topics that have news, or has nothing to do.
func (r *runner) step() (worked bool, err error) {
	r.mu.Lock()
	topic, found, rescan := "", len(r.queue) > 0, r.rescan
	if found {
		topic = r.queue[0]
		r.queue = r.queue[1:]
		delete(r.queued, topic)
	} else {
		r.rescan = false
	}
	r.mu.Unlock()
	switch {
	case found:
		more, err := r.deliver(topic)
		if more || err != nil {
			r.touch(topic)
		}
		return true, err
	case rescan:
		if err := r.findNews(); err != nil {
			r.mu.Lock()
			r.rescan = true
			r.mu.Unlock()
			return true, err
		}
		return true, nil
	}
	return false, nil
}

// findNews queues every topic of this node that has, or by its mark may have, more than the hook
// was told.
func (r *runner) findNews() error {
	return r.hub.topics(r.ctx, r.hook.Merchant, func(topic string, end Place, due int64) error {
		if !r.hub.cfg.Owns(r.hook.Merchant, topic) {
			return nil
		}
		at, _, err := r.hub.place(r.ctx, &r.hook, topic)
		if err == nil && (at.Seq < end.Seq || at.Mark != end.Mark) {
			r.touch(topic)
		}
		if due != 0 {
			r.hub.wheel.Set(r.hook.Merchant+pathSep+topic, due) // one that has passed is due at once
		}
		return err
	})
}

// delivery is the body of a request.
type delivery struct {
	Webhook string  `json:"webhook_id"`
	Events  []Event `json:"events"`
}

// deliver sends the next events of a topic and then moves its place, unless another
// node has moved it: then what was sent may be sent again.
func (r *runner) deliver(topic string) (more bool, err error) {
	r.busy.Lock()
	defer r.busy.Unlock()
	if !r.hub.cfg.Owns(r.hook.Merchant, topic) {
		return false, nil
	}
	at, row, err := r.hub.place(r.ctx, &r.hook, topic)
	if err != nil {
		return false, err
	}
	events, end, more, err := r.read(topic, at)
	if err != nil {
		return false, err
	}
	if len(events) > 0 {
		if err := r.send(events); err != nil {
			return false, err
		}
	}
	if end == at {
		return more, nil
	}
	ctx := context.WithoutCancel(r.ctx) // what was delivered is noted, though the hub closes
	moved := placeRow(&r.hook, topic, end)
	err = r.hub.cfg.Tables.ApplyIf(ctx, []journal.Expectation{{Table: moved.Table, Key: moved.Key, Value: row}}, []journal.Mutation{moved}, false)
	if errors.Is(err, journal.ErrConflict) {
		return true, nil
	}
	return more, err
}

// read collects the events that the hook asked for, as many as one delivery holds.
func (r *runner) read(topic string, at Place) (events []Event, end Place, more bool, err error) {
	read, size := r.hub.source.Read, 0
	if topic == topicRaised {
		read = r.hub.raised.read(r.hook.Merchant)
	}
	end, err = read(r.ctx, topic, at, r.hook.Events, func(e Event, _ Place) error {
		if len(events) >= batchMax || size >= batchBytes {
			more = true
			return ErrStop
		}
		events = append(events, e)
		size += len(e.Data)
		return nil
	})
	return events, end, more, err
}

// errDelivery is a failure of the receiver's, and not of ours.
type errDelivery struct{ error }

func (e errDelivery) Unwrap() error { return e.error }

func (r *runner) send(events []Event) error {
	body, err := json.Marshal(delivery{r.hook.ID, events})
	if err != nil {
		return err
	}
	if err := r.hub.sender.send(r.sending, &r.hook, r.hub.cfg.Clock.Now().Wall, body); err != nil {
		r.hub.failed.Add(1)
		return errDelivery{err}
	}
	r.hub.delivered.Add(uint64(len(events)))
	if r.failingSince() != 0 {
		return r.hub.update(r, func(h *Hook) { h.FailingSince, h.LastError = 0, "" })
	}
	return nil
}

// failingSince is Hook.FailingSince, which other nodes may change.
func (r *runner) failingSince() int64 {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	return r.hook.FailingSince
}

// failed notes a failure and says whether it was one too many.
func (r *runner) failed(err error) (disabled bool) {
	h, now := r.hub, r.hub.cfg.Clock.Now().Wall
	if theirs := (errDelivery{}); !errors.As(err, &theirs) {
		h.cfg.Logger.Error("webhook: cannot read what to deliver", "merchant_id", r.hook.Merchant, "webhook_id", r.hook.ID, "error", err)
		return false
	}
	text := err.Error()
	text = text[:min(len(text), errorMax)]
	since := r.failingSince()
	disabled = since != 0 && now-since >= h.cfg.DisableAfter.Milliseconds()
	if since != 0 && !disabled {
		return false
	}
	mine := false // and not another node's
	err = h.update(r, func(hook *Hook) {
		if hook.LastError = text; hook.FailingSince == 0 {
			hook.FailingSince = now
		}
		if mine = disabled && hook.DisabledAt == 0; mine {
			hook.DisabledAt = now
		}
	})
	if err != nil {
		h.cfg.Logger.Error("webhook: cannot write that it fails", "webhook_id", r.hook.ID, "error", err)
	}
	if mine {
		h.cfg.Logger.Warn("webhook disabled: it has failed for too long", "merchant_id", r.hook.Merchant, "webhook_id", r.hook.ID, "last_error", text)
		ctx := context.WithoutCancel(r.ctx) // a disabled hook's runner ends
		if err := h.Raise(ctx, r.hook.Merchant, TypeDisabled, map[string]string{"webhook_id": r.hook.ID, "last_error": text}); err != nil {
			h.cfg.Logger.Error("webhook: cannot tell that it is disabled", "webhook_id", r.hook.ID, "error", err)
		}
	}
	return disabled
}
