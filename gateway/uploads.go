package gateway

import (
	"context"
	"runtime"
	"sync"
)

// leavePoller goes before what computes for milliseconds on a connection's own
// goroutine. That one may come straight from the thread that waited for the network, and
// Go has no other wait there until something else is to be run: until its monitor looks,
// after 10 to 20 ms, no request would be read. Who yields has one woken.
func leavePoller() { runtime.Gosched() }

// uploads bounds the modules that are received or compiled at once: uploadsMax in
// all, and of them one of each merchant. Its others wait, up to uploadsMax with it,
// so that who uploads what takes long to compile holds up no merchant but itself.
type uploads struct {
	all chan struct{} // a token for each upload under way

	mu     sync.Mutex // guards owners, and how many entered
	owners map[string]*uploader
}

// uploader is a merchant with uploads under way or waiting.
type uploader struct {
	turn    chan struct{} // a token for the one under way
	entered int
}

func newUploads() *uploads {
	return &uploads{all: make(chan struct{}, uploadsMax), owners: map[string]*uploader{}}
}

// enter waits for a merchant's turn. Unless it returns false, leave must follow.
func (u *uploads) enter(ctx context.Context, owner string) bool {
	who := u.queue(owner)
	if who == nil {
		return false
	}
	select {
	case who.turn <- struct{}{}:
	case <-ctx.Done():
		u.dequeue(owner, who)
		return false
	}
	select {
	case u.all <- struct{}{}:
		return true
	default:
		<-who.turn
		u.dequeue(owner, who)
		return false
	}
}

func (u *uploads) leave(owner string) {
	u.mu.Lock()
	who := u.owners[owner]
	u.mu.Unlock()
	<-u.all
	<-who.turn
	u.dequeue(owner, who)
}

// queue counts one more upload of a merchant; nil when that would be too many.
func (u *uploads) queue(owner string) *uploader {
	u.mu.Lock()
	defer u.mu.Unlock()
	who := u.owners[owner]
	if who == nil {
		who = &uploader{turn: make(chan struct{}, 1)}
		u.owners[owner] = who
	}
	if who.entered == uploadsMax {
		return nil
	}
	who.entered++
	return who
}

func (u *uploads) dequeue(owner string, who *uploader) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if who.entered--; who.entered == 0 {
		delete(u.owners, owner)
	}
}
