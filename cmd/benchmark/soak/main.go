// Command soak serves for an hour and looks for what grows.
//
// One sale follows another: a few deals, orders at a steady rate that takes no notice
// of the answers, then the deals close and leave memory. So the server does the same
// each minute, and whatever it holds should be the same: its memory, what lives on its
// heap, its goroutines, its open files, and the time that its slowest orders take. Each
// is sampled every ten seconds, and a straight line is fitted to the samples behind the
// warm-up. The run fails if a line rises by more than its bound from its beginning to
// its end.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/gateway/client"
)

const (
	task = "go tool task soak"
	rule = "tiered" // that prices the deals

	lengthLeast = 10 * time.Second
	every       = 10 * time.Second // between two samples
	samplesLow  = 3                // that a line can be fitted to
	saleLength  = time.Minute
	saleDeals   = 10
	idleTime    = "5s" // then a closed deal leaves memory
	warmup      = 0.2  // share of the samples that do not count
	latencyMost = time.Minute
)

// figure is something that should not grow.
type figure struct {
	name, metric string
	unit         float64 // that the metric is divided by
	growthMost   float64 // from the line's beginning to its end, as a share of its middle
}

// The last figure is measured by the shoppers. What lives on the heap is a fifth of the
// size at which the next collection begins.
var figures = []figure{
	{"resident memory, MiB", "process_resident_memory_bytes", 1 << 20, 0.10},
	{"heap before a collection, MiB", "go_memstats_next_gc_bytes", 1 << 20, 0.10},
	{"goroutines", "go_goroutines", 1, 0.05},
	{"open files", "process_open_fds", 1, 0.10},
	{"P99, ms", "", 1, 0.50},
}

func main() { lab.Main(newCommand()) }

// soak is one run.
type soak struct {
	length      time.Duration
	rate        float64 // orders/s
	connections int
	page        string

	out    io.Writer
	clock  *clockd.Clock
	server *lab.Process
	begin  int64 // mono

	mu      sync.Mutex              // guards the fields below
	latency *hdrhistogram.Histogram // in µs, since the last sample
	orders  int                     // accepted
	refused int                     // with whatever status
	seconds []float64               // when each sample was taken
	samples [][]float64             // by figure
	fault   error                   // of a sample
}

func newCommand() *cobra.Command {
	s := &soak{}
	cmd := lab.Command("soak", "Serve for an hour and look for what grows", func(ctx context.Context, out io.Writer) error {
		s.out = out
		return s.run(ctx)
	})
	flags := cmd.Flags()
	flags.DurationVar(&s.length, "for", time.Hour, "how long to serve")
	flags.Float64Var(&s.rate, "rate", 2000, "orders a second")
	flags.IntVar(&s.connections, "connections", 200, "connections of the shoppers")
	flags.StringVar(&s.page, "page", "", "Markdown page that the result is written to")
	return cmd
}

func (s *soak) run(ctx context.Context) (err error) {
	if s.length < lengthLeast || s.rate <= 0 {
		return fmt.Errorf("--for must be at least %v, --rate positive", lengthLeast)
	}
	dir, err := os.MkdirTemp("", "doorbuster-soak-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if s.clock, err = clockd.New(clockd.Config{}); err != nil {
		return err
	}
	s.clock.Start()
	defer s.clock.Close()
	server, err := lab.Build(ctx, dir)
	if err != nil {
		return err
	}
	if s.server, err = lab.Serve(ctx, server, dir+"/data", "--passivate-after", idleTime); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.server.Stop()) }()
	if err := s.load(ctx); err != nil {
		return err
	}
	return s.report()
}

// load holds one sale after another, and samples the server meanwhile.
func (s *soak) load(ctx context.Context) error {
	to := client.Config{Addr: s.server.Listen, Connections: s.connections}
	c, err := client.New(to)
	if err != nil {
		return err
	}
	defer c.Close()
	s.begin, s.latency, s.samples = clockd.Mono(), newHistogram(), make([][]float64, len(figures))
	stop := s.clock.Every(every, func() { s.sample(ctx) })
	defer stop()
	for sale := 0; s.elapsed() < s.length && ctx.Err() == nil; sale++ {
		orders := lab.Orders{Deals: saleDeals, Prefix: fmt.Sprintf("s%d-", sale), Run: fmt.Sprintf("r%d", sale)}
		if err := orders.Create(ctx, to, rule); err != nil {
			return err
		}
		length := max(1, min(saleLength, s.length-s.elapsed())) // creating the deals may have taken what was left
		_, err := c.Run(ctx, client.Load{Length: length, Rate: s.rate, Next: orders.Next, Observe: s.observe})
		if err := errors.Join(err, orders.Close(ctx, to)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, latencyMost.Microseconds(), 2)
}

func (s *soak) elapsed() time.Duration { return time.Duration(clockd.Mono() - s.begin) }

// observe is for client.Load.
func (s *soak) observe(_, status int, latency time.Duration, _ []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if status != 201 {
		s.refused++
		return
	}
	s.orders++
	_ = s.latency.RecordValue(min(latency, latencyMost).Microseconds()) // is in range
}

// sample asks the server what it holds. It runs on the clock's goroutine.
func (s *soak) sample(ctx context.Context) {
	var names []string
	for _, f := range figures[:len(figures)-1] {
		names = append(names, f.metric)
	}
	values, err := s.server.Metrics(ctx, names...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			s.fault = errors.Join(s.fault, err)
		}
		return
	}
	values = append(values, float64(s.latency.ValueAtQuantile(99))/1000)
	s.latency.Reset()
	s.seconds = append(s.seconds, s.elapsed().Seconds())
	fmt.Fprintf(s.out, "%7.0f s  %9d orders", s.elapsed().Seconds(), s.orders)
	for i, f := range figures {
		s.samples[i] = append(s.samples[i], values[i]/f.unit)
		fmt.Fprintf(s.out, "  %s %.1f", f.name, values[i]/f.unit)
	}
	fmt.Fprintln(s.out)
}

// report fits the lines, writes the page and judges.
func (s *soak) report() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := int(warmup * float64(len(s.seconds)))
	if s.fault != nil || len(s.seconds)-first < samplesLow {
		return errors.Join(s.fault, fmt.Errorf("%d samples are too few", len(s.seconds)))
	}
	var table strings.Builder
	var traces []page.Trace
	var faults []error
	table.WriteString("| | mean | change an hour | change in this run | allowed |\n|---|---|---|---|---|\n")
	for i, f := range figures {
		x, y := s.seconds[first:], s.samples[i][first:]
		l := fit(x, y)
		growth := (l.at(x[len(x)-1]) - l.at(x[0])) / l.mean
		fmt.Fprintf(&table, "| %s | %.1f | %+.2f | %+.1f %% | %+.0f %% |\n", f.name, l.mean, 3600*l.slope, 100*growth, 100*f.growthMost)
		if growth > f.growthMost {
			faults = append(faults, fmt.Errorf("%s grew by %.1f %%, at most %.0f %% are allowed", f.name, 100*growth, 100*f.growthMost))
		}
		traces = append(traces, page.Trace{Label: f.name, X: s.seconds, Y: s.samples[i], From: l.at(s.seconds[0]), To: l.at(s.seconds[len(s.seconds)-1])})
	}
	if s.refused > 0 {
		fmt.Fprintf(&table, "\n%d orders were refused or not answered.\n", s.refused)
	}
	head := fmt.Sprintf("`%s -- --for %v --rate %g`: %d orders in %v of sales that follow one another, on %s. A sample every %v;\nlines are fitted behind the first %.0f %%.\n\n",
		task, s.length, s.rate, s.orders, s.elapsed().Round(time.Second), page.Machine(), every, 100*warmup)
	fmt.Fprint(s.out, "\n", head, table.String())
	return errors.Join(errors.Join(faults...), s.write(head+table.String(), traces))
}

func (s *soak) write(section string, traces []page.Trace) error {
	if s.page == "" {
		return nil
	}
	svg, err := page.Traces(fmt.Sprintf("%v at %g orders/s", s.length, s.rate), traces...)
	if err != nil {
		return err
	}
	plot, err := page.WritePlot(s.page, "soak", "What a server holds over time", svg)
	if err != nil {
		return err
	}
	return page.WriteSection(s.page, task, section+plot)
}

// line is y = mean + slope·(x − middle).
type line struct{ slope, middle, mean float64 }

func (l line) at(x float64) float64 { return l.mean + l.slope*(x-l.middle) }

// fit returns the line with the least squares.
func fit(x, y []float64) line {
	var l line
	for i := range x {
		l.middle += x[i] / float64(len(x))
		l.mean += y[i] / float64(len(x))
	}
	var up, down float64
	for i := range x {
		up += (x[i] - l.middle) * (y[i] - l.mean)
		down += (x[i] - l.middle) * (x[i] - l.middle)
	}
	l.slope = up / down
	return l
}
