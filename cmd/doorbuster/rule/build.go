package rule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/doorbuster/doorbuster/plugins/sdk/toolchain"
)

func newBuild(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Compile the rule",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := o.load()
			if err != nil {
				return err
			}
			result, err := p.build(cmd.Context())
			if err != nil {
				return err
			}
			return o.print(cmd, result, func(out io.Writer) { fmt.Fprintf(out, "%s: %d bytes\n", result.Module, result.Size) })
		},
	}
}

// built is the result of build.
type built struct {
	Rule   string `json:"rule"`
	Module string `json:"module"`
	Size   int64  `json:"size"` // bytes
}

func (p *project) build(ctx context.Context) (*built, error) {
	if _, err := os.Stat(p.path(p.Source)); err != nil {
		return nil, coded(ExitUsage, err)
	}
	if err := os.MkdirAll(filepath.Dir(p.path(p.Module)), 0o755); err != nil {
		return nil, coded(ExitUsage, err)
	}
	err := toolchain.Build(ctx, p.path(p.Source), p.path(p.Module))
	switch {
	case errors.Is(err, toolchain.ErrMissing):
		return nil, coded(ExitNoCompiler, err)
	case errors.Is(err, toolchain.ErrLanguage):
		return nil, coded(ExitUsage, err)
	case err != nil:
		return nil, coded(ExitDifference, err)
	}
	info, err := os.Stat(p.path(p.Module))
	if err != nil {
		return nil, coded(ExitDifference, err)
	}
	return &built{Rule: p.Rule, Module: p.path(p.Module), Size: info.Size()}, nil
}
