// Command incident plays the incident that Doorbuster answers, chapter by
// chapter, and measures each chapter as a pair: as it was, as it is.
//
//	go run ./examples/incident                 all chapters; writes docs/incident.md
//	go run ./examples/incident --chapter 3     one of them; the others' sections stay
//
// A chapter is one file, with its two sides side by side:
//
//	lock.go      1  one mutex around the order map → shards → ownership
//	heap.go      2  orders that escape to the heap → values
//	pool.go      3  sync.Pool, Put before the last use → runtime/own
//	clock.go     4  ten readings of the time an order → one stamp
//	syscalls.go  5  one write and one sync an order → group commit
//	rebuilt.go   6  the whole, under the incident's own command
//
// The sides of a chapter take turns (A B A B …), so that whatever else the
// machine does meets both, and what is reported is the median of the rounds. A
// chapter says by its own figures when this machine does not show the effect.
//
// Everything stays on loopback, is bounded in time and in connections, and ends
// by itself: a side that needs a process of its own is this binary run again,
// which ends when its standard input does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const (
	secondsMax = 60
	// longTimes is how much longer chapter 6 runs: with the default of two
	// seconds a side that is the incident's own -d30s.
	longTimes   = 15
	secondsUsed = 2

	roundsUsed     = 3
	longRoundsUsed = 2
	ordersUsed     = 1_000_000
	burstsUsed     = 100
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "incident:", err)
		os.Exit(1)
	}
}

// chapter is one of the incident's causes.
type chapter struct {
	number int
	title  string
	file   string // where its two sides stand
	prose  string // what went wrong, and what is done instead; no figures
	run    func(ctx context.Context, s *session) (section string, err error)
}

var chapters = []chapter{lockChapter, heapChapter, poolChapter, clockChapter, syscallsChapter, rebuiltChapter}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) > 0 && args[0] == childWord {
		return runChild(ctx, args[1:], in, out)
	}
	flags := flag.NewFlagSet("incident", flag.ContinueOnError)
	number := flags.Int("chapter", 0, "play only this chapter (1 to 6); 0 plays all")
	seconds := flags.Int("seconds", secondsUsed, "length of a side's round; chapter 6 takes 15 times as long")
	docs := flags.String("out", "docs", "folder of incident.md and its plots; \"\" writes none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *number < 0 || *number > len(chapters) || *seconds < 1 || *seconds > secondsMax || flags.NArg() > 0 {
		return fmt.Errorf("want --chapter 0 to %d, --seconds 1 to %d and nothing else", len(chapters), secondsMax)
	}
	s, err := newSession(*seconds, *docs, out)
	if err != nil {
		return err
	}
	return errors.Join(s.play(ctx, *number), s.close())
}

// play runs the chapters and writes each section as soon as it is known.
func (s *session) play(ctx context.Context, number int) error {
	for _, c := range chapters {
		if number != 0 && c.number != number {
			continue
		}
		fmt.Fprintf(s.screen.out, "\nChapter %d: %s\n", c.number, c.title)
		conditions := s.conditions(c)
		section, err := c.run(ctx, s)
		if err != nil {
			return fmt.Errorf("chapter %d: %w", c.number, err)
		}
		if err := s.write(c, conditions, section); err != nil {
			return err
		}
	}
	return nil
}
