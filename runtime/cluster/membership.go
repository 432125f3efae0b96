package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// How a node remains a member. run joins, remains until the lease is lost, tells the
// Handler, and joins again. While it is a member, three goroutines are at work: watch
// hears of the members, keep renews the lease, and follow, on run's own goroutine, is
// the only one that publishes and that speaks to the Handler.
//
// Times are parts of the TTL.
const (
	renewsPerTTL  = 3  // renewals, and attempts to join or to watch again
	beatsPerTTL   = 40 // follow wakes that often, to see whether it was asleep
	pausesPerTTL  = 4  // being late by one of these is having been asleep
	settlesPerTTL = 20 // a member that went away is kept for one of these: see follow

	// displacedTTLs is how long a node stays away whose address another one has taken.
	// Two that are told the same address would else chase each other.
	displacedTTLs = 10
)

var (
	errGone      = fmt.Errorf("%w: its record is gone", ErrLost)
	errAsleep    = fmt.Errorf("%w: this process stood still for too long", ErrLost)
	errDisplaced = fmt.Errorf("%w: another node has joined under the same address", ErrLost)
)

// run is the life of the membership, until ctx ends.
func (c *Cluster) run(ctx context.Context) {
	defer close(c.ended)
	for c.join(ctx) {
		if errors.Is(c.remain(ctx), errDisplaced) {
			_ = c.cfg.Clock.Sleep(ctx, displacedTTLs*c.cfg.TTL)
		}
	}
}

// join writes this node down under a new id. It reports false when ctx ends.
func (c *Cluster) join(ctx context.Context) bool {
	for ctx.Err() == nil {
		self := c.newSelf()
		c.self.Store(&self)
		err := c.try(ctx, func(ctx context.Context) error { return c.cfg.Registry.Join(ctx, self, c.cfg.TTL) })
		if err == nil {
			c.cfg.Logger.Info("cluster: joined", slog.String("member", self.ID), slog.String("address", self.Address))
			return true
		}
		c.mu.Lock()
		c.problem = err
		c.mu.Unlock()
		c.cfg.Logger.Warn("cluster: cannot join", slog.Any("error", err))
		c.pause(ctx)
	}
	return false
}

// newSelf is this node in a new life, whose id sorts behind those of the earlier ones:
// of these a record may still be there.
func (c *Cluster) newSelf() Member {
	c.born = max(c.cfg.Clock.Now().Wall, c.born+1)
	return Member{
		ID:      fmt.Sprintf("%012x-%08x", c.born, rand.Uint32()),
		Address: c.cfg.Advertise, Leaving: c.leaving.Load(),
		Version: c.cfg.Version, HTTP: c.cfg.HTTP, Admin: c.cfg.Admin,
	}
}

// try calls the registry about the lease, which lasts for a TTL from before the call
// if that succeeds.
func (c *Cluster) try(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TTL/renewsPerTTL)
	defer cancel()
	start := clockd.Mono()
	err := call(ctx)
	if err == nil {
		c.leaseEnd.Store(start + int64(c.cfg.TTL))
	}
	return err
}

// pause waits before the registry is bothered again.
func (c *Cluster) pause(ctx context.Context) { _ = c.cfg.Clock.Sleep(ctx, c.cfg.TTL/renewsPerTTL) }

// remain returns why the lease is lost, when the Handler has been told of it, or when
// ctx has ended.
func (c *Cluster) remain(ctx context.Context) error {
	life, end := context.WithCancelCause(ctx)
	views := make(chan []Member, 1)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	helpers.Go(func() { c.watch(life, views) })
	helpers.Go(func() { end(c.keep(life)) })
	why := c.follow(life, views)
	end(why)
	if ctx.Err() == nil {
		c.lose(why)
	}
	return why
}

// watch hears of the members until ctx ends. Of views that follow has not taken, the
// last one counts.
func (c *Cluster) watch(ctx context.Context, views chan []Member) {
	for {
		err := c.cfg.Registry.Watch(ctx, func(members []Member) {
			select {
			case <-views:
			default:
			}
			views <- members
		})
		if ctx.Err() != nil {
			return
		}
		c.cfg.Logger.Warn("cluster: lost sight of the members; they stay as they are", slog.Any("error", err))
		c.pause(ctx)
	}
}

// keep renews the lease until it is lost or ctx ends, and says why.
func (c *Cluster) keep(ctx context.Context) error {
	ticks, stop := c.ticks(renewsPerTTL)
	defer stop()
	c.away.Store(false)
	for {
		reachable := !c.away.Load()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticks:
		case <-c.marked:
		}
		err := c.mark(ctx)
		if err == nil {
			err = c.try(ctx, c.cfg.Registry.Renew)
		} else if c.away.Load() {
			select {
			case c.unmarked <- err:
			default:
			}
		}
		switch {
		case errors.Is(err, ErrLost):
			return err
		case err != nil && reachable && ctx.Err() == nil:
			c.cfg.Logger.Warn("cluster: the registry does not answer; going on without", slog.Any("error", err))
		case err == nil && !reachable:
			c.cfg.Logger.Info("cluster: the registry answers again, and the lease lasts")
		}
		c.away.Store(err != nil)
	}
}

// mark writes down that this node is leaving, if that is so and not yet written.
func (c *Cluster) mark(ctx context.Context) error {
	self := *c.self.Load()
	if self.Leaving == c.leaving.Load() {
		return nil
	}
	self.Leaving = true
	if err := c.try(ctx, func(ctx context.Context) error { return c.cfg.Registry.Update(ctx, self) }); err != nil {
		return err
	}
	c.self.Store(&self)
	return nil
}

// ticks sends on a channel the given number of times in a TTL, if anybody receives.
func (c *Cluster) ticks(perTTL int) (ticks <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	return ch, c.cfg.Clock.Every(c.cfg.TTL/time.Duration(perTTL), func() {
		select {
		case ch <- struct{}{}:
		default:
		}
	})
}

// follow publishes what watch hears, and says why the lease is lost.
//
// A member that went away is kept for a moment. When a registry comes back after a long
// silence, all leases end at once and all members join anew within milliseconds; whoever
// believed each removal would pull all deals to itself and give them back.
func (c *Cluster) follow(ctx context.Context, views <-chan []Member) error {
	ticks, stop := c.ticks(beatsPerTTL)
	defer stop()
	c.beat.Store(clockd.Mono())
	var view []Member // not published yet
	var since int64   // when it, or the first one that it replaced, came
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case view = <-views:
			if why := c.missing(view); why != nil {
				return why
			}
		case <-ticks:
		}
		if !c.Awake() {
			return errAsleep
		}
		now := clockd.Mono()
		c.beat.Store(now)
		if view == nil {
			continue
		}
		if since == 0 {
			since = now
		}
		if now-since >= int64(c.cfg.TTL/settlesPerTTL) || !c.Topology().drops(view) {
			c.tell(newTopology(c.Topology().Version+1, view, c.self.Load().ID), false)
			view, since = nil, 0
		}
	}
}

// missing says why this node is not among the members, or nil if it is.
func (c *Cluster) missing(view []Member) error {
	self := c.self.Load()
	gone := errGone
	for _, m := range view {
		switch {
		case m.ID == self.ID:
			gone = nil
		case m.Address == self.Address && m.ID > self.ID:
			return errDisplaced
		}
	}
	return gone
}

// Awake reports that this process has not stood still beyond its lease without having
// noticed yet. It reads the clock, so it is for each batch or answer, not for each
// order. A pause that the monotonic clock does not count, as that of some virtual
// machines, is only noticed with the next renewal.
func (c *Cluster) Awake() bool {
	now := clockd.Mono()
	return now < c.leaseEnd.Load() || now-c.beat.Load() < int64(c.cfg.TTL/pausesPerTTL)
}

// lose ends this node's life as a member.
func (c *Cluster) lose(why error) {
	c.cfg.Logger.Error("cluster: no longer a member", slog.Any("error", why))
	others := slices.DeleteFunc(slices.Clone(c.Topology().Members), func(m Member) bool { return m.Address == c.cfg.Advertise })
	c.tell(newTopology(c.Topology().Version+1, others, ""), true)
}

// tell makes a topology the current one, for everybody, in an order in which nobody
// acts on an old one after the Handler has been told.
func (c *Cluster) tell(t *Topology, lost bool) {
	old := c.Topology()
	if !lost && old.Self == t.Self && slices.Equal(old.Members, t.Members) {
		return
	}
	c.topology.Store(t)
	c.cfg.Logger.Info("cluster: members", slog.Int("count", len(t.Members)), slog.Any("addresses", t.addresses()))
	c.links.changed(t)
	c.system.EventStream.Publish(protoTopology(old, t))
	if lost {
		c.handler.Lost()
	}
	c.handler.Changed(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.next)
	c.next = make(chan struct{})
}
