package main

import (
	"context"
	"errors"
	"time"

	"github.com/doorbuster/doorbuster/gateway"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

// What another node changed is read anew so often, with such pauses, while that fails.
const (
	refreshTries = 60
	refreshPause = time.Second
)

// watchStore keeps the rules, keys and webhooks that this node has in memory as the
// other nodes of its cluster leave them, until unwatch is called.
func (s *server) watchStore() {
	shared, ok := s.store.(journal.Watcher)
	if !ok || s.cluster == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		shared.Watch(ctx, func(c journal.Change) { s.follow(ctx, c) })
	}()
	s.unwatch = func() {
		cancel()
		<-ended
	}
}

// follow takes a change over.
func (s *server) follow(ctx context.Context, c journal.Change) {
	for try := 1; ; try++ {
		err := s.refresh(ctx, c)
		if err == nil || ctx.Err() != nil {
			return
		}
		if try == 1 || try == refreshTries {
			s.log.Error("what another node changed cannot be read", "table", c.Table, "key", c.Key, "tries", try, "error", err)
		}
		if try == refreshTries || s.clock.Sleep(ctx, refreshPause) != nil {
			return
		}
	}
}

func (s *server) refresh(ctx context.Context, c journal.Change) error {
	switch {
	case c.All:
		s.node.Learn("")
		return errors.Join(s.rules.Refresh(ctx, ""), s.refreshKeys(ctx, ""), s.hooks.Refresh(ctx, ""))
	case c.Stream != "":
		s.node.Learn(c.Stream)
	case c.Table == plugins.TableRollout:
		return s.rules.Refresh(ctx, c.Key)
	case c.Table == gateway.TableKeys:
		return s.refreshKeys(ctx, c.Key)
	case c.Table == webhook.TableHooks:
		return s.hooks.Refresh(ctx, c.Key)
	case c.Table == webhook.TableRaised:
		s.hooks.Raised(c.Key)
	}
	return nil
}

func (s *server) refreshKeys(ctx context.Context, id string) error {
	if s.keys == nil {
		return nil
	}
	return s.keys.Refresh(ctx, id)
}

// delivers says whether this node tells webhooks of a topic, which is a deal or
// something that only nodes know of.
func (s *server) delivers(_, topic string) bool {
	if s.cluster == nil {
		return true
	}
	_, self := peers{s.cluster}.Owner([]byte(topic))
	return self
}
