package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/cmd/progress"
	"github.com/doorbuster/doorbuster/runtime/journal/postgres"
)

const (
	task = "go tool task cluster"

	warm   = 2 * time.Second // of sales before a fault
	settle = 2 * time.Second // after every deal answers again
)

// row is what became of the shoppers during one fault.
type row struct {
	name  string
	asked int
	// Answers, by kind. unknown: patience was lost over it.
	acknowledged, refused, unknown int
	failed                         int           // tries that got 5xx or nothing
	failure                        error         // one of them
	again                          time.Duration // from the beginning until every deal had answered somebody who asked since
	longest                        time.Duration // that anybody waited for an answer
	begin                          int64         // Mono ns
	verdict
}

// play does one thing to the cluster while a shop is open, and audits the shop.
func (k *kit) play(ctx context.Context, number int, f *fault) (row, error) {
	return k.during(ctx, number, f.name, func() (func() error, error) {
		mend, err := f.hurt(ctx, k)
		if err != nil {
			return nil, err
		}
		return mend, k.sleep(ctx, f.hold)
	}, f.judge)
}

// during opens a shop, calls hurt and what it returns, closes the shop when every deal
// answers again, and audits it.
func (k *kit) during(ctx context.Context, number int, name string, hurt func() (mend func() error, err error), judge func(*row) error) (r row, err error) {
	s, err := k.openShop(ctx, number)
	if err != nil {
		return row{}, err
	}
	quiet := k.liveLine(ctx, name, s)
	begin := clockd.Mono()
	err = func() error {
		if err := k.sleep(ctx, warm); err != nil {
			return err
		}
		begin = clockd.Mono()
		mend, err := hurt()
		if err == nil && mend != nil {
			err = mend()
		}
		if err != nil {
			return err
		}
		return errors.Join(s.everyDealAnswers(ctx), k.sleep(ctx, settle))
	}()
	ops, fault := s.close()
	quiet()
	if err != nil {
		return row{}, fmt.Errorf("%s: %w", name, err)
	}
	r = count(name, ops, begin)
	if r.verdict, err = k.audit(ctx, s.all(), ops); err != nil {
		return row{}, err
	}
	for _, err := range []error{fault, judge(&r)} {
		if err != nil {
			r.violations = append(r.violations, err)
		}
	}
	return r, nil
}

// openShop opens one with deals of its own.
func (k *kit) openShop(ctx context.Context, number int) (*shop, error) {
	s := &shop{prefix: fmt.Sprintf("f%d-", number), deals: k.deals, nodes: k.balanced, seed: k.seed + uint64(number), latest: make(map[string]int64)}
	err := s.create(ctx)
	if err == nil {
		s.open(ctx, k.rate, k.perDeal)
	}
	return s, err
}

// audit reads the journal from outside. A node that is alone has it for itself, and is
// away meanwhile.
func (k *kit) audit(ctx context.Context, deals []string, ops []*op) (v verdict, err error) {
	if k.common.alone {
		n := k.victim()
		if err := n.leave(ctx); err != nil {
			return verdict{}, err
		}
		defer func() { err = errors.Join(err, n.start(ctx)) }()
	}
	store, err := postgres.Open(ctx, postgres.Config{URL: databaseURL(k.database.addrs()), Clock: k.clock})
	if err != nil {
		return verdict{}, err
	}
	now := k.clock.Now()
	at := openings{off: clocksApart, gaps: k.from != "", mono: func(t time.Time) int64 {
		return now.Mono + int64(t.Sub(time.UnixMilli(now.Wall)))
	}}
	return audit(ctx, store, at, deals, ops), store.Close()
}

// clocksApart is by how much the machine's wall clock may leave its steady one while a
// shop is open.
const clocksApart = 200 * time.Millisecond

// count counts what shoppers got.
func count(name string, ops []*op, begin int64) row {
	r := row{name: name, asked: len(ops), begin: begin}
	first := make(map[string]int64)
	for _, o := range ops {
		r.failed += o.failures
		r.failure = cmp.Or(r.failure, o.failure)
		switch {
		case o.ret == 0:
			r.unknown++
			continue
		case o.acknowledged():
			r.acknowledged++
		default:
			r.refused++
		}
		r.longest = max(r.longest, time.Duration(o.ret-o.call))
		if before, found := first[o.deal]; o.call >= begin && (!found || o.ret < before) {
			first[o.deal] = o.ret
		}
	}
	for _, ret := range first {
		r.again = max(r.again, time.Duration(ret-begin))
	}
	return r
}

// judge holds a row against what the fault may cost.
func (f *fault) judge(r *row) error {
	var broken []error
	if r.unknown > 0 {
		broken = append(broken, fmt.Errorf("%d questions were never answered", r.unknown))
	}
	if f.unnoticed && r.failed > 0 {
		broken = append(broken, fmt.Errorf("%d requests failed, and none should: %w", r.failed, r.failure))
	}
	if f.within > 0 && r.again > f.within {
		broken = append(broken, fmt.Errorf("it took %v until every deal answered, not %v", r.again, f.within))
	}
	if longest := quantile(r.stayed(), 1); f.spared > 0 && longest > f.spared {
		broken = append(broken, fmt.Errorf("who asked for a deal that kept its owner waited for %v, not %v", longest, f.spared))
	}
	if pause := quantile(r.moves, pauseAt); f.pause > 0 && pause > f.pause {
		broken = append(broken, fmt.Errorf("while deals moved, shoppers waited for %v, not %v", pause, f.pause))
	}
	return errors.Join(broken...)
}

// stayed is how long those waited who asked for a deal that kept its owner.
func (r *row) stayed() []time.Duration {
	waits := make([]time.Duration, len(r.spared))
	for i, o := range r.spared {
		waits[i] = o.wait()
	}
	return waits
}

// quantile sorts the values; 0 if there are none.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

// playAll plays every fault that is wanted and possible, and then so many at random.
func (k *kit) playAll(ctx context.Context, wanted func(string) bool, random int) ([]row, error) {
	var rows []row
	for number, f := range faults {
		if !wanted(f.name) {
			continue
		}
		if why := f.possible(&k.plan); why != "" {
			fmt.Fprintf(k.out, "NOT PLAYED: %s: %s\n", f.name, why)
			continue
		}
		r, err := k.play(ctx, number, &f)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
		k.tell(r)
	}
	if random == 0 {
		return rows, nil
	}
	r, err := k.playAtRandom(ctx, wanted, random)
	if err == nil {
		rows = append(rows, r)
		k.tell(r)
	}
	return rows, err
}

// playAtRandom plays faults one after the other in one shop, without waiting until
// the last one is overcome.
func (k *kit) playAtRandom(ctx context.Context, wanted func(string) bool, times int) (row, error) {
	rng := rand.New(rand.NewPCG(k.seed, 0))
	var can []fault
	for _, f := range faults {
		if wanted(f.name) && f.possible(&k.plan) == "" && !f.needs.standby { // there is one standby, for one fail-over
			can = append(can, f)
		}
	}
	name := fmt.Sprintf("%d of these at random, seed %d", times, k.seed)
	return k.during(ctx, len(faults), name, func() (func() error, error) {
		for range times {
			f := can[rng.IntN(len(can))]
			mend, err := f.hurt(ctx, k)
			if err == nil {
				err = k.sleep(ctx, time.Duration(rng.Int64N(int64(holdLong))))
			}
			if err == nil && mend != nil {
				err = mend()
			}
			if err == nil {
				err = k.sleep(ctx, time.Duration(rng.Int64N(int64(lease))))
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
		}
		return nil, nil
	}, (&fault{}).judge)
}

// everyDealAnswers returns when every deal has answered somebody who asked from now on.
func (s *shop) everyDealAnswers(ctx context.Context) error {
	since := clockd.Mono()
	return until(ctx, "every deal answers again", func() bool { return s.answersSince(since) })
}

func (s *shop) answersSince(since int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.all() {
		if s.latest[id] < since {
			return false
		}
	}
	return true
}

// all are the ids of the deals.
func (s *shop) all() []string {
	ids := make([]string, s.deals)
	for i := range ids {
		ids[i] = s.deal(i)
	}
	return ids
}

// liveLine says every second how it goes, on one line, if somebody is watching.
func (k *kit) liveLine(ctx context.Context, name string, s *shop) (end func()) {
	if !progress.Terminal(k.out) {
		return func() {}
	}
	begin := clockd.Mono()
	stop := k.clock.Every(time.Second, func() {
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintf(k.out, "\r\x1b[K%s  %2.0f s  %d answered", name, time.Duration(clockd.Mono()-begin).Seconds(), len(s.ops))
	})
	return func() {
		stop()
		fmt.Fprint(k.out, "\r\x1b[K")
	}
}

// tell prints a row for people who wait.
func (k *kit) tell(r row) {
	fmt.Fprintf(k.out, "%s: %d asked, %d acknowledged, %d refused, %d failed, %d unknown; every deal answers after %v, longest wait %v, for deals that stayed %s; %d moves, P99 %v; %d stale, by %v at most; %d violations\n",
		r.name, r.asked, r.acknowledged, r.refused, r.failed, r.unknown, millis(r.again), millis(r.longest), spread(r.stayed()),
		len(r.moves), millis(quantile(r.moves, pauseAt)), r.stale, millis(r.staleMost), len(r.violations))
	slices.SortFunc(r.spared, func(a, b *op) int { return cmp.Compare(b.wait(), a.wait()) })
	for _, o := range r.spared[:min(k.slowest, len(r.spared))] {
		fmt.Fprintf(k.out, "  %v at %v, %v after the beginning: %v, %d tries failed\n", millis(o.wait()), o.node, millis(time.Duration(o.call-r.begin)), o, o.failures)
	}
	const most = 5
	for i, violation := range r.violations {
		if i == most {
			fmt.Fprintf(k.out, "  and %d more\n", len(r.violations)-most)
			break
		}
		fmt.Fprintf(k.out, "  VIOLATION: %v\n", violation)
	}
}

// spread is P50, P99 and the longest.
func spread(waits []time.Duration) string {
	if len(waits) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s / %s / %s", millis(quantile(waits, 0.5)), millis(quantile(waits, 0.99)), millis(quantile(waits, 1)))
}

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// table renders the rows as Markdown.
func (k *kit) table(rows []row) string {
	var out strings.Builder
	where := "each in a network namespace of its own"
	if !k.spaces {
		where = "all on loopback"
	}
	var asked, acknowledged, events, takeOvers, violations int
	for _, r := range rows {
		asked, acknowledged, events, takeOvers, violations = asked+r.asked, acknowledged+r.acknowledged, events+r.events, takeOvers+r.takeOvers, violations+len(r.violations)
	}
	fmt.Fprintf(&out, "`%s` starts %d nodes, etcd and PostgreSQL, %s, on %s. %d shoppers ask %.0f times a second for\n%d deals while this happens. Of %d questions %d were acknowledged; %d events and %d take-overs were held against them: **%d violations**.\n\n",
		task, k.plan.nodes, where, page.Machine(), k.deals*k.perDeal, k.rate, k.deals, asked, acknowledged, events, takeOvers, violations)
	out.WriteString("| | asked | acknowledged | refused | failed | unknown | every deal answers after | longest wait | deals that stayed, wait P50 / P99 / longest | deals moved, wait P50 / P99 | stale | violations |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		moved := "0"
		if len(r.moves) > 0 {
			moved = fmt.Sprintf("%d, %s / %s", len(r.moves), millis(quantile(r.moves, 0.5)), millis(quantile(r.moves, pauseAt)))
		}
		fmt.Fprintf(&out, "| %s | %d | %d | %d | %d | %d | %s | %s | %s | %s | %d | %d |\n",
			r.name, r.asked, r.acknowledged, r.refused, r.failed, r.unknown, millis(r.again), millis(r.longest), spread(r.stayed()), moved, r.stale, len(r.violations))
	}
	out.WriteString(`
asked: orders, repeated orders, confirmations, cancellations, readings of a deal. refused: sold out, over the limit, too
late. failed: tries answered by 5xx or not at all; a shopper then asks another node with the same key, for 40 s, and what
is not known then is unknown. Deals that stayed: of all who asked for one with the same owner from beginning to end; who
asked a node that ended meanwhile waits from when another is asked. Deals that moved: their number, and how long those
waited who asked meanwhile. stale: readings and refusals by an owner that did not know yet that it had been superseded;
each was true a moment ago, and orders are never acknowledged so.
`)
	return out.String()
}

// report writes the table and says whether all promises were kept.
func (k *kit) report(rows []row, out io.Writer, markdown string) error {
	text := k.table(rows)
	fmt.Fprint(out, "\n", text)
	var broken []error
	for _, r := range rows {
		if len(r.violations) > 0 {
			broken = append(broken, fmt.Errorf("%s: %d violations", r.name, len(r.violations)))
		}
	}
	return errors.Join(errors.Join(broken...), page.WriteSection(markdown, task, text))
}
