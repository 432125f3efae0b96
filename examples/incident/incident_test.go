package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

// TestMain lets the test binary stand in for the sides that need a process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childWord {
		main()
		return
	}
	os.Exit(m.Run())
}

// newTestSession is a session that is as short as it can be.
func newTestSession(t *testing.T) *session {
	t.Helper()
	s, err := newSession(1, t.TempDir(), new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	s.rounds, s.long, s.longRound = 1, 1, 1
	s.length, s.orders, s.bursts = 200*time.Millisecond, 20_000, 12
	s.lockRows = []lockRow{{"a slow cache; one deal", thenCache, 1, 64, 2}}
	return s
}

// TestChapters plays every chapter, and looks for its effect in the page.
func TestChapters(t *testing.T) {
	for _, c := range chapters {
		if raced && c.number == poolChapter.number {
			continue // its first sides are data races, as the detector would say: see TestPoolEarlyPut
		}
		t.Run(c.title, func(t *testing.T) {
			if !slices.Contains(inProcess, c.number) {
				t.Parallel()
			}
			s := newTestSession(t)
			if err := s.play(t.Context(), c.number); err != nil {
				t.Fatal(err)
			}
			page, err := os.ReadFile(filepath.Join(s.docs, "incident.md"))
			if err != nil {
				t.Fatal(err)
			}
			wellFormedPlots(t, s.docs, string(page))
			effects[c.number](t, string(page))
		})
	}
}

// inProcess are the chapters that measure this process: nothing may run beside them.
var inProcess = []int{2, 3, 4}

var effects = map[int]func(t *testing.T, page string){
	1: func(t *testing.T, page string) {
		locked, sharded, owned := figure(t, page, shopLocked, 1), figure(t, page, shopSharded, 1), figure(t, page, shopOwned, 1)
		if sharded > 2*locked || owned < 2*locked {
			t.Errorf("orders/s of one hot deal: one mutex %v, shards %v, ownership %v", locked, sharded, owned)
		}
		if blocked, free := figure(t, page, shopLocked, 5), figure(t, page, shopOwned, 5); blocked < 1 || free > blocked/10 {
			t.Errorf("ms an order waits for mutexes: one mutex %v, ownership %v", blocked, free)
		}
	},
	2: func(t *testing.T, page string) {
		if escaping, values := figure(t, page, "pointers, escaping", 2), figure(t, page, "values", 2); escaping < 3 || values > 0.01 {
			t.Errorf("allocations an order: %v with pointers, %v with values", escaping, values)
		}
	},
	3: func(t *testing.T, page string) {
		for _, side := range []string{"Put too early, worker behind", "Put last, no reset"} {
			if wrong := figure(t, page, side, 1); wrong < 1000 {
				t.Errorf("%s: %v wrong prices in a million", side, wrong)
			}
		}
		if wrong := figure(t, page, "runtime/own", 1); wrong != 0 {
			t.Errorf("%v wrong prices in a million with ownership", wrong)
		}
		if empty := figure(t, page, "sync.Pool", 1); empty < 10 { // the first of 12 bursts finds it empty in any case: 8.3
			t.Errorf("%v %% of Gets found the sync.Pool empty", empty)
		}
		if !strings.Contains(page, "pool-trace.svg") {
			t.Error("no plot of the trace")
		}
	},
	4: func(t *testing.T, page string) {
		if ten, one := figure(t, page, "ten readings", 1), figure(t, page, "one stamp", 1); one > ten/2 {
			t.Errorf("an order takes %v ns with ten readings, %v with one stamp", ten, one)
		}
		if wrong := figure(t, page, "one stamp", 3); wrong != 0 {
			t.Errorf("%v deals with an order after their end", wrong)
		}
	},
	5: func(t *testing.T, page string) {
		if single, group := figure(t, page, logSynced, 3), figure(t, page, logGroup, 3); single < 0.99 || group > 0.5 {
			t.Errorf("syncs an order: %v one by one, %v in groups", single, group)
		}
	},
	6: func(t *testing.T, page string) {
		was, is := figure(t, page, "as it was: one mutex, slow cache", 1), figure(t, page, "as it is: Doorbuster, durable", 1)
		if was > 60 || is < 10*was {
			t.Errorf("orders/s: %v as it was, %v as it is", was, is)
		}
	},
}

// figure reads a column (from 1) of a side's first row in the page.
func figure(t *testing.T, page, side string, column int) float64 {
	t.Helper()
	m := regexp.MustCompile(`\|[^|]*\| ` + regexp.QuoteMeta(side) + ` \|(.*)\|`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("%q is not in\n%s", side, page)
	}
	value, err := strconv.ParseFloat(strings.TrimSpace(strings.Split(m[1], "|")[column-1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func wellFormedPlots(t *testing.T, docs, page string) {
	t.Helper()
	plots := regexp.MustCompile(`\]\((incident/[a-z0-9-]+\.svg)\)`).FindAllStringSubmatch(page, -1)
	if len(plots) == 0 {
		t.Error("the page has no plot")
	}
	for _, plot := range plots {
		text, err := os.ReadFile(filepath.Join(docs, plot[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		decoder := xml.NewDecoder(bytes.NewReader(text))
		for err == nil {
			_, err = decoder.Token()
		}
		if !errors.Is(err, io.EOF) || bytes.Contains(text, []byte("NaN")) {
			t.Errorf("%s: %v\n%s", plot[1], err, text)
		}
	}
}

// ── Chapter 1 ──

func TestShopsSellWhatTheyHave(t *testing.T) {
	const stock, shoppers = 50, 80
	for _, kind := range []string{shopLocked, shopSharded, shopOwned} {
		t.Run(kind, func(t *testing.T) {
			s, err := openShop(kind, 2, stock, noRecorder{})
			if err != nil {
				t.Fatal(err)
			}
			var wait sync.WaitGroup
			var mu sync.Mutex
			ids := make(map[string]bool)
			for range shoppers {
				wait.Go(func() {
					r, err := s.place(order{Deal: "d-1", User: "u", Quantity: 1})
					if err != nil && !errors.Is(err, errSoldOut) {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						ids[r.ID] = true
					}
				})
			}
			wait.Wait()
			if len(ids) != stock {
				t.Errorf("sold %d of %d", len(ids), stock)
			}
			if _, err := s.place(order{Deal: "d-9"}); !errors.Is(err, errNoDeal) {
				t.Error(err)
			}
		})
	}
	if _, err := openShop("no such", 1, 1, noRecorder{}); err == nil {
		t.Error("opened a shop of no known kind")
	}
}

type failingRecorder struct{}

var errDisk = errors.New("disk")

func (failingRecorder) record([]receipt) error { return errDisk }

func TestNoReceiptWithoutRecord(t *testing.T) {
	for _, kind := range []string{shopLocked, shopSharded, shopOwned} {
		s, err := openShop(kind, 1, 5, failingRecorder{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.place(order{Deal: "d-0", Quantity: 1}); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestParseBlocked(t *testing.T) {
	const profile = `--- contention:
cycles/second=1000
2500 1 @ 0x1 0x2
#	0x1	sync.(*Mutex).Lock+0x1	lock.go:1
#	0x2	main.(*lockedShop).place+0x1	lock.go:2
#	0x3	main.(*shardedShop).place+0x1	lock.go:3
9000 1 @ 0x4
#	0x4	net/http.(*conn).serve+0x1	server.go:1
`
	if seconds, err := parseBlocked(profile); seconds != 2.5 || err != nil {
		t.Error(seconds, err)
	}
	for _, bad := range []string{"", "cycles/second=x\n", "cycles/second=1\nx 1 @ 0x1\n"} {
		if _, err := parseBlocked(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// ── Chapter 2 ──

func TestHeapEscapes(t *testing.T) {
	n := int64(1000)
	var kept *heapOrder
	if allocs := testing.AllocsPerRun(100, func() { kept = newHeapOrder(n, "u", 3) }); allocs < 3 {
		t.Errorf("%v allocations with pointers", allocs)
	}
	var o valueOrder
	if allocs := testing.AllocsPerRun(100, func() { o.place(n, "u", 3) }); allocs != 0 {
		t.Errorf("%v allocations with values", allocs)
	}
	if o.total != kept.Total || kept.Total != 3*9900-3*9900*15/100 {
		t.Errorf("prices differ: %d and %d", o.total, kept.Total)
	}
}

func TestEscapeReport(t *testing.T) {
	report, err := escapeReport(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(report, "place(")
	if !found || !strings.Contains(before, "← moved to heap: rule") || !strings.Contains(before, "escapes to heap") ||
		strings.Contains(after, "escapes to heap") || strings.Contains(after, "moved to heap") {
		t.Error(report)
	}
}

// ── Chapter 3 ──

// TestPoolEarlyPut is the bug without the race: the same calls, one after the
// other, in an order in which they also come about.
func TestPoolEarlyPut(t *testing.T) {
	first, second := shopper{1, 9900, 0}, shopper{5, 9900, 0}
	pool := &sync.Pool{New: newPooledOrder}
	billing := make(chan bill[*pooledOrder], 2)
	for range 100 { // a sync.Pool may forget what was put, and does under the race detector
		earlyPut(pool, first, billing)
		earlyPut(pool, second, billing)
		b := <-billing
		<-billing
		if b.order.price() == second.price() {
			return
		}
	}
	t.Error("the first shopper always got the right price")
}

func TestPoolNoReset(t *testing.T) {
	if wrong := wrongLate(10_000); wrong == 0 {
		t.Error("no order had the discount of the one before")
	}
}

func TestOwnPricesAreRight(t *testing.T) {
	if wrong, err := wrongOwned(10_000); wrong != 0 || err != nil {
		t.Error(wrong, err)
	}
}

func TestStarvation(t *testing.T) {
	if st := starvePool(t.Context(), 12); st.empty <= starveOrders {
		t.Errorf("the sync.Pool was empty for %d of %d Gets", st.empty, st.gets)
	}
	if st, err := starveOwn(12); st.empty != 0 || err != nil {
		t.Errorf("no seat for %d of %d Gets, %v", st.empty, st.gets, err)
	}
}

func TestParseTrace(t *testing.T) {
	const events = `M=1 P=0 G=1 Log Time=1000 Task=0 Category="pool" Message="empty"
	main.f @ 0x1
M=1 P=0 G=1 RangeBegin Time=1500 Name="GC concurrent mark phase" Scope=None
M=1 P=0 G=1 Log Time=1700 Task=0 Category="other" Message="empty"
M=1 P=0 G=1 Log Time=2000 Task=0 Category="pool" Message="empty"
`
	trace, err := parseTrace(strings.NewReader(events))
	if err != nil || len(trace.empty) != 2 || len(trace.collections) != 1 {
		t.Fatal(trace, err)
	}
	counts, marks, nanos := trace.stretch(1e6, 4)
	if nanos != 1000 || counts[0] != 1 || counts[3] != 1 || len(marks) != 1 || marks[0] != 0.5 {
		t.Error(counts, marks, nanos)
	}
	if _, err := parseTrace(strings.NewReader("nothing")); err == nil {
		t.Error("an empty trace: no error")
	}
}

// ── Chapter 4 ──

// TestClockDoubleRead lets 0.1 ms pass with each reading in the last
// millisecond of a deal: the third says that the deal is open, the seventh,
// that it is over.
func TestClockDoubleRead(t *testing.T) {
	ends := time.UnixMilli(1_800_000_000_000)
	hands := ends.Add(-500 * time.Microsecond)
	was := &timedDeal{starts: ends.Add(-time.Hour), ends: ends, now: func() time.Time {
		hands = hands.Add(100 * time.Microsecond)
		return hands
	}}
	if o := was.decide(); !o.accepted || !was.contradicts(o) {
		t.Errorf("ten readings: accepted %t, placed %v after the end", o.accepted, time.Unix(0, o.placedAt).Sub(ends))
	}
	is := &stampedDeal{starts: ends.Add(-time.Hour).UnixMilli(), ends: ends.UnixMilli()}
	clock := clockd.NewManual(ends.UnixMilli() - 3)
	accepted := 0
	for range 6 {
		o := is.decide(clock.Clock().Now())
		if is.contradicts(o) {
			t.Errorf("one stamp: placed at %d, the deal ended at %d", o.placedAt, is.ends)
		}
		if o.accepted {
			accepted++
		}
		clock.Advance(time.Millisecond)
	}
	if accepted != 3 {
		t.Errorf("%d orders were accepted in the last three milliseconds, one in each", accepted)
	}
}

// ── Chapter 5 ──

func TestParseStrace(t *testing.T) {
	const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 80.00    0.100000         100      1000           fsync
 10.00    0.010000          10       200        12 futex
 10.00    0.010000          10      1001           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.120000         110      2201        12 total
`
	if c, err := parseStrace(table); c != (calls{writes: 1001, syncs: 1000, futexes: 200, all: 2201}) || err != nil {
		t.Error(c, err)
	}
	if _, err := parseStrace("strace: no such process"); err == nil {
		t.Error("no table: no error")
	}
}

func TestLogsKeepWhatTheyTook(t *testing.T) {
	for _, kind := range []string{logSynced, logGroup} {
		dir := t.TempDir()
		for range 2 { // the second time on what the first has left
			l, err := openLog(t.Context(), kind, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(l.append(7, orderRecord), l.append(7, orderRecord), l.close()); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
	if _, err := openLog(t.Context(), "no such", t.TempDir()); err == nil {
		t.Error("opened a log of no known kind")
	}
}

// ── The program ──

// TestTurns checks that the sides take turns, what is shown, and the medians.
func TestTurns(t *testing.T) {
	var out bytes.Buffer
	s := &session{screen: screen{out: &out, redraws: true}}
	turns := ""
	p := pair{title: "pair", columns: []column{{"x", "%.1f"}}}
	for _, name := range []string{"A", "B"} {
		values := map[string][]float64{"A": {3, 1, 2}, "B": {10, 40, 20}}[name]
		p.sides = append(p.sides, side{name, func(context.Context) (figures, error) {
			turns += name
			f := figures{values[0]}
			values = values[1:]
			return f, nil
		}})
	}
	r, err := s.measure(t.Context(), 3, p)
	if err != nil || turns != "ABABAB" || r.medians[0][0] != 2 || r.medians[1][0] != 20 {
		t.Errorf("turns %s, medians %v, %v", turns, r.medians, err)
	}
	if shown := out.String(); strings.Count(shown, "\x1b[3A\x1b[J") != 6 || !strings.Contains(shown, "  A   1       3.0\n▸ B   0       …\n") {
		t.Errorf("%q", shown)
	}
	if m := medians([]figures{{1}, {4}}); m[0] != 2.5 {
		t.Errorf("the median of 1 and 4 is not %v", m[0])
	}
}

func TestSideThatFails(t *testing.T) {
	s := &session{screen: screen{out: new(bytes.Buffer)}}
	fails := pair{columns: []column{{"x", "%f"}}, sides: []side{{"A", func(context.Context) (figures, error) { return nil, errDisk }}}}
	if _, err := s.measure(t.Context(), 1, fails); !errors.Is(err, errDisk) {
		t.Error(err)
	}
}

func TestVerdict(t *testing.T) {
	row := func(locked, sharded, owned float64) string {
		return lockVerdict(result{pair: pair{title: "row"}, medians: []figures{{locked}, {sharded}, {owned}}})
	}
	if text := row(100, 110, 105); !strings.Contains(text, "does not show the lock") || strings.Count(text, "no real difference") != 2 {
		t.Error(text)
	}
	if text := row(100, 101, 5000); strings.Contains(text, "does not show") || !strings.Contains(text, "ownership 50.00 ×") {
		t.Error(text)
	}
}

func TestPageKeepsOtherChapters(t *testing.T) {
	s := newTestSession(t)
	for _, step := range []struct {
		c    chapter
		text string
	}{{clockChapter, "old four"}, {lockChapter, "one"}, {clockChapter, "new four"}} {
		if err := s.write(step.c, "", step.text); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(filepath.Join(s.docs, "incident.md"))
	if err != nil {
		t.Fatal(err)
	}
	one, four := bytes.Index(page, []byte("one\n<!-- end")), bytes.Index(page, []byte("new four"))
	if one < 0 || four < one || bytes.Contains(page, []byte("old four")) || bytes.Count(page, []byte("# The incident,")) != 1 {
		t.Errorf("%s", page)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"--chapter", "7"}, {"--seconds", "0"}, {"more"}, {"--no"}, {childWord}, {childWord, "orders", "--shop", "no such"}, {childWord, "orders", "--then", "no such"}, {childWord, "journal", "--log", "no such"}} {
		if err := run(t.Context(), args, strings.NewReader(""), new(bytes.Buffer)); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestChildThatDoesNotServe(t *testing.T) {
	s := &session{self: "/bin/echo"}
	if _, err := s.startChild(t.Context(), 1, "orders"); err == nil {
		t.Error("echo passed for a shop")
	}
}
