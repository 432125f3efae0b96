// Package rule is the merchant's loop: the commands with which a promotion rule
// is begun, built, tried, uploaded, watched and taken back.
//
// What an author does before the upload needs no server. Every command prints
// for people, or with --json one document (a line each for streams), and ends
// with an exit code that a CI job can act on.
package rule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes. 0 is success.
const (
	ExitDifference  = 1 // a check failed, a fault, or a result that differs
	ExitUsage       = 2 // the command line, the project or a file is not right
	ExitUnreachable = 3 // no answer from the server
	ExitRefused     = 4 // the server said no
	ExitNoCompiler  = 5 // a compiler or a debugger is missing
)

// Error is an error with its exit code.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func failf(code int, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// coded gives an error that has no exit code one.
func coded(code int, err error) error {
	if err == nil || errors.As(err, new(*Error)) {
		return err
	}
	return &Error{Code: code, Err: err}
}

// New returns the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rule",
		Short: "Write, try and roll out promotion rules",
		Long: `Write, try and roll out promotion rules.

A project is a folder with a rule.json; the commands work on the one in the current
folder, or in -C. new, build, check and run need no server.

Exit codes: 0 done; 1 a check failed, a rule faulted, or a result differs; 2 the
command line, the project or a file is not right; 3 the server cannot be reached;
4 the server refused; 5 a compiler or a debugger is missing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	shared := &options{}
	cmd.PersistentFlags().BoolVar(&shared.json, "json", false, "print JSON")
	cmd.PersistentFlags().StringVarP(&shared.dir, "dir", "C", ".", "folder of the project")
	withUsage(cmd)
	for _, sub := range []*cobra.Command{
		newNew(shared), newBuild(shared), newCheck(shared), newRun(shared),
		newPush(shared), newVersions(shared), newRollout(shared), newPromote(shared), newRollback(shared),
		newLogs(shared), newReplay(shared), newBacktest(shared),
	} {
		withUsage(sub)
		cmd.AddCommand(sub)
	}
	return cmd
}

// withUsage gives what is wrong with a command line its exit code.
func withUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return failf(ExitUsage, "%w; see %s --help", err, cmd.CommandPath())
	})
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error { return coded(ExitUsage, check(cmd, args)) }
}

// options are the flags that all commands have.
type options struct {
	json bool
	dir  string
}

// print writes a result: as a line of JSON, or as text does it.
func (o *options) print(cmd *cobra.Command, result any, text func(io.Writer)) error {
	if !o.json {
		out := bufio.NewWriter(cmd.OutOrStdout())
		text(out)
		return out.Flush() // a CI job whose disk is full has not got the result
	}
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetEscapeHTML(false)
	return e.Encode(result)
}
