package embedded

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardFS hears of a failed write or sync of a file that the store stands on, before
// pebble does: the log, the manifest, the markers and the folder itself. Pebble goes
// down on these failures in many ways, from Logger.Fatalf over a panic to a runtime
// fault (it panics on a failed log rotation without the mutex that a deferred Unlock
// then releases), and few of them say what has happened. Tables are not guarded: one
// that failed is thrown away and written anew from what is in the log.
type guardFS struct {
	vfs.FS
	failed func(error)
}

func (g *guardFS) vital(path string) bool {
	name := g.PathBase(path)
	return strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.")
}

// file guards an opened file, or passes on the failure to open it.
func (g *guardFS) file(op, path string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, g.told(op, path, err)
	}
	return &guardFile{File: f, fs: g, path: path}, nil
}

func (g *guardFS) told(op, path string, err error) error {
	if err != nil {
		g.failed(fmt.Errorf("%s %s: %w", op, path, err))
	}
	return err
}

// Create implements vfs.FS. A marker says which manifest counts: the folder is synced
// before there is one, so that no crash leaves a marker whose manifest it has lost.
func (g *guardFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(g.PathBase(name), "marker.") {
		if err := g.syncFolder(g.PathDir(name)); err != nil {
			return nil, err
		}
	}
	f, err := g.FS.Create(name, category)
	if !g.vital(name) {
		return f, err
	}
	return g.file("create", name, f, err)
}

func (g *guardFS) syncFolder(name string) error {
	dir, err := g.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ReuseForWrite implements vfs.FS.
func (g *guardFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.ReuseForWrite(oldname, newname, category)
	if !g.vital(newname) {
		return f, err
	}
	return g.file("reuse", newname, f, err)
}

// OpenDir implements vfs.FS. A folder is opened only to be synced.
func (g *guardFS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	return g.file("open", name, f, err)
}

// Unwrap implements vfs.FS.
func (g *guardFS) Unwrap() vfs.FS { return g.FS }

type guardFile struct {
	vfs.File
	fs   *guardFS
	path string
}

func (f *guardFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.told("write", f.path, err)
}

func (f *guardFile) Sync() error {
	if plantSkipFolderSync && !f.fs.vital(f.path) {
		return nil
	}
	return f.fs.told("sync", f.path, f.File.Sync())
}

func (f *guardFile) SyncData() error { return f.fs.told("sync", f.path, f.File.SyncData()) }

func (f *guardFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.fs.told("sync", f.path, err)
}

// Stat counts as well: pebble sizes a log that it uses again, and goes down if it cannot.
func (f *guardFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	return info, f.fs.told("stat", f.path, err)
}

func (f *guardFile) Close() error { return f.fs.told("close", f.path, f.File.Close()) }
