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

const (
	tableHooks  = "webhooks"       // merchant 0x00 id → Hook
	tablePlaces = "webhook_places" // merchant 0x00 id 0x00 topic → Place
	closeGrace  = 2 * time.Second
	dueEvery    = time.Second    // how often topics are looked at that have something to tell by themselves
	placesMax   = 1024           // rows of one batch
	disableIn   = 72 * time.Hour // Config.DisableAfter unless it is given
	pathSep     = "\x00"         // between the parts of a key: no id holds it
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
	h := &Hub{
		cfg: cfg, sender: newSender(cfg.Networks, cfg.Loopback), wheel: clockd.NewWheel(),
		hooks: make(map[string]map[string]*runner), tick: func() {},
	}
	h.raised = &raised{tables: cfg.Tables, clock: cfg.Clock}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.sending, h.cut = context.WithCancel(context.Background())
	err := cfg.Tables.Scan(ctx, tableHooks, "", "", func(key string, value []byte) error {
		var hook Hook
		if err := json.Unmarshal(value, &hook); err != nil {
			return fmt.Errorf("webhook %q cannot be read: %w", key, errors.Join(journal.ErrCorrupt, err))
		}
		h.put(hook)
		return nil
	})
	return h, err
}

// Start begins to deliver what source has.
func (h *Hub) Start(source Source) {
	h.source = source
	h.tick = h.cfg.Clock.Every(dueEvery, func() {
		h.wheel.Due(h.cfg.Clock.Now().Wall, func(key string) {
			merchant, topic, _ := strings.Cut(key, pathSep)
			h.Touch(merchant, topic, 0)
		})
	})
	h.mu.Lock()
	defer h.mu.Unlock()
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
	h.stop()
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
	old, err := h.Get(hook.Merchant, hook.ID)
	created = err != nil
	hook.CreatedAt, hook.FailingSince, hook.DisabledAt, hook.LastError = old.CreatedAt, 0, 0, ""
	if created {
		hook.CreatedAt = h.cfg.Clock.Now().Wall
		h.mu.Lock()
		full := len(h.hooks[hook.Merchant]) >= PerMerchant || h.count.Load() >= hooksMax
		h.mu.Unlock()
		if full {
			return false, ErrTooMany
		}
		if err := h.skip(ctx, &hook); err != nil {
			return false, err
		}
	}
	h.row.Lock()
	defer h.row.Unlock()
	if err := h.store(ctx, &hook); err != nil {
		return false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.start(h.put(hook))
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

func (h *Hub) store(ctx context.Context, hook *Hook) error {
	value, err := json.Marshal(hook)
	if err != nil {
		return err
	}
	return h.cfg.Tables.Apply(ctx, []journal.Mutation{{Table: tableHooks, Key: hookKey(hook), Value: value}}, true)
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
	if err := h.cfg.Tables.Apply(ctx, []journal.Mutation{{Table: tableHooks, Key: hookKey(hook)}}, true); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.hooks[hook.Merchant][hook.ID]
	r.cancel()
	delete(h.hooks[hook.Merchant], hook.ID)
	h.count.Add(-1)
	return r, nil
}

// update changes what is known of a runner's hook, unless another took its place.
func (h *Hub) update(r *runner, edit func(*Hook)) error {
	h.row.Lock()
	defer h.row.Unlock()
	h.mu.Lock()
	current := h.hooks[r.hook.Merchant][r.hook.ID] == r
	if current {
		edit(&r.hook)
	}
	hook := r.hook
	h.mu.Unlock()
	if !current {
		return context.Canceled
	}
	return h.store(r.ctx, &hook)
}

func hookKey(h *Hook) string { return h.Merchant + pathSep + h.ID }

func placeRow(h *Hook, topic string, p Place) journal.Mutation {
	value := binary.BigEndian.AppendUint64(nil, p.Seq)
	value = binary.BigEndian.AppendUint64(value, uint64(p.Mark))
	return journal.Mutation{Table: tablePlaces, Key: hookKey(h) + pathSep + topic, Value: value}
}

func (h *Hub) place(ctx context.Context, hook *Hook, topic string) (Place, error) {
	value, err := h.cfg.Tables.Get(ctx, tablePlaces, hookKey(hook)+pathSep+topic)
	if errors.Is(err, journal.ErrNotFound) {
		return Place{}, nil
	}
	if err == nil && len(value) != 16 {
		err = fmt.Errorf("place of %s in %s: %w", hook.ID, topic, journal.ErrCorrupt)
	}
	if err != nil {
		return Place{}, err
	}
	return Place{Seq: binary.BigEndian.Uint64(value), Mark: int64(binary.BigEndian.Uint64(value[8:]))}, nil
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
