package rule

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

// compareMax bounds the cases that are asked of both versions before a rollback.
const compareMax = 50

func newRollback(o *options) *cobra.Command {
	var yes bool
	var reason string
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Give up the candidate, or else the stable version, after showing the difference",
		Long: `Give up the candidate, or else the stable version for the one before it, after
showing the difference.

In a project, its vectors and its sample are asked of both versions, so that it is
seen which prices change. Then the command asks, or, with --yes, goes on.`,
		Args: cobra.NoArgs,
	}
	r := addRemote(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the rule's events")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		if err := o.showRollback(cmd, r, yes); err != nil {
			return err
		}
		return o.step(cmd, r, "/rollback", reason)
	}
	return cmd
}

// showRollback shows what a rollback changes and, unless yes, asks whether it is
// meant. It writes where errors go: what --json prints is the result alone.
func (o *options) showRollback(cmd *cobra.Command, r *remote, yes bool) error {
	var s state
	if _, err := r.get(cmd.Context(), r.rulePath(""), &s); err != nil {
		return err
	}
	from, to := s.Rollout.Stable, s.Rollout.Previous
	if s.Rollout.Candidate != 0 {
		from, to = s.Rollout.Candidate, s.Rollout.Stable
	}
	if to == 0 {
		return failf(ExitRefused, "%s has no version to go back to", r.rule)
	}
	out := cmd.ErrOrStderr()
	if err := o.compare(cmd.Context(), out, r, from, to); err != nil || yes {
		return err
	}
	fmt.Fprintf(out, "Go back to version %d? [y/N] ", to)
	line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is a no
	if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
		return failf(ExitDifference, "nothing was changed")
	}
	return nil
}

// compare shows what changes between two versions.
func (o *options) compare(ctx context.Context, out io.Writer, r *remote, from, to uint32) error {
	for _, n := range []uint32{from, to} {
		v, err := r.version(ctx, n)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "version %d: sha256 %s, %d bytes, uploaded %s\n", n, v.SHA256, v.Size, v.CreatedAt)
	}
	p, err := o.load()
	if err != nil || p.Rule != r.rule {
		return nil // not in the rule's project: there is nothing to compare by
	}
	cases, err := p.samples()
	if err != nil {
		return err
	}
	changes := 0
	for _, c := range cases {
		before, err1 := r.evaluate(ctx, from, c.Input)
		after, err2 := r.evaluate(ctx, to, c.Input)
		if err1 != nil || err2 != nil {
			return coded(ExitRefused, fmt.Errorf("%s: %w", c.Name, errors.Join(err1, err2)))
		}
		if was, will := before.line(), after.line(); was != will {
			changes++
			fmt.Fprintf(out, "%s\n  now   %s\n  then  %s\n", c.Name, was, will)
		}
	}
	fmt.Fprintf(out, "%d of %d samples change\n", changes, len(cases))
	return nil
}

// samples are the project's vectors and its sample, at most compareMax.
func (p *project) samples() ([]rules.Case, error) {
	var list []rules.Case
	if text, err := readFile(p.path(sampleFile), fileMax); err == nil {
		list = append(list, rules.Case{Name: sampleFile, Input: text})
	}
	vectors, err := p.vectors()
	if err != nil {
		return nil, err
	}
	if vectors != nil {
		list = append(list, vectors.Cases...)
	}
	return list[:min(len(list), compareMax)], nil
}

// evaluate has the server run a version on a sample.
func (r *remote) evaluate(ctx context.Context, n uint32, input []byte) (a answer, err error) {
	path := r.rulePath("/versions/" + strconv.FormatUint(uint64(n), 10) + "/evaluate")
	_, err = r.call(ctx, request{method: http.MethodPost, path: path, body: input}, &a)
	return a, err
}
