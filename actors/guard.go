package actors

import "github.com/doorbuster/doorbuster/runtime/journal"

// Guard is asked about each write on its way to the committer. It passes all of them on,
// in order; those that it refuses in such a way that the store fences them.
type Guard interface {
	// Start begins to pass writes on to next.
	Start(next func(*journal.Write))
	// Submit must not block. The write takes so many units of what was available and
	// leaves so many; events up to landed are on disk.
	Submit(w *journal.Write, taken, left int64, landed uint64)
	// Refusing says whether whatever takes stock would be refused now.
	Refusing() bool
	// Close passes on what is left. Writes that are submitted after it go straight on.
	Close()
}

// commit sends a write on its way to the disk, past the guard if there is one.
func (a *activation) commit(w *journal.Write, taken, left int64) {
	guard := a.node.cfg.Guard
	if guard == nil {
		a.node.committer.Submit(w)
		return
	}
	guard.Submit(w, taken, left, a.view().Seq)
}

// held says whether a request must not be decided now because of the guard.
func (a *activation) held(r *Request) bool {
	guard := a.node.cfg.Guard
	return guard != nil && r.takesRoom() && guard.Refusing()
}
