package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster"
)

// roundsPerTTL is how often in a TTL a watcher looks for members that are silent. A
// member renews three times in one.
const roundsPerTTL = 6

// sighting is a Lease as it was last seen.
type sighting struct {
	lease  lease
	member cluster.Member
	at     int64 // Mono at which it changed, or from which on its silence counts
}

// watcher follows the Leases of a cluster.
type watcher struct {
	*Registry
	seen    map[string]*sighting // by the Lease's name
	version string               // of the newest change that was seen
	heard   int64                // Mono of the last event
	changed func([]cluster.Member)
}

// event is a line of a watch.
type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// Watch lists the Leases, follows them, and deletes those that are not renewed.
func (r *Registry) Watch(ctx context.Context, changed func([]cluster.Member)) error {
	w := &watcher{Registry: r, seen: map[string]*sighting{}, changed: changed, heard: clockd.Mono()}
	if err := w.list(ctx); err != nil {
		return wrap("listing", err)
	}
	for {
		// The API ends a watch now and then; the next one goes on where it was.
		err := w.follow(ctx)
		if err == nil {
			err = w.clock.Sleep(ctx, w.ttl/roundsPerTTL)
		}
		if err != nil {
			return wrap("watching", err)
		}
	}
}

func (r *Registry) selector() url.Values {
	return url.Values{"labelSelector": {labelKey + "=" + r.name}}
}

func (w *watcher) list(ctx context.Context) error {
	var list leaseList
	if err := w.api.do(ctx, http.MethodGet, "", w.selector(), nil, &list); err != nil {
		return err
	}
	for i := range list.Items {
		w.put(&list.Items[i])
	}
	w.version = list.Metadata.ResourceVersion
	w.tell()
	return nil
}

// put remembers a Lease as it is now, and reports whether its record is new.
func (w *watcher) put(l *lease) bool {
	s := w.seen[l.Metadata.Name]
	if s == nil {
		s = &sighting{}
		w.seen[l.Metadata.Name] = s
	}
	was := s.member
	s.lease, s.at, s.member = *l, clockd.Mono(), cluster.Member{}
	err := json.Unmarshal([]byte(l.Metadata.Annotations[recordKey]), &s.member)
	if err != nil || w.name+"-"+s.member.ID != l.Metadata.Name {
		w.log.Warn("k8s: not a member's Lease", slog.String("lease", l.Metadata.Name))
		s.member = cluster.Member{}
	}
	return s.member != was
}

// tell tells of all members.
func (w *watcher) tell() {
	members := make([]cluster.Member, 0, len(w.seen))
	for _, s := range w.seen {
		if s.member.ID != "" {
			members = append(members, s.member)
		}
	}
	w.changed(members)
}

// follow watches until the API ends it, which is no error.
func (w *watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	query := w.selector()
	query.Set("watch", "1")
	query.Set("allowWatchBookmarks", "true")
	query.Set("resourceVersion", w.version)
	resp, err := w.api.send(ctx, http.MethodGet, "", query, http.NoBody) //nolint:bodyclose // the reader below closes it
	if err != nil {
		return err
	}
	events := make(chan event)
	var ended error
	go func() {
		defer close(events)
		defer resp.Body.Close() //nolint:errcheck // it was read, or given up
		ended = read(ctx, resp.Body, events)
	}()
	defer func() {
		cancel()
		for range events { // until the reader is gone
		}
	}()
	rounds := make(chan struct{}, 1)
	defer w.clock.Every(w.ttl/roundsPerTTL, func() {
		select {
		case rounds <- struct{}{}:
		default:
		}
	})()
	for {
		select {
		case e, more := <-events:
			if !more {
				return ended
			}
			if err := w.apply(e); err != nil {
				return err
			}
		case <-rounds:
			if err := w.expire(ctx); err != nil {
				return err
			}
		}
	}
}

// read sends what a watch says until it ends.
func read(ctx context.Context, body io.Reader, events chan<- event) error {
	lines := json.NewDecoder(body)
	for {
		var e event
		if err := lines.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case events <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watcher) apply(e event) error {
	w.heard = clockd.Mono()
	if e.Type == "ERROR" {
		// 410: the version from which to go on is forgotten. The list is read again.
		return fmt.Errorf("the API ends the watch: %.*s", complaint, e.Object)
	}
	var l lease
	if err := json.Unmarshal(e.Object, &l); err != nil {
		return err
	}
	w.version = l.Metadata.ResourceVersion
	news := false
	switch e.Type {
	case "ADDED", "MODIFIED":
		news = w.put(&l)
	case "DELETED":
		delete(w.seen, l.Metadata.Name)
		news = true
	}
	if news {
		w.tell()
	}
	return nil
}

// expire deletes the Leases that have not changed for their duration, and says when
// this watch cannot be trusted.
func (w *watcher) expire(ctx context.Context) error {
	now := clockd.Mono()
	if now-w.heard > int64(w.ttl)/2 {
		// Not even our own renewals are heard: it is us, or the API.
		for _, s := range w.seen {
			s.at = now
		}
		return nil
	}
	for name, s := range w.seen {
		if name == w.lease || now-s.at <= int64(s.lasts(w.ttl)) {
			continue
		}
		if err := w.remove(ctx, s); err != nil {
			return err
		}
		s.at = now // its deletion will be heard of
	}
	return nil
}

// lasts is how long a Lease lasts; one that does not say so, as long as ours.
func (s *sighting) lasts(ours time.Duration) time.Duration {
	if s.lease.Spec.LeaseDurationSeconds <= 0 {
		return ours
	}
	return time.Duration(s.lease.Spec.LeaseDurationSeconds) * time.Second
}

// remove deletes a Lease if it is still as it was seen.
func (w *watcher) remove(ctx context.Context, s *sighting) error {
	ctx, cancel := context.WithTimeout(ctx, w.ttl/roundsPerTTL)
	defer cancel()
	seen := s.lease.Metadata
	err := w.api.do(ctx, http.MethodDelete, seen.Name, nil, &deleteOptions{
		APIVersion: "v1", Kind: "DeleteOptions",
		Preconditions: preconditions{UID: seen.UID, ResourceVersion: seen.ResourceVersion},
	}, nil)
	switch {
	case err == nil:
		w.log.Info("k8s: a member was not heard of for its lease", slog.String("lease", seen.Name))
	case isStatus(err, http.StatusConflict):
		return fmt.Errorf("missed a renewal of %s", seen.Name)
	case isStatus(err, http.StatusNotFound):
	default:
		w.log.Warn("k8s: cannot delete the lease of a member that is not heard of", slog.String("lease", seen.Name), slog.Any("error", err))
	}
	return nil
}
