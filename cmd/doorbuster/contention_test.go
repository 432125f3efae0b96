//go:build !race

package main

import (
	"bufio"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	// contentionLoad is how long the gate loads the server.
	contentionLoad = 3 * time.Second
	// contentionBuyers is how many buy at once.
	contentionBuyers = 200
	// contentionTries is how often a server is loaded before it counts as contended: a
	// holder that loses its core to somebody else for a few milliseconds has 200 orders wait,
	// which shows with up to 40 microseconds for each order of a run, but hardly each time.
	contentionTries = 15
	// blockedMost is how long locks may hold up an order, all together. The incident's
	// one lock held up an order for milliseconds.
	blockedMost = 20 * time.Microsecond
	// contendedFirst is how many of the first, where goroutines were held up and where
	// they held up others, may be no lock of ours.
	contendedFirst = 5
	// contendedLeast is what a lock must hold up an order for to count among those that
	// held up others: they are all locks, and one has to come first in a list of nothing.
	contendedLeast = 2 * time.Microsecond
)

// TestContention loads the real server, on one hot deal, and holds what its own
// profiles say of locks against the bounds above. The race detector holds locks for
// longer, so it is built without.
func TestContention(t *testing.T) {
	var faults []string
	for range contentionTries {
		if faults = loadForContention(t); len(faults) == 0 {
			return
		}
	}
	for _, fault := range faults {
		t.Error(fault)
	}
}

// loadForContention loads a server of its own and returns what is wrong with its locks.
func loadForContention(t *testing.T) []string {
	t.Helper()
	server := startAs(t, "doorbuster-profiled", t.TempDir())
	var s shop
	must(t, s.create(t.Context(), server.addr))
	api, err := client.New(client.Config{Addr: server.addr, Connections: contentionBuyers})
	must(t, err)
	defer api.Close()
	sum, err := api.Run(t.Context(), client.Load{Length: contentionLoad, Next: func(i int, body, key []byte) (b, k []byte) {
		body = fmt.Appendf(body, `{"deal_id":%q,"user_id":"u-%d","quantity":1}`, shopDeal(1), i)
		return body, fmt.Appendf(key, "k-%d", i)
	}})
	must(t, err)
	held := profileOf(t, server.admin, "mutex")
	waits := profileOf(t, server.admin, "block")
	must(t, server.kill())
	if sum.Answered == 0 {
		return []string{fmt.Sprintf("no order was answered in %v", contentionLoad)}
	}
	t.Logf("%d orders, each held up by locks for %v", sum.Answered, blocked(waits)/time.Duration(sum.Answered))
	for i, s := range held[:min(len(held), contendedFirst)] {
		if s.ours() {
			t.Logf("number %d of those who hold up others is ours, with %v an order:\n%s", i+1, s.blocked/time.Duration(sum.Answered), s.stack)
		}
	}
	return contention(held, waits, sum.Answered)
}

// contention says what is wrong with the locks of a server that took some orders:
// held tells for whom others waited, waits where.
func contention(held, waits []site, orders int) (faults []string) {
	if each := blocked(waits) / time.Duration(orders); each > blockedMost {
		faults = append(faults, fmt.Sprintf("locks hold up an order for %v, at most %v are allowed; most of all here:\n%s", each, blockedMost, longest(waits)))
	}
	for _, s := range waits[:min(len(waits), contendedFirst)] {
		if s.lock() && s.ours() {
			faults = append(faults, fmt.Sprintf("among all that goroutines wait for, a lock of ours is one of the first %d:\n%s", contendedFirst, s.stack))
		}
	}
	for _, s := range held[:min(len(held), contendedFirst)] {
		if each := s.blocked / time.Duration(orders); s.ours() && each > contendedLeast {
			faults = append(faults, fmt.Sprintf("a lock of ours holds up an order for %v:\n%s", each, s.stack))
		}
	}
	return faults
}

// blocked is the time spent waiting for locks. Whoever waits for work, or an order for
// its sync, waits for something else.
func blocked(waits []site) (total time.Duration) {
	for _, s := range waits {
		if s.lock() {
			total += s.blocked
		}
	}
	return total
}

func longest(waits []site) string {
	for _, s := range waits {
		if s.lock() {
			return s.stack
		}
	}
	return ""
}

// lock says whether the site waits for a lock.
func (s site) lock() bool { return waitsForLock.MatchString(s.stack) }

// ours says whether the lock is one of this module: whoever calls the lock's own code.
func (s site) ours() bool {
	for frame := range strings.Lines(s.stack) {
		if !lockFrame.MatchString(frame) {
			return strings.Contains(frame, "\tgithub.com/doorbuster/doorbuster/")
		}
	}
	return false
}

var (
	waitsForLock = regexp.MustCompile(`\tsync\.\(\*(RW)?Mutex\)\.R?Lock\+`)
	lockFrame    = regexp.MustCompile(`^#\t\S+\t(sync|internal/sync|runtime)\.`)
)

// TestContentionCanFail shows the gate what it is for: one lock that is held while
// everybody waits.
func TestContentionCanFail(t *testing.T) {
	const unlock = "#\t0x1\tsync.(*Mutex).Unlock+0x6c\t/usr/local/go/src/sync/mutex.go:65\n"
	const lock = "#\t0x1\tinternal/sync.(*Mutex).lockSlow+0x1\tx.go:1\n#\t0x1\tsync.(*Mutex).Lock+0x6c\t/usr/local/go/src/sync/mutex.go:65\n"
	const book = "#\t0x2\tgithub.com/doorbuster/doorbuster/actors.(*book).add+0x50\t/src/actors/book.go:1\n"
	const pebble = "#\t0x2\tgithub.com/cockroachdb/pebble/v2.(*DB).Apply+0x50\tdb.go:1\n" + book
	const idle = "#\t0x3\truntime.chanrecv1+0x11\tchan.go:1\n" + book
	for _, tc := range []struct {
		held, waits []site
		faults      int
	}{
		{[]site{{time.Second, unlock + book}}, []site{{time.Second, lock + book}}, 3},
		{[]site{{time.Second, unlock + pebble}}, []site{{time.Second, lock + pebble}}, 1},
		{[]site{{time.Millisecond, unlock + book}}, []site{{time.Hour, idle}, {time.Millisecond, lock + book}}, 1},
		{[]site{{time.Millisecond, unlock + book}}, slices.Concat(slices.Repeat([]site{{time.Hour, idle}}, contendedFirst), []site{{time.Millisecond, lock + book}}), 0},
	} {
		if faults := contention(tc.held, tc.waits, 1000); len(faults) != tc.faults {
			t.Errorf("%d faults, want %d: %q", len(faults), tc.faults, faults)
		}
	}
}

// site is where goroutines were held up.
type site struct {
	blocked time.Duration
	stack   string
}

var (
	cyclesPerSecond = regexp.MustCompile(`^cycles/second=(\d+)`)
	sample          = regexp.MustCompile(`^(\d+) (\d+) @`)
)

// profileOf reads one of the server's profiles, the longest blocked first.
func profileOf(t *testing.T, admin, name string) (sites []site) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/debug/pprof/"+name+"?debug=1", http.NoBody)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	var cycles float64
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if match := cyclesPerSecond.FindStringSubmatch(line); match != nil {
			cycles, _ = strconv.ParseFloat(match[1], 64)
		} else if match := sample.FindStringSubmatch(line); match != nil {
			n, _ := strconv.ParseFloat(match[1], 64)
			sites = append(sites, site{blocked: time.Duration(n / cycles * float64(time.Second))})
		} else if strings.HasPrefix(line, "#") && len(sites) > 0 {
			sites[len(sites)-1].stack += line + "\n"
		}
	}
	if cycles == 0 {
		t.Fatalf("the profile %s says no rate", name)
	}
	return sites
}
