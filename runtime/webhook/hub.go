package webhook

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// The tables that other nodes' hubs have to hear of. The keys of the first are what
// Refresh takes; the merchants of the second are what Raised does.
const (
	TableHooks  = "webhooks"       // merchant 0x00 id → Hook
	TableRaised = "webhook_raised" // merchant 0x00 seq → Event
)

const (
	tablePlaces  = "webhook_places" // merchant 0x00 id 0x00 topic → Place
	closeGrace   = 2 * time.Second
	dueEvery     = time.Second    // how often topics are looked at that have something to tell by themselves
	placesMax    = 1024           // rows of one batch
	disableIn    = 72 * time.Hour // Config.DisableAfter unless it is given
	conflictsMax = 32             // how often a change is tried again that another node came before
	pathSep      = "\x00"         // between the parts of a key: no id holds it
)

// Config wires a Hub. Fields that are not marked optional are required.
type Config struct {
	Tables journal.Tables
	Clock  *clockd.Clock
	Logger *slog.Logger
	// Loopback allows receivers on this machine, over http too.
	Loopback bool
	// Networks are allowed although they are private. Optional.
	Networks []netip.Prefix
	// DisableAfter is how long a webhook may fail until it is disabled; 0 = 72 h.
	DisableAfter time.Duration
	// Owns says whether this node delivers a topic: of the nodes that share the
	// tables, each topic has one. It may change, with a Rescan. nil: all topics.
	Owns func(merchant, topic string) bool
}

// Hub knows the webhooks and delivers to them. Touch costs one atomic load while
// there are none.
type Hub struct {
	cfg    Config
	sender *sender
	source Source // nil until Start
	raised *raised

	count   atomic.Int64    // of hooks
	wheel   *clockd.Wheel   // merchant 0x00 topic, of topics that have something to tell by themselves
	ctx     context.Context // of the runners
	stop    context.CancelFunc
	sending context.Context // of their requests
	cut     context.CancelFunc
	running sync.WaitGroup
	tick    func() // ends the look at wheel

	change sync.Mutex                    // held by the one Put or Delete under way
	row    sync.Mutex                    // held while a hook changes in its table and in hooks
	mu     sync.Mutex                    // guards hooks
	hooks  map[string]map[string]*runner // by merchant, by id

	delivered, failed atomic.Uint64
}

// New reads the webhooks from the tables. Nothing is delivered before Start.
func New(ctx context.Context, cfg Config) (*Hub, error) {
	if cfg.Tables == nil || cfg.Clock == nil || cfg.Logger == nil {
		return nil, errors.New("webhook: Tables, Clock and Logger are required")
	}
	if cfg.DisableAfter == 0 {
		cfg.DisableAfter = disableIn
	}
	if cfg.Owns == nil {
		cfg.Owns = func(string, string) bool { return true }
	}
	h := &Hub{
		cfg: cfg, sender: newSender(cfg.Networks, cfg.Loopback), wheel: clockd.NewWheel(),
		hooks: make(map[string]map[string]*runner), tick: func() {},
	}
	h.raised = &raised{tables: cfg.Tables, clock: cfg.Clock}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.sending, h.cut = context.WithCancel(context.Background())
	return h, h.Refresh(ctx, "")
}

// Start begins to deliver what source has.
func (h *Hub) Start(source Source) {
	h.tick = h.cfg.Clock.Every(dueEvery, func() {
		h.wheel.Due(h.cfg.Clock.Now().Wall, func(key string) {
			merchant, topic, _ := strings.Cut(key, pathSep)
			h.Touch(merchant, topic, 0)
		})
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.source = source
	for _, hooks := range h.hooks {
		for _, r := range hooks {
			h.start(r)
		}
	}
}

// Close ends the deliveries: those under way have closeGrace to end by themselves.
// What was not delivered is on the next start.
func (h *Hub) Close() {
	h.tick()
	h.mu.Lock() // from now on nothing is started
	h.stop()
	h.mu.Unlock()
	defer h.cfg.Clock.AfterFunc(closeGrace, h.cut)()
	h.running.Wait()
	h.cut()
	h.sender.client.CloseIdleConnections()
}

// Touch says that a topic of a merchant has news, and that it will have something
// to tell by itself at due (Unix ms, 0 = never). It never blocks.
func (h *Hub) Touch(merchant, topic string, due int64) {
	if h.count.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.hooks[merchant] {
		r.touch(topic)
		if due > h.cfg.Clock.Now().Wall {
			h.wheel.Set(merchant+pathSep+topic, due)
		}
	}
}

// put makes a hook known; h.mu is held, or nobody else knows h.
func (h *Hub) put(hook Hook) *runner {
	r := &runner{hub: h, hook: hook, queued: make(map[string]bool), wake: make(chan struct{}, 1), rescan: true}
	r.ctx, r.stop = context.WithCancel(h.ctx)
	r.sending, r.cut = context.WithCancel(h.sending)
	if h.hooks[hook.Merchant] == nil {
		h.hooks[hook.Merchant] = make(map[string]*runner)
	}
	if old := h.hooks[hook.Merchant][hook.ID]; old != nil {
		old.cancel()
	} else {
		h.count.Add(1)
	}
	h.hooks[hook.Merchant][hook.ID] = r
	return r
}

func (h *Hub) start(r *runner) {
	if h.source != nil && r.hook.DisabledAt == 0 && h.ctx.Err() == nil {
		h.running.Go(r.run)
	}
}

// Put makes or replaces a webhook, and enables it. A new one is told what happens
// from now on. *FieldError, ErrTooMany.
func (h *Hub) Put(ctx context.Context, hook Hook) (created bool, err error) {
	if err := hook.validate(h.cfg.Loopback); err != nil {
		return false, err
	}
	h.change.Lock()
	defer h.change.Unlock()
	for range conflictsMax {
		if created, err = h.tryPut(ctx, &hook); !errors.Is(err, journal.ErrConflict) {
			break
		}
	}
	return created, err
}

// tryPut is Put unless another node changes the same hook: journal.ErrConflict.
func (h *Hub) tryPut(ctx context.Context, hook *Hook) (created bool, err error) {
	old, row, err := h.stored(ctx, hookKey(hook))
	if err != nil {
		return false, err
	}
	hook.CreatedAt, hook.FailingSince, hook.DisabledAt, hook.LastError = old.CreatedAt, 0, 0, ""
	if created = row == nil; created {
		hook.CreatedAt = h.cfg.Clock.Now().Wall
		h.mu.Lock()
		full := len(h.hooks[hook.Merchant]) >= PerMerchant || h.count.Load() >= hooksMax
		h.mu.Unlock()
		if full {
			return false, ErrTooMany
		}
		if err := h.skip(ctx, hook); err != nil {
			return false, err
		}
	}
	h.row.Lock()
	defer h.row.Unlock()
	if err := h.store(ctx, hook, row); err != nil {
		return false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.start(h.put(*hook))
	return created, nil
}

// skip puts a new hook behind all that has happened.
func (h *Hub) skip(ctx context.Context, hook *Hook) error {
	var batch []journal.Mutation
	add := func(topic string, end Place, _ int64) error {
		batch = append(batch, placeRow(hook, topic, end))
		if len(batch) < placesMax {
			return nil
		}
		err := h.cfg.Tables.Apply(ctx, batch, false)
		batch = batch[:0]
		return err
	}
	if err := h.topics(ctx, hook.Merchant, add); err != nil {
		return err
	}
	return h.cfg.Tables.Apply(ctx, batch, false)
}

// topics is Source.Topics with what was raised.
func (h *Hub) topics(ctx context.Context, merchant string, fn func(string, Place, int64) error) error {
	end, err := h.raised.end(ctx, merchant)
	if err == nil {
		err = fn(topicRaised, end, 0)
	}
	if err == nil {
		err = h.source.Topics(ctx, merchant, fn)
	}
	return err
}

// stored returns a hook and its row; both are zero if there is none.
func (h *Hub) stored(ctx context.Context, key string) (hook Hook, row []byte, err error) {
	row, err = h.cfg.Tables.Get(ctx, TableHooks, key)
	if errors.Is(err, journal.ErrNotFound) {
		return Hook{}, nil, nil
	}
	if err == nil {
		hook, err = decodeHook(key, row)
	}
	return hook, row, err
}

func decodeHook(key string, row []byte) (hook Hook, err error) {
	if err := json.Unmarshal(row, &hook); err != nil {
		return Hook{}, fmt.Errorf("webhook %q cannot be read: %w", key, errors.Join(journal.ErrCorrupt, err))
	}
	return hook, nil
}

// store writes a hook in the place of its earlier row, nil if there was none.
func (h *Hub) store(ctx context.Context, hook *Hook, row []byte) error {
	value, err := json.Marshal(hook)
	if err != nil {
		return err
	}
	expected := []journal.Expectation{{Table: TableHooks, Key: hookKey(hook), Value: row}}
	return h.cfg.Tables.ApplyIf(ctx, expected, []journal.Mutation{{Table: TableHooks, Key: hookKey(hook), Value: value}}, true)
}

// Get returns a webhook. ErrNotFound.
func (h *Hub) Get(merchant, id string) (Hook, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.hooks[merchant][id]
	if r == nil {
		return Hook{}, ErrNotFound
	}
	return r.hook, nil
}

// Delete ends a webhook and forgets its places. ErrNotFound.
func (h *Hub) Delete(ctx context.Context, merchant, id string) error {
	h.change.Lock()
	defer h.change.Unlock()
	if err := h.Refresh(ctx, merchant+pathSep+id); err != nil { // another node may have made it, or ended it
		return err
	}
	hook, err := h.Get(merchant, id)
	if err != nil {
		return err
	}
	r, err := h.remove(ctx, &hook)
	if err != nil {
		return err
	}
	r.busy.Lock() // its last place is written
	defer r.busy.Unlock()
	var rows []journal.Mutation
	err = h.cfg.Tables.Scan(ctx, tablePlaces, hookKey(&hook)+pathSep, "", func(key string, _ []byte) error {
		rows = append(rows, journal.Mutation{Table: tablePlaces, Key: key})
		return nil
	})
	for part := range slices.Chunk(rows, placesMax) {
		err = errors.Join(err, h.cfg.Tables.Apply(ctx, part, false))
	}
	return err
}

// remove makes a hook unknown and returns its runner, which is ending.
func (h *Hub) remove(ctx context.Context, hook *Hook) (*runner, error) {
	h.row.Lock()
	defer h.row.Unlock()
	if err := h.cfg.Tables.Apply(ctx, []journal.Mutation{{Table: TableHooks, Key: hookKey(hook)}}, true); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.forget(hook.Merchant, hook.ID), nil
}

// forget makes a hook unknown; h.mu is held.
func (h *Hub) forget(merchant, id string) *runner {
	r := h.hooks[merchant][id]
	r.cancel()
	delete(h.hooks[merchant], id)
	h.count.Add(-1)
	return r
}

// update changes what is known of a runner's hook, unless another took its place.
func (h *Hub) update(r *runner, edit func(*Hook)) (err error) {
	h.row.Lock()
	defer h.row.Unlock()
	for range conflictsMax {
		if err = h.tryUpdate(r, edit); !errors.Is(err, journal.ErrConflict) {
			break
		}
	}
	return err
}

// tryUpdate is update unless another node changes the same hook: journal.ErrConflict.
func (h *Hub) tryUpdate(r *runner, edit func(*Hook)) error {
	hook, row, err := h.stored(r.ctx, hookKey(&r.hook))
	if err != nil {
		return err
	}
	if row == nil || !hook.sameReceiver(&r.hook) {
		return context.Canceled
	}
	edit(&hook)
	if err := h.store(r.ctx, &hook, row); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.hook.take(&hook)
	return nil
}

func hookKey(h *Hook) string { return h.Merchant + pathSep + h.ID }

func placeRow(h *Hook, topic string, p Place) journal.Mutation {
	value := binary.BigEndian.AppendUint64(nil, p.Seq)
	value = binary.BigEndian.AppendUint64(value, uint64(p.Mark))
	return journal.Mutation{Table: tablePlaces, Key: hookKey(h) + pathSep + topic, Value: value}
}

// place returns how far a topic was delivered, and the row that says so, nil if none does.
func (h *Hub) place(ctx context.Context, hook *Hook, topic string) (at Place, row []byte, err error) {
	row, err = h.cfg.Tables.Get(ctx, tablePlaces, hookKey(hook)+pathSep+topic)
	if errors.Is(err, journal.ErrNotFound) {
		return Place{}, nil, nil
	}
	if err == nil && len(row) != 16 {
		err = fmt.Errorf("place of %s in %s: %w", hook.ID, topic, journal.ErrCorrupt)
	}
	if err != nil {
		return Place{}, nil, err
	}
	return Place{Seq: binary.BigEndian.Uint64(row), Mark: int64(binary.BigEndian.Uint64(row[8:]))}, row, nil
}

// Stats is what a Hub tells of itself. Counters count since it was made.
type Stats struct {
	Hooks     int
	Failing   int    // not disabled, and the last delivery failed
	Disabled  int    // now
	Waiting   int    // topics with news that are not delivered yet, of all hooks
	Delivered uint64 // events
	Failed    uint64 // deliveries
	Dropped   uint64 // raised events that nobody had taken when newer ones needed the room
}

// Stats returns the present numbers.
func (h *Hub) Stats() Stats {
	st := Stats{Delivered: h.delivered.Load(), Failed: h.failed.Load(), Dropped: h.raised.dropped.Load()}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hooks := range h.hooks {
		for _, r := range hooks {
			st.Hooks++
			switch {
			case r.hook.DisabledAt != 0:
				st.Disabled++
			case r.hook.FailingSince != 0:
				st.Failing++
			}
			st.Waiting += r.waiting()
		}
	}
	return st
}
