package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
)

func newServe() *cobra.Command { return newServeWithin(startGrace) }

// newServeWithin is newServe with what a start has to tidy up.
func newServeWithin(grace time.Duration) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API until a signal, then drain",
		Long: `Serve the API until a signal, then drain: the server stops being ready and
takes no new orders, what is in flight is answered, and the journal is closed.
A second signal ends the process at once.

Every flag has a twin in the environment and in the file that --config names:
--max-in-flight is DOORBUSTER_MAX_IN_FLIGHT and max_in_flight.`,
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, serverSettings()...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		idle, err := cfg.Ignored(s.table)
		if err != nil {
			return err
		}
		server, err := endOrLeave(cmd.Context(), grace, "the start", func(ctx context.Context) (*server, error) {
			return startServer(ctx, cfg, cmd.ErrOrStderr(), idle...)
		})
		if err != nil && cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
			fmt.Fprintf(cmd.ErrOrStderr(), "stopped by a signal before it was ready: %v\n", err)
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), server.banner())
		return server.run(cmd.Context())
	}
	return cmd
}

// startGrace is how long a start, or a command that reads all of a journal, may take to
// tidy up once it was told to end.
const startGrace = 2 * time.Second

// endOrLeave does work on a journal. Not all that it does looks at ctx: a store that checks
// its tables goes on until it has. So a while after the end of ctx the work is left behind,
// and the process has to end, which is to the journal what a crash is.
func endOrLeave[T any](ctx context.Context, grace time.Duration, what string, work func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		result T
		err    error
	}
	ended := make(chan outcome, 1)
	go func() {
		result, err := work(ctx)
		ended <- outcome{result, err}
	}()
	impatient := make(chan struct{})
	waiting, enough := context.WithCancel(context.WithoutCancel(ctx))
	defer enough()
	stop := context.AfterFunc(ctx, func() {
		if clockd.SleepUntil(waiting, clockd.Mono()+int64(grace)) == nil {
			close(impatient)
		}
	})
	defer stop()
	select {
	case o := <-ended:
		return o.result, o.err
	case <-impatient:
		var none T
		return none, fmt.Errorf("%w: a step of %s did not end within %v and is left undone; what was acknowledged is in the journal", ctx.Err(), what, grace)
	}
}

// run serves until ctx ends, an operator asks for the end or a listener
// breaks, and then stops the server.
func (s *server) run(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case <-s.asked:
	case err = <-s.broken:
		s.log.Error("a listener broke", "error", err)
	}
	return errors.Join(err, s.stop())
}

// exitFatal is the exit code of a process whose journal can no longer be
// trusted to keep what it is given.
const exitFatal = 2

// fatal ends the process at once: nothing that was not acknowledged may be
// acknowledged now, and a restart recovers from what is on disk.
func fatal(err error) {
	fmt.Fprintf(os.Stderr, "doorbuster: %v\n", err)
	os.Exit(exitFatal)
}
