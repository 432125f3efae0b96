//go:build linux

// Command overload measures what becomes of accepted orders when far more are
// asked for than the server can take.
//
// The load is open: orders are due on a schedule that takes no notice of the
// answers, and count from when they were due. A connection is a shopper: an order that
// soon finds none free is not sent, and shown as such. The goodput is the accepted orders
// a second. The load shares the processor with the server, which is the harder case: what
// the load takes is gone, and is shown. What is compared takes turns in short slices, and a
// ratio is the median of those of the rounds, because the machine's speed changes from one
// second to the next. A server that does nothing but answer takes turns too: it shows what
// so many connections cost whoever serves them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway"
	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	task       = "go tool task overload"
	rule       = "tiered" // that prices the deal
	patience   = 50 * time.Millisecond
	secondsMax = 3600
	roundsMax  = 99

	connectionsUsed = 400  // of the load at its normal size
	connectionsMost = 4000 // of the largest

	share = 0.5 // of the capacity: what is a normal load

	burstTimes      = 5
	burstLength     = time.Second
	recoveryTimes   = 1.5 // normal is up to so many times the P99 before the burst
	recoveryWindows = 3   // that must be normal in a row
)

func main() {
	debug.SetGCPercent(400) // the generator's pauses are not the server's
	lab.Main(newCommand())
}

// session is one run.
type session struct {
	seconds, warmup int
	rounds          int
	lead            time.Duration // of each load, which does not count
	factor          float64       // of all connections
	page            string

	out    io.Writer
	dir    string // scratch
	server *lab.Process
	bare   *lab.Process // answers everything with a constant
	orders lab.Orders   // of the round
	runs   atomic.Int64 // loads and deals so far

	capacity float64 // orders/s
}

func newCommand() *cobra.Command {
	s := &session{factor: 1}
	cmd := lab.Command("overload", "Measure what becomes of accepted orders when too many are asked for", func(ctx context.Context, out io.Writer) error {
		s.out = out
		return s.run(ctx)
	})
	flags := cmd.Flags()
	flags.IntVar(&s.seconds, "seconds", 2, "seconds of each load")
	flags.IntVar(&s.rounds, "rounds", 1, "how often the loads take turns, at most 99")
	flags.IntVar(&s.warmup, "warmup", 2, "seconds before the first that do not count; also how long the capacity is measured")
	// What thousands of connections do that all wake up in one moment is the burst's part to show.
	flags.DurationVar(&s.lead, "lead", time.Second, "how long each load is under way before it counts")
	flags.Float64Var(&s.factor, "connections", 1, "times as many connections as otherwise, up to 4")
	flags.StringVar(&s.page, "page", "", "Markdown page that the tables are written to")
	cmd.AddCommand(lab.ConstantCommand(gateway.ServeConstant))
	return cmd
}

func (s *session) validate() error {
	if s.seconds < 1 || s.seconds > secondsMax || s.warmup < 1 || s.warmup > secondsMax || s.rounds < 1 || s.rounds > roundsMax || s.lead < 0 || s.lead > time.Minute || !(s.factor > 0 && s.factor <= 4) {
		return errors.New("--seconds and --warmup must be at least 1, --rounds 1 to 99, --lead 0 to 1m, --connections in (0, 4]")
	}
	return nil
}

// connections scales a number of connections.
func (s *session) connections(n int) int { return max(2, int(float64(n)*s.factor)) }

func (s *session) length() time.Duration { return s.lead + time.Duration(s.seconds)*time.Second }

func (s *session) run(ctx context.Context) (err error) {
	if err := s.validate(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "doorbuster-overload-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	binary, err := lab.Build(ctx, s.dir)
	if err != nil {
		return err
	}
	if s.server, err = lab.Serve(ctx, binary, filepath.Join(s.dir, "data")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.server.Stop()) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if s.bare, err = lab.Start(ctx, self, "constant"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.bare.Stop()) }()
	var section strings.Builder
	for _, part := range []func(context.Context) (string, error){s.measureCapacity, s.levels, s.burst, s.slowHalf} {
		if err := s.open(ctx); err != nil {
			return err
		}
		text, err := part(ctx)
		if err != nil {
			return err
		}
		fmt.Fprint(s.out, text)
		section.WriteString(text)
	}
	return page.WriteSection(s.page, task, section.String())
}

// open opens the deal that the orders of a round are for: one takes 2²⁴ at most.
func (s *session) open(ctx context.Context) error {
	s.orders = lab.Orders{Deals: 1, Prefix: fmt.Sprintf("d%d-", s.runs.Add(1))}
	return s.orders.Create(ctx, client.Config{Addr: s.server.Listen}, rule)
}

// dial returns a fleet whose connections have been used: to connect takes longer than to
// order, and is not what is measured.
func (s *session) dial(ctx context.Context, server *lab.Process, connections int) (*fleet, error) {
	connections = s.connections(connections)
	f, err := dial(server.Listen, connections)
	if err != nil {
		return nil, err
	}
	orders := s.keyed()
	if _, err = f.run(ctx, load{orders: 2 * connections, next: orders.Next}); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// keyed returns orders with keys of their own.
func (s *session) keyed() lab.Orders {
	orders := s.orders
	orders.Run = strconv.FormatInt(s.runs.Add(1), 10)
	return orders
}

// send runs one load against a server, and returns what was recorded behind the lead.
func (s *session) send(ctx context.Context, server *lab.Process, f *fleet, rate float64, lead, length time.Duration) (*recorder, error) {
	before, err := usageOf(ctx, server)
	if err != nil {
		return nil, err
	}
	r := newRecorder(lead, length)
	r.summary, err = f.run(ctx, load{
		length: length, rate: rate, patience: patience, next: s.keyed().Next, observe: r.observe,
	})
	if err != nil {
		return nil, err
	}
	after, err := usageOf(ctx, server)
	r.used, r.spent = after.server-before.server, after.load-before.load
	return r, err
}

// usage is the time on a processor so far.
type usage struct{ server, load time.Duration }

func usageOf(ctx context.Context, server *lab.Process) (usage, error) {
	used, err := server.Usage(ctx)
	if err != nil {
		return usage{}, err
	}
	own, _, err := lab.CPU(os.Getpid())
	return usage{server: used.CPU, load: own}, err
}

func (s *session) measureCapacity(ctx context.Context) (string, error) {
	f, err := s.dial(ctx, s.server, connectionsUsed)
	if err != nil {
		return "", err
	}
	defer f.close()
	for range 2 { // the first warms the server up
		r, err := s.send(ctx, s.server, f, 0, 0, time.Duration(s.warmup)*time.Second)
		if err != nil {
			return "", err
		}
		s.capacity = r.goodput()
	}
	return fmt.Sprintf("## Overload\n`%s -- --rounds %d --seconds %d`: one hot deal with the rule `%s`; load and server on the same %s.\n"+
		"Each load is under way for %v before it counts. Figures are medians over the rounds; refused, no answer and not sent are sums.\n"+
		"Capacity to begin with, when each of %d connections waits for its answers: **%.0f orders/s**.\n",
		task, s.rounds, s.seconds, rule, page.Machine(), s.lead, s.connections(connectionsUsed), s.capacity), nil
}

// turns yields 0, then 1 to n-1, from another one in each round, and then all of them backwards:
// what the last load left behind, and where in a round the machine was slow, is then nobody's
// alone.
func turns(round, n int) iter.Seq[int] {
	order := make([]int, n)
	for i := range n - 1 {
		order[1+i] = 1 + (round+i)%(n-1)
	}
	return func(yield func(int) bool) {
		for i := range 2 * n {
			if !yield(order[min(i, 2*n-1-i)]) {
				return
			}
		}
	}
}

// level is one load.
type level struct {
	name        string
	times       float64 // of the capacity; 0 = as fast as the answers come
	connections int
	bare        bool // against the constant reply
}

// levels are what is compared; of each server the first is what the others are held against.
// That of ours also says anew in each round what the capacity is.
var levels = []level{
	{name: "as fast as the answers come", connections: connectionsUsed},
	{name: "1×", times: 1, connections: connectionsUsed},
	{name: "2×", times: 2, connections: 2 * connectionsUsed},
	{name: "5×", times: 5, connections: 5 * connectionsUsed},
	{name: "10×", times: 10, connections: connectionsMost},
	{name: "as fast as the answers come", connections: connectionsMost},
	{name: "the same, a constant reply", connections: connectionsUsed, bare: true},
	{name: "the same, a constant reply", connections: connectionsMost, bare: true},
}

// levels asks for more and more.
func (s *session) levels(ctx context.Context) (string, error) {
	fleets := make([]*fleet, len(levels))
	servers := make([]*lab.Process, len(levels))
	for i, l := range levels {
		if servers[i] = s.server; l.bare {
			servers[i] = s.bare
		}
		f, err := s.dial(ctx, servers[i], l.connections)
		if err != nil {
			return "", err
		}
		defer f.close()
		fleets[i] = f
	}
	found := make([]results, len(levels))
	shares := make([][]float64, len(levels))
	for round := range s.rounds {
		if err := s.open(ctx); err != nil {
			return "", err
		}
		for i := range turns(round, len(levels)) {
			r, err := s.send(ctx, servers[i], fleets[i], levels[i].times*s.capacity, s.lead, s.length())
			if err != nil {
				return "", fmt.Errorf("%s: %w", levels[i].name, err)
			}
			if r.rate = levels[i].times * s.capacity; i == 0 {
				s.capacity = r.goodput()
			}
			found[i] = append(found[i], r)
		}
		first := 0
		for i, l := range levels {
			if l.bare != levels[first].bare {
				first = i
			}
			shares[i] = append(shares[i], found[i].last()/found[first].last())
		}
	}
	return s.levelsTable(found, shares), nil
}

// last is the orders a second that were accepted in the last round.
func (rs results) last() float64 { return rs[len(rs)-1].goodput() + rs[len(rs)-2].goodput() }

// levelsTable shows the levels, with their goodput as shares of the first one's.
func (s *session) levelsTable(found []results, shares [][]float64) string {
	var out strings.Builder
	out.WriteString("\n| load | connections | asked for, /s | sent, /s | goodput, /s | of the first's | server's CPU µs an accepted order | the load's own | accepted P50 ms | P99 ms | P99.9 ms | refused | no answer | not sent |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	peak, least := 0.0, math.Inf(1) // the latter of those who ask for as much as there is, or more
	for i, l := range levels {
		rs := found[i]
		share := page.Median(shares[i])
		if !l.bare {
			peak = max(peak, share)
		}
		if !l.bare && (l.times > 0 || l.connections == connectionsMost) {
			least = min(least, share)
		}
		asked := "–"
		if l.times > 0 {
			asked = fmt.Sprintf("%.0f", rs.median(func(r *recorder) float64 { return r.rate }))
		}
		fmt.Fprintf(&out, "| %s | %d | %s | %.0f | %.0f | %s | %.1f | %.1f | %.1f | %.1f | %.1f | %s | %d | %s |\n",
			l.name, s.connections(l.connections), asked, rs.median((*recorder).sent), rs.median((*recorder).goodput), ratio(shares[i]),
			rs.median((*recorder).cpu), rs.median((*recorder).loadCPU), rs.quantile(50), rs.quantile(99), rs.quantile(99.9), rs.refusals(), rs.failed(), rs.unsent())
	}
	fmt.Fprintf(&out, "\nWith as much asked for as there is, or more, the least goodput is **%.2f** of the peak. 1× is what the round's first slice reached. Shares are medians of the rounds' ratios, with the half of their 95 %% interval, or their range if they are two; those of the\n"+
		"constant reply are of its own first row: what is lost there is lost to the connections, whoever serves them. An order that no connection was free for in time is not sent;\n"+
		"\"load late\" are those that the load generator itself was too late for.\n", least/peak)
	return out.String()
}

// burst lets a normal load meet a burst, and times how long it suffers.
func (s *session) burst(ctx context.Context) (string, error) {
	const before, after = 2 * time.Second, 4 * time.Second
	steady, err := s.dial(ctx, s.server, connectionsUsed)
	if err != nil {
		return "", err
	}
	defer steady.close()
	many, err := s.dial(ctx, s.server, connectionsMost)
	if err != nil {
		return "", err
	}
	defer many.close()
	type outcome struct {
		r   *recorder
		err error
	}
	var floods, normals results
	var usual, during, last, took []float64
	lost := 0
	for range s.rounds {
		if err := s.open(ctx); err != nil {
			return "", err
		}
		normal := make(chan outcome, 1)
		begin := clockd.Mono()
		go func() {
			r, err := s.send(ctx, s.server, steady, share*s.capacity, 0, before+burstLength+after)
			normal <- outcome{r, err}
		}()
		var flood *recorder
		if err = clockd.SleepUntil(ctx, begin+int64(before)); err == nil {
			flood, err = s.send(ctx, s.server, many, burstTimes*s.capacity, 0, burstLength)
		}
		n := <-normal
		if err = errors.Join(err, n.err); err != nil {
			return "", err
		}
		floods, normals = append(floods, flood), append(normals, n.r)
		p99 := n.r.between(0, before)
		usual = append(usual, p99)
		during = append(during, n.r.between(before, before+burstLength))
		last = append(last, n.r.between(before+burstLength+after-time.Second, math.MaxInt64))
		recovery, ok := n.r.recovered(before+burstLength, recoveryTimes*p99)
		if !ok {
			recovery = after
			lost++
		}
		took = append(took, recovery.Seconds())
	}
	unrecovered := ""
	if lost > 0 {
		unrecovered = fmt.Sprintf(" (%d times not within the %v that were looked at)", lost, after)
	}
	return fmt.Sprintf("\nA burst of %d× the capacity for %v on %d connections, into a steady %.0f orders/s on %d others, %d times: %.0f of the burst accepted each time,\n"+
		"in all %s refused, %s not sent. Of the steady load %s not sent. P99 of the steady load: %.1f ms before, %.1f ms during the burst, %.1f ms in the last second;\n"+
		"time from the last order of the burst until the P99 of %v is below %g times that of before, %d times in a row: **%.1f s**, at most %.1f s%s.\n",
		burstTimes, burstLength, s.connections(connectionsMost), share*s.capacity, s.connections(connectionsUsed), s.rounds,
		floods.median(func(r *recorder) float64 { return float64(r.accepted()) }), floods.refusals(), floods.unsent(), normals.unsent(),
		page.Median(usual), page.Median(during), page.Median(last),
		window, recoveryTimes, recoveryWindows, page.Median(took), slices.Max(took), unrecovered), nil
}

// slowHalf has half the shoppers stall in the middle of a request. Each way to do so takes
// turns with nobody who does.
func (s *session) slowHalf(ctx context.Context) (string, error) {
	f, err := s.dial(ctx, s.server, connectionsUsed)
	if err != nil {
		return "", err
	}
	defer f.close()
	ways := append([]slowness{{name: "none"}}, slownesses...)
	found := make([]results, len(ways))
	shares := make([][]float64, len(ways))
	for round := range s.rounds {
		if err := s.open(ctx); err != nil {
			return "", err
		}
		for i, how := range ways {
			var p99 [2]float64 // without, with
			for turn := range 2 {
				with := (turn + round) % 2
				crowd := slowness{}
				if with == 1 {
					crowd = how
				}
				r, err := s.beside(ctx, f, crowd)
				if err != nil {
					return "", fmt.Errorf("%s: %w", how.name, err)
				}
				p99[with] = r.quantile(99)
				found[with*i] = append(found[with*i], r)
			}
			shares[i] = append(shares[i], p99[1]/p99[0])
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "\nAs many shoppers slow or dead in the middle of a request as others, %d, who send a normal load. The P99 is compared with that of the slice\n"+
		"before or after, in which nobody is slow; the first row compares such slices with each other.\n\n"+
		"| the slow half | goodput of the others, /s | P50 ms | P99 ms | P99, times that without | P99.9 ms | refused | no answer | not sent |\n|---|---|---|---|---|---|---|---|---|\n",
		s.connections(connectionsUsed))
	for i, how := range ways {
		rs := found[i]
		fmt.Fprintf(&out, "| %s | %.0f | %.1f | %.1f | %s | %.1f | %s | %d | %s |\n",
			how.name, rs.median((*recorder).goodput), rs.quantile(50), rs.quantile(99), ratio(shares[i]),
			rs.quantile(99.9), rs.refusals(), rs.failed(), rs.unsent())
	}
	return out.String(), nil
}

// beside runs a normal load beside as many shoppers who are slow, or none.
func (s *session) beside(ctx context.Context, f *fleet, how slowness) (*recorder, error) {
	if how.behave != nil {
		crowd, err := gather(ctx, s.server.Listen, s.connections(connectionsUsed), how)
		if err != nil {
			return nil, err
		}
		defer crowd.leave()
	}
	return s.send(ctx, s.server, f, share*s.capacity, s.lead, s.length())
}
