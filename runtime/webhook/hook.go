package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Bounds of a webhook.
const (
	urlMax    = 2048 // bytes
	secretMin = 16   // bytes
	secretMax = 256
	// PerMerchant bounds the webhooks of one merchant, hooksMax those of all.
	PerMerchant = 16
	hooksMax    = 4096
)

// Types are the events that a webhook can ask for.
var Types = []string{
	"order.placed", "order.confirmed", "order.cancelled", "order.expired", "order.refunded", "group.failed",
	"deal.sold_out", "deal.ended", "rule.switched_off", "rule.rolled_back", TypeDisabled,
}

// TypeDisabled is raised for a merchant of whose webhooks one was disabled.
const TypeDisabled = "webhook.disabled"

// Hook is one receiver of a merchant. Times are Unix ms, 0 = not.
type Hook struct {
	Merchant  string   `json:"merchant"`
	ID        string   `json:"id"`
	URL       string   `json:"url"`
	Events    []string `json:"events"` // of Types
	Secret    string   `json:"secret"` // the key of the signatures
	CreatedAt int64    `json:"created_at"`

	FailingSince int64  `json:"failing_since,omitempty"`
	DisabledAt   int64  `json:"disabled_at,omitempty"`
	LastError    string `json:"last_error,omitempty"` // of the failure that lasts
}

// sameReceiver says whether two hooks differ in nothing but how deliveries went.
func (h *Hook) sameReceiver(other *Hook) bool {
	return h.URL == other.URL && h.Secret == other.Secret && h.CreatedAt == other.CreatedAt && slices.Equal(h.Events, other.Events)
}

// take takes over how deliveries went.
func (h *Hook) take(other *Hook) {
	h.FailingSince, h.DisabledAt, h.LastError = other.FailingSince, other.DisabledAt, other.LastError
}

// FieldError says which field of a Hook is at fault.
type FieldError struct{ Field, Message string }

func (e *FieldError) Error() string { return e.Field + " " + e.Message }

// validate refuses what could never be delivered. What a name resolves to is
// checked at each connection.
func (h *Hook) validate(loopback bool) error {
	u, err := url.Parse(h.URL)
	switch {
	case err != nil || len(h.URL) > urlMax || u.Host == "" || u.User != nil || u.Fragment != "":
		return &FieldError{"url", fmt.Sprintf("must be an absolute URL of at most %d bytes, without user or fragment", urlMax)}
	case u.Scheme == "http" && loopback && isLoopbackHost(u.Hostname()):
	case u.Scheme != "https":
		return &FieldError{"url", "must begin with https://"}
	}
	if len(h.Events) == 0 {
		return &FieldError{"events", "must name one at least"}
	}
	for i, e := range h.Events {
		if !slices.Contains(Types, e) || slices.Contains(h.Events[:i], e) {
			return &FieldError{fmt.Sprintf("events[%d]", i), "must be one of " + strings.Join(Types, ", ") + ", once"}
		}
	}
	if len(h.Secret) < secretMin || len(h.Secret) > secretMax {
		return &FieldError{"secret", fmt.Sprintf("must be %d to %d bytes", secretMin, secretMax)}
	}
	return nil
}

func isLoopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Event is one thing that happened, as receivers see it.
type Event struct {
	ID        string          `json:"event_id"` // the same at every delivery
	Type      string          `json:"type"`
	CreatedAt string          `json:"created_at"`
	Data      json.RawMessage `json:"data"`
}

// Place is a position in a topic. The zero place is its beginning.
type Place struct {
	Seq  uint64 // of the last event before it
	Mark int64  // the source's own
}

// Source is where events come from. Reading the same place again gives the same
// events.
type Source interface {
	// Read calls fn for the events of a topic behind a place that are of one of the
	// types, each with the place behind it, and returns the place that it came to. ErrStop of fn ends it, and
	// the event for which fn returned it is not part of what was read.
	Read(ctx context.Context, topic string, after Place, types []string, fn func(Event, Place) error) (Place, error)
	// Topics calls fn for each topic of a merchant, with the place of its end and
	// when it next has something to tell by itself (Unix ms, 0 = never).
	Topics(ctx context.Context, merchant string, fn func(topic string, end Place, due int64) error) error
}

// ErrStop ends a Read.
var ErrStop = errors.New("webhook: enough")

// ErrNotFound says that a merchant has no webhook of that id.
var ErrNotFound = errors.New("webhook: no such webhook")

// ErrTooMany says that there may be no more webhooks.
var ErrTooMany = errors.New("webhook: too many webhooks")
