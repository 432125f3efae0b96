package webhook

import (
	"context"
	"strings"
)

// Refresh takes over what other nodes have changed of one hook, or with "" of all.
func (h *Hub) Refresh(ctx context.Context, key string) error {
	h.row.Lock()
	defer h.row.Unlock()
	if key != "" {
		hook, row, err := h.stored(ctx, key)
		if err == nil {
			h.takeOver(key, hook, row != nil)
		}
		return err
	}
	there := make(map[string]bool)
	err := h.cfg.Tables.Scan(ctx, TableHooks, "", "", func(key string, value []byte) error {
		hook, err := decodeHook(key, value)
		if err == nil {
			there[key] = true
			h.takeOver(key, hook, true)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, key := range h.known() {
		if !there[key] {
			h.takeOver(key, Hook{}, false)
		}
	}
	return nil
}

// known returns the keys of all hooks.
func (h *Hub) known() (keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hooks := range h.hooks {
		for _, r := range hooks {
			keys = append(keys, hookKey(&r.hook))
		}
	}
	return keys
}

// takeOver makes a hook as it is stored known, or unknown if there is none.
func (h *Hub) takeOver(key string, hook Hook, there bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	merchant, id, _ := strings.Cut(key, pathSep)
	r := h.hooks[merchant][id]
	switch {
	case !there && r == nil:
	case !there:
		h.forget(merchant, id)
	case r == nil || !r.hook.sameReceiver(&hook) || r.hook.DisabledAt != 0 && hook.DisabledAt == 0:
		h.start(h.put(hook))
	default:
		if r.hook.take(&hook); hook.DisabledAt != 0 {
			r.stop()
		}
	}
}

// Raised says that another node has raised something for a merchant.
func (h *Hub) Raised(merchant string) { h.Touch(merchant, topicRaised, 0) }

// Rescan looks for topics with news: other ones than before may be this node's.
func (h *Hub) Rescan() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hooks := range h.hooks {
		for _, r := range hooks {
			r.look()
		}
	}
}
