package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/gateway"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/webhook"
)

// What another node changed is read anew so often, with such pauses, while that fails; and
// as long as the journal cannot be reached, or a key that was revoked would stay good.
const (
	refreshTries = 60
	refreshPause = time.Second
)

// The servers that carry the journal are asked so often whether they answer. A node that
// none of them has answered for longer than quietMax gets no traffic: another one may
// reach them.
const (
	askEvery = time.Second
	quietMax = 5 * askEvery / 2
)

// watchStore keeps the rules, keys and webhooks that this node has in memory as the
// other nodes of its cluster leave them, and looks whether the journal can be reached,
// until unwatch is called.
func (s *server) watchStore() {
	shared, ok := s.store.(journal.Watcher)
	if !ok || s.cluster == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		shared.Watch(ctx, func(c journal.Change) { s.follow(ctx, c) })
	})
	s.heard.Store(clockd.Mono())
	servers := []journal.Store{s.store}
	if several, ok := s.store.(journal.Sharded); ok {
		servers = several.Shards()
	}
	for _, server := range servers {
		watching.Go(func() { s.listen(ctx, server) })
	}
	s.unwatch = func() {
		cancel()
		watching.Wait()
	}
}

// listen asks one server of the journal whether it answers, until ctx ends.
func (s *server) listen(ctx context.Context, server journal.Store) {
	for ctx.Err() == nil {
		asked := clockd.Mono()
		patience, cancel := context.WithCancel(ctx)
		stop := s.clock.AfterFunc(askEvery, cancel)
		if _, err := server.Superseded(patience, nil, nil); err == nil {
			s.heard.Store(asked)
		}
		stop()
		cancel()
		_ = s.clock.Sleep(ctx, askEvery-time.Duration(clockd.Mono()-asked))
	}
}

// deaf says whether no server of the journal has answered for too long.
func (s *server) deaf() bool {
	heard := s.heard.Load()
	return heard != 0 && clockd.Mono()-heard > int64(quietMax)
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
		if try >= refreshTries && !errors.Is(err, journal.ErrUnreachable) || s.clock.Sleep(ctx, refreshPause) != nil {
			return
		}
	}
}

func (s *server) refresh(ctx context.Context, c journal.Change) error {
	switch {
	case c.All:
		s.node.Learn("")
		err := errors.Join(s.rules.Refresh(ctx, ""), s.refreshKeys(ctx, ""), s.hooks.Refresh(ctx, ""))
		s.hooks.Rescan()
		return err
	case c.Stream != "":
		s.node.Learn(c.Stream)
	case c.Table == plugins.TableRollout:
		err := s.rules.Refresh(ctx, c.Key)
		merchant, rule, _ := strings.Cut(c.Key, "/")
		s.hooks.Touch(merchant, gateway.RuleTopic(merchant, rule), 0)
		return err
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
