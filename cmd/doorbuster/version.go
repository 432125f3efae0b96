package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print what this binary was built from",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "doorbuster", version()) },
	}
}

// version is the module's version, or the commit for a build from a clone.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	built := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && built == "(devel)" {
			built = s.Value
		}
	}
	return fmt.Sprintf("%s %s %s/%s", built, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
