package gateway

import (
	"context"
	"fmt"
	"sync"
)

// places bounds what is under way of one kind: each takes a place, and nobody but
// an operator takes more than a share of them, so that no caller keeps the others
// out.
type places struct {
	all   chan struct{} // a token for each place that is taken
	share int           // places of one caller

	mu    sync.Mutex // guards taken
	taken map[string]int
}

func newPlaces(all, share int) *places {
	return &places{all: make(chan struct{}, all), share: max(1, share), taken: map[string]int{}}
}

// full says whether there is no place for a caller.
func (p *places) full(who *principal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all) == cap(p.all) || who.role != operator && p.taken[holder(who)] >= p.share
}

// run runs fn in a place, or returns false because there is none.
func (p *places) run(who *principal, fn func()) bool {
	if !p.take(who) {
		return false
	}
	defer p.leave(who)
	fn()
	return true
}

func (p *places) take(who *principal) bool {
	name := holder(who)
	p.mu.Lock()
	defer p.mu.Unlock()
	if who.role != operator && p.taken[name] >= p.share {
		return false
	}
	select {
	case p.all <- struct{}{}:
		p.taken[name]++
		return true
	default:
		return false
	}
}

func (p *places) leave(who *principal) {
	name := holder(who)
	p.mu.Lock()
	defer p.mu.Unlock()
	<-p.all
	if p.taken[name]--; p.taken[name] == 0 {
		delete(p.taken, name)
	}
}

// wait takes all the places, so that nothing is under way and nothing can begin.
func (p *places) wait(ctx context.Context) error {
	for range cap(p.all) {
		select {
		case p.all <- struct{}{}:
			continue // it is free, however late it is
		default:
		}
		select {
		case p.all <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("streams or evaluations are still under way: %w", ctx.Err())
		}
	}
	return nil
}

// holder tells callers apart: a shopper and a merchant of one name are two.
func holder(who *principal) string { return who.role.String() + ":" + string(who.name) }
