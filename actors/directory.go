package actors

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/puzpuzpuz/xsync/v4"
)

// directory knows every deal of the node, whether it is in memory or not.
type directory struct {
	deals *xsync.Map[string, *entry]
}

// entry is what an idle deal costs in memory, beside its id.
type entry struct {
	id     string
	active atomic.Pointer[activation]
	dirty  atomic.Bool // has committed events that the views have not seen
	mu     sync.Mutex  // guards starting an activation, and the fields below
	// removed entries are in the directory no more, and start nothing.
	removed bool
	// restarts remembers activations that ended in a fault, for suspending a
	// deal that keeps failing; nil for the many that never did.
	restarts *restarts
}

func newDirectory() directory {
	return directory{deals: xsync.NewMap[string, *entry]()}
}

// find returns the deal's entry, or nil.
func (d directory) find(id []byte) *entry {
	// The string is only read during the call: Load keeps no key.
	e, _ := d.deals.Load(unsafe.String(unsafe.SliceData(id), len(id)))
	return e
}

// add returns the deal's entry, made if need be.
func (d directory) add(id string) *entry {
	e, _ := d.deals.LoadOrStore(id, &entry{id: id})
	return e
}

// remove forgets a deal that turned out not to exist, unless somebody is at
// it.
func (d directory) remove(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.removed || e.active.Load() != nil {
		return
	}
	e.removed = true
	d.deals.Delete(e.id)
}
