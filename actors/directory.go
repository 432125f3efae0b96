package actors

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/doorbuster/doorbuster/actors/deal"
)

// directory knows every deal of the node, whether it is in memory or not.
type directory struct {
	naming sync.Mutex // guards that no two deals have one name
	deals  *xsync.Map[string, *entry]
	// named finds those whose id is too long for the ids of their orders, by the
	// name that they have there.
	named *xsync.Map[string, *entry]
	shard func(id string) int // which server of several keeps a deal's stream; nil: there is one
}

// entry is what an idle deal costs in memory, beside its id.
type entry struct {
	id      string
	active  atomic.Pointer[activation]
	dirty   atomic.Bool  // has committed events that the views have not seen
	givenAt atomic.Int64 // Mono of when another node said that it has let go of the deal, 0 = it did not
	mu      sync.Mutex   // guards starting an activation, and the fields below
	// removed entries are in the directory no more, and start nothing.
	removed bool
	shard   uint16 // as directory.shard says
	// restarts remembers activations that ended in a fault, for suspending a
	// deal that keeps failing; nil for the many that never did.
	restarts *restarts
}

func newDirectory() directory {
	return directory{deals: xsync.NewMap[string, *entry](), named: xsync.NewMap[string, *entry]()}
}

// find returns the deal's entry, or nil.
func (d *directory) find(id []byte) *entry {
	// The string is only read during the call: Load keeps no key.
	e, _ := d.deals.Load(unsafe.String(unsafe.SliceData(id), len(id)))
	return e
}

// findNamed returns the entry of the deal that the ids of orders call so, or nil.
func (d *directory) findNamed(name []byte) *entry {
	if e := d.find(name); e != nil {
		return e
	}
	e, _ := d.named.Load(unsafe.String(unsafe.SliceData(name), len(name)))
	return e
}

func (d *directory) shardOf(id string) uint16 {
	if d.shard == nil {
		return 0
	}
	return uint16(d.shard(id)) //nolint:gosec // of few servers
}

// add returns the deal's entry, made if need be, or nil if another deal is called so
// in the ids of its orders.
func (d *directory) add(id string) *entry {
	d.naming.Lock()
	defer d.naming.Unlock()
	if e, known := d.deals.Load(id); known {
		return e
	}
	name := deal.AppendName(nil, id)
	if d.findNamed(name) != nil {
		return nil
	}
	e := &entry{id: id, shard: d.shardOf(id)}
	d.deals.Store(id, e)
	if deal.HasShortName(id) {
		d.named.Store(string(name), e)
	}
	return e
}

// remove forgets a deal that turned out not to exist, unless somebody is at
// it.
func (d *directory) remove(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.removed || e.active.Load() != nil {
		return
	}
	d.naming.Lock() // nobody finds the name taken by a deal that is gone
	defer d.naming.Unlock()
	e.removed = true
	d.deals.Delete(e.id)
	if deal.HasShortName(e.id) {
		d.named.Delete(string(deal.AppendName(nil, e.id)))
	}
}
