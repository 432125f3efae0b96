package rule

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// lineMax bounds one line of a stream, in bytes.
const lineMax = 1 << 20

// logLine is one evaluation of an order, as the server shows it.
type logLine struct {
	Seq     uint64 `json:"seq"`
	At      string `json:"at"`
	Version uint32 `json:"version"`
	Missed  uint64 `json:"missed"`
	answer
}

func newLogs(o *options) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show the rule's last faults, or follow what it does with orders",
		Long: `Show the rule's last faults, or follow what it does with orders.

With --follow every fault is shown, up to 100 a second, and a sample of the other
evaluations, up to 20 a second; what the rule logs is shown with each.`,
		Args: cobra.NoArgs,
	}
	r := addRemote(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		ask := request{method: http.MethodGet, path: r.rulePath("/logs")}
		if follow {
			ask.query = url.Values{"follow": {"true"}}
		}
		shown := false
		err := r.lines(cmd.Context(), ask, func(line []byte) error {
			var l logLine
			if err := json.Unmarshal(line, &l); err != nil {
				return coded(ExitRefused, err)
			}
			if !follow && l.Fault == "" {
				return nil // kept for those who followed
			}
			shown = true
			return o.print(cmd, json.RawMessage(line), l.text)
		})
		if follow && cmd.Context().Err() != nil {
			return nil // the user has seen enough
		}
		if follow && err == nil {
			return failf(ExitUnreachable, "the server ended the log: it stops, or this reader was too slow for it")
		}
		if err == nil && !shown && !follow && !o.json {
			fmt.Fprintf(cmd.OutOrStdout(), "no faults of %s since the server started; --follow shows what it does from now on\n", r.rule)
		}
		return err
	}
	return cmd
}

func (l *logLine) text(out io.Writer) {
	if l.Missed > 0 {
		fmt.Fprintf(out, "… %d missed\n", l.Missed)
	}
	fmt.Fprintf(out, "%s v%d %s fuel %d\n", l.At, l.Version, l.line(), l.Fuel)
	for _, line := range l.Logs {
		fmt.Fprintf(out, "  %q\n", line)
	}
}

// lines calls fn for each line of an answer, but for empty ones, which keep the
// connection alive.
func (r *remote) lines(ctx context.Context, ask request, fn func(line []byte) error) error {
	body, err := r.open(ctx, ask)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read to its end, or given up
	in := bufio.NewScanner(body)
	in.Buffer(nil, lineMax)
	for in.Scan() {
		if line := bytes.TrimSpace(in.Bytes()); len(line) > 0 {
			if err := fn(line); err != nil {
				return err
			}
		}
	}
	return coded(ExitUnreachable, in.Err())
}
