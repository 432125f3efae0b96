package fusetest

import (
	"context"
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// The calls of the kernel. Each holds the disk's lock from its beginning to its end.

var _ interface {
	fs.NodeLookuper
	fs.NodeReaddirer
	fs.NodeCreater
	fs.NodeMkdirer
	fs.NodeUnlinker
	fs.NodeRmdirer
	fs.NodeRenamer
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeFsyncer
	fs.NodeAllocater
	fs.NodeGetattrer
	fs.NodeSetattrer
	fs.NodeStatfser
} = (*node)(nil)

const (
	permissions     = 0o777
	renameNoReplace = 1 // of renameat2
	allocKeepSize   = 1 // of fallocate
)

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	child, ok := n.now.entries[name]
	if !ok {
		return nil, syscall.ENOENT
	}
	return n.show(ctx, child, out), fs.OK
}

func (n *node) show(ctx context.Context, child *node, out *fuse.EntryOut) *fs.Inode {
	child.describe(&out.Attr)
	return n.NewInode(ctx, child, fs.StableAttr{Mode: child.kind})
}

func (n *node) describe(out *fuse.Attr) {
	out.Mode = n.kind | permissions
	out.Size = uint64(n.now.size)
	out.Blocks = uint64(len(n.now.pages)) * pageSize / 512
	out.Nlink = 1
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	var list []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.now.entries)) {
		list = append(list, fuse.DirEntry{Name: name, Mode: n.now.entries[name].kind})
	}
	return fs.NewListDirStream(list), fs.OK
}

func (n *node) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, errno := n.add(ctx, name, syscall.S_IFREG, out)
	return inode, nil, 0, errno
}

func (n *node) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, syscall.S_IFDIR, out)
}

func (n *node) add(ctx context.Context, name string, kind uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if _, taken := n.now.entries[name]; taken {
		return nil, syscall.EEXIST
	}
	child := n.disk.newNode(kind)
	n.now.entries[name] = child
	return n.show(ctx, child, out), fs.OK
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	delete(n.now.entries, name)
	return fs.OK
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if child := n.now.entries[name]; child != nil && len(child.now.entries) > 0 {
		return syscall.ENOTEMPTY
	}
	delete(n.now.entries, name)
	return fs.OK
}

func (n *node) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	to, ok := parent.(*node)
	_, taken := to.now.entries[newName]
	switch {
	case !ok || flags&^renameNoReplace != 0:
		return syscall.EINVAL
	case taken && flags == renameNoReplace:
		return syscall.EEXIST
	}
	to.now.entries[newName] = n.now.entries[name]
	delete(n.now.entries, name)
	return fs.OK
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, fs.OK
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	return fuse.ReadResultData(dest[:n.read(dest, at)]), fs.OK
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.write(data, at)
	return uint32(len(data)), fs.OK
}

// Fsync is of files and folders, and of fdatasync too.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.syncs.Add(1)
	if n.disk.lies.Load() {
		return fs.OK
	}
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.sync()
	return fs.OK
}

func (n *node) Allocate(_ context.Context, _ fs.FileHandle, at, length uint64, mode uint32) syscall.Errno {
	if mode&^allocKeepSize != 0 {
		return syscall.EOPNOTSUPP
	}
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if mode == 0 {
		n.now.size = max(n.now.size, int64(at+length))
	}
	return fs.OK
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.describe(&out.Attr)
	return fs.OK
}

// Setattr truncates. Whatever else can be set does not matter to a journal.
func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		n.truncate(int64(size))
	}
	n.describe(&out.Attr)
	return fs.OK
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks, out.Bfree, out.Bavail = sizeClaimed, sizeClaimed, sizeClaimed
	return fs.OK
}
