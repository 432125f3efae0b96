package fusetest_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/doorbuster/doorbuster/runtime/journal/fusetest"
)

// TestPowerCut uses a disk through the kernel, as any process would.
func TestPowerCut(t *testing.T) {
	if err := fusetest.Usable(); err != nil {
		t.Skip(err)
	}
	disk, dir := fusetest.New(), t.TempDir()
	mount := func() {
		t.Helper()
		must(t, disk.Mount(dir))
	}
	mount()
	t.Cleanup(func() { must(t, disk.Unmount()) })
	path := func(name string) string { return filepath.Join(dir, name) }

	must(t, os.Mkdir(path("folder"), 0o700))
	write(t, path("folder/synced"), "all of it", true)
	write(t, path("folder/written"), "nothing of it", false)
	syncFolder(t, path("folder"))
	write(t, path("folder/nameless"), "synced, but not its name", true)
	must(t, os.Rename(path("folder/synced"), path("folder/renamed")))
	if _, err := os.ReadFile(path("folder/renamed")); err != nil {
		t.Fatal(err)
	}
	syncFolder(t, dir)
	must(t, disk.CutPower())

	mount()
	wantFile(t, path("folder/synced"), "all of it")
	wantFile(t, path("folder/written"), "")
	for _, name := range []string{"folder/nameless", "folder/renamed"} {
		if _, err := os.Stat(path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	must(t, os.WriteFile(path("folder/synced"), []byte("shorter"), 0o600))
	wantFile(t, path("folder/synced"), "shorter")
	must(t, disk.CutPower())

	mount()
	wantFile(t, path("folder/synced"), "all of it")
	disk.Lie(true)
	write(t, path("folder/synced"), "a lie: ", true)
	must(t, disk.CutPower())

	mount()
	wantFile(t, path("folder/synced"), "all of it")
}

func write(t *testing.T, path, text string, sync bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncFolder(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", path, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
