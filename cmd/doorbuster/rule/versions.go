package rule

import (
	"context"
	"fmt"
	"io"
	"strconv"
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
