package main

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
)

const heapFile = "heap.go"

var heapChapter = chapter{
	number: 2, title: "The heap", file: heapFile,
	prose: `
An order held a ` + "`*PromotionRule`" + `, was built by a constructor that returned a pointer, and had
an id made by ` + "`fmt.Sprintf`" + `. Each of these is idiomatic, and each is an allocation: what a
pointer outlives, the compiler must put on the heap. The collector then has to find all of it
again, order by order, while the sale goes on.

As it is, an order is a value with its rule inside. It is filled where it will live, and its id
is a number until somebody writes it into a buffer of their own. Both sides remember their last
100,000 orders, as a server with open orders does. What the compiler says about each line
(` + "`go build -gcflags=-m`" + `) stands beside it below.`,
	run: runHeap,
}

// openOrders is how many orders stay in memory.
const openOrders = 100_000

// ── As it was ──────────────────────────────────────────────────────────────

// PromotionRule is what a merchant has agreed to.
type PromotionRule struct {
	Name        string
	Percent     int64
	MinQuantity int64
}

type heapOrder struct {
	ID       string
	UserID   string
	Quantity int64
	Total    int64
	Rule     *PromotionRule
}

func newHeapOrder(n int64, user string, quantity int64) *heapOrder {
	// The order keeps the rule's address, so the rule cannot stay on the stack.
	rule := PromotionRule{Name: "tiered", Percent: 15, MinQuantity: 3}
	// The caller gets the order's address, so the order cannot either.
	o := &heapOrder{
		// Sprintf takes an interface, for which n is boxed, and returns a new string.
		ID:       fmt.Sprintf("d-1-%d", n),
		UserID:   user,
		Quantity: quantity,
		Rule:     &rule,
	}
	o.Total = o.price(9900)
	return o
}

func (o *heapOrder) price(unit int64) int64 {
	total := o.Quantity * unit
	if o.Quantity >= o.Rule.MinQuantity {
		total -= total * o.Rule.Percent / 100
	}
	return total
}

// ── As it is ───────────────────────────────────────────────────────────────

type promotionRule struct {
	percent     int64
	minQuantity int64
}

type valueOrder struct {
	id       int64
	user     string
	quantity int64
	total    int64
	rule     promotionRule
}

func (o *valueOrder) place(n int64, user string, quantity int64) {
	rule := promotionRule{percent: 15, minQuantity: 3} // two words, copied
	placed := valueOrder{
		id:       n,
		user:     user,
		quantity: quantity,
		rule:     rule,
	}
	placed.total = placed.price(9900)
	*o = placed // to where it will live
}

func (o *valueOrder) price(unit int64) int64 {
	total := o.quantity * unit
	if o.quantity >= o.rule.minQuantity {
		total -= total * o.rule.percent / 100
	}
	return total
}

// ── The comparison ─────────────────────────────────────────────────────────

func (s *session) heapPair() pair {
	return pair{
		title: "an order",
		columns: []column{
			{"ns/op", "%.0f"},
			{"allocs/op", "%.2f"},
			{"B/op", "%.0f"},
			{"collections/s", "%.1f"},
			{"GC pause µs/s", "%.0f"},
			{"longest pause µs", "%.0f"},
		},
		sides: []side{
			{"pointers, escaping", func(context.Context) (figures, error) {
				open := make([]*heapOrder, openOrders)
				return allocations(s.length, func(n int64) {
					open[n%openOrders] = newHeapOrder(n, "u-7", 1+n%5)
				}), nil
			}},
			{"values", func(context.Context) (figures, error) {
				open := make([]valueOrder, openOrders)
				return allocations(s.length, func(n int64) {
					open[n%openOrders].place(n, "u-7", 1+n%5)
				}), nil
			}},
		},
	}
}

// allocations calls place for some time and says what the heap had to do.
func allocations(length time.Duration, place func(n int64)) figures {
	const between = 1000 // orders between two looks at the clock
	runtime.GC()         // what others left behind is not ours to pay for
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := clockd.Mono()
	n := int64(0)
	for clockd.Mono()-begin < int64(length) {
		for range between {
			place(n)
			n++
		}
	}
	elapsed := clockd.Mono() - begin
	runtime.ReadMemStats(&after)
	seconds, orders := time.Duration(elapsed).Seconds(), float64(n)
	return figures{
		float64(elapsed) / orders,
		float64(after.Mallocs-before.Mallocs) / orders,
		float64(after.TotalAlloc-before.TotalAlloc) / orders,
		float64(after.NumGC-before.NumGC) / seconds,
		float64(after.PauseTotalNs-before.PauseTotalNs) / 1e3 / seconds,
		float64(longestPause(&before, &after)) / 1e3,
	}
}

// longestPause looks through the pauses between two readings, as far back as
// the runtime remembers.
func longestPause(before, after *runtime.MemStats) (longest uint64) {
	size := uint32(len(after.PauseNs))
	for n := range min(after.NumGC-before.NumGC, size) {
		longest = max(longest, after.PauseNs[(after.NumGC-1-n)%size])
	}
	return longest
}

func runHeap(ctx context.Context, s *session) (string, error) {
	r, err := s.measure(ctx, s.rounds, s.heapPair())
	if err != nil {
		return "", err
	}
	plot, err := s.plot("heap", "Chapter 2: ns an order", r.bars(0))
	if err != nil {
		return "", err
	}
	report, err := escapeReport(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rounds of each side, %v each.\n", s.rounds, s.length) + r.markdown() + plot +
		fmt.Sprintf("\nWith pointers the world stands still for %.2f %% of the time, %.0f µs at the longest. The rest of the difference\n"+
			"in ns/op is allocating and marking, which Go does beside the program and on the same cores.\n",
			r.medians[0][4]/1e4, r.medians[0][5]) +
		"\nWhat the compiler says:\n\n```\n" + report + "```\n", nil
}

// ── The compiler's report ──────────────────────────────────────────────────

//go:embed heap.go
var heapSource string

// reported are the functions that the page shows.
var reported = []string{"func newHeapOrder(", "func (o *valueOrder) place("}

// diagnostic is a line of -m that is about the heap.
var diagnostic = regexp.MustCompile(`^(\S+\.go):(\d+):\d+: (.*(?:escapes to heap|moved to heap|does not escape).*)$`)

// escapeReport compiles this package and sets what -m says beside the lines.
func escapeReport(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-export", "-gcflags=-m",
		"github.com/doorbuster/doorbuster/examples/incident").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go list -gcflags=-m: %w\n%s", err, out)
	}
	says := make(map[int][]string)
	for line := range strings.Lines(string(out)) {
		m := diagnostic.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || path.Base(m[1]) != heapFile {
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return "", err
		}
		says[n] = append(says[n], m[3])
	}
	return annotate(heapSource, says), nil
}

// annotate renders the reported functions with what is said about their lines.
func annotate(source string, says map[int][]string) string {
	var out strings.Builder
	inside := false
	for i, line := range strings.Split(source, "\n") {
		for _, begin := range reported {
			inside = inside || strings.HasPrefix(line, begin)
		}
		if !inside {
			continue
		}
		line = strings.ReplaceAll(line, "\t", "    ")
		if said := says[i+1]; len(said) > 0 {
			line = fmt.Sprintf("%-72s ← %s", line, strings.Join(said, "; "))
		}
		fmt.Fprintf(&out, "%4d  %s\n", i+1, line)
		if line == "}" {
			inside = false
			out.WriteString("\n")
		}
	}
	return strings.TrimSuffix(out.String(), "\n")
}
