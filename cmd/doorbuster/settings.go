package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
)

// settings are the flags of a command that needs something of the server's
// configuration.
type settings struct {
	config config.Config
	table  *pflag.FlagSet
	file   string
	flags  *pflag.FlagSet // of the command
}

// addSettings gives a command the flags that it has a use for; the others it
// takes from the environment and the file, which it shares with the server.
func addSettings(cmd *cobra.Command, names ...string) *settings {
	s := &settings{config: config.Default(), flags: cmd.Flags()}
	s.table = s.config.Flags()
	cmd.Flags().SortFlags = false
	for _, name := range names {
		cmd.Flags().AddFlag(s.table.Lookup(name))
	}
	cmd.Flags().StringVar(&s.file, fileFlag, os.Getenv(config.Env(fileFlag)), "YAML file with any of these settings")
	return s
}

// serverSettings are those that a server has a use for.
func serverSettings() []string {
	return slices.DeleteFunc(allSettings(), func(name string) bool { return name == "key" })
}

func allSettings() (names []string) {
	c := config.Default()
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// fileFlag is the flag that names the file of settings.
const fileFlag = "config"

// load returns the effective configuration.
func (s *settings) load() (config.Config, error) {
	err := config.Load(s.table, s.file, os.Environ())
	if errors.As(err, new(*fs.PathError)) {
		from := "variable " + config.Env(fileFlag)
		if s.flags.Changed(fileFlag) {
			from = "flag --" + fileFlag
		}
		err = fmt.Errorf("%w; %s names it", err, from)
	}
	if err != nil {
		return config.Config{}, err
	}
	err = config.Locate(s.table, s.config.Validate()) // completes it, so it comes first
	return s.config, err
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	show := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration as YAML, secrets hidden",
		Args:  cobra.NoArgs,
	}
	s := addSettings(show, allSettings()...)
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := s.load(); err != nil {
			return err
		}
		cmd.Print(config.Print(s.table))
		return nil
	}
	cmd.AddCommand(show)
	return cmd
}
