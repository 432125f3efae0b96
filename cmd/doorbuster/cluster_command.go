package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/gateway/client"
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look at a cluster, and take nodes out of it",
		Long: `Look at a cluster, and take nodes out of it.

The commands ask the admin listener of any node, which answers an operator's key:
give one with --key or DOORBUSTER_KEY, unless the nodes are in open mode.`,
	}
	cmd.AddCommand(newClusterStatus(), newClusterDrain())
	return cmd
}

func newClusterStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "status", Short: "Show the members, as the node that is asked sees them", Args: cobra.NoArgs}
	s := addSettings(cmd, "admin", "key")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the answer as it is")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var body json.RawMessage
		if err := s.askAdmin(cmd.Context(), http.MethodGet, "/api/v1/admin/cluster", &body); err != nil {
			return err
		}
		if asJSON {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", body)
			return err
		}
		return printMembers(cmd.OutOrStdout(), body)
	}
	return cmd
}

func newClusterDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain <member>",
		Short: "Let a node hand its deals over and end",
		Long: `Let a node hand its deals over and end. The member is named by the address that it
advertises, or by its id, as cluster status shows them. The command returns when the
node has begun.`,
		Args: exactlyOne,
	}
	s := addSettings(cmd, "admin", "key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := s.askAdmin(cmd.Context(), http.MethodPost, "/api/v1/admin/drain?member="+url.QueryEscape(args[0]), nil)
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s drains\n", args[0])
		}
		return err
	}
	return cmd
}

// askAdmin asks the admin listener of a running server.
func (s *settings) askAdmin(ctx context.Context, method, path string, reply any) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Addr: cfg.Admin, Token: cfg.Key})
	if err != nil {
		return err
	}
	defer c.Close()
	return whereToAsk(call(ctx, c, client.Call{Method: method, Path: path}, reply))
}

// printMembers prints a table of what GET /api/v1/admin/cluster has answered.
func printMembers(to io.Writer, body []byte) error {
	var reply struct {
		Members []struct {
			Member      string `json:"member"`
			ID          string `json:"id"`
			Version     string `json:"version"`
			Self        bool   `json:"self"`
			Status      string `json:"status"`
			Deals       int    `json:"deals"`
			DealsActive int    `json:"deals_active"`
			Waiting     int    `json:"waiting"`
			Epochs      struct {
				Lowest  uint64 `json:"lowest"`
				Highest uint64 `json:"highest"`
			} `json:"epochs"`
			ClockLagMs float64 `json:"clock_lag_ms"`
			Link       struct {
				SkewMs float64 `json:"skew_ms"`
				TripMs float64 `json:"trip_ms"`
			} `json:"link"`
		} `json:"members"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return err
	}
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "MEMBER\tSTATUS\tDEALS\tACTIVE\tWAITING\tEPOCHS\tLAG\tTRIP\tSKEW\tVERSION\tID")
	for _, m := range reply.Members {
		self := ""
		if m.Self {
			self = " *"
		}
		fmt.Fprintf(out, "%s%s\t%s\t%d\t%d\t%d\t%d-%d\t%.1fms\t%.1fms\t%.1fms\t%s\t%s\n", m.Member, self, m.Status, m.Deals, m.DealsActive, m.Waiting,
			m.Epochs.Lowest, m.Epochs.Highest, m.ClockLagMs, m.Link.TripMs, m.Link.SkewMs, m.Version, m.ID)
	}
	return out.Flush()
}
