package rule

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

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

	NotRunnable string `json:"not_runnable"` // why a version that prices orders does not run, "" if all do
}

func newVersions(o *options) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use:   "versions",
		Short: "List the rule's versions, the newest first, and the deals that it is switched off for",
		Args:  cobra.NoArgs,
	}
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
		off, err := r.offIn(cmd.Context())
		if err != nil {
			return err
		}
		return o.print(cmd, struct {
			Rollout  rollout   `json:"rollout"`
			Versions []version `json:"versions"`
			// NotRunnable is state.NotRunnable.
			NotRunnable string `json:"not_runnable,omitempty"`
			offIn
		}{s.Rollout, list, s.NotRunnable, off}, func(out io.Writer) {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "VERSION\tROLE\tSIZE\tFUEL LIMIT\tSHA256\tUPLOADED")
			for _, v := range list {
				fmt.Fprintf(table, "%d\t%s\t%d\t%d\t%.12s\t%s\n", v.Version, s.Rollout.role(v.Version), v.Size, v.FuelLimit, v.SHA256, v.CreatedAt)
			}
			_ = table.Flush() // to a terminal or a buffer
			if s.NotRunnable != "" {
				fmt.Fprintf(out, "\nIt does not run: %s\n", s.NotRunnable)
			}
			off.text(out)
		})
	}
	return cmd
}

// offMax bounds the deals that are listed.
const offMax = 100

// offIn is the deals for which a rule is switched off.
type offIn struct {
	Deals []string `json:"off_in"`
	More  bool     `json:"off_in_more"` // than are listed

	rules map[string][]string // of each deal, all
}

func (r *remote) offIn(ctx context.Context) (offIn, error) {
	var page struct {
		Data []struct {
			DealID string   `json:"deal_id"`
			Rules  []string `json:"rules"`
			Off    []string `json:"rules_off"`
		} `json:"data"`
		More bool `json:"has_more"`
	}
	query := url.Values{"rule_off": {r.rule}, "limit": {strconv.Itoa(offMax)}}
	_, err := r.call(ctx, request{method: http.MethodGet, path: "/api/v1/deals", query: query}, &page)
	off := offIn{Deals: []string{}, More: page.More, rules: map[string][]string{}}
	for _, d := range page.Data {
		if !slices.Contains(d.Off, r.rule) {
			continue // a server that does not know of the filter
		}
		off.Deals = append(off.Deals, d.DealID)
		off.rules[d.DealID] = d.Rules
	}
	return off, err
}

// text names the deals, and how the rule is switched on for each.
func (o *offIn) text(out io.Writer) {
	if len(o.Deals) == 0 {
		return
	}
	fmt.Fprintf(out, "\nIt kept failing, and is switched off for these deals. To switch it on again, name their rules again:\n")
	for _, deal := range o.Deals {
		fmt.Fprintf(out, "  PATCH /api/v1/deals/%s {\"rules\":[\"%s\"]}\n", deal, strings.Join(o.rules[deal], `","`))
	}
	if o.More {
		fmt.Fprintf(out, "  … and for more than these %d\n", offMax)
	}
}

func (r *remote) version(ctx context.Context, n uint32) (v version, err error) {
	_, err = r.get(ctx, r.rulePath("/versions/"+strconv.FormatUint(uint64(n), 10)), &v)
	return v, err
}
