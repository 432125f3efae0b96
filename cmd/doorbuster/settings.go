package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/doorbuster/doorbuster/cmd/doorbuster/config"
)

// settings are the flags of a command that needs the server's configuration.
type settings struct {
	config config.Config
	table  *pflag.FlagSet
	file   string
}

func addSettings(cmd *cobra.Command) *settings {
	s := &settings{config: config.Default()}
	s.table = s.config.Flags()
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(s.table)
	cmd.Flags().StringVar(&s.file, "config", os.Getenv(config.Env("config")), "YAML file with any of these settings")
	return s
}

// load returns the effective configuration.
func (s *settings) load() (config.Config, error) {
	if err := config.Load(s.table, s.file, os.Environ()); err != nil {
		return config.Config{}, err
	}
	err := s.config.Validate() // completes it, so it comes first
	return s.config, err
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	show := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration as YAML, secrets hidden",
		Args:  cobra.NoArgs,
	}
	s := addSettings(show)
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
