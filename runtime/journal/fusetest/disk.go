// Package fusetest is a disk whose power can be cut while a real process writes to it.
//
// A Disk is a file system in memory, mounted by FUSE. It keeps two states: what
// processes see, and what was synced. CutPower throws the first away: a byte survives
// only if its file was synced after it was written, and a name only if its folder was.
// That is less than ext4 or XFS keep, and all that POSIX promises.
//
// A disk can also lie: it says that it has synced and has not. Software cannot survive
// that, so a test of durability that a lying disk passes tests nothing.
//
// Mounting takes /dev/fuse and root's rights. The disk has folders and plain files; it
// has no links, no permissions and no times.
package fusetest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	// pageSize is the grain at which a disk remembers what was written, in bytes.
	pageSize = 4096
	// writeMost bounds one write as the kernel hands it over, in bytes.
	writeMost = 1 << 20
	// sizeClaimed is what a disk says it holds, and has free, in pages: 1 TiB.
	sizeClaimed = 1 << 28
)

// Disk is mounted once, and once more after each power cut.
type Disk struct {
	lies  atomic.Bool
	syncs atomic.Int64

	mu     sync.Mutex // guards all nodes
	root   *node
	server *fuse.Server
}

// New returns an empty disk.
func New() *Disk {
	d := &Disk{}
	d.root = d.newNode(syscall.S_IFDIR)
	return d
}

// Mount mounts the disk on a folder.
func (d *Disk) Mount(dir string) error {
	server, err := fs.Mount(dir, d.root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, FsName: "fusetest", Name: "fusetest", MaxWrite: writeMost, DisableXAttrs: true,
	}})
	if err != nil {
		return fmt.Errorf("fusetest: mount on %s: %w", dir, err)
	}
	d.server = server
	return nil
}

// Unmount takes the disk away from its folder. What was written stays.
func (d *Disk) Unmount() error {
	if d.server == nil {
		return nil
	}
	if err := d.server.Unmount(); err != nil {
		return fmt.Errorf("fusetest: %w", err)
	}
	d.server.Wait()
	d.server = nil
	return nil
}

// CutPower unmounts the disk and forgets all that was not synced. Whoever used it
// must be dead.
func (d *Disk) CutPower() error {
	if err := d.Unmount(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root = d.root.survivor()
	return nil
}

// Lie makes the disk say from now on that it has synced, and not sync.
func (d *Disk) Lie(lies bool) { d.lies.Store(lies) }

// Syncs is how often the disk was asked to sync a file or a folder.
func (d *Disk) Syncs() int64 { return d.syncs.Load() }

// node is a file or a folder.
type node struct {
	fs.Inode

	disk  *Disk
	kind  uint32 // S_IFREG or S_IFDIR
	now   content
	kept  content
	dirty map[int64]struct{} // pages that were written since the last sync
}

// content is what a node holds: a file's pages, a folder's entries.
type content struct {
	size    int64
	pages   map[int64][]byte // by number; one that is missing holds zeros
	entries map[string]*node
}

func newContent() content {
	return content{pages: make(map[int64][]byte), entries: make(map[string]*node)}
}

func (d *Disk) newNode(kind uint32) *node {
	return &node{disk: d, kind: kind, now: newContent(), kept: newContent(), dirty: make(map[int64]struct{})}
}

// sync keeps what the node holds now. A folder's entries are names: what they name
// is kept by its own sync alone.
func (n *node) sync() {
	n.kept.size = n.now.size
	for number := range n.dirty {
		if page, written := n.now.pages[number]; written {
			n.kept.pages[number] = append([]byte(nil), page...)
		} else {
			delete(n.kept.pages, number)
		}
	}
	clear(n.dirty)
	n.kept.entries = maps.Clone(n.now.entries)
}

// survivor is the node as it comes back after a power cut.
func (n *node) survivor() *node {
	s := n.disk.newNode(n.kind)
	s.kept.size, s.now.size = n.kept.size, n.kept.size
	s.kept.pages = n.kept.pages
	for number, page := range n.kept.pages {
		s.now.pages[number] = append([]byte(nil), page...)
	}
	for name, entry := range n.kept.entries {
		s.kept.entries[name] = entry.survivor()
	}
	s.now.entries = maps.Clone(s.kept.entries)
	return s
}

// write puts data at an offset. Zeros take no room in a page that has none.
func (n *node) write(data []byte, at int64) {
	n.now.size = max(n.now.size, at+int64(len(data)))
	for len(data) > 0 {
		number, from := at/pageSize, at%pageSize
		part := data[:min(int64(len(data)), pageSize-from)]
		page, written := n.now.pages[number]
		if !written && !allZero(part) {
			page = make([]byte, pageSize)
			n.now.pages[number] = page
			written = true
		}
		if written {
			copy(page[from:], part)
			n.dirty[number] = struct{}{}
		}
		data, at = data[len(part):], at+int64(len(part))
	}
}

// read fills dest with what is at an offset and returns how much there was.
func (n *node) read(dest []byte, at int64) int {
	length := max(0, min(int64(len(dest)), n.now.size-at))
	dest = dest[:length]
	clear(dest)
	for done := int64(0); done < length; {
		number, from := (at+done)/pageSize, (at+done)%pageSize
		part := dest[done:min(length, done+pageSize-from)]
		if page, written := n.now.pages[number]; written {
			copy(part, page[from:])
		}
		done += int64(len(part))
	}
	return int(length)
}

// truncate gives a file another size. What it gains is zeros.
func (n *node) truncate(size int64) {
	for number, page := range n.now.pages {
		switch start := number * pageSize; {
		case start >= size:
			delete(n.now.pages, number)
			n.dirty[number] = struct{}{}
		case start+pageSize > size:
			clear(page[size-start:])
			n.dirty[number] = struct{}{}
		}
	}
	n.now.size = size
}

func allZero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

// Usable says why no disk can be mounted here, nil if one can.
func Usable() error {
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("fusetest: no disk can be mounted here: %w", err)
	}
	_ = device.Close() // nothing was written
	if os.Geteuid() != 0 {
		return errors.New("fusetest: only root can mount a disk")
	}
	return nil
}
