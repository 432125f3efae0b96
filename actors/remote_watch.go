package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
)

// Who watches another node's deal looks at a board that a follower keeps: one for a
// deal, however many watch. It asks the owner for what is new, which answers as soon as
// there is something, or after watchMax.
const (
	watchMax   = 5 * time.Second
	watchSpare = time.Second // for the way there and back
	watchRetry = 50 * time.Millisecond
)

// followers are the deals of other nodes that are watched here.
type followers struct {
	mu     sync.Mutex // guards byDeal
	byDeal map[string]*follower
}

type follower struct {
	board
	node  *Node
	deal  string
	ready chan struct{} // closed when the board shows something, or err says why not
	err   error
}

// boardAnywhere is board for a deal that may be anybody's.
func (n *Node) boardAnywhere(ctx context.Context, dealID string) (b *board, err error) {
	ctx, cancel := n.Patience(ctx)
	defer cancel()
	err = n.atOwner(ctx, dealID, func() (err error) {
		b, err = n.boardHere(ctx, dealID)
		return err
	}, func(string, time.Duration) error {
		f := n.follow(dealID)
		select {
		case <-f.ready:
			b = &f.board
			return f.err
		case <-ctx.Done():
			return fmt.Errorf("%w: its owner does not answer", ErrUnavailable)
		}
	})
	return b, err
}

// follow returns the deal's follower, and starts one if there is none.
func (n *Node) follow(dealID string) *follower {
	n.cluster.followers.mu.Lock()
	defer n.cluster.followers.mu.Unlock()
	f := n.cluster.followers.byDeal[dealID]
	if f == nil {
		f = &follower{board: newBoard(), node: n, deal: dealID, ready: make(chan struct{})}
		n.cluster.followers.byDeal[dealID] = f
		n.background(f.run)
	}
	return f
}

// run follows until nobody watches, the deal has become this node's, or cannot be
// followed. Whoever still watches then looks for another board.
func (f *follower) run() {
	defer f.end()
	f.err = f.poll()
	close(f.ready)
	for f.err == nil && f.node.ctx.Err() == nil {
		err := f.poll()
		if errors.Is(err, errHere) || !f.watched() {
			return
		}
		if err != nil { // it moves, or its owner is away: the board shows what was
			_ = f.node.clock.Sleep(f.node.ctx, watchRetry)
		}
	}
}

func (f *follower) end() {
	f.node.cluster.followers.mu.Lock()
	delete(f.node.cluster.followers.byDeal, f.deal)
	f.node.cluster.followers.mu.Unlock()
	f.board.close()
}

// watched says whether anybody looks at the board; if not, nobody begins to.
func (f *follower) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = len(f.watchers) == 0
	return !f.leaving
}

// errHere: the deal belongs to this node, or will.
var errHere = fmt.Errorf("%w here", errAgain)

// poll asks the owner for what is new.
func (f *follower) poll() error {
	f.mu.Lock()
	seq, status := f.committed.Seq, f.status
	f.mu.Unlock()
	member, self := f.node.cfg.Peers.Owner([]byte(f.deal))
	switch {
	case self:
		return errHere
	case member == "":
		return errAgain
	}
	fields, err := f.node.ask(member, appendWatch(nil, f.deal, seq, status), watchMax+watchSpare)
	if err != nil {
		return err
	}
	var v deal.View
	status, groups, err := readNews(fields, []byte(f.deal), &v, &f.node.cluster.specs)
	if err != nil {
		return err
	}
	f.show(&v, status, groups)
	return nil
}

func (f *follower) show(v *deal.View, status deal.Status, groups []groupChange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v.Seq < f.committed.Seq {
		return // of an owner that is behind
	}
	news := v.Seq != f.committed.Seq || status != f.status
	f.committed, f.status = *v, status
	f.noteGroups(groups)
	if news {
		f.wakeWatchers()
	}
}

// serveWatch answers when the deal is no longer as the other node knows it.
func (n *Node) serveWatch(ctx context.Context, fields []byte) ([]byte, error) {
	id, seq, status, err := readWatch(fields)
	if err != nil {
		return appendOutcome(nil, outcomeMalformed), nil
	}
	if !n.owns(id) {
		return nil, errAgain
	}
	b, err := n.boardHere(ctx, id)
	if err != nil {
		return nil, err
	}
	w := &Watch{node: n, deal: id, at: b, news: make(chan struct{}, 1)}
	if !b.watch(w) {
		return nil, errAgain
	}
	defer w.detach()
	late := make(chan struct{})
	defer n.clock.AfterFunc(watchMax, func() { close(late) })()
	for {
		if news := b.since(seq, status); news != nil {
			return news, nil
		}
		select {
		case <-w.news:
		case <-b.gone:
			return nil, errAgain
		case <-ctx.Done():
			return nil, errAgain
		case <-late:
			return b.since(noSeq, 0), nil
		}
	}
}

// noSeq is no event's: whatever the board shows is news after it.
const noSeq = 1<<64 - 1

// since encodes what the board shows, nil if that is event seq in status.
func (b *board) since(seq uint64, status deal.Status) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.committed.Seq == seq && b.status == status {
		return nil
	}
	var groups []groupChange
	if seq != noSeq {
		b.groups.since(seq, func(c groupChange) { groups = append(groups, c) })
	}
	return appendNews(nil, &b.committed, b.status, groups)
}
