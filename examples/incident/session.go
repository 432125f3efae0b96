package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/cmd/benchmark/lab"
	"github.com/doorbuster/doorbuster/cmd/benchmark/page"
	"github.com/doorbuster/doorbuster/cmd/progress"
)

// session is one run of the program.
type session struct {
	seconds, rounds int           // of a side under wrk, and how often each side gets its turn
	long, longRound int           // the same for chapter 6
	length          time.Duration // of a round without wrk
	orders, bursts  int           // that chapter 3 prices, and starves, on each side
	lockRows        []lockRow     // that chapter 1 compares the shops in

	docs   string // folder of the page; "" = none
	dir    string // scratch
	self   string // this binary
	screen screen
	clock  *clockd.Clock
}

func newSession(seconds int, docs string, out io.Writer) (*session, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	clock, err := clockd.New(clockd.Config{})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "doorbuster-incident-")
	if err != nil {
		return nil, err
	}
	clock.Start()
	return &session{
		seconds: seconds, rounds: roundsUsed, long: longTimes * seconds, longRound: longRoundsUsed,
		length: time.Duration(seconds) * time.Second, orders: ordersUsed, bursts: burstsUsed, lockRows: lockRows,
		docs: docs, dir: dir, self: self, screen: screen{out: out, redraws: progress.Terminal(out)}, clock: clock,
	}, nil
}

// wrk posts orders to addr, to the path of the incident's load test.
func (s *session) wrk(ctx context.Context, addr string, threads, connections, seconds, deals int) (lab.Load, error) {
	w, err := lab.NewWrk(s.dir, threads, connections, "/api/v1/order")
	if err != nil {
		return lab.Load{}, err
	}
	return w.Run(ctx, addr, deals, time.Duration(seconds)*time.Second)
}

func (s *session) close() error {
	s.clock.Close()
	return os.RemoveAll(s.dir)
}

// pair is what is compared: usually two sides, sometimes a step between them.
type pair struct {
	title   string
	columns []column
	sides   []side
}

// column is one figure of a round.
type column struct {
	name   string
	format string // of fmt, for a float64
}

// side is one way to do the work. round does it once and returns a figure for
// each column.
type side struct {
	name  string
	round func(context.Context) (figures, error)
}

type figures []float64

// result is what the sides of a pair showed: medians[i] belongs to sides[i] and
// is empty as long as that has had no round.
type result struct {
	pair
	rounds  [][]figures
	medians []figures
	now     int // the side whose turn it is; -1 when all is done
}

// measure lets the sides take turns, and shows what is known after each.
func (s *session) measure(ctx context.Context, rounds int, p pair) (result, error) {
	r := result{pair: p, rounds: make([][]figures, len(p.sides)), medians: make([]figures, len(p.sides))}
	s.screen.begin()
	for range rounds {
		for i, side := range p.sides {
			r.now = i
			s.screen.draw(r)
			f, err := side.round(ctx)
			if err = errors.Join(err, ctx.Err()); err != nil {
				return r, fmt.Errorf("%s: %s: %w", p.title, side.name, err)
			}
			r.rounds[i] = append(r.rounds[i], f)
			r.medians[i] = medians(r.rounds[i])
		}
	}
	r.now = -1
	s.screen.end(r)
	return r, nil
}

// medians returns the middle value of each column.
func medians(rounds []figures) figures {
	m := make(figures, len(rounds[0]))
	for column := range m {
		values := make([]float64, len(rounds))
		for i, f := range rounds {
			values[i] = f[column]
		}
		m[column] = page.Median(values)
	}
	return m
}

// cells renders one side's medians.
func (r result) cells(i int) []string {
	cells := make([]string, len(r.columns))
	for c, column := range r.columns {
		cells[c] = "…"
		if r.medians[i] != nil {
			cells[c] = fmt.Sprintf(column.format, r.medians[i][c])
		}
	}
	return cells
}

func (r result) header() []string {
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.name
	}
	return names
}

// bars returns one column as the bars of a plot.
func (r result) bars(column int) page.Group {
	g := page.Group{Label: r.title}
	for i, s := range r.sides {
		text := strings.TrimSpace(fmt.Sprintf(r.columns[column].format, r.medians[i][column]))
		g.Bars = append(g.Bars, page.Bar{Label: s.name, Value: r.medians[i][column], Text: text})
	}
	return g
}

// screen shows a table that fills while it is measured. A terminal sees it
// change in place, with a mark at the side that is at work; anything else gets
// it once it is complete.
type screen struct {
	out     io.Writer
	redraws bool
	drawn   int // lines of the table that are on the terminal
}

func (v *screen) begin() { v.drawn = 0 }

func (v *screen) draw(r result) {
	if !v.redraws {
		return
	}
	text := r.text()
	if v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", v.drawn) // up, and clear what is below
	}
	fmt.Fprint(v.out, "\x1b[?7l", text, "\x1b[?7h") // a line that is too long is cut, not wrapped
	v.drawn = strings.Count(text, "\n")
}

func (v *screen) end(r result) {
	if v.redraws {
		v.draw(r)
	} else {
		fmt.Fprint(v.out, r.text())
	}
}

// text renders the medians so far for a terminal.
func (r result) text() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\trounds\t%s\n", r.title, strings.Join(r.header(), "\t"))
	for i, s := range r.sides {
		mark := " "
		if i == r.now {
			mark = "▸"
		}
		fmt.Fprintf(w, "%s %s\t%d\t%s\n", mark, s.name, len(r.rounds[i]), strings.Join(r.cells(i), "\t"))
	}
	_ = w.Flush() // into memory
	return out.String()
}
