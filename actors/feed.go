package actors

import (
	"context"
	"fmt"
	"sync"

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

// since calls fn with the newest change of each group after seq, oldest first. A ring that
// is nil has none.
func (g *groupRing) since(seq uint64, fn func(groupChange)) {
	if g == nil {
		return
	}
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

// board shows the committed state of a deal to those who watch it.
type board struct {
	gone chan struct{} // closed when there is another one to look at

	mu        sync.Mutex // guards the rest
	committed deal.View
	status    deal.Status
	leaving   bool                // nobody may begin to watch
	groups    *groupRing          // nil until there is one
	watchers  map[*Watch]struct{} // nil until there is one
}

func newBoard() board {
	return board{gone: make(chan struct{})}
}

// close sends the watchers on to the next board.
func (b *board) close() {
	close(b.gone)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaving = true
	b.wakeWatchers()
}

// publish makes what p brought the deal's committed state.
func (a *activation) publish(p *pending) {
	a.mu.Lock()
	news := p.view.Seq != a.committed.Seq || p.status != a.status
	a.committed, a.status, a.expiry = p.view, p.status, p.expiry
	a.noteGroups(p.groups)
	if news {
		a.wakeWatchers()
	}
	if p.Count > 0 {
		a.fresh.add(p.Seq-1, p.placed)
	}
	a.mu.Unlock()
	a.soldOut.Store(p.soldOut)
	if p.Count > 0 {
		a.node.views.touch(a.entry)
	}
}

// noteGroups is called with b.mu held.
func (b *board) noteGroups(changes []groupChange) {
	if len(changes) > 0 && b.groups == nil {
		b.groups = new(groupRing) // some kilobytes, which most deals do without
	}
	for _, c := range changes {
		b.groups.add(c)
	}
}

// view returns the deal's committed state.
func (b *board) view() deal.View {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.committed
}

// wakeWatchers is called with b.mu held.
func (b *board) wakeWatchers() {
	for w := range b.watchers {
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

// Watch follows one deal. It belongs to one goroutine. It holds no backlog: a
// reader that is slow finds the newest state at its next turn.
type Watch struct {
	node *Node
	deal string
	at   *board
	news chan struct{}

	seen   uint64
	view   deal.View
	status deal.Status
}

// Watch begins to follow a deal after event seen, 0 = from its present state
// on. The caller must Close it. ErrDealNotFound, ErrUnavailable.
func (n *Node) Watch(dealID string, seen uint64) (*Watch, error) {
	w := &Watch{node: n, deal: dealID, news: make(chan struct{}, 1), seen: seen}
	if err := w.attach(); err != nil {
		return nil, err
	}
	return w, nil
}

// attach joins the deal's present board. If it cannot, the watch stays with the one
// before. It waits no longer than any request does.
func (w *Watch) attach() error {
	ctx, cancel := w.node.Patience(w.node.ctx)
	defer cancel()
	for {
		b, err := w.node.board(ctx, w.deal)
		if err != nil {
			return err
		}
		if b.watch(w) {
			w.at = b
			break
		}
		select {
		case <-b.gone:
		case <-ctx.Done():
			return fmt.Errorf("%w: it is on its way out of memory", ErrUnavailable)
		}
	}
	select {
	case w.news <- struct{}{}: // look at what there is
	default:
	}
	return nil
}

// board returns where a deal's committed state is shown.
func (n *Node) board(ctx context.Context, dealID string) (*board, error) {
	if n.cfg.Peers != nil {
		return n.boardAnywhere(ctx, dealID)
	}
	return n.boardHere(ctx, dealID)
}

func (n *Node) boardHere(ctx context.Context, dealID string) (*board, error) {
	e, err := n.entry(ctx, dealID)
	if err != nil {
		return nil, err
	}
	a, err := n.awakeInTime(ctx, e)
	if err != nil {
		return nil, err
	}
	return &a.board, nil
}

// watch adds a watcher, unless the board is on its way out.
func (b *board) watch(w *Watch) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leaving {
		return false
	}
	if b.watchers == nil { // most deals do without one
		b.watchers = map[*Watch]struct{}{}
	}
	b.watchers[w] = struct{}{}
	return true
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
		select {
		case <-w.at.gone:
			w.detach()
			if err := w.attach(); err != nil {
				return nil, err
			}
		default:
		}
		if updates := w.collect(); len(updates) > 0 {
			return updates, nil
		}
	}
}

// collect compares the deal's committed state with what this watch has shown.
func (w *Watch) collect() []Update {
	b := w.at
	b.mu.Lock()
	defer b.mu.Unlock()
	v, status := b.committed, b.status
	base := Update{Seq: v.Seq, View: v, Status: status}
	var updates []Update
	b.groups.since(w.seen, func(c groupChange) {
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
	if status != w.status { // of a watch that was resumed too: the clock changes it without an event
		u := base
		u.Kind = UpdateStatus
		updates = append(updates, u)
	}
	w.seen, w.view, w.status = v.Seq, v, status
	return updates
}

// Close ends the watch.
func (w *Watch) Close() { w.detach() }
