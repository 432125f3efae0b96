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
	root.AddCommand(
		newServe(), newDemo(), bench.New(), newConfig(), newKeys(), newJournal(), newCluster(), newMigrate(), newGuard(), rule.New(), newDoctor(), newVersion(),
	)
	return root
}
