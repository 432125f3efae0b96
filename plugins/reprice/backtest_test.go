package reprice_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/plugins"
	"github.com/doorbuster/doorbuster/plugins/abi"
	"github.com/doorbuster/doorbuster/plugins/gas/gastest"
	"github.com/doorbuster/doorbuster/plugins/reprice"
	"github.com/doorbuster/doorbuster/runtime/journal"
	"github.com/doorbuster/doorbuster/runtime/journal/journaltest"
)

// rows is a sink that keeps a line for each change.
type rows struct {
	lines   []string
	flushes int
	err     error // of Flush
}

func (r *rows) Change(c *reprice.Change) {
	line := fmt.Sprintf("%d: %d", c.Seq, c.Difference())
	if c.Refused {
		line += " refused"
	}
	if v := c.Candidate; v != nil && v.Fault != abi.FaultNone {
		line += " " + v.Fault.String()
	}
	r.lines = append(r.lines, line)
}

func (r *rows) Flush() error {
	r.flushes++
	return r.err
}

// journalled puts the shop's records into a store.
func (s *shop) journalled() *journaltest.Memory {
	s.t.Helper()
	store := journaltest.NewMemory()
	head, err := store.Open(context.Background(), "d")
	if err != nil {
		s.t.Fatal(err)
	}
	for i, record := range s.records {
		w := journal.Write{Stream: "d", Epoch: head.Epoch, Seq: uint64(i + 1), Count: 1, Data: journal.AppendEvent(nil, record)}
		if err := store.Commit([]*journal.Write{&w}); err != nil || w.Err != nil {
			s.t.Fatal(err, w.Err)
		}
	}
	return store
}

// backtest runs a candidate over all that the shop has sold.
func (s *shop) backtest(c reprice.Candidate) (*reprice.Summary, []string) {
	s.t.Helper()
	c.Merchant = "acme"
	b, err := reprice.NewBacktest(context.Background(), s.rules, c)
	if err != nil {
		s.t.Fatal(err)
	}
	var sink rows
	if err := b.Run(context.Background(), s.journalled(), "d", uint64(len(s.records)), nil, &sink); err != nil {
		s.t.Fatal(err)
	}
	return b.Summary(), sink.lines
}

func wantLines(t *testing.T, got []string, want string) {
	t.Helper()
	if text := strings.Join(got, "; "); text != want {
		t.Errorf("changes %q, want %q", text, want)
	}
}

// TestBacktest: a candidate in the place of its rule.
func TestBacktest(t *testing.T) {
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "ten", off(10))
	upload(t, rules, "other", off(100))
	s := newShop(t, rules, deal.RejectOnRuleError, "ten", "other")
	for range 3 {
		s.order("ann", 2)
	}
	upload(t, rules, "ten", off(210))
	upload(t, rules, "ten", refuse)
	upload(t, rules, "ten", trap)
	upload(t, rules, "ten", nothing)

	if sum, lines := s.backtest(reprice.Candidate{Rule: "ten", Version: 1}); len(lines) != 0 || sum.Orders != 3 || sum.Changed != 0 || sum.Gave != 3 || sum.Recorded != sum.Candidate {
		t.Errorf("the same version: %+v, %v", sum, lines)
	}
	sum, lines := s.backtest(reprice.Candidate{Rule: "ten", Version: 2})
	wantLines(t, lines, "2: -200; 3: -200; 4: -200")
	if sum.Cheaper != 3 || sum.Changed != 3 || sum.Recorded != (reprice.Sums{Revenue: 3 * 1890, Discount: 3 * 110}) || sum.Candidate != (reprice.Sums{Revenue: 3 * 1690, Discount: 3 * 310}) {
		t.Errorf("cheaper: %+v", sum)
	}
	// 200 of 2000 is exactly two parts of five per cent; 110 is more than one.
	if sum.Change[reprice.Buckets-2] != 3 || sum.RecordedDiscount[2] != 3 || sum.CandidateDiscount[4] != 3 {
		t.Errorf("histograms: %v %v %v", sum.Change, sum.RecordedDiscount, sum.CandidateDiscount)
	}
	if sum.FuelMax() == 0 || sum.Fuel(50) != sum.FuelMax() || sum.Ran != 3 {
		t.Errorf("fuel: %d %d", sum.Fuel(50), sum.FuelMax())
	}
	sum, lines = s.backtest(reprice.Candidate{Rule: "ten", Version: 3})
	wantLines(t, lines, "2: -1890 refused; 3: -1890 refused; 4: -1890 refused")
	if sum.Refused != 3 || sum.Changed != 3 || sum.Rejects != 3 || sum.Candidate != (reprice.Sums{}) || sum.CandidateDiscount != [reprice.Buckets + 1]uint64{} {
		t.Errorf("refused: %+v", sum)
	}
	sum, lines = s.backtest(reprice.Candidate{Rule: "ten", Version: 4})
	wantLines(t, lines, "2: -1890 refused trap; 3: -1890 refused trap; 4: -1890 refused trap")
	if sum.Refused != 3 || sum.Faults[abi.FaultTrap] != 3 {
		t.Errorf("faults: %+v", sum)
	}
	sum, lines = s.backtest(reprice.Candidate{Rule: "ten", Version: 5})
	wantLines(t, lines, "2: 10; 3: 10; 4: 10")
	if sum.Dearer != 3 || sum.None != 3 || sum.Change[reprice.Buckets+1] != 3 {
		t.Errorf("dearer: %+v", sum)
	}
}

// TestBacktestOfAFunction: a Shopify function may use more fuel than a rule.
func TestBacktestOfAFunction(t *testing.T) {
	endless := gastest.Module{
		Types: []gastest.Type{{}}, Funcs: []gastest.Func{{Code: "loop void br 0 end"}}, MemoryMin: 1,
		Exports: []gastest.Export{{Name: "memory", Kind: 2}, {Name: "run"}}, Custom: map[string]string{"doorbuster:classes": "ORDER"},
	}
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "ten", off(10))
	s := newShop(t, rules, deal.SkipOnRuleError, "ten")
	s.order("ann", 2)
	if _, _, err := rules.Upload(t.Context(), plugins.Upload{Merchant: "acme", RuleID: "ten", Wasm: endless.Encode()}); err != nil {
		t.Fatal(err)
	}
	sum, _ := s.backtest(reprice.Candidate{Rule: "ten", Version: 2})
	if sum.Faults[abi.FaultOutOfFuel] != 1 || sum.FuelMax() < plugins.FuelMax || sum.FuelMax() > plugins.FuelMax*1001/1000 {
		t.Errorf("%v after %d units", sum.Faults, sum.FuelMax())
	}
}

// TestBacktestSkips: a deal that skips rules that fail goes on without them.
func TestBacktestSkips(t *testing.T) {
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "ten", off(10))
	upload(t, rules, "ten", trap)
	rollback(t, rules)
	s := newShop(t, rules, deal.SkipOnRuleError, "ten", "gone")
	s.order("ann", 1)
	_, lines := s.backtest(reprice.Candidate{Rule: "ten", Version: 2})
	wantLines(t, lines, "2: 10 trap")
}

func rollback(t *testing.T, rules *plugins.Registry) {
	t.Helper()
	if _, err := rules.Rollback(t.Context(), "test", "", "acme", "ten"); err != nil {
		t.Fatal(err)
	}
}

// ending takes a fixed amount off and ends the pricing.
func ending(amount int) string {
	return "i32.const 4096 i32.const 1 i32.store16 1 2 " + off(amount)
}

// TestBacktestStack: the rules before the candidate stay as they were, those
// behind it are told of its discount, and one that was not reached runs in its
// stable version.
func TestBacktestStack(t *testing.T) {
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "a", off(1))
	upload(t, rules, "b", off(10))
	upload(t, rules, "c", off(100))
	s := newShop(t, rules, deal.RejectOnRuleError, "a", "b", "c")
	s.order("ann", 1) // 2
	upload(t, rules, "b", ending(20))
	s.order("ann", 1)                 // 3: the pricing ends with b
	upload(t, rules, "a", off(2))     // stable now, and not what the orders had
	upload(t, rules, "c", off(200))   //
	upload(t, rules, "b", off(1000))  // version 3: more than is left for c
	upload(t, rules, "b", ending(10)) // version 4
	_, lines := s.backtest(reprice.Candidate{Rule: "b", Version: 1})
	wantLines(t, lines, "3: -190")
	_, lines = s.backtest(reprice.Candidate{Rule: "b", Version: 2})
	wantLines(t, lines, "2: 90")
	_, lines = s.backtest(reprice.Candidate{Rule: "b", Version: 3})
	wantLines(t, lines, "2: -889 refused bad_output; 3: -979 refused bad_output")
	_, lines = s.backtest(reprice.Candidate{Rule: "b", Version: 4})
	wantLines(t, lines, "2: 100; 3: 10")
	sum, lines := s.backtest(reprice.Candidate{Rule: "c", Version: 2}) // never reached by order 3
	wantLines(t, lines, "2: -100")
	if sum.Orders != 2 || sum.Ran != 1 {
		t.Errorf("%+v", sum)
	}
	_, lines = s.backtest(reprice.Candidate{Rule: "tiered", Version: 1}) // behind all others: a tenth of what is left
	wantLines(t, lines, "2: -88")
}

// TestBacktestWithoutRulesThatWereOff: a rule that was switched off is not run
// where the order was priced without it; a candidate for it is.
func TestBacktestWithoutRulesThatWereOff(t *testing.T) {
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "ten", off(10))
	upload(t, rules, "bad", off(100))
	s := newShop(t, rules, deal.SkipOnRuleError, "bad", "ten")
	var e deal.Event
	s.state.SwitchOff([]byte("bad"), now+1, &e)
	e.Seq = s.state.Seq + 1
	if err := s.state.Apply(&e); err != nil {
		t.Fatal(err)
	}
	s.records = append(s.records, e.Append(nil))
	s.order("ann", 1) // 3: ten alone
	s.do(&deal.Command{Kind: deal.Change, Patch: &deal.Patch{Rules: &[]string{"bad", "ten"}}})
	s.order("ann", 1) // 5: both
	_, lines := s.backtest(reprice.Candidate{Rule: "ten", Version: 1})
	wantLines(t, lines, "")
	_, lines = s.backtest(reprice.Candidate{Rule: "bad", Version: 1})
	wantLines(t, lines, "3: -100")
}

// TestBacktestFollowsTheDeal: an order is priced under the deal as it was then,
// and only those of the asked time are.
func TestBacktestFollowsTheDeal(t *testing.T) {
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "ten", off(10))
	upload(t, rules, "ten", off(20))
	rollback(t, rules)
	s := newShop(t, rules, deal.RejectOnRuleError)
	s.order("ann", 1) // 2, without a rule
	s.do(&deal.Command{Kind: deal.Change, Patch: &deal.Patch{Rules: &[]string{"ten"}}})
	s.order("ann", 1) // 4
	s.do(&deal.Command{Kind: deal.Pause})
	s.do(&deal.Command{Kind: deal.Resume})
	s.order("ann", 1) // 7
	fourth := s.event(4).At
	for want, c := range map[string]reprice.Candidate{
		"2: -20; 4: -10; 7: -10": {},
		"4: -10; 7: -10":         {From: fourth},
		"2: -20":                 {To: fourth},
		"4: -10":                 {From: fourth, To: fourth + 1},
		"":                       {From: fourth + 100},
	} {
		c.Rule, c.Version = "ten", 2
		_, lines := s.backtest(c)
		wantLines(t, lines, want)
	}
}

// TestBacktestEndsEarly: with its reader, with its context, and when there is
// nothing to run or to read.
func TestBacktestEndsEarly(t *testing.T) {
	rules := open(t, journaltest.NewMemory())
	upload(t, rules, "ten", off(10))
	s := newShop(t, rules, deal.RejectOnRuleError)
	for range 2000 {
		s.order("ann", 1)
	}
	store, last := s.journalled(), uint64(len(s.records))
	run := func(ctx context.Context, last uint64, pace *reprice.Pace, sink *rows) (*reprice.Summary, error) {
		b, err := reprice.NewBacktest(context.Background(), rules, reprice.Candidate{Merchant: "acme", Rule: "ten", Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		return b.Summary(), b.Run(ctx, store, "d", last, pace, sink)
	}
	all := &rows{}
	if sum, err := run(t.Context(), last, nil, all); err != nil || sum.Orders != 2000 || len(all.lines) != 2000 || all.flushes != 4 {
		t.Errorf("%d orders, %d changes, %d flushes, %v", sum.Orders, len(all.lines), all.flushes, err)
	}
	gone := errors.New("gone")
	if sum, err := run(t.Context(), last, nil, &rows{err: gone}); !errors.Is(err, gone) || sum.Orders > 600 {
		t.Errorf("%d orders, %v", sum.Orders, err)
	}
	if _, err := run(t.Context(), last+1, nil, &rows{}); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("an event that is not there: %v", err)
	}
	// A pace whose clock stands still: the first slice is done, and the next one waits
	// for the end of its rest.
	clock := clockd.NewManual(now)
	pace, err := reprice.NewPace(clock.Clock(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	resting := make(chan error, 1)
	go func() {
		_, err := run(ctx, last, pace, &rows{})
		resting <- err
	}()
	cancel()
	if err := <-resting; !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	for _, percent := range []int{0, 101} {
		if _, err := reprice.NewPace(clock.Clock(), percent); err == nil {
			t.Errorf("%d percent is a pace", percent)
		}
	}
	if _, err := reprice.NewBacktest(t.Context(), rules, reprice.Candidate{Merchant: "acme", Rule: "ten", Version: 2}); !errors.Is(err, plugins.ErrVersionNotFound) {
		t.Errorf("no such version: %v", err)
	}
}

func BenchmarkBacktest(b *testing.B) {
	rules := open(b, journaltest.NewMemory())
	s := newShop(b, rules, deal.RejectOnRuleError, "tiered")
	for i := range 4000 {
		s.order(fmt.Sprint("user-", i), int64(1+i%5))
	}
	store := s.journalled()
	upload(b, rules, "ten", off(10))
	for _, rule := range []string{"tiered", "ten"} { // no order changes, every order does
		b.Run(rule, func(b *testing.B) {
			b.ReportAllocs()
			begin := cpu(b)
			for b.Loop() {
				t, err := reprice.NewBacktest(b.Context(), rules, reprice.Candidate{Merchant: "acme", Rule: rule, Version: 1})
				if err != nil {
					b.Fatal(err)
				}
				if err := t.Run(b.Context(), store, "d", uint64(len(s.records)), nil, discard{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(4000*b.N)/b.Elapsed().Seconds(), "orders/s")
			b.ReportMetric(float64(4000*b.N)/(cpu(b)-begin).Seconds(), "orders/cpu-s")
		})
	}
}

// cpu returns the CPU time that the process has used: on a machine that is busy
// with other things, orders/s says less than orders/cpu-s.
func cpu(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

type discard struct{}

func (discard) Change(*reprice.Change) {}
func (discard) Flush() error           { return nil }
