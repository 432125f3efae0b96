package actors

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// snapshotAfter is the number of events behind the newest snapshot from which
// a deal that leaves memory writes a new one: below it, replaying them is
// cheaper than a write.
const snapshotAfter = 64

// activeSet is the activations of the node, bounded by most. Its order depends
// on nothing but what was added and removed, so that a simulation repeats.
type activeSet struct {
	most int
	mu   sync.Mutex // guards all, and each activation's place in it
	all  []*activation
}

func (s *activeSet) add(a *activation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= s.most {
		return false
	}
	a.place = len(s.all)
	s.all = append(s.all, a)
	return true
}

func (s *activeSet) remove(a *activation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.all) - 1
	s.all[a.place] = s.all[last]
	s.all[a.place].place = a.place
	s.all[last] = nil
	s.all = s.all[:last]
}

func (s *activeSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// list returns the activations that keep accepts.
func (s *activeSet) list(keep func(*activation) bool) []*activation {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*activation
	for _, a := range s.all {
		if keep(a) {
			found = append(found, a)
		}
	}
	return found
}

// sendLeave asks every activation that nobody has used since before to leave.
func (n *Node) sendLeave(before int64) {
	idleFor := n.cfg.PassivateAfter.Milliseconds()
	for _, a := range n.active.list(func(a *activation) bool { return a.lastUsed.Load() <= before }) {
		a.mailbox.PostUserMessage(leave{idleFor})
	}
}

// evict asks the deals that have been idle longest to leave, because the set
// is full. It looks at all of them, so it does so in the background, once a tick at most and
// never twice at a time.
func (n *Node) evict() {
	now := n.clock.Now()
	if n.evicted.Swap(now.Tick) == now.Tick {
		return
	}
	n.once(&n.evicting, "make room for deals", func() error {
		idle := n.active.list(func(a *activation) bool { return a.waiting.InFlight() == 0 })
		slices.SortFunc(idle, func(a, b *activation) int { return cmp.Compare(a.lastUsed.Load(), b.lastUsed.Load()) })
		for _, a := range idle[:min(len(idle), evictedAtOnce)] {
			a.mailbox.PostUserMessage(leave{evictIdle})
		}
		return nil
	})
}

// A full set makes room for this many deals at a time, out of those that were
// idle for at least so many ms: a deal in use is never evicted.
const (
	evictedAtOnce = 64
	evictIdle     = 100
)

// passivate takes a deal out of memory that was idle for idleFor ms. It runs in the actor's turn;
// anything under way or anybody watching keeps the deal where it is, and so do
// events that the lists lack: deriving them would bring it straight back.
func (a *activation) passivate(now, idleFor int64) {
	idle := a.lastUsed.Load()+idleFor <= now
	if !idle || a.uncommitted.Load() != 0 || a.entry.dirty.Load() || a.failed.Load() || !a.leave() {
		return
	}
	// Out of memory a deal owes nothing but its expiries: that it starts or ends
	// is news to nobody who has not asked.
	a.node.setDue(a.entry.id, a.state.NextExpiry())
	var snapshot []byte
	if a.state.Spec != nil && a.state.Seq >= a.snapshot+snapshotAfter {
		snapshot = a.state.AppendSnapshot(nil)
	}
	a.node.background(func() {
		if snapshot != nil {
			if err := a.put(snapshot, a.state.Seq); err != nil {
				a.node.cfg.Logger.Warn("snapshot failed: the next replay is longer", "deal_id", a.entry.id, "error", err)
			}
		}
		a.node.store.Release(a.entry.id, a.epoch)
		a.free()
	})
}

// leave closes the activation to messages and watchers, if there are none.
func (a *activation) leave() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaving = len(a.watchers) == 0 && a.mailbox.closeIfEmpty()
	return a.leaving
}

// save writes the snapshot that p carries and tells those who asked for it.
func (a *activation) save(p *pending, err error) {
	saves, data := append([]save(nil), p.saves...), p.snapshot
	seq, exists := p.view.Seq, p.view.Spec != nil
	a.node.background(func() {
		if err == nil && exists {
			err = a.put(data, seq)
		}
		for _, s := range saves {
			s.done(err)
		}
	})
}

func (a *activation) put(snapshot []byte, seq uint64) error {
	if len(snapshot) > journal.SnapshotMax {
		return fmt.Errorf("snapshot of %d bytes is over the bound of %d", len(snapshot), journal.SnapshotMax)
	}
	return a.node.store.PutSnapshot(a.node.ctx, a.entry.id, a.epoch, seq, snapshot)
}

// free makes room for the deal's next activation. It is called once the mailbox is
// closed, and again if the activation had to end while it was on its way out of memory.
func (a *activation) free() {
	if a.freed.Swap(true) {
		return
	}
	n := a.node
	n.system.Root.Stop(a.pid)
	n.active.remove(a)
	empty := a.loadedEmpty()
	a.entry.active.Store(nil)
	if empty {
		n.directory.remove(a.entry)
	}
	a.board.close()
}

// loadedEmpty says that the journal turned out to hold no such deal: somebody
// tried to create it and did not succeed.
func (a *activation) loadedEmpty() bool {
	return a.loaded.Load() && a.view().Spec == nil && a.waiting.InFlight() == 0
}

// close ends the activation with its node: whatever still waits is bounced.
func (a *activation) close() {
	if !a.failed.Swap(true) {
		a.end()
	}
}

// Snapshot writes a snapshot of every deal in memory, and brings the lists up
// to date. It returns the first error.
func (n *Node) Snapshot(ctx context.Context) error {
	all := n.active.list(func(a *activation) bool { return !a.failed.Load() })
	results := make(chan error, len(all))
	for _, a := range all {
		a.mailbox.PostUserMessage(save{done: func(err error) { results <- err }})
	}
	var first error
	for range all {
		select {
		case err := <-results:
			if first == nil {
				first = err
			}
		case <-ctx.Done():
			return fmt.Errorf("snapshot: %w", context.Cause(ctx))
		}
	}
	if err := n.views.catchUp(ctx); first == nil {
		first = err
	}
	return first
}
