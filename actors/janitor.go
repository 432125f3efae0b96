package actors

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// How often the node looks after itself, by the clock actor's ticks.
const (
	tickEvery  = 5 * time.Millisecond   // deadlines of callers and of deals
	markEvery  = 250 * time.Millisecond // the clock's high-water mark, and a look at the disk
	viewsEvery = time.Second            // lists
	markAhead  = 1000                   // ms that the mark runs ahead of the clock
)

// janitor is the actor that turns the clock's ticks into the node's upkeep.
// It only starts what may take longer than a tick: deadlines do not wait for a disk.
type janitor struct {
	node                   *Node
	mark, views, at, check int64 // Mono ns of the next mark, view pass, passivation and look at the epochs

	looking, marking, checking chore

	groups, sealed uint64 // that the journal had at the last look, and at the last mark that was synced; looking has them
}

// Receive implements actor.Actor.
func (j *janitor) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(clockd.Tick); !ok {
		return
	}
	n, now := j.node, j.node.clock.Now() // not the tick's: it may have queued
	if n.workers != nil {
		n.workers.nudge()
		n.committer.Nudge()
	}
	n.pool.Sweep(now.Mono)
	n.wheel.Due(now.Wall, n.wakeDeal)
	if now.Mono >= j.mark {
		j.mark = now.Mono + int64(markEvery)
		n.once(&j.looking, "look at the disk", j.look)
	}
	if now.Mono >= j.views {
		j.views = now.Mono + int64(viewsEvery)
		for _, v := range n.views {
			n.once(&v.keeping, "lists", func() error { return v.keepUp(n.ctx) })
		}
	}
	if n.cfg.Peers != nil && now.Mono >= j.check {
		j.check = now.Mono + int64(checkEvery)
		n.once(&j.checking, "newer epochs", n.checkOwnership)
	}
	if now.Mono >= j.at {
		j.at = now.Mono + int64(max(n.cfg.PassivateAfter/4, tickEvery))
		n.sendLeave(now.Wall - n.cfg.PassivateAfter.Milliseconds())
	}
}

// look learns whether the disk is full, and marks the time.
func (j *janitor) look() error {
	n := j.node
	stats := n.store.Stats()
	n.readOnly.Store(stats.ReadOnly)
	seals := j.seals(stats.Groups)
	n.once(&j.marking, "clock mark", func() error { return n.markClock(n.ctx, n.clock.Now().Wall+markAhead, seals) })
	return nil
}

// seals says whether this mark is to be synced: the first one after the journal has come
// to rest. A start can then tell damage to the last group from a torn tail, since
// something behind it was synced.
func (j *janitor) seals(groups uint64) bool {
	rests := groups == j.groups && groups != j.sealed && !j.marking.underWay.Load()
	if j.groups = groups; rests {
		j.sealed = groups
	}
	return rests
}

// chore is work that comes again and again.
type chore struct {
	underWay atomic.Bool
	told     atomic.Int64 // Mono of when its failure was reported, 0 = it went well the last time
}

// reportAgain is how often it is said of a chore that it keeps failing.
const reportAgain = 10 * time.Second

// once does a chore in the background, unless the last one is still under way.
func (n *Node) once(c *chore, what string, work func() error) {
	if c.underWay.Swap(true) {
		return
	}
	n.background(func() {
		defer c.underWay.Store(false)
		err := work()
		if err == nil {
			c.told.Store(0)
			return
		}
		if told, now := c.told.Load(), n.clock.Now().Mono; told == 0 || now-told >= int64(reportAgain) {
			c.told.Store(now)
			n.report(what, err)
		}
	})
}

func (n *Node) report(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, journal.ErrReadOnly) {
		n.cfg.Logger.Error("background work failed", "work", what, "error", err)
	}
}

func (n *Node) startJanitor() {
	n.pool.Sweep(n.clock.Now().Mono)
	n.ticks = n.system.Root.Spawn(clockd.Props(n.clock).Configure(actor.WithDispatcher(n.upkeep)))
	n.janitor = n.system.Root.Spawn(actor.PropsFromProducer(
		func() actor.Actor { return &janitor{node: n} },
		actor.WithDispatcher(n.upkeep),
	))
	n.system.Root.Send(n.ticks, clockd.Subscribe{PID: n.janitor, Every: tickEvery})
}

func (n *Node) stopJanitor() {
	if n.janitor == nil {
		return
	}
	for _, pid := range []*actor.PID{n.ticks, n.janitor} {
		if err := n.system.Root.StopFuture(pid).Wait(); err != nil {
			n.cfg.Logger.Warn("actor did not stop", "pid", pid.Id, "error", err)
		}
	}
}

// wakeDeal gives a deal a turn because something of it is due.
func (n *Node) wakeDeal(id string) {
	e := n.directory.find([]byte(id))
	if e == nil {
		return
	}
	a, err := n.activate(e)
	if errors.Is(err, errAgain) {
		return // it is another node's
	}
	if err != nil {
		n.setDue(id, n.clock.Now().Wall+wakeRetry)
		return
	}
	a.mailbox.PostUserMessage(wake{})
}

// The clock's high-water mark keeps time from going back across a restart. It
// is written before any order that carries a later time can be on disk,
// because it runs ahead of the clock and goes through the same log; the price
// is that a node that crashed starts up to markAhead early.
const (
	tableMeta = "meta"
	keyClock  = "clock" // alone, and followed by the member's name with Peers
)

func clockKey(member string) string {
	if member == "" {
		return keyClock
	}
	return keyClock + "/" + member
}

func (n *Node) markClock(ctx context.Context, wall int64, durable bool) error {
	value := binary.BigEndian.AppendUint64(nil, uint64(wall))
	return n.store.Tables().Apply(ctx, []journal.Mutation{{Table: tableMeta, Key: clockKey(n.cfg.Member), Value: value}}, durable)
}

// lastWait is how long the store may take with the last mark. Without it, time starts
// late by markAhead.
const lastWait = time.Second

// lastMark writes the time as it is.
func (n *Node) lastMark() {
	ctx, cancel := context.WithTimeout(context.Background(), lastWait)
	defer cancel()
	if err := n.markClock(ctx, n.clock.Now().Wall, true); err != nil {
		n.cfg.Logger.Warn("the clock's mark was not written: time may start up to a second late", "error", err)
	}
}

// ClockFloor returns the wall time, in Unix ms, that a clock over this store must not
// start before; 0 for a new store. member is Config.Member: other nodes' clocks are
// their own, and a deal's time does not go back whoever has it.
func ClockFloor(ctx context.Context, tables journal.Tables, member string) (int64, error) {
	floor, err := clockMark(ctx, tables, keyClock)
	if err != nil || member == "" {
		return floor, err
	}
	own, err := clockMark(ctx, tables, clockKey(member))
	return max(floor, own), err
}

func clockMark(ctx context.Context, tables journal.Tables, key string) (int64, error) {
	value, err := tables.Get(ctx, tableMeta, key)
	if errors.Is(err, journal.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("actors: the clock's high-water mark has %d bytes", len(value))
	}
	return int64(binary.BigEndian.Uint64(value)), nil
}
