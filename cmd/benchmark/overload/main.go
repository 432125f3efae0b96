// Command overload measures what becomes of accepted orders when far more are
// asked for than the server can take.
//
// The load is open: orders are due on a schedule that takes no notice of the
// answers, and count from when they were due. A connection is a shopper: an order that
// soon finds none free is not sent, and shown as such. The goodput is the accepted orders
// a second. The load shares the processor with the server, which is the harder case: what
// the load takes is gone. Loads that are compared take turns, round by round; of each
// figure the median over the rounds is shown, and of a ratio the median of the rounds' own.
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
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
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
	factor          float64 // of all connections
	page            string

	out    io.Writer
	dir    string // scratch
	server *lab.Process
	orders lab.Orders
	runs   atomic.Int64 // so far

	capacity float64 // orders/s
}

func newCommand() *cobra.Command {
	s := &session{factor: 1}
	cmd := lab.Command("overload", "Measure what becomes of accepted orders when too many are asked for", func(ctx context.Context, out io.Writer) error {
		s.out = out
		return s.run(ctx)
	})
	flags := cmd.Flags()
	flags.IntVar(&s.seconds, "seconds", 5, "seconds of each load")
	flags.IntVar(&s.rounds, "rounds", 1, "how often the loads take turns, at most 99")
	flags.IntVar(&s.warmup, "warmup", 2, "seconds before the first that do not count; also how long the capacity is measured")
	flags.Float64Var(&s.factor, "connections", 1, "times as many connections as otherwise, up to 4")
	flags.StringVar(&s.page, "page", "", "Markdown page that the tables are written to")
	return cmd
}

func (s *session) validate() error {
	if s.seconds < 1 || s.seconds > secondsMax || s.warmup < 1 || s.warmup > secondsMax || s.rounds < 1 || s.rounds > roundsMax || !(s.factor > 0 && s.factor <= 4) {
		return errors.New("--seconds and --warmup must be at least 1, --rounds 1 to 99, --connections in (0, 4]")
	}
	return nil
}

// connections scales a number of connections.
func (s *session) connections(n int) int { return max(2, int(float64(n)*s.factor)) }

func (s *session) length() time.Duration { return time.Duration(s.seconds) * time.Second }

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
	s.orders = lab.Orders{Deals: 1, Prefix: "d-"}
	if s.server, err = lab.ServeDeals(ctx, binary, filepath.Join(s.dir, "data"), s.orders, rule); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.server.Stop()) }()
	var section strings.Builder
	for _, part := range []func(context.Context) (string, error){s.measureCapacity, s.levels, s.burst, s.slowHalf} {
		text, err := part(ctx)
		if err != nil {
			return err
		}
		fmt.Fprint(s.out, text)
		section.WriteString(text)
	}
	return page.WriteSection(s.page, task, section.String())
}

// dial returns a client whose connections are open: to connect takes longer than to
// order, and is not what is measured.
func (s *session) dial(ctx context.Context, connections int) (*client.Client, error) {
	c, err := client.New(client.Config{Addr: s.server.Listen, Connections: connections})
	if err != nil {
		return nil, err
	}
	orders := s.keyed()
	_, err = c.Run(ctx, client.Load{Orders: 2 * connections, Next: orders.Next})
	return c, err
}

// keyed returns orders with keys of their own.
func (s *session) keyed() lab.Orders {
	orders := s.orders
	orders.Run = strconv.FormatInt(s.runs.Add(1), 10)
	return orders
}

// send runs one load, and returns what was recorded.
func (s *session) send(ctx context.Context, c *client.Client, rate float64, length time.Duration) (*recorder, error) {
	before, err := s.server.Usage(ctx)
	if err != nil {
		return nil, err
	}
	r := newRecorder(length)
	r.summary, err = c.Run(ctx, client.Load{
		Length: length, Rate: rate, Patience: patience, Next: s.keyed().Next, Observe: r.observe,
	})
	if err != nil {
		return nil, err
	}
	after, err := s.server.Usage(ctx)
	r.used = after.Minus(before)
	return r, err
}

// load runs one load on connections of its own.
func (s *session) load(ctx context.Context, connections int, rate float64, length time.Duration) (*recorder, error) {
	c, err := s.dial(ctx, s.connections(connections))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return s.send(ctx, c, rate, length)
}

func (s *session) measureCapacity(ctx context.Context) (string, error) {
	length := time.Duration(s.warmup) * time.Second
	for range 2 { // the first warms the server up
		r, err := s.load(ctx, connectionsUsed, 0, length)
		if err != nil {
			return "", err
		}
		s.capacity = r.goodput()
	}
	return fmt.Sprintf("## Overload\n`%s -- --rounds %d --seconds %d`: one hot deal with the rule `%s`; load and server on the same %s.\n"+
		"Medians over the rounds; refused, no answer and not sent are sums.\n"+
		"Capacity, when each of %d connections waits for its answers: **%.0f orders/s**.\n",
		task, s.rounds, s.seconds, rule, page.Machine(), s.connections(connectionsUsed), s.capacity), nil
}

// turns yields 0 to n-1, from another one in each round: what the last load left behind, and
// where in a round the machine was slow, is then nobody's alone.
func turns(round, n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield((round + i) % n) {
				return
			}
		}
	}
}

// levels asks for more and more.
func (s *session) levels(ctx context.Context) (string, error) {
	type level struct {
		name        string
		times       float64 // of the capacity; 0 = as fast as the answers come
		connections int
	}
	levels := []level{
		{"1×", 1, connectionsUsed},
		{"2×", 2, 2 * connectionsUsed},
		{"5×", 5, 5 * connectionsUsed},
		{"10×", 10, connectionsMost},
		{"as fast as the answers come", 0, connectionsMost},
	}
	found := make([]results, len(levels))
	for round := range s.rounds {
		peak := 0.0
		for i := range turns(round, len(levels)) {
			l := levels[i]
			r, err := s.load(ctx, l.connections, l.times*s.capacity, s.length())
			if err != nil {
				return "", fmt.Errorf("%s: %w", l.name, err)
			}
			found[i] = append(found[i], r)
			peak = max(peak, r.goodput())
		}
		for _, rs := range found {
			rs[round].share = rs[round].goodput() / peak
		}
	}
	var out strings.Builder
	out.WriteString("\n| load | connections | asked for, /s | sent, /s | goodput, /s | of the round's best | server's CPU µs an accepted order | accepted P50 ms | P99 ms | P99.9 ms | refused | no answer | not sent |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i, l := range levels {
		rs := found[i]
		asked := "–"
		if l.times > 0 {
			asked = fmt.Sprintf("%.0f", l.times*s.capacity)
		}
		fmt.Fprintf(&out, "| %s | %d | %s | %.0f | %.0f | %.2f | %.1f | %.1f | %.1f | %.1f | %s | %d | %d |\n",
			l.name, s.connections(l.connections), asked, rs.median((*recorder).sent), rs.median((*recorder).goodput), rs.median(func(r *recorder) float64 { return r.share }),
			rs.median((*recorder).cpu), rs.quantile(50), rs.quantile(99), rs.quantile(99.9), rs.refusals(), rs.failed(), rs.unsent())
	}
	return out.String(), nil
}

// burst lets a normal load meet a burst, and times how long it suffers.
func (s *session) burst(ctx context.Context) (string, error) {
	const before, after = 2 * time.Second, 4 * time.Second
	steady, err := s.dial(ctx, s.connections(connectionsUsed))
	if err != nil {
		return "", err
	}
	defer steady.Close()
	many, err := s.dial(ctx, s.connections(connectionsMost))
	if err != nil {
		return "", err
	}
	defer many.Close()
	type outcome struct {
		r   *recorder
		err error
	}
	normal := make(chan outcome, 1)
	begin := clockd.Mono()
	go func() {
		r, err := s.send(ctx, steady, share*s.capacity, before+burstLength+after)
		normal <- outcome{r, err}
	}()
	var flood *recorder
	if err = clockd.SleepUntil(ctx, begin+int64(before)); err == nil {
		flood, err = s.send(ctx, many, burstTimes*s.capacity, burstLength)
	}
	ended := time.Duration(clockd.Mono() - begin)
	n := <-normal
	if err = errors.Join(err, n.err); err != nil {
		return "", err
	}
	usual := n.r.between(0, before)
	limit := recoveryTimes * usual
	recovery, ok := n.r.recovered(ended, limit)
	took := fmt.Sprintf("**%.1f s**", recovery.Seconds())
	if !ok {
		took = "not within the run"
	}
	return fmt.Sprintf("\nA burst of %d× the capacity for %v on %d connections, into a steady %.0f orders/s on %d others: %d of the burst accepted,\n"+
		"refused %s. P99 of the steady load: %.1f ms before, %.1f ms during the burst, %.1f ms in the last second;\n"+
		"time from the burst's end until the P99 of %v is below %g times that of before, %d times in a row: %s.\n",
		burstTimes, burstLength, s.connections(connectionsMost), share*s.capacity, s.connections(connectionsUsed), flood.accepted(),
		flood.refusals(), usual, n.r.between(before, ended), n.r.between(before+burstLength+after-time.Second, math.MaxInt64),
		window, recoveryTimes, recoveryWindows, took), nil
}

// slowHalf has half the shoppers stall in the middle of a request.
func (s *session) slowHalf(ctx context.Context) (string, error) {
	ways := append([]slowness{{name: "none"}}, slownesses...)
	found := make([]results, len(ways))
	for round := range s.rounds {
		for i := range turns(round, len(ways)) {
			r, err := s.beside(ctx, ways[i])
			if err != nil {
				return "", fmt.Errorf("%s: %w", ways[i].name, err)
			}
			found[i] = append(found[i], r)
		}
		none := found[0][round].quantile(99)
		for _, rs := range found {
			rs[round].share = rs[round].quantile(99) / none
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "\nAs many shoppers slow or dead in the middle of a request as others, %d, who send a normal load:\n\n"+
		"| the slow half | goodput of the others, /s | P50 ms | P99 ms | P99, times that of none | P99.9 ms | refused | no answer |\n|---|---|---|---|---|---|---|---|\n",
		s.connections(connectionsUsed))
	for i, how := range ways {
		rs := found[i]
		fmt.Fprintf(&out, "| %s | %.0f | %.1f | %.1f | %.2f | %.1f | %s | %d |\n",
			how.name, rs.median((*recorder).goodput), rs.quantile(50), rs.quantile(99), rs.median(func(r *recorder) float64 { return r.share }),
			rs.quantile(99.9), rs.refusals(), rs.failed())
	}
	return out.String(), nil
}

// beside runs a normal load beside as many shoppers who are slow.
func (s *session) beside(ctx context.Context, how slowness) (*recorder, error) {
	if how.behave != nil {
		crowd, err := gather(ctx, s.server.Listen, s.connections(connectionsUsed), how)
		if err != nil {
			return nil, err
		}
		defer crowd.leave()
	}
	return s.load(ctx, connectionsUsed, share*s.capacity, s.length())
}
