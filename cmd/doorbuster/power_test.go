package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/runtime/journal/fusetest"
)

// powerCuts is how often the power fails, unless POWER_CUTS says otherwise.
const powerCuts = 6

// TestPowerCut lets the power fail under the real server: the server is killed, and
// its disk forgets every byte and every name that was not synced.
func TestPowerCut(t *testing.T) {
	cuts := powerCuts
	if text := os.Getenv("POWER_CUTS"); text != "" {
		var err error
		cuts, err = strconv.Atoi(text)
		must(t, err)
	}
	begin, orders, syncs := time.Now(), 0, int64(0)
	for done := 0; done < cuts; {
		n := min(folderRounds, cuts-done)
		h := newHost(t)
		for cut := range n {
			h.sell(t)
			h.fail(t)
			if err := h.shop.check(t.Context(), h.server.addr); err != nil {
				t.Fatalf("power cut %d: %v", done+cut, err)
			}
		}
		must(t, h.shop.checkAll(t.Context(), h.server.addr))
		orders, syncs, done = orders+len(h.shop.orders), syncs+h.disk.Syncs(), done+n
		h.end(t)
		t.Logf("%d power cuts, %.2f a second, %d syncs, %d orders acknowledged, 0 lost", done, float64(done)/time.Since(begin).Seconds(), syncs, orders)
	}
}

// TestLyingDisk proves that TestPowerCut can fail: on a disk that says that it syncs
// and does not, orders are lost, and that is found.
func TestLyingDisk(t *testing.T) {
	h := newHost(t)
	h.sell(t)
	h.fail(t)
	h.disk.Lie(true)
	h.sell(t)
	h.fail(t)
	if err := h.shop.check(t.Context(), h.server.addr); err == nil || !strings.Contains(err.Error(), "lost: acknowledged") {
		t.Errorf("a disk that syncs nothing lost nothing: %v", err)
	}
	h.end(t)
}

// host is a server on a disk of its own.
type host struct {
	disk   *fusetest.Disk
	mount  string
	server *live
	shop   shop
}

func newHost(t *testing.T) *host {
	t.Helper()
	if err := fusetest.Usable(); err != nil {
		t.Skip(err)
	}
	h := &host{disk: fusetest.New(), mount: t.TempDir()}
	must(t, h.disk.Mount(h.mount))
	t.Cleanup(func() { must(t, h.disk.Unmount()) })
	h.start(t)
	must(t, h.shop.create(t.Context(), h.server.addr))
	return h
}

// start starts the server in a folder that it makes itself.
func (h *host) start(t *testing.T) {
	t.Helper()
	h.server = start(t, filepath.Join(h.mount, "data"))
}

// sell lets shoppers order for a while, and kills the server under them.
func (h *host) sell(t *testing.T) {
	t.Helper()
	must(t, h.shop.crowd(t.Context(), h.server.addr, rand.N(loadMost), h.server.kill))
}

// fail cuts the power and starts the server on what is left.
func (h *host) fail(t *testing.T) {
	t.Helper()
	must(t, h.disk.CutPower())
	must(t, h.disk.Mount(h.mount))
	h.start(t)
}

func (h *host) end(t *testing.T) {
	t.Helper()
	must(t, h.server.kill())
	must(t, h.disk.Unmount())
}
