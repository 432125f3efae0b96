// Command doorbuster is the server and the tools of its operator. It wires the
// parts together and decides nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/cmd/doorbuster/bench"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
	"github.com/doorbuster/doorbuster/cmd/doorbuster/rule"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == compileRule {
		os.Exit(compileOne())
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs one command and returns the exit code of the process. The first
// signal ends the command's context; a second one ends the process at once,
// because from then on signals do what they always did.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "doorbuster: %v\n", err)
		if coded := new(rule.Error); errors.As(err, &coded) {
			return coded.Code
		}
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "doorbuster",
		Short:         "A flash-sale and group-buy order engine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	rules := rule.New()
	for _, cmd := range rules.Commands() { // their errors have exit codes of their own
		coded := cmd.FlagErrorFunc()
		cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
			return coded(cmd, config.FlagError(cmd.Flags(), err))
		})
	}
	root.AddCommand(
		newServe(), newDemo(), bench.New(), newConfig(), newKeys(), newJournal(), newCluster(), newMigrate(), newGuard(), rules, newDoctor(), newVersion(),
	)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", config.FlagError(cmd.Flags(), err), cmd.CommandPath())
	})
	for _, group := range root.Commands() {
		if !group.Runnable() { // cobra would answer a subcommand that is none with help, and success
			group.Args = cobra.NoArgs
			group.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	return root
}

// exactlyOne is cobra.ExactArgs(1) in words that name the argument.
func exactlyOne(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one argument, as in: %s", cmd.UseLine())
	}
	return nil
}
