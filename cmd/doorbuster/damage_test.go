package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/gateway/client"
)

// TestDamageToTheLastOrder: half a second after the last order its record is no torn tail
// any more. A server that finds it damaged does not start, and loses nothing in silence.
func TestDamageToTheLastOrder(t *testing.T) {
	data := t.TempDir()
	var s shop
	server := start(t, data)
	must(t, s.create(t.Context(), server.addr))
	api, err := client.New(client.Config{Addr: server.addr, Connections: 1})
	must(t, err)
	defer api.Close()
	// A mark that was written before the order was synced does not prove that it was.
	path, at, user := "", 0, 0
	for again := true; again; user++ {
		if user == marksMax {
			t.Fatal("each order was marked at once")
		}
		if answer, err := api.Do(t.Context(), order(int64(user))); err != nil || answer.Status != 201 {
			t.Fatalf("%d, %v", answer.Status, err)
		}
		path, at = lastOrder(t, data, fmt.Sprintf("u-%d", user))
		again = marked(t, path, at)
	}
	for deadline := time.Now().Add(patience); !marked(t, path, at); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no mark of the clock was written behind the last order")
		}
	}
	must(t, server.kill())
	log := mustRead(t, path)
	log[at] ^= 0x55
	must(t, os.WriteFile(path, log, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd, err := command(ctx, serveArgs(data)...)
	must(t, err)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the log is damaged at byte") {
		t.Errorf("%v: %s", err, out)
	}
}

// marksMax is how many orders may be marked before they are looked at.
const marksMax = 100

// marked says whether a mark of the clock is behind a place of the log.
func marked(t *testing.T, path string, at int) bool {
	t.Helper()
	return bytes.Contains(mustRead(t, path)[at:], []byte("clock"))
}

// lastOrder returns the log in use, and where the user's name is first in it.
func lastOrder(t *testing.T, data, user string) (path string, at int) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(data, "*.log"))
	must(t, err)
	for _, path := range paths {
		if at := bytes.Index(mustRead(t, path), []byte(user)); at >= 0 {
			return path, at
		}
	}
	t.Fatal("no order is in the journal")
	return "", 0
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}
