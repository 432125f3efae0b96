package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster/mtls"
)

func newKeysNodeCert() *cobra.Command {
	var dir, name string
	var hosts []string
	var renew bool
	cmd := &cobra.Command{
		Use:   "node-cert",
		Short: "Make a certificate for a node of a cluster",
		Long: `Make a certificate for a node of a cluster, good for a year.

The folder's authority signs it. If there is none it is made, for a test or a small
installation: whoever has its key, ca-key.pem, can make nodes. A node needs ca.pem
and its own two files, and no more. One that runs reads them again when they change.
Files that are there are left alone: --renew replaces a node's, with the hosts that are
given then.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			clock, err := clockd.New(clockd.Config{})
			if err != nil {
				return err
			}
			files, err := mtls.Issue(dir, name, hosts, time.UnixMilli(clock.Now().Wall), renew)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%w: give --renew to replace a node's certificate, or name another folder; an authority is never replaced", err)
			}
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "--cluster-tls-ca %s --cluster-tls-cert %s --cluster-tls-key %s --cluster-names %s\n", files.CA, files.Cert, files.Key, name)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder of the authority and of the nodes' files")
	cmd.Flags().StringVar(&name, "name", "", "name of the node, as in --cluster-names")
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "host name or address of the node, to be named in the certificate (repeatable)")
	cmd.Flags().BoolVar(&renew, "renew", false, "replace the node's certificate and key, if there are any")
	if err := cmd.MarkFlagRequired("name"); err != nil {
		panic(err)
	}
	return cmd
}
