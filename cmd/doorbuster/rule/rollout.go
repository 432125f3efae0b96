package rule

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// rollout says which version prices orders, as the server shows it.
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

func newRollout(o *options) *cobra.Command {
	c := &change{}
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Show which version prices orders and how a candidate does, or set it",
		Long: `Show which version prices orders and how a candidate does, or set it.

Without flags the rollout is shown. --stable pins a version. With --candidate and
--mode shadow the candidate runs beside it, on the same orders, and no shopper is
affected; with --mode canary it prices the orders of --percent of the users. The
server gives a candidate up by itself when it leaves the bounds.`,
		Args: cobra.NoArgs,
	}
	r := addRemote(cmd)
	flags := cmd.Flags()
	flags.Uint32Var(&c.Stable, "stable", 0, "version that prices orders (default: the one that does)")
	flags.Uint32Var(&c.Candidate, "candidate", 0, "version that is tried beside it")
	flags.StringVar(&c.Mode, "mode", "", "how it is tried: shadow or canary")
	flags.IntVar(&c.Percent, "percent", 0, "percentage of users, for a canary")
	flags.StringVar(&c.Reason, "reason", "", "why, for the rule's events")
	bounds := map[string]*int{}
	for flag, what := range boundFlags {
		bounds[flag] = flags.Int(flag, 0, what.usage)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		set := false
		for _, flag := range []string{"stable", "candidate", "mode", "percent", "reason"} {
			set = set || flags.Changed(flag)
		}
		for flag, value := range bounds {
			if flags.Changed(flag) {
				set = true
				c.bound(boundFlags[flag].field, *value)
			}
		}
		if !set {
			return o.showRollout(cmd, r)
		}
		return o.setRollout(cmd, r, c)
	}
	return cmd
}

// change is the body of a request to set a rollout.
type change struct {
	Stable    uint32         `json:"stable"`
	Candidate uint32         `json:"candidate,omitempty"`
	Mode      string         `json:"mode,omitempty"`
	Percent   int            `json:"percent,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	Bounds    map[string]int `json:"bounds,omitempty"`
}

// boundFlags are the flags for the bounds of a candidate, in per cent.
var boundFlags = map[string]struct{ field, usage string }{
	"fault-max":    {"fault_percent_max", "percentage of the candidate's orders that may fault (default: the server's, 1)"},
	"reject-max":   {"reject_percent_max", "percentage of them that it may reject (default: the server's, 20)"},
	"discount-min": {"discount_percent_min", "average discount that it gives at least, in per cent (default: the server's, 0)"},
	"discount-max": {"discount_percent_max", "average discount that it gives at most, in per cent (default: the server's, 50)"},
}

func (c *change) bound(field string, percent int) {
	if c.Bounds == nil {
		c.Bounds = map[string]int{}
	}
	c.Bounds[field] = percent
}

func (o *options) setRollout(cmd *cobra.Command, r *remote, c *change) error {
	if c.Stable == 0 {
		var s state
		if _, err := r.get(cmd.Context(), r.rulePath(""), &s); err != nil {
			return err
		}
		c.Stable = s.Rollout.Stable
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return o.steer(cmd, r, request{method: http.MethodPut, path: r.rulePath("/rollout"), body: body})
}

// compared is a rollout with how its candidate does.
type compared struct {
	rollout
	Comparison *struct {
		Stable    figures `json:"stable"`
		Candidate figures `json:"candidate"`
		Compared  uint64  `json:"compared"`
		Different uint64  `json:"different"`
		Missed    uint64  `json:"missed"`
	} `json:"comparison"`
}

// figures are what one version did since the rollout began.
type figures struct {
	Orders          uint64  `json:"orders"`
	Faults          uint64  `json:"faults"`
	Rejections      uint64  `json:"rejections"`
	DiscountPercent float64 `json:"discount_percent"`
}

func (o *options) showRollout(cmd *cobra.Command, r *remote) error {
	var now compared
	raw, err := r.get(cmd.Context(), r.rulePath("/rollout"), &now)
	if err != nil {
		return err
	}
	var last event
	if now.Candidate == 0 && !o.json {
		if last, err = r.lastEvent(cmd.Context()); err != nil {
			return err
		}
	}
	return o.print(cmd, raw, func(out io.Writer) {
		fmt.Fprintf(out, "%s: %s\n", r.rule, now.rollout.text())
		if last.Action == "auto_rollback" {
			fmt.Fprintf(out, "candidate %d was given up at %s: %s\n", last.From, last.At, last.Why)
		}
		c := now.Comparison
		if c == nil {
			return
		}
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "VERSION\tORDERS\tFAULTS\tREJECTIONS\tAVERAGE DISCOUNT")
		for _, row := range []struct {
			version uint32
			figures figures
		}{{now.Stable, c.Stable}, {now.Candidate, c.Candidate}} {
			f := row.figures
			fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%.2f%%\n", row.version, f.Orders, f.Faults, f.Rejections, f.DiscountPercent)
		}
		_ = table.Flush() // to a terminal or a buffer
		if now.Mode == "shadow" {
			fmt.Fprintf(out, "%s compared, %d different, %d missed\n", orders(c.Compared), c.Different, c.Missed)
		}
	})
}

// event is a change of a rule.
type event struct {
	At     string `json:"at"`
	Action string `json:"action"`
	From   uint32 `json:"from"`
	Why    string `json:"why"`
}

// lastEvent returns the rule's last change, the zero event if there is none.
func (r *remote) lastEvent(ctx context.Context) (last event, err error) {
	query := url.Values{"limit": {"200"}}
	for {
		var page struct {
			Data []event `json:"data"`
			Next string  `json:"next_cursor"`
		}
		if _, err := r.call(ctx, request{method: http.MethodGet, path: r.rulePath("/events"), query: query}, &page); err != nil {
			return event{}, err
		}
		if len(page.Data) > 0 {
			last = page.Data[len(page.Data)-1]
		}
		if page.Next == "" {
			return last, nil
		}
		query.Set("cursor", page.Next)
	}
}

func newPromote(o *options) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "promote", Short: "Let the candidate, or else the newest version, price all orders", Args: cobra.NoArgs}
	r := addRemote(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the rule's events")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.connect(o); err != nil {
			return err
		}
		return o.step(cmd, r, "/promote", reason)
	}
	return cmd
}

// step takes a step of the rollout that has nothing but a reason.
func (o *options) step(cmd *cobra.Command, r *remote, path, reason string) error {
	var body []byte
	if reason != "" {
		var err error
		if body, err = json.Marshal(map[string]string{"reason": reason}); err != nil {
			return err
		}
	}
	return o.steer(cmd, r, request{method: http.MethodPost, path: r.rulePath(path), body: body})
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
