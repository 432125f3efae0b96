package rule

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/plugins/sdk/rules"
)

// compareMax bounds the cases that are asked of both versions before a rollback.
const compareMax = 50

// version is one version as the server shows it.
type version struct {
	RuleID    string   `json:"rule_id"`
	Version   uint32   `json:"version"`
	SHA256    string   `json:"sha256"`
	Size      int      `json:"size"`
	FuelLimit uint64   `json:"fuel_limit"`
	Warnings  []string `json:"warnings"`
	CreatedAt string   `json:"created_at"`
}

// state is a rule as the server shows it.
type state struct {
	RuleID  string  `json:"rule_id"`
	Latest  uint32  `json:"latest"`
	Rollout rollout `json:"rollout"`
}

type rollout struct {
	Stable    uint32 `json:"stable"`
	Previous  uint32 `json:"previous"`
	Pinned    bool   `json:"pinned"`
	Candidate uint32 `json:"candidate"`
	Mode      string `json:"mode"`
	Percent   int    `json:"percent"`
}

// text is the rollout in words.
func (r *rollout) text() string {
	words := fmt.Sprintf("version %d prices orders", r.Stable)
	if r.Candidate != 0 {
		words += fmt.Sprintf(", candidate %d: %s", r.Candidate, r.Mode)
		if r.Percent != 0 {
			words += fmt.Sprintf(" for %d%% of users", r.Percent)
		}
	}
	if r.Pinned {
		words += ", pinned: uploads wait for promote"
	}
	return words
}

func (r *rollout) role(n uint32) string {
	switch n {
	case r.Stable:
		return "stable"
	case r.Candidate:
		return r.Mode
	case r.Previous:
		return "previous"
	}
	return ""
}

func newPush(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "push", Short: "Upload the module as a version of the rule", Args: cobra.NoArgs}
	r := addRemote(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := o.load()
		if err != nil {
			return err
		}
		wasm, err := p.wasm()
		if err != nil {
			return err
		}
		if err := r.connect(o); err != nil {
			return err
		}
		query := url.Values{}
		if p.FuelLimit != 0 {
			query.Set("fuel_limit", strconv.FormatUint(p.FuelLimit, 10))
		}
		var v version
		raw, err := r.call(cmd.Context(), request{method: http.MethodPost, path: r.rulePath("/versions"), query: query, contentType: "application/wasm", body: wasm}, &v)
		if err != nil {
			return err
		}
		return o.print(cmd, raw, func(out io.Writer) {
			fmt.Fprintf(out, "%s version %d, %d bytes, sha256 %s\n", v.RuleID, v.Version, v.Size, v.SHA256)
			for _, warning := range v.Warnings {
				fmt.Fprintf(out, "warning: %s\n", warning)
			}
		})
	}
	return cmd
}

func newVersions(o *options) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{Use: "versions", Short: "List the rule's versions, the newest first", Args: cobra.NoArgs}
	r := addRemote(cmd)
	cmd.Flags().Uint32Var(&limit, "limit", 20, "how many")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		var s state
		if _, err := r.get(cmd.Context(), r.rulePath(""), &s); err != nil {
			return err
		}
		list := []version{}
		for n := s.Latest; n > 0 && s.Latest-n < limit; n-- {
			v, err := r.version(cmd.Context(), n)
			if err != nil {
				return err
			}
			list = append(list, v)
		}
		return o.print(cmd, struct {
			Rollout  rollout   `json:"rollout"`
			Versions []version `json:"versions"`
		}{s.Rollout, list}, func(out io.Writer) {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "VERSION\tROLE\tSIZE\tFUEL LIMIT\tSHA256\tUPLOADED")
			for _, v := range list {
				fmt.Fprintf(table, "%d\t%s\t%d\t%d\t%.12s\t%s\n", v.Version, s.Rollout.role(v.Version), v.Size, v.FuelLimit, v.SHA256, v.CreatedAt)
			}
			_ = table.Flush() // to a terminal or a buffer
		})
	}
	return cmd
}

func (r *remote) version(ctx context.Context, n uint32) (v version, err error) {
	_, err = r.get(ctx, r.rulePath("/versions/"+strconv.FormatUint(uint64(n), 10)), &v)
	return v, err
}

func newRollout(o *options) *cobra.Command {
	var stable, candidate uint32
	var mode string
	var percent int
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Show which version prices orders, or set it",
		Long: `Show which version prices orders, or set it.

Without flags the rollout is shown. --stable pins a version. With --candidate and
--mode shadow the candidate runs beside it, on the same orders, and no shopper is
affected; with --mode canary it prices the orders of --percent of the users.`,
		Args: cobra.NoArgs,
	}
	r := addRemote(cmd)
	cmd.Flags().Uint32Var(&stable, "stable", 0, "version that prices orders (default: the one that does)")
	cmd.Flags().Uint32Var(&candidate, "candidate", 0, "version that is tried beside it")
	cmd.Flags().StringVar(&mode, "mode", "", "how it is tried: shadow or canary")
	cmd.Flags().IntVar(&percent, "percent", 0, "percentage of users, for a canary")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		var s state
		raw, err := r.get(cmd.Context(), r.rulePath(""), &s)
		if err != nil {
			return err
		}
		if stable == 0 && candidate == 0 && mode == "" && percent == 0 {
			return o.print(cmd, raw, func(out io.Writer) {
				fmt.Fprintf(out, "%s: %s; the newest is %d\n", s.RuleID, s.Rollout.text(), s.Latest)
			})
		}
		change := map[string]any{"stable": stable}
		if stable == 0 {
			change["stable"] = s.Rollout.Stable
		}
		if candidate != 0 {
			change["candidate"] = candidate
		}
		if mode != "" {
			change["mode"] = mode
		}
		if percent != 0 {
			change["percent"] = percent
		}
		body, err := json.Marshal(change)
		if err != nil {
			return err
		}
		return o.steer(cmd, r, request{method: http.MethodPut, path: r.rulePath("/rollout"), body: body})
	}
	return cmd
}

func newPromote(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "promote", Short: "Let the candidate, or else the newest version, price all orders", Args: cobra.NoArgs}
	r := addRemote(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		return o.steer(cmd, r, request{method: http.MethodPost, path: r.rulePath("/promote")})
	}
	return cmd
}

// steer changes a rollout and shows what came of it.
func (o *options) steer(cmd *cobra.Command, r *remote, ask request) error {
	var now rollout
	raw, err := r.call(cmd.Context(), ask, &now)
	if err != nil {
		return err
	}
	return o.print(cmd, raw, func(out io.Writer) { fmt.Fprintf(out, "%s: %s\n", r.rule, now.text()) })
}

func newRollback(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Go back to the version that was stable before, after showing the difference",
		Long: `Go back to the version that was stable before, after showing the difference.

In a project, its vectors and its sample are asked of both versions, so that it is
seen which prices change. Then the command asks, or, with --yes, goes on.`,
		Args: cobra.NoArgs,
	}
	r := addRemote(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		return o.rollback(cmd, r, yes)
	}
	return cmd
}

func (o *options) rollback(cmd *cobra.Command, r *remote, yes bool) error {
	var s state
	if _, err := r.get(cmd.Context(), r.rulePath(""), &s); err != nil {
		return err
	}
	if s.Rollout.Candidate == 0 && s.Rollout.Previous == 0 {
		return failf(ExitRefused, "%s has no version to go back to", r.rule)
	}
	// What was asked stays out of the way of --json: it goes where errors go.
	shown := cmd.ErrOrStderr()
	from, to := s.Rollout.Stable, s.Rollout.Previous
	if s.Rollout.Candidate != 0 {
		from, to = s.Rollout.Candidate, s.Rollout.Stable
	}
	if err := o.compare(cmd.Context(), shown, r, from, to); err != nil {
		return err
	}
	if !yes {
		fmt.Fprintf(shown, "Go back to version %d? [y/N] ", to)
		line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is a no
		if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
			return failf(ExitDifference, "nothing was changed")
		}
	}
	return o.steer(cmd, r, request{method: http.MethodPost, path: r.rulePath("/rollback")})
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
			return coded(ExitRefused, fmt.Errorf("%s: %w", c.Name, firstOf(err1, err2)))
		}
		if was, will := before.line(), after.line(); was != will {
			changes++
			fmt.Fprintf(out, "%s\n  now   %s\n  then  %s\n", c.Name, was, will)
		}
	}
	fmt.Fprintf(out, "%d of %d samples change\n", changes, len(cases))
	return nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
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
