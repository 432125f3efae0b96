package actors

import (
	"github.com/doorbuster/doorbuster/actors/deal"
)

// UpdateKind says what an Update tells.
type UpdateKind uint8

// What changes in a deal that somebody may watch.
const (
	UpdateStock UpdateKind = iota + 1
	UpdateStatus
	UpdateGroup
)

// Update is one thing that changed, as of event Seq.
type Update struct {
	Kind   UpdateKind
	Seq    uint64
	View   deal.View
	Status deal.Status
	Group  deal.GroupView // UpdateGroup
}

// groupChange is a group as event seq left it.
type groupChange struct {
	seq   uint64
	group deal.GroupView
}

// groupRing keeps the newest changes of groups; a watcher that is further
// behind than its length misses the oldest, and never the newest, state.
type groupRing struct {
	changes [64]groupChange
	next    int
}

func (g *groupRing) add(c groupChange) {
	g.changes[g.next%len(g.changes)] = c
	g.next++
}

// since calls fn with the newest change of each group after seq, oldest first.
func (g *groupRing) since(seq uint64, fn func(groupChange)) {
	first := max(0, g.next-len(g.changes))
	for i := first; i < g.next; i++ {
		c := g.changes[i%len(g.changes)]
		if c.seq > seq && !g.changedAfter(i, c.group.Seq) {
			fn(c)
		}
	}
}

func (g *groupRing) changedAfter(i int, group uint64) bool {
	for i++; i < g.next; i++ {
		if g.changes[i%len(g.changes)].group.Seq == group {
			return true
		}
	}
	return false
}

// publish makes what p brought the deal's committed state.
func (a *activation) publish(p *pending) {
	a.mu.Lock()
	news := p.view.Seq != a.committed.Seq || p.status != a.status
	a.committed, a.status, a.expiry = p.view, p.status, p.expiry
	for _, c := range p.groups {
		a.groups.add(c)
	}
	if news {
		a.wakeWatchers()
	}
	if p.Count > 0 {
		a.fresh.add(p.Seq, p.Data)
	}
	a.mu.Unlock()
	a.soldOut.Store(p.soldOut)
	if p.Count > 0 {
		a.node.views.touch(a.entry)
	}
}

// view returns the deal's committed state.
func (a *activation) view() deal.View {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.committed
}

// wakeWatchers is called with a.mu held.
func (a *activation) wakeWatchers() {
	for w := range a.watchers {
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

// Watch follows one deal. It belongs to one goroutine. It holds no backlog: a
// reader that is slow finds the newest state at its next turn.
type Watch struct {
	node  *Node
	entry *entry
	at    *activation
	news  chan struct{}

	seen   uint64
	view   deal.View
	status deal.Status
}

// Watch begins to follow a deal after event seen, 0 = from its present state
// on. The caller must Close it. ErrDealNotFound, ErrUnavailable.
func (n *Node) Watch(dealID string, seen uint64) (*Watch, error) {
	e := n.directory.find([]byte(dealID))
	if e == nil {
		return nil, ErrDealNotFound
	}
	w := &Watch{node: n, entry: e, news: make(chan struct{}, 1), seen: seen}
	if err := w.attach(); err != nil {
		return nil, err
	}
	return w, nil
}

// attach joins the deal's present activation. If it cannot, the watch stays with the
// one before.
func (w *Watch) attach() error {
	for {
		a, err := w.node.awake(w.entry)
		if err != nil {
			return err
		}
		if a.watch(w) {
			w.at = a
			break
		}
		<-a.gone
	}
	select {
	case w.news <- struct{}{}: // look at what there is
	default:
	}
	return nil
}

// watch adds a watcher, unless the activation is on its way out of memory.
func (a *activation) watch(w *Watch) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.leaving {
		a.watchers[w] = struct{}{}
	}
	return !a.leaving
}

func (w *Watch) detach() {
	w.at.mu.Lock()
	delete(w.at.watchers, w)
	w.at.mu.Unlock()
}

// Next waits for news and returns it, or nothing when stop is closed first.
func (w *Watch) Next(stop <-chan struct{}) ([]Update, error) {
	for {
		select {
		case <-stop:
			return nil, nil
		case <-w.news:
		}
		if w.at.failed.Load() {
			<-w.at.gone
			w.detach()
			if err := w.attach(); err != nil {
				return nil, err
			}
		}
		if updates := w.collect(); len(updates) > 0 {
			return updates, nil
		}
	}
}

// collect compares the deal's committed state with what this watch has shown.
func (w *Watch) collect() []Update {
	a := w.at
	a.mu.Lock()
	defer a.mu.Unlock()
	v, status := a.committed, a.status
	base := Update{Seq: v.Seq, View: v, Status: status}
	var updates []Update
	a.groups.since(w.seen, func(c groupChange) {
		u := base
		u.Kind, u.Seq, u.Group = UpdateGroup, c.seq, c.group
		updates = append(updates, u)
	})
	first := w.view.Spec == nil
	if w.seen != v.Seq && (first || v.Available != w.view.Available || v.Reserved != w.view.Reserved || v.Sold != w.view.Sold || v.Stock != w.view.Stock) {
		u := base
		u.Kind = UpdateStock
		updates = append(updates, u)
	}
	if status != w.status && (!first || w.seen != v.Seq) {
		u := base
		u.Kind = UpdateStatus
		updates = append(updates, u)
	}
	w.seen, w.view, w.status = v.Seq, v, status
	return updates
}

// Close ends the watch.
func (w *Watch) Close() { w.detach() }
