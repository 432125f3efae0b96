package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
)

const secondsMax = 3600

// Turns is a session in which servers take turns under wrk, round by round, each fresh
// and warmed up.
type Turns struct {
	Rounds               int
	Seconds, Warmup      int // of a round, and before it; both in [1, 3600]
	Threads, Connections int // of wrk

	// What Prepare makes.
	Dir          string // scratch
	Self, Server string // this program's binary, and the product's
	Wrk          *Wrk
}

// NewTurns has two threads of wrk and 400 connections.
func NewTurns(rounds, seconds int) Turns {
	return Turns{Rounds: rounds, Seconds: seconds, Warmup: 2, Threads: 2, Connections: 400}
}

// AddFlags makes flags of the first five fields; what they hold are the defaults.
func (t *Turns) AddFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&t.Rounds, "rounds", t.Rounds, "rounds of each server")
	flags.IntVar(&t.Seconds, "seconds", t.Seconds, "seconds of a round")
	flags.IntVar(&t.Warmup, "warmup", t.Warmup, "seconds before a round that do not count")
	flags.IntVar(&t.Threads, "threads", t.Threads, "threads of wrk")
	flags.IntVar(&t.Connections, "connections", t.Connections, "connections of wrk")
}

// Validate checks what the flags were given.
func (t *Turns) Validate() error {
	if t.Rounds < 1 || t.Seconds < 1 || t.Seconds > secondsMax || t.Warmup < 1 || t.Warmup > secondsMax {
		return fmt.Errorf("--rounds must be at least 1, --seconds and --warmup in [1, %d]", secondsMax)
	}
	return nil
}

// Prepare makes the folder, builds the product and writes wrk's script. Call end in any
// case: it removes the folder.
func (t *Turns) Prepare(ctx context.Context) (end func() error, err error) {
	end = func() error { return os.RemoveAll(t.Dir) } // of "" it removes nothing
	if t.Dir, err = os.MkdirTemp("", "doorbuster-turns-"); err != nil {
		return end, err
	}
	if t.Self, err = os.Executable(); err != nil {
		return end, err
	}
	if t.Server, err = Build(ctx, t.Dir); err != nil {
		return end, err
	}
	t.Wrk, err = NewWrk(t.Dir, t.Threads, t.Connections, "/api/v1/orders")
	return end, err
}

// WarmUp loads a server for the time that does not count.
func (t *Turns) WarmUp(ctx context.Context, addr string, deals int) error {
	_, err := t.load(ctx, addr, deals, t.Warmup)
	return err
}

// Load loads a server for a round.
func (t *Turns) Load(ctx context.Context, addr string, deals int) (Load, error) {
	return t.load(ctx, addr, deals, t.Seconds)
}

// load runs wrk. Answers that are too late for its quantiles would flatter them.
func (t *Turns) load(ctx context.Context, addr string, deals, seconds int) (Load, error) {
	l, err := t.Wrk.Run(ctx, addr, deals, time.Duration(seconds)*time.Second)
	if err == nil && l.Late > 0 {
		err = fmt.Errorf("%d answers took longer than %v", l.Late, WrkTimeout)
	}
	return l, err
}

// ConstantCommand makes a hidden command of a program that measures: it serves what others are
// compared with, which answers everything with the same bytes. The program starts itself with it.
func ConstantCommand(serve func(net.Listener) error) *cobra.Command {
	return &cobra.Command{
		Use:    "constant",
		Short:  "Answer every request with the same 120 bytes",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return Answer(cmd.Context(), cmd.OutOrStdout(), "always the same", serve)
		},
	}
}

// Answer is what a stand-in for the product does until ctx ends: it listens on a free
// port of loopback, says so in its first line, with what it is, and serves.
func Answer(ctx context.Context, out io.Writer, what string, serve func(net.Listener) error) error {
	listener, err := new(net.ListenConfig).Listen(context.WithoutCancel(ctx), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "listening on %s, %s\n", listener.Addr(), what)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	if err := serve(listener); ctx.Err() == nil {
		return errors.Join(err, listener.Close())
	}
	return nil
}
